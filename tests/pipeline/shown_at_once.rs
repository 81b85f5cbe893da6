//! Does a reader of a real place see what was there before an incremental run, or all that it brings, and nothing between?

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use etl::destination::AnyDestination;
use etl::pipeline::{Finished, SyncMode};
use etl_destinations::duckdb::{DuckDb, DuckDbConfig};
use etl_destinations::file::{FileConfig, Files};
use etl_destinations::parquet::{Parquet, ParquetConfig};
use etl_destinations::postgres::{Postgres, PostgresTargetConfig};
use etl_destinations::table_rules::TableRules;
use harness::duckdb::Reader;
use harness::parquet::{logged_rows, query};
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::modes_of_runs::ended;
use crate::running::{World, caught_up, started, stop};

const ROWS: i64 = 700;

/// How many transactions of the source a run brings, each of which is more than a batch.
const COMMITS: i32 = 8;

const READS: usize = 1000;

/// So many runs at least.
const FEWEST: i32 = 3;

async fn source() -> Option<(World, Client, Database)> {
    let database = database().await?;
    let client = database.client().await;
    client
        .batch_execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, round int); CREATE TABLE bare (round int);
             INSERT INTO t SELECT g, 0 FROM generate_series(1, {ROWS}) g; INSERT INTO bare VALUES (0);
             ALTER TABLE bare REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE t, bare"
        ))
        .await
        .unwrap();
    let mut world = World::new(database.name(), &database.url());
    world.settings.mode = SyncMode::Incremental;
    Some((world, client, database))
}

async fn run(world: &World, destination: AnyDestination) {
    let running = started(|| world.pipeline_into(destination.clone())).await.unwrap();
    assert_eq!(ended(running).await, Finished::default());
}

/// One run after the other, each of several transactions over both tables, until somebody has read often enough. The last
/// transaction of a run has a number that ends in zero.
async fn rounds(world: &World, source: &Client, reads: &AtomicUsize, open: impl Fn() -> AnyDestination) -> i32 {
    let mut round = 0;
    while reads.load(Ordering::SeqCst) < READS || round < FEWEST * 10 {
        round += 10;
        for commit in 1..=COMMITS {
            let number = round - COMMITS + commit;
            let next = format!("BEGIN; UPDATE t SET round = {number}; UPDATE bare SET round = {number}; COMMIT");
            source.batch_execute(&next).await.unwrap();
        }
        run(world, open()).await;
    }
    round
}

/// That what was read is what one of the runs has left.
fn expect_whole(found: (i64, Option<i32>, Option<i32>), rounds: &mut Vec<i32>) {
    let (count, least, most) = found;
    assert_eq!((count, least), (ROWS + 1, most), "a part of a transaction is shown");
    assert!(most.is_some_and(|most| most % 10 == 0), "a part of a run is shown: {most:?}");
    rounds.extend(most.filter(|most| rounds.last() != Some(most)));
}

const READ: &str = "SELECT count(*), min(round), max(round)
                      FROM (SELECT round FROM public.t UNION ALL SELECT round FROM public.bare) s";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_postgres_sees_an_incremental_run_whole_or_not_at_all_a_thousand_times() {
    let (Some((world, client, _database)), Some(target)) = (source().await, database().await) else { return };
    let open = || {
        let config = PostgresTargetConfig::new(target.url());
        AnyDestination::new(Postgres::with_config(config, Arc::clone(&world.store), TableRules::default()).unwrap())
    };
    run(&world, open()).await;
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
    println!("{} reads, {} rounds, of which {} were seen", reads.load(Ordering::SeqCst), round / 10, seen.len());
    assert!(seen.is_sorted() && seen.last() == Some(&round), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_duckdb_sees_an_incremental_run_whole_or_not_at_all_a_thousand_times() {
    let Some((world, client, _database)) = source().await else { return };
    let config = DuckDbConfig::new(world.data_dir().join("whole.duckdb"));
    let destination = DuckDb::with_config(config, Arc::clone(&world.store), TableRules::default());
    let connections = destination.writer().connections();
    let destination = AnyDestination::new(destination);
    run(&world, destination.clone()).await;
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
                // So that the run gets on.
                std::thread::sleep(Duration::from_micros(500));
            }
            rounds
        }
    });
    let round = rounds(&world, &client, &reads, || destination.clone()).await;
    is_over.store(true, Ordering::SeqCst);
    let seen = reading.join().unwrap();
    println!("{} reads, {} rounds, of which {} were seen", reads.load(Ordering::SeqCst), round / 10, seen.len());
    assert!(seen.is_sorted(), "{seen:?}");
}

