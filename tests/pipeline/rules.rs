//! Do the rules of the source hold on a real server? Each test makes a fault happen that loses rows without it.

use std::time::Duration;

use etl::ErrorKind;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_slot_that_somebody_moved_on_is_a_gap() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let world = World::new(database.name(), &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let slot = format!("etl_{}", database.name());
    client.query("SELECT pg_replication_slot_advance($1::text::name, pg_current_wal_lsn())", &[&slot]).await.unwrap();
    let error = world.pipeline().start().await.unwrap_err();
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
    let error = world.pipeline().start().await.unwrap_err();
    assert!(error.to_string().contains("its state is not here"), "{error}");
    client.query("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await.unwrap();
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    client.query("SELECT pg_drop_replication_slot($1::text::name)", &[&slot]).await.unwrap();
    let error = world.pipeline().start().await.unwrap_err();
    assert!(error.to_string().contains("slot is gone"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r14_row_security_is_an_error_and_never_a_smaller_copy() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    let role = format!("limited_{}", database.name());
    client
        .batch_execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10);
             ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON t USING (id < 3);
             CREATE PUBLICATION p FOR TABLE t;
             CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON t TO {role}"
        ))
        .await
        .unwrap();
    let url = database.url().replace("//postgres", &format!("//{role}"));
    assert!(url.contains(&role), "{url}");
    let world = World::new(database.name(), &url);
    let running = world.start().await;
    let error = running.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourcePermission, "{error}");
    assert!(error.to_string().contains("row security") || error.to_string().contains("row-level"), "{error}");
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}
