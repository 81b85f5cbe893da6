//! Does a pipeline go on where it stopped when its state is in a Postgres, and can the two not feed each other?

use std::sync::Arc;

use etl::postgres::ConnectOptions;
use etl::schema::TableId;
use etl::source::SourceConfig;
use etl::store::PostgresStore;
use etl::{ErrorKind, Lsn, Position};
use harness::postgres::{Database, database};

use crate::running::{World, caught_up, stop};

async fn store(database: &Database, pipeline: &str) -> Arc<PostgresStore> {
    let connect = ConnectOptions::from_url(&database.url()).unwrap();
    Arc::new(PostgresStore::open(connect, "etl", pipeline).await.unwrap())
}

#[tokio::test]
async fn a_restart_copies_nothing_again_and_misses_nothing() {
    let (Some(source), Some(state)) = (database().await, database().await) else { return };
    let client = source.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'x' FROM generate_series(1, 500) g;
             CREATE PUBLICATION p FOR ALL TABLES",
        )
        .await
        .unwrap();
    let mut world = World::new("stored", &source.url());
    world.store = store(&state, "stored").await;
    let running = world.start().await;
    client.batch_execute("UPDATE t SET v = 'y' WHERE id < 100").await.unwrap();
    caught_up(&running).await;
    stop(running).await;
    let copied = world.destination.copied();
    client.batch_execute("DELETE FROM t WHERE id % 2 = 0").await.unwrap();
    world.store = Arc::new(etl::store::MemoryStore::new());
    world.store = store(&state, "stored").await;
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    world.assert_equal(&client, &["t"]).await;
    assert_eq!(world.destination.copied(), copied, "nothing is copied twice");
}

#[tokio::test]
async fn a_publication_with_the_state_in_it_is_refused_and_an_own_one_leaves_it_out() {
    let Some(source) = database().await else { return };
    let client = source.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION p FOR ALL TABLES",
        )
        .await
        .unwrap();
    let mut world = World::new("own_state", &source.url());
    world.store = store(&source, "own_state").await;
    let error = world.refusal().await;
    assert_eq!(error.kind(), ErrorKind::SourceSetup, "{error}");
    assert!(error.to_string().contains("another database"), "{error}");
    let findings =
        etl::source::check(&SourceConfig::from_url(&source.url()).unwrap().publication("p"), "x").await.unwrap();
    assert!(findings.iter().any(|finding| finding.what.contains("keeps its state")), "{findings:?}");

    let source_of_own = SourceConfig::from_url(&source.url()).unwrap().tables(["*.*"]);
    let running = etl::pipeline::Pipeline::builder("own_state", source_of_own)
        .data_dir(world.data_dir())
        .store(Arc::clone(&world.store))
        .destination(world.destination.clone())
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    caught_up(&running).await;
    let names: Vec<String> = running.handle().status().tables.iter().map(|table| table.name.to_string()).collect();
    assert_eq!(names, ["public.t"]);
    stop(running).await;
}

#[tokio::test]
async fn old_shapes_are_forgotten_once_what_came_in_them_is_durable() {
    let (Some(source), Some(state)) = (database().await, database().await) else { return };
    let client = source.client().await;
    let sql = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION p FOR ALL TABLES";
    client.batch_execute(sql).await.unwrap();
    let id = TableId(client.query_one("SELECT 't'::regclass::oid", &[]).await.unwrap().get(0));
    let mut world = World::new("old_shapes", &source.url());
    world.store = store(&state, "old_shapes").await;
    let running = world.start().await;
    caught_up(&running).await;
    let columns = async |at| world.store.schema_at(id, at).await.unwrap().map(|schema| schema.columns.len());
    assert_eq!(columns(Position::ZERO).await, Some(1));
    for added in ["a", "b", "c"] {
        let sql = format!("ALTER TABLE t ADD COLUMN {added} int; UPDATE t SET {added} = 1");
        client.batch_execute(&sql).await.unwrap();
        caught_up(&running).await;
    }
    stop(running).await;
    assert_eq!((columns(Position::ZERO).await, columns(Position::after(Lsn(u64::MAX))).await), (None, Some(4)));
    world.assert_equal(&client, &["t"]).await;
}
