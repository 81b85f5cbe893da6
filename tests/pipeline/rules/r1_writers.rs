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
    // Committed in the WAL before the slot exists, invisible until the standby answers. That commits wait now, the
    // checkpointer tells the backends when it comes to it.
    let (began, mut begins) = tokio::sync::watch::channel(0);
    let commit = tokio::spawn(async move {
        for row in 1.. {
            began.send_replace(row);
            hanging.batch_execute(&format!("INSERT INTO t VALUES ({row})")).await?;
            if began.is_closed() {
                break;
            }
        }
        Ok::<_, tokio_postgres::Error>(())
    });
    while tokio::time::timeout(Duration::from_secs(1), begins.changed()).await.is_ok() {}
    drop(begins);
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
    for _ in 0..2400 {
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
