//! Can every case fail? Destinations with one fault each, and the cases that must find it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use etl::data::{Change, CopiedRows, Event, OldRow, Op, RawValue, RowBuilder, TableRow};
use etl::destination::conformance::{CASES, Subject};
use etl::destination::{
    AnyDestination, Batch, Capabilities, CopyChunk, Destination, MemoryDestination, Mode, StagedRun, StampedText,
    TextRow,
};
use etl::schema::{TableId, TableSchema};
use etl::store::{BoxFuture, CursorId, SharedStore};
use etl::{ErrorKind, EtlError, EtlResult, Lsn, Position};

use crate::memory::stamped_rows;

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
    BelievesThatARefusedTableIsThere,
    TakesNamesForTheSame,
    ShowsWhatIsStaged,
    ShowsNothing,
    ForgetsThatARunBegins,
    ShowsWhatIsGivenUp,
    ShowsPieces,
    ForgetsPieces,
    /// One of four changes and chunks, by chance, is lost.
    LosesSome(u64),
}
use Fault::*;

/// Each fault, and cases that must find it; others may as well.
const FAULTS: &[(Fault, &[&str])] = &[
    (MakesNoEmptyTable, &["an_empty_copy_makes_an_empty_table"]),
    (KeepsTheOldCopy, &["a_new_copy_forgets_the_old_one"]),
    (CopiesRepeatedChunks, &["rows_without_a_key_are_kept_as_they_are"]),
    (TakesTokensForOneTables, &["a_copy_arrives_whole_and_a_repeated_chunk_changes_nothing"]),
    (BelievesThatAFailedChunkIsThere, &["a_failed_write_leaves_nothing_behind"]),
    (CutsLongText, &["every_kind_of_value_arrives_exactly", "one_large_batch_arrives"]),
    (TakesEmptyForNull, &["every_kind_of_value_arrives_exactly", "odd_names_and_keys_are_kept"]),
    (TakesUnchangedForNull, &["a_partial_update_keeps_what_was_not_sent", "a_key_change_moves_the_row"]),
    (IgnoresDeletes, &["inserts_updates_and_deletes_end_in_the_current_state", "a_thousand_small_batches_arrive"]),
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
    (
        LeavesOutTheChangedShape,
        &["schema_changes_are_followed_within_a_batch", "a_column_is_added_in_the_middle_of_a_batch"],
    ),
    (BelievesThatARefusedTableIsThere, &["a_table_that_could_not_be_made_is_made_later"]),
    (TakesNamesForTheSame, &["names_that_come_to_the_same_are_kept_apart"]),
    (ShowsWhatIsStaged, &["a_run_is_shown_once_it_is_finalized_and_not_before"]),
    (
        ShowsNothing,
        &["a_run_without_rows_leaves_the_table_empty", "a_table_that_a_run_has_shown_is_copied_and_followed_anew"],
    ),
    (ForgetsThatARunBegins, &["what_a_dead_run_has_staged_is_never_shown"]),
    (ShowsWhatIsGivenUp, &["a_run_that_is_given_up_leaves_the_tables_as_they_are"]),
    (ShowsPieces, &["what_comes_in_pieces_is_shown_with_the_last_or_not_at_all"]),
    (ForgetsPieces, &["what_comes_in_pieces_is_shown_with_the_last_or_not_at_all"]),
];

/// The reference, with a fault.
struct Wrong {
    fault: Fault,
    inner: MemoryDestination,
    /// For faults that count calls, or hold something back.
    calls: Mutex<u64>,
    held: Mutex<Option<(Batch, Vec<Event>)>>,
    tokens: Mutex<BTreeSet<(u32, u64, u64)>>,
    /// The table that cannot be made, and how often that was tried.
    obstructed: Mutex<Option<(TableId, u32)>>,
    names: Mutex<BTreeMap<String, TableId>>,
    /// The run that was begun first.
    begun: Mutex<Option<StagedRun>>,
}

