//! Is every row there exactly once, wherever a run is cut off while its table joins the main cursor?

use std::sync::Arc;
use std::time::Duration;

use etl::data::{CopiedRows, Event, TableRow};
use etl::destination::{Batch, Capabilities, CopyChunk, Destination, MemoryDestination};
use etl::pipeline::Ack;
use etl::schema::{TableId, TableSchema};
use etl::store::{
    BoxFuture, CopiedLeaf, CopyStore, DeadLetterStore, MemoryStore, OperationStore, Progress, RepairKey, SchemaStore,
    StateStore, TableState,
};
use etl::{CursorId, EtlResult, Lsn, Position};
use harness::postgres::database;
use tokio::sync::watch;

use crate::publication::{find, until};
use crate::running::{World, caught_up, received, slot_is_free, stop};
use crate::watched::{Call, Fault, Watched};

/// How many times destination or store are changed until a table shares the main cursor, and some more.
const MOMENTS: u64 = 26;

/// Counts what is made durable, and lets nothing more pass after so many times.
#[derive(Debug, Clone)]
struct Steps(watch::Sender<u64>);

impl Steps {
    async fn next(&self) {
        let mut is_last = false;
        self.0.send_modify(|left| {
            is_last = *left == 0;
            *left = left.saturating_sub(1);
        });
        if is_last {
            std::future::pending::<()>().await;
        }
    }
}

/// A destination that hangs before its changes are made.
#[derive(Debug, Clone)]
struct Cut(MemoryDestination, Steps);

impl Destination for Cut {
    async fn truncate_table(&self, table_id: TableId) -> EtlResult<()> {
        self.1.next().await;
        self.0.truncate_table(table_id).await
    }
    async fn write_table_rows(&self, table_id: TableId, table_rows: Vec<TableRow>) -> EtlResult<()> {
        self.0.write_table_rows(table_id, table_rows).await
    }
    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        self.0.write_events(events).await
    }
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
        self.0.replaces_copied_rows(schema)
    }
    async fn write_copy_chunk(&self, table_id: TableId, chunk: CopyChunk, table_rows: CopiedRows) -> EtlResult<()> {
        self.1.next().await;
        self.0.write_copy_chunk(table_id, chunk, table_rows).await
    }
    async fn write_batch(&self, batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        self.1.next().await;
        self.0.write_batch(batch, events).await
    }
    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        self.0.durable_position(cursor).await
    }
}

/// A store that does.
struct CutStore(Arc<MemoryStore>, Steps);

impl StateStore for CutStore {
    fn table_states(&self) -> BoxFuture<'_, EtlResult<Vec<(TableId, TableState)>>> {
        self.0.table_states()
    }
    fn set_table_state(&self, table: TableId, expect: Option<u64>, state: TableState) -> BoxFuture<'_, EtlResult<u64>> {
        Box::pin(async move {
            self.1.next().await;
            self.0.set_table_state(table, expect, state).await
        })
    }
    fn advance(&self, cursor: CursorId, to: Position) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            self.1.next().await;
            self.0.advance(cursor, to).await
        })
    }
    fn forget_cursor(&self, cursor: CursorId) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            self.1.next().await;
            self.0.forget_cursor(cursor).await
        })
    }
    fn confirm(&self, end: Lsn) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            self.1.next().await;
            self.0.confirm(end).await
        })
    }
    fn set_back(&self, confirmed: Lsn) -> BoxFuture<'_, EtlResult<()>> {
        self.0.set_back(confirmed)
    }
    fn progress(&self) -> BoxFuture<'_, EtlResult<Progress>> {
        self.0.progress()
    }
    fn fact(&self, name: &'static str) -> BoxFuture<'_, EtlResult<Option<String>>> {
        self.0.fact(name)
    }
    fn set_fact(&self, name: &'static str, value: String) -> BoxFuture<'_, EtlResult<()>> {
        self.0.set_fact(name, value)
    }
}

impl OperationStore for CutStore {}

impl DeadLetterStore for CutStore {}

impl CopyStore for CutStore {
    fn copied(&self, table: TableId) -> BoxFuture<'_, EtlResult<Vec<CopiedLeaf>>> {
        self.0.copied(table)
    }
    fn put_copied(&self, table: TableId, leaf: CopiedLeaf) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            self.1.next().await;
            self.0.put_copied(table, leaf).await
        })
    }
    fn repairs(&self, table: TableId) -> BoxFuture<'_, EtlResult<Vec<RepairKey>>> {
        self.0.repairs(table)
    }
    fn add_repairs(&self, table: TableId, keys: Vec<RepairKey>) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            self.1.next().await;
            self.0.add_repairs(table, keys).await
        })
    }
    fn remove_repairs(&self, table: TableId, keys: Vec<RepairKey>) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            self.1.next().await;
            self.0.remove_repairs(table, keys).await
        })
    }
    fn forget_copy(&self, table: TableId) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            self.1.next().await;
            self.0.forget_copy(table).await
        })
    }
}

