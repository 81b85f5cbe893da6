//! Does a rewrite of a table leave its copy whole? The rows of a rewritten table are invisible to older snapshots.

use std::time::Duration;

use harness::postgres::database;

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

/// Writes every row anew, in a new file.
const REWRITE: &str = "ALTER TABLE t ALTER v TYPE text USING v || '!'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_a_rewrite_between_the_snapshot_and_the_first_read_waits_for_the_copy() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let rows = "CREATE TABLE t (id int PRIMARY KEY, v text);
         INSERT INTO t SELECT g, repeat('v', 300) FROM generate_series(1, 3000) g; CREATE PUBLICATION p FOR TABLE t";
    client.batch_execute(rows).await.unwrap();
    let world = World::new(database.name(), &database.url());
    world.destination.hold(Call::CopyBegins);
    let running = world.start().await;
    world.destination.is_held(Call::CopyBegins).await;
    let altering = tokio::spawn(async move {
        client.batch_execute(REWRITE).await.unwrap();
        client
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.destination.release();
    // The rewrite waits for the copy, and the copy's other readers wait behind the rewrite.
    caught_up(&running).await;
    let copied = world.destination.copied();
    assert_eq!(copied, 3000, "rows of the snapshot");
    let client = altering.await.unwrap();
    stop(running).await;
    let rows = client.query_one("SELECT count(*) FROM t WHERE v LIKE '%!'", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 3000, "the rewrite came in the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_whoever_alters_a_table_holds_up_neither_the_start_nor_another_tables_copy() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let tables =
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY); INSERT INTO t VALUES (1);
        INSERT INTO other SELECT generate_series(1, 100); CREATE PUBLICATION p FOR TABLE t";
    client.batch_execute(tables).await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    client.batch_execute("ALTER PUBLICATION p ADD TABLE other").await.unwrap();
    let altering = database.client().await;
    altering.batch_execute("BEGIN; ALTER TABLE t ADD COLUMN v text; INSERT INTO t VALUES (2, 'v')").await.unwrap();
    let is_begun = tokio::time::timeout(std::time::Duration::from_secs(60), world.start()).await;
    let running = is_begun.expect("the start does not wait");
    for _ in 0..1200 {
        if world.is_equal(&client, &["other"]).await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    world.assert_equal(&client, &["other"]).await;
    altering.batch_execute("COMMIT").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["t", "other"]).await;
    let states = world.store.table_states().await.unwrap();
    let other: u32 = client.query_one("SELECT 'other'::regclass::oid", &[]).await.unwrap().get(0);
    assert!(states.iter().any(|(id, state)| id.0 == other && state.generation == 1), "{states:?}");
    stop(running).await;
}
