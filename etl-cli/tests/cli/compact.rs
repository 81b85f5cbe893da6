//! Does `etl compact` make current states, while the pipeline runs and when it does not, and say so where there are none?

use std::path::Path;

use serde_json::Value;

use crate::scene::{config, etl, refused, running, says, server_with_a_table};

#[tokio::test]
async fn where_nothing_can_be_compacted_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    config(dir.path(), "shop", "postgres://u:p@localhost/shop", "{ memory: {} }");
    refused(dir.path(), &["compact"], 1, &["nothing to compact", "memory", "Only `parquet`"]).await;
}

/// Compacts until the state has as many rows.
async fn reaches(dir: &Path, rows: u64) {
    for _ in 0..600 {
        // Before anything has come there is no place to look at.
        let output = etl(dir, &["compact", "--json"]).output().await.unwrap();
        let made: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if made[0]["rows"] == rows {
            assert_eq!(made[0]["table"], "public.t");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("there never are {rows} rows");
}

#[tokio::test]
async fn compact_makes_current_states_and_leaves_a_running_pipeline_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let server = server_with_a_table().await;
    let parquet = "{ parquet: { location: ./lake, compact: { every: 0s } } }\ndefaults: { write_mode: upsert }";
    config(dir, "shop", &server.url(), parquet);
    let before = etl(dir, &["compact"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&before.stderr).into_owned();
    if said.contains("feature `parquet`") {
        println!("SKIPPED: the binary was built without `parquet`");
        return;
    }
    assert!(said.contains("no pipeline has written there yet") && before.status.code() == Some(2), "{said}");
    server.psql("INSERT INTO t SELECT n, 'x' FROM generate_series(1, 3) n").await.unwrap();
    let mut child = running(dir).await;
    reaches(dir, 3).await;
    server.psql("INSERT INTO t VALUES (4, 'y'); DELETE FROM t WHERE id < 3").await.unwrap();
    reaches(dir, 2).await;
    server.psql("INSERT INTO t VALUES (5, 'z')").await.unwrap();
    reaches(dir, 3).await;
    assert_eq!(child.try_wait().unwrap(), None, "the pipeline has ended");
    assert_eq!(says(dir, &["compact"]).await, "every current state was up to date\n");
    child.kill().await.unwrap();
    child.wait().await.unwrap();

    server.psql("INSERT INTO t VALUES (6, 'z')").await.unwrap();
    says(dir, &["run", "--until-caught-up"]).await;
    assert_eq!(says(dir, &["compact"]).await, "public.t: 4 rows in 1 file\n");
}
