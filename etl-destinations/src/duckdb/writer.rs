//! How is a DuckDB file written to? By connections of one process, each used by one unit at a time.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use duckdb::{Config, Connection};
use etl::destination::{Capabilities, ValueLimits};
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::schema::TableId;
use etl::store::{Phase, SharedStore};
use etl::{CursorId, Position};
use tokio::sync::{OwnedRwLockReadGuard, RwLock as AsyncRwLock};

use super::config::DuckDbConfig;
use super::connections::Connections;
use super::error::{DuckDbResult, is_given_up};
use super::places::Tables;
use super::rows::LIMITS;
use super::{ledger, staging, unit};
use crate::table_destination::TableDestination;
use crate::table_name::{Case, NameRules};
use crate::table_rules::TableRules;
use crate::writer::{Replacement, Step, TableWriter, TargetTable, WriteUnit};

/// The fact of the store by which a file knows whose positions it holds.
const OWNER: &str = "destination.duckdb";

/// Writes tables into one DuckDB file, exactly once.
pub struct DuckDb {
    config: DuckDbConfig,
    store: SharedStore,
    /// Read by whoever uses the open file; a second one is opened only when the first is closed for sure.
    file: Arc<AsyncRwLock<Option<File>>>,
    /// How often each table was emptied. A write that was begun before does not come after.
    emptied: Arc<Mutex<HashMap<TableId, u64>>>,
}

type Open = OwnedRwLockReadGuard<Option<File>, File>;

/// The open file.
pub(super) struct File {
    owner: String,
    /// The first connection; others are made from it.
    first: Mutex<Connection>,
    idle: Mutex<Vec<Connection>>,
    /// Taken alone while tables are made, changed or emptied: DuckDB lets only one transaction do that at a time,
    /// and whatever was begun before is over then.
    shapes: RwLock<()>,
    /// DuckDB has given it up.
    is_given_up: AtomicBool,
    /// The transaction of the main cursor that the rest of a run is to come into, and how far it goes. Dropped, it is rolled
    /// back.
    pending: Mutex<Option<(Connection, Position)>>,
}

/// How a transaction stands to the others.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    /// It makes, changes or empties tables.
    shapes: bool,
    /// It changes tables: one that has written to them cannot.
    alters: bool,
    /// It goes on with the one that waits, where that goes as far as this.
    from: Option<Position>,
    /// It waits for more, having got there.
    upto: Option<Position>,
}

impl Turn {
    const BESIDE: Self = Self { shapes: false, alters: false, from: None, upto: None };
    const ALONE: Self = Self { shapes: true, ..Self::BESIDE };

