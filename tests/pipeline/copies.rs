//! How much is copied at a time, and when does a batch go out? As the settings say.

use std::time::{Duration, Instant};

use etl::ByteSize;
use etl::pipeline::{BatchSettings, CopySettings};
use harness::postgres::database;
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

/// The tables that are being read, with the connections that read each.
async fn readers(client: &Client) -> Vec<(String, i64)> {
    let query = "SELECT application_name, count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND query LIKE 'COPY (SELECT%' GROUP BY 1 ORDER BY 1";
    client.query(query, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn as_many_tables_and_connections_copy_at_a_time_as_the_settings_say() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    for table in ["a", "b", "c"] {
        let sql = format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, v text);
             INSERT INTO {table} SELECT g, repeat('x', 500) FROM generate_series(1, 4000) g"
        );
        client.batch_execute(&sql).await.unwrap();
    }
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let mut world = World::new("copies", &database.url());
    let chunk_bytes = ByteSize(256 << 10);
    world.settings.copy =
        CopySettings { tables_in_parallel: 2, connections_per_table: 3, chunk_bytes, ..CopySettings::default() };
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    world.destination.is_held(Call::CopyRows).await;
    let expected = |readers: &[(String, i64)]| {
        readers.len() == 2
            && readers.iter().all(|(name, count)| name.starts_with("etl copies copy public.") && *count == 3)
    };
    let mut found = readers(&client).await;
    for _ in 0..12000 {
        if expected(&found) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        found = readers(&client).await;
    }
    assert!(expected(&found), "{found:?}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(readers(&client).await, found, "and no more than that");
    world.destination.release();
    caught_up(&running).await;
    stop(running).await;
    world.assert_equal(&client, &["a", "b", "c"]).await;
}

#[tokio::test]
async fn a_batch_goes_out_at_its_age_or_its_rows_whichever_is_first() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    for (max_age, rows) in [(1, "SELECT 0"), (120, "SELECT generate_series(1, 60)")] {
        let mut world = World::new(&format!("ages{max_age}"), &database.url());
        let max_age = Duration::from_secs(max_age);
        world.settings.batch = BatchSettings { max_age, max_rows: 50, ..BatchSettings::default() };
        let running = world.start().await;
        caught_up(&running).await;
        let began = Instant::now();
        client.batch_execute(&format!("INSERT INTO t {rows}")).await.unwrap();
        while world.destination.told().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = began.elapsed();
        if max_age.as_secs() == 1 {
            assert!(took >= Duration::from_millis(900), "one row waits for others: {took:?}");
        } else {
            assert!(took < Duration::from_secs(60), "so many rows do not: {took:?}");
        }
        stop(running).await;
    }
}
