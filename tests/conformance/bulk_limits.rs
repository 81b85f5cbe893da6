//! Is a batch as large as its system takes and no larger, is a row that cannot be sent alone in its fate, and does a table
//! that waits delay no other? Systems that are told what to say.

use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use etl::clock::{self, Timestamp};
use etl::data::{Change, Event, Op, RawValue, RowBuilder};
use etl::destination::{Batch, Destination, Replayed};
use etl::schema::{TableId, TableName, TableSchema};
use etl::store::{DeadLetter, MemoryStore, OperationContext, OperationState, SharedStore};
use etl::{CursorId, ErrorKind, EtlError, EtlResult, Lsn, Position};
use etl_destinations::bulk::{
    Bulk, BulkDestination, BulkRow, BulkSettings, CallError, ErrorClass, Frame, Limits, Policy, PollState, Rest,
    RowOutcome, Said, SealedBatch, Simple, SimpleBulk, Submitted, UploadStats,
};
use etl_destinations::dead_rows::DeadLetterRules;
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::writer::TargetTable;
use serde_json::json;

use crate::small_table::{COMMITTED, TABLE, insert, schema, transaction};

/// A system that answers at once; it keeps the bodies that it took.
#[derive(Clone)]
struct Counting {
    limits: Limits,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    /// What the next uploads fail with.
    fails: Arc<Mutex<Vec<ErrorClass>>>,
    /// Whether it takes what is bad.
    is_kind: Arc<AtomicBool>,
}

impl Counting {
    fn new(max_rows: u32, max_bytes: u64, max_row_bytes: u64) -> Self {
        let limits = Limits { max_rows, max_bytes, max_row_bytes, in_flight: 1, rate: None };
        Self { limits, bodies: Arc::default(), fails: Arc::default(), is_kind: Arc::default() }
    }

    fn sizes(&self) -> Vec<usize> {
        let rows = |body: &Vec<u8>| body.split(|byte| *byte == b',').count();
        self.bodies.lock().unwrap().iter().map(rows).collect()
    }
}

impl SimpleBulk for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    async fn check_connection(&self) -> EtlResult<()> {
        Ok(())
    }

    fn frame(&self, _table: &TargetTable) -> Frame {
        let (head, separator, tail) = ("[[".to_owned(), ",".to_owned(), "]".to_owned());
        Frame { head, separator, tail, ..Frame::default() }
    }

    fn transform(&self, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
        let text = row.row.text(1)?.unwrap_or_default();
        if text == "cannot" {
            return Err(EtlError::new(ErrorKind::Value, "the system has no word for it"));
        }
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    async fn upload(&self, batch: &SealedBatch) -> Result<UploadStats, CallError> {
        if let Some(class) = self.fails.lock().unwrap().pop() {
            let error = EtlError::new(ErrorKind::DestinationUnavailable, "not now");
            return Err(CallError { class, in_doubt: false, error });
        }
        let body = batch.read().await.unwrap();
        assert!(body.len() as u64 <= self.limits.max_bytes);
        let is_kind = self.is_kind.load(Ordering::SeqCst);
        let bad = |(place, row): (usize, &[u8])| {
            (row.ends_with(b"bad") && !is_kind).then(|| (place as u32, RowOutcome::Rejected("bad".to_owned())))
        };
        let rows = body[2..body.len() - 1].split(|byte| *byte == b',').enumerate().filter_map(bad).collect();
        self.bodies.lock().unwrap().push(body);
        Ok(UploadStats { rows, rest: Rest::Succeeded })
    }
}

/// A destination of it, and what outlives it.
struct Scene {
    system: Counting,
    destination: TableDestination<Bulk<Simple<Counting>>>,
    store: SharedStore,
    rules: Option<DeadLetterRules>,
    dir: tempfile::TempDir,
}

fn opened(
    system: &Counting,
    spool: &Path,
    store: &SharedStore,
    dead_letters: Option<DeadLetterRules>,
) -> TableDestination<Bulk<Simple<Counting>>> {
    let rules = TableRules { defaults: RuleSettings { dead_letters, ..RuleSettings::default() }, rules: Vec::new() };
    Bulk::destination(Simple(system.clone()), BulkSettings::new(spool), Arc::clone(store), rules)
}

