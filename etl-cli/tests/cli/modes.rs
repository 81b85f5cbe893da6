//! Does the binary end by itself where its mode says so, with the right exit code?

use crate::scene::{SOON, config, etl, refused, server_with_a_table};
use etl_local_postgres::LocalPostgres;
use tokio::time::timeout;

#[tokio::test]
async fn an_incremental_run_ends_with_exit_code_0_and_check_tells_what_the_slot_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    config(dir.path(), "cron", &server.url(), "{ duckdb: { path: shop.duckdb } }");
    for round in 1..=3 {
        server.psql(&format!("INSERT INTO t VALUES ({round}, 'x')")).await.unwrap();
        let mut run = etl(dir.path(), &["run"]);
        run.env("ETL__PIPELINE__MODE", "incremental");
        let output = timeout(SOON, run.output()).await.expect("it does not end").unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("the run ends"), "{said}");
    }
    refused(dir.path(), &["check"], 0, &[]).await;
    let text = std::fs::read_to_string(dir.path().join("etl.yaml")).unwrap();
    std::fs::write(dir.path().join("etl.yaml"), text.replace("data_dir:", "mode: incremental, data_dir:")).unwrap();
    refused(dir.path(), &["check"], 0, &["warning", "between two incremental runs", "etl_cron"]).await;
    std::fs::write(dir.path().join("etl.yaml"), text.replace("data_dir:", "mode: sometimes, data_dir:")).unwrap();
    refused(dir.path(), &["check"], 2, &["pipeline.mode", "incremental"]).await;
}

#[tokio::test]
async fn a_full_refresh_needs_neither_logical_wal_nor_the_right_to_replicate() {
    let dir = tempfile::tempdir().unwrap();
    let server = LocalPostgres::builder().setting("wal_level", "replica").start().await.unwrap();
    server
        .psql(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'x'); CREATE PUBLICATION pub FOR TABLE t;
             CREATE ROLE reader LOGIN PASSWORD 'hunter2'; GRANT SELECT ON t TO reader",
        )
        .await
        .unwrap();
    let url = format!("postgres://reader:hunter2@{}:{}/postgres", server.host(), server.port());
    config(dir.path(), "nightly", &url, "{ file: { path: files } }");
    let text = std::fs::read_to_string(dir.path().join("etl.yaml")).unwrap();
    std::fs::write(dir.path().join("etl.yaml"), text.replace("data_dir:", "mode: full_refresh, data_dir:")).unwrap();
    refused(dir.path(), &["check"], 0, &["ok       source"]).await;
    for _ in 0..2 {
        refused(dir.path(), &["run"], 0, &["all tables are shown"]).await;
    }
    let files: Vec<_> = std::fs::read_dir(dir.path().join("files/public/t")).unwrap().flatten().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(std::fs::read_to_string(files[0].path()).unwrap().contains("\"v\":\"x\""));

    // What fails leaves what was there.
    server.psql("REVOKE SELECT ON t FROM reader").await.unwrap();
    refused(dir.path(), &["run"], 1, &["permission", "nothing is shown"]).await;
    let text = std::fs::read_to_string(dir.path().join("etl.yaml")).unwrap();
    std::fs::write(dir.path().join("etl.yaml"), text.replace("file: { path: files }", "log: {}")).unwrap();
    refused(dir.path(), &["run"], 1, &["full_refresh", "log"]).await;
    assert_eq!(std::fs::read_dir(dir.path().join("files/public/t")).unwrap().count(), 1);
}
