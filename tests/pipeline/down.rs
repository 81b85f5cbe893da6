//! What does a destination that is down for minutes cost the source? No WAL, with `ack: relay`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use etl::pipeline::Ack;
use etl_local_postgres::LocalPostgres;
use harness::postgres::{client, dedicated};
use harness::skip::skip;
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

const TABLES: &[&str] = &["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];

/// What the slot may keep of it.
const KEPT: i64 = 128 << 20;

/// Seconds in `make test`, minutes in `make soak`.
fn lasts() -> Duration {
    Duration::from_secs(if std::env::var_os("ETL_SOAK").is_some() { 300 } else { 5 })
}

fn pgbench(server: &LocalPostgres, arguments: &[&str]) -> Option<tokio::process::Command> {
    let mut command = tokio::process::Command::from(server.tool("pgbench")?);
    command.args(arguments).arg(server.url()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    Some(command)
}

async fn kept(client: &Client) -> i64 {
    let query = "SELECT (pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots";
    client.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_destination_that_is_down_under_load_keeps_no_wal_and_ends_equal() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    let Some(mut fill) = pgbench(&server, &["-i", "-q", "-s", "2"]) else {
        skip("there is no pgbench here");
        return;
    };
    assert!(fill.status().await.unwrap().success());
    let client = client(&server.url()).await;
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let mut world = World::new("down", &server.url());
    world.settings.ack = Ack::Relay;
    let running = world.start().await;
    caught_up(&running).await;

    world.destination.hold(Call::Batch);
    let seconds = lasts().as_secs().to_string();
    let mut load = pgbench(&server, &["-n", "-c", "4", "-T", &seconds]).unwrap().spawn().unwrap();
    let (mut most, began) = (0, Instant::now());
    while load.try_wait().unwrap().is_none() {
        most = most.max(kept(&client).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let status = running.handle().status();
    println!(
        "down for {:?}: {} MiB of WAL kept at most, {} MiB in the relay, lag {} MiB",
        began.elapsed(),
        most >> 20,
        (status.relay.disk_bytes + status.relay.memory_bytes) >> 20,
        status.lag_bytes >> 20,
    );
    assert!(most < KEPT, "{most} bytes of WAL were kept");
    assert!(status.lag_bytes > 0, "the destination was down");
    world.destination.release();
    caught_up(&running).await;
    stop(running).await;
    world.assert_equal(&client, TABLES).await;
}
