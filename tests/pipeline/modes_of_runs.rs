//! Does a run that has an end find it, with everything that there was when it began, and does the next one go on there?

use std::time::Duration;

use etl::destination::{MemoryDestination, Mode};
use etl::pipeline::{Finished, RunningPipeline, SyncMode};
use etl::schema::TableId;
use etl::store::Phase;
use harness::postgres::database;
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

/// Nothing takes longer, on a slow machine neither.
const SOON: Duration = Duration::from_secs(180);

pub(crate) async fn ended(running: RunningPipeline) -> Finished {
    let handle = running.handle();
    let waited = tokio::time::timeout(SOON, running.wait()).await;
    waited.unwrap_or_else(|_| panic!("it does not end: {:#?}", handle.status())).unwrap()
}

async fn run(world: &World) {
    assert_eq!(ended(world.start().await).await, Finished::default());
}

/// How often each table was begun to be copied.
async fn copies(world: &World) -> Vec<u64> {
    let states = world.store.table_states().await.unwrap();
    assert!(states.iter().all(|(_, state)| state.phase == Phase::Ready), "{states:?}");
    states.iter().map(|(_, state)| state.generation).collect()
}

async fn is(client: &Client, query: &str) -> bool {
    client.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_run_goes_on_where_the_last_run_ended_and_ends_by_itself() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE empty (id int PRIMARY KEY);
             INSERT INTO a SELECT g, 'v' || g FROM generate_series(1, 5000) g;
             CREATE PUBLICATION p FOR TABLE a, empty",
        )
        .await
        .unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.settings.mode = SyncMode::Incremental;
    run(&world).await;
    world.assert_equal(&client, &["a", "empty"]).await;

    let change = "UPDATE a SET v = v || 'x' WHERE id % 3 = 0; DELETE FROM a WHERE id % 7 = 0;
                  INSERT INTO empty SELECT coalesce(max(id), 0) + 1 FROM empty";
    client.batch_execute(change).await.unwrap();
    run(&world).await;
    world.assert_equal(&client, &["a", "empty"]).await;

    // Nobody has written anything.
    run(&world).await;
    world.assert_equal(&client, &["a", "empty"]).await;

    world.settings.mode = SyncMode::Stream;
    let running = world.start().await;
    client.batch_execute(change).await.unwrap();
    caught_up(&running).await;
    assert_eq!(running.handle().status().until, None);
    stop(running).await;

    client.batch_execute(change).await.unwrap();
    let mark: String = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
    world.settings.mode = SyncMode::Incremental;
    run(&world).await;
    world.assert_equal(&client, &["a", "empty"]).await;
    assert_eq!(copies(&world).await, [1, 1], "no run but the first has copied");
    let reached = format!(
        "SELECT bool_and(confirmed_flush_lsn >= '{mark}') FROM pg_replication_slots WHERE database = current_database()"
    );
    // The server may be hearing the last word still.
    let patience = tokio::time::Instant::now() + SOON;
    while !is(&client, &reached).await {
        assert!(tokio::time::Instant::now() < patience, "the slot is behind where the run began");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_run_ends_while_the_source_is_written_on_and_has_all_from_before() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY); CREATE PUBLICATION p FOR TABLE log",
        )
        .await
        .unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.settings.mode = SyncMode::Incremental;
    let memory = MemoryDestination::new().in_mode(Mode::Append);
    let writing = tokio::spawn({
        let client = database.client().await;
        async move {
            loop {
                client.batch_execute("INSERT INTO log SELECT FROM generate_series(1, 20)").await.unwrap();
            }
        }
    });
    let row = client.query_one("SELECT 'log'::regclass::oid", &[]).await.unwrap();
    let table = TableId(row.get(0));
    let written = async || client.query_one("SELECT count(*) FROM log", &[]).await.unwrap().get::<_, i64>(0) as usize;
    for round in 0..4 {
        let before = written().await;
        let running = world.start_into(memory.clone()).await;
        assert!(running.handle().status().until.is_some());
        if round == 1 {
            // It dies, and the next one goes on.
            drop(running);
            continue;
        }
        assert_eq!(ended(running).await, Finished::default());
        let found = memory.rows(table).unwrap();
        assert!(found.len() >= before, "{} of {before} in round {round}", found.len());
        let mut once = found.clone();
        once.dedup();
        assert_eq!(once.len(), found.len(), "each is appended once");
    }
    writing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_to_be_copied_anew_still_is_after_a_kill_and_a_stream_stages_nothing() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT g, 'v' FROM generate_series(1, 3000) g;
             CREATE PUBLICATION p FOR TABLE a",
        )
        .await
        .unwrap();
    let row = client.query_one("SELECT 'a'::regclass::oid", &[]).await.unwrap();
    let table = TableId(row.get(0));
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    for killed_at in [Call::Truncate, Call::CopyRows] {
        let running = world.start().await;
        caught_up(&running).await;
        world.destination.hold(killed_at);
        running.handle().resync(table).await.unwrap();
        world.destination.is_held(killed_at).await;
        drop(running);
        world.destination.release();
    }
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    world.assert_equal(&client, &["a"]).await;
    // One that is cut short may begin again as another.
    let copies = copies(&world).await;
    assert!(copies[0] >= 3, "the first copy, and one for each wish, however it was cut short: {copies:?}");
    assert_eq!(world.destination.runs(), Vec::<String>::new());
}
