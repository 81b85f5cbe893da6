//! Does a table that is written while it is copied end up the same on both sides?

use std::time::Duration;

use harness::postgres::database;
use harness::workload::{TABLES, Workload};

use crate::running::{World, caught_up, stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_copied_and_what_happens_is_followed() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE a (id int PRIMARY KEY, v text, n numeric(10,2), t timestamptz, j jsonb, x int[]);
             CREATE TABLE empty (id int PRIMARY KEY);
             CREATE TABLE log (at timestamptz, what text);
             INSERT INTO a SELECT g, 'v' || g, g / 3.0, '2024-01-01'::timestamptz + g * interval '1 s',
                    jsonb_build_object('g', g), ARRAY[g, NULL, -g] FROM generate_series(1, 20000) g;
             CREATE PUBLICATION p FOR TABLE a, empty, log",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    client
        .batch_execute(
            "UPDATE a SET v = 'w' WHERE id % 10 = 0;
             DELETE FROM a WHERE id % 10 = 1;
             UPDATE a SET id = -id WHERE id % 100 = 2;
             INSERT INTO log SELECT now(), 'again' FROM generate_series(1, 3)",
        )
        .await
        .unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["a", "empty", "log"]).await;
    client
        .batch_execute("TRUNCATE a; INSERT INTO a (id) VALUES (7); INSERT INTO log VALUES (now(), 'x')")
        .await
        .unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["a", "empty", "log"]).await;
    let slots = client.query_one("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()", &[]);
    assert_eq!(slots.await.unwrap().get::<_, i64>(0), 1, "one slot, whatever is copied");
    stop(running).await;

    client.batch_execute("UPDATE a SET v = 'while nobody looked'; INSERT INTO log VALUES (now(), 'y')").await.unwrap();
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, &["a", "empty", "log"]).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seeded_workload_during_copy_restart_and_abort_ends_equal() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let workload =
        Workload::new(harness::seed::seed(7)).connections(3).preloaded(2_000).lasting(Duration::from_secs(6));
    workload.create(&client).await.unwrap();
    client.batch_execute(&format!("CREATE PUBLICATION p FOR TABLE {}", TABLES.join(", "))).await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    let writing = tokio::spawn({
        let url = database.url();
        async move { workload.run(&url).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop(running).await;
    let running = world.start().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(running);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let running = world.start().await;
    writing.await.unwrap().unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, TABLES).await;
    stop(running).await;
}
