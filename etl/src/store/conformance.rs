//! Does a store keep its promises? One case a promise, for stores of one's own too; each panics where it does not, and
//! wants a store that remembers nothing yet.

use std::sync::Arc;

use super::{
    Accounting, CopiedLeaf, CursorId, DeadLetter, DeadLetterId, Operation, OperationContext, OperationId,
    OperationState, Phase, RepairKey, Store, TableState,
};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::lsn::{Lsn, Position};
use crate::schema::{ReplicaIdentity, TableId, TableName, TableSchema};

const TABLE: TableId = TableId(u32::MAX);

fn schema(since: Position, name: &str) -> Arc<TableSchema> {
    let name = TableName::new("public", name);
    let (columns, key) = (Box::default(), Box::default());
    Arc::new(TableSchema {
        last_attnum: 0,
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
    let copying =
        TableState { phase: Phase::Copying { cursor: Position::after(Lsn(5)), so_far: None }, ..TableState::PENDING };
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
    store.set_back(Lsn(7)).await.unwrap();
    assert_eq!(store.progress().await.unwrap().confirmed, Some(Lsn(7)), "unless it is told to");
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

/// What a copy has done and still owes is kept, table by table, until it is forgotten.
pub async fn copies_are_kept_until_they_are_forgotten(store: &dyn Store) {
    let other = TableId(7);
    let leaf = |leaf, end| CopiedLeaf { leaf: TableId(leaf), filenode: "1".into(), pages: vec![(0, end)], rows: end };
    let key = |words: &[&str]| RepairKey(words.iter().map(ToString::to_string).collect());
    for (table, part) in
        [(TABLE, leaf(1, 5)), (TABLE, leaf(2, 3)), (TABLE, leaf(1, u64::MAX >> 1)), (other, leaf(1, 1))]
    {
        store.put_copied(table, part).await.unwrap();
    }
    let mut copied = store.copied(TABLE).await.unwrap();
    copied.sort_by_key(|leaf| leaf.leaf);
    assert_eq!(copied, [leaf(1, u64::MAX >> 1), leaf(2, 3)]);

    let long = "ü'\"\\ ".repeat(2000);
    let keys = vec![key(&["1", &long]), key(&["1", "2"]), key(&["1", "2"])];
    store.add_repairs(TABLE, keys.clone()).await.unwrap();
    store.add_repairs(TABLE, keys).await.unwrap();
    store.add_repairs(other, vec![key(&["1", "2"])]).await.unwrap();
    store.add_repairs(other, Vec::new()).await.unwrap();
    let mut repairs = store.repairs(TABLE).await.unwrap();
    repairs.sort();
    assert_eq!(repairs, [key(&["1", "2"]), key(&["1", &long])]);
    store.remove_repairs(TABLE, vec![key(&["1", &long]), key(&["unknown", ""])]).await.unwrap();
    assert_eq!(store.repairs(TABLE).await.unwrap(), [key(&["1", "2"])]);

    store.forget_copy(TABLE).await.unwrap();
    assert_eq!((store.copied(TABLE).await.unwrap().len(), store.repairs(TABLE).await.unwrap().len()), (0, 0));
    assert_eq!((store.copied(other).await.unwrap().len(), store.repairs(other).await.unwrap().len()), (1, 1));
}

fn operation(id: &str, sequence: u64) -> Operation {
    Operation {
        id: OperationId(id.into()),
        revision: 0,
        sequence,
        table: TABLE,
        generation: 1,
        first: Position::new(Lsn(5), 1),
        last: Position::after(Lsn(u64::MAX)),
        rows: 3,
        bytes: u64::MAX >> 1,
        sealed_at: Timestamp(7),
        attempts: 0,
        is_replay: true,
        state: OperationState::Sealed { not_before: None, reason: None },
    }
}

fn letter(operation: &str, ordinal: u32, table: TableId, reason: &str) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId { operation: OperationId(operation.into()), ordinal },
        table,
        position: Position::new(Lsn(5), u64::from(ordinal)),
        key: Some(Box::new(["ü'\"\\\0 ".to_owned()])),
        change_type: "INSERT".into(),
        row: serde_json::json!({"v": 1.10, "n": "\0", "nothing": null}),
        code: "400".to_owned(),
        reason: reason.to_owned(),
        at: Timestamp(9),
        attempts: 2,
        is_partial: true,
        is_logged: false,
        is_overtaken: ordinal == 2,
        replayed_in: Some(OperationId("c".into())),
    }
}

/// Compare and set: an operation changes only from the revision that the caller has seen, with what the system said of it.
pub async fn an_operation_changes_only_from_the_expected_revision(store: &dyn Store) {
    let first = store.put_operation(None, operation("b", 1), Vec::new()).await.unwrap();
    store.put_operation(None, operation("a", 2), Vec::new()).await.unwrap();
    let context = OperationContext { step: 1, vendor: serde_json::json!({"id": "j\0ob"}), rows: (0, 3) };
    let state = OperationState::Submitting { since: Timestamp(8), contexts: vec![context] };
    let submitting = Operation { attempts: 1, state, ..operation("b", 1) };
    let lost = store.put_operation(None, submitting.clone(), vec![letter("b", 0, TABLE, "x")]).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::StoreConflict);
    let second = store.put_operation(Some(first), submitting.clone(), Vec::new()).await.unwrap();
    let lost =
        store.put_operation(Some(first), submitting.clone(), vec![letter("b", 0, TABLE, "x")]).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::StoreConflict);
    assert_eq!(store.dead_letters(None, None, 9).await.unwrap(), [], "what lost has stored nothing");
    let operations = store.operations().await.unwrap();
    assert_eq!(operations[0], Operation { revision: second, ..submitting });
    assert_eq!(operations[1].id, OperationId("a".into()), "in the order of their sequence");
    store.forget_operation(OperationId("b".into())).await.unwrap();
    store.forget_operation(OperationId("unknown".into())).await.unwrap();
    assert_eq!(store.operations().await.unwrap().len(), 1);
}

