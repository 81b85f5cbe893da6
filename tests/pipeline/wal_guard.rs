//! Does a source that keeps much WAL get rid of it, before its disk is full?

use std::time::Duration;

use etl::pipeline::RunningPipeline;
use etl::source::{AtWalLimit, WalGuard};
use etl::{ByteSize, ErrorKind};
use etl_local_postgres::LocalPostgres;
use harness::postgres::{client as client_at, dedicated};
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};

async fn level(running: &RunningPipeline, wanted: &str) {
    let handle = running.handle();
    for _ in 0..600 {
        if handle.status().wal_guard == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never {wanted}: {:?}", handle.status());
}

/// A table to copy, one that is not published, and a transaction that holds the slot back from now on.
async fn scene(world: &World, client: &Client, url: &str) -> (RunningPipeline, Client) {
    let tables =
        "CREATE TABLE filler (t text); CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t;
        INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 20000) g";
    client.batch_execute(tables).await.unwrap();
    let running = world.start().await;
    caught_up(&running).await;
    let holder = client_at(url).await;
    holder.batch_execute("BEGIN; INSERT INTO filler VALUES ('holds the slot back')").await.unwrap();
    (running, holder)
}

async fn write_wal(client: &Client, megabytes: u32) {
    for _ in 0..megabytes {
        client.batch_execute("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 900)").await.unwrap();
    }
}

fn mib(count: u64) -> Option<ByteSize> {
    Some(ByteSize::mib(count))
}

/// Copies get slower, then wait, and go on once less is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_wait_while_the_source_keeps_much() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    let client = client_at(&server.url()).await;
    let mut world = World::new("shop", &server.url());
    let guard = WalGuard { warn_at: ByteSize::mib(4), slow_at: mib(8), pause_at: mib(24), ..WalGuard::default() };
    world.wal_guard = WalGuard { slow_to: ByteSize(200_000), ..guard };
    let (running, holder) = scene(&world, &client, &server.url()).await;
    assert_eq!(running.handle().status().wal_guard, "calm");
    write_wal(&client, 6).await;
    level(&running, "warned").await;
    write_wal(&client, 6).await;
    level(&running, "copies_slowed").await;
    let table = running.handle().status().tables[0].id;
    running.handle().resync(table).await.unwrap();
    write_wal(&client, 18).await;
    level(&running, "copies_paused").await;
    let copied = || running.handle().status().tables[0].rows_copied;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = copied();
    assert!(before < 20_000, "a copy that is slowed down takes 20 seconds");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(copied(), before, "nothing is read while copies wait");
    client.batch_execute("INSERT INTO t VALUES (0, 'goes on')").await.unwrap();
    holder.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("CHECKPOINT").await.unwrap();
    level(&running, "calm").await;
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
}

/// The run ends; what happens to the slot is the user's choice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_at_the_limit_the_run_ends_and_the_slot_goes_where_that_is_wanted() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    let client = client_at(&server.url()).await;
    let mut world = World::new("shop", &server.url());
    world.wal_guard = WalGuard { limit: mib(8), ..WalGuard::default() };
    let (running, holder) = scene(&world, &client, &server.url()).await;
    write_wal(&client, 10).await;
    let error = running.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WalRetained, "{error}");
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(client.query_one(slots, &[]).await.unwrap().get::<_, i64>(0), 1, "the source still keeps it");

    world.wal_guard.at_limit = AtWalLimit::DropSlot;
    let running = world.start().await;
    let error = running.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WalRetained, "{error}");
    assert_eq!(client.query_one(slots, &[]).await.unwrap().get::<_, i64>(0), 0, "the source has its disk back");
    holder.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("DELETE FROM t WHERE id < 100; INSERT INTO t VALUES (0, 'missed')").await.unwrap();
    // Nobody has to allow it once more.
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
}
