//! Does a table stop, go on and begin anew when somebody wishes it, without losing or doubling a row?

use std::time::Duration;

use etl::ErrorKind;
use etl::pipeline::{PipelineHandle, RunningPipeline, TableStatus};
use etl::schema::TableId;
use harness::postgres::database;
use harness::seed;
use harness::workload::{TABLES, Workload};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

const BOTH: &[&str] = &["t", "other"];

fn find(handle: &PipelineHandle, name: &str) -> TableStatus {
    let status = handle.status();
    status.tables.iter().find(|table| &*table.name.name == name).unwrap_or_else(|| panic!("{name}")).clone()
}

async fn generation(world: &World, table: TableId) -> u64 {
    let states = world.store.table_states().await.unwrap();
    states.iter().find(|(id, _)| *id == table).map_or(0, |(_, state)| state.generation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_table_waits_over_a_restart_while_the_others_go_on_and_then_has_everything() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY);
             INSERT INTO t SELECT g, 'copied' FROM generate_series(1, 100) g; CREATE PUBLICATION p FOR TABLE t, other",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    let table = find(&running.handle(), "t").id;
    assert_eq!(running.handle().resume(table).await.unwrap_err().kind(), ErrorKind::Config, "it is not paused");
    assert_eq!(running.handle().pause(TableId(1)).await.unwrap_err().kind(), ErrorKind::Config, "no such table");
    running.handle().pause(table).await.unwrap();
    running.handle().pause(table).await.unwrap();
    let before = world.memory.rows(table).unwrap();

    let change = "UPDATE t SET v = 'updated' WHERE id % 2 = 0; DELETE FROM t WHERE id % 5 = 0;
                  INSERT INTO t SELECT g, 'inserted' FROM generate_series(101, 150) g; INSERT INTO other VALUES (1)";
    client.batch_execute(change).await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["other"]).await;
    assert_eq!(world.memory.rows(table).unwrap(), before, "it moved");
    while find(&running.handle(), "t").lag_bytes.unwrap_or(0) == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = find(&running.handle(), "t");
    assert_eq!((status.phase, status.lag_seconds), ("paused", None));
    assert!(running.handle().status().relay.disk_bytes > 0, "it waits on disk");
    stop(running).await;

    client.batch_execute("UPDATE t SET id = -id WHERE id = 1; INSERT INTO other VALUES (2)").await.unwrap();
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, &["other"]).await;
    assert_eq!(world.memory.rows(table).unwrap(), before, "it moved");
    running.handle().resume(table).await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, BOTH).await;
    client.batch_execute("INSERT INTO t VALUES (300, 'after')").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, BOTH).await;
    assert_eq!((find(&running.handle(), "t").phase, generation(&world, table).await), ("ready", 1), "not copied again");
    assert_eq!(running.handle().status().memory.batch_bytes, 0);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_paused_while_it_is_copied_goes_on_where_it_was() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY);
             INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g;
             CREATE PUBLICATION p FOR TABLE t, other",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    world.destination.is_held(Call::CopyRows).await;
    let handle = running.handle();
    let table = find(&handle, "t").id;
    let pausing = tokio::spawn(async move { handle.pause(table).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.destination.release();
    pausing.await.unwrap().unwrap();
    client.batch_execute("DELETE FROM t WHERE id % 3 = 0; INSERT INTO other VALUES (1)").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["other"]).await;
    assert_eq!(find(&running.handle(), "t").phase, "paused");
    running.handle().resume(table).await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, BOTH).await;
    assert_eq!(generation(&world, table).await, 1, "not from the beginning");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_does_not_wait_for_a_copy() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY);
             INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g;
             CREATE PUBLICATION p FOR TABLE t, other",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    world.destination.hold(Call::CopyRows);
    let running = world.start().await;
    world.destination.is_held(Call::CopyRows).await;
    running.handle().shutdown();
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.destination.release();
    stop(running).await;
    assert!(world.destination.copied() < 20_000, "the copy was finished");
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, BOTH).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_come_and_go_under_load_and_aborts_are_equal_in_the_end() {
    let Some(database) = database().await else { return };
    let seed = seed::seed(7);
    let client = database.client().await;
    let load = Workload::new(seed).connections(2).preloaded(500).lasting(Duration::from_secs(6));
    load.create(&client).await.unwrap();
    client.batch_execute(&format!("CREATE PUBLICATION p FOR TABLE {}", TABLES.join(", "))).await.unwrap();
    let world = World::new(database.name(), &database.url());
    let mut rng = StdRng::seed_from_u64(seed);
    let url = database.url();
    let writing = tokio::spawn(async move { load.run(&url).await });
    let mut running = world.start().await;
    while !writing.is_finished() {
        wish(&running, &mut rng).await;
        if rng.random_ratio(1, 8) {
            running.handle().abort();
            running.wait().await.unwrap();
            running = world.start().await;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..150))).await;
    }
    writing.await.unwrap().unwrap();
    for table in running.handle().status().tables.iter().filter(|table| table.phase == "paused") {
        running.handle().resume(table.id).await.unwrap();
    }
    caught_up(&running).await;
    world.assert_equal(&client, TABLES).await;
    stop(running).await;
}

async fn wish(running: &RunningPipeline, rng: &mut StdRng) {
    let handle = running.handle();
    let tables = handle.status().tables;
    let table = &tables[rng.random_range(0..tables.len())];
    let wished = match (table.phase, rng.random_range(0..3)) {
        ("paused", 0 | 1) => handle.resume(table.id).await,
        (_, 0 | 1) => handle.pause(table.id).await,
        _ => handle.resync(table.id).await,
    };
    wished.unwrap_or_else(|error| panic!("{error}"));
}
