//! Does the binary end by itself where its mode says so, with the right exit code?

use crate::scene::{SOON, config, etl, refused, server_with_a_table};
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
