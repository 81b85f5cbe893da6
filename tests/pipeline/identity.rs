//! Is a source that does not go on where it was left refused, with the tables that this costs, and are only those copied
//! again?

use std::path::{Path, PathBuf};
use std::time::Duration;

use etl::pipeline::RunningPipeline;
use etl::store::Phase;
use etl::{ErrorKind, EtlError};
use etl_local_postgres::{LocalPostgres, Shutdown};
use harness::postgres::{client, dedicated};
use tokio_postgres::Client;

use crate::running::{World, caught_up, slot_is_free, started, stop};

/// Two tables, copied and followed; the clean end says what each has.
pub(crate) async fn two_tables(world: &World, client: &Client) {
    let tables = "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text);
        INSERT INTO a SELECT g, 'a' FROM generate_series(1, 50) g; INSERT INTO b SELECT g, 'b' FROM generate_series(1, 50) g;
        CREATE PUBLICATION p FOR TABLE a, b";
    client.batch_execute(tables).await.unwrap();
    let running = world.start().await;
    caught_up(&running).await;
    client.batch_execute("INSERT INTO a VALUES (100, 'x'); INSERT INTO b VALUES (100, 'x')").await.unwrap();
    caught_up(&running).await;
    all_ready(&running).await;
    stop(running).await;
    slot_is_free(client).await;
}

pub(crate) async fn all_ready(running: &RunningPipeline) {
    let handle = running.handle();
    while handle.status().tables.iter().any(|table| table.phase != "ready") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How often each table was begun to be copied, by name.
pub(crate) async fn generations(world: &World) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for (id, state) in world.store.table_states().await.unwrap() {
        if state.phase != Phase::Removed {
            let schema = world.store.schema_at(id, etl::Position::after(etl::Lsn(u64::MAX))).await.unwrap().unwrap();
            found.push((schema.name.name.to_string(), state.generation));
        }
    }
    found.sort();
    found
}

pub(crate) fn of(a: u64, b: u64) -> Vec<(String, u64)> {
    vec![("a".to_owned(), a), ("b".to_owned(), b)]
}

/// Refused once with this diagnosis; then copies again what was named.
pub(crate) async fn refused(world: &World, what: &str, tables: &str) -> EtlError {
    let error = world.refusal().await;
    assert_eq!(error.kind(), ErrorKind::SourceIdentity, "{error}");
    assert!(error.to_string().contains(what), "{error}");
    assert_eq!(error.context("copy again"), Some(tables), "{error}");
    assert!(error.hint_text().unwrap().contains("--resync-affected"), "{error}");
    error
}

pub(crate) async fn resynced(world: &World, client: &Client) {
    let running = started(|| world.pipeline().resync_affected(true)).await.unwrap();
    caught_up(&running).await;
    world.assert_equal(client, &["a", "b"]).await;
    client.batch_execute("UPDATE a SET v = 'after' WHERE id < 9; DELETE FROM b WHERE id = 100").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(client, &["a", "b"]).await;
    all_ready(&running).await;
    stop(running).await;
    slot_is_free(client).await;
    let running = world.start().await;
    client.batch_execute("INSERT INTO b SELECT 700 + count(*), 'later' FROM b").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(client, &["a", "b"]).await;
    stop(running).await;
    slot_is_free(client).await;
}

const SLOT: &str = "etl_shop";

