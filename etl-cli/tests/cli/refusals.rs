//! Does everything that is not as it should be end with one clear message, the right exit code, and no harm?

use crate::scene::{SOON, config, refused, running, server_with_a_table};
use etl_local_postgres::LocalPostgres;
use tokio::process::Command;
use tokio::time::timeout;

#[tokio::test]
async fn a_source_that_is_not_as_it_should_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    server
        .psql("CREATE ROLE nobody LOGIN PASSWORD 'hunter2'; CREATE ROLE blind LOGIN REPLICATION PASSWORD 'hunter2'")
        .await
        .unwrap();
    let place = format!("{}:{}", server.host(), server.port());
    let cases = [
        ("postgres://postgres:hunter2@127.0.0.1:1/postgres".to_owned(), &["127.0.0.1"][..]),
        (format!("postgres://postgres:hunter2wrong@{place}/postgres"), &["password"]),
        (format!("postgres://postgres:hunter2@{place}/nowhere"), &["nowhere"]),
        (format!("postgres://nobody:hunter2@{place}/postgres"), &["REPLICATION"]),
    ];
    for (url, expected) in &cases {
        config(dir.path(), "refused", url, "{ memory: {} }");
        refused(dir.path(), &["check"], 1, expected).await;
        refused(dir.path(), &["run"], 1, expected).await;
    }
    // That is about one table, and others may go on.
    config(dir.path(), "refused", &format!("postgres://blind:hunter2@{place}/postgres"), "{ memory: {} }");
    refused(dir.path(), &["check"], 1, &["SELECT", "public.t"]).await;
    refused(dir.path(), &["run", "--until-caught-up"], 3, &["quarantine", "SELECT", "public.t"]).await;
    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    server.psql("SELECT pg_drop_replication_slot('etl_refused')").await.unwrap();
    server.psql("DROP PUBLICATION pub").await.unwrap();
    config(dir.path(), "refused", &server.url(), "{ memory: {} }");
    refused(dir.path(), &["check"], 1, &["publication", "pub", "CREATE PUBLICATION"]).await;
    refused(dir.path(), &["run"], 1, &["publication", "pub", "CREATE PUBLICATION"]).await;
}

#[tokio::test]
async fn a_server_without_logical_wal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = LocalPostgres::builder().setting("wal_level", "replica").start().await.unwrap();
    config(dir.path(), "refused", &server.url(), "{ memory: {} }");
    refused(dir.path(), &["check"], 1, &["wal_level"]).await;
    refused(dir.path(), &["run"], 1, &["wal_level"]).await;
}

#[tokio::test]
async fn a_table_without_an_identity_is_a_warning_and_its_inserts_flow() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    server.psql("CREATE TABLE history (what text); INSERT INTO history VALUES ('a')").await.unwrap();
    config(dir.path(), "warned", &server.url(), "{ memory: {} }");
    refused(dir.path(), &["check"], 0, &["warning", "public.history", "REPLICA IDENTITY"]).await;
    refused(dir.path(), &["run", "--until-caught-up"], 0, &[]).await;
}

#[tokio::test]
async fn what_another_process_uses_is_refused() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = server_with_a_table().await;
    config(first.path(), "first", &server.url(), "{ 'null': {} }");
    let mut child = running(first.path()).await;

    refused(first.path(), &["run"], 1, &["data"]).await;
    refused(first.path(), &["check"], 1, &["data"]).await;
    config(second.path(), "second", &server.url(), "{ 'null': {} }");
    refused(second.path(), &["run", "--until-caught-up"], 0, &[]).await;
    config(second.path(), "other", &server.url(), "{ 'null': {} }");
    refused(second.path(), &["run"], 2, &["another pipeline"]).await;
    std::fs::remove_dir_all(second.path().join("data")).unwrap();
    config(second.path(), "first", &server.url(), "{ 'null': {} }");
    refused(second.path(), &["run"], 1, &["etl_first"]).await;

    child.start_kill().unwrap();
    child.wait().await.unwrap();
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    config(dir.path(), "refused", &server.url(), "{ 'null': {} }");
    std::fs::write(dir.path().join("data"), "a file, not a directory").unwrap();
    refused(dir.path(), &["check"], 1, &["data"]).await;
    refused(dir.path(), &["run"], 1, &["data"]).await;
}

#[tokio::test]
async fn a_signal_ends_a_run_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    server.psql("INSERT INTO t SELECT n, 'x' FROM generate_series(1, 1000) n").await.unwrap();
    config(dir.path(), "ended", &server.url(), "{ 'null': {} }");
    for signal in ["TERM", "INT"] {
        let mut child = running(dir.path()).await;
        let pid = child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().await.unwrap().success());
        let status = timeout(SOON, child.wait()).await.expect("it does not end").unwrap();
        assert_eq!(status.code(), Some(0), "{signal}");
    }
}
