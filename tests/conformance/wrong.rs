//! Can every case fail? Destinations with one fault each, and the cases that must find it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use etl::data::{Change, Event, OldRow, Op, RawValue, RowBuilder, TableRow};
use etl::destination::conformance::{CASES, Subject};
use etl::destination::{AnyDestination, Batch, Capabilities, CopyChunk, Destination, MemoryDestination, TextRow};
use etl::schema::{TableId, TableSchema};
use etl::store::{BoxFuture, CursorId, SharedStore};
use etl::{EtlResult, Lsn, Position};

/// What a destination does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    MakesNoEmptyTable,
    KeepsTheOldCopy,
    CopiesRepeatedChunks,
    TakesTokensForOneTables,
    BelievesThatAFailedChunkIsThere,
    CutsLongText,
    TakesEmptyForNull,
    TakesUnchangedForNull,
    IgnoresDeletes,
    IgnoresTruncates,
    TruncatesFirst,
    IgnoresOldKeys,
    DeletesAndInsertsOnKeyChange,
    FoldsCase,
    DropsEqualRows,
    DeletesTwice,
    StoresNoPosition,
    ForgetsMoves,
    NeverGoesBack,
    LetsTheLastCallWin,
    AcknowledgesEarly,
    LeavesOutTheChangedShape,
    StampsNewerRowsAsOldOnes,
}
use Fault::*;

/// Each fault, and cases that must find it; others may as well.
const FAULTS: &[(Fault, &[&str])] = &[
    (MakesNoEmptyTable, &["an_empty_copy_makes_an_empty_table"]),
    (KeepsTheOldCopy, &["a_new_copy_forgets_the_old_one"]),
    (CopiesRepeatedChunks, &["rows_without_a_key_are_kept_as_they_are"]),
    (TakesTokensForOneTables, &["a_copy_arrives_whole_and_a_repeated_chunk_changes_nothing"]),
    (BelievesThatAFailedChunkIsThere, &["a_failed_write_leaves_nothing_behind"]),
    (CutsLongText, &["every_kind_of_value_arrives_exactly"]),
    (TakesEmptyForNull, &["every_kind_of_value_arrives_exactly", "odd_names_and_keys_are_kept"]),
    (TakesUnchangedForNull, &["a_partial_update_keeps_what_was_not_sent", "a_key_change_moves_the_row"]),
    (IgnoresDeletes, &["inserts_updates_and_deletes_end_in_the_current_state"]),
    (IgnoresTruncates, &["a_truncate_removes_what_came_before_it"]),
    (TruncatesFirst, &["a_truncate_removes_what_came_before_it"]),
    (IgnoresOldKeys, &["a_key_change_moves_the_row", "keys_can_be_swapped_in_one_transaction"]),
    (DeletesAndInsertsOnKeyChange, &["a_key_change_moves_the_row", "keys_can_be_swapped_in_one_transaction"]),
    (FoldsCase, &["odd_names_and_keys_are_kept"]),
    (DropsEqualRows, &["rows_without_a_key_are_kept_as_they_are", "an_old_row_hits_exactly_one_equal_row"]),
    (DeletesTwice, &["an_old_row_hits_exactly_one_equal_row"]),
    (StoresNoPosition, &["positions_and_moves_are_stored_with_the_data", "rows_without_a_key_are_kept_as_they_are"]),
    (NeverGoesBack, &["positions_and_moves_are_stored_with_the_data"]),
    (ForgetsMoves, &["positions_and_moves_are_stored_with_the_data"]),
    (LetsTheLastCallWin, &["an_older_event_changes_and_reads_nothing_newer"]),
    (AcknowledgesEarly, &["what_is_delivered_again_changes_nothing"]),
    (StampsNewerRowsAsOldOnes, &["a_newer_copy_takes_the_place_of_rows_and_older_events_leave_it_alone"]),
    (LeavesOutTheChangedShape, &["schema_changes_are_followed_within_a_batch"]),
];

