//! Do transactions that come while they are in progress arrive as those that come at their commit do?

use std::fs;
use std::path::Path;
use std::time::Duration;

use etl::ByteSize;
use etl::pipeline::{Ack, RunningPipeline};
use harness::postgres::{Database, database};
use harness::proxy::{Cut, Proxy};
use tokio_postgres::Client;

use crate::ack_relay::forgets;
use crate::running::{World, caught_up, slot_is_free, stop};
use crate::watched::{Call, Told};

const TABLES: &[&str] = &["t", "counted", "other", "emptied"];

/// Tables with and without a key, with values out of line and full old rows.
async fn prepared(database: &Database) -> Client {
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
             CREATE TABLE counted (n int, v text); ALTER TABLE counted REPLICA IDENTITY FULL;
             CREATE TABLE other (id int PRIMARY KEY, v text); ALTER TABLE other REPLICA IDENTITY FULL;
             CREATE TABLE emptied (id int PRIMARY KEY);
             INSERT INTO t SELECT g, 'copied', repeat('t', 5000) FROM generate_series(1, 50) g;
             INSERT INTO counted VALUES (0, 'a'), (0, 'a'); INSERT INTO emptied VALUES (1), (2);
             CREATE PUBLICATION p FOR TABLE t, counted, other, emptied",
        )
        .await
        .unwrap();
    client
}

/// Transactions are streamed from 64 kB on.
fn world(database: &Database) -> World {
    world_at(database, &database.url())
}

fn world_at(database: &Database, url: &str) -> World {
    let mut world = World::new(database.name(), url);
    world.decoding_memory = Some(ByteSize(64 << 10));
    world
}

