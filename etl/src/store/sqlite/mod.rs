//! How does the state survive? In one sqlite file, flushed before anything counts as stored.

mod operations;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, TransactionBehavior, params};

use super::memory::conflict;
use super::{BoxFuture, CopiedLeaf, CopyStore, CursorId, Progress, RepairKey, SchemaStore, StateStore, TableState};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::retry::{RetryPolicy, retry};
use crate::schema::{TableId, TableSchema};

/// The name of the file in the data directory.
const FILE: &str = "state.sqlite";

/// What helps where nothing can be written.
const WRITABLE: &str = "Let the user that runs this write to data_dir";

/// Each brings the file from the version before it to its own; the first makes it.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE table_state (id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, state TEXT NOT NULL) STRICT;
CREATE TABLE cursor (id INTEGER PRIMARY KEY, position TEXT NOT NULL) STRICT;
CREATE TABLE confirmed (one INTEGER PRIMARY KEY CHECK (one = 1), lsn TEXT NOT NULL) STRICT;
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE table_schema (id INTEGER, since TEXT, body TEXT NOT NULL, PRIMARY KEY (id, since)) STRICT;",
    "
CREATE TABLE copied (id INTEGER, leaf INTEGER, body TEXT NOT NULL, PRIMARY KEY (id, leaf)) STRICT;
CREATE TABLE repair (id INTEGER, key TEXT, PRIMARY KEY (id, key)) STRICT, WITHOUT ROWID;",
    "
CREATE TABLE operation (id TEXT PRIMARY KEY, revision INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE dead_letter (
    operation TEXT, ordinal INTEGER, id INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (operation, ordinal)) STRICT;",
];

/// The main cursor's id in the file; no table has this oid.
const MAIN: i64 = -1;

/// Remembers everything in a file. While its disk is full it waits until there is room.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    connection: Arc<Mutex<Connection>>,
    path: Arc<PathBuf>,
}

impl SqliteStore {
    /// Opens `state.sqlite` in this directory, or makes it.
    ///
    /// # Errors
    /// [`Disk`](ErrorKind::Disk) where it cannot be written, [`Locked`](ErrorKind::Locked) where another process
    /// is writing it, [`Store`](ErrorKind::Store) where a newer version of the program made it.
    pub async fn open(dir: impl AsRef<Path>) -> EtlResult<Self> {
        let path = dir.as_ref().join(FILE);
        let dir = dir.as_ref().to_owned();
        blocking(move || {
            std::fs::create_dir_all(&dir).map_err(|error| {
                EtlError::new(ErrorKind::Disk, "could not create the directory of the state store")
                    .with("path", dir.display())
                    .because(error)
                    .hint(WRITABLE)
            })?;
            let connection = open(&path).map_err(|error| failed(error, "open the state store", &path))??;
            Ok(Self { connection: Arc::new(Mutex::new(connection)), path: Arc::new(path) })
        })
        .await
    }

    fn call<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl Fn(&mut Connection) -> rusqlite::Result<EtlResult<T>> + Send + Sync + 'static,
    ) -> BoxFuture<'_, EtlResult<T>> {
        let work = Arc::new(work);
        let attempt = move || {
            let (work, connection, path) = (Arc::clone(&work), Arc::clone(&self.connection), Arc::clone(&self.path));
            blocking(move || {
                let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                work(&mut connection).map_err(|error| failed(error, doing, &path))?
            })
        };
        Box::pin(retry(RetryPolicy::default(), attempt))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> EtlResult<T> + Send + 'static) -> EtlResult<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(EtlError::new(ErrorKind::Internal, "a call of the state store was cut short").because(error))
    })
}

fn open(path: &Path) -> rusqlite::Result<EtlResult<Connection>> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: usize = transaction.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0))? as usize;
    if version > MIGRATIONS.len() {
        return Ok(Err(EtlError::new(ErrorKind::Store, "a newer version of this program wrote the state store")
            .with("path", path.display())
            .with("version", version)
            .with("known", MIGRATIONS.len())
            .hint("Run the newer version again")));
    }
    for migration in MIGRATIONS.iter().skip(version) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as u32)?;
    transaction.commit()?;
    Ok(Ok(connection))
}

fn failed(error: rusqlite::Error, doing: &'static str, path: &Path) -> EtlError {
    let (kind, hint) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (ErrorKind::DiskFull, "Free some space on the disk"),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => (ErrorKind::Disk, WRITABLE),
        Some(ErrorCode::SystemIoFailure) => {
            (ErrorKind::Disk, "Look whether the disk is full, and at the system's log: it may be failing")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Locked, "Another process is using the file: stop it")
        }
        _ => (ErrorKind::Store, "The file may be damaged; bring back a copy, or copy everything again without it"),
    };
    EtlError::new(kind, format!("could not {doing}")).with("path", path.display()).because(error).hint(hint)
}

