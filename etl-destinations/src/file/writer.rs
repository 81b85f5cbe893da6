//! How do units reach the directory? Encoded side by side, written one after the other.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use etl::destination::Capabilities;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::retry::pause;
use etl::schema::TableId;
use etl::store::SharedStore;
use etl::{CursorId, Position};
use tokio::sync::OnceCell;

use super::config::{FileConfig, FileFormat};
use super::directory::Directory;
use super::encoding::Encoding;
use crate::table_destination::TableDestination;
use crate::table_name::{Case, NameRules};
use crate::table_rules::TableRules;
use crate::writer::{Replacement, Step, TableWriter, TargetTable, WriteUnit};

/// The fact of the store by which a directory knows whose positions it holds.
const OWNER: &str = "destination.file";

/// Writes a log of all changes into files, exactly once.
pub struct Files {
    config: FileConfig,
    encoding: Encoding,
    store: SharedStore,
    open: OnceCell<Arc<Open>>,
}

/// The open directory.
struct Open {
    directory: Mutex<Directory>,
    encoding: Encoding,
    /// How often each table was emptied. A chunk that was begun before does not come after.
    emptied: Mutex<HashMap<TableId, u64>>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Files {
    /// A destination that writes every table as JSON lines below the directory, which is made if it is missing.
    ///
    /// # Errors
    /// As of [`with_config`](Self::with_config), and `Disk` or `Locked` where the directory cannot be had.
    pub async fn open(path: impl AsRef<Path>, store: SharedStore) -> EtlResult<TableDestination<Self>> {
        let destination = Self::with_config(FileConfig::new(path.as_ref()), store, TableRules::default())?;
        destination.writer().opened().await?;
        Ok(destination)
    }

    /// A destination with these settings; the directory is opened when it is first needed.
    ///
    /// # Errors
    /// `Config` for a delimiter or a null marker that cannot be told from values, and for a write mode other than
    /// `append`.
    pub fn with_config(config: FileConfig, store: SharedStore, rules: TableRules) -> EtlResult<TableDestination<Self>> {
        let rules = rules.only_append("file")?;
        let encoding = Encoding::new(&config)?;
        let writer = Self { config, encoding, store: Arc::clone(&store), open: OnceCell::new() };
        Ok(TableDestination::new(writer, store, rules))
    }

    async fn opened(&self) -> EtlResult<&Arc<Open>> {
        self.open.get_or_try_init(|| self.open_directory()).await
    }

    async fn open_directory(&self) -> EtlResult<Arc<Open>> {
        let (config, encoding) = (self.config.clone(), self.encoding.clone());
        let known = self.store.fact(OWNER).await?;
        let is_known = known.is_some();
        let (directory, owner) = blocking(move || {
            let directory = Directory::open(&config, encoding, known)?;
            let owner = directory.owner().to_owned();
            Ok((directory, owner))
        })
        .await?;
        if !is_known {
            self.store.set_fact(OWNER, owner).await?;
        }
        let (encoding, emptied) = (self.encoding.clone(), Mutex::default());
        let open = Arc::new(Open { directory: Mutex::new(directory), encoding, emptied });
        tokio::spawn(finish_old(Arc::downgrade(&open), self.config.max_age));
        Ok(open)
    }
}

impl Open {
    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn times_emptied(&self, table: TableId) -> u64 {
        self.emptied.lock().unwrap_or_else(PoisonError::into_inner).get(&table).copied().unwrap_or_default()
    }

    fn encoded(&self, unit: &WriteUnit) -> EtlResult<Vec<Vec<u8>>> {
        let encode = |step: &Step| match step {
            Step::Write(batch) => self.encoding.encode(&batch.table, &batch.rows),
            _ => Ok(Vec::new()),
        };
        unit.steps.iter().map(encode).collect()
    }

