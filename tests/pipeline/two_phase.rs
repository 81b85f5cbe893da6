//! Is what was prepared applied when it commits, and only then, whatever ends in between?

use std::path::Path;
use std::time::Duration;

use etl::pipeline::{Ack, RunningPipeline};
use etl::{ByteSize, ErrorKind};
use etl_local_postgres::LocalPostgres;
use harness::postgres::{client, dedicated};
use tokio_postgres::Client;

use crate::ack_relay::forgets;
use crate::running::{World, caught_up, slot_is_free, stop};

const TABLES: &[&str] = &["t", "lines"];

/// A server that lets transactions be prepared, and can send them.
async fn server() -> Option<(LocalPostgres, Client)> {
    let server = dedicated(LocalPostgres::builder().setting("max_prepared_transactions", "20")).await?;
    let client = client(&server.url()).await;
    let tables = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE lines (v text);
                  INSERT INTO t SELECT g, 'copied' FROM generate_series(1, 100) g;
                  CREATE PUBLICATION p FOR TABLE t, lines";
    client.batch_execute(tables).await.unwrap();
    Some((server, client))
}

/// Transactions are streamed from 64 kB on.
fn world(server: &LocalPostgres, ack: Ack) -> World {
    let mut world = World::new("two_phase", &server.url());
    world.two_phase = true;
    world.decoding_memory = Some(ByteSize(64 << 10));
    world.settings.ack = ack;
    world
}

async fn ready(world: &World) -> RunningPipeline {
    let running = world.start().await;
    caught_up(&running).await;
    running
}

/// Changes of a table, to be committed or not; the large ones come while they are in progress.
async fn prepare(client: &Client, gid: &str, first: i32, is_large: bool) {
    let (rows, words) = if is_large { (3000, 100) } else { (5, 10) };
    let sql = format!(
        "BEGIN; INSERT INTO t SELECT g, '{gid}' || repeat('x', {words})
                  FROM generate_series({first}, {first} + {rows} - 1) g;
         SAVEPOINT a; INSERT INTO lines SELECT 'void' || g FROM generate_series(1, {rows}) g; ROLLBACK TO a;
         SAVEPOINT b; UPDATE t SET v = v || ' again' WHERE id % 3 = 0 AND id BETWEEN {first} AND {first} + {rows} - 1;
         RELEASE b; INSERT INTO lines SELECT '{gid}' || g FROM generate_series(1, {rows}) g;
         PREPARE TRANSACTION '{gid}'"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// What is prepared, here.
fn notes(relay: &Path) -> usize {
    let files = std::fs::read_dir(relay).into_iter().flatten().flatten();
    files.filter(|file| file.path().extension().is_some_and(|kind| kind == "prepared")).count()
}

/// Everything is there, and nothing is kept of what has an end.
async fn finish(world: &World, running: RunningPipeline, client: &Client) {
    caught_up(&running).await;
    world.assert_equal(client, TABLES).await;
    for _ in 0..200 {
        if notes(&world.relay_dir()) == 0 {
            break;
        }
        // The last confirmation is on its way.
        client.batch_execute("INSERT INTO lines VALUES ('one more')").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(notes(&world.relay_dir()), 0, "what has an end is forgotten");
    stop(running).await;
}

/// Three that stay open, two of which came while they were in progress; the source has forgotten them.
async fn three(world: &World, client: &Client, slot: &str) {
    prepare(client, "small", 1000, false).await;
    prepare(client, "large", 10_000, true).await;
    prepare(client, "void", 20_000, true).await;
    client.batch_execute("INSERT INTO lines VALUES ('meanwhile')").await.unwrap();
    assert!(forgets(client, slot).await, "what is prepared holds the slot back");
    assert_eq!(notes(&world.relay_dir()), 3);
}

const ENDS: &[&str] = &["COMMIT PREPARED 'small'", "ROLLBACK PREPARED 'void'", "COMMIT PREPARED 'large'"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_what_is_prepared_is_applied_at_its_commit_and_holds_nothing_back() {
    let Some((server, client)) = server().await else { return };
    let world = world(&server, Ack::Destination);
    if server.major() < 15 {
        let error = world.refusal().await;
        assert_eq!(error.kind(), ErrorKind::SourceSetup, "{error}");
        return;
    }
    let running = ready(&world).await;
    three(&world, &client, "etl_two_phase").await;
    caught_up(&running).await;
    world.assert_equal(&client, TABLES).await;
    for end in ENDS {
        client.batch_execute(end).await.unwrap();
        caught_up(&running).await;
        world.assert_equal(&client, TABLES).await;
    }
    finish(&world, running, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_what_is_prepared_survives_restarts_and_commits_while_nobody_listens() {
    for ack in [Ack::Destination, Ack::Relay] {
        let Some((server, client)) = server().await else { return };
        if server.major() < 15 {
            return;
        }
        let world = world(&server, ack);
        let running = ready(&world).await;
        let copied = world.destination.copied();
        three(&world, &client, "etl_two_phase").await;
        drop(running);
        slot_is_free(&client).await;
        for end in ENDS {
            let running = ready(&world).await;
            drop(running);
            slot_is_free(&client).await;
            client.batch_execute(end).await.unwrap();
            // The first attempt ends anywhere.
            let running = world.start().await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            drop(running);
            slot_is_free(&client).await;
            let running = ready(&world).await;
            world.assert_equal(&client, TABLES).await;
            drop(running);
            slot_is_free(&client).await;
        }
        let running = world.start().await;
        finish(&world, running, &client).await;
        assert_eq!(world.destination.copied(), copied, "nothing is copied again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_tables_are_copied_again_when_what_was_prepared_is_lost_and_commits() {
    let Some((server, client)) = server().await else { return };
    if server.major() < 15 {
        return;
    }
    let world = world(&server, Ack::Destination);
    let running = ready(&world).await;
    three(&world, &client, "etl_two_phase").await;
    drop(running);
    slot_is_free(&client).await;
    std::fs::remove_dir_all(world.relay_dir()).unwrap();
    let running = ready(&world).await;
    client.batch_execute("ROLLBACK PREPARED 'void'").await.unwrap();
    caught_up(&running).await;
    let copied = world.destination.copied();
    client.batch_execute("COMMIT PREPARED 'small'").await.unwrap();
    client.batch_execute("INSERT INTO lines VALUES ('after')").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), running.wait()).await.expect("it goes on");
    let error = ended.unwrap_err();
    assert_eq!((error.kind(), error.context("gid")), (ErrorKind::Relay, Some("small")), "{error}");
    // The other one is lost too: its commit comes before the copy, which waits for whoever has written the tables.
    client.batch_execute("COMMIT PREPARED 'large'").await.unwrap();
    slot_is_free(&client).await;
    let error = world.start().await.wait().await.unwrap_err();
    assert_eq!(error.context("gid"), Some("large"), "{error}");
    slot_is_free(&client).await;
    let running = ready(&world).await;
    assert!(world.destination.copied() > copied);
    finish(&world, running, &client).await;
    let running = world.start().await;
    finish(&world, running, &client).await;
}
