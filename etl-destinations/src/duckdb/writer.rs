//! How is a DuckDB file written to? By connections of one process, each used by one unit at a time.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use duckdb::{Config, Connection};
use etl::destination::Capabilities;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::schema::TableId;
use etl::store::SharedStore;
use etl::{CursorId, Position};
use tokio::sync::OnceCell;

use super::config::DuckDbConfig;
use super::error::DuckDbResult;
use super::{ledger, unit};
use crate::table_destination::TableDestination;
use crate::table_name::{Case, NameRules};
use crate::table_rules::TableRules;
use crate::writer::{Step, TableWriter, TargetTable, WriteUnit};

/// The fact of the store by which a file knows whose positions it holds.
const OWNER: &str = "destination.duckdb";

/// Writes tables into one DuckDB file, exactly once.
pub struct DuckDb {
    config: DuckDbConfig,
    store: SharedStore,
    file: OnceCell<Arc<File>>,
}

/// The open file.
struct File {
    owner: String,
    /// The first connection; others are made from it.
    first: Mutex<Connection>,
    idle: Mutex<Vec<Connection>>,
    /// Taken alone while tables are made, changed or emptied: DuckDB lets only one transaction do that at a time,
    /// and whatever was begun before is over then.
    shapes: RwLock<()>,
    /// How often each table was emptied. A write that was begun before does not come after.
    emptied: Mutex<HashMap<TableId, u64>>,
}

impl fmt::Debug for DuckDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DuckDb").field("config", &self.config).finish_non_exhaustive()
    }
}

impl DuckDb {
    /// A destination that writes every table as `upsert` into the file, which is made if it is missing.
    ///
    /// # Errors
    /// `Locked` when another process has the file open, `Disk` when it cannot be written, `Config` when it is
    /// something else than a database of this version.
    pub async fn open(path: impl Into<PathBuf>, store: SharedStore) -> EtlResult<TableDestination<Self>> {
        let destination = Self::with_config(DuckDbConfig::new(path), store, TableRules::default());
        destination.writer().file().await?;
        Ok(destination)
    }

    /// A destination with these settings; the file is opened when it is first needed.
    pub fn with_config(config: DuckDbConfig, store: SharedStore, rules: TableRules) -> TableDestination<Self> {
        let writer = Self { config, store: Arc::clone(&store), file: OnceCell::new() };
        TableDestination::new(writer, store, rules)
    }

    async fn file(&self) -> EtlResult<&Arc<File>> {
        self.file.get_or_try_init(|| self.open_file()).await
    }

    async fn open_file(&self) -> EtlResult<Arc<File>> {
        let config = self.config.clone();
        let connection = blocking(move || {
            let connection = open(&config)?;
            ledger::prepare(&connection)?;
            Ok(connection)
        })
        .await
        .map_err(|error| error.with("file", self.config.path.display()))?;
        let owner = match self.store.fact(OWNER).await? {
            Some(owner) => owner,
            None => {
                let owner: String =
                    connection.query_row("SELECT uuid()::VARCHAR", [], |row| row.get(0)).or_duckdb("make a name")?;
                self.store.set_fact(OWNER, owner.clone()).await?;
                owner
            }
        };
        Ok(Arc::new(File {
            owner,
            first: Mutex::new(connection),
            idle: Mutex::default(),
            shapes: RwLock::default(),
            emptied: Mutex::default(),
        }))
    }

    /// Runs the work in a transaction, on a connection of its own; alone where it changes `shapes`. Dropping the
    /// future does not end the work: whoever comes later finds what it has committed.
    async fn run<T: Send + 'static>(
        &self,
        shapes: bool,
        work: impl FnOnce(&Connection, &str) -> EtlResult<T> + Send + 'static,
    ) -> EtlResult<T> {
        let file = Arc::clone(self.file().await?);
        let done = blocking(move || {
            let (_alone, _together) = match shapes {
                true => (Some(file.shapes.write().unwrap_or_else(PoisonError::into_inner)), None),
                false => (None, Some(file.shapes.read().unwrap_or_else(PoisonError::into_inner))),
            };
            let connection = file.connection()?;
            let done = unit::in_transaction(&connection, |connection| work(connection, &file.owner));
            if done.is_ok() {
                lock(&file.idle).push(connection);
            }
            done
        });
        done.await.map_err(|error| error.with("file", self.config.path.display()))
    }
}