impl Scene {
    async fn new(system: Counting, max_percent: Option<u8>) -> Self {
        let (dir, store): (_, SharedStore) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
        store.put_schema(schema()).await.unwrap();
        let rules = max_percent.map(|max_percent| DeadLetterRules { max_percent });
        let spool = dir.path().join("spool");
        let destination = opened(&system, &spool, &store, rules);
        Self { system, destination, store, rules, dir }
    }

    /// The same, as another process opens it.
    fn opened(&self) -> TableDestination<Bulk<Simple<Counting>>> {
        opened(&self.system, &self.dir.path().join("spool"), &self.store, self.rules)
    }

    /// Writes one row a value, in one transaction.
    async fn write(&self, commit: u64, values: &[&str]) -> EtlResult<()> {
        let rows = values.iter().enumerate().map(|(place, value)| insert([&format!("{commit}-{place:03}"), value]));
        let (batch, events) = transaction(commit, rows.collect());
        self.destination.write_batch(batch, events).await
    }

    async fn letters(&self) -> usize {
        self.store.dead_letters(None, None, 1000).await.unwrap().len()
    }
}

#[tokio::test]
async fn a_batch_has_as_many_rows_as_the_system_takes_and_no_more() {
    for (rows, expected) in [(4, vec![4]), (5, vec![5]), (6, vec![5, 1]), (11, vec![5, 5, 1])] {
        let scene = Scene::new(Counting::new(5, 1 << 20, 1 << 20), None).await;
        scene.write(100, &vec!["x"; rows]).await.unwrap();
        assert_eq!(scene.system.sizes(), expected, "{rows}");
    }
}

