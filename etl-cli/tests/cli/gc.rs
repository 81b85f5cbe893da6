//! Does the binary remove what it is told to, and nothing that somebody needs?

use std::path::Path;

use etl_local_postgres::LocalPostgres;
use tokio::process::Command;
use tokio::time::timeout;

use crate::scene::{SOON, config, etl, refused, server_with_a_table};

async fn said(command: &mut Command) -> String {
    let output = timeout(SOON, command.output()).await.expect("too late").unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn write(dir: &Path, id: &str, server: &LocalPostgres) {
    let text = format!(
        "pipeline: {{ id: {id}, data_dir: {id} }}\nsource: {{ postgres: {{ url: '{0}', tables: [public.t] }} }}\n\
         store: {{ postgres: {{ url: '{0}' }} }}\ndestination: {{ 'null': {{}} }}\n",
        server.url()
    );
    std::fs::write(dir.join(format!("{id}.yaml")), text).unwrap();
}

#[tokio::test]
async fn gc_lists_what_pipelines_have_left_and_removes_what_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let server = LocalPostgres::builder().password("hunter2").start().await.unwrap();
    server.psql("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    for id in ["old", "gone", "shop"] {
        write(dir.path(), id, &server);
        let file = format!("{id}.yaml");
        said(&mut etl(dir.path(), &["-c", &file, "run", "--until-caught-up"])).await;
    }
    server.psql("SELECT pg_drop_replication_slot('etl_gone')").await.unwrap();
    let gc = |words: &[&str]| {
        let words: Vec<&str> = ["-c", "shop.yaml", "gc"].iter().chain(words).copied().collect();
        etl(dir.path(), &words)
    };
    let listed = said(&mut gc(&[])).await;
    for (state, kind, name) in [
        ("asleep", "slot", "etl_old"),
        ("live", "slot", "etl_shop"),
        ("dead", "publication", "etl_gone"),
        ("asleep", "publication", "etl_old"),
        ("dead", "state", "gone"),
        ("live", "state", "old"),
    ] {
        let is_it = |line: &str| line.split_whitespace().take(3).eq([state, kind, name]);
        assert!(listed.lines().any(is_it), "{state} {kind} {name}:\n{listed}");
    }
    assert!(listed.contains("etl gc --yes"), "{listed}");
    refused(dir.path(), &["-c", "shop.yaml", "gc", "--yes", "nobody"], 2, &["nobody"]).await;
    refused(dir.path(), &["-c", "shop.yaml", "gc", "--yes", "etl_shop"], 1, &["etl_shop", "live", "stays"]).await;

    let removed = said(&mut gc(&["--yes", "--json"])).await;
    let removed: serde_json::Value = serde_json::from_str(&removed).unwrap();
    let removed: Vec<&str> = removed
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["removed"] == true)
        .map(|line| line["found"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(removed, ["etl_gone", "gone"]);
    said(&mut gc(&["--yes", "old"])).await;
    let listed = said(&mut gc(&[])).await;
    assert!(!listed.contains("gone") && !listed.contains("slot         etl_old"), "{listed}");
    said(&mut etl(dir.path(), &["-c", "shop.yaml", "run", "--until-caught-up"])).await;
}

#[tokio::test]
async fn a_lost_slot_is_refused_until_the_tables_may_be_copied_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    config(dir.path(), "shop", &server.url(), "{ 'null': {} }");
    refused(dir.path(), &["run", "--until-caught-up"], 0, &[]).await;
    server.psql("SELECT pg_drop_replication_slot('etl_shop')").await.unwrap();
    let expected = ["the slot is gone", "copy again=public.t", "etl run --resync-affected"];
    refused(dir.path(), &["run", "--until-caught-up"], 1, &expected).await;
    refused(dir.path(), &["run", "--until-caught-up", "--resync-affected"], 0, &["copy again=public.t"]).await;
    refused(dir.path(), &["run", "--until-caught-up"], 0, &[]).await;
}