/// The reference, with a fault.
struct Wrong {
    fault: Fault,
    inner: MemoryDestination,
    /// For faults that count calls, or hold something back.
    calls: Mutex<u64>,
    held: Mutex<Option<(Batch, Vec<Event>)>>,
    tokens: Mutex<BTreeSet<(u32, u64, u64)>>,
}

impl Wrong {
    fn value(&self, value: RawValue<'_>) -> Option<Vec<u8>> {
        match (self.fault, value) {
            (_, RawValue::Text(text)) if self.fault == CutsLongText => Some(text[..text.len().min(40)].to_vec()),
            (TakesEmptyForNull, RawValue::Text(b"")) => None,
            (FoldsCase, RawValue::Text(text)) => Some(text.to_ascii_lowercase()),
            (_, RawValue::Text(bytes) | RawValue::Binary(bytes)) => Some(bytes.to_vec()),
            _ => None,
        }
    }

    fn row(&self, row: &TableRow) -> TableRow {
        let count = row.schema().columns.len();
        let values: Vec<Option<Vec<u8>>> = (0..count).map(|column| self.value(row.raw(column))).collect();
        let raw = values.iter().enumerate().map(|(column, value)| match (row.raw(column), value) {
            (RawValue::Unchanged, _) if self.fault == TakesUnchangedForNull => RawValue::Null,
            (RawValue::Unchanged, _) => RawValue::Unchanged,
            (RawValue::Binary(_), Some(bytes)) => RawValue::Binary(bytes),
            (_, Some(text)) => RawValue::Text(text),
            (_, None) => RawValue::Null,
        });
        let mut builder = RowBuilder::new();
        builder.push_raw(row.schema(), raw).unwrap();
        builder.finish().remove(0)
    }

    fn old(&self, old: OldRow) -> OldRow {
        match old {
            OldRow::Key(row) => OldRow::Key(self.row(&row)),
            OldRow::Full(row) => OldRow::Full(self.row(&row)),
        }
    }

    fn change(&self, mut change: Change) -> Vec<Event> {
        if self.fault == LetsTheLastCallWin {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            change.position = Position::new(Lsn(1_000_000 + *calls), 1);
        }
        let again = |op| Event::Change(Change { op, ..change.clone() });
        match change.op.clone() {
            Op::Insert { new } => vec![again(Op::Insert { new: self.row(&new) })],
            Op::Delete { .. } if self.fault == IgnoresDeletes => Vec::new(),
            Op::Delete { old } => {
                let delete = again(Op::Delete { old: self.old(old) });
                if self.fault == DeletesTwice { vec![delete.clone(), delete] } else { vec![delete] }
            }
            Op::Update { old: Some(OldRow::Key(_)), new } if self.fault == IgnoresOldKeys => {
                vec![again(Op::Update { old: None, new: self.row(&new) })]
            }
            Op::Update { old: Some(old @ OldRow::Key(_)), new } if self.fault == DeletesAndInsertsOnKeyChange => {
                vec![again(Op::Delete { old }), again(Op::Update { old: None, new })]
            }
            Op::Update { old, new } => {
                vec![again(Op::Update { old: old.map(|old| self.old(old)), new: self.row(&new) })]
            }
        }
    }

    fn events(&self, events: Vec<Event>) -> Vec<Event> {
        let (mut done, mut truncates) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Event::Change(change) => done.extend(self.change(change)),
                Event::Truncate { .. } if self.fault == IgnoresTruncates => {}
                truncate @ Event::Truncate { .. } if self.fault == TruncatesFirst => truncates.push(truncate),
                // A place that says nothing of what it cannot do.
                Event::Relation { .. } if self.fault == LeavesOutTheChangedShape => break,
                other => done.push(other),
            }
        }
        truncates.extend(done);
        truncates
    }
}

/// The way to it, which a crash cuts.
struct Way(Arc<Wrong>);

impl Drop for Way {
    fn drop(&mut self) {
        self.0.held.lock().unwrap().take();
    }
}

impl Destination for Way {
    async fn truncate_table(&self, table_id: TableId) -> EtlResult<()> {
        if self.0.fault == KeepsTheOldCopy { Ok(()) } else { self.0.inner.truncate_table(table_id).await }
    }

