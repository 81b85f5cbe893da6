//! Does everything that is not as it should be end with one clear message, the right exit code, and no harm?

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// No refusal takes longer.
const SOON: Duration = Duration::from_secs(30);

fn etl(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etl"));
    command.current_dir(dir).args(words).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn refused(dir: &Path, words: &[&str], code: i32, expected: &[&str]) {
    let Output { status, stdout, stderr } = timeout(SOON, etl(dir, words).output()).await.expect("too late").unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(code), "{expected:?}: {said}");
    for expected in expected {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("hunter2") && !said.contains("panicked"), "{said}");
}

/// Writes a config for the pipeline `id`, whose destination is `destination`.
fn config(dir: &Path, id: &str, url: &str, destination: &str) {
    let text = format!(
        "pipeline: {{ id: {id}, data_dir: data }}\n\
         source: {{ postgres: {{ url: '{url}', publication: pub }} }}\n\
         destination: {destination}\n"
    );
    std::fs::write(dir.join("etl.yaml"), text).unwrap();
}

/// Starts `etl run` and waits until it has said that it streams.
async fn running(dir: &Path) -> Child {
    let mut child = etl(dir, &["run"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let says_progress = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("progress") {
                return;
            }
        }
        panic!("it ended before it had begun");
    };
    timeout(SOON, says_progress).await.expect("it does not begin");
    // Somebody has to read on, or the process ends at a broken pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}

async fn server_with_a_table() -> LocalPostgres {
    let server = LocalPostgres::builder().password("hunter2").start().await.unwrap();
    server.psql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION pub FOR ALL TABLES").await.unwrap();
    server
}

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
        (format!("postgres://blind:hunter2@{place}/postgres"), &["SELECT", "public.t"]),
    ];
    for (url, expected) in &cases {
        config(dir.path(), "refused", url, "{ memory: {} }");
        refused(dir.path(), &["check"], 1, expected).await;
        refused(dir.path(), &["run"], 1, expected).await;
    }
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