impl File {
    fn times_emptied(&self, table: TableId) -> u64 {
        lock(&self.emptied).get(&table).copied().unwrap_or_default()
    }

    fn connection(&self) -> EtlResult<Connection> {
        if let Some(connection) = lock(&self.idle).pop() {
            return Ok(connection);
        }
        lock(&self.first).try_clone().or_duckdb("make a connection")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> EtlResult<T> + Send + 'static) -> EtlResult<T> {
    tokio::task::spawn_blocking(work).await.or_etl(ErrorKind::Internal, "wait for DuckDB")?
}

fn open(config: &DuckDbConfig) -> EtlResult<Connection> {
    expect_directory(&config.path)?;
    let settings = || {
        let memory = format!("{}KiB", (config.memory_limit.0 / 1024).max(1));
        let settings = Config::default().max_memory(&memory)?.with("preserve_insertion_order", "false")?;
        match config.threads {
            Some(threads) => settings.threads(threads.into()),
            None => Ok(settings),
        }
    };
    let settings = settings().or_duckdb("take its settings")?;
    Connection::open_with_flags(&config.path, settings).or_duckdb("open the file")
}

fn expect_directory(path: &Path) -> EtlResult<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    match directory {
        Some(directory) if !directory.is_dir() => {
            Err(EtlError::new(ErrorKind::Config, "the directory of the DuckDB file does not exist")
                .with("directory", directory.display())
                .hint("Make it, or give another `path`"))
        }
        _ => Ok(()),
    }
}

impl TableWriter for DuckDb {
    fn name(&self) -> &str {
        "duckdb"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_atomic()
    }

    fn name_rules(&self) -> NameRules {
        NameRules { case: Case::Ignored, ..NameRules::default() }
    }

    /// DuckDB refuses to change a table that the transaction has written to.
    fn alters_first(&self) -> bool {
        true
    }

    async fn apply(&self, unit: WriteUnit) -> EtlResult<()> {
        let file = Arc::clone(self.file().await?);
        let table = unit.chunk.map(|(table, _)| table);
        let begun = table.map(|table| file.times_emptied(table));
        let shapes = unit.steps.iter().any(|step| matches!(step, Step::Ensure(_) | Step::Alter(..)));
        self.run(shapes, move |connection, owner| {
            if table.map(|table| file.times_emptied(table)) != begun {
                return Err(EtlError::new(
                    ErrorKind::Cancelled,
                    "the table is copied anew: this chunk belongs to the copy before",
                ));
            }
            unit::apply(connection, owner, &unit)
        })
        .await
    }

    async fn reset(&self, table: &Arc<TargetTable>) -> EtlResult<()> {
        let table = Arc::clone(table);
        *lock(&self.file().await?.emptied).entry(table.id).or_default() += 1;
        self.run(true, move |connection, owner| unit::reset(connection, owner, &table)).await
    }

    async fn check_connection(&self) -> EtlResult<()> {
        if self.config.path.exists() {
            return self.file().await.map(drop);
        }
        expect_directory(&self.config.path)
    }

    async fn startup(&self) -> EtlResult<()> {
        self.file().await.map(drop)
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        self.run(false, move |connection, owner| ledger::position(connection, owner, cursor)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_limit_and_threads_are_those_of_the_config() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.duckdb");
        let config =
            DuckDbConfig { memory_limit: etl::ByteSize(64 << 20), threads: Some(3), ..DuckDbConfig::new(path) };
        let connection = open(&config).unwrap();
        let query = "SELECT current_setting('memory_limit') || ' ' || current_setting('threads')";
        let found: String = connection.query_row(query, [], |row| row.get(0)).unwrap();
        assert_eq!(found, "64.0 MiB 3");
    }
}
