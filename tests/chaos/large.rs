//! Does a transaction that is larger than any memory arrive whole, in little memory, and before it has ended?

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etl_local_postgres::LocalPostgres;
use harness::compare::Pair;
use harness::duckdb::Reader;
use harness::kill::{Program, Running};
use harness::postgres::{client, dedicated};
use tokio_postgres::Client;

/// The process of the null destination, with `memory_limit: 128MiB`.
const MOST_MEMORY: u64 = 256 << 20;

/// Rounds of the transaction, each with a savepoint that is kept and one that is rolled back.
const ROUNDS: i64 = 20;

/// Every row is about so large in the stream.
const ROW: i64 = 2000;

/// The bytes of the transaction, and what the server holds in memory: small in `make test`.
fn size() -> (i64, &'static str) {
    match std::env::var_os("ETL_SOAK") {
        Some(_) => (2 << 30, "64MiB"),
        None => (40 << 20, "1MiB"),
    }
}

/// A pipeline into one destination, and its directory.
struct Site {
    config: String,
    slot: String,
    dir: tempfile::TempDir,
}

impl Site {
    fn new(url: &str, name: &str, destination: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("etl.yaml");
        let text = format!(
            "pipeline: {{ id: {name}, data_dir: {data:?}, memory_limit: 128MiB }}
source: {{ postgres: {{ url: {url:?}, publication: p, decoding_memory: {memory} }} }}
destination: {destination}
",
            data = dir.path().join("data"),
            memory = size().1,
            destination = destination(dir.path()),
        );
        std::fs::write(&config, text).unwrap();
        Self { config: config.display().to_string(), slot: format!("etl_{name}"), dir }
    }

    async fn start(&self) -> Running {
        let mut running = Program::etl(["-c", &self.config, "run"]).await.start().unwrap();
        running.line("the table is ready", Duration::from_secs(60)).await.unwrap();
        running
    }

    /// What of transactions in progress is on disk.
    fn spooled(&self) -> u64 {
        let files = std::fs::read_dir(self.dir.path().join("data/relay")).into_iter().flatten().flatten();
        let spools = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "spool"));
        spools.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("copy.duckdb")
    }
}

async fn server() -> Option<LocalPostgres> {
    let server = dedicated(LocalPostgres::builder()).await?;
    let tables = "CREATE TABLE large (id bigint PRIMARY KEY, round int NOT NULL, v text NOT NULL);
                  INSERT INTO large SELECT -g, 0, 'copied' FROM generate_series(1, 1000) g;
                  CREATE PUBLICATION p FOR TABLE large";
    client(&server.url()).await.batch_execute(tables).await.unwrap();
    Some(server)
}

/// Everything but the commit; of each round 30 of 100 rows are rolled back, in savepoints within savepoints.
async fn write(client: &Client) {
    let rows = size().0 / ROW / ROUNDS;
    let (kept, void) = (rows * 7 / 10, rows * 3 / 10);
    let insert = |round: i64, from: i64, count: i64| {
        format!(
            "INSERT INTO large SELECT g, {round}, repeat(md5(g::text), 59)
               FROM generate_series({from}::bigint, {from}::bigint + {count} - 1) g"
        )
    };
    client.batch_execute("BEGIN").await.unwrap();
    for round in 1..=ROUNDS {
        let from = round * rows * 2;
        let statements = [
            insert(round, from, kept / 2),
            format!("SAVEPOINT kept; {}", insert(round, from + kept / 2, kept - kept / 2)),
            format!("UPDATE large SET v = 'round {round}' WHERE id = -{round}; RELEASE kept"),
            format!("SAVEPOINT void; {}", insert(-round, from + rows, void / 2)),
            format!("SAVEPOINT within; {}; RELEASE within", insert(-round, from + rows + void, void - void / 2)),
            format!("DELETE FROM large WHERE id = -{round}; ROLLBACK TO void; RELEASE void"),
        ];
        for statement in statements {
            client.batch_execute(&statement).await.unwrap();
        }
    }
}

/// Until the slot has confirmed all that is flushed now.
async fn confirmed(site: &Site, running: &mut Running, client: &Client) {
    let flushed: String = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
    let slot = "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $2::text";
    let is_confirmed = async || client.query_one(slot, &[&flushed, &site.slot]).await.unwrap().get::<_, bool>(0);
    running.until(Duration::from_secs(1800), is_confirmed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_large_transaction_comes_before_its_commit_takes_little_memory_and_ends_equal() {
    let (Some(server), Some(reader)) = (server().await, Reader::find_or_skip().await) else { return };
    let (url, client) = (server.url(), client(&server.url()).await);
    let null = Site::new(&url, "nothing", |_| r#"{ "null": {} }"#.to_owned());
    let duckdb = Site::new(&url, "duckdb", |dir| format!("{{ duckdb: {{ path: {:?} }} }}", dir.join("copy.duckdb")));
    let (mut to_null, mut to_duckdb) = (null.start().await, duckdb.start().await);
    let idle = to_null.peak_memory().unwrap_or_default();

    let writer = harness::postgres::client(&url).await;
    let began = Instant::now();
    let progress = async {
        let first = async || null.spooled() > 0 && duckdb.spooled() > 0;
        to_null.until(Duration::from_secs(600), first).await.unwrap();
        began.elapsed()
    };
    let (first, ()) = tokio::join!(progress, write(&writer));
    let (written, spooled) = (began.elapsed(), null.spooled());
    assert!(spooled > 0 && first < written, "nothing came before the commit");
    writer.batch_execute("COMMIT").await.unwrap();
    confirmed(&null, &mut to_null, &client).await;
    println!(
        "written in {:.1} s; first bytes after {:.1} s, {} MiB before the commit; null had all after {:.1} s",
        written.as_secs_f64(),
        first.as_secs_f64(),
        spooled >> 20,
        began.elapsed().as_secs_f64(),
    );
    if let Some(peak) = to_null.peak_memory() {
        println!("null: {} MiB of memory at the peak, {} MiB before the transaction", peak >> 20, idle >> 20);
        assert!(peak < MOST_MEMORY, "{peak} bytes");
    }
    confirmed(&duckdb, &mut to_duckdb, &client).await;
    if let Some(peak) = to_duckdb.peak_memory() {
        println!("duckdb, DuckDB's own memory included: {} MiB at the peak", peak >> 20);
    }
    for mut running in [to_null, to_duckdb] {
        running.terminate();
        let ended = running.end(Duration::from_secs(60)).await.unwrap();
        assert!(ended.success(), "{ended}\n{}", running.output());
    }
    let rows = Pair::new("public.large", "public.large").compare(&client, &reader, &duckdb.file()).await;
    println!("{} rows on both sides, {:.1} s after the beginning", rows.unwrap(), began.elapsed().as_secs_f64());
    assert_eq!((null.spooled(), duckdb.spooled()), (0, 0), "files of what everybody has are deleted");
}
