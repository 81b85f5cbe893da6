//! Does a copy that was cut short go on, under other snapshots, and end equal whatever happened in between?

use std::time::Duration;

use etl::ByteSize;
use etl::pipeline::CopySettings;
use etl::store::Phase;
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::running::{World, caught_up, received, slot_is_free, stop};
use crate::watched::{Call, Fault};

const ROWS: usize = 2000;

/// About fifteen rows a page, each with a value that updates do not send.
const TABLE: &str = "
CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, pad text NOT NULL, big text NOT NULL);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL, ALTER pad SET STORAGE PLAIN, SET (autovacuum_enabled = off);
INSERT INTO t SELECT g, 0, repeat('p', 450), repeat(md5(g::text), 100) FROM generate_series(1, 2000) g;
CREATE PUBLICATION p FOR TABLE t";

/// One reader and small chunks, so that rows arrive in their order on disk.
fn world(database: &Database) -> World {
    let mut world = World::new(database.name(), &database.url());
    world.settings.copy =
        CopySettings { chunk_bytes: ByteSize(64 << 10), connections_per_table: 1, ..CopySettings::default() };
    world
}

/// A world in which about half of the table was copied when the run was cut short.
async fn half_copied(database: &Database, client: &Client) -> World {
    client.batch_execute(TABLE).await.unwrap();
    let world = world(database);
    world.destination.hold_copy_after(ROWS / 2);
    let running = world.start().await;
    world.destination.is_held(Call::CopyGoesOn).await;
    running.handle().abort();
    running.wait().await.unwrap();
    world.destination.release();
    slot_is_free(client).await;
    world
}

/// What is stored of the only table.
async fn stored(world: &World) -> (u64, Phase) {
    let states = world.store.table_states().await.unwrap();
    states.into_iter().next().map_or((0, Phase::Pending), |(_, state)| (state.generation, state.phase))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_copy_that_was_cut_short_reads_only_what_is_missing() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = half_copied(&database, &client).await;
    let before = world.destination.copied();
    let running = world.start().await;
    caught_up(&running).await;
    let copied = world.destination.copied() - before;
    assert!(copied < ROWS * 6 / 10, "{copied} rows were read for the second half");
    assert_eq!(running.handle().status().tables[0].rows_copied, ROWS as u64, "as the status tells them");
    assert_eq!(stored(&world).await, (1, Phase::Ready));
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
    assert!(world.store.copied(running_table(&world).await).await.unwrap().len() <= 1, "one leaf at most is noted");
}

/// Waits until no session of this database sees old rows, which a VACUUM would leave: the server notices that a reader
/// is gone some time after it went.
async fn no_snapshot_is_held(client: &Client) {
    let held = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()";
    for _ in 0..1200 {
        if client.query_one(held, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a snapshot is still held");
}

async fn running_table(world: &World) -> etl::schema::TableId {
    world.store.table_states().await.unwrap()[0].0
}

/// Rows go from pages that were not read to pages that were: only the stream tells of them, without their big values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_rows_that_went_to_pages_that_were_read_before_are_read_again_by_their_keys() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = half_copied(&database, &client).await;
    client.batch_execute("DELETE FROM t WHERE id <= 300").await.unwrap();
    no_snapshot_is_held(&client).await;
    client.batch_execute("VACUUM t").await.unwrap();
    client.batch_execute("UPDATE t SET n = n + 1 WHERE id > 1800").await.unwrap();
    let moved = "SELECT count(*) FROM t WHERE id > 1800 AND ctid < '(25,0)'";
    let moved: i64 = client.query_one(moved, &[]).await.unwrap().get(0);
    assert!(moved > 100, "only {moved} rows went where the first snapshot had read");

    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    assert_eq!(stored(&world).await, (1, Phase::Ready));
    assert!(world.store.repairs(running_table(&world).await).await.unwrap().is_empty(), "nothing is owed");
    stop(running).await;
}

/// A row that is owed under one key goes to another one before it is read again, and after the last snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_rows_that_are_owed_are_found_under_the_keys_that_they_went_to() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let mut world = half_copied(&database, &client).await;
    client.batch_execute("DELETE FROM t WHERE id <= 300").await.unwrap();
    no_snapshot_is_held(&client).await;
    client.batch_execute("VACUUM t").await.unwrap();
    client.batch_execute("UPDATE t SET n = n + 1 WHERE id > 1800").await.unwrap();

    // What is owed and where it goes comes in one batch.
    world.settings.batch.max_rows = 10_000;
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    world.destination.is_held(Call::CopyRows).await;
    client.batch_execute("UPDATE t SET id = id + 20000 WHERE id > 1800").await.unwrap();
    client.batch_execute("UPDATE t SET id = id + 20000, n = n + 1 WHERE id > 21900").await.unwrap();
    // All of it is there when the table catches up.
    received(&running, &client).await;
    world.destination.release();
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    assert!(world.store.repairs(running_table(&world).await).await.unwrap().is_empty(), "nothing is owed");
    stop(running).await;
}

