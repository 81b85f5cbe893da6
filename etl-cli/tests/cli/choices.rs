//! Do the choices of a config reach what they are about, through the binary?

use std::path::Path;
use std::process::Output;

use crate::scene::{SOON, etl, refused};
use etl_local_postgres::LocalPostgres;
use tokio::time::timeout;

async fn finished(dir: &Path, words: &[&str]) -> String {
    let Output { status, stdout, stderr } = timeout(SOON, etl(dir, words).output()).await.expect("too late").unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{status}: {said}");
    assert!(!said.contains("hunter2"), "{said}");
    said
}

/// A server that speaks TLS and asks for a password, with a table of three rows.
async fn guarded() -> LocalPostgres {
    let server = LocalPostgres::builder().password("hunter2").tls().start().await.unwrap();
    server
        .psql(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 3) g;
             CREATE PUBLICATION pub FOR ALL TABLES",
        )
        .await
        .unwrap();
    server.psql("CREATE DATABASE state").await.unwrap();
    server
}

fn write(dir: &Path, server: &LocalPostgres, rest: &str) {
    let (port, ca) = (server.port(), server.authority().unwrap().display().to_string());
    let text = format!(
        "pipeline: {{ id: chosen, data_dir: data, batch: {{ max_age: 20ms }} }}
source:
  postgres:
    host: localhost
    port: {port}
    database: postgres
    user: postgres
    password: hunter2
    tls: {{ mode: verify-full, ca: {ca:?} }}
    publication: pub
{}",
        rest.replace("{port}", &port.to_string()).replace("{ca}", &ca)
    );
    std::fs::write(dir.join("etl.yaml"), text).unwrap();
}

#[tokio::test]
async fn state_goes_to_a_postgres_and_rows_to_files_over_tls() {
    let (dir, server) = (tempfile::tempdir().unwrap(), guarded().await);
    let rest = "store:
  postgres:
    url: postgres://postgres:hunter2@localhost:{port}/state
    schema: kept here
    tls: { mode: verify-full, ca: '{ca}' }
destination: { file: { path: out, max_age: 50ms } }
";
    write(dir.path(), &server, rest);
    let said = finished(dir.path(), &["check"]).await;
    assert!(said.contains("ok       store"), "{said}");
    for _ in 0..2 {
        finished(dir.path(), &["run", "--until-caught-up"]).await;
        server.psql("UPDATE t SET v = 'again' WHERE id = 2").await.unwrap();
        // Looking changes nothing.
        finished(dir.path(), &["check"]).await;
    }
    let files: Vec<_> = std::fs::read_dir(dir.path().join("out/public/t")).unwrap().collect();
    let text: String = files.into_iter().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert_eq!((text.matches("UPSERT").count(), text.matches("\"UPDATE\"").count()), (3, 1), "{text}");
    assert!(!dir.path().join("data/state.sqlite").exists());

    write(dir.path(), &server, &rest.replace("'{ca}'", "/nowhere.pem"));
    refused(dir.path(), &["check"], 1, &["store", "/nowhere.pem"]).await;
}

#[tokio::test]
async fn the_log_is_as_it_was_asked_for() {
    let (dir, server) = (tempfile::tempdir().unwrap(), guarded().await);
    let rest = "destination: { log: { show: all, redact: ['public.t.v'] } }\ntelemetry: { log: { format: json } }\n";
    write(dir.path(), &server, rest);
    let said = finished(dir.path(), &["run", "--until-caught-up"]).await;
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let rows: Vec<&str> = lines.iter().filter_map(|line| line["row"].as_str()).collect();
    assert_eq!(rows.len(), 3, "{said}");
    assert_eq!(rows[0], r#"{"id":"1","v":"***"}"#);

    write(dir.path(), &server, &rest.replace("format: json", "format: json, level: error"));
    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    server.psql("SELECT pg_drop_replication_slot('etl_chosen')").await.unwrap();
    assert_eq!(finished(dir.path(), &["run", "--until-caught-up"]).await, "", "nothing failed");
}
