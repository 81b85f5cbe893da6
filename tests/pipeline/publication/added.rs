//! Is a table that is published while the pipeline runs copied beside the stream, from the first change on?

use std::time::Duration;

use harness::postgres::database;

use super::{Writer, equal, find, generation, looked, until};
use crate::running::{World, caught_up, stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_a_table_that_is_added_while_it_is_written_is_copied_beside_the_stream() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
             CREATE TABLE u (id int PRIMARY KEY, v text); INSERT INTO u SELECT g, 'old' FROM generate_series(1, 500) g;
             CREATE PUBLICATION p FOR TABLE t",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    // It writes before the table is added, and commits after.
    let open = database.client().await;
    open.batch_execute("BEGIN; INSERT INTO u VALUES (1001, 'open'); UPDATE u SET v = 'open' WHERE id = 1")
        .await
        .unwrap();
    client.batch_execute("ALTER PUBLICATION p ADD TABLE u").await.unwrap();
    client.batch_execute("UPDATE u SET v = 'new' WHERE id % 3 = 0; DELETE FROM u WHERE id % 5 = 0").await.unwrap();
    until("u waits", &running, async || find(&running, "u").is_some_and(|u| u.waits_for.is_some())).await;
    client.batch_execute("INSERT INTO u VALUES (1002, 'meanwhile'); INSERT INTO t VALUES (2)").await.unwrap();
    open.batch_execute("COMMIT").await.unwrap();
    equal(&world, &running, &client, &["t", "u"]).await;
    assert_eq!(find(&running, "u").unwrap().phase, "ready");
    assert_eq!(generation(&world, &client, "t").await, 1, "what was there was left alone");
    stop(running).await;
    let running = world.start().await;
    client.batch_execute("INSERT INTO u VALUES (1003, 'later')").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["t", "u"]).await;
    assert_eq!(generation(&world, &client, "u").await, 1);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_a_new_table_that_matches_the_patterns_is_taken_in() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.tables = vec!["public.*".to_owned(), "!public.x_*".to_owned()];
    let running = world.start().await;
    caught_up(&running).await;
    let _writer = Writer::start(&database).await;
    client
        .batch_execute(
            "CREATE TABLE u (id int PRIMARY KEY, v text); INSERT INTO u VALUES (1, 'before');
             CREATE TABLE x_u (id int PRIMARY KEY); CREATE UNLOGGED TABLE not_logged (id int);
             CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE leaf PARTITION OF parted FOR VALUES FROM (0) TO (100); INSERT INTO parted VALUES (1), (2)",
        )
        .await
        .unwrap();
    equal(&world, &running, &client, &["t", "u", "parted"]).await;
    client.batch_execute("INSERT INTO parted VALUES (3); INSERT INTO u VALUES (2, 'after')").await.unwrap();
    equal(&world, &running, &client, &["u", "parted"]).await;
    // One that does not match any more goes, and one that matches now comes.
    client
        .batch_execute("ALTER TABLE u RENAME TO x_v; ALTER TABLE x_u RENAME TO v; INSERT INTO v VALUES (7)")
        .await
        .unwrap();
    until("gone", &running, async || find(&running, "u").is_none() && find(&running, "x_v").is_none()).await;
    equal(&world, &running, &client, &["v"]).await;
    let names: Vec<String> = running.handle().status().tables.iter().map(|table| table.name.to_string()).collect();
    assert_eq!(names, ["public.busy", "public.parted", "public.t", "public.v"]);
    assert_eq!(generation(&world, &client, "t").await, 1);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_many_tables_that_are_created_in_a_row_all_come() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    let names: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
    for name in &names {
        let sql = format!("CREATE TABLE {name} (id int PRIMARY KEY); INSERT INTO {name} SELECT generate_series(1, 20)");
        client.batch_execute(&sql).await.unwrap();
        client.batch_execute(&format!("DELETE FROM {name} WHERE id % 2 = 0")).await.unwrap();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    equal(&world, &running, &client, &names).await;
    looked().await;
    for name in names {
        assert_eq!(generation(&world, &client, name).await, 1, "{name}");
    }
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_a_table_that_is_looked_for_rarely_is_found_by_its_first_row() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.watch_every = Duration::from_secs(3_600);
    let running = world.start().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)").await.unwrap();
    looked().await;
    assert!(find(&running, "t").is_none(), "nobody looks");
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    equal(&world, &running, &client, &["t", "u"]).await;
    stop(running).await;
}
