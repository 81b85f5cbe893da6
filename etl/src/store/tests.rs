//! Do all stores keep the same promises?

use super::*;
use crate::error::ErrorKind;

const TABLE: TableId = TableId(u32::MAX);

async fn sqlite() -> (tempfile::TempDir, SqliteStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).await.unwrap();
    (dir, store)
}

macro_rules! for_each_store {
    ($($promise:ident)*) => {
        mod memory_store {
            $(#[tokio::test] async fn $promise() { super::conformance::$promise(&super::MemoryStore::new()).await; })*
        }
        mod sqlite_store {
            $(#[tokio::test] async fn $promise() { super::conformance::$promise(&super::sqlite().await.1).await; })*
        }
    };
}

for_each_store! {
    a_state_changes_only_from_the_expected_revision
    positions_never_go_back
    the_schema_in_force_is_found_and_survives_pruning
    a_schema_takes_the_place_of_the_one_with_the_same_since
    facts_are_kept
    copies_are_kept_until_they_are_forgotten
    an_operation_changes_only_from_the_expected_revision
    dead_letters_are_stored_with_the_operation
    dead_letters_are_kept_until_they_are_removed
}

#[tokio::test]
async fn what_sqlite_stored_is_there_after_reopening() {
    let (dir, store) = sqlite().await;
    store.confirm(Lsn(5)).await.unwrap();
    let snapshot = SnapshotFilter { xmin: 1, xmax: u64::MAX, in_progress: Box::new([2, 3]), until: Lsn(9) };
    let phase = Phase::CatchingUp {
        cursor: Position::new(Lsn(4), 0),
        snapshot,
        mixed: Some(Mixed { snapshots: 2, until: Lsn(11), has_gaps: true }),
    };
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