/// A table changes its shape in the middle of what a run brings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_in_which_a_table_changes_its_shape_ends_with_all_of_it() {
    let Some((world, client, _database)) = source().await else { return };
    let config = DuckDbConfig::new(world.data_dir().join("altered.duckdb"));
    let duckdb = DuckDb::with_config(config, Arc::clone(&world.store), TableRules::default());
    let connections = duckdb.writer().connections();
    let duckdb = AnyDestination::new(duckdb);
    run(&world, duckdb.clone()).await;
    let change = "UPDATE t SET round = 1; ALTER TABLE t ADD more int; UPDATE t SET more = id WHERE id <= 300;
                  INSERT INTO bare SELECT 2 FROM t; ALTER TABLE t DROP round; DELETE FROM t WHERE id > 500";
    for statement in change.split(';') {
        client.batch_execute(statement).await.unwrap();
    }
    run(&world, duckdb).await;
    let check = "SELECT concat_ws(' ', (SELECT count(*) FROM public.t), (SELECT sum(more) FROM public.t),
                                       (SELECT count(*) FROM public.bare))";
    let found: String = connections.connect().await.unwrap().query_row(check, [], |row| row.get(0)).unwrap();
    assert_eq!(found, "500 45150 701");
}

/// Somebody who reads all the time, and what the reader has seen: the last round each time.
struct Reading {
    reads: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<i32>>,
}

impl Reading {
    /// Reads by this, which says what it saw, or nothing where that went while it was read.
    fn begin(mut look: impl FnMut() -> Option<i32> + Send + 'static) -> Self {
        let (reads, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, told) = (Arc::clone(&reads), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            let mut rounds = Vec::new();
            while !told.load(Ordering::SeqCst) {
                let Some(round) = look() else { continue };
                if rounds.last() != Some(&round) {
                    rounds.push(round);
                }
                counted.fetch_add(1, Ordering::SeqCst);
                // So that the run gets on.
                std::thread::sleep(Duration::from_micros(500));
            }
            rounds
        });
        Self { reads, is_over, thread }
    }

    fn end(self, rounds: i32) {
        self.is_over.store(true, Ordering::SeqCst);
        let seen = self.thread.join().unwrap();
        println!("{} reads, {rounds} rounds, of which {} were seen", self.reads.load(Ordering::SeqCst), seen.len());
        assert!(seen.is_sorted(), "{seen:?}");
    }
}

