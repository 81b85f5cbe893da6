//! What becomes of a pipeline whose disk is full? It says so, waits, and goes on once there is room.

use std::time::Duration;

use harness::disk::SmallDisk;
use harness::kill::Running;
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::site::Site;

const TABLES: &[&str] = &["t", "lines"];

async fn source() -> Option<(Database, Client)> {
    let database = database().await?;
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE lines (v text);
             INSERT INTO t SELECT g, repeat('copied', 100) FROM generate_series(1, 5000) g;
             CREATE PUBLICATION p FOR ALL TABLES",
        )
        .await
        .unwrap();
    Some((database, client))
}

/// So much that no file can take it into room that it has already.
async fn write(client: &Client) {
    for _ in 0..10 {
        let sql = "INSERT INTO lines SELECT md5(g::text) || md5(random()::text) FROM generate_series(1, 20000) g;
                   UPDATE t SET v = md5(random()::text) || repeat('x', 1000) WHERE random() < 0.5";
        client.batch_execute(sql).await.unwrap();
    }
}

/// It has said that a disk is full, and goes on trying.
async fn waits(running: &mut Running) {
    let line = running.line("No space", Duration::from_secs(120)).await;
    let line =
        line.or_else(|output| output.lines().find(|line| line.contains("is full")).map(str::to_owned).ok_or(output));
    let line = line.unwrap_or_else(|output| panic!("it never said that the disk is full\n{output}"));
    assert!(line.contains("Free some space"), "{line}");
    let ended = running.end(Duration::from_secs(2)).await;
    assert!(ended.is_err(), "it ended: {ended:?}\n{}", running.output());
}

/// The same process goes on until everything is there.
async fn ends_equal(site: &Site, mut running: Running, client: &Client) {
    let slot = "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $2::text";
    let flushed: String = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
    let confirmed = async || client.query_one(slot, &[&flushed, &site.slot]).await.unwrap().get::<_, bool>(0);
    running.until(Duration::from_secs(180), confirmed).await.unwrap();
    running.terminate();
    let ended = running.end(Duration::from_secs(180)).await.unwrap();
    assert!(ended.success(), "{ended}\n{}", running.output());
    site.assert_equal(client, TABLES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_relay_and_the_state_is_waited_for() {
    for ack in ["destination", "relay"] {
        let Some((database, client)) = source().await else { return };
        let Some(site) = Site::acknowledging(&database.url(), ack).await else { return };
        let Some(disk) = SmallDisk::mount_or_skip(&site.data_dir(), 256) else { return };
        let mut running = site.program.start().unwrap();
        running.line("the table is ready", Duration::from_secs(180)).await.unwrap();
        disk.fill().unwrap();
        write(&client).await;
        waits(&mut running).await;
        disk.make_room().unwrap();
        write(&client).await;
        ends_equal(&site, running, &client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_duckdb_file_is_waited_for() {
    let Some((database, client)) = source().await else { return };
    let Some(site) = Site::new(&database.url()).await else { return };
    let Some(disk) = SmallDisk::mount_or_skip(&site.file_dir(), 256) else { return };
    let mut running = site.program.start().unwrap();
    running.line("the table is ready", Duration::from_secs(180)).await.unwrap();
    for _ in 0..2 {
        disk.fill().unwrap();
        write(&client).await;
        waits(&mut running).await;
        disk.make_room().unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    // Whatever DuckDB is doing when there is no room, it does again.
    let flicker = async {
        for lasts in 1..30 {
            disk.fill().unwrap();
            tokio::time::sleep(Duration::from_millis(10 * lasts)).await;
            disk.make_room().unwrap();
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    };
    tokio::join!(flicker, write(&client));
    ends_equal(&site, running, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_during_the_copy_is_waited_for() {
    let Some((database, client)) = source().await else { return };
    write(&client).await;
    let Some(site) = Site::new(&database.url()).await else { return };
    let Some(mut disk) = SmallDisk::mount_or_skip(&site.file_dir(), 8) else { return };
    let mut running = site.program.start().unwrap();
    waits(&mut running).await;
    disk.enlarge(256).unwrap();
    ends_equal(&site, running, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_full_disk_is_refused_with_what_to_do_and_with_room_the_next_one_goes_on() {
    for is_of_the_file in [false, true] {
        let Some((database, client)) = source().await else { return };
        let Some(site) = Site::new(&database.url()).await else { return };
        let full = if is_of_the_file { site.file_dir() } else { site.data_dir() };
        let Some(disk) = SmallDisk::mount_or_skip(&full, 64) else { return };
        disk.fill().unwrap();
        let mut running = site.program.start().unwrap();
        let ended = running.end(Duration::from_secs(180)).await.unwrap();
        let output = running.output();
        assert_eq!(ended.code(), Some(1), "{output}");
        assert!(output.contains("is full") || output.contains("No space"), "{output}");
        disk.make_room().unwrap();
        site.assert_equal(&client, TABLES).await;
    }
}
