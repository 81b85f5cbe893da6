//! What becomes of a pipeline whose destination fails, answers late or never, or is not heard?

use std::collections::BTreeSet;
use std::time::Duration;

use etl::ErrorKind;
use etl::pipeline::RunningPipeline;
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::running::{World, caught_up, received, stop};
use crate::watched::{Call, Fault};

const TABLES: &[&str] = &["t", "lines"];

/// A table with a key and one without, in which whatever comes twice is there twice.
async fn world(database: &Database, client: &Client) -> World {
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE lines (v text);
             INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 3000) g;
             INSERT INTO lines SELECT 'line' FROM generate_series(1, 50) g; CREATE PUBLICATION p FOR ALL TABLES",
        )
        .await
        .unwrap();
    World::new(database.name(), &database.url())
}

async fn write(client: &Client) {
    let sql = "UPDATE t SET v = 'y' WHERE id % 3 = 0; INSERT INTO lines VALUES ('more'), ('more')";
    client.batch_execute(sql).await.unwrap();
}

async fn ends_equal(world: &World, running: RunningPipeline, client: &Client) {
    caught_up(&running).await;
    stop(running).await;
    world.assert_equal(client, TABLES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_refused_or_unheard_is_made_again_and_nothing_is_there_twice() {
    for fault in [Fault::Refused, Fault::Unheard] {
        let Some(database) = database().await else { return };
        let client = database.client().await;
        let world = world(&database, &client).await;
        for call in [Call::Truncate, Call::CopyBegins, Call::CopyRows, Call::CopyRows] {
            world.destination.fail(call, fault);
        }
        let running = world.start().await;
        caught_up(&running).await;
        assert!(world.destination.has_failed());
        world.assert_equal(&client, TABLES).await;
        for _ in 0..3 {
            world.destination.fail(Call::Batch, fault);
            write(&client).await;
            caught_up(&running).await;
            assert!(world.destination.has_failed());
        }
        ends_equal(&world, running, &client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_lasts_while_the_connection_is_lost_is_not_made_again() {
    for is_released_before in [true, false] {
        let Some(database) = database().await else { return };
        let client = database.client().await;
        let world = world(&database, &client).await;
        let running = world.start().await;
        caught_up(&running).await;
        world.destination.hold(Call::Batch);
        write(&client).await;
        world.destination.is_held(Call::Batch).await;
        let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                    WHERE database = current_database() AND active";
        client.execute(end, &[]).await.unwrap();
        if is_released_before {
            world.destination.release();
        }
        write(&client).await;
        received(&running, &client).await;
        world.destination.release();
        ends_equal(&world, running, &client).await;
        let told = world.destination.told();
        let places: BTreeSet<_> = told.iter().map(|told| told.position).collect();
        assert_eq!(places.len(), told.len(), "the destination was told twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_what_is_being_written_and_is_told_once() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = world(&database, &client).await;
    let running = world.start().await;
    caught_up(&running).await;
    world.destination.hold(Call::Batch);
    // In one batch: what is not complete is not waited for.
    client.batch_execute("UPDATE t SET v = 'y' WHERE id % 30 = 0; INSERT INTO lines VALUES ('more')").await.unwrap();
    world.destination.is_held(Call::Batch).await;
    running.handle().shutdown();
    let ending = tokio::spawn(running.wait());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!ending.is_finished() && world.destination.shutdowns() == 0, "it is still writing");
    world.destination.release();
    ending.await.unwrap().unwrap();
    world.assert_equal(&client, TABLES).await;
    assert_eq!(world.destination.shutdowns(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_cannot_end_is_told_as_the_end_of_the_run() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = world(&database, &client).await;
    let running = world.start().await;
    caught_up(&running).await;
    world.destination.fail(Call::Shutdown, Fault::Refused);
    let error = running.shutdown(Duration::from_secs(180)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationUnavailable, "{error}");
    ends_equal(&world, world.start().await, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_never_answers_does_not_keep_a_run_from_ending() {
    for call in [Call::Truncate, Call::CopyBegins, Call::CopyRows, Call::Batch] {
        let Some(database) = database().await else { return };
        let client = database.client().await;
        let world = world(&database, &client).await;
        if call != Call::Batch {
            world.destination.hold(call);
        }
        let running = world.start().await;
        if call == Call::Batch {
            caught_up(&running).await;
            world.destination.hold(call);
            write(&client).await;
        }
        world.destination.is_held(call).await;
        let ending = running.shutdown(Duration::from_millis(500));
        let ended = tokio::time::timeout(Duration::from_secs(180), ending).await;
        let ended = ended.unwrap_or_else(|_| panic!("{call:?} is waited for")).unwrap();
        assert!(ended.aborted, "{call:?}: what was not written is said to be");
        world.destination.release();
        ends_equal(&world, world.start().await, &client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_to_be_copied_anew_while_it_is_copied_begins_again() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = world(&database, &client).await;
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    world.destination.is_held(Call::CopyRows).await;
    let handle = running.handle();
    let table = handle.status().tables.iter().find(|table| &*table.name.name == "t").unwrap().id;
    let wishing = tokio::spawn(async move { handle.resync(table).await });
    write(&client).await;
    world.destination.release();
    wishing.await.unwrap().unwrap();
    ends_equal(&world, running, &client).await;
    let states = world.store.table_states().await.unwrap();
    assert_eq!(states.iter().find(|(id, _)| *id == table).unwrap().1.generation, 2);
}

/// Waits until the query says yes.
async fn until(client: &Client, query: &str) {
    while !client.query_one(query, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_gone_before_all_have_joined_it_leads_to_another_one() {
    let Some(database) = database().await else { return };
    let (client, other) = (database.client().await, database.client().await);
    client
        .batch_execute(
            "CREATE TABLE t (v text); INSERT INTO t SELECT repeat('x', 500) || g FROM generate_series(1, 4000) g;
             CREATE PUBLICATION p FOR ALL TABLES",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    world.destination.hold(Call::CopyBegins);
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    world.destination.is_held(Call::CopyBegins).await;
    // Whoever joins the snapshot waits behind this one, who waits for the connection that has exported it.
    let alone = tokio::spawn(async move { other.batch_execute("BEGIN; LOCK TABLE t; ROLLBACK").await });
    let waits = |mode| {
        format!("SELECT count(*) > 0 FROM pg_locks WHERE relation = 't'::regclass AND NOT granted AND mode = '{mode}'")
    };
    until(&client, &waits("AccessExclusiveLock")).await;
    world.destination.release_one(Call::CopyBegins);
    until(&client, &waits("AccessShareLock")).await;
    world.destination.is_held(Call::CopyRows).await;
    let end = "SELECT bool_and(pg_terminate_backend(pid)) FROM pg_locks
                WHERE relation = 't'::regclass AND granted AND mode = 'AccessShareLock'";
    assert!(client.query_one(end, &[]).await.unwrap().get::<_, bool>(0));
    alone.await.unwrap().unwrap();
    until(&client, "SELECT count(*) = 0 FROM pg_locks WHERE relation = 't'::regclass AND NOT granted").await;
    world.destination.release();
    caught_up(&running).await;
    stop(running).await;
    world.assert_equal(&client, &["t"]).await;
}
