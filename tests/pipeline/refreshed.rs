//! Does a reader of a real place see the old rows or the new ones, and never a part of either, while tables are shown anew?

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use etl::ByteSize;
use etl::destination::{AnyDestination, Destination};
use etl::pipeline::{Finished, SyncMode};
use etl::store::MemoryStore;
use etl_destinations::duckdb::{DuckDb, DuckDbConfig};
use etl_destinations::file::{FileConfig, Files};
use etl_destinations::parquet::{Parquet, ParquetConfig};
use etl_destinations::postgres::{Postgres, PostgresTargetConfig};
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::full_refresh::ended;
use crate::running::{World, started};

const ROWS: i64 = 2000;
const READS: usize = 1000;

async fn source() -> Option<(World, Client, Database)> {
    let database = database().await?;
    let client = database.client().await;
    client
        .batch_execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, round int); CREATE TABLE bare (round int); CREATE TABLE empty (id int);
             INSERT INTO t SELECT g, 0 FROM generate_series(1, {ROWS}) g; INSERT INTO bare SELECT 0 FROM t;
             ALTER TABLE bare REPLICA IDENTITY FULL;
             CREATE PUBLICATION p FOR TABLE t, bare, empty"
        ))
        .await
        .unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.settings.mode = SyncMode::FullRefresh;
    Some((world, client, database))
}

/// Refreshes again and again, each time with all rows of another round, until somebody has read often enough.
async fn rounds(world: &World, source: &Client, reads: &AtomicUsize, open: impl Fn() -> AnyDestination) -> i32 {
    let mut round = 0;
    while reads.load(Ordering::SeqCst) < READS {
        round += 1;
        let next = format!("BEGIN; UPDATE t SET round = {round}; UPDATE bare SET round = {round}; COMMIT");
        source.batch_execute(&next).await.unwrap();
        refresh(world, open()).await;
    }
    round
}

async fn refresh(world: &World, destination: AnyDestination) {
    let running = started(|| world.pipeline_into(destination.clone())).await.unwrap();
    assert_eq!(ended(running).await, Finished::default());
}

/// That what was read is one whole round.
fn expect_whole(found: (i64, Option<i32>, Option<i32>), rounds: &mut Vec<i32>) {
    let (count, least, most) = found;
    assert_eq!((count, least), (ROWS, most), "a part of a run is shown");
    rounds.extend(most.filter(|most| rounds.last() != Some(most)));
}

