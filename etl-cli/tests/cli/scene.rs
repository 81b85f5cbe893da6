//! What does a test of the binary need? A config, a server with a table, and a run that is watched.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Nothing takes longer, on a slow machine neither.
pub(crate) const SOON: Duration = Duration::from_secs(180);

pub(crate) fn etl(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etl"));
    command.current_dir(dir).args(words).stdin(Stdio::null()).kill_on_drop(true);
    command
}

pub(crate) async fn refused(dir: &Path, words: &[&str], code: i32, expected: &[&str]) {
    let Output { status, stdout, stderr } = timeout(SOON, etl(dir, words).output()).await.expect("too late").unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(code), "{expected:?}: {said}");
    for expected in expected {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("hunter2") && !said.contains("panicked"), "{said}");
}

/// Writes a config for the pipeline `id`, whose destination is `destination`.
pub(crate) fn config(dir: &Path, id: &str, url: &str, destination: &str) {
    let text = format!(
        "pipeline: {{ id: {id}, data_dir: data }}\n\
         source: {{ postgres: {{ url: '{url}', publication: pub }} }}\n\
         destination: {destination}\n"
    );
    std::fs::write(dir.join("etl.yaml"), text).unwrap();
}

/// Starts `etl run` and waits until it has said that it streams.
pub(crate) async fn running(dir: &Path) -> Child {
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

/// What it prints when it is asked something and does as it is told.
pub(crate) async fn says(dir: &Path, words: &[&str]) -> String {
    let output = timeout(SOON, etl(dir, words).output()).await.expect("too late").unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) async fn status(dir: &Path) -> Value {
    serde_json::from_str(&says(dir, &["status", "--json"]).await).unwrap()
}

pub(crate) async fn server_with_a_table() -> LocalPostgres {
    let server = LocalPostgres::builder().password("hunter2").start().await.unwrap();
    server.psql("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION pub FOR ALL TABLES").await.unwrap();
    server
}
