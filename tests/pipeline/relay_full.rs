//! What happens when the relay is full, by `relay.at_limit`, and is everything there in the end?

use std::time::Duration;

use etl::pipeline::{Ack, PipelineHandle, RunningPipeline};
use etl::relay::{AtLimit, RelaySettings};
use etl::schema::TableId;
use etl::store::{Held, Phase, TableState};
use etl::{ByteSize, ErrorKind, Lsn};
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::running::{World, caught_up, slot_is_free, stop};
use crate::watched::Call;

const TABLES: &[&str] = &["t", "other", "lines"];
const MOST: u64 = 1 << 20;
const FULL: &str = "the relay was full";

async fn world(database: &Database, client: &Client, ack: Ack, at_limit: AtLimit) -> World {
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY, v text);
             CREATE TABLE lines (v text); INSERT INTO lines VALUES ('a'), ('a');
             INSERT INTO t SELECT g, 'copied' FROM generate_series(1, 200) g;
             CREATE PUBLICATION p FOR ALL TABLES",
        )
        .await
        .unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.settings.ack = ack;
    world.settings.relay = RelaySettings { max_bytes: ByteSize(MOST), at_limit };
    world
}

/// Changes of every table, several times what the relay may hold.
async fn write(client: &Client) {
    for round in 0..8 {
        let sql = format!(
            "INSERT INTO lines SELECT repeat('l', 100) || g FROM generate_series(1, 2000) g;
             INSERT INTO other SELECT {round} * 1000 + g, repeat('o', 100) FROM generate_series(1, 500) g
                ON CONFLICT (id) DO UPDATE SET v = other.v || 'again';
             UPDATE t SET v = 'round {round}' || repeat('t', 500); DELETE FROM t WHERE id = {round}"
        );
        client.batch_execute(&sql).await.unwrap();
    }
}

async fn id(client: &Client, table: &str) -> TableId {
    TableId(client.query_one("SELECT $1::text::regclass::oid", &[&table]).await.unwrap().get(0))
}

async fn state(world: &World, table: TableId) -> TableState {
    let states = world.store.table_states().await.unwrap();
    states.into_iter().find(|(id, _)| *id == table).unwrap().1
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) -> Result<(), ()> {
    for _ in 0..2400 {
        if is_so().await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(())
}

/// Waits until it is stored.
async fn is_stored(world: &World, table: TableId, phase: &Phase, handle: &PipelineHandle) {
    if until(async || state(world, table).await.phase == *phase).await.is_err() {
        panic!("{:?}: {:#?}", state(world, table).await, handle.status());
    }
}

/// Waits until the source has been told to forget all that it has written by now.
async fn forgets(client: &Client, world: &World, handle: &PipelineHandle) {
    let (slot, written) = (format!("etl_{}", world.id), flushed(client).await.to_string());
    let query = "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1::text";
    let has = async || client.query_one(query, &[&slot, &written]).await.unwrap().get(0);
    until(has).await.unwrap_or_else(|()| panic!("the source keeps its WAL: {:#?}", handle.status()));
}

/// Where the source is by now.
async fn flushed(client: &Client) -> Lsn {
    let row = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
    row.get::<_, String>(0).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_waits_until_a_paused_table_goes_on() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = world(&database, &client, Ack::Destination, AtLimit::Wait).await;
    let running = world.start().await;
    caught_up(&running).await;
    let table = id(&client, "t").await;
    running.handle().pause(table).await.unwrap();
    write(&client).await;
    let handle = running.handle();
    let most_of_it = async || handle.status().relay.disk_bytes > MOST / 2;
    until(most_of_it).await.unwrap_or_else(|()| panic!("{:#?}", handle.status()));
    let is_confirmed = tokio::time::timeout(Duration::from_secs(2), forgets(&client, &world, &handle)).await;
    assert!(is_confirmed.is_err(), "nothing has it: {:#?}", handle.status());
    assert!(handle.status().relay.disk_bytes <= MOST, "{:#?}", handle.status());

    handle.resume(table).await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, TABLES).await;
    assert_eq!(state(&world, table).await.generation, 1, "nothing was dropped");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_run_ends_and_with_more_room_the_next_one_goes_on() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let mut world = world(&database, &client, Ack::Destination, AtLimit::Stop).await;
    let running = world.start().await;
    caught_up(&running).await;
    let table = id(&client, "t").await;
    running.handle().pause(table).await.unwrap();
    write(&client).await;
    let ended = tokio::time::timeout(Duration::from_secs(120), running.wait()).await.expect("it goes on");
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Relay, "{error}");
    assert!(error.hint_text().is_some(), "{error}");

    slot_is_free(&client).await;
    world.settings.relay.max_bytes = ByteSize(1 << 30);
    let running = world.start().await;
    running.handle().resume(table).await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, TABLES).await;
    assert_eq!(state(&world, table).await.generation, 1, "nothing was dropped");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_table_is_copied_again_when_what_waited_for_it_was_too_much() {
    for ack in [Ack::Destination, Ack::Relay] {
        let Some(database) = database().await else { return };
        let client = database.client().await;
        let world = world(&database, &client, ack, AtLimit::Resync).await;
        let running = world.start().await;
        caught_up(&running).await;
        let table = id(&client, "t").await;
        running.handle().pause(table).await.unwrap();
        write(&client).await;
        is_stored(&world, table, &Phase::Paused(Held::default()), &running.handle()).await;
        caught_up(&running).await;
        forgets(&client, &world, &running.handle()).await;
        let status = running.handle().status();
        let shown = status.tables.iter().find(|shown| shown.id == table).unwrap();
        assert_eq!(shown.phase, "paused");
        assert!(shown.error.as_ref().unwrap().message.contains(FULL), "{shown:?}");
        world.assert_equal(&client, &["other", "lines"]).await;
        stop(running).await;

        // It stays paused, and a resume copies it, after a restart too.
        let running = world.start().await;
        write(&client).await;
        caught_up(&running).await;
        world.assert_equal(&client, &["other", "lines"]).await;
        running.handle().resume(table).await.unwrap();
        caught_up(&running).await;
        world.assert_equal(&client, TABLES).await;
        assert_eq!(state(&world, table).await.generation, 2, "it is copied again");
        assert_eq!(state(&world, id(&client, "other").await).await.generation, 1, "and it alone");
        stop(running).await;
    }
}