/// A run that brings nothing, and a stream, and a run after it; all three leave what they should.
async fn goes_on(world: &mut World, source: &Client, destination: &AnyDestination, shown: impl Fn() -> Vec<u64>) {
    let before = shown();
    run(world, destination.clone()).await;
    assert_eq!(shown(), before, "a run that has nothing to bring");
    let more = |rows: u64| vec![before[0] + rows, before[1]];
    source.batch_execute("UPDATE t SET round = round + 1").await.unwrap();
    world.settings.mode = SyncMode::Stream;
    let running = started(|| world.pipeline_into(destination.clone())).await.unwrap();
    caught_up(&running).await;
    stop(running).await;
    assert_eq!(shown(), more(ROWS as u64));
    world.settings.mode = SyncMode::Incremental;
    source.batch_execute("UPDATE t SET round = round + 1").await.unwrap();
    source.batch_execute("UPDATE t SET round = round + 1").await.unwrap();
    run(world, destination.clone()).await;
    assert_eq!(shown(), more(3 * ROWS as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_a_lake_sees_an_incremental_run_whole_or_not_at_all_a_thousand_times() {
    let (Some((mut world, client, _database)), Some(reader)) = (source().await, Reader::find_or_skip().await) else {
        return;
    };
    let place = world.data_dir().join("lake");
    let config = ParquetConfig::new(place.display().to_string());
    let parquet = Parquet::with_config(config, Arc::clone(&world.store), TableRules::default()).unwrap();
    let parquet = AnyDestination::new(parquet);
    run(&world, parquet.clone()).await;
    let shown = {
        let place = place.clone();
        move || logged_rows(&place, &["public.t", "public.bare"])
    };
    assert_eq!(shown(), Some(vec![ROWS as u64, 1]));
    let reading = Reading::begin({
        let shown = shown.clone();
        move || {
            // An update of a row without a key is two rows of the log.
            let (found, commits) = (shown()?, COMMITS as u64);
            let of_t = (found[0] - ROWS as u64) / (ROWS as u64 * commits);
            assert_eq!(found, [ROWS as u64 * (1 + of_t * commits), 1 + 2 * of_t * commits], "a part of a run is shown");
            Some(of_t as i32)
        }
    });
    let round = rounds(&world, &client, &reading.reads, || parquet.clone()).await;
    reading.end(round / 10);
    goes_on(&mut world, &client, &parquet, || shown().unwrap()).await;
    let left = || std::fs::read_dir(place.join(".etl/staged")).map_or(0, Iterator::count);
    assert_eq!(left(), 0, "nothing is left of what has waited");
    let files = place.join("public/t/log/*.parquet").display().to_string();
    let sql = format!("SELECT count(*), count(DISTINCT (id, round)), max(round) FROM read_parquet('{files}')");
    let rows = shown().unwrap()[0].to_string();
    let expected = [rows.clone(), rows, (round + 3).to_string()].map(Some);
    assert_eq!(query(&reader, &sql).await, [expected], "whoever goes by a glob finds all of it, once");
}

/// How many rows the complete files of a table have, of each round that they brought. A file never changes.
#[derive(Debug, Default)]
struct InFiles(HashMap<PathBuf, BTreeMap<i64, u64>>);

impl InFiles {
    fn of(&mut self, directory: &Path) -> BTreeMap<i64, u64> {
        let mut rounds = BTreeMap::new();
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "jsonl") {
                continue;
            }
            let found = self.0.entry(path).or_insert_with_key(|path| brought(&std::fs::read_to_string(path).unwrap()));
            found.iter().for_each(|(round, rows)| *rounds.entry(*round).or_default() += rows);
        }
        rounds
    }
}

/// The rounds of the lines that are no old rows.
fn brought(lines: &str) -> BTreeMap<i64, u64> {
    let mut rounds = BTreeMap::new();
    for line in lines.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        if row["_CHANGE_TYPE"] != "DELETE" {
            *rounds.entry(row["round"].as_i64().unwrap()).or_default() += 1;
        }
    }
    rounds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_files_sees_an_incremental_run_whole_or_not_at_all_a_thousand_times() {
    let Some((mut world, client, _database)) = source().await else { return };
    let root = world.data_dir().join("files");
    let config = FileConfig { max_age: Duration::from_millis(20), ..FileConfig::new(&root) };
    let files = Files::with_config(config, Arc::clone(&world.store), TableRules::default()).unwrap();
    let files = AnyDestination::new(files);
    run(&world, files.clone()).await;
    let reading = Reading::begin({
        let (mut found, root) = (InFiles::default(), root.clone());
        move || {
            let mut last = 0;
            for (table, rows) in [("t", ROWS as u64), ("bare", 1)] {
                let mut rounds = found.of(&root.join("public").join(table));
                assert_eq!(rounds.remove(&0), Some(rows), "what was copied");
                assert!(rounds.values().all(|found| *found == rows), "{table}: {rounds:?}");
                last = rounds.keys().last().copied().unwrap_or(0) as i32;
                assert_eq!(last % 10, 0, "a part of a run is shown");
                assert_eq!(rounds.len() as i32, last / 10 * COMMITS, "{table}: {rounds:?}");
            }
            Some(last)
        }
    });
    let round = rounds(&world, &client, &reading.reads, || files.clone()).await;
    reading.end(round / 10);
    let rows = |table: &str| InFiles::default().of(&root.join("public").join(table)).values().sum();
    let shown = || vec![rows("t"), rows("bare")];
    goes_on(&mut world, &client, &files, shown).await;

    // It is killed after the journal knows of the run, before the files have their names.
    let before = shown();
    drop(files);
    for table in ["t", "bare"] {
        let directory = root.join("public").join(table);
        for file in std::fs::read_dir(&directory).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            std::fs::rename(directory.join(&name), directory.join(format!(".{name}.part"))).unwrap();
        }
    }
    assert_eq!(shown(), [0, 0]);
    let config = FileConfig::new(&root);
    let again = Files::with_config(config, Arc::clone(&world.store), TableRules::default()).unwrap();
    run(&world, AnyDestination::new(again)).await;
    assert_eq!(shown(), before);
}
