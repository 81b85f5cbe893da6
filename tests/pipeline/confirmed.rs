//! What is the source told while a write is under way? Nothing of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use etl::data::{Event, TableRow};
use etl::destination::{Batch, Capabilities, Destination};
use etl::schema::TableId;
use etl::{EtlResult, Lsn};
use harness::postgres::database;
use tokio::sync::watch;
use tokio_postgres::Client;

use crate::running::{World, caught_up, received, slot_is_free, stop};
use crate::watched::Call;

async fn lsn(client: &Client, query: &str) -> Lsn {
    client.query_one(query, &[]).await.unwrap().get::<_, String>(0).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_the_source_may_forget_a_change_only_once_its_write_has_ended() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    world.destination.hold(Call::Batch);
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let written = lsn(&client, "SELECT pg_current_wal_insert_lsn()::text").await;
    world.destination.is_held(Call::Batch).await;
    received(&running, &client).await;
    // More than a feedback and a confirmation take.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let told = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = current_database()";
    assert!(lsn(&client, told).await < written, "{:#?}", running.handle().status());
    assert!(world.store.progress().await.unwrap().confirmed.unwrap() < written);
    world.destination.release();
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
    slot_is_free(&client).await;
    assert!(lsn(&client, told).await >= written);
}

/// Takes three batches at a time, and ends each once it is told to.
#[derive(Clone)]
struct Lanes {
    begun: Arc<watch::Sender<usize>>,
    may_end: Arc<watch::Sender<BTreeSet<usize>>>,
    ended: Arc<watch::Sender<BTreeSet<usize>>>,
}

impl Lanes {
    fn new() -> Self {
        let (begun, may_end, ended) = (watch::Sender::new(0), watch::Sender::default(), watch::Sender::default());
        Self { begun: Arc::new(begun), may_end: Arc::new(may_end), ended: Arc::new(ended) }
    }

    async fn has_begun(&self, count: usize) {
        let mut begun = self.begun.subscribe();
        let waits = begun.wait_for(|begun| *begun >= count);
        tokio::time::timeout(Duration::from_secs(120), waits).await.expect("it does not begin").unwrap();
    }

    async fn end(&self, number: usize) {
        self.may_end.send_modify(|may_end| may_end.extend([number]));
        let mut ended = self.ended.subscribe();
        ended.wait_for(|ended| ended.contains(&number)).await.unwrap();
    }
}

impl Destination for Lanes {
    async fn truncate_table(&self, _table_id: TableId) -> EtlResult<()> {
        Ok(())
    }

    async fn write_table_rows(&self, _table_id: TableId, _table_rows: Vec<TableRow>) -> EtlResult<()> {
        Ok(())
    }

    async fn write_events(&self, _events: Vec<Event>) -> EtlResult<()> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_writes_in_flight(3)
    }

    async fn write_batch(&self, _batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        if !events.iter().any(|event| matches!(event, Event::Change(_))) {
            return Ok(());
        }
        let mut number = 0;
        self.begun.send_modify(|begun| {
            *begun += 1;
            number = *begun;
        });
        self.may_end.subscribe().wait_for(|may_end| may_end.contains(&number)).await.unwrap();
        self.ended.send_modify(|ended| ended.extend([number]));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_of_writes_that_end_out_of_order_only_the_contiguous_prefix_is_confirmed() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let world = World::new(database.name(), &database.url());
    let lanes = Lanes::new();
    let running = world.start_into(lanes.clone()).await;
    caught_up(&running).await;
    let mut written = Lsn::ZERO;
    for number in 1..=4 {
        client.batch_execute(&format!("INSERT INTO t VALUES ({number})")).await.unwrap();
        if number == 1 {
            written = lsn(&client, "SELECT pg_current_wal_insert_lsn()::text").await;
        }
        lanes.has_begun(number.min(3)).await;
    }
    lanes.end(3).await;
    lanes.end(2).await;
    received(&running, &client).await;
    let confirmed = world.store.progress().await.unwrap().confirmed;
    assert!(confirmed.unwrap() < written, "the first is not durable: {confirmed:?}");
    assert_eq!(*lanes.begun.borrow(), 3, "the fourth waits for the first");
    lanes.end(1).await;
    lanes.has_begun(4).await;
    lanes.end(4).await;
    caught_up(&running).await;
    stop(running).await;
    let told = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = current_database()";
    assert!(lsn(&client, told).await >= written);
}