/// Sixteen digits sort like the number.
fn lsn_text(lsn: Lsn) -> String {
    format!("{:016x}", lsn.0)
}

fn position_text(position: Position) -> String {
    format!("{:016x}.{:016x}", position.commit.0, position.ordinal)
}

fn number(text: &str) -> rusqlite::Result<u64> {
    u64::from_str_radix(text, 16).map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(e)))
}

fn read_position(row: &Row<'_>, place: usize) -> rusqlite::Result<Position> {
    let text: String = row.get(place)?;
    let (commit, ordinal) = text.split_once('.').unwrap_or((&text, "0"));
    Ok(Position::new(Lsn(number(commit)?), number(ordinal)?))
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(e)))
}

fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

fn cursor_id(cursor: CursorId) -> i64 {
    match cursor {
        CursorId::Main => MAIN,
        CursorId::Table(table) => i64::from(table.0),
    }
}

impl StateStore for SqliteStore {
    fn table_states(&self) -> BoxFuture<'_, EtlResult<Vec<(TableId, TableState)>>> {
        self.call("read the table states", |connection| {
            let mut query = connection.prepare_cached("SELECT id, revision, state FROM table_state ORDER BY id")?;
            let rows = query.query_map([], |row| {
                let state: TableState = json(&row.get::<_, String>(2)?)?;
                let revision = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
                Ok((TableId(row.get(0)?), TableState { revision, ..state }))
            })?;
            Ok(Ok(rows.collect::<rusqlite::Result<_>>()?))
        })
    }

    fn set_table_state(&self, table: TableId, expect: Option<u64>, state: TableState) -> BoxFuture<'_, EtlResult<u64>> {
        self.call("store a table's state", move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let query = "SELECT revision FROM table_state WHERE id = ?1";
            let found: Option<i64> = transaction.query_row(query, params![table.0], |row| row.get(0)).optional()?;
            let found = found.map(|revision| u64::try_from(revision).unwrap_or(0));
            if found != expect {
                return Ok(Err(conflict(table, expect, found)));
            }
            let revision = found.unwrap_or(0) + 1;
            let state = to_json(&TableState { revision, ..state.clone() })?;
            let number = i64::try_from(revision).unwrap_or(i64::MAX);
            transaction
                .execute("INSERT OR REPLACE INTO table_state VALUES (?1, ?2, ?3)", params![table.0, number, state])?;
            transaction.commit()?;
            Ok(Ok(revision))
        })
    }

    fn advance(&self, cursor: CursorId, to: Position) -> BoxFuture<'_, EtlResult<()>> {
        self.call("store a position", move |connection| {
            let sql = "INSERT INTO cursor VALUES (?1, ?2)
                       ON CONFLICT (id) DO UPDATE SET position = max(position, excluded.position)";
            connection.prepare_cached(sql)?.execute(params![cursor_id(cursor), position_text(to)])?;
            Ok(Ok(()))
        })
    }

    fn forget_cursor(&self, cursor: CursorId) -> BoxFuture<'_, EtlResult<()>> {
        self.call("forget a position", move |connection| {
            connection.execute("DELETE FROM cursor WHERE id = ?1", params![cursor_id(cursor)])?;
            Ok(Ok(()))
        })
    }

    fn confirm(&self, end: Lsn) -> BoxFuture<'_, EtlResult<()>> {
        self.call("store what is confirmed", move |connection| {
            let sql =
                "INSERT INTO confirmed VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET lsn = max(lsn, excluded.lsn)";
            connection.prepare_cached(sql)?.execute(params![lsn_text(end)])?;
            Ok(Ok(()))
        })
    }

    fn set_back(&self, confirmed: Lsn) -> BoxFuture<'_, EtlResult<()>> {
        self.call("store what is confirmed", move |connection| {
            connection.execute("INSERT OR REPLACE INTO confirmed VALUES (1, ?1)", params![lsn_text(confirmed)])?;
            Ok(Ok(()))
        })
    }

    fn progress(&self) -> BoxFuture<'_, EtlResult<Progress>> {
        self.call("read the positions", |connection| {
            let mut query = connection.prepare_cached("SELECT id, position FROM cursor ORDER BY id")?;
            let cursors = query.query_map([], |row| {
                let id = u32::try_from(row.get::<_, i64>(0)?).map_or(CursorId::Main, |id| CursorId::Table(TableId(id)));
                Ok((id, read_position(row, 1)?))
            })?;
            let cursors = cursors.collect::<rusqlite::Result<_>>()?;
            let confirmed: Option<String> =
                connection.query_row("SELECT lsn FROM confirmed", [], |row| row.get(0)).optional()?;
            let confirmed = confirmed.map(|text| number(&text).map(Lsn)).transpose()?;
            Ok(Ok(Progress { cursors, confirmed }))
        })
    }

    fn fact(&self, name: &'static str) -> BoxFuture<'_, EtlResult<Option<String>>> {
        self.call("read a fact", move |connection| {
            let query = "SELECT value FROM fact WHERE name = ?1";
            Ok(Ok(connection.query_row(query, params![name], |row| row.get(0)).optional()?))
        })
    }

    fn set_fact(&self, name: &'static str, value: String) -> BoxFuture<'_, EtlResult<()>> {
        self.call("store a fact", move |connection| {
            connection.execute("INSERT OR REPLACE INTO fact VALUES (?1, ?2)", params![name, value])?;
            Ok(Ok(()))
        })
    }
}

impl SchemaStore for SqliteStore {
    fn schema_at(&self, table: TableId, at: Position) -> BoxFuture<'_, EtlResult<Option<Arc<TableSchema>>>> {
        self.call("read a schema", move |connection| {
            let query = "SELECT body FROM table_schema WHERE id = ?1 AND since <= ?2 ORDER BY since DESC LIMIT 1";
            let mut query = connection.prepare_cached(query)?;
            let body =
                query.query_row(params![table.0, position_text(at)], |row| row.get::<_, String>(0)).optional()?;
            Ok(Ok(body.map(|body| json::<TableSchema>(&body).map(Arc::new)).transpose()?))
        })
    }

    fn put_schema(&self, schema: Arc<TableSchema>) -> BoxFuture<'_, EtlResult<()>> {
        self.call("store a schema", move |connection| {
            let (id, since, body) = (schema.id.0, position_text(schema.since), to_json(&*schema)?);
            connection.execute("INSERT OR REPLACE INTO table_schema VALUES (?1, ?2, ?3)", params![id, since, body])?;
            Ok(Ok(()))
        })
    }

    fn prune_schemas(&self, table: TableId, before: Position) -> BoxFuture<'_, EtlResult<()>> {
        self.call("forget old schemas", move |connection| {
            let sql = "DELETE FROM table_schema WHERE id = ?1 AND since <
                       (SELECT max(since) FROM table_schema WHERE id = ?1 AND since <= ?2)";
            connection.execute(sql, params![table.0, position_text(before)])?;
            Ok(Ok(()))
        })
    }
}

