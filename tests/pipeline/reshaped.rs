//! Does a table that is altered arrive as it is then, whenever that happens, while the others go on?

use std::time::Duration;

use etl::pipeline::RunningPipeline;
use etl::store::SharedStore;
use etl::{Lsn, Position};
use harness::postgres::database;
use harness::proxy::{Cut, Proxy};
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};
use crate::watched::Call;

const BOTH: &[&str] = &["t", "other"];

const TABLES: &str = "
CREATE TABLE t (id int PRIMARY KEY, a text, b text, n int);
CREATE TABLE other (id int PRIMARY KEY);
INSERT INTO t SELECT g, 'a' || g, 'b' || g, g FROM generate_series(1, 50) g;
CREATE PUBLICATION p FOR TABLE t, other";

/// What is done to a table, with a write after each that has another shape to tell.
const ALTERED: &[(&str, &str)] = &[
    ("TRUNCATE t", "INSERT INTO t SELECT g, 'a' || g, 'b' || g, g FROM generate_series(1, 60) g"),
    ("ALTER TABLE t ADD COLUMN c1 text", "INSERT INTO t (id, c1) VALUES (101, 'new')"),
    ("ALTER TABLE t ADD COLUMN c2 int DEFAULT 7", "INSERT INTO t (id) VALUES (102)"),
    ("ALTER TABLE t ADD COLUMN c3 float8 DEFAULT random()", "UPDATE t SET a = 'x' WHERE id = 3"),
    ("ALTER TABLE t DROP COLUMN n", "UPDATE t SET a = 'y' WHERE id = 4"),
    ("ALTER TABLE t RENAME COLUMN a TO z", "UPDATE t SET z = 'z' WHERE id = 5"),
    (
        "ALTER TABLE t RENAME z TO tmp; ALTER TABLE t RENAME b TO z; ALTER TABLE t RENAME tmp TO b",
        "UPDATE t SET z = 'swapped' WHERE id = 6",
    ),
    ("ALTER TABLE t DROP COLUMN c1; ALTER TABLE t ADD COLUMN c1 text", "INSERT INTO t (id, c1) VALUES (103, 'again')"),
    ("ALTER TABLE t ALTER COLUMN c2 TYPE bigint", "UPDATE t SET c2 = 1::bigint << 40 WHERE id = 7"),
    ("ALTER TABLE t ALTER COLUMN b TYPE varchar(500)", "UPDATE t SET b = 'w' WHERE id = 8"),
    (
        "UPDATE t SET b = coalesce(b, ''); ALTER TABLE t ALTER COLUMN b SET NOT NULL",
        "UPDATE t SET b = 'v' WHERE id = 9",
    ),
    ("ALTER TABLE t ALTER COLUMN b DROP NOT NULL", "UPDATE t SET b = NULL WHERE id = 10"),
    (
        "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD COLUMN k serial PRIMARY KEY",
        "UPDATE t SET id = 11 WHERE id = 12",
    ),
    ("ALTER TABLE t REPLICA IDENTITY FULL", "UPDATE t SET id = -k, k = -k WHERE k = 13"),
    ("ALTER TABLE t REPLICA IDENTITY DEFAULT", "DELETE FROM t WHERE k = 14"),
];

async fn altered(world: &World, client: &Client) {
    world.assert_equal(client, BOTH).await;
    assert_eq!(columns(&world.store, client).await, source_columns(client).await);
}

/// The stored columns of the table.
async fn columns(store: &SharedStore, client: &Client) -> Vec<String> {
    let id = client.query_one("SELECT 't'::regclass::oid", &[]).await.unwrap().get(0);
    let end = etl::Position::after(etl::Lsn(u64::MAX));
    let schema = store.schema_at(etl::schema::TableId(id), end).await.unwrap().unwrap();
    schema.columns.iter().map(|column| format!("{} {}", column.name, column.type_name)).collect()
}

async fn source_columns(client: &Client) -> Vec<String> {
    let query = "SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
                  WHERE attrelid = 'public.t'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    client.batch_execute("SET search_path = ''").await.unwrap();
    let columns = client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    client.batch_execute("RESET search_path").await.unwrap();
    columns
}

async fn busy(client: &Client, number: usize) {
    client.execute("INSERT INTO other VALUES ($1)", &[&(number as i32)]).await.unwrap();
}