impl SchemaStore for CutStore {
    fn schema_at(&self, table: TableId, at: Position) -> BoxFuture<'_, EtlResult<Option<Arc<TableSchema>>>> {
        self.0.schema_at(table, at)
    }
    fn put_schema(&self, schema: Arc<TableSchema>) -> BoxFuture<'_, EtlResult<()>> {
        self.0.put_schema(schema)
    }
    fn prune_schemas(&self, table: TableId, before: Position) -> BoxFuture<'_, EtlResult<()>> {
        self.0.prune_schemas(table, before)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_a_table_without_a_key_has_every_row_once_wherever_its_joining_is_cut_off() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (n bigserial, v text); INSERT INTO t (v) SELECT 'old' FROM generate_series(1, 50);
             CREATE TABLE u (n bigserial, v text); CREATE PUBLICATION p FOR TABLE t, u",
        )
        .await
        .unwrap();
    let (enough, is_enough) = watch::channel(false);
    let writer = database.client().await;
    let writing = tokio::spawn(async move {
        while !*is_enough.borrow() {
            writer.batch_execute("INSERT INTO t (v) VALUES ('t'); INSERT INTO u (v) VALUES ('u')").await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let turns = Arc::new(tokio::sync::Semaphore::new(6));
    let runs = (1..MOMENTS).map(|moment| {
        let (name, url, turns) = (format!("{}_{moment}", database.name()), database.url(), Arc::clone(&turns));
        tokio::spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            let steps = Steps(watch::Sender::new(moment));
            let mut world = World::new(&name, &url);
            let store = Arc::new(MemoryStore::new());
            world.store = Arc::new(CutStore(Arc::clone(&store), steps.clone()));
            let cut = Cut(world.memory.clone(), steps.clone());
            let reached = async {
                let _ = steps.0.subscribe().wait_for(|left| *left == 0).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            };
            let run = async {
                let _running = world.start_into(cut.clone()).await;
                std::future::pending::<()>().await;
            };
            let cut_off = async {
                tokio::select! { () = run => {}, () = reached => {} }
            };
            tokio::time::timeout(Duration::from_secs(120), cut_off).await.unwrap_or_else(|_| panic!("moment {moment}"));
            // Nothing of the first run passes any more.
            world.store = store;
            let running = world.start_into(world.memory.clone()).await;
            (world, running)
        })
    });
    let runs: Vec<_> = runs.collect();
    let mut cut_off = Vec::new();
    for run in runs {
        cut_off.push(run.await.unwrap());
    }
    enough.send_replace(true);
    writing.await.unwrap();
    for (world, running) in cut_off {
        caught_up(&running).await;
        world.assert_equal(&client, &["t", "u"]).await;
        stop(running).await;
    }
}

/// What the main cursor has written comes from it no more, though it reads it again: the destination skips that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_a_table_joins_after_all_that_the_main_cursor_has_written_heard_or_unheard() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (v text); INSERT INTO t VALUES ('old');
             CREATE TABLE u (v text); CREATE PUBLICATION p FOR TABLE t, u",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    world.destination.is_held(Call::CopyRows).await;
    // A copy of it that has rows would be held too.
    until("ready", &running, async || find(&running, "u").is_some_and(|u| u.phase == "ready")).await;
    while world.destination.told().iter().all(|told| told.cursor != CursorId::Main) {
        client.batch_execute("INSERT INTO u VALUES ('old')").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Each time the main cursor waits for longer before it reads again; meanwhile the table gets ready to join.
    (0..5).for_each(|_| world.destination.fail(Call::Batch, Fault::Unheard));
    client.batch_execute("BEGIN; INSERT INTO t VALUES ('new'); INSERT INTO u VALUES ('new'); COMMIT").await.unwrap();
    while !world.destination.has_failed() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.destination.release();
    caught_up(&running).await;
    world.assert_equal(&client, &["t", "u"]).await;
    stop(running).await;
}

