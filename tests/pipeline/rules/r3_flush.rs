//! Is nothing copied that a crash of the source takes back?

use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use harness::postgres::dedicated;

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

/// Nobody flushes what an asynchronous commit leaves behind, unless something asks for it.
fn lazy_server() -> etl_local_postgres::Builder {
    LocalPostgres::builder().setting("wal_writer_delay", "10s").setting("wal_writer_flush_after", "1GB")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_row_that_a_crash_takes_back_was_never_copied() {
    let Some(server) = dedicated(lazy_server()).await else { return };
    server.psql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let world = World::new("r3", &server.url());
    world.destination.hold(Call::Truncate);
    let running = world.start().await;
    world.destination.is_held(Call::Truncate).await;
    // The cursor is fixed; the snapshot will see this row, which is nowhere but in memory.
    let client = server.connect("postgres").await.unwrap();
    client.batch_execute("SET synchronous_commit = off; INSERT INTO t VALUES (1, 'phantom')").await.unwrap();
    let ends = "SELECT pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()";
    assert!(client.query_one(ends, &[]).await.unwrap().get::<_, bool>(0), "it is flushed already");
    world.destination.release();
    // Long enough for a copy that waits for nothing, or that the engine makes the server flush.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    server.restart_immediate().await.unwrap();
    let client = server.connect("postgres").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES (2, 'the xid may be the same')").await.unwrap();
    world.destination.release();
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_copy_does_not_wait_for_a_lazy_server_to_flush() {
    let Some(server) = dedicated(lazy_server()).await else { return };
    server.psql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let world = World::new("r3_lazy", &server.url());
    world.destination.hold(Call::Truncate);
    let running = world.start().await;
    world.destination.is_held(Call::Truncate).await;
    let client = server.connect("postgres").await.unwrap();
    client.batch_execute("SET synchronous_commit = off; INSERT INTO t VALUES (1, 'soon durable')").await.unwrap();
    world.destination.hold(Call::CopyRows);
    world.destination.release_one(Call::Truncate);
    let held = tokio::time::timeout(Duration::from_secs(4), world.destination.is_held(Call::CopyRows)).await;
    assert!(held.is_ok(), "the flush was waited for");
    let ends = "SELECT pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()";
    assert!(!client.query_one(ends, &[]).await.unwrap().get::<_, bool>(0), "copied before it was flushed");
    world.destination.release();
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
}
