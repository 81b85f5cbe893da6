//! Does a running pipeline answer: probes, pages, metrics, `etl status` and `etl tables`?

use std::path::Path;
use std::time::Duration;

use crate::scene::{config, refused, running, says, server_with_a_table, status};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Adds the section `telemetry` to the config; returns the port.
fn with_http(dir: &Path, token: Option<&str>) -> u16 {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let token = token.map_or_else(String::new, |token| format!(", token: {token}"));
    let file = dir.join("etl.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}telemetry: {{ http: {{ bind: '127.0.0.1:{port}'{token} }} }}\n")).unwrap();
    port
}

/// The status code and the body.
async fn get(port: u16, path: &str, token: Option<&str>) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

async fn reaches(dir: &Path, phase: &str) {
    for _ in 0..1200 {
        if status(dir).await["tables"][0]["phase"] == phase {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{}", status(dir).await);
}

#[tokio::test]
async fn a_running_pipeline_answers_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    server.psql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1000) g").await.unwrap();
    config(dir.path(), "page", &server.url(), "{ 'null': {} }");
    let port = with_http(dir.path(), Some("sesame"));
    let mut child = running(dir.path()).await;
    reaches(dir.path(), "ready").await;
    assert_eq!(get(port, "/livez", None).await, (200, "ok\n".to_owned()));
    assert_eq!(get(port, "/readyz", None).await, (200, "ok\n".to_owned()));
    for path in ["/status", "/metrics"] {
        assert_eq!(get(port, path, None).await.0, 401);
        assert_eq!(get(port, path, Some("open")).await.0, 401);
    }
    assert_eq!(get(port, "/nothing", Some("sesame")).await.0, 404);

    let (code, page) = get(port, "/status", Some("sesame")).await;
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!((code, &page["id"], &page["streaming"]), (200, &"page".into(), &true.into()), "{page}");
    assert_eq!(page["tables"][0]["rows_copied"], 1000);
    assert!(page["process"]["resident_bytes"].as_u64().unwrap() > 1 << 20, "{page}");
    assert!(!page.to_string().contains("hunter2"));

    let expected = [
        "etl_streaming{pipeline=\"page\"} 1",
        "etl_rows_copied_total{pipeline=\"page\",table=\"public.t\"} 1000",
        "etl_tables{pipeline=\"page\",phase=\"ready\"} 1",
        "etl_lag_seconds{pipeline=\"page\"} 0",
        "# HELP etl_lag_seconds Age of the oldest commit",
        "etl_destination_call_seconds_bucket{pipeline=\"page\",destination=\"null\",call=\"write_copy_chunk\",le=",
        "etl_memory_limit_bytes{pipeline=\"page\"} 134217728",
    ];
    // The numbers are brought up to date once a second.
    let mut metrics = String::new();
    for _ in 0..600 {
        metrics = get(port, "/metrics", Some("sesame")).await.1;
        if expected.iter().all(|expected| metrics.contains(expected)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for expected in expected {
        assert!(metrics.contains(expected), "{expected}: {metrics}");
    }
    server.stop(etl_local_postgres::Shutdown::Immediate).await.unwrap();
    let mut ready = 200;
    for _ in 0..2400 {
        ready = get(port, "/readyz", None).await.0;
        if ready == 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((ready, get(port, "/livez", None).await.0), (503, 200), "alive, but without its source");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn a_running_pipeline_is_told_what_to_do_with_its_tables() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    server.psql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 10) g").await.unwrap();
    // A path that is too long for a socket.
    let deep = dir.path().join("d".repeat(200));
    std::fs::create_dir(&deep).unwrap();
    let dir = deep.as_path();
    config(dir, "told", &server.url(), "{ duckdb: { path: copy.duckdb } }");
    refused(dir, &["status"], 1, &["told is not running", "etl run"]).await;
    refused(dir, &["status", "--json"], 1, &["\"running\":false"]).await;
    refused(dir, &["tables", "pause", "t"], 1, &["not running"]).await;
    let mut child = running(dir).await;
    reaches(dir, "ready").await;

    let page = says(dir, &["status"]).await;
    assert!(page.contains("pipeline  told, streaming") && page.contains("public.t"), "{page}");
    assert!(says(dir, &["tables", "list"]).await.contains("ready"));
    refused(dir, &["tables", "pause", "nothing"], 2, &["no such table is published", "etl tables list"]).await;
    refused(dir, &["tables", "resume", "t"], 2, &["not paused"]).await;
    refused(dir, &["tables", "pause"], 2, &["TABLE"]).await;
    assert_eq!(says(dir, &["tables", "pause", "public.t"]).await, "public.t paused\n");
    assert_eq!(status(dir).await["tables"][0]["phase"], "paused");
    assert_eq!(says(dir, &["tables", "resume", "t"]).await, "t goes on\n");
    reaches(dir, "ready").await;
    server.psql("TRUNCATE t").await.unwrap();
    says(dir, &["tables", "resync", "t"]).await;
    reaches(dir, "ready").await;
    assert_eq!(status(dir).await["tables"][0]["rows_copied"], 0);
    child.kill().await.unwrap();
    child.wait().await.unwrap();

    // What was left behind by a killed process is no pipeline.
    refused(dir, &["status"], 1, &["not running"]).await;
    refused(dir, &["tables", "resync", "nothing"], 2, &["no such table", "public.t"]).await;
    assert!(says(dir, &["tables", "resync", "t"]).await.contains("public.t is copied anew by the next `etl run`"));
    says(dir, &["run", "--until-caught-up"]).await;
}

#[tokio::test]
async fn an_address_that_others_reach_needs_a_token() {
    let dir = tempfile::tempdir().unwrap();
    config(dir.path(), "open", "postgres://u:hunter2@127.0.0.1:1/d", "{ 'null': {} }");
    let file = dir.path().join("etl.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}telemetry: {{ http: {{ bind: '0.0.0.0:9898' }} }}\n")).unwrap();
    refused(dir.path(), &["check"], 2, &["telemetry.http.bind", "token"]).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    std::fs::write(&file, format!("{text}telemetry: {{ http: {{ bind: '127.0.0.1:{port}' }} }}\n")).unwrap();
    refused(dir.path(), &["run"], 1, &["telemetry.http", "in use"]).await;
}

#[tokio::test]
async fn values_that_do_not_fit_are_foretold_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = server_with_a_table().await;
    let sql = "ALTER TABLE t ADD price numeric(5, 2), ADD list int[];
               INSERT INTO t SELECT g, 'x', 'NaN', '{1}' FROM generate_series(1, 10) g";
    server.psql(sql).await.unwrap();
    config(dir.path(), "misfits", &server.url(), "{ 'null': {} }");
    let said = says(dir.path(), &["check"]).await;
    let expected = "note     source: public.t: the destination cannot hold everything of price: NaN";
    assert!(said.contains(expected) && said.contains("`on_value` can be null, clamp or text"), "{said}");
    let port = with_http(dir.path(), None);
    let file = dir.path().join("etl.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        format!("{text}tables: [{{ match: public.t, columns: {{ on_value: {{ price: 'null' }} }} }}]\n"),
    )
    .unwrap();
    assert!(says(dir.path(), &["check"]).await.contains("By `on_value`, such a value is null there"));
    let mut child = running(dir.path()).await;
    reaches(dir.path(), "ready").await;
    let metrics = get(port, "/metrics", None).await.1;
    let counted = "etl_value_policy_total{pipeline=\"misfits\",table=\"public.t\",column=\"price\",policy=\"null\"} 10";
    assert!(metrics.contains(counted), "{metrics}");
    child.kill().await.unwrap();
}