impl Wrong {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            inner: MemoryDestination::new(),
            calls: Mutex::default(),
            held: Mutex::default(),
            tokens: Mutex::default(),
            obstructed: Mutex::default(),
            names: Mutex::default(),
            begun: Mutex::default(),
        }
    }

    /// Whether this one is lost, by chance.
    fn loses(&self) -> bool {
        let LosesSome(seed) = self.fault else { return false };
        let mut calls = self.calls.lock().unwrap();
        *calls += 1;
        // SplitMix64.
        let mixed = (seed * 1000 + *calls).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb).is_multiple_of(4)
    }

    /// Refuses a table that cannot be made.
    fn made(&self, table: TableId) -> EtlResult<bool> {
        let mut obstructed = self.obstructed.lock().unwrap();
        let Some((_, tries)) = obstructed.as_mut().filter(|(id, _)| *id == table) else { return Ok(true) };
        *tries += 1;
        if self.fault == BelievesThatARefusedTableIsThere && *tries > 1 {
            return Ok(false);
        }
        let name = format!("public.items{table}");
        Err(EtlError::new(ErrorKind::DestinationRejected, "the table cannot be made").with("table", name).hint("Later"))
    }

    /// The table that a name stands for.
    fn taken(&self, table: TableId, rows: &[TableRow]) -> TableId {
        let Some(row) = rows.first().filter(|_| self.fault == TakesNamesForTheSame) else { return table };
        *self.names.lock().unwrap().entry(row.schema().name.name.to_lowercase()).or_insert(table)
    }

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
                Event::Change(_) if self.loses() => {}
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
        let can = Capabilities::default().with_atomic().with_staged_runs();
        if [ShowsPieces, ForgetsPieces].contains(&self.0.fault) { can.with_whole_runs() } else { can }
    }

    async fn begin_run(&self, run: StagedRun) -> EtlResult<()> {
        let is_first = {
            let mut begun = self.0.begun.lock().unwrap();
            let is_first = begun.is_none();
            begun.get_or_insert_with(|| run.clone());
            is_first
        };
        match self.0.fault {
            ShowsWhatIsStaged => Ok(()),
            ForgetsThatARunBegins if !is_first => Ok(()),
            _ => self.0.inner.begin_run(run).await,
        }
    }

    async fn finalize_run(&self, run: StagedRun) -> EtlResult<()> {
        match self.0.fault {
            ShowsWhatIsStaged | ShowsNothing => Ok(()),
            ForgetsThatARunBegins => {
                let begun = self.0.begun.lock().unwrap().clone().unwrap_or(run);
                self.0.inner.finalize_run(begun).await
            }
            _ => self.0.inner.finalize_run(run).await,
        }
    }

    async fn abandon_run(&self, run: StagedRun) -> EtlResult<()> {
        match self.0.fault {
            ShowsWhatIsGivenUp => self.0.inner.finalize_run(run).await,
            _ => self.0.inner.abandon_run(run).await,
        }
    }

    fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
        self.0.inner.replaces_copied_rows(schema)
    }

    async fn write_copy_chunk(&self, table_id: TableId, mut chunk: CopyChunk, rows: CopiedRows) -> EtlResult<()> {
        if !self.0.made(table_id)? || self.0.loses() {
            return Ok(());
        }
        let table_id = self.0.taken(table_id, &rows);
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
        self.0.inner.write_copy_chunk(table_id, chunk, rows.into()).await
    }

    async fn write_batch(&self, mut batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        let events = self.0.events(events);
        match self.0.fault {
            StoresNoPosition => self.0.inner.write_events(events).await,
            ForgetsPieces if batch.is_piece => Ok(()),
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

    fn modes(&self) -> &[Mode] {
        &Mode::ALL
    }

    fn open_in(&self, mode: Mode, _store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        let _ = self.0.inner.clone().in_mode(mode);
        Box::pin(async { Ok(AnyDestination::new(Way(Arc::clone(&self.0)))) })
    }

    fn stamped_rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<StampedText>>>> {
        Box::pin(async { Ok(stamped_rows(&self.0.inner, table)) })
    }

    fn obstruct<'a>(&'a self, table: &'a TableSchema, obstructed: bool) -> BoxFuture<'a, EtlResult<bool>> {
        *self.0.obstructed.lock().unwrap() = obstructed.then_some((table.id, 0));
        Box::pin(async { Ok(true) })
    }
}

/// Those that take a while and find nothing that no other finds.
const LONG: [&str; 2] = ["one_large_batch_arrives", "a_thousand_small_batches_arrive"];

/// The cases that a place with the fault does not pass; those that take long only where they are named.
async fn broken(fault: Fault, named: &[&str]) -> BTreeSet<&'static str> {
    let cases = CASES.iter().filter(|case| !LONG.contains(&case.name) || named.contains(&case.name));
    let tried = cases.map(async |case| {
        let broken = case.run(&Place(Arc::new(Wrong::new(fault)))).await.is_err();
        broken.then_some(case.name)
    });
    futures_util::future::join_all(tried).await.into_iter().flatten().collect()
}

#[tokio::test]
async fn every_fault_is_found_and_every_case_finds_one() {
    let mut found = BTreeSet::new();
    for (fault, must_find) in FAULTS {
        let broken = broken(*fault, must_find).await;
        let missed: Vec<_> = must_find.iter().filter(|case| !broken.contains(*case)).collect();
        assert!(missed.is_empty(), "{fault:?} is not found by {missed:?}, only by {broken:?}");
        found.extend(broken);
    }
    let idle: Vec<_> = CASES.iter().map(|case| case.name).filter(|name| !found.contains(name)).collect();
    assert!(idle.is_empty(), "no fault is found by {idle:?}");
}

#[tokio::test]
async fn a_place_that_loses_something_now_and_then_fails_many_cases() {
    for seed in 1..=3 {
        let broken = broken(LosesSome(seed), &[]).await;
        assert!(broken.len() >= 12, "of a place that loses some (seed {seed}) only these are known: {broken:?}");
    }
}