/// Runs the statements one by one, with time in between for what they wrote to be streamed.
async fn slowly(client: &Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

/// Savepoints that are kept, rolled back, and both within each other.
const NESTED: &[&str] = &[
    "BEGIN; INSERT INTO t SELECT g, 'one', repeat('x', 300) FROM generate_series(1000, 2000) g",
    "SAVEPOINT a; UPDATE t SET v = 'void' WHERE id < 1500; INSERT INTO counted SELECT g, 'void' FROM generate_series(1, 3000) g",
    "ROLLBACK TO a; UPDATE t SET v = 'kept' WHERE id % 2 = 0",
    "SAVEPOINT b; DELETE FROM t WHERE id % 10 = 3; INSERT INTO counted SELECT g % 7, 'kept' FROM generate_series(1, 2000) g",
    "SAVEPOINT c; UPDATE t SET id = -id WHERE id % 10 = 4; TRUNCATE emptied; INSERT INTO emptied VALUES (9)",
    "RELEASE c; SAVEPOINT d; INSERT INTO t SELECT -g, 'void', repeat('y', 900) FROM generate_series(5000, 6000) g",
    "SAVEPOINT e; DELETE FROM counted; RELEASE e; ROLLBACK TO d",
    "SAVEPOINT f; TRUNCATE t; INSERT INTO t SELECT g, 'void' FROM generate_series(1, 3000) g; ROLLBACK TO f",
    "RELEASE b; UPDATE counted SET v = 'again' WHERE n = 3; TRUNCATE emptied; INSERT INTO emptied VALUES (7)",
    "COMMIT",
];

const OTHER: &[&str] = &[
    "BEGIN; INSERT INTO other SELECT g, repeat('o', 200) FROM generate_series(1, 1500) g",
    "SAVEPOINT a; UPDATE other SET id = id + 10000 WHERE id % 3 = 0",
    "RELEASE a; UPDATE other SET v = 'seen' WHERE id % 5 = 0",
    "DELETE FROM other WHERE id % 7 = 0",
    "COMMIT",
];

const ROLLED_BACK: &[&str] = &[
    "BEGIN; INSERT INTO counted SELECT g, 'never' FROM generate_series(1, 4000) g",
    "SAVEPOINT a; INSERT INTO other SELECT 20000 + g, 'never' FROM generate_series(1, 2000) g; ROLLBACK TO a",
    "INSERT INTO counted SELECT g, 'never' FROM generate_series(1, 4000) g",
    "ROLLBACK",
];

/// Large transactions side by side, with small ones in between.
async fn busy(database: &Database, client: &Client) {
    let (one, two, three) = (database.client().await, database.client().await, database.client().await);
    let small = async {
        for n in 0..12 {
            let sql =
                format!("INSERT INTO counted VALUES ({n}, 'small'); INSERT INTO other VALUES (-{n} - 1, 'small')");
            client.batch_execute(&sql).await.unwrap();
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    };
    tokio::join!(slowly(&one, NESTED), slowly(&two, OTHER), slowly(&three, ROLLED_BACK), small);
}

/// The bytes in spool files.
fn spooled(relay: &Path) -> u64 {
    let files = fs::read_dir(relay).into_iter().flatten().flatten();
    let spools = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "spool"));
    spools.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

/// Waits until something of a transaction in progress is on disk.
async fn is_spooling(world: &World) {
    for _ in 0..1000 {
        if spooled(&world.relay_dir()) > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing was streamed");
}

async fn ready(world: &World) -> RunningPipeline {
    let running = world.start().await;
    caught_up(&running).await;
    running
}

/// Everything arrived, and nothing is left of what was in progress.
async fn finish(world: &World, running: RunningPipeline, client: &Client) {
    caught_up(&running).await;
    world.assert_equal(client, TABLES).await;
    for _ in 0..200 {
        if spooled(&world.relay_dir()) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(spooled(&world.relay_dir()), 0, "files of what everybody has are deleted");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_streamed_transactions_arrive_as_others_do_in_the_same_order_and_with_the_same_ordinals() {
    let Some(database) = database().await else { return };
    let client = prepared(&database).await;
    let streamed = world(&database);
    let mut whole = World::new(&format!("{}_whole", database.name()), &database.url());
    whole.streaming = false;
    let (first, second) = (ready(&streamed).await, ready(&whole).await);
    tokio::join!(busy(&database, &client), is_spooling(&streamed));
    assert_eq!(spooled(&whole.relay_dir()), 0, "streaming is off");
    caught_up(&second).await;
    whole.assert_equal(&client, TABLES).await;
    finish(&streamed, first, &client).await;
    stop(second).await;
    let told = |world: &World| -> Vec<Told> { world.destination.told() };
    let (streamed, whole) = (told(&streamed), told(&whole));
    assert_eq!(streamed.len(), whole.len());
    for (streamed, whole) in streamed.iter().zip(&whole) {
        assert_eq!(streamed, whole);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_a_restart_in_the_middle_of_a_streamed_transaction_begins_it_anew() {
    let Some(database) = database().await else { return };
    let client = prepared(&database).await;
    let world = world(&database);
    let running = ready(&world).await;
    let open = database.client().await;
    slowly(&open, &NESTED[..4]).await;
    is_spooling(&world).await;
    // Confirming past the chunks is safe: they come again.
    client.batch_execute("INSERT INTO counted VALUES (1, 'meanwhile')").await.unwrap();
    caught_up(&running).await;
    drop(running);
    slot_is_free(&client).await;
    let running = world.start().await;
    slowly(&open, &NESTED[4..]).await;
    finish(&world, running, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_a_cut_connection_voids_what_was_streamed_and_it_comes_again() {
    let Some(database) = database().await else { return };
    let client = prepared(&database).await;
    let address = database.url();
    let port = address.rsplit_once(':').unwrap().1.split('/').next().unwrap().parse::<u16>().unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], port).into()).await.unwrap();
    let world = world_at(&database, &proxy.url(&database.url()));
    let running = ready(&world).await;
    let (open, void) = (database.client().await, database.client().await);
    slowly(&open, &NESTED[..3]).await;
    slowly(&void, &ROLLED_BACK[..2]).await;
    is_spooling(&world).await;
    proxy.control().cut(Cut::Reset);
    slowly(&open, &NESTED[3..6]).await;
    slowly(&void, &ROLLED_BACK[2..]).await;
    proxy.control().cut(Cut::Close);
    slowly(&open, &NESTED[6..]).await;
    finish(&world, running, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_a_snapshot_tells_a_streamed_transaction_by_its_top_level_id() {
    let Some(database) = database().await else { return };
    let client = prepared(&database).await;
    let world = world(&database);
    world.destination.hold(Call::Truncate);
    let running = world.start().await;
    world.destination.is_held(Call::Truncate).await;
    // The cursors are fixed. This one is waited for, and the snapshot sees it (R1).
    let (seen, unseen) = (database.client().await, database.client().await);
    slowly(&seen, &NESTED[..5]).await;
    is_spooling(&world).await;
    world.destination.hold(Call::CopyBegins);
    world.destination.release_one(Call::Truncate);
    slowly(&seen, &NESTED[5..]).await;
    world.destination.is_held(Call::CopyBegins).await;
    // No snapshot sees this one.
    slowly(&unseen, OTHER).await;
    slowly(&unseen, &["BEGIN; INSERT INTO counted SELECT g, 'late' FROM generate_series(1, 3000) g", "SAVEPOINT a"])
        .await;
    world.destination.release();
    slowly(&unseen, &["INSERT INTO counted SELECT g, 'later' FROM generate_series(1, 3000) g", "COMMIT"]).await;
    finish(&world, running, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_the_source_forgets_a_streamed_transaction_that_is_in_the_relay_and_a_restart_goes_on_from_there() {
    let Some(database) = database().await else { return };
    let client = prepared(&database).await;
    let mut world = world(&database);
    world.settings.ack = Ack::Relay;
    let running = ready(&world).await;
    let copied = world.destination.copied();
    world.destination.hold(Call::Batch);
    busy(&database, &client).await;
    assert!(forgets(&client, &format!("etl_{}", database.name())).await, "the destination is down, and WAL is kept");
    let (kept, status) = (spooled(&world.relay_dir()), running.handle().status());
    assert!(kept > 0 && status.relay.disk_bytes >= kept, "{kept} {status:#?}");
    // In the middle of another one, which comes again; the ones that are confirmed do not.
    let open = database.client().await;
    slowly(&open, &["BEGIN; INSERT INTO counted SELECT g, 'open' FROM generate_series(1, 3000) g"]).await;
    drop(running);
    slot_is_free(&client).await;
    world.destination.release();
    let running = world.start().await;
    slowly(&open, &["COMMIT"]).await;
    finish(&world, running, &client).await;
    assert_eq!(world.destination.copied(), copied, "nothing is copied again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_a_streamed_transaction_whose_file_is_lost_is_copied_again() {
    let Some(database) = database().await else { return };
    let client = prepared(&database).await;
    let mut world = world(&database);
    world.settings.ack = Ack::Relay;
    let running = ready(&world).await;
    let copied = world.destination.copied();
    world.destination.hold(Call::Batch);
    slowly(&client, NESTED).await;
    slowly(&client, OTHER).await;
    assert!(forgets(&client, &format!("etl_{}", database.name())).await);
    drop(running);
    slot_is_free(&client).await;
    let file = fs::read_dir(world.relay_dir()).unwrap().flatten().map(|file| file.path());
    let spool = file.filter(|path| path.extension().is_some_and(|kind| kind == "spool")).min().unwrap();
    let mut content = fs::read(&spool).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0x55;
    fs::write(&spool, content).unwrap();
    world.destination.release();
    let running = world.start().await;
    finish(&world, running, &client).await;
    assert!(world.destination.copied() > copied, "what the source has forgotten is lost");
}