async fn begun(world: &World, client: &Client) -> RunningPipeline {
    client.batch_execute(TABLES).await.unwrap();
    let running = world.start().await;
    caught_up(&running).await;
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_each_alteration_with_a_write_after_it_arrives_in_a_live_stream() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = World::new(database.name(), &database.url());
    let running = begun(&world, &client).await;
    for (number, (alteration, write)) in ALTERED.iter().enumerate() {
        client.batch_execute(alteration).await.unwrap();
        client.batch_execute(write).await.unwrap();
        busy(&client, number).await;
        caught_up(&running).await;
        world.assert_equal(&client, BOTH).await;
    }
    altered(&world, &client).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_alterations_follow_one_another_faster_than_they_are_followed() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = World::new(database.name(), &database.url());
    let running = begun(&world, &client).await;
    for (number, (alteration, write)) in ALTERED.iter().enumerate() {
        client.batch_execute(alteration).await.unwrap();
        client.batch_execute(write).await.unwrap();
        busy(&client, number).await;
    }
    caught_up(&running).await;
    altered(&world, &client).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_alterations_in_one_transaction_with_writes_between_arrive() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = World::new(database.name(), &database.url());
    let running = begun(&world, &client).await;
    client.batch_execute("BEGIN; INSERT INTO t (id) VALUES (100)").await.unwrap();
    for (number, (alteration, write)) in ALTERED.iter().enumerate() {
        client.batch_execute(alteration).await.unwrap();
        client.batch_execute(write).await.unwrap();
        busy(&client, number).await;
    }
    client.batch_execute("COMMIT").await.unwrap();
    caught_up(&running).await;
    altered(&world, &client).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_alterations_while_nobody_watches_arrive_after_the_next_start() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = World::new(database.name(), &database.url());
    stop(begun(&world, &client).await).await;
    for (number, (alteration, write)) in ALTERED.iter().enumerate() {
        client.batch_execute(alteration).await.unwrap();
        client.batch_execute(write).await.unwrap();
        busy(&client, number).await;
        if number % 3 == 2 {
            let running = world.start().await;
            caught_up(&running).await;
            altered(&world, &client).await;
            stop(running).await;
        }
    }
}

async fn generation(world: &World) -> u64 {
    let states = world.store.table_states().await.unwrap();
    states.iter().map(|(_, state)| state.generation).max().unwrap()
}

