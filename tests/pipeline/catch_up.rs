//! Does a table that was catching up go on where it was, as long as the relay has what it needs?

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etl::pipeline::RunningPipeline;
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

const TABLES: &[&str] = &["t", "other"];

/// A run that was cut short: `t` was catching up, and the slot has forgotten what it had to catch up.
async fn cut_short(database: &Database, client: &Client) -> World {
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY);
             INSERT INTO t SELECT g, 'copied' FROM generate_series(1, 100) g;
             CREATE PUBLICATION p FOR TABLE t, other",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    reaches(&running, "other", "ready").await;
    world.destination.is_held(Call::CopyRows).await;
    client
        .batch_execute(
            "UPDATE t SET v = 'updated' WHERE id % 2 = 0; DELETE FROM t WHERE id % 5 = 0;
             INSERT INTO t SELECT g, 'inserted' FROM generate_series(101, 150) g; INSERT INTO other VALUES (1)",
        )
        .await
        .unwrap();
    is_forgotten(database, client).await;
    // The main cursor has passed it, so `t` cannot join before it has caught up by itself.
    world.destination.hold(Call::Batch);
    world.destination.release_one(Call::CopyRows);
    reaches(&running, "t", "catching_up").await;
    world.destination.is_held(Call::Batch).await;
    // What comes now, neither has.
    client.batch_execute("INSERT INTO t VALUES (200, 'late'); INSERT INTO other VALUES (2)").await.unwrap();
    running.handle().abort();
    running.wait().await.unwrap();
    client.batch_execute("UPDATE t SET v = 'meanwhile' WHERE id % 7 = 0; INSERT INTO other VALUES (3)").await.unwrap();
    world.destination.release();
    world
}

/// Waits until the slot keeps nothing of what has happened so far.
async fn is_forgotten(database: &Database, client: &Client) {
    let slot = format!("etl_{}", database.name());
    let passed: String = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
    let query = "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1::text";
    let has_passed = async || client.query_one(query, &[&slot, &passed]).await.unwrap().get(0);
    until(has_passed).await.expect("the slot moves on");
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) -> Result<(), ()> {
    for _ in 0..2400 {
        if is_so().await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(())
}

async fn reaches(running: &RunningPipeline, table: &str, phase: &str) {
    let handle = running.handle();
    let is_there = async || handle.status().tables.iter().any(|t| &*t.name.name == table && t.phase == phase);
    until(is_there).await.unwrap_or_else(|()| panic!("{:#?}", handle.status()));
}

async fn oid(client: &Client) -> etl::schema::TableId {
    etl::schema::TableId(client.query_one("SELECT 't'::regclass::oid", &[]).await.unwrap().get(0))
}

/// How often `t` was begun to be copied.
async fn generation(world: &World, client: &Client) -> u64 {
    let id = oid(client).await;
    let states = world.store.table_states().await.unwrap();
    states.iter().find(|(table, _)| *table == id).map_or(0, |(_, state)| state.generation)
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    assert!(!segments.is_empty(), "nothing was kept");
    segments
}

/// Starts again, follows to the end, and says how often `t` was copied for that.
async fn again(world: &World, client: &Client) -> u64 {
    let before = generation(world, client).await;
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(client, TABLES).await;
    client.batch_execute("INSERT INTO t VALUES (300, 'after'); DELETE FROM other WHERE id = 1").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(client, TABLES).await;
    stop(running).await;
    generation(world, client).await - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_table_that_was_catching_up_resumes_from_the_relay_after_an_abort() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = cut_short(&database, &client).await;
    assert_eq!(again(&world, &client).await, 0, "it was copied again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_a_table_that_was_catching_up_is_copied_again_when_the_relay_is_gone() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = cut_short(&database, &client).await;
    segments(&world.relay_dir());
    fs::remove_dir_all(world.relay_dir()).unwrap();
    assert_eq!(again(&world, &client).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_a_table_that_was_catching_up_is_copied_again_when_the_relay_is_damaged() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = cut_short(&database, &client).await;
    let segment = segments(&world.relay_dir()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    fs::write(&segment, bytes).unwrap();
    assert_eq!(again(&world, &client).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_a_table_that_left_the_publication_goes_although_the_relay_is_lost_that_it_had_to_read() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = cut_short(&database, &client).await;
    fs::remove_dir_all(world.relay_dir()).unwrap();
    client.batch_execute("ALTER PUBLICATION p DROP TABLE t").await.unwrap();
    let running = world.start().await;
    caught_up(&running).await;
    assert!(running.handle().status().tables.iter().all(|table| &*table.name.name != "t"));
    world.assert_equal(&client, &["other"]).await;
    stop(running).await;
}

/// After a restart the main cursor reads the relay from where it is durable, which may be long before what is confirmed.
/// A table that joined it there would need what only the relay has, and the run after the next would not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_table_joins_after_all_that_the_source_has_forgotten_wherever_the_main_cursor_begins_again() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE slow (id int PRIMARY KEY, v text);
             INSERT INTO slow SELECT g, 'copied' FROM generate_series(1, 100) g; CREATE PUBLICATION p FOR TABLE slow",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    let held = &world.destination;
    // As long as `slow` is being copied nothing is written by the main cursor, and the relay is kept from its beginning.
    held.hold(Call::CopyRows);
    let running = world.start().await;
    held.is_held(Call::CopyRows).await;
    // What a main cursor that begins again has to pass before it is where the table is.
    client.batch_execute("UPDATE slow SET v = repeat('x', 300000)").await.unwrap();
    held.hold(Call::CopyBegins);
    client.batch_execute("ALTER PUBLICATION p ADD TABLE t").await.unwrap();
    held.is_held(Call::CopyBegins).await;
    client.batch_execute("INSERT INTO t VALUES (1, 'while it was copied')").await.unwrap();
    is_forgotten(&database, &client).await;
    held.hold(Call::Changes);
    held.release_one(Call::CopyBegins);
    held.is_held(Call::Changes).await;
    drop(running);

    held.nobody_waits().await;
    let running = world.start().await;
    held.are_held(Call::Changes, 1).await;
    drop(running);

    let running = world.start().await;
    held.release();
    caught_up(&running).await;
    world.assert_equal(&client, &["t", "slow"]).await;
    stop(running).await;
}
