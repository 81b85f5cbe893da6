//! Is nobody missed who wrote a table before its copy began?

use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use harness::postgres::{database, dedicated};

use crate::running::{World, caught_up, stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_a_commit_that_hangs_before_it_is_visible_is_not_missed() {
    let Some(server) = dedicated(LocalPostgres::builder()).await else { return };
    server.psql("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let hanging = server.connect("postgres").await.unwrap();
    server.configure("synchronous_standby_names", "ghost").await.unwrap();
    // The checkpointer tells the backends that commits wait now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Committed in the WAL before the slot exists, invisible until the standby answers.
    let commit = tokio::spawn(async move { hanging.batch_execute("INSERT INTO t VALUES (1)").await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!commit.is_finished());
    let world = World::new("r1", &server.url());
    let starting = world.pipeline();
    let starting = tokio::spawn(async move { starting.start().await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.configure("synchronous_standby_names", "").await.unwrap();
    commit.await.unwrap().unwrap();
    let running = starting.await.unwrap().unwrap();
    caught_up(&running).await;
    world.assert_equal(&server.connect("postgres").await.unwrap(), &["t"]).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_a_transaction_that_wrote_before_the_copy_is_waited_for_and_named() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)").await.unwrap();
    client.batch_execute("CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    // A table joins the publication while somebody is writing it: the first row is in no stream.
    let writer = database.client().await;
    writer.batch_execute("BEGIN; INSERT INTO u VALUES (1)").await.unwrap();
    client.batch_execute("ALTER PUBLICATION p ADD TABLE u").await.unwrap();
    let running = world.start().await;
    let handle = running.handle();
    let waits = async || {
        let status = handle.status();
        status.tables.iter().find_map(|table| table.waits_for.clone())
    };
    let mut told = None;
    for _ in 0..100 {
        told = waits().await;
        if told.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told.is_some_and(|told| told.contains("pid")), "{:?}", handle.status());
    writer.batch_execute("COMMIT").await.unwrap();
    caught_up(&running).await;
    world.assert_equal(&client, &["t", "u"]).await;
    stop(running).await;
}
