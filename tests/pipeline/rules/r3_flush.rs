//! Is nothing copied that a crash of the source takes back?

use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use harness::postgres::dedicated;
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

/// Nobody flushes what an asynchronous commit leaves behind, unless something asks for it.
fn lazy_server() -> etl_local_postgres::Builder {
    LocalPostgres::builder().setting("wal_writer_delay", "10s").setting("wal_writer_flush_after", "1GB")
}

/// The process that flushes when nobody asks, standing still.
struct WalWriter(Pid);

impl WalWriter {
    async fn freeze(client: &Client) -> Self {
        let query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'";
        let pid = Pid::from_raw(client.query_one(query, &[]).await.unwrap().get(0)).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for WalWriter {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
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
    let wal_writer = WalWriter::freeze(&client).await;
    client.batch_execute("SET synchronous_commit = off; INSERT INTO t VALUES (1, 'soon durable')").await.unwrap();
    world.destination.hold(Call::CopyRows);
    world.destination.release_one(Call::Truncate);
    world.destination.is_held(Call::CopyRows).await;
    let ends = "SELECT pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()";
    assert!(!client.query_one(ends, &[]).await.unwrap().get::<_, bool>(0), "copied before it was flushed");
    drop(wal_writer);
    world.destination.release();
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
}