    fn apply(&self, unit: &WriteUnit, begun: Option<u64>) -> EtlResult<()> {
        let encoded = self.encoded(unit)?;
        let mut directory = self.directory();
        if unit.chunk.map(|(table, _)| self.times_emptied(table)) != begun {
            let message = "the table is copied anew: this chunk belongs to the copy before";
            return Err(EtlError::new(ErrorKind::Cancelled, message));
        }
        directory.write(unit, &encoded)
    }
}

/// Completes files by age while nothing is written; ends with the destination.
async fn finish_old(open: Weak<Open>, max_age: Duration) {
    let interval = (max_age / 10).clamp(Duration::from_millis(20), Duration::from_secs(1));
    loop {
        pause(interval).await;
        let Some(open) = open.upgrade() else { return };
        if let Err(error) = blocking(move || open.directory().finish(false)).await {
            tracing::warn!(%error, "files that are old enough could not be completed; it is tried again");
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> EtlResult<T> + Send + 'static) -> EtlResult<T> {
    tokio::task::spawn_blocking(work).await.or_etl(ErrorKind::Internal, "wait for files")?
}

/// Whether a character may stand in the name of a file or a directory, wherever it stands.
fn is_in_names(character: char) -> bool {
    !character.is_control() && !matches!(character, '/' | '\\' | '.')
}

impl TableWriter for Files {
    fn name(&self) -> &str {
        "file"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_atomic().with_schema_changes().with_staged_runs().with_whole_runs()
    }

    fn name_rules(&self) -> NameRules {
        // Some file systems do not tell upper from lower case, and 255 bytes are what most can hold.
        NameRules { case: Case::Ignored, allows: is_in_names, longest: 200, ..NameRules::default() }
    }

    /// A JSON object leaves out what was not sent.
    fn needs_all_values(&self) -> bool {
        self.config.format != FileFormat::Jsonl
    }

    async fn apply(&self, unit: WriteUnit) -> EtlResult<()> {
        let open = Arc::clone(self.opened().await?);
        let begun = unit.chunk.map(|(table, _)| open.times_emptied(table));
        blocking(move || open.apply(&unit, begun)).await
    }

    async fn reset(&self, table: &Arc<TargetTable>) -> EtlResult<()> {
        let open = Arc::clone(self.opened().await?);
        let table = table.id;
        *open.emptied.lock().unwrap_or_else(PoisonError::into_inner).entry(table).or_default() += 1;
        blocking(move || open.directory().reset(table)).await
    }

    async fn begin_run(&self, run: &str, _tables: &[Replacement]) -> EtlResult<()> {
        let (open, run) = (Arc::clone(self.opened().await?), run.to_owned());
        blocking(move || open.directory().begin_run(&run)).await
    }

    async fn stage(&self, run: &str, unit: WriteUnit) -> EtlResult<()> {
        let (open, run) = (Arc::clone(self.opened().await?), run.to_owned());
        blocking(move || {
            let encoded = open.encoded(&unit)?;
            open.directory().stage(&run, &unit, &encoded)
        })
        .await
    }

    async fn publish(&self, run: &str, tables: &[Replacement]) -> EtlResult<()> {
        let (open, run, tables) = (Arc::clone(self.opened().await?), run.to_owned(), tables.to_vec());
        blocking(move || open.directory().publish_run(&run, &tables)).await
    }

    async fn abandon_run(&self, run: &str, _tables: &[Replacement]) -> EtlResult<()> {
        let (open, run) = (Arc::clone(self.opened().await?), run.to_owned());
        blocking(move || open.directory().abandon_run(&run)).await
    }

    async fn check_connection(&self) -> EtlResult<()> {
        if self.open.get().is_some() {
            return Ok(());
        }
        if self.config.path.exists() {
            let path = self.config.path.clone();
            return blocking(move || Directory::look(&path)).await;
        }
        let parent = self.config.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        match parent {
            Some(parent) if !parent.is_dir() => {
                Err(EtlError::new(ErrorKind::Config, "the directory that is to hold the files has no place")
                    .with("missing", parent.display())
                    .hint("Make it, or give another `path`"))
            }
            _ => Ok(()),
        }
    }

    async fn startup(&self) -> EtlResult<()> {
        self.opened().await.map(drop)
    }

    async fn shutdown(&self) -> EtlResult<()> {
        let open = Arc::clone(self.opened().await?);
        blocking(move || open.directory().finish(true)).await
    }

    async fn go_back(&self, to: Position) -> EtlResult<()> {
        let open = Arc::clone(self.opened().await?);
        blocking(move || open.directory().go_back(to)).await
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        let open = Arc::clone(self.opened().await?);
        blocking(move || Ok(open.directory().durable_position(cursor))).await
    }
}