/// What can be followed without copying anything again.
const IN_PLACE: &[(&str, &str)] = &[
    ("ALTER TABLE t ADD COLUMN c1 text", "INSERT INTO t (id, c1) VALUES (101, 'new')"),
    (
        "ALTER TABLE t ADD f1 int NOT NULL DEFAULT 0, ADD f2 text DEFAULT 'it''s, \"old\"', ADD f3 boolean DEFAULT true,
            ADD f4 timestamptz DEFAULT now(), ADD f5 numeric(10, 2) DEFAULT 1.50",
        "UPDATE t SET f1 = 1, f2 = NULL, f3 = false WHERE id = 3",
    ),
    ("ALTER TABLE t DROP COLUMN n", "UPDATE t SET a = 'y' WHERE id = 4"),
    ("ALTER TABLE t RENAME COLUMN a TO z", "UPDATE t SET z = 'z' WHERE id = 5"),
    (
        "ALTER TABLE t RENAME z TO tmp; ALTER TABLE t RENAME b TO z; ALTER TABLE t RENAME tmp TO b",
        "UPDATE t SET z = 'swapped' WHERE id = 6",
    ),
    ("ALTER TABLE t ADD COLUMN d1 int, ADD COLUMN d2 numeric(10, 2)", "UPDATE t SET d1 = 1, d2 = 2.5 WHERE id = 7"),
    ("ALTER TABLE t ALTER COLUMN d2 TYPE numeric(12, 2)", "UPDATE t SET d2 = 1234567890.25 WHERE id = 8"),
    ("ALTER TABLE t REPLICA IDENTITY FULL", "UPDATE t SET id = 900 WHERE id = 13"),
    ("ALTER TABLE t REPLICA IDENTITY DEFAULT", "DELETE FROM t WHERE id = 14"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_what_is_certain_is_followed_in_place() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = World::new(database.name(), &database.url());
    let mut running = begun(&world, &client).await;
    for (number, (alteration, write)) in IN_PLACE.iter().enumerate() {
        client.batch_execute(alteration).await.unwrap();
        client.batch_execute(write).await.unwrap();
        busy(&client, number).await;
        caught_up(&running).await;
        altered(&world, &client).await;
        if number % 3 == 2 {
            stop(running).await;
            running = world.start().await;
            caught_up(&running).await;
        }
        assert_eq!(generation(&world).await, 1, "{alteration}: copied again");
    }
    // In one transaction, with writes before and after.
    client
        .batch_execute(
            "BEGIN; UPDATE t SET d1 = 5; ALTER TABLE t ADD COLUMN e text; UPDATE t SET e = 'e' WHERE id < 20;
             INSERT INTO other VALUES (-1); COMMIT; UPDATE t SET e = 'f' WHERE id = 20",
        )
        .await
        .unwrap();
    caught_up(&running).await;
    altered(&world, &client).await;
    assert_eq!(generation(&world).await, 1);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_column_that_came_back_under_its_name_is_another_one() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = World::new(database.name(), &database.url());
    let running = begun(&world, &client).await;
    // By the time the first write is read, the catalog shows a column of that name and type which is not the one.
    client
        .batch_execute(
            "BEGIN; ALTER TABLE t ADD COLUMN c text; UPDATE t SET c = 'first'; ALTER TABLE t DROP COLUMN c;
             ALTER TABLE t ADD COLUMN c text; UPDATE t SET c = 'second' WHERE id = 1; COMMIT",
        )
        .await
        .unwrap();
    caught_up(&running).await;
    altered(&world, &client).await;
    assert_eq!(generation(&world).await, 2, "copied again");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_failed_write_after_an_alteration_is_made_again_in_the_shapes_that_its_rows_had() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = World::new(database.name(), &database.url());
    let running = begun(&world, &client).await;
    world.destination.fail_batches(2);
    client
        .batch_execute(
            "BEGIN; UPDATE t SET a = 'before' WHERE id = 1; ALTER TABLE t DROP COLUMN n;
             UPDATE t SET a = 'after' WHERE id = 2; COMMIT",
        )
        .await
        .unwrap();
    caught_up(&running).await;
    altered(&world, &client).await;
    assert_eq!(generation(&world).await, 1);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_a_type_without_a_binary_form_that_arrives_later_turns_the_stream_to_text() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let world = World::new(database.name(), &database.url());
    let running = begun(&world, &client).await;
    client
        .batch_execute(
            "CREATE TYPE public.pair AS (l aclitem, r text); ALTER TABLE t ADD COLUMN p pair;
             UPDATE t SET p = ('=r/postgres', 'x y') WHERE id = 1",
        )
        .await
        .unwrap();
    caught_up(&running).await;
    client.batch_execute("UPDATE t SET p = (NULL, 'z') WHERE id = 2; INSERT INTO other VALUES (-1)").await.unwrap();
    caught_up(&running).await;
    altered(&world, &client).await;
    stop(running).await;
}

/// The connection is lost within a transaction of which both shapes were read. It comes again, and the earlier shape is
/// told only in what is known already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_a_transaction_that_alters_is_read_again_in_the_shapes_that_it_had() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let port = database.url().parse::<tokio_postgres::Config>().unwrap().get_ports()[0];
    let proxy = Proxy::start(([127, 0, 0, 1], port).into()).await.unwrap();
    let mut world = World::new(database.name(), &proxy.url(&database.url()));
    world.streaming = false;
    let running = begun(&world, &client).await;
    world.destination.hold(Call::Batch);
    client.batch_execute("UPDATE t SET a = 'before' WHERE id = 1").await.unwrap();
    world.destination.is_held(Call::Batch).await;
    proxy.control().throttle(500_000);
    client
        .batch_execute(
            "BEGIN; UPDATE t SET a = 'first' WHERE id = 2; ALTER TABLE t ADD COLUMN x text;
             UPDATE t SET x = 'second' WHERE id = 3; INSERT INTO t SELECT g, repeat('x', 200000) FROM generate_series(1000, 1040) g; COMMIT",
        )
        .await
        .unwrap();
    let id = running.handle().status().tables.iter().find(|table| &*table.name.name == "t").unwrap().id;
    let last = Position::after(Lsn(u64::MAX));
    while world.store.schema_at(id, last).await.unwrap().unwrap().column_index("x").is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.control().cut(Cut::Reset);
    proxy.control().forward();
    world.destination.release();
    caught_up(&running).await;
    altered(&world, &client).await;
    assert_eq!(generation(&world).await, 1);
    stop(running).await;
}