    fn of(unit: &WriteUnit) -> Self {
        let alters = unit.steps.iter().any(|step| matches!(step, Step::Alter(..) | Step::Fill(..)));
        let makes = unit.steps.iter().any(|step| matches!(step, Step::Ensure(_)));
        let batch = unit.batch.as_ref().filter(|batch| batch.cursor == CursorId::Main);
        let kept = batch.filter(|batch| batch.is_piece && !batch.upto.is_boundary());
        let (from, upto) = (batch.map(|batch| batch.from), kept.map(|batch| batch.upto));
        Self { shapes: alters || makes, alters, from, upto }
    }
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
        destination.writer().open_file().await?;
        Ok(destination)
    }

    /// A destination with these settings; the file is opened when it is first needed.
    pub fn with_config(config: DuckDbConfig, store: SharedStore, rules: TableRules) -> TableDestination<Self> {
        let writer = Self { config, store: Arc::clone(&store), file: Arc::default(), emptied: Arc::default() };
        TableDestination::new(writer, store, rules)
    }

    /// For those who read the file while the pipeline writes it, in the same process.
    pub fn connections(&self) -> Connections {
        Connections::new(Arc::clone(&self.file))
    }

    /// The open file; opens it where it is not, or no more.
    async fn open_file(&self) -> EtlResult<Open> {
        loop {
            let file = Arc::clone(&self.file).read_owned().await;
            if let Ok(open) = OwnedRwLockReadGuard::try_map(file, Option::as_ref) {
                return Ok(open);
            }
            let mut file = Arc::clone(&self.file).write_owned().await;
            if file.is_some() {
                continue;
            }
            let (config, known) = (self.config.clone(), self.store.fact(OWNER).await?);
            let is_known = known.is_some();
            let opened = blocking(move || {
                let opened = File::open(&config, known)?;
                let owner = opened.owner.clone();
                *file = Some(opened);
                Ok(owner)
            });
            let owner = opened.await.map_err(|error| error.with("file", self.config.path.display()))?;
            if !is_known {
                self.store.set_fact(OWNER, owner).await?;
            }
        }
    }

    /// Closes what DuckDB has given up, once nobody uses it.
    async fn close_given_up(&self) -> EtlResult<()> {
        let mut file = Arc::clone(&self.file).write_owned().await;
        blocking(move || {
            if file.as_ref().is_some_and(|file| file.is_given_up.load(Ordering::Relaxed)) {
                *file = None;
            }
            Ok(())
        })
        .await
    }

    /// Runs the work in a transaction, on a connection of its own; alone where it changes `shapes`. Dropping the
    /// future does not end the work: whoever comes later finds what it has committed.
    async fn run<T: Send + 'static>(
        &self,
        turn: Turn,
        work: impl FnOnce(&Connection, &str) -> EtlResult<T> + Send + 'static,
    ) -> EtlResult<T> {
        let file = self.open_file().await?;
        let done = blocking(move || {
            let (_alone, _together) = match turn.shapes {
                true => (Some(file.shapes.write().unwrap_or_else(PoisonError::into_inner)), None),
                false => (None, Some(file.shapes.read().unwrap_or_else(PoisonError::into_inner))),
            };
            let done = file.begin(turn).and_then(|connection| {
                let stays_open = turn.upto.is_some();
                let done = unit::in_transaction(&connection, stays_open, |connection| work(connection, &file.owner))?;
                if turn.alters && !stays_open {
                    file.checkpoint(&connection);
                }
                match turn.upto {
                    Some(upto) => *lock(&file.pending) = Some((connection, upto)),
                    None => lock(&file.idle).push(connection),
                }
                Ok(done)
            });
            if done.as_ref().is_err_and(is_given_up) {
                file.is_given_up.store(true, Ordering::Relaxed);
            }
            done
        })
        .await;
        if done.as_ref().is_err_and(is_given_up) {
            tracing::warn!(file = %self.config.path.display(), "DuckDB has given the file up: it is opened again");
            self.close_given_up().await?;
        }
        done.map_err(|error| error.with("file", self.config.path.display()))
    }

    /// Tables that are gone at the source, or not published any more.
    async fn gone(&self) -> EtlResult<HashSet<TableId>> {
        let states = self.store.table_states().await?;
        Ok(states.into_iter().filter(|(_, state)| state.phase == Phase::Removed).map(|(id, _)| id).collect())
    }

    fn times_emptied(&self, table: TableId) -> u64 {
        lock(&self.emptied).get(&table).copied().unwrap_or_default()
    }
}

impl File {
    /// Opens the file as the one that this name has written, or a new one.
    fn open(config: &DuckDbConfig, owner: Option<String>) -> EtlResult<Self> {
        let was_there = config.path.exists();
        let opened = Self::prepare(config, owner);
        if !was_there && opened.as_ref().is_err_and(|error| error.kind() == ErrorKind::DiskFull) {
            // What there was room for is the beginning of a file, which DuckDB takes for a damaged one later. What
            // cannot be removed is told then.
            let _ = std::fs::remove_file(&config.path);
        }
        opened
    }

    fn prepare(config: &DuckDbConfig, owner: Option<String>) -> EtlResult<Self> {
        let connection = open(config)?;
        ledger::prepare(&connection)?;
        let new_name = || connection.query_row("SELECT uuid()::VARCHAR", [], |row| row.get(0)).or_duckdb("make a name");
        Ok(Self {
            owner: owner.map_or_else(new_name, Ok)?,
            first: Mutex::new(connection),
            idle: Mutex::default(),
            shapes: RwLock::default(),
            is_given_up: AtomicBool::new(false),
            pending: Mutex::default(),
        })
    }

    /// A connection in an open transaction: the one that waits, where this goes on with it, else a new one.
    fn begin(&self, turn: Turn) -> EtlResult<Connection> {
        // What waits would be in the way of whoever changes tables, and of another attempt; its rows come again.
        let waits = if turn.shapes || turn.from.is_some() { lock(&self.pending).take() } else { None };
        let connection = match waits.filter(|(_, upto)| Some(*upto) == turn.from) {
            Some((connection, _)) if !turn.alters => return Ok(connection),
            Some((connection, _)) => {
                tracing::info!("a table changes its shape: what the run has brought before is shown by itself");
                unit::commit(&connection)?;
                connection
            }
            None => self.connection()?,
        };
        if turn.alters {
            self.checkpoint(&connection);
        }
        unit::begin(&connection)?;
        Ok(connection)
    }

