//! Does a reader of a real place see what was there before an incremental run, or all that it brings, and nothing between?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use etl::destination::AnyDestination;
use etl::pipeline::{Finished, SyncMode};
use etl_destinations::duckdb::{DuckDb, DuckDbConfig};
use etl_destinations::postgres::{Postgres, PostgresTargetConfig};
use etl_destinations::table_rules::TableRules;
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::modes_of_runs::ended;
use crate::running::{World, started};

const ROWS: i64 = 700;

/// How many transactions of the source a run brings, each of which is more than a batch.
const COMMITS: i32 = 8;

const READS: usize = 1000;

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
    while reads.load(Ordering::SeqCst) < READS {
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