/// A slot that is gone, one that was made anew, one that was moved on: nobody knows what was missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_slot_that_is_gone_or_recreated_costs_every_table() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    let client = client(&server.url()).await;
    let world = World::new("shop", &server.url());
    two_tables(&world, &client).await;
    let drop = format!("SELECT pg_drop_replication_slot('{SLOT}')");
    client.batch_execute(&drop).await.unwrap();
    client.batch_execute("INSERT INTO a VALUES (200, 'missed'); DELETE FROM b WHERE id = 1").await.unwrap();
    refused(&world, "the slot is gone", "public.a, public.b").await;
    resynced(&world, &client).await;
    assert_eq!(generations(&world).await, of(2, 2));

    client.batch_execute(&drop).await.unwrap();
    client.batch_execute("INSERT INTO a VALUES (201, 'missed')").await.unwrap();
    let create = format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')");
    client.batch_execute(&create).await.unwrap();
    refused(&world, "recreated", "public.a, public.b").await;
    resynced(&world, &client).await;
    assert_eq!(generations(&world).await, of(3, 3));

    client
        .batch_execute("DROP PUBLICATION p; INSERT INTO a VALUES (202, 'missed'); CREATE PUBLICATION p FOR TABLE a, b")
        .await
        .unwrap();
    refused(&world, "the publication is another one", "public.a, public.b").await;
    resynced(&world, &client).await;
    assert_eq!(generations(&world).await, of(4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_the_server_gave_up_is_named_with_the_reason() {
    let builder = LocalPostgres::builder().setting("max_slot_wal_keep_size", "1MB").setting("max_wal_size", "32MB");
    let Some(server) = dedicated(builder.setting("min_wal_size", "32MB")).await else { return };
    let client = client(&server.url()).await;
    let world = World::new("shop", &server.url());
    two_tables(&world, &client).await;
    let lost = format!("SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = '{SLOT}'");
    while !client.query_one(&lost, &[]).await.unwrap().get::<_, bool>(0) {
        let write = "INSERT INTO a SELECT g, repeat('x', 500) FROM generate_series(1000, 20000) g; DELETE FROM a WHERE id >= 1000";
        client.batch_execute(write).await.unwrap();
        client.batch_execute("SELECT pg_switch_wal(); CHECKPOINT").await.unwrap();
    }
    let error = refused(&world, "invalidated", "public.a, public.b").await;
    assert_eq!(error.context("reason"), Some("wal_removed"), "{error}");
    assert!(error.to_string().contains("max_slot_wal_keep_size"), "{error}");
    resynced(&world, &client).await;
    assert_eq!(generations(&world).await, of(2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_database_and_another_server_are_told_from_a_renamed_one() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    server.create_database("one").await.unwrap();
    server.create_database("two").await.unwrap();
    let mut world = World::new("shop", &server.url_of("one"));
    let one = client(&world.url).await;
    two_tables(&world, &one).await;
    drop(one);
    world.url = server.url_of("two");
    let two = client(&world.url).await;
    let tables = "CREATE TABLE b (id int PRIMARY KEY, v text); CREATE TABLE a (id int PRIMARY KEY, v text);
        INSERT INTO a VALUES (1, 'other'); INSERT INTO b VALUES (1, 'other'); CREATE PUBLICATION p FOR TABLE a, b";
    two.batch_execute(tables).await.unwrap();
    refused(&world, "another database", "public.a, public.b").await;
    resynced(&world, &two).await;
    drop(two);

    server.psql("ALTER DATABASE two RENAME TO three").await.unwrap();
    world.url = server.url_of("three");
    let three = client(&world.url).await;
    let running = world.start().await;
    three.batch_execute("INSERT INTO a VALUES (300, 'renamed')").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&three, &["a", "b"]).await;
    stop(running).await;

    let Some(other) = dedicated(LocalPostgres::builder().own_identity()).await else { return };
    world.url = other.url();
    let there = client(&world.url).await;
    there.batch_execute(tables).await.unwrap();
    refused(&world, "another server", "public.a, public.b").await;
    resynced(&world, &there).await;
}

/// The server's files, as they are on disk.
fn copy_files(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(done.success());
}

async fn back_up(server: &LocalPostgres) -> PathBuf {
    server.stop(Shutdown::Fast).await.unwrap();
    let backup = server.socket_dir().join("backup");
    copy_files(server.data_dir(), &backup);
    server.start().await.unwrap();
    backup
}

async fn restore(server: &LocalPostgres, backup: &Path) {
    server.stop(Shutdown::Fast).await.unwrap();
    std::fs::remove_dir_all(server.data_dir()).unwrap();
    copy_files(backup, server.data_dir());
    server.start().await.unwrap();
}

/// The files of the server are put back, the slot with them: tables with something from after that are copied again,
/// the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_restored_backup_costs_the_tables_that_changed_since() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    let world = World::new("shop", &server.url());
    let before = client(&server.url()).await;
    two_tables(&world, &before).await;
    let running = world.start().await;
    // Until version 16 a slot is written to disk only when it lets go of WAL.
    for _ in 0..4 {
        before.batch_execute("CHECKPOINT; SELECT pg_logical_emit_message(true, 'test', '')").await.unwrap();
        caught_up(&running).await;
    }
    stop(running).await;
    slot_is_free(&before).await;
    let backup = back_up(&server).await;
    let before = client(&server.url()).await;
    let running = world.start().await;
    before
        .batch_execute(
            "INSERT INTO a SELECT g, 'never was' FROM generate_series(500, 900) g; DELETE FROM a WHERE id = 2",
        )
        .await
        .unwrap();
    caught_up(&running).await;
    stop(running).await;
    slot_is_free(&before).await;
    restore(&server, &backup).await;
    let after = client(&server.url()).await;
    after.batch_execute("INSERT INTO b VALUES (200, 'of the other history')").await.unwrap();
    refused(&world, "back in time", "public.a").await;
    resynced(&world, &after).await;
    assert_eq!(generations(&world).await, of(2, 1), "the other one was whole");
}

/// The server that was put back has written on since, beyond everything that was read: only what it sends tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_restored_backup_that_was_written_on_is_known_by_what_it_sends() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    let world = World::new("shop", &server.url());
    let before = client(&server.url()).await;
    two_tables(&world, &before).await;
    let backup = back_up(&server).await;
    let before = client(&server.url()).await;
    let running = world.start().await;
    before.batch_execute("INSERT INTO a SELECT g, 'never was' FROM generate_series(500, 900) g").await.unwrap();
    caught_up(&running).await;
    stop(running).await;
    slot_is_free(&before).await;
    restore(&server, &backup).await;
    let after = client(&server.url()).await;
    let filler =
        "CREATE TABLE filler (t text); INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 3000);
        DELETE FROM b WHERE id = 7";
    after.batch_execute(filler).await.unwrap();
    let running = world.start().await;
    let error = running.wait().await.unwrap_err();
    assert!(error.to_string().contains("other transactions"), "{error}");
    slot_is_free(&after).await;
    let error = world.refusal().await;
    assert_eq!(error.kind(), ErrorKind::SourceIdentity, "{error}");
    assert!(error.context("copy again").unwrap().contains("public.a"), "{error}");
    resynced(&world, &after).await;
}

/// What was copied then is of a server that never was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_restored_backup_without_the_slot_costs_every_table() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    let world = World::new("shop", &server.url());
    let before = client(&server.url()).await;
    before.batch_execute("CREATE TABLE early (id int)").await.unwrap();
    let backup = back_up(&server).await;
    let before = client(&server.url()).await;
    let filler =
        "CREATE TABLE filler (t text); INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 3000)";
    before.batch_execute(filler).await.unwrap();
    two_tables(&world, &before).await;
    restore(&server, &backup).await;
    let after = client(&server.url()).await;
    let tables = "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text);
        INSERT INTO a VALUES (1, 'again'); CREATE PUBLICATION p FOR TABLE a, b";
    after.batch_execute(tables).await.unwrap();
    refused(&world, "back in time", "public.a, public.b").await;
    resynced(&world, &after).await;
}