const READ: &str = "SELECT count(*), min(round), max(round) FROM public.t";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_postgres_sees_the_old_rows_or_the_new_ones_a_thousand_times() {
    let (Some((world, client, _database)), Some(target)) = (source().await, database().await) else { return };
    let open = || {
        let store = Arc::clone(&world.store);
        let config = PostgresTargetConfig::new(target.url());
        AnyDestination::new(Postgres::with_config(config, store, TableRules::default()).unwrap())
    };
    let copy = target.client().await;
    refresh(&world, open()).await;
    // Views keep one of the tables as it is; the other is another one after each run, with the same rights.
    copy.batch_execute("CREATE VIEW latest AS SELECT max(round) AS round FROM bare; GRANT SELECT ON t TO PUBLIC")
        .await
        .unwrap();

    let (reads, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let reading = tokio::spawn({
        let (copy, reads, is_over) = (target.client().await, Arc::clone(&reads), Arc::clone(&is_over));
        async move {
            let mut rounds = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                let row = copy.query_one(READ, &[]).await.unwrap();
                expect_whole((row.get(0), row.get(1), row.get(2)), &mut rounds);
                reads.fetch_add(1, Ordering::SeqCst);
            }
            rounds
        }
    });
    let round = rounds(&world, &client, &reads, open).await;
    is_over.store(true, Ordering::SeqCst);
    let seen = reading.await.unwrap();
    println!("{} reads, {round} rounds, of which {} were seen", reads.load(Ordering::SeqCst), seen.len());
    assert!(seen.is_sorted() && seen.last() == Some(&round), "{seen:?}");
    let text = async |sql: &str| copy.query_one(sql, &[]).await.unwrap().get::<_, String>(0);
    assert_eq!(text("SELECT round::text FROM latest").await, round.to_string());
    assert_eq!(text("SELECT count(*)::text FROM empty").await, "0");
    assert_eq!(text("SELECT has_table_privilege('pg_monitor', 't', 'SELECT')::text").await, "true");
    let left = "SELECT count(*)::text || (SELECT count(*) FROM _etl.staged) || (SELECT count(*) FROM _etl.chunks)
                  FROM pg_class WHERE relname ~ '_stg_'";
    assert_eq!(text(left).await, "000", "nothing of the runs is left");
    let tables = "SELECT string_agg(table_name, ' ' ORDER BY table_name) FROM _etl.tables";
    assert_eq!(text(tables).await, "bare empty t");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_duckdb_sees_the_old_rows_or_the_new_ones_a_thousand_times() {
    let Some((world, client, _database)) = source().await else { return };
    let config = DuckDbConfig::new(world.data_dir().join("refreshed.duckdb"));
    let destination = DuckDb::with_config(config, Arc::clone(&world.store), TableRules::default());
    let connections = destination.writer().connections();
    let destination = AnyDestination::new(destination);
    refresh(&world, destination.clone()).await;
    let (reads, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let connection = connections.connect().await.unwrap();
    let reading = std::thread::spawn({
        let (reads, is_over) = (Arc::clone(&reads), Arc::clone(&is_over));
        move || {
            let mut rounds = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                let found = connection.query_row(READ, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
                expect_whole(found, &mut rounds);
                reads.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_micros(500));
            }
            let left = "SELECT count(*) FROM duckdb_tables() WHERE contains(table_name, '_stg_')";
            (rounds, connection.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap())
        }
    });
    let round = rounds(&world, &client, &reads, || destination.clone()).await;
    is_over.store(true, Ordering::SeqCst);
    let (seen, left) = reading.join().unwrap();
    println!("{} reads, {round} rounds, of which {} were seen", reads.load(Ordering::SeqCst), seen.len());
    assert!(seen.is_sorted() && left == 0, "{seen:?}, {left} left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_parquet_sees_the_old_rows_or_the_new_ones_a_thousand_times() {
    let Some((world, client, _database)) = source().await else { return };
    let root = world.data_dir().join("lake");
    let open = || {
        let config = ParquetConfig { file_bytes: ByteSize(4 << 10), ..ParquetConfig::new(root.display().to_string()) };
        let defaults = RuleSettings { write_mode: Some(WriteMode::Upsert), ..RuleSettings::default() };
        let rules = TableRules { defaults, rules: Vec::new() };
        AnyDestination::new(Parquet::with_config(config, Arc::clone(&world.store), rules).unwrap())
    };
    refresh(&world, open()).await;
    let reader = DuckDbConfig::new(world.data_dir().join("reader.duckdb"));
    let reader = DuckDb::with_config(reader, Arc::new(MemoryStore::new()), TableRules::default());
    let (connection, another) = (reader.writer().connections(), reader.writer().connections());
    reader.startup().await.unwrap();
    let (connection, another) = (connection.connect().await.unwrap(), another.connect().await.unwrap());
    let (reads, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let reading = std::thread::spawn({
        let (reads, is_over, root) = (Arc::clone(&reads), Arc::clone(&is_over), root.clone());
        move || {
            let mut rounds = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                let found =
                    connection.query_row(&current_state(&root), [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
                expect_whole(found.unwrap(), &mut rounds);
                reads.fetch_add(1, Ordering::SeqCst);
            }
            rounds
        }
    });
    let round = rounds(&world, &client, &reads, open).await;
    is_over.store(true, Ordering::SeqCst);
    let seen = reading.join().unwrap();
    println!("{} reads, {round} rounds, of which {} were seen", reads.load(Ordering::SeqCst), seen.len());
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(!root.join(".etl/staged").exists() || std::fs::read_dir(root.join(".etl/staged")).unwrap().count() == 0);
    // The logs have no other rows than the last run's, and an empty table is there, too.
    let mut counts = Vec::new();
    for table in ["t", "bare", "empty"] {
        let sql = format!("SELECT count(*) FROM read_parquet('{}/public/{table}/log/*.parquet')", root.display());
        counts.push(another.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap());
    }
    assert_eq!(counts, [ROWS, ROWS, 0]);
}

/// What asks the files of the table's current state.
fn current_state(root: &Path) -> String {
    let pointer = std::fs::read(root.join("public/t/current.json")).unwrap();
    let pointer: serde_json::Value = serde_json::from_slice(&pointer).unwrap();
    let file = |path: &serde_json::Value| format!("'{}'", root.join(path.as_str().unwrap()).display());
    let files: Vec<String> = pointer["files"].as_array().unwrap().iter().map(file).collect();
    format!("SELECT count(*), min(round), max(round) FROM read_parquet([{}])", files.join(", "))
}

/// What the table's complete files say; nothing where one of them went while it was read.
fn in_files(directory: &Path) -> Option<(i64, Option<i32>, Option<i32>)> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = std::fs::read_to_string(path).ok()?;
            let round =
                |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["round"].as_i64().unwrap();
            found.extend(text.lines().map(|line| round(line) as i32));
        }
    }
    Some((found.len() as i64, found.iter().min().copied(), found.iter().max().copied()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_files_sees_the_old_rows_or_the_new_ones_a_thousand_times() {
    let Some((world, client, _database)) = source().await else { return };
    let root = world.data_dir().join("files");
    let open = || {
        // Small files, so that there are many.
        let config = FileConfig { max_bytes: ByteSize(16 << 10), ..FileConfig::new(&root) };
        AnyDestination::new(Files::with_config(config, Arc::clone(&world.store), TableRules::default()).unwrap())
    };
    refresh(&world, open()).await;
    let strange = root.join("public/t/notes.txt");
    std::fs::write(&strange, "mine").unwrap();
    let (reads, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let reading = std::thread::spawn({
        let (reads, is_over, directory) = (Arc::clone(&reads), Arc::clone(&is_over), root.join("public/t"));
        move || {
            let mut rounds = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                let Some(found) = in_files(&directory) else { continue };
                expect_whole(found, &mut rounds);
                reads.fetch_add(1, Ordering::SeqCst);
            }
            rounds
        }
    });
    let round = rounds(&world, &client, &reads, open).await;
    is_over.store(true, Ordering::SeqCst);
    let seen = reading.join().unwrap();
    println!("{} reads, {round} rounds, of which {} were seen", reads.load(Ordering::SeqCst), seen.len());
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(in_files(&root.join("public/t")), Some((ROWS, Some(round), Some(round))));
    assert_eq!(in_files(&root.join("public/empty")), Some((0, None, None)));
    assert_eq!(std::fs::read_to_string(strange).unwrap(), "mine", "somebody else's file stays");

    // A stream goes on in the same directories, with nothing of the runs left.
    let mut world = world;
    world.settings.mode = SyncMode::Incremental;
    refresh(
        &world,
        AnyDestination::new(
            Files::with_config(FileConfig::new(&root), Arc::clone(&world.store), TableRules::default()).unwrap(),
        ),
    )
    .await;
    assert_eq!(in_files(&root.join("public/t")), Some((ROWS, Some(round), Some(round))));
    let left = std::fs::read_dir(root.join(".etl/staged")).unwrap().count();
    assert_eq!(left, 0);
}