/// Two bytes before, a comma between, one byte after: three rows of ten bytes make 35.
#[tokio::test]
async fn a_batch_has_as_many_bytes_as_the_system_takes_and_no_more() {
    for (max_bytes, expected) in [(34, vec![2, 1]), (35, vec![3]), (36, vec![3]), (13, vec![1, 1, 1])] {
        let scene = Scene::new(Counting::new(100, max_bytes, 10), None).await;
        scene.write(100, &["0123456789"; 3]).await.unwrap();
        assert_eq!(scene.system.sizes(), expected, "{max_bytes}");
        let longest = scene.system.bodies.lock().unwrap().iter().map(Vec::len).max().unwrap();
        assert!(longest as u64 <= max_bytes, "{longest}");
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_sent_is_a_dead_letter_and_those_beside_it_arrive() {
    let scene = Scene::new(Counting::new(3, 6 << 20, 64 << 10), Some(40)).await;
    let large = [70 << 10, 600 << 10, 5 << 20].map(|bytes| "x".repeat(bytes));
    let [a, b, c] = [&large[0], &large[1], &large[2]].map(String::as_str);
    scene.write(100, &["1", a, "2", "cannot", "3", b, "4", c, "5", "6"]).await.unwrap();
    assert_eq!(scene.system.sizes(), [3, 3], "all that can be sent is there");
    let letters = scene.store.dead_letters(None, None, 9).await.unwrap();
    assert_eq!(letters.len(), 4);
    assert!(letters.iter().all(|letter| letter.code == "unsendable" && letter.table == TABLE), "{letters:#?}");
    let keys: Vec<&str> = letters.iter().map(|letter| letter.key.as_ref().unwrap()[0].as_str()).collect();
    assert_eq!(keys, ["100-001", "100-003", "100-005", "100-007"]);
    // The same once more, as after a crash: no letter more.
    scene.write(100, &["1", a, "2", "cannot", "3", b, "4", c, "5", "6"]).await.unwrap();
    assert_eq!(scene.letters().await, 4);
}

#[tokio::test]
async fn too_many_rows_that_cannot_be_sent_hold_the_table_and_make_no_dead_letter() {
    let scene = Scene::new(Counting::new(100, 1 << 20, 1 << 20), Some(10)).await;
    let error = scene.write(100, &["cannot", "cannot", "x"]).await.unwrap_err();
    assert_eq!((error.kind(), error.table(), scene.letters().await), (ErrorKind::Value, Some(TABLE), 0));
    let off = Scene::new(Counting::new(100, 1 << 20, 1 << 20), None).await;
    assert_eq!(off.write(100, &["cannot", "x", "x"]).await.unwrap_err().table(), Some(TABLE));
    assert_eq!((off.letters().await, off.system.sizes().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_simple_system_says_all_at_once_and_what_passes_is_tried_again() {
    clock::follow_tokio(Timestamp(1_000_000_000_000));
    let scene = Scene::new(Counting::new(100, 1 << 20, 1 << 20), Some(40)).await;
    *scene.system.fails.lock().unwrap() = vec![ErrorClass::Retry, ErrorClass::Throttle(None), ErrorClass::Retry];
    scene.write(100, &["1", "2 bad", "3"]).await.unwrap();
    assert_eq!((scene.system.sizes(), scene.letters().await), (vec![3], 1));
    let operations = scene.store.operations().await.unwrap();
    let OperationState::Settled { accounting, .. } = &operations[0].state else { panic!("{operations:?}") };
    assert_eq!((accounting.succeeded, accounting.dead, accounting.rows()), (2, 1, 3));
}

#[tokio::test]
async fn dead_letters_are_handed_over_again_but_for_those_that_a_newer_version_has_overtaken() {
    let scene = Scene::new(Counting::new(100, 1 << 20, 1 << 20), Some(90)).await;
    scene.write(100, &["1 bad", "2 bad", "cannot", "4 bad", "good"]).await.unwrap();
    // The second is made good, and the fourth is refused in a newer version too.
    let newer = vec![insert(["100-001", "fresh"]), insert(["100-003", "again bad"])];
    let (batch, events) = transaction(200, newer);
    scene.destination.write_batch(batch, events).await.unwrap();
    let letters = scene.store.dead_letters(None, None, 99).await.unwrap();
    let shown = |letter: &DeadLetter| (letter.row["v"].as_str().unwrap().to_owned(), letter.is_overtaken);
    let mut all: Vec<_> = letters.iter().map(shown).collect();
    all.sort();
    let expected = [("1 bad", false), ("2 bad", true), ("4 bad", true), ("again bad", false), ("cannot", false)];
    assert_eq!(all, expected.map(|(value, is_overtaken)| (value.to_owned(), is_overtaken)));
    let before = scene.system.bodies.lock().unwrap().len();
    let replayed = scene.destination.replay(letters).await.unwrap();
    assert_eq!(replayed, Replayed { delivered: 2, overtaken: 2, left: 1 }, "one has no words still");
    assert_eq!(scene.system.bodies.lock().unwrap()[before..], [b"[[1 bad,again bad]".to_vec()]);
    let again = scene.store.dead_letters(None, None, 99).await.unwrap();
    let mut values: Vec<_> = again.iter().map(|letter| letter.row["v"].as_str().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, ["1 bad", "again bad", "cannot"], "refused again, whatever the budget: the table is not held");
    assert_eq!(scene.destination.replay(again).await.unwrap(), Replayed { delivered: 2, overtaken: 0, left: 1 });
}

/// Polls a future so often, and then never again.
async fn cut_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|context| {
        let Some(rest) = left.checked_sub(1) else { return Poll::Ready(None) };
        left = rest;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test]
async fn a_replay_that_was_cut_short_loses_nothing_and_hands_over_again_only_what_may_not_have_arrived() {
    let mut cuts = 0;
    loop {
        let scene = Scene::new(Counting::new(100, 1 << 20, 1 << 20), Some(90)).await;
        scene.write(100, &["1 bad", "2 bad", "good"]).await.unwrap();
        let letters = scene.store.dead_letters(None, None, 99).await.unwrap();
        let before = scene.system.bodies.lock().unwrap().len();
        // From here on the system takes them.
        scene.system.is_kind.store(true, Ordering::SeqCst);
        let is_whole = Box::pin(Box::pin(cut_after(cuts, scene.destination.replay(letters)))).await.is_some();
        let again = Scene { destination: scene.opened(), ..scene };
        let letters = again.store.dead_letters(None, None, 99).await.unwrap();
        assert!(letters.is_empty() || letters.len() == 2, "{letters:?}");
        again.destination.replay(letters).await.unwrap();
        assert_eq!(again.letters().await, 0);
        let bodies = again.system.bodies.lock().unwrap()[before..].to_vec();
        assert!(bodies.iter().all(|body| body == b"[[1 bad,2 bad]"), "{cuts}: {bodies:?}");
        assert!((1..=2).contains(&bodies.len()), "{cuts}: {bodies:?}");
        let operations = again.store.operations().await.unwrap();
        assert!(operations.iter().all(|operation| operation.state.is_settled()), "{operations:?}");
        if is_whole {
            assert_eq!(bodies.len(), 1);
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 3, "{cuts}");
}

const SLOW: TableId = TableId(2);

/// The same table under another name and id.
fn slow_schema() -> Arc<TableSchema> {
    Arc::new(TableSchema { id: SLOW, name: TableName::new("public", "slow"), ..TableSchema::clone(&schema()) })
}

/// A system whose jobs for one table take an hour; it notes when each is done.
#[derive(Clone, Default)]
struct OneIsSlow(Arc<Mutex<Vec<(TableId, Timestamp)>>>);

impl BulkDestination for OneIsSlow {
    fn name(&self) -> &str {
        "one is slow"
    }

    fn limits(&self) -> Limits {
        Counting::new(10, 1 << 20, 1 << 20).limits
    }

    fn policy(&self) -> Policy {
        Policy::default()
    }

    async fn check_connection(&self) -> EtlResult<()> {
        Ok(())
    }

    fn transform(&self, _row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
        out.push(b'x');
        Ok(())
    }

    async fn submit(&self, batch: &SealedBatch, _said: &Said<'_>) -> Result<Submitted, CallError> {
        let hour = if batch.table == SLOW { 3_600_000_000 } else { 0 };
        let vendor = json!({ "table": batch.table.0, "done": clock::now().0 + hour });
        Ok(Submitted::Pending(vec![OperationContext { step: 0, vendor, rows: (0, batch.manifest.rows.len() as u32) }]))
    }

    async fn poll(&self, contexts: &[OperationContext]) -> Result<Vec<PollState>, CallError> {
        let vendor = &contexts[0].vendor;
        if clock::now().0 < vendor["done"].as_i64().unwrap() {
            return Ok(vec![PollState::PENDING]);
        }
        self.0.lock().unwrap().push((TableId(vendor["table"].as_u64().unwrap() as u32), clock::now()));
        Ok(vec![PollState::Completed])
    }

    async fn upload_stats(
        &self,
        _batch: &SealedBatch,
        _contexts: &[OperationContext],
        _states: &[PollState],
    ) -> Result<UploadStats, CallError> {
        Ok(UploadStats::SUCCEEDED)
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_whose_job_takes_an_hour_delays_no_other() {
    clock::follow_tokio(Timestamp(1_000_000_000_000));
    let began = clock::now();
    let (system, dir) = (OneIsSlow::default(), tempfile::tempdir().unwrap());
    let store: SharedStore = Arc::new(MemoryStore::new());
    let mut events = Vec::new();
    for (place, schema) in (1..).zip([slow_schema(), schema()]) {
        store.put_schema(Arc::clone(&schema)).await.unwrap();
        let mut builder = RowBuilder::new();
        builder.push_raw(&schema, [RawValue::Text(b"k"), RawValue::Text(b"v")].into_iter()).unwrap();
        let (op, position) = (Op::Insert { new: builder.finish().remove(0) }, Position::new(Lsn(100), place));
        events.push(Event::Change(Change { table_id: schema.id, position, committed_at: COMMITTED, op }));
    }
    let settings = BulkSettings::new(dir.path().join("spool"));
    let destination = Bulk::destination(system.clone(), settings, store, TableRules::default());
    let upto = Position::after(Lsn(100));
    let batch = Batch { cursor: CursorId::Main, from: Position::ZERO, upto, moves: Vec::new(), is_piece: false };
    destination.write_batch(batch, events).await.unwrap();
    let hour = Duration::from_secs(3600);
    let done = system.0.lock().unwrap().clone();
    assert_eq!(done.iter().map(|(table, _)| *table).collect::<Vec<_>>(), [TABLE, SLOW]);
    assert!(done[0].1.since(began) < Duration::from_secs(60) && done[1].1.since(began) >= hour, "{done:?}");
}
