//! Do all stores keep the same promises?

use std::sync::Arc;

use super::*;
use crate::error::ErrorKind;
use crate::schema::{ReplicaIdentity, TableName};

const TABLE: TableId = TableId(u32::MAX);

async fn sqlite() -> (tempfile::TempDir, SqliteStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    (dir, store)
}

fn schema(since: Position, name: &str) -> Arc<TableSchema> {
    let name = TableName::new("public", name);
    let (columns, key) = (Box::default(), Box::default());
    Arc::new(TableSchema { id: TABLE, name, columns, key, identity: ReplicaIdentity::Default, since })
}

async fn a_state_changes_only_from_the_expected_revision(store: &dyn Store) {
    let copying = TableState { phase: Phase::Copying { cursor: Position::after(Lsn(5)) }, ..TableState::PENDING };
    let first = store.set_table_state(TABLE, None, TableState::PENDING).await.unwrap();
    let lost = store.set_table_state(TABLE, None, copying.clone()).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::StoreConflict);
    let second = store.set_table_state(TABLE, Some(first), copying.clone()).await.unwrap();
    assert_eq!(
        store.set_table_state(TABLE, Some(first), copying.clone()).await.unwrap_err().kind(),
        ErrorKind::StoreConflict
    );
    assert_eq!(store.table_states().await.unwrap(), [(TABLE, TableState { revision: second, ..copying })]);
}

async fn positions_never_go_back(store: &dyn Store) {
    let (low, high) = (Position::new(Lsn(9), 3), Position::after(Lsn(u64::MAX)));
    for (cursor, to) in [(CursorId::Main, high), (CursorId::Main, low), (CursorId::Table(TABLE), low)] {
        store.advance(cursor, to).await.unwrap();
    }
    store.confirm(Lsn(u64::MAX - 1)).await.unwrap();
    store.confirm(Lsn(7)).await.unwrap();
    let progress = store.progress().await.unwrap();
    assert_eq!(progress.cursor(CursorId::Main), Some(high));
    assert_eq!(progress.cursor(CursorId::Table(TABLE)), Some(low));
    assert_eq!(progress.confirmed, Some(Lsn(u64::MAX - 1)));
    store.forget_cursor(CursorId::Table(TABLE)).await.unwrap();
    assert_eq!(store.progress().await.unwrap().cursor(CursorId::Table(TABLE)), None);
}

async fn the_schema_in_force_is_found_and_survives_pruning(store: &dyn Store) {
    for (since, name) in [(0, "a"), (10, "b"), (20, "c")] {
        store.put_schema(schema(Position::new(Lsn(since), 0), name)).await.unwrap();
    }
    let name_at = async |at: u64| {
        let found = store.schema_at(TABLE, Position::after(Lsn(at))).await.unwrap();
        found.map(|schema| schema.name.name.to_string())
    };
    assert_eq!(name_at(9).await.as_deref(), Some("a"));
    assert_eq!(name_at(10).await.as_deref(), Some("b"));
    store.prune_schemas(TABLE, Position::new(Lsn(15), 0)).await.unwrap();
    assert_eq!(name_at(9).await, None);
    assert_eq!(name_at(15).await.as_deref(), Some("b"));
    assert_eq!(name_at(99).await.as_deref(), Some("c"));
}

async fn a_schema_takes_the_place_of_the_one_with_the_same_since(store: &dyn Store) {
    let since = Position::after(Lsn(u64::MAX));
    for name in ["before", "after"] {
        store.put_schema(schema(since, name)).await.unwrap();
    }
    assert_eq!(store.schema_at(TABLE, since).await.unwrap(), Some(schema(since, "after")));
    assert_eq!(store.schema_at(TABLE, Position::new(Lsn(u64::MAX), u64::MAX - 1)).await.unwrap(), None);
}

async fn facts_are_kept(store: &dyn Store) {
    assert_eq!(store.fact("source.system").await.unwrap(), None);
    store.set_fact("source.system", "1".to_owned()).await.unwrap();
    store.set_fact("source.system", "2".to_owned()).await.unwrap();
    assert_eq!(store.fact("source.system").await.unwrap().as_deref(), Some("2"));
}

macro_rules! for_each_store {
    ($($promise:ident)*) => {
        mod memory_store {
            $(#[tokio::test] async fn $promise() { super::$promise(&super::MemoryStore::new()).await; })*
        }
        mod sqlite_store {
            $(#[tokio::test] async fn $promise() { super::$promise(&super::sqlite().await.1).await; })*
        }
    };
}

for_each_store! {
    a_state_changes_only_from_the_expected_revision
    positions_never_go_back
    the_schema_in_force_is_found_and_survives_pruning
    a_schema_takes_the_place_of_the_one_with_the_same_since
    facts_are_kept
}

#[tokio::test]
async fn what_sqlite_stored_is_there_after_reopening() {
    let (dir, store) = sqlite().await;
    store.confirm(Lsn(5)).await.unwrap();
    let snapshot = SnapshotFilter { xmin: 1, xmax: u64::MAX, in_progress: Box::new([2, 3]), until: Lsn(9) };
    let phase = Phase::CatchingUp { cursor: Position::new(Lsn(4), 0), snapshot };
    store.set_table_state(TABLE, None, TableState { phase: phase.clone(), ..TableState::PENDING }).await.unwrap();
    drop(store);
    let store = SqliteStore::open(dir.path()).await.unwrap();
    assert_eq!(store.progress().await.unwrap().confirmed, Some(Lsn(5)));
    assert_eq!(store.table_states().await.unwrap()[0].1.phase, phase);
}

#[tokio::test]
async fn a_file_of_a_newer_version_and_one_that_is_no_database_are_refused() {
    let (dir, store) = sqlite().await;
    drop(store);
    let path = dir.path().join("state.sqlite");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = SqliteStore::open(dir.path()).await.unwrap_err();
    assert!(error.to_string().contains("newer version"), "{error}");
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("state.sqlite"), "this is not a database, but it is long enough to be one")
        .unwrap();
    let error = SqliteStore::open(other.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store, "{error}");
    assert!(error.to_string().contains("state.sqlite"));
}

#[tokio::test]
async fn a_file_that_another_connection_is_writing_is_locked() {
    let (dir, store) = sqlite().await;
    let other = rusqlite::Connection::open(dir.path().join("state.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.confirm(Lsn(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    assert!(error.context("path").is_some() && error.hint_text().is_some(), "{error}");
    other.execute_batch("ROLLBACK").unwrap();
    store.confirm(Lsn(1)).await.unwrap();
}

#[tokio::test]
async fn a_place_where_nothing_can_be_written_is_an_error_of_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    std::fs::create_dir_all(dir.path().join("taken/state.sqlite")).unwrap();
    for place in ["file", "taken"] {
        let error = SqliteStore::open(dir.path().join(place)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
        assert!(error.context("path").is_some() && error.hint_text().is_some(), "{error}");
    }
}