impl CopyStore for SqliteStore {
    fn copied(&self, table: TableId) -> BoxFuture<'_, EtlResult<Vec<CopiedLeaf>>> {
        self.call("read what is copied", move |connection| {
            let mut query = connection.prepare_cached("SELECT body FROM copied WHERE id = ?1")?;
            let leaves = query.query_map(params![table.0], |row| json(&row.get::<_, String>(0)?))?;
            Ok(Ok(leaves.collect::<rusqlite::Result<_>>()?))
        })
    }

    fn put_copied(&self, table: TableId, leaf: CopiedLeaf) -> BoxFuture<'_, EtlResult<()>> {
        self.call("store what is copied", move |connection| {
            let sql = "INSERT OR REPLACE INTO copied VALUES (?1, ?2, ?3)";
            connection.prepare_cached(sql)?.execute(params![table.0, leaf.leaf.0, to_json(&leaf)?])?;
            Ok(Ok(()))
        })
    }

    fn repairs(&self, table: TableId) -> BoxFuture<'_, EtlResult<Vec<RepairKey>>> {
        self.call("read what is to be repaired", move |connection| {
            let mut query = connection.prepare_cached("SELECT key FROM repair WHERE id = ?1")?;
            let keys = query.query_map(params![table.0], |row| json(&row.get::<_, String>(0)?))?;
            Ok(Ok(keys.collect::<rusqlite::Result<_>>()?))
        })
    }

    fn add_repairs(&self, table: TableId, keys: Vec<RepairKey>) -> BoxFuture<'_, EtlResult<()>> {
        self.call("store what is to be repaired", move |connection| {
            for_each_key(connection, "INSERT OR IGNORE INTO repair VALUES (?1, ?2)", table, &keys)
        })
    }

    fn remove_repairs(&self, table: TableId, keys: Vec<RepairKey>) -> BoxFuture<'_, EtlResult<()>> {
        self.call("store what is repaired", move |connection| {
            for_each_key(connection, "DELETE FROM repair WHERE id = ?1 AND key = ?2", table, &keys)
        })
    }

    fn forget_copy(&self, table: TableId) -> BoxFuture<'_, EtlResult<()>> {
        self.call("forget a copy", move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute("DELETE FROM copied WHERE id = ?1", params![table.0])?;
            transaction.execute("DELETE FROM repair WHERE id = ?1", params![table.0])?;
            transaction.commit()?;
            Ok(Ok(()))
        })
    }
}

/// All or nothing.
fn for_each_key(
    connection: &mut Connection,
    sql: &str,
    table: TableId,
    keys: &[RepairKey],
) -> rusqlite::Result<EtlResult<()>> {
    let transaction = connection.transaction()?;
    for key in keys {
        transaction.prepare_cached(sql)?.execute(params![table.0, to_json(key)?])?;
    }
    transaction.commit()?;
    Ok(Ok(()))
}
