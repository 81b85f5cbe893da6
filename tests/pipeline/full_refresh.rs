//! Are all tables shown anew at once, and what was there before as long as that is not so?

use std::time::Duration;

use etl::pipeline::{Finished, RunningPipeline, SyncMode};
use etl::schema::TableId;
use etl::store::Phase;
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};
use crate::watched::{Call, Fault};

/// Nothing takes longer, on a slow machine neither.
const SOON: Duration = Duration::from_secs(180);

const TABLES: &[&str] = &["a", "empty", "log"];

pub(crate) async fn ended(running: RunningPipeline) -> Finished {
    let handle = running.handle();
    let waited = tokio::time::timeout(SOON, running.wait()).await;
    waited.unwrap_or_else(|_| panic!("it does not end: {:#?}", handle.status())).unwrap()
}

async fn refresh(world: &World) {
    assert_eq!(ended(world.start().await).await, Finished::default());
}

struct Scene {
    world: World,
    client: Client,
    a: TableId,
    _database: Database,
}

async fn scene() -> Option<Scene> {
    let database = database().await?;
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE empty (id int PRIMARY KEY); CREATE TABLE log (what text);
             INSERT INTO a SELECT g, 'v' || g FROM generate_series(1, 3000) g; INSERT INTO log VALUES ('x'), ('x');
             CREATE PUBLICATION p FOR TABLE a, empty, log",
        )
        .await
        .unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.settings.mode = SyncMode::FullRefresh;
    let row = client.query_one("SELECT 'a'::regclass::oid", &[]).await.unwrap();
    Some(Scene { world, client, a: TableId(row.get(0)), _database: database })
}

const CHANGE: &str =
    "UPDATE a SET v = v || 'x' WHERE id % 3 = 0; DELETE FROM a WHERE id % 7 = 0; INSERT INTO log VALUES ('y')";

