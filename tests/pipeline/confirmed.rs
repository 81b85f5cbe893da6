//! What is the source told while a write is under way? Nothing of it.

use std::time::Duration;

use etl::Lsn;
use harness::postgres::database;
use tokio_postgres::Client;

use crate::running::{World, caught_up, received, stop};
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
    assert!(lsn(&client, told).await >= written);
}
