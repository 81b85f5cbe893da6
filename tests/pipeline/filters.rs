//! Is what a publication leaves out left out of the copy and of the stream, and what it gathers under one name there?

use harness::postgres::database;

use crate::running::{World, caught_up, stop};

/// The destination's rows of a table, and those of a query.
async fn assert_rows(world: &World, client: &tokio_postgres::Client, table: &str, query: &str) {
    let oid = client.query_one("SELECT $1::text::regclass::oid", &[&table]).await.unwrap().get(0);
    let mut found = world.memory.rows(etl::schema::TableId(oid)).unwrap();
    let expected = client.query(&format!("SELECT row_to_json(r)::text FROM ({query}) r"), &[]).await.unwrap();
    let mut expected: Vec<Vec<Option<String>>> = expected
        .iter()
        .map(|row| {
            let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(row.get(0)).unwrap();
            row.values().map(|value| value.as_str().map(str::to_owned)).collect()
        })
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_columns_that_are_not_published_are_in_no_copy_and_no_stream() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let version: String = client.query_one("SHOW server_version_num", &[]).await.unwrap().get(0);
    if version.as_str() < "150000" {
        return; // 14 has neither filters nor lists.
    }
    client
        .batch_execute(
            "CREATE TABLE rows (id int PRIMARY KEY, kind text, v text); ALTER TABLE rows REPLICA IDENTITY FULL;
             CREATE TABLE columns (id int PRIMARY KEY, secret text, v text);
             INSERT INTO rows SELECT g, CASE WHEN g % 3 = 0 THEN 'in' ELSE 'out' END, repeat('x', 300)
               FROM generate_series(1, 20000) g;
             INSERT INTO columns SELECT g, 'secret', 'v' FROM generate_series(1, 1000) g;
             CREATE PUBLICATION p FOR TABLE rows WHERE (kind = 'in'), columns (id, v)",
        )
        .await
        .unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.settings.copy.connections_per_table = 3;
    let running = world.start().await;
    for change in [
        "SELECT",
        "UPDATE rows SET kind = 'in' WHERE id % 100 = 1; UPDATE rows SET kind = 'out' WHERE id % 100 = 3",
        "DELETE FROM rows WHERE id % 7 = 0; INSERT INTO rows VALUES (-1, 'in', 'n'), (-2, 'out', 'n')",
        "UPDATE columns SET secret = 's' WHERE id < 10; UPDATE columns SET v = 'w' WHERE id < 20",
        "DELETE FROM columns WHERE id > 900; INSERT INTO columns VALUES (-1, 'secret', 'n')",
    ] {
        client.batch_execute(change).await.unwrap();
        caught_up(&running).await;
        assert_rows(&world, &client, "rows", "SELECT id::text, kind, v FROM rows WHERE kind = 'in'").await;
        assert_rows(&world, &client, "columns", "SELECT id::text, v FROM columns").await;
    }
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partitioned_table_that_is_published_by_its_root_is_one_table() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
             CREATE TABLE t_a PARTITION OF t FOR VALUES IN ('a');
             CREATE TABLE t_bc PARTITION OF t FOR VALUES IN ('b', 'c') PARTITION BY LIST (region);
             CREATE TABLE t_b PARTITION OF t_bc FOR VALUES IN ('b'); CREATE TABLE t_c PARTITION OF t_bc DEFAULT;
             INSERT INTO t SELECT g, chr(97 + g % 3), repeat('x', 300) FROM generate_series(1, 6000) g;
             CREATE PUBLICATION p FOR TABLE t WITH (publish_via_partition_root)",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    for change in [
        "SELECT",
        "UPDATE t SET v = 'y' WHERE id % 5 = 0; DELETE FROM t WHERE id % 11 = 0",
        "UPDATE t SET region = 'a' WHERE id % 13 = 0 AND region <> 'a'; INSERT INTO t_b VALUES (-1, 'b', 'direct')",
        "TRUNCATE t; INSERT INTO t VALUES (1, 'c', 'again')",
    ] {
        client.batch_execute(change).await.unwrap();
        caught_up(&running).await;
        world.assert_equal(&client, &["t"]).await;
    }
    assert_eq!(running.handle().status().tables.len(), 1);
    stop(running).await;
}