async fn slots(client: &Client) -> i64 {
    let query = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// What the destination was told of runs, without their ids, and how many runs there were.
fn told(world: &World) -> (Vec<String>, usize) {
    let runs = world.destination.runs();
    let mut ids: Vec<&str> = runs.iter().filter_map(|told| told.split(' ').nth(1)).collect();
    ids.sort_unstable();
    ids.dedup();
    (runs.iter().filter_map(|told| told.split(' ').next().map(str::to_owned)).collect(), ids.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_refresh_shows_all_tables_at_once_empty_ones_too_and_makes_no_slot() {
    let Some(Scene { world, client, a, _database }) = scene().await else { return };
    refresh(&world).await;
    world.assert_equal(&client, TABLES).await;
    assert_eq!(told(&world), (vec!["begin".to_owned(), "finalize".to_owned()], 1), "once a run");

    let before = world.memory.rows(a);
    client.batch_execute(CHANGE).await.unwrap();
    world.destination.hold(Call::Finalize);
    let running = world.start().await;
    let status = running.handle().status();
    assert_eq!((status.mode, status.until), ("full_refresh", None));
    world.destination.is_held(Call::Finalize).await;
    assert_eq!(world.memory.rows(a), before, "all is copied, and nothing is shown");
    world.destination.release();
    assert_eq!(ended(running).await, Finished::default());
    world.assert_equal(&client, TABLES).await;
    assert_eq!(told(&world).1, 2);
    assert_eq!(slots(&client).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_fails_or_is_stopped_shows_nothing_and_leaves_nothing() {
    let Some(Scene { world, client, a, _database }) = scene().await else { return };
    refresh(&world).await;
    let before = world.memory.rows(a);
    client.batch_execute(CHANGE).await.unwrap();

    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    world.destination.is_held(Call::CopyRows).await;
    let stopped = running.shutdown(SOON).await.unwrap();
    assert!(stopped.aborted, "{stopped:?}");
    world.destination.nobody_waits().await;
    assert_eq!(world.memory.rows(a), before);
    let steps = ["begin", "finalize", "begin", "abandon"];
    assert_eq!(told(&world).0, steps, "what was staged is removed, and nothing is finalized");

    // What passes is tried again, from the beginning. Writes are held until this run has begun: one of the run before that
    // was about to come would meet the fault that is meant for this one.
    let running = world.start().await;
    world.destination.are_held(Call::CopyRows, 1).await;
    world.destination.fail(Call::CopyRows, Fault::Unheard);
    world.destination.release();
    assert_eq!(ended(running).await, Finished::default());
    world.assert_equal(&client, TABLES).await;
    let steps = [&steps[..], &["begin", "abandon", "begin", "finalize"]].concat();
    assert_eq!(told(&world).0, steps);

    // Nobody heard that it is shown: that is done again, and changes nothing.
    client.batch_execute(CHANGE).await.unwrap();
    world.destination.fail(Call::Finalize, Fault::Unheard);
    refresh(&world).await;
    world.assert_equal(&client, TABLES).await;
    assert_eq!(told(&world).0, [&steps[..], &["begin", "finalize", "finalize"]].concat());
    assert_eq!(told(&world).1, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_run_has_staged_is_never_shown_unless_it_was_whole() {
    let Some(Scene { mut world, client, a, _database }) = scene().await else { return };
    refresh(&world).await;
    let before = world.memory.rows(a);
    client.batch_execute(CHANGE).await.unwrap();
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    world.destination.is_held(Call::CopyRows).await;
    drop(running);
    world.destination.nobody_waits().await;
    world.destination.release();
    assert_eq!(world.memory.rows(a), before);

    // The next run is one that follows, and clears up all the same.
    world.settings.mode = SyncMode::Stream;
    let running = world.start().await;
    assert_eq!(told(&world).0.last().map(String::as_str), Some("abandon"));
    caught_up(&running).await;
    world.assert_equal(&client, TABLES).await;
    stop(running).await;

    client.batch_execute(CHANGE).await.unwrap();
    world.settings.mode = SyncMode::FullRefresh;
    world.destination.hold(Call::Finalize);
    let running = world.start().await;
    world.destination.is_held(Call::Finalize).await;
    drop(running);
    world.destination.nobody_waits().await;
    world.destination.release();
    let begun = told(&world).1;
    refresh(&world).await;
    assert_eq!(told(&world).0.iter().rev().take(3).rev().collect::<Vec<_>>(), ["finalize", "begin", "finalize"]);
    assert_eq!(told(&world).1, begun + 1, "the one that was whole is shown, then there is another one");
    world.assert_equal(&client, TABLES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mode_may_be_another_one_in_each_run() {
    let Some(Scene { mut world, client, _database, .. }) = scene().await else { return };
    for mode in [
        SyncMode::FullRefresh,
        SyncMode::Incremental,
        SyncMode::Incremental,
        SyncMode::FullRefresh,
        SyncMode::Stream,
        SyncMode::FullRefresh,
        SyncMode::FullRefresh,
        SyncMode::Incremental,
    ] {
        client.batch_execute(CHANGE).await.unwrap();
        world.settings.mode = mode;
        let running = world.start().await;
        if mode == SyncMode::Stream {
            client.batch_execute(CHANGE).await.unwrap();
            caught_up(&running).await;
            stop(running).await;
        } else {
            assert_eq!(ended(running).await, Finished::default());
        }
        world.assert_equal(&client, TABLES).await;
        let states = world.store.table_states().await.unwrap();
        let expected = if mode == SyncMode::FullRefresh { Phase::Pending } else { Phase::Ready };
        assert!(states.iter().all(|(_, state)| state.phase == expected), "{mode:?}: {states:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_changed_between_two_runs_is_shown_as_it_is_now() {
    let Some(Scene { world, client, _database, .. }) = scene().await else { return };
    refresh(&world).await;
    client
        .batch_execute(
            "ALTER TABLE a ADD more int DEFAULT 5, DROP COLUMN v; CREATE TABLE b (id int PRIMARY KEY);
             ALTER TABLE log ADD gone int; ALTER TABLE log DROP gone; INSERT INTO b VALUES (1); ALTER PUBLICATION p ADD TABLE b; DROP TABLE empty",
        )
        .await
        .unwrap();
    refresh(&world).await;
    world.assert_equal(&client, &["a", "b", "log"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_stages_nothing_is_refused_before_anything_is_copied() {
    let Some(Scene { world, client, _database, .. }) = scene().await else { return };
    let plain = crate::watched::Watched::new(world.memory.clone(), false);
    let error = world.pipeline_into(plain).start().await.unwrap_err();
    assert_eq!(error.kind(), etl::ErrorKind::DestinationUnsupported, "{error}");
    assert!(error.hint_text().is_some());
    assert_eq!(slots(&client).await, 0);
}