    async fn write_table_rows(&self, table_id: TableId, rows: Vec<TableRow>) -> EtlResult<()> {
        self.0.inner.write_table_rows(table_id, rows.iter().map(|row| self.0.row(row)).collect()).await
    }

    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        self.0.inner.write_events(self.0.events(events)).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_atomic()
    }

    fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
        self.0.inner.replaces_copied_rows(schema)
    }

    async fn write_copy_chunk(&self, table_id: TableId, mut chunk: CopyChunk, rows: Vec<TableRow>) -> EtlResult<()> {
        let mut rows: Vec<TableRow> = rows.iter().map(|row| self.0.row(row)).collect();
        match self.0.fault {
            MakesNoEmptyTable if rows.is_empty() => return Ok(()),
            CopiesRepeatedChunks => {
                let mut calls = self.0.calls.lock().unwrap();
                *calls += 1;
                chunk.index += 1000 * *calls;
            }
            TakesTokensForOneTables | BelievesThatAFailedChunkIsThere => {
                let table = if self.0.fault == TakesTokensForOneTables { 0 } else { table_id.0 };
                if !self.0.tokens.lock().unwrap().insert((table, chunk.generation, chunk.index)) {
                    return Ok(());
                }
            }
            StampsNewerRowsAsOldOnes => chunk.position = Position::new(Lsn(50), 0),
            DropsEqualRows => {
                let mut seen = BTreeSet::new();
                let text = |row: &TableRow| format!("{:?}", (row.text(0), row.text(1)));
                rows.retain(|row| seen.insert(text(row)));
            }
            _ => {}
        }
        self.0.inner.write_copy_chunk(table_id, chunk, rows).await
    }

    async fn write_batch(&self, mut batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        let events = self.0.events(events);
        match self.0.fault {
            StoresNoPosition => self.0.inner.write_events(events).await,
            ForgetsMoves => {
                batch.moves.clear();
                self.0.inner.write_batch(batch, events).await
            }
            AcknowledgesEarly => {
                let before = self.0.held.lock().unwrap().replace((batch, events));
                match before {
                    Some((batch, events)) => self.0.inner.write_batch(batch, events).await,
                    None => Ok(()),
                }
            }
            _ => self.0.inner.write_batch(batch, events).await,
        }
    }

    async fn go_back(&self, to: Position) -> EtlResult<()> {
        if self.0.fault == NeverGoesBack { Ok(()) } else { self.0.inner.go_back(to).await }
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        if self.0.fault == StoresNoPosition { Ok(None) } else { self.0.inner.durable_position(cursor).await }
    }
}

struct Place(Arc<Wrong>);

impl Subject for Place {
    fn open(&self, _store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async { Ok(AnyDestination::new(Way(Arc::clone(&self.0)))) })
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async { Ok(self.0.inner.rows(table.id)) })
    }
}

/// The cases that a place with the fault does not pass.
async fn broken(fault: Fault) -> BTreeSet<&'static str> {
    let mut broken = BTreeSet::new();
    for case in CASES {
        let inner = MemoryDestination::new();
        let wrong = Wrong { fault, inner, calls: Mutex::default(), held: Mutex::default(), tokens: Mutex::default() };
        if case.run(&Place(Arc::new(wrong))).await.is_err() {
            broken.insert(case.name);
        }
    }
    broken
}

#[tokio::test]
async fn every_fault_is_found_and_every_case_finds_one() {
    let mut found = BTreeSet::new();
    for (fault, must_find) in FAULTS {
        let broken = broken(*fault).await;
        let missed: Vec<_> = must_find.iter().filter(|case| !broken.contains(*case)).collect();
        assert!(missed.is_empty(), "{fault:?} is not found by {missed:?}, only by {broken:?}");
        found.extend(broken);
    }
    let idle: Vec<_> = CASES.iter().map(|case| case.name).filter(|name| !found.contains(name)).collect();
    assert!(idle.is_empty(), "no fault is found by {idle:?}");
}
