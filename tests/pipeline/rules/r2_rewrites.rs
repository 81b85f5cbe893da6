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
