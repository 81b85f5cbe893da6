//! Does a table that waits for its jobs hold up no other, in its own batch or in the next ones, and does the order of each
//! table hold, whatever fails or is given up on the way? Many batches under way at a time, as the engine has them.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use etl::clock::{self, Timestamp};
use etl::data::{Change, Event, Op, RawValue};
use etl::destination::{Batch, Destination};
use etl::schema::{TableId, TableName, TableSchema};
use etl::store::{MemoryStore, OperationContext, SharedStore};
use etl::{CursorId, ErrorKind, EtlError, EtlResult, Lsn, Position};
use etl_destinations::bulk::{
    Bulk, BulkDestination, BulkRow, BulkSettings, CallError, ErrorClass, Limits, Policy, PollState, Resubmit, Said,
    SealedBatch, Submitted, UploadStats,
};
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_rules::TableRules;
use futures_util::future::join_all;
use serde_json::json;

use crate::small_table::{COMMITTED, insert, row, schema, transaction, update};

const HOUR: Duration = Duration::from_secs(3600);

/// What a system has, and how it behaves.
#[derive(Default)]
struct Content {
    /// How long the jobs of a table take.
    takes: HashMap<TableId, Duration>,
    /// The job of each batch that it has taken, by the batch's name.
    taken: HashMap<String, usize>,
    /// What was done of each table: each row's value, and when.
    done: BTreeMap<TableId, Vec<(String, Timestamp)>>,
    jobs: Vec<(TableId, Option<String>, Timestamp)>,
    /// It takes no batch with this row.
    refuses: Option<String>,
}

/// A system whose jobs take as long as it is told.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<Content>>);

impl Slow {
    fn taking(takes: &[(TableId, Duration)]) -> Self {
        let slow = Self::default();
        slow.0.lock().unwrap().takes = takes.iter().copied().collect();
        slow
    }

    /// The values of a table's rows, in the order in which they arrived.
    fn values(&self, table: TableId) -> Vec<String> {
        let content = self.0.lock().unwrap();
        content.done.get(&table).into_iter().flatten().map(|(value, _)| value.clone()).collect()
    }

    /// When the last row of a table arrived.
    fn last(&self, table: TableId) -> Timestamp {
        self.0.lock().unwrap().done[&table].last().unwrap().1
    }

    fn jobs(&self, table: TableId) -> usize {
        self.0.lock().unwrap().jobs.iter().filter(|(of, ..)| *of == table).count()
    }
}

