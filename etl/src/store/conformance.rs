//! Does a store keep its promises? One case a promise, for stores of one's own too; each panics where it does not, and
//! wants a store that remembers nothing yet.

use std::sync::Arc;

use super::{CursorId, Phase, Store, TableState};
use crate::error::ErrorKind;
use crate::lsn::{Lsn, Position};
use crate::schema::{ReplicaIdentity, TableId, TableName, TableSchema};

const TABLE: TableId = TableId(u32::MAX);

fn schema(since: Position, name: &str) -> Arc<TableSchema> {
    let name = TableName::new("public", name);
    let (columns, key) = (Box::default(), Box::default());
    Arc::new(TableSchema {
        source_name: None,
        id: TABLE,
        name,
        columns,
        key,
        identity: ReplicaIdentity::Default,
        since,
    })
}

/// Compare and set: a state changes only from the revision that the caller has seen.
pub async fn a_state_changes_only_from_the_expected_revision(store: &dyn Store) {
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

/// Cursors and what is confirmed only move forward, up to the largest LSN.
pub async fn positions_never_go_back(store: &dyn Store) {
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

/// The newest schema not after a position is found, and pruning keeps it.
pub async fn the_schema_in_force_is_found_and_survives_pruning(store: &dyn Store) {
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

/// A schema put twice under one position is the later one.
pub async fn a_schema_takes_the_place_of_the_one_with_the_same_since(store: &dyn Store) {
    let since = Position::after(Lsn(u64::MAX));
    for name in ["before", "after"] {
        store.put_schema(schema(since, name)).await.unwrap();
    }
    assert_eq!(store.schema_at(TABLE, since).await.unwrap(), Some(schema(since, "after")));
    assert_eq!(store.schema_at(TABLE, Position::new(Lsn(u64::MAX), u64::MAX - 1)).await.unwrap(), None);
}

/// A fact is what was stored last under its name.
pub async fn facts_are_kept(store: &dyn Store) {
    assert_eq!(store.fact("source.system").await.unwrap(), None);
    store.set_fact("source.system", "1".to_owned()).await.unwrap();
    store.set_fact("source.system", "2".to_owned()).await.unwrap();
    assert_eq!(store.fact("source.system").await.unwrap().as_deref(), Some("2"));
}