/// A destination goes on with a write that nobody waits for; it may not come after those of the next snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_no_copy_goes_on_before_all_that_was_begun_to_be_written_has_ended() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLE).await.unwrap();
    let mut world = world(&database);
    world.settings.copy.connections_per_table = 2;
    // One worker's piece is on its way while the copy fails at another's.
    world.destination.let_a_copy_lag();
    world.destination.fail(Call::CopyRows, Fault::Refused);
    let running = world.start().await;
    world.destination.is_held(Call::CopyLags).await;
    client.batch_execute("DELETE FROM t WHERE id % 2 = 0").await.unwrap();
    let is_ready = || running.handle().status().tables[0].phase == "ready";
    // The next copy is whole by now, where it did not wait.
    for _ in 0..40 {
        if is_ready() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(world.destination.has_failed() && !is_ready(), "a copy went on beside what was on its way");
    world.destination.release();
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_keys_that_changed_between_two_snapshots_lose_and_double_nothing() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = half_copied(&database, &client).await;
    for change in [
        "UPDATE t SET id = id + 10000 WHERE id % 7 = 0",
        "DELETE FROM t WHERE id % 11 = 0",
        "UPDATE t SET id = id - 10000 WHERE id BETWEEN 10500 AND 11500",
        "INSERT INTO t SELECT g, 5, 'new', 'small' FROM generate_series(3000, 3100) g",
        "UPDATE t SET id = id + 20000, n = n + 1 WHERE id BETWEEN 900 AND 1100",
    ] {
        client.batch_execute(change).await.unwrap();
    }
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_table_that_was_rewritten_between_two_snapshots_is_copied_from_the_beginning() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = half_copied(&database, &client).await;
    client.batch_execute("DELETE FROM t WHERE id < 500").await.unwrap();
    client.batch_execute("VACUUM FULL t").await.unwrap();
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    assert_eq!(stored(&world).await, (2, Phase::Ready));
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_copy_whose_destination_was_replaced_begins_anew() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let before = half_copied(&database, &client).await;
    let fresh = World::new(database.name(), &database.url());
    let running = before.start_into(fresh.destination.clone()).await;
    caught_up(&running).await;
    fresh.assert_equal(&client, &["t"]).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_an_old_snapshot_is_renewed_under_writes() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLE).await.unwrap();
    let mut world = world(&database);
    world.settings.copy.snapshot_max_age = Duration::from_millis(100);
    world.settings.copy.max_rows_per_second = Some(2500);
    let running = world.start().await;
    let writer = database.client().await;
    let writing = tokio::spawn(async move {
        for round in 0..60 {
            let change = format!(
                "UPDATE t SET n = n + 1 WHERE id % 20 = {0}; UPDATE t SET id = -id WHERE id % 50 = {0}; VACUUM t",
                round % 20
            );
            for statement in change.split("; ") {
                writer.batch_execute(statement).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut most = 0;
    while !writing.is_finished() || running.handle().status().tables[0].phase == "copying" {
        if let (_, Phase::Copying { so_far: Some(so_far), .. }) = stored(&world).await {
            most = most.max(so_far.snapshots);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    writing.await.unwrap();
    caught_up(&running).await;
    assert!(most >= 3, "only {most} snapshots");
    world.assert_equal(&client, &["t"]).await;
    assert_eq!(stored(&world).await, (1, Phase::Ready));
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_somebody_who_wants_to_change_the_table_waits_for_one_chunk_only() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLE).await.unwrap();
    let mut world = world(&database);
    // Twenty seconds for all of it.
    world.settings.copy.max_rows_per_second = Some(100);
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    world.destination.is_held(Call::CopyRows).await;
    world.destination.release();
    let began = std::time::Instant::now();
    client.batch_execute("ALTER TABLE t ALTER n SET DEFAULT 7").await.unwrap();
    let waited = began.elapsed();
    assert_eq!(running.handle().status().tables[0].phase, "copying", "it had ended before");
    assert!(waited < Duration::from_secs(15), "it waited for {waited:?}");
    running.handle().abort();
    running.wait().await.unwrap();
    world.settings.copy.max_rows_per_second = None;
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_no_faster_than_the_rows_and_bytes_a_second_that_are_allowed() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLE).await.unwrap();
    for (rows, bytes) in [(Some(1500), None), (None, Some(5 << 20))] {
        let mut world = World::new(&format!("paced{}", rows.unwrap_or(0)), &database.url());
        world.settings.copy.max_rows_per_second = rows;
        world.settings.copy.max_bytes_per_second = bytes.map(ByteSize);
        let began = std::time::Instant::now();
        let running = world.start().await;
        caught_up(&running).await;
        let took = began.elapsed();
        assert!(took > Duration::from_millis(1200), "{rows:?} {bytes:?}: {took:?}");
        world.assert_equal(&client, &["t"]).await;
        stop(running).await;
    }
}
