//! What if a table is to be copied again at the moment at which it becomes ready? Its state is stored by one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etl::schema::{TableId, TableSchema};
use etl::store::{
    BoxFuture, CopiedLeaf, CopyStore, DeadLetterStore, MemoryStore, OperationStore, Phase, Progress, RepairKey,
    SchemaStore, StateStore, TableState,
};
use etl::{CursorId, EtlResult, Lsn, Position};
use harness::postgres::database;
use tokio::sync::watch;

use crate::running::{World, caught_up, stop};

/// Stores that a table is ready only once somebody has stored something else about it, or does not for a while.
struct SlowStore {
    store: MemoryStore,
    /// How far it is, in the order of [`Moment`].
    moment: watch::Sender<Moment>,
    is_slow: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Begun,
    Copies,
    Copied,
    /// It is about to be stored that the table is ready.
    Settles,
    Other,
}

impl SlowStore {
    fn passes(&self, moment: Moment) {
        self.moment.send_if_modified(|now| {
            let is_later = moment > *now;
            *now = moment.max(*now);
            is_later
        });
    }

    async fn reaches(&self, moment: Moment, within: Duration) -> bool {
        let mut now = self.moment.subscribe();
        let reached = now.wait_for(|now| *now >= moment);
        tokio::time::timeout(within, reached).await.is_ok()
    }
}

impl StateStore for SlowStore {
    fn table_states(&self) -> BoxFuture<'_, EtlResult<Vec<(TableId, TableState)>>> {
        self.store.table_states()
    }
    fn set_table_state(&self, table: TableId, expect: Option<u64>, state: TableState) -> BoxFuture<'_, EtlResult<u64>> {
        Box::pin(async move {
            let phase = state.phase.clone();
            if phase == Phase::Ready && self.is_slow.swap(false, Ordering::SeqCst) {
                self.passes(Moment::Settles);
                self.reaches(Moment::Other, Duration::from_secs(2)).await;
            }
            let stored = self.store.set_table_state(table, expect, state).await;
            match phase {
                Phase::Copying { .. } => self.passes(Moment::Copies),
                Phase::CatchingUp { .. } => self.passes(Moment::Copied),
                Phase::Pending if *self.moment.borrow() == Moment::Settles => self.passes(Moment::Other),
                _ => {}
            }
            stored
        })
    }
    fn advance(&self, cursor: CursorId, to: Position) -> BoxFuture<'_, EtlResult<()>> {
        self.store.advance(cursor, to)
    }
    fn forget_cursor(&self, cursor: CursorId) -> BoxFuture<'_, EtlResult<()>> {
        self.store.forget_cursor(cursor)
    }
    fn confirm(&self, end: Lsn) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            // Whoever confirms makes the table ready, and not the cursor that it has joined.
            let is_copying = *self.moment.borrow() >= Moment::Copies && self.is_slow.load(Ordering::SeqCst);
            if is_copying && self.reaches(Moment::Copied, Duration::from_secs(30)).await {
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
            self.store.confirm(end).await
        })
    }
    fn set_back(&self, confirmed: Lsn) -> BoxFuture<'_, EtlResult<()>> {
        self.store.set_back(confirmed)
    }
    fn progress(&self) -> BoxFuture<'_, EtlResult<Progress>> {
        self.store.progress()
    }
    fn fact(&self, name: &'static str) -> BoxFuture<'_, EtlResult<Option<String>>> {
        self.store.fact(name)
    }
    fn set_fact(&self, name: &'static str, value: String) -> BoxFuture<'_, EtlResult<()>> {
        self.store.set_fact(name, value)
    }
}

impl OperationStore for SlowStore {}

impl DeadLetterStore for SlowStore {}

impl CopyStore for SlowStore {
    fn copied(&self, table: TableId) -> BoxFuture<'_, EtlResult<Vec<CopiedLeaf>>> {
        self.store.copied(table)
    }
    fn put_copied(&self, table: TableId, leaf: CopiedLeaf) -> BoxFuture<'_, EtlResult<()>> {
        self.store.put_copied(table, leaf)
    }
    fn repairs(&self, table: TableId) -> BoxFuture<'_, EtlResult<Vec<RepairKey>>> {
        self.store.repairs(table)
    }
    fn add_repairs(&self, table: TableId, keys: Vec<RepairKey>) -> BoxFuture<'_, EtlResult<()>> {
        self.store.add_repairs(table, keys)
    }
    fn remove_repairs(&self, table: TableId, keys: Vec<RepairKey>) -> BoxFuture<'_, EtlResult<()>> {
        self.store.remove_repairs(table, keys)
    }
    fn forget_copy(&self, table: TableId) -> BoxFuture<'_, EtlResult<()>> {
        self.store.forget_copy(table)
    }
}

impl SchemaStore for SlowStore {
    fn schema_at(&self, table: TableId, at: Position) -> BoxFuture<'_, EtlResult<Option<Arc<TableSchema>>>> {
        self.store.schema_at(table, at)
    }
    fn put_schema(&self, schema: Arc<TableSchema>) -> BoxFuture<'_, EtlResult<()>> {
        self.store.put_schema(schema)
    }
    fn prune_schemas(&self, table: TableId, before: Position) -> BoxFuture<'_, EtlResult<()>> {
        self.store.prune_schemas(table, before)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_copied_again_while_it_becomes_ready_ends_whole() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g;
             CREATE TABLE busy (n int); CREATE PUBLICATION p FOR TABLE t",
        )
        .await
        .unwrap();
    let mut world = World::new(database.name(), &database.url());
    let (moment, is_slow) = (watch::Sender::new(Moment::Begun), AtomicBool::new(true));
    let store = Arc::new(SlowStore { store: MemoryStore::new(), moment, is_slow });
    world.store = Arc::<SlowStore>::clone(&store);
    // The snapshot has seen more than is confirmed by then.
    let (enough, is_enough) = watch::channel(false);
    let writer = database.client().await;
    let writing = tokio::spawn(async move {
        while !*is_enough.borrow() {
            writer.batch_execute("INSERT INTO busy VALUES (1)").await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let running = world.start().await;
    client.batch_execute("INSERT INTO t VALUES (0, 'y')").await.unwrap();
    assert!(store.reaches(Moment::Settles, Duration::from_secs(60)).await);
    let table = running.handle().status().tables[0].id;
    running.handle().resync(table).await.unwrap();
    enough.send_replace(true);
    writing.await.unwrap();
    caught_up(&running).await;
    client.batch_execute("UPDATE t SET v = 'z' WHERE id = 0").await.unwrap();
    caught_up(&running).await;
    while running.handle().status().tables[0].phase != "ready" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop(running).await;
    world.assert_equal(&client, &["t"]).await;
    let states = store.table_states().await.unwrap();
    assert_eq!(states.iter().map(|(_, state)| state.generation).collect::<Vec<_>>(), [2]);
}
