//! Does the slot of a database in which nobody works follow, while others write on the same server?

use std::time::{Duration, Instant};

use etl::Lsn;
use etl_local_postgres::LocalPostgres;
use harness::postgres::{client, dedicated};
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};

/// What a slot may keep of the WAL.
const KEPT: i64 = 128 << 20;

/// Seconds in `make test`, minutes in `make soak`; with how often the heart beats.
fn lasts() -> (Duration, Duration) {
    let is_soak = std::env::var_os("ETL_SOAK").is_some();
    let (seconds, beat) = if is_soak { (600, 10_000) } else { (4, 500) };
    (Duration::from_secs(seconds), Duration::from_millis(beat))
}

/// How far the slots are behind the end of the WAL, and how much of it they keep.
async fn behind(client: &Client) -> Vec<(i64, i64)> {
    let query = "SELECT (pg_current_wal_flush_lsn() - confirmed_flush_lsn)::bigint,
                        (pg_current_wal_lsn() - restart_lsn)::bigint
                   FROM pg_replication_slots WHERE slot_name LIKE 'etl%' ORDER BY slot_name";
    client.query(query, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn lsn(client: &Client, query: &str) -> Lsn {
    client.query_one(query, &[]).await.unwrap().get::<_, String>(0).parse().unwrap()
}

/// The messages in the WAL after the slot's position, as the plugin passes them on.
async fn messages(client: &Client, slot: &str) -> usize {
    let query = "SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '1',
                                                                     'publication_names', 'p', 'messages', 'true')";
    let rows = client.query(query, &[&slot]).await.unwrap();
    let is_beat = |data: &[u8]| data.first() == Some(&b'M') && data.windows(13).any(|part| part == b"etl_heartbeat");
    rows.iter().filter(|row| is_beat(row.get(0))).count()
}

/// An idle database with a pipeline, and a slot of ours that sees what is written there.
async fn idle(server: &LocalPostgres, id: &str, heartbeat: Option<Duration>) -> (World, Client) {
    server.create_database(id).await.unwrap();
    let client = client(&server.url_of(id)).await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let watch = format!("SELECT pg_create_logical_replication_slot('watch_{id}', 'pgoutput')");
    client.batch_execute(&watch).await.unwrap();
    let mut world = World::new(id, &server.url_of(id));
    world.heartbeat = heartbeat;
    (world, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_the_slot_of_an_idle_database_follows_a_busy_one_beside_it() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    let (lasts, beat) = lasts();
    let (with, with_client) = idle(&server, "with", Some(beat)).await;
    let (without, without_client) = idle(&server, "without", None).await;
    let (first, second) = (with.start().await, without.start().await);
    caught_up(&first).await;
    caught_up(&second).await;

    let busy = client(&server.url()).await;
    busy.batch_execute("CREATE TABLE busy (v text)").await.unwrap();
    let (mut most, began) = ([(0, 0); 2], Instant::now());
    while began.elapsed() < lasts {
        busy.batch_execute("INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1, 200)").await.unwrap();
        for (most, (lag, kept)) in most.iter_mut().zip(behind(&busy).await) {
            *most = (lag.max(most.0), kept.max(most.1));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let end = lsn(&busy, "SELECT pg_current_wal_flush_lsn()::text").await;
    // The server notes who is running, and only then lets slots give up what is before.
    busy.batch_execute("CHECKPOINT").await.unwrap();
    let query = "SELECT min(confirmed_flush_lsn)::text FROM pg_replication_slots WHERE slot_name LIKE 'etl%'";
    let begins = "SELECT min(restart_lsn)::text FROM pg_replication_slots WHERE slot_name LIKE 'etl%'";
    let patience = Instant::now() + Duration::from_secs(30);
    while lsn(&busy, query).await < end || lsn(&busy, begins).await < end {
        assert!(Instant::now() < patience, "{:?} behind {end}", behind(&busy).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let beats = (messages(&with_client, "watch_with").await, messages(&without_client, "watch_without").await);
    println!("{:?} beside a busy database, (lag, kept) at most: {most:?}; heartbeats {beats:?}", began.elapsed());
    assert!(most.iter().all(|(lag, kept)| *lag < KEPT && *kept < KEPT), "{most:?}");
    assert!(beats.0 >= 2 && beats.1 == 0, "{beats:?}");

    for (world, running, client) in [(&with, first, &with_client), (&without, second, &without_client)] {
        client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
        caught_up(&running).await;
        stop(running).await;
        world.assert_equal(client, &["t"]).await;
    }
}
