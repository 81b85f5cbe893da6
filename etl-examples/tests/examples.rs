//! Do the examples do what they say? Each runs against a real Postgres and ends with Ctrl-C.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

async fn server() -> LocalPostgres {
    let server = LocalPostgres::builder().start().await.unwrap();
    server
        .psql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2); CREATE PUBLICATION p FOR ALL TABLES")
        .await
        .unwrap();
    server
}

fn example(name: &str, dir: &Path, words: &[&str]) -> Child {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(program.exists(), "cargo builds the examples with `cargo test --workspace`, or `cargo build --examples`");
    let mut command = Command::new(program);
    command.args(words).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

/// Presses Ctrl-C, and that it ends well.
async fn end(mut child: Child) {
    let pid = child.id().unwrap().to_string();
    let pressed = Command::new("kill").args(["-INT", &pid]).status().await.unwrap();
    assert!(pressed.success());
    let status = tokio::time::timeout(Duration::from_secs(30), child.wait()).await.expect("it does not end").unwrap();
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).await.unwrap();
    }
    assert!(status.success(), "{status}: {said}");
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}");
}

/// Whether the pipeline has confirmed all that there is.
async fn is_caught_up(server: &LocalPostgres) -> bool {
    let query = "SELECT coalesce(bool_and(active AND confirmed_flush_lsn > (SELECT pg_current_wal_flush_lsn() - 1000::numeric)), false) FROM pg_replication_slots";
    server.psql(query).await.unwrap() == "t"
}

#[tokio::test]
async fn postgres_to_duckdb_makes_a_file_that_is_live() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server().await);
    let child = example("postgres_to_duckdb", dir.path(), &[&server.url(), "p"]);
    until("it does not catch up", async || is_caught_up(&server).await).await;
    end(child).await;
    assert!(dir.path().join("shop.duckdb").exists());
}

#[tokio::test]
async fn postgres_to_files_leaves_complete_files() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server().await);
    let child = example("postgres_to_files", dir.path(), &[&server.url(), "p", "out"]);
    until("it does not catch up", async || is_caught_up(&server).await).await;
    server.psql("INSERT INTO t VALUES (3)").await.unwrap();
    let lines = || -> Vec<String> {
        let Ok(files) = std::fs::read_dir(dir.path().join("out/public/t")) else { return Vec::new() };
        let text: String = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        text.lines().map(str::to_owned).collect()
    };
    // The slot is told what the relay holds: the copy may take longer.
    until("the rows are not written", async || lines().len() >= 3).await;
    end(child).await;
    assert_eq!(lines().len(), 3, "{:?}", lines());
}

#[tokio::test]
async fn postgres_to_postgres_makes_the_same_tables_in_another_server() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server().await);
    let target = LocalPostgres::builder().start().await.unwrap();
    let child = example("postgres_to_postgres", dir.path(), &[&server.url(), "p", &target.url()]);
    let rows = async || {
        let there = target.psql("SELECT to_regclass('public.t') IS NOT NULL").await.unwrap() == "t";
        if there {
            target.psql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t").await.unwrap()
        } else {
            String::new()
        }
    };
    until("the copy does not come", async || rows().await == "1 2").await;
    server.psql("INSERT INTO t VALUES (3); DELETE FROM t WHERE id = 1").await.unwrap();
    until("the changes do not come", async || rows().await == "2 3").await;
    end(child).await;
}

#[tokio::test]
async fn postgres_to_log_says_a_line_a_change() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server().await);
    let mut child = example("postgres_to_log", dir.path(), &[&server.url(), "p"]);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = async |word: &str| {
        while !lines.next_line().await.unwrap().unwrap_or_else(|| panic!("it ended without {word}")).contains(word) {}
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, said("UPSERT")).await.unwrap();
    server.psql("DELETE FROM t WHERE id = 1").await.unwrap();
    tokio::time::timeout(patience, said("DELETE")).await.unwrap();
    end(child).await;
}

#[tokio::test]
async fn example_async_delivers_what_changes_though_an_answer_is_lost() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server().await);
    server.psql("INSERT INTO t SELECT generate_series(3, 30)").await.unwrap();
    let mut child = example("example_async", dir.path(), &[&server.url(), "p", "answer-lost"]);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = async |word: &str| {
        while !lines.next_line().await.unwrap().unwrap_or_else(|| panic!("it ended without {word}")).contains(word) {}
    };
    let patience = Duration::from_secs(60);
    // The copy is in deliveries of twelve, each with three tickets.
    tokio::time::timeout(patience, said("ticket T3:")).await.unwrap();
    server.psql("DELETE FROM t WHERE id = 1").await.unwrap();
    tokio::time::timeout(patience, said("Done([Shelved])")).await.unwrap();
    end(child).await;
}

#[tokio::test]
async fn postgres_to_parquet_leaves_a_log_and_a_current_state() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server().await);
    let child = example("postgres_to_parquet", dir.path(), &[&server.url(), "p", "lake"]);
    let says = |what: &str| {
        let Ok(manifests) = std::fs::read_dir(dir.path().join("lake/.etl/log")) else { return false };
        manifests.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok()).any(|text| text.contains(what))
    };
    until("nothing is copied", async || says("\"rows\":2")).await;
    // One transaction is in one file.
    server.psql("INSERT INTO t VALUES (3), (4); DELETE FROM t WHERE id = 1").await.unwrap();
    until("the changes are not written", async || says("\"rows\":3")).await;
    end(child).await;
    let table = dir.path().join("lake/public/t");
    let state = std::fs::read_to_string(table.join("current.json")).unwrap();
    assert!(state.contains("\"rows\": 3"), "{state}");
    assert_eq!(std::fs::read_dir(table.join("current")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_service_answers_and_ends_gracefully() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server().await);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let child = example("service", dir.path(), &[&server.url(), "p", &address]);
    let ask = async |request: &str| {
        let Ok(mut stream) = TcpStream::connect(&address).await else { return String::new() };
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    until("no table is ready", async || ask("GET /replication").await.contains("\"phase\":\"ready\"")).await;
    assert!(ask("GET /ready").await.starts_with("HTTP/1.1 200"));
    assert!(ask("POST /tables/public.t/pause").await.starts_with("HTTP/1.1 200"));
    assert!(ask("POST /tables/public.other/pause").await.starts_with("HTTP/1.1 404"));
    until("it is not paused", async || ask("GET /replication").await.contains("\"phase\":\"paused\"")).await;
    end(child).await;
}
