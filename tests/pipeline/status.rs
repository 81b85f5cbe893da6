//! Does the status show the right numbers at each step of a run?

use std::time::Duration;

use etl::pipeline::{PipelineStatus, RunningPipeline, TableStatus};
use harness::postgres::database;
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

fn table(status: &PipelineStatus) -> &TableStatus {
    &status.tables[0]
}

/// Waits until the status is as it should be.
async fn shows(running: &RunningPipeline, what: &str, is_so: impl Fn(&PipelineStatus) -> bool) -> PipelineStatus {
    for _ in 0..4800 {
        let status = running.handle().status();
        if is_so(&status) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what}: {:#?}", running.handle().status());
}

async fn prepared(client: &Client) {
    let make =
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'copied' FROM generate_series(1, 100) g;
                ANALYZE t; CREATE PUBLICATION p FOR TABLE t";
    client.batch_execute(make).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_a_run_shows_its_numbers() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    prepared(&client).await;
    let world = World::new(database.name(), &database.url());
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;

    world.destination.is_held(Call::CopyRows).await;
    let copying = shows(&running, "copying", |status| status.memory.copy_bytes > 0).await;
    let found = table(&copying);
    assert_eq!((found.phase, found.rows_copied, found.rows_estimated), ("copying", 0, Some(100)));
    assert_eq!((found.durable, found.lag_bytes, found.lag_seconds), (None, None, None));
    assert_eq!((copying.memory.limit_bytes, copying.relay.max_bytes), (128 << 20, 10 << 30));
    assert_eq!(copying.slot, format!("etl_{}", database.name()));

    world.destination.release();
    caught_up(&running).await;
    let ready = shows(&running, "ready", |status| table(status).phase == "ready").await;
    assert_eq!((table(&ready).rows_copied, ready.memory.copy_bytes, ready.changes_written), (100, 0, 0));
    let asked = shows(&running, "the slot", |status| status.source.as_ref().is_some_and(|slot| slot.active)).await;
    assert_eq!(asked.source.unwrap().wal_status.as_deref(), Some("reserved"));

    client.batch_execute("INSERT INTO t VALUES (101, 'a'), (102, 'b')").await.unwrap();
    caught_up(&running).await;
    let done = running.handle().status();
    // Begin and commit count too.
    assert_eq!((done.changes_written, done.lag_seconds), (4, 0.0));
    assert!(done.durable.is_some() && table(&done).durable == done.durable && done.last_error.is_none(), "{done:#?}");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_rises_while_the_destination_is_held_and_falls_after() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    prepared(&client).await;
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;

    world.destination.hold(Call::Batch);
    client.batch_execute("UPDATE t SET v = 'held'").await.unwrap();
    world.destination.is_held(Call::Batch).await;
    let first = shows(&running, "a lag", |status| status.lag_seconds > 0.0 && status.lag_bytes > 0).await;
    assert!(first.memory.batch_bytes > 0 && first.lag_seconds < 60.0, "{first:#?}");
    tokio::time::sleep(Duration::from_millis(700)).await;
    // More commits do not make the oldest one younger.
    client.batch_execute("INSERT INTO t VALUES (500, 'later')").await.unwrap();
    let second = running.handle().status();
    assert!(second.lag_seconds > first.lag_seconds + 0.6, "{} {}", first.lag_seconds, second.lag_seconds);
    assert_eq!(table(&second).lag_seconds, Some(second.lag_seconds), "a ready table has the pipeline's lag");

    world.destination.release();
    caught_up(&running).await;
    let after = shows(&running, "no lag", |status| status.lag_seconds == 0.0 && status.memory.batch_bytes == 0).await;
    assert!(after.lag_bytes < second.lag_bytes, "{} {}", after.lag_bytes, second.lag_bytes);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_stream_is_shown_with_its_error_and_heals() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    prepared(&client).await;
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    let kill = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1";
    client.query(kill, &[&format!("etl_{}", database.name())]).await.unwrap();
    let lost = shows(&running, "the error", |status| status.last_error.is_some()).await;
    let error = lost.last_error.unwrap();
    assert_eq!(error.kind, "source_unavailable", "{error}");
    shows(&running, "it streams again", |status| status.streaming).await;
    client.batch_execute("INSERT INTO t VALUES (101, 'a')").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
}