/// A pipeline whose destination stands still, with more changes than the relay may hold, all given up.
async fn given_up(database: &Database, client: &Client) -> (World, RunningPipeline) {
    let world = world(database, client, Ack::Relay, AtLimit::Resync).await;
    let running = world.start().await;
    client.batch_execute("UPDATE t SET v = 'first'").await.unwrap();
    caught_up(&running).await;
    world.destination.hold(Call::Batch);
    write(client).await;
    for table in TABLES {
        is_stored(&world, id(client, table).await, &Phase::Pending, &running.handle()).await;
    }
    forgets(client, &world, &running.handle()).await;
    assert!(running.handle().status().relay.disk_bytes <= MOST);
    (world, running)
}

async fn ends_equal(world: &World, running: RunningPipeline, client: &Client) {
    caught_up(&running).await;
    world.assert_equal(client, TABLES).await;
    write(client).await;
    caught_up(&running).await;
    world.assert_equal(client, TABLES).await;
    stop(running).await;
    for table in TABLES {
        assert_eq!(state(world, id(client, table).await).await.generation, 2, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tables_are_copied_again_when_the_destination_was_down_for_too_long() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let (world, running) = given_up(&database, &client).await;
    write(&client).await;
    forgets(&client, &world, &running.handle()).await;
    world.destination.release();
    ends_equal(&world, running, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_up_is_copied_after_an_abort_too() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let (world, running) = given_up(&database, &client).await;
    drop(running);
    slot_is_free(&client).await;
    world.destination.release();
    write(&client).await;
    let running = world.start().await;
    ends_equal(&world, running, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_copy_takes_too_long_begins_again_and_the_others_go_on() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = world(&database, &client, Ack::Destination, AtLimit::Resync).await;
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    world.destination.is_held(Call::CopyRows).await;
    // `lines` and `t` have rows to copy; what comes for `other` is the main cursor's.
    write(&client).await;
    let handle = running.handle();
    let is_dropped = async || {
        handle.status().tables.iter().any(|table| table.error.as_ref().is_some_and(|it| it.message.contains(FULL)))
    };
    until(is_dropped).await.unwrap_or_else(|()| panic!("{:#?}", handle.status()));
    world.destination.release();
    caught_up(&running).await;
    world.assert_equal(&client, TABLES).await;
    let generations = [state(&world, id(&client, "t").await).await, state(&world, id(&client, "lines").await).await];
    assert!(generations.iter().any(|state| state.generation > 1), "{generations:?}");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_larger_than_the_relay_lets_slow_copies_come_to_their_end() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let mut world = world(&database, &client, Ack::Relay, AtLimit::Resync).await;
    // It is sent at its commit, and takes more than the relay has in memory and on disk.
    world.streaming = false;
    world.settings.memory_limit = ByteSize(8 << 20);
    // A copy of `t` takes longer than the relay is watched before it drops one.
    world.settings.copy.max_rows_per_second = Some(50);
    let running = world.start().await;
    let large = "INSERT INTO other SELECT g, repeat('o', 8000) FROM generate_series(1, 2000) g";
    client.batch_execute(large).await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, TABLES).await;
    stop(running).await;
}
