//! Is every prepared transaction applied once or not at all, however often the program is killed before its end?

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etl_local_postgres::LocalPostgres;
use harness::compare::Pair;
use harness::duckdb::Reader;
use harness::kill::Program;
use harness::postgres::{client, dedicated};
use harness::seed::{numbers, seed};
use harness::skip::inapplicable;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio_postgres::Client;

/// So many transactions, and so many of them open at a time.
const TRANSACTIONS: usize = 60;
const OPEN: usize = 5;

fn config(dir: &Path, url: &str, ack: &str) -> String {
    let config = dir.join("etl.yaml");
    let text = format!(
        "pipeline: {{ id: prepared, data_dir: {data:?}, ack: {ack}, batch: {{ max_age: 20ms }} }}
source: {{ postgres: {{ url: {url:?}, publication: p, two_phase: true, decoding_memory: 64KiB }} }}
destination: {{ duckdb: {{ path: {file:?} }} }}
",
        data = dir.join("data"),
        file = dir.join("copy.duckdb"),
    );
    std::fs::write(&config, text).unwrap();
    config.display().to_string()
}

async fn server() -> Option<(LocalPostgres, Client)> {
    let server = dedicated(LocalPostgres::builder().setting("max_prepared_transactions", "20")).await?;
    if server.major() < 15 {
        inapplicable("this Postgres cannot send what is prepared");
        return None;
    }
    let client = client(&server.url()).await;
    let tables = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE lines (v text);
                  CREATE PUBLICATION p FOR TABLE t, lines";
    client.batch_execute(tables).await.unwrap();
    Some((server, client))
}

/// Prepares one after the other, and ends each later, some by a rollback.
async fn write(client: &Client, mut rng: StdRng) {
    let mut open = VecDeque::new();
    for number in 0..TRANSACTIONS {
        let (first, rows) = (number * 10_000, if rng.random_bool(0.3) { 2000 } else { 3 });
        let sql = format!(
            "BEGIN; INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series({first}, {first} + {rows} - 1) g;
             SAVEPOINT a; INSERT INTO lines SELECT 'void' || g FROM generate_series(1, {rows}) g; ROLLBACK TO a;
             INSERT INTO lines SELECT '{number} ' || g FROM generate_series(1, {rows}) g;
             PREPARE TRANSACTION 'gid {number}'"
        );
        client.batch_execute(&sql).await.unwrap();
        open.push_back(number);
        if open.len() > OPEN {
            end(client, open.pop_front(), &mut rng).await;
        }
        client.batch_execute(&format!("INSERT INTO lines VALUES ('small {number}')")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..120))).await;
    }
    while !open.is_empty() {
        end(client, open.pop_front(), &mut rng).await;
    }
}

async fn end(client: &Client, number: Option<usize>, rng: &mut StdRng) {
    let how = if rng.random_bool(0.3) { "ROLLBACK" } else { "COMMIT" };
    client.batch_execute(&format!("{how} PREPARED 'gid {}'", number.unwrap())).await.unwrap();
}

/// Until everything is written.
async fn kill(program: &Program, mut rng: StdRng, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let mut running = program.start().unwrap();
        let life = Duration::from_millis(rng.random_range(150..1200));
        if let Ok(status) = running.end(life).await {
            panic!("etl gave up: {status}\n{}", running.output());
        }
        running.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_what_is_prepared_is_applied_once_or_not_at_all_while_etl_is_killed() {
    for ack in ["destination", "relay"] {
        let (Some((server, client)), Some(reader)) = (server().await, Reader::find_or_skip().await) else { return };
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), &server.url(), ack);
        let until_caught_up = Program::etl(["-c", &config, "run", "--until-caught-up"]).await;
        let catch_up = async || {
            let mut running = until_caught_up.start().unwrap();
            let ended = running.end(Duration::from_secs(60)).await.unwrap();
            assert!(ended.success(), "{ended}\n{}", running.output());
        };
        catch_up().await;
        let seed = seed(41);
        println!("prepared, seed {seed}");
        let program = Program::etl(["-c", &config, "run"]).await;
        let is_over = AtomicBool::new(false);
        let writing = async {
            write(&client, numbers(seed, 1)).await;
            is_over.store(true, Ordering::Relaxed);
        };
        tokio::join!(writing, kill(&program, numbers(seed, 2), &is_over));
        catch_up().await;
        for table in ["public.t", "public.lines"] {
            let compared = Pair::new(table, table).compare(&client, &reader, &dir.path().join("copy.duckdb")).await;
            let rows = compared.unwrap_or_else(|different| panic!("seed {seed}, {table}: {different}"));
            println!("{table}: {rows} rows on both sides");
        }
    }
}
