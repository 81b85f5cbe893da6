//! Is a slot that is not ours, or no longer, refused?

use etl::ErrorKind;
use harness::postgres::database;

use crate::running::{World, caught_up, slot_is_free, stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_slot_that_somebody_moved_on_is_a_gap() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    slot_is_free(&client).await;
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let slot = format!("etl_{}", database.name());
    client.query("SELECT pg_replication_slot_advance($1::text::name, pg_current_wal_lsn())", &[&slot]).await.unwrap();
    let error = world.refusal().await;
    assert_eq!(error.kind(), ErrorKind::SourceIdentity, "{error}");
    assert!(error.to_string().contains("moved on"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_slot_that_is_gone_and_one_that_is_foreign_are_refused() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let slot = format!("etl_{}", database.name());
    let create = "SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput')";
    client.query(create, &[&slot]).await.unwrap();
    let world = World::new(database.name(), &database.url());
    let error = world.refusal().await;
    assert!(error.to_string().contains("its state is not here"), "{error}");
    client.query("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await.unwrap();
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    slot_is_free(&client).await;
    client.query("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await.unwrap();
    let error = world.refusal().await;
    assert!(error.to_string().contains("slot is gone"), "{error}");
}
