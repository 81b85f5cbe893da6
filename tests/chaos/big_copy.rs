//! What does the copy of a large table cost its source, while it is written to, and while the program is killed?

use std::process::Stdio;
use std::time::{Duration, Instant};

use etl_local_postgres::LocalPostgres;
use harness::postgres::{client, dedicated};
use harness::skip::skip;
use tokio::process::{Child, Command};
use tokio_postgres::Client;

use crate::site::{Site, slots};

const TABLES: &[&str] = &["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"];

/// What the slot may keep of the WAL.
const KEPT: i64 = 128 << 20;

/// As many rows as a few of the first chunks have.
const SOME: u64 = 30_000;

/// What is tried, small in `make test`.
struct Trial {
    /// About 13 MiB each.
    scale: &'static str,
    snapshot_max_age: Duration,
    rows_per_second: u64,
    life: Duration,
}

fn is_soak() -> bool {
    std::env::var_os("ETL_SOAK").is_some()
}

fn trial() -> Trial {
    let (scale, age, rows_per_second, life) =
        if is_soak() { ("160", 10_000, 1_000_000, 3_000) } else { ("3", 1_000, 100_000, 500) };
    let of_millis = Duration::from_millis;
    Trial { scale, snapshot_max_age: of_millis(age), rows_per_second, life: of_millis(life) }
}

/// A server with the tables; `None` counts as a skip.
async fn server(trial: &Trial) -> Option<LocalPostgres> {
    let server = dedicated(LocalPostgres::builder()).await?;
    let Some(mut fill) = pgbench(&server, &["-i", "-q", "-s", trial.scale]) else {
        skip("there is no pgbench here");
        return None;
    };
    assert!(fill.status().await.unwrap().success());
    let client = client(&server.url()).await;
    client.batch_execute(&format!("CREATE PUBLICATION p FOR TABLE {}", TABLES.join(", "))).await.unwrap();
    Some(server)
}

fn pgbench(server: &LocalPostgres, arguments: &[&str]) -> Option<Command> {
    let mut command = Command::from(server.tool("pgbench")?);
    command.args(arguments).arg(server.url()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    Some(command)
}

/// Writes at a steady rate until it is dropped.
fn load(server: &LocalPostgres) -> Child {
    pgbench(server, &["-n", "-c", "4", "-R", "300", "-T", "3600"]).unwrap().spawn().unwrap()
}

async fn site(trial: &Trial, server: &LocalPostgres, ack: &str) -> Option<Site> {
    let copy = format!(
        "copy: {{ chunk_bytes: 16MiB, snapshot_max_age: {}ms, max_rows_per_second: {} }}",
        trial.snapshot_max_age.as_millis(),
        trial.rows_per_second
    );
    Site::with_copy(&server.url(), ack, "{}", &copy).await
}

/// What a moment of the copy costs.
#[derive(Debug, Default)]
struct Costs {
    kept: i64,
    slots: i64,
    /// How old the oldest snapshot of a copy is, in seconds.
    snapshot_age: f64,
}

impl Costs {
    async fn note(&mut self, client: &Client) {
        let query = "SELECT coalesce(max(pg_current_wal_lsn() - restart_lsn), 0)::bigint FROM pg_replication_slots";
        self.kept = self.kept.max(client.query_one(query, &[]).await.unwrap().get(0));
        self.slots = self.slots.max(slots(client).await);
        let query = "SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8
                       FROM pg_stat_activity WHERE application_name LIKE 'etl % copy %' AND backend_xmin IS NOT NULL";
        self.snapshot_age = self.snapshot_age.max(client.query_one(query, &[]).await.unwrap().get(0));
    }
}

/// What `etl status` says of the large table: is it copied, and how many rows are there?
async fn copied(site: &Site) -> (bool, u64) {
    let status = Command::new(site.program.path()).args(["-c", &site.config(), "status", "--json"]).output().await;
    let status = status.unwrap();
    let json: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    let tables = json["tables"].as_array().cloned().unwrap_or_default();
    let Some(large) = tables.iter().find(|table| table.to_string().contains("pgbench_accounts")) else {
        return (false, 0);
    };
    let phase = large["phase"].as_str().unwrap_or("pending");
    (!["pending", "copying"].contains(&phase), large["rows_copied"].as_u64().unwrap_or(0))
}

/// Runs for a life, in the small form for as long as it takes to copy something, and is killed. Says whether the copy
/// was complete by then.
async fn one_life(site: &Site, life: Duration) -> bool {
    let mut running = site.program.start().unwrap();
    let began = Instant::now();
    let mut before = None;
    let is_copied = loop {
        assert!(running.end(Duration::from_millis(100)).await.is_err(), "etl gave up: {}", running.output());
        let (is_copied, rows) = copied(site).await;
        let is_over = began.elapsed() >= life && (is_soak() || rows > *before.get_or_insert(rows) + SOME);
        if is_copied || is_over {
            break is_copied;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is copied: {}", running.output());
    };
    running.kill().await;
    is_copied
}

/// How many rows of the large table were read in order, as the server counts them.
async fn rows_read(client: &Client) -> i64 {
    let query = "SELECT coalesce(seq_tup_read, 0) FROM pg_stat_user_tables WHERE relname = 'pgbench_accounts'";
    client.query_one(query, &[]).await.unwrap().get(0)
}

async fn copied_under_load(ack: &str) {
    let trial = trial();
    let Some(server) = server(&trial).await else { return };
    let Some(site) = site(&trial, &server, ack).await else { return };
    let client = client(&server.url()).await;
    let mut load = load(&server);
    let (began, mut costs) = (Instant::now(), Costs::default());
    let mut running = site.program.start().unwrap();
    while !copied(&site).await.0 {
        assert!(running.end(Duration::from_millis(100)).await.is_err(), "etl gave up: {}", running.output());
        costs.note(&client).await;
    }
    println!("ack: {ack}: copied in {:?} under load, {costs:?}", began.elapsed());
    load.kill().await.unwrap();
    running.terminate();
    assert!(running.end(Duration::from_secs(60)).await.unwrap().success(), "{}", running.output());
    assert!(costs.kept < KEPT, "{} bytes of WAL were kept", costs.kept);
    assert_eq!(costs.slots, 1, "one slot");
    // Beyond its age: the chunk that is being read, and the second in which it is asked again.
    let most = trial.snapshot_max_age.as_secs_f64() + 3.0;
    assert!(costs.snapshot_age < most, "a snapshot was {} seconds old", costs.snapshot_age);
    site.assert_equal(&client, TABLES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_large_copy_under_load_keeps_no_wal_and_no_old_snapshot() {
    copied_under_load("destination").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_large_copy_under_load_keeps_no_wal_with_ack_relay() {
    copied_under_load("relay").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_large_copy_that_is_killed_again_and_again_reads_hardly_more_than_the_table() {
    let trial = trial();
    let Some(server) = server(&trial).await else { return };
    let Some(site) = site(&trial, &server, "destination").await else { return };
    let client = client(&server.url()).await;
    let rows: i64 = client.query_one("SELECT count(*) FROM pgbench_accounts", &[]).await.unwrap().get(0);
    // Statistics come in late.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, mut load, mut kills) = (rows_read(&client).await, load(&server), 0);
    while !one_life(&site, trial.life).await {
        kills += 1;
    }
    load.kill().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let read = rows_read(&client).await - before;
    println!("{rows} rows, {kills} kills, {read} rows read");
    assert!(kills > 0, "it was too fast to be killed");
    if is_soak() {
        assert!(read * 10 <= rows * 13, "{read} rows were read of {rows}");
    }
    site.assert_equal(&client, TABLES).await;
}
