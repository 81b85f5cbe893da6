//! Is what somebody else holds, told in one message, and does the next run go on?

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::scene::{SOON, config, etl, refused, running, server_with_a_table, status};
use tokio::process::Command;
use tokio::time::timeout;

/// Waits until the log says it.
async fn says(log: &Path, what: &str) {
    let said = async {
        while !std::fs::read_to_string(log).unwrap().contains(what) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = timeout(SOON, said).await;
    assert!(in_time.is_ok(), "never `{what}`: {}", std::fs::read_to_string(log).unwrap());
}

#[tokio::test]
async fn a_slot_that_another_process_reads_is_waited_for_and_then_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    config(dir.path(), "held", &server.url(), "{ 'null': {} }");
    refused(dir.path(), &["run", "--until-caught-up"], 0, &[]).await;
    let mut reader = Command::from(server.tool("pg_recvlogical").unwrap())
        .args(["-d", &server.url(), "--start", "--slot", "etl_held", "--no-loop", "-f", "/dev/null"])
        .args(["-o", "proto_version=1", "-o", "publication_names=pub"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    while server.psql("SELECT active FROM pg_replication_slots").await.unwrap().trim() != "t" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    refused(dir.path(), &["check"], 0, &["etl_held", "in use"]).await;
    refused(dir.path(), &["run"], 1, &["etl_held", "active for PID"]).await;
    reader.kill().await.unwrap();
}

#[tokio::test]
async fn a_duckdb_file_that_another_process_writes_is_refused() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = server_with_a_table().await;
    let file = format!("{{ duckdb: {{ path: '{}' }} }}", first.path().join("copy.duckdb").display());
    config(first.path(), "writes", &server.url(), &file);
    let mut child = running(first.path()).await;
    config(second.path(), "waits", &server.url(), &file);
    refused(second.path(), &["check"], 1, &["copy.duckdb", "one writing process"]).await;
    refused(second.path(), &["run"], 1, &["copy.duckdb", "one writing process"]).await;
    let slots = server.psql("SELECT string_agg(slot_name, ',') FROM pg_replication_slots").await.unwrap();
    assert_eq!(slots.trim(), "etl_writes", "a refused run leaves no slot behind");
    child.kill().await.unwrap();
    refused(second.path(), &["run", "--until-caught-up"], 0, &[]).await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    server.psql("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 50000) g").await.unwrap();
    config(dir.path(), "twice", &server.url(), "{ duckdb: { path: copy.duckdb } }");
    // A destination that hangs: the drain would wait for ever.
    let log = dir.path().join("log");
    let mut child = etl(dir.path(), &["run"])
        .env("ETL_FAILPOINTS", "apply.before_write=stall")
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    says(&log, "rows_copied=50000").await;
    server.psql("UPDATE t SET v = 'y'").await.unwrap();
    while status(dir.path()).await["memory"]["batch_bytes"] == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pid = child.id().unwrap().to_string();
    let terminate = || Command::new("kill").args(["-s", "TERM", &pid]).status();
    terminate().await.unwrap();
    says(&log, "ending").await;
    terminate().await.unwrap();
    let output = timeout(SOON, child.wait()).await.expect("it does not end").unwrap();
    assert_eq!(output.code(), Some(1));
    refused(dir.path(), &["run", "--until-caught-up"], 0, &[]).await;
}