impl BulkDestination for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn limits(&self) -> Limits {
        Limits { max_rows: 40, max_bytes: 1 << 20, max_row_bytes: 1 << 20, in_flight: 1, rate: None }
    }

    fn policy(&self) -> Policy {
        Policy { resubmit: Resubmit::ClientId, ..Policy::default() }
    }

    async fn check_connection(&self) -> EtlResult<()> {
        Ok(())
    }

    fn transform(&self, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
        let is_sent = row.row.raw(1) != RawValue::Unchanged;
        out.extend_from_slice(if is_sent { row.row.text(1)?.unwrap_or_default() } else { "?".into() }.as_bytes());
        out.push(b'\n');
        Ok(())
    }

    async fn submit(&self, batch: &SealedBatch, _said: &Said<'_>) -> Result<Submitted, CallError> {
        let body = String::from_utf8(batch.read().await.unwrap()).unwrap();
        let mut content = self.0.lock().unwrap();
        if content.refuses.as_ref().is_some_and(|value| body.lines().any(|line| line == value)) {
            let error = EtlError::new(ErrorKind::Config, "the system does not like it");
            return Err(CallError { class: ErrorClass::Config, in_doubt: false, error });
        }
        let takes = content.takes.get(&batch.table).copied().unwrap_or_default();
        let done = Timestamp(clock::now().0 + takes.as_micros() as i64);
        // A batch that comes twice is there once.
        let known = content.taken.get(&*batch.id.0).copied();
        let job = known.unwrap_or_else(|| {
            content.jobs.push((batch.table, Some(body), done));
            content.jobs.len() - 1
        });
        content.taken.insert(batch.id.to_string(), job);
        let rows = (0, batch.manifest.rows.len() as u32);
        Ok(Submitted::Pending(vec![OperationContext { step: 0, vendor: json!(job), rows }]))
    }

    async fn poll(&self, contexts: &[OperationContext]) -> Result<Vec<PollState>, CallError> {
        let mut content = self.0.lock().unwrap();
        let place = contexts[0].vendor.as_u64().unwrap() as usize;
        let (table, body, done) = content.jobs[place].clone();
        if clock::now() < done {
            return Ok(vec![PollState::PENDING]);
        }
        // Once, however often it is asked for.
        content.jobs[place].1 = None;
        let rows = body.iter().flat_map(|body| body.lines()).map(|value| (value.to_owned(), clock::now()));
        content.done.entry(table).or_default().extend(rows);
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

const TABLES: [TableId; 3] = [TableId(1), TableId(2), TableId(3)];

fn schema_of(table: TableId) -> Arc<TableSchema> {
    let name = TableName::new("public", format!("t{}", table.0));
    Arc::new(TableSchema { id: table, name, ..TableSchema::clone(&schema()) })
}

/// What outlives a process.
struct Scene {
    system: Slow,
    store: SharedStore,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new(system: Slow) -> Self {
        clock::follow_tokio(Timestamp(1_000_000_000_000));
        let (store, dir): (SharedStore, _) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
        for table in TABLES {
            store.put_schema(schema_of(table)).await.unwrap();
        }
        Self { system, store, dir }
    }

    fn open(&self) -> TableDestination<Bulk<Slow>> {
        let settings = BulkSettings::new(self.dir.path().join("spool"));
        Bulk::destination(self.system.clone(), settings, Arc::clone(&self.store), TableRules::default())
    }
}

/// What a row of a batch is called: rows of one table are in the order of their names.
fn value(batch: u64, place: u64) -> String {
    format!("{batch:03}-{place}")
}

/// A batch with two new rows a table.
fn batch(number: u64, tables: &[TableId]) -> (Batch, Vec<Event>) {
    let commit = Lsn(number * 100);
    let mut events = Vec::new();
    for (ordinal, table) in (1..).zip(tables.iter().flat_map(|table| [table; 2])) {
        let place = (ordinal - 1) % 2;
        let new = row(&schema_of(*table), [&value(number, place), &value(number, place)]);
        let position = Position::new(commit, ordinal);
        events.push(Event::Change(Change {
            table_id: *table,
            position,
            committed_at: COMMITTED,
            op: Op::Insert { new },
        }));
    }
    let from = Position::after(Lsn((number - 1) * 100));
    (Batch { cursor: CursorId::Main, from, upto: Position::after(commit), moves: Vec::new(), is_piece: false }, events)
}

/// All rows of these batches.
fn values(batches: impl IntoIterator<Item = u64>) -> Vec<String> {
    batches.into_iter().flat_map(|number| [value(number, 0), value(number, 1)]).collect()
}

/// Writes batches of these tables, each begun in its turn and before the one before it is done.
async fn write<D: Destination>(
    destination: &D,
    batches: impl IntoIterator<Item = u64>,
    tables: &[TableId],
) -> Vec<EtlResult<()>> {
    let calls = batches.into_iter().map(|number| {
        let (batch, events) = batch(number, tables);
        destination.write_batch(batch, events)
    });
    join_all(calls).await
}

#[tokio::test(start_paused = true)]
async fn p7_a_table_whose_job_takes_an_hour_delays_neither_its_batch_nor_the_next_ones_of_others() {
    let [slow, quick, other] = TABLES;
    let scene = Scene::new(Slow::taking(&[(slow, HOUR)])).await;
    let began = clock::now();
    let destination = scene.open();
    assert!(destination.capabilities().writes_in_flight >= 20, "the engine hands over the next ones meanwhile");
    let written = write(&destination, 1..=20, &TABLES).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    for table in TABLES {
        assert_eq!(scene.system.values(table), values(1..=20), "in order, each once: {table}");
    }
    for table in [quick, other] {
        assert!(scene.system.last(table).since(began) < Duration::from_secs(120), "{table} has waited");
    }
    let took = scene.system.last(slow).since(began);
    assert!(took >= HOUR * 2 && took < HOUR * 3, "what waited for the first job is one job: {took:?}");
    assert_eq!(scene.system.jobs(slow), 2);
}

#[tokio::test(start_paused = true)]
async fn p2_each_tables_order_holds_over_many_batches_whose_jobs_take_different_times() {
    let takes = [1, 45, 700].map(Duration::from_secs);
    let times: Vec<(TableId, Duration)> = TABLES.into_iter().zip(takes).collect();
    let scene = Scene::new(Slow::taking(&times)).await;
    let destination = scene.open();
    // Not each batch has each table.
    let calls = (1..=90).map(|number| {
        let tables: Vec<TableId> = TABLES.into_iter().filter(|table| number % u64::from(table.0 + 1) != 0).collect();
        let (batch, events) = batch(number, &tables);
        destination.write_batch(batch, events)
    });
    let written = join_all(calls).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    for table in TABLES {
        let expected = values((1..=90).filter(|number| number % u64::from(table.0 + 1) != 0));
        assert_eq!(scene.system.values(table), expected, "{table}");
    }
}

#[tokio::test(start_paused = true)]
async fn p1_after_a_batch_that_fails_nothing_of_its_table_is_written_before_it_has_come_again() {
    let [failing, other, _] = TABLES;
    let scene = Scene::new(Slow::taking(&[(failing, HOUR), (other, HOUR / 2)])).await;
    scene.system.0.lock().unwrap().refuses = Some(value(5, 1));
    let destination = scene.open();
    let written = write(&destination, 1..=4, &[failing, other]).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    let written = write(&destination, 5..=9, &[failing, other]).await;
    let failed: Vec<bool> = written.iter().map(Result::is_err).collect();
    assert_eq!(failed, [true; 5], "both tables refuse it, and what comes after it waits");
    assert_eq!(written[0].as_ref().unwrap_err().kind(), ErrorKind::Config, "the first says why");
    for table in [failing, other] {
        assert_eq!(scene.system.values(table), values(1..=4), "{table}");
    }
    // The engine goes on for as long as it has not heard of it.
    let late = write(&destination, 10..=11, &[failing]).await;
    assert!(late.iter().all(Result::is_err), "{late:?}");
    scene.system.0.lock().unwrap().refuses = None;
    let written = write(&destination, 5..=11, &[failing, other]).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    for table in [failing, other] {
        assert_eq!(scene.system.values(table), values(1..=11), "{table}");
    }
}

#[tokio::test(start_paused = true)]
async fn p3_what_one_table_has_written_of_batches_that_come_again_is_left_out() {
    let both = [TABLES[0], TABLES[1]];
    let [failing, quick] = both;
    let scene = Scene::new(Slow::taking(&[(failing, HOUR)])).await;
    scene.system.0.lock().unwrap().refuses = Some(value(1, 0));
    let destination = scene.open();
    let calls = (1..=8).map(|number| {
        let (batch, events) = batch(number, &both[..number.min(2) as usize]);
        destination.write_batch(batch, events)
    });
    assert!(join_all(calls).await.iter().all(Result::is_err));
    assert_eq!(scene.system.values(quick), values(2..=8), "it did not wait for the other");
    let before = scene.system.jobs(quick);
    scene.system.0.lock().unwrap().refuses = None;
    // Cut in other places, as what comes again is; here, and in another process.
    for destination in [destination, scene.open()] {
        let calls = (1..=8).map(|number| {
            let (batch, events) = batch(number, &both[..number.min(2) as usize]);
            destination.write_batch(batch, events)
        });
        let written = join_all(calls).await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
        assert_eq!((scene.system.values(failing), scene.system.jobs(quick)), (values(1..=8), before));
    }
}

/// A value that only the first of two changes of a row has said is in the second one once they are folded. Where what they
/// came with arrived in part and comes again cut otherwise, the first is not left out unless it arrived.
#[tokio::test(start_paused = true)]
async fn p1_a_value_that_was_folded_into_a_later_change_arrives_though_only_part_of_its_batch_did() {
    let scene = Scene::new(Slow::default()).await;
    let ops = || {
        let mut ops: Vec<Op> = (0..60).map(|n| insert([&format!("k{n}"), &format!("v{n}")])).collect();
        ops.insert(3, update(["moved", "kept"]));
        ops.insert(50, update(["moved", "?"]));
        ops
    };
    scene.system.0.lock().unwrap().refuses = Some("v59".to_owned());
    let destination = scene.open();
    let (whole, events) = transaction(100, ops());
    destination.write_batch(whole, events).await.unwrap_err();
    let arrived = scene.system.values(TABLES[0]).len();
    assert_eq!(arrived, 40, "the first of two");
    scene.system.0.lock().unwrap().refuses = None;
    let (whole, events) = transaction(100, ops());
    let (first, second) = events.split_at(30);
    let middle = Position::new(Lsn(100), 30);
    for (from, upto, events) in [(whole.from, middle, first), (middle, whole.upto, second)] {
        scene.open().write_batch(Batch { from, upto, ..whole.clone() }, events.to_vec()).await.unwrap();
    }
    let values = scene.system.values(TABLES[0]);
    assert!(values.iter().any(|value| value == "kept"), "{values:?}");
    for n in 0..60 {
        assert_eq!(values.iter().filter(|value| **value == format!("v{n}")).count(), 1, "{n}: {values:?}");
    }
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

#[tokio::test(start_paused = true)]
async fn p3_batches_that_are_given_up_anywhere_and_come_again_to_another_process_arrive_once_and_in_order() {
    let [first, second, _] = TABLES;
    let mut cuts = 0;
    loop {
        let scene = Scene::new(Slow::taking(&[(first, Duration::from_secs(5))])).await;
        let cut = Box::pin(cut_after(cuts, async { write(&scene.open(), 1..=4, &[first, second]).await })).await;
        let written = write(&scene.open(), 1..=6, &[first, second]).await;
        assert!(written.iter().all(Result::is_ok), "{cuts}: {written:?}");
        for table in [first, second] {
            assert_eq!(scene.system.values(table), values(1..=6), "{cuts}: {table}");
        }
        let operations = scene.store.operations().await.unwrap();
        assert!(operations.len() <= 2 && operations.iter().all(|of| of.state.is_settled()), "{operations:?}");
        if cut.is_some() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 10, "{cuts}");
}

#[tokio::test(start_paused = true)]
async fn p3_batches_that_are_given_up_anywhere_and_come_again_to_the_same_process_arrive_once_and_in_order() {
    let [first, second, _] = TABLES;
    let mut cuts = 0;
    loop {
        let scene = Scene::new(Slow::taking(&[(first, Duration::from_secs(5))])).await;
        let destination = scene.open();
        let cut = Box::pin(cut_after(cuts, write(&destination, 1..=4, &[first, second]))).await;
        let written = write(&destination, 1..=6, &[first, second]).await;
        assert!(written.iter().all(Result::is_ok), "{cuts}: {written:?}");
        for table in [first, second] {
            assert_eq!(scene.system.values(table), values(1..=6), "{cuts}: {table}");
        }
        if cut.is_some() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 10, "{cuts}");
}