/// An operation is settled together with the rows that it could not deliver, and may be settled again.
pub async fn dead_letters_are_stored_with_the_operation(store: &dyn Store) {
    let revision = store.put_operation(None, operation("a", 1), Vec::new()).await.unwrap();
    let accounting = Accounting { succeeded: 1, dead: 2, ..Accounting::default() };
    let settled = Operation { state: OperationState::Settled { accounting, at: Timestamp(10) }, ..operation("a", 1) };
    let dead = vec![letter("a", 1, TABLE, "first"), letter("a", 2, TABLE, "second")];
    let revision = store.put_operation(Some(revision), settled.clone(), dead.clone()).await.unwrap();
    store.put_operation(Some(revision), settled, dead.clone()).await.unwrap();
    assert_eq!(store.dead_letters(None, None, 9).await.unwrap(), dead, "none twice");
}

/// Dead letters are listed in pages and by table, and go when they are removed.
pub async fn dead_letters_are_kept_until_they_are_removed(store: &dyn Store) {
    let other = TableId(7);
    let letters = [letter("a", 2, TABLE, "x"), letter("a", 10, other, "x"), letter("b", 0, TABLE, "x")];
    store.put_dead_letters(letters.to_vec()).await.unwrap();
    store.put_dead_letters(Vec::new()).await.unwrap();
    assert_eq!(store.dead_letters(None, None, 9).await.unwrap(), letters, "ordered by number");
    assert_eq!(store.dead_letters(None, None, 2).await.unwrap(), letters[..2]);
    assert_eq!(store.dead_letters(None, Some(letters[1].id.clone()), 9).await.unwrap(), letters[2..]);
    assert_eq!(store.dead_letters(Some(other), None, 9).await.unwrap(), letters[1..2]);
    store.put_dead_letters(vec![letter("a", 2, TABLE, "another reason")]).await.unwrap();
    assert_eq!(store.dead_letters(None, None, 1).await.unwrap()[0].reason, "another reason");
    let unknown = DeadLetterId { operation: OperationId("unknown".into()), ordinal: 0 };
    store.remove_dead_letters(vec![letters[0].id.clone(), letters[2].id.clone(), unknown]).await.unwrap();
    assert_eq!(store.dead_letters(None, None, 9).await.unwrap(), letters[1..2]);
}