/// A table that joined, and nobody heard of it, goes on with a cursor of its own: what the main cursor writes from then on is
/// not written of this table, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_a_table_that_joined_unheard_lacks_nothing_of_what_the_main_cursor_passes_first_after_a_restart() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let tables = "CREATE TABLE t (v text); CREATE TABLE u (v text); INSERT INTO u VALUES ('old');
        CREATE PUBLICATION p FOR TABLE t";
    client.batch_execute(tables).await.unwrap();
    let mut world = World::new(database.name(), &database.url());
    // The relay reaches back to where the main cursor is, beyond where the table's copy began.
    world.settings.ack = Ack::Relay;
    let running = world.start().await;
    until("ready", &running, async || find(&running, "t").is_some_and(|t| t.phase == "ready")).await;
    while world.destination.told().iter().all(|told| told.cursor != CursorId::Main) {
        client.batch_execute("INSERT INTO t VALUES ('old')").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Its copy begins after all that the main cursor has written.
    received(&running, &client).await;
    world.destination.hold(Call::CopyRows);
    client.batch_execute("ALTER PUBLICATION p ADD TABLE u").await.unwrap();
    world.destination.is_held(Call::CopyRows).await;
    let u = find(&running, "u").unwrap().id;
    world.destination.fail_each(Call::Batch, Fault::Unheard);
    world.destination.release();
    let place = async |cursor| world.memory.durable_position(cursor).await.unwrap();
    until("joined", &running, async || place(CursorId::Table(u)).await == place(CursorId::Main).await).await;
    world.destination.fail_each(Call::Batch, Fault::Refused);
    client.batch_execute("INSERT INTO u SELECT 'new' FROM generate_series(1, 10)").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES ('new')").await.unwrap();
    received(&running, &client).await;
    running.handle().abort();
    running.wait().await.unwrap();
    slot_is_free(&client).await;

    let again = Watched::new(world.memory.clone(), true);
    again.hold(Call::OwnChanges);
    let running = world.start_into(again.clone()).await;
    // Unless it waits for the table, which may have asked before to join where the main cursor has not been yet.
    for _ in 0..40 {
        if again.told().iter().any(|told| told.cursor == CursorId::Main && told.table != u) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    again.release();
    caught_up(&running).await;
    world.assert_equal(&client, &["t", "u"]).await;
    stop(running).await;
}

/// What the main cursor has passed counts as durable of the tables alone that shared it then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_a_table_behind_what_the_main_cursor_has_passed_lacks_nothing_of_it_after_two_restarts() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let tables = "CREATE TABLE t (v text); CREATE TABLE u (v text); INSERT INTO u VALUES ('old');
        CREATE PUBLICATION p FOR TABLE t";
    client.batch_execute(tables).await.unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.settings.batch.max_rows = 5;
    let running = world.start().await;
    until("ready", &running, async || find(&running, "t").is_some_and(|t| t.phase == "ready")).await;
    world.destination.hold(Call::CopyRows);
    client.batch_execute("ALTER PUBLICATION p ADD TABLE u").await.unwrap();
    world.destination.is_held(Call::CopyRows).await;
    // The last that it writes; then there is nothing for it, and too much for the table to join at once.
    client.batch_execute("INSERT INTO t VALUES ('new')").await.unwrap();
    for _ in 0..60 {
        client.batch_execute("INSERT INTO u SELECT repeat('x', 60000)").await.unwrap();
    }
    let end = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap();
    let end: Lsn = end.get::<_, &str>(0).parse().unwrap();
    until("passed", &running, async || running.handle().status().confirmed >= end).await;
    world.destination.hold(Call::OwnChanges);
    world.destination.release_one(Call::CopyRows);
    world.destination.let_one_pass(Call::OwnChanges).await;
    running.handle().abort();
    running.wait().await.unwrap();
    slot_is_free(&client).await;

    let again = Watched::new(world.memory.clone(), true);
    again.hold(Call::Changes);
    let running = world.start_into(again.clone()).await;
    again.let_one_pass(Call::Changes).await;
    running.handle().abort();
    running.wait().await.unwrap();
    slot_is_free(&client).await;

    let running = world.start_into(world.memory.clone()).await;
    caught_up(&running).await;
    world.assert_equal(&client, &["t", "u"]).await;
    stop(running).await;
}
