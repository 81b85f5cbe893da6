//! Does one table's failure leave the others alone, and does the binary say what to do about it?

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tokio::time::timeout;

use crate::scene::{SOON, config, etl, refused, running, server_with_a_table};

async fn says(dir: &Path, words: &[&str]) -> String {
    let Output { status, stdout, stderr } = timeout(SOON, etl(dir, words).output()).await.expect("too late").unwrap();
    assert!(status.success(), "{words:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

async fn reaches(dir: &Path, table: &str, phase: &str) -> Value {
    let mut tables = Value::Null;
    for _ in 0..300 {
        tables = serde_json::from_str(&says(dir, &["tables", "list", "--json"]).await).unwrap();
        let found = tables.as_array().unwrap().iter().find(|shown| shown["name"] == table);
        if let Some(found) = found.filter(|shown| shown["phase"] == phase) {
            return found.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{table} is not {phase}: {tables}");
}

#[tokio::test]
async fn p7_a_value_that_cannot_be_written_stops_its_table_alone_until_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let server = server_with_a_table().await;
    server.psql("CREATE TABLE n (id int PRIMARY KEY, v numeric(10, 2))").await.unwrap();
    config(dir, "alone", &server.url(), "{ duckdb: { path: copy.duckdb } }");
    let mut child = running(dir).await;
    reaches(dir, "public.n", "ready").await;
    server
        .psql("BEGIN; INSERT INTO n VALUES (1, 1.5), (2, 'NaN'); INSERT INTO t VALUES (1, 'a'); COMMIT")
        .await
        .unwrap();
    let shown = reaches(dir, "public.n", "quarantined").await;
    assert_eq!(shown["error"]["kind"], "value", "{shown}");
    assert!(shown["retry_at"].is_string(), "{shown}");
    let page = says(dir, &["tables", "list"]).await;
    assert!(page.contains("numeric(10,2)") && page.contains("`etl tables release public.n` tries now"), "{page}");
    refused(dir, &["tables", "release", "t"], 2, &["not in quarantine"]).await;
    child.kill().await.unwrap();
    child.wait().await.unwrap();

    server.psql("INSERT INTO t VALUES (2, 'b')").await.unwrap();
    refused(dir, &["run", "--until-caught-up"], 3, &["table public.n is in quarantine", "numeric(10,2)"]).await;
    let mut child = running(dir).await;
    reaches(dir, "public.n", "quarantined").await;
    assert!(says(dir, &["tables", "release", "public.n"]).await.contains("public.n is tried again"));
    reaches(dir, "public.n", "quarantined").await;
    server.psql("DELETE FROM n WHERE v = 'NaN'").await.unwrap();
    says(dir, &["tables", "resync", "public.n"]).await;
    assert_eq!(reaches(dir, "public.n", "ready").await["rows_copied"], 1);
    assert_eq!(reaches(dir, "public.t", "ready").await["rows_copied"], 0, "it was never copied again");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn p7_a_change_of_shape_that_is_to_stop_stops_its_table_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let server = server_with_a_table().await;
    server.psql("CREATE TABLE n (id int PRIMARY KEY)").await.unwrap();
    config(dir, "shape", &server.url(), "{ duckdb: { path: copy.duckdb } }");
    let file = dir.join("etl.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}defaults: {{ on_schema_change: stop }}\n")).unwrap();
    let mut child = running(dir).await;
    reaches(dir, "public.t", "ready").await;
    reaches(dir, "public.n", "ready").await;
    server
        .psql("ALTER TABLE t ADD COLUMN w int; INSERT INTO t VALUES (1, 'a', 7); INSERT INTO n VALUES (1)")
        .await
        .unwrap();
    let shown = reaches(dir, "public.t", "quarantined").await;
    assert_eq!((&shown["error"]["kind"], &shown["retry_at"]), (&"schema_changed".into(), &Value::Null), "{shown}");
    assert!(says(dir, &["tables", "list"]).await.contains("`etl tables release public.t` tries now"));
    reaches(dir, "public.n", "ready").await;
    says(dir, &["tables", "resync", "t"]).await;
    assert_eq!(reaches(dir, "public.t", "ready").await["rows_copied"], 1);
    child.kill().await.unwrap();
}