    fn connection(&self) -> EtlResult<Connection> {
        if let Some(connection) = lock(&self.idle).pop() {
            return Ok(connection);
        }
        self.clone_first()
    }

    /// Nothing of before or after an alteration is in one log with it: after a crash DuckDB cannot always read such a log
    /// again (duckdb/duckdb#25395). Where there is no room, the next write says so.
    fn checkpoint(&self, connection: &Connection) {
        if let Err(error) = connection.execute_batch("CHECKPOINT").or_duckdb("write a checkpoint") {
            tracing::debug!(%error, "DuckDB keeps its log");
            self.is_given_up.fetch_or(is_given_up(&error), Ordering::Relaxed);
        }
    }

    pub(super) fn clone_first(&self) -> EtlResult<Connection> {
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
        Capabilities::default().with_atomic().with_schema_changes().with_staged_runs().with_whole_runs()
    }

    fn name_rules(&self) -> NameRules {
        NameRules { case: Case::Ignored, ..NameRules::default() }
    }

    /// DuckDB refuses to change a table that the transaction has written to.
    fn alters_first(&self) -> bool {
        true
    }

    fn value_limits(&self) -> ValueLimits {
        LIMITS.values()
    }

    async fn apply(&self, unit: WriteUnit) -> EtlResult<()> {
        let table = unit.chunk.map(|(table, _)| table);
        let begun = table.map(|table| self.times_emptied(table));
        let emptied = Arc::clone(&self.emptied);
        let turn = Turn::of(&unit);
        let gone = if turn.shapes { self.gone().await? } else { HashSet::new() };
        self.run(turn, move |connection, owner| {
            if table.map(|table| lock(&emptied).get(&table).copied().unwrap_or_default()) != begun {
                return Err(EtlError::new(
                    ErrorKind::Cancelled,
                    "the table is copied anew: this chunk belongs to the copy before",
                ));
            }
            unit::apply(connection, Tables { owner, gone: &gone }, &unit)
        })
        .await
    }

    async fn reset(&self, table: &Arc<TargetTable>) -> EtlResult<()> {
        let (table, gone) = (Arc::clone(table), self.gone().await?);
        *lock(&self.emptied).entry(table.id).or_default() += 1;
        self.run(Turn::ALONE, move |connection, owner| unit::reset(connection, Tables { owner, gone: &gone }, &table))
            .await
    }

    async fn begin_run(&self, run: &str, tables: &[Replacement]) -> EtlResult<()> {
        let (run, tables) = (run.to_owned(), tables.to_vec());
        self.run(Turn::ALONE, move |connection, owner| staging::begin(connection, owner, &run, &tables)).await
    }

    async fn stage(&self, run: &str, unit: WriteUnit) -> EtlResult<()> {
        let run = run.to_owned();
        self.run(Turn::of(&unit), move |connection, owner| staging::stage(connection, owner, &run, &unit)).await
    }

    async fn publish(&self, run: &str, tables: &[Replacement]) -> EtlResult<()> {
        let (run, replaced, gone) = (run.to_owned(), tables.to_vec(), self.gone().await?);
        let publish = move |connection: &Connection, owner: &str| {
            staging::publish(connection, Tables { owner, gone: &gone }, &run, &replaced)
        };
        self.run(Turn::ALONE, publish).await
    }

    async fn abandon_run(&self, run: &str, _tables: &[Replacement]) -> EtlResult<()> {
        let run = run.to_owned();
        self.run(Turn::ALONE, move |connection, owner| staging::abandon(connection, owner, &run)).await
    }

    async fn check_connection(&self) -> EtlResult<()> {
        if self.config.path.exists() {
            return self.open_file().await.map(drop);
        }
        expect_directory(&self.config.path)
    }

    async fn startup(&self) -> EtlResult<()> {
        self.open_file().await.map(drop)
    }

    async fn go_back(&self, to: Position) -> EtlResult<()> {
        self.run(Turn::BESIDE, move |connection, owner| ledger::go_back(connection, owner, to)).await
    }

    /// What waits for the rest of a run goes: it comes again.
    async fn shutdown(&self) -> EtlResult<()> {
        if let Some(file) = &*Arc::clone(&self.file).read_owned().await {
            drop(lock(&file.pending).take());
        }
        Ok(())
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        if cursor == CursorId::Main {
            // Whoever asks goes on from what is durable.
            drop(lock(&self.open_file().await?.pending).take());
        }
        self.run(Turn::BESIDE, move |connection, owner| ledger::position(connection, owner, cursor)).await
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
