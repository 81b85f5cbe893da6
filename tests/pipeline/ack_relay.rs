//! May the destination be down while the source forgets, and is nothing lost, doubled or taken for whole afterwards?

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use etl::Lsn;
use etl::pipeline::{Ack, RunningPipeline};
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::running::{World, caught_up, slot_is_free, stop};
use crate::watched::Call;

const TABLES: &[&str] = &["t", "lines"];

/// A keyed table and one without a key, both ready, of a pipeline whose destination is then held.
async fn held(database: &Database, client: &Client, ack: Ack) -> (World, RunningPipeline) {
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE lines (v text);
             INSERT INTO t SELECT g, 'copied' FROM generate_series(1, 200) g; INSERT INTO lines VALUES ('a'), ('a');
             CREATE PUBLICATION p FOR ALL TABLES",
        )
        .await
        .unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.settings.ack = ack;
    let running = world.start().await;
    client.batch_execute("INSERT INTO lines VALUES ('first'); UPDATE t SET v = 'first' WHERE id = 1").await.unwrap();
    caught_up(&running).await;
    world.destination.hold(Call::Batch);
    (world, running)
}

async fn write(client: &Client, word: &str) {
    let sql = format!(
        "INSERT INTO lines SELECT '{word}' FROM generate_series(1, 300);
         UPDATE t SET v = '{word}' || repeat('x', 2000) WHERE id % 3 = 0; DELETE FROM t WHERE v = 'copied' AND id % 50 = 7"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// Whether the slot has passed everything that the server has flushed by now.
pub(crate) async fn forgets(client: &Client, slot: &str) -> bool {
    let flushed: String = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
    let query = "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1::text";
    for _ in 0..12000 {
        if client.query_one(query, &[&slot, &flushed]).await.unwrap().get(0) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// A pipeline that was cut off with what the source has forgotten in its relay.
async fn cut_off(database: &Database, client: &Client) -> World {
    let (world, running) = held(database, client, Ack::Relay).await;
    for word in ["one", "two"] {
        write(client, word).await;
        assert!(forgets(client, &format!("etl_{}", database.name())).await, "the destination is down, and WAL is kept");
    }
    let status = running.handle().status();
    assert!(status.confirmed > status.durable.unwrap().commit, "{status:#?}");
    assert!(status.lag_bytes > 0, "what the source has forgotten is still behind");
    drop(running);
    slot_is_free(client).await;
    write(client, "meanwhile").await;
    world.destination.release();
    world
}

/// Nothing came twice: the destination would have counted it.
async fn assert_whole(world: &World, client: &Client) {
    world.assert_equal(client, TABLES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_the_source_forgets_what_is_in_the_relay_and_a_restart_goes_on_from_there() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = cut_off(&database, &client).await;
    let copied = world.destination.copied();
    let running = world.start().await;
    write(&client, "afterwards").await;
    caught_up(&running).await;
    stop(running).await;
    assert_whole(&world, &client).await;
    assert_eq!(world.destination.copied(), copied, "nothing is copied again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_what_comes_in_quick_succession_is_confirmed_together() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let (world, running) = held(&database, &client, Ack::Relay).await;
    let (begun, mut confirmed) = (Instant::now(), BTreeSet::new());
    for _ in 0..300 {
        client.batch_execute("INSERT INTO lines VALUES ('quick')").await.unwrap();
        confirmed.insert(running.handle().status().confirmed);
    }
    // One every 50 ms at most.
    let most = begun.elapsed().as_millis() / 50 + 2;
    assert!(confirmed.len() as u128 <= most, "{} of {most}", confirmed.len());
    assert!(forgets(&client, &format!("etl_{}", database.name())).await);
    world.destination.release();
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_the_backlog_is_read_after_the_way_of_acknowledging_was_changed() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let mut world = cut_off(&database, &client).await;
    let copied = world.destination.copied();
    world.settings.ack = Ack::Destination;
    for _ in 0..2 {
        let running = world.start().await;
        caught_up(&running).await;
        stop(running).await;
        assert_whole(&world, &client).await;
        write(&client, "afterwards").await;
    }
    assert_eq!(world.destination.copied(), copied, "nothing is copied again");
    // With everything in the destination the relay is nobody's any more, and gone.
    assert!(!world.relay_dir().exists());
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    assert_whole(&world, &client).await;
    assert_eq!(world.destination.copied(), copied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_what_was_in_a_lost_relay_is_copied_again() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = cut_off(&database, &client).await;
    let copied = world.destination.copied();
    fs::remove_dir_all(world.relay_dir()).unwrap();
    // A start that ends before anything is copied forgets nothing of that.
    world.destination.hold(Call::Truncate);
    let running = world.start().await;
    world.destination.is_held(Call::Truncate).await;
    drop(running);
    world.destination.release();
    slot_is_free(&client).await;
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    assert_whole(&world, &client).await;
    assert!(world.destination.copied() > copied, "both tables were behind what the source was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_what_was_in_a_damaged_relay_is_copied_again() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = cut_off(&database, &client).await;
    let copied = world.destination.copied();
    let mut segments: Vec<_> = fs::read_dir(world.relay_dir()).unwrap().map(|file| file.unwrap().path()).collect();
    segments.sort();
    let mut content = fs::read(&segments[0]).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0x55;
    fs::write(&segments[0], content).unwrap();
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    assert_whole(&world, &client).await;
    assert!(world.destination.copied() > copied, "both tables were behind what the source was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_held_nothing_may_go() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let (world, running) = held(&database, &client, Ack::Relay).await;
    world.destination.release();
    write(&client, "one").await;
    caught_up(&running).await;
    assert!(running.handle().status().confirmed > Lsn::ZERO);
    stop(running).await;
    let copied = world.destination.copied();
    fs::remove_dir_all(world.relay_dir()).unwrap();
    let running = world.start().await;
    write(&client, "two").await;
    caught_up(&running).await;
    stop(running).await;
    assert_whole(&world, &client).await;
    assert_eq!(world.destination.copied(), copied, "everything was in the destination");
}
