//! Is every value of every type what the server says that it is, copied and streamed, in binary and as text?

use std::sync::Arc;

use etl::destination::AnyDestination;
use etl::schema::TableId;
use etl::{Lsn, Position};
use etl_destinations::postgres::Postgres;
use harness::every_type::{Table, again, count, create};
use harness::postgres::database;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::running::{World, caught_up, stop};

async fn id_of(client: &Client, table: &Table) -> TableId {
    let row = client.query_one("SELECT $1::text::regclass::oid", &[&table.name]).await.unwrap();
    TableId(row.get(0))
}

/// What arrives is compared with what `SELECT` writes, which the types' own output functions do.
async fn arrives(with_text_only: bool) {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let tables = create(&client, with_text_only).await;
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let names: Vec<&str> = tables.iter().map(|table| &*table.name).collect();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    world.assert_equal(&client, &names).await;
    for table in &tables {
        client.batch_execute(&again(table)).await.unwrap();
    }
    caught_up(&running).await;
    world.assert_equal(&client, &names).await;
    assert!(count(&client, &tables).await > 5000);
    for table in &tables {
        let schema =
            world.store.schema_at(id_of(&client, table).await, Position::after(Lsn(u64::MAX))).await.unwrap().unwrap();
        let is_binary = schema.columns.iter().all(|column| column.kind.has_binary());
        assert_eq!(is_binary, table.is_binary, "{}: {:?}", table.of, schema.columns);
    }
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_of_every_type_is_exact_in_binary() {
    arrives(false).await;
}

/// One table without a binary form, and the whole stream is text; the others are copied in binary all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_of_every_type_is_exact_as_text() {
    arrives(true).await;
}

/// Postgres does not say that a type was altered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_composite_whose_type_is_altered_goes_on_to_arrive() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TYPE pair AS (a int, b text); CREATE TABLE t (id int PRIMARY KEY, p pair, ps pair[]);
             INSERT INTO t VALUES (1, (1, 'x y'), ARRAY[(2, NULL)::pair]); CREATE PUBLICATION p FOR TABLE t",
        )
        .await
        .unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    client.batch_execute("ALTER TYPE pair ADD ATTRIBUTE c interval, DROP ATTRIBUTE a").await.unwrap();
    client
        .batch_execute("INSERT INTO t VALUES (2, ('\"', '1 day -1 sec'), ARRAY[(NULL, '1 mon')::pair])")
        .await
        .unwrap();
    client.batch_execute("DELETE FROM t WHERE id = 1").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["t"]).await;
    stop(running).await;
}

/// What both sides write, row by row.
async fn written(client: &Client, table: &Table) -> Vec<Vec<Option<String>>> {
    let query = format!("SELECT id, n, v, a, m, l, d, c, ca, da FROM public.{} ORDER BY id", table.name);
    client.batch_execute("SET timezone = 'UTC'; SET extra_float_digits = 3").await.unwrap();
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        _ => None,
    };
    client.simple_query(&query).await.unwrap().into_iter().filter_map(row).collect()
}

async fn arrives_in_another(with_text_only: bool, has_types: bool) {
    let (Some(source), Some(target)) = (database().await, database().await) else { return };
    let (client, target_client) = (source.client().await, target.client().await);
    let tables = create(&client, with_text_only).await;
    if has_types {
        for table in create(&target_client, with_text_only).await {
            target_client.batch_execute(&format!("DROP TABLE {}", table.name)).await.unwrap();
        }
    }
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    let world = World::new(source.name(), &source.url());
    let destination = AnyDestination::new(Postgres::open(&target.url(), Arc::clone(&world.store)).await.unwrap());
    let running = world.start_into(destination).await;
    caught_up(&running).await;
    for table in &tables {
        client.batch_execute(&again(table)).await.unwrap();
    }
    caught_up(&running).await;
    stop(running).await;
    for table in &tables {
        assert_eq!(written(&target_client, table).await, written(&client, table).await, "{}", table.of);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_of_every_type_is_exact_in_another_postgres_that_has_the_types() {
    arrives_in_another(false, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_of_every_type_is_exact_in_another_postgres_that_has_not() {
    arrives_in_another(true, false).await;
}
