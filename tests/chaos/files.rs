//! Do the files together hold each change exactly once, however often the program is killed?

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use harness::change_log::{Logged, read};
use harness::duckdb::Reader;
use harness::kill::Program;
use harness::postgres::{client, database};
use harness::seed::{numbers, seed};
use rand::RngExt;
use tokio_postgres::Client;

const KILLS: usize = 50;

/// A log of lines whose numbers say whether one is missing or there twice, and counters whose values do.
const TABLES: &str = "
CREATE TABLE lines (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, words text NOT NULL);
CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL);
INSERT INTO lines (words) SELECT repeat('copied ', 20) FROM generate_series(1, 2000);
INSERT INTO counters SELECT g, 0 FROM generate_series(1, 20) g;
CREATE PUBLICATION p FOR TABLE lines, counters";

const TRANSACTION: &str = "
INSERT INTO lines (words) SELECT 'streamed' FROM generate_series(1, 5);
UPDATE counters SET n = n + 1 WHERE id = 1 + (random() * 19)::int;";

async fn write(client: &Client) -> std::convert::Infallible {
    loop {
        client.batch_execute(TRANSACTION).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn kill(program: &Program) {
    let seed = seed(31);
    println!("kills from seed {seed}");
    let mut rng = numbers(seed, 3);
    for _ in 0..KILLS {
        let mut running = program.start().unwrap();
        let life = Duration::from_millis(rng.random_range(80..900));
        if let Ok(status) = running.end(life).await {
            panic!("etl gave up: {status}\n{}", running.output());
        }
        running.kill().await;
    }
}

async fn log(reader: &Reader, files: &Path, table: &str) -> Vec<Logged> {
    let log = read(reader, &files.join("public").join(table), "").await.unwrap().expect("the table's directory");
    let mut places = BTreeSet::new();
    for logged in log.iter().filter(|logged| logged.position.1 > 0) {
        assert!(places.insert(logged.position), "{table}: a change is there twice: {logged:?}");
    }
    log
}

fn number(logged: &Logged, column: &str) -> i64 {
    logged.values[column].as_deref().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_hold_each_change_exactly_once_after_fifty_kills() {
    let (Some(database), Some(reader)) = (database().await, Reader::find_or_skip().await) else { return };
    let source = database.client().await;
    source.batch_execute(TABLES).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (config, files) = (dir.path().join("etl.yaml"), dir.path().join("files"));
    let text = format!(
        "pipeline: {{ id: files, data_dir: {:?}, batch: {{ max_age: 20ms }}, copy: {{ chunk_bytes: 64KiB }} }}
source: {{ postgres: {{ url: {:?}, publication: p }} }}
destination: {{ file: {{ path: {files:?}, max_bytes: 64KiB, max_age: 100ms }} }}
",
        dir.path().join("data"),
        database.url(),
    );
    std::fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    let program = Program::etl(["-c", &config, "run"]).await;
    let writer = client(&database.url()).await;
    tokio::select! {
        () = kill(&program) => {}
        never = write(&writer) => match never {},
    }
    let mut running = Program::etl(["-c", &config, "run", "--until-caught-up"]).await.start().unwrap();
    let ended = running.end(Duration::from_secs(180)).await.unwrap();
    assert!(ended.success(), "{ended}\n{}", running.output());

    let lines = log(&reader, &files, "lines").await;
    let rows = source.query("SELECT id FROM lines ORDER BY id", &[]).await.unwrap();
    let expected: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let mut found: Vec<i64> = lines.iter().map(|logged| number(logged, "id")).collect();
    found.sort_unstable();
    assert_eq!(found, expected, "each line once");
    let mut counters: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    let mut log = log(&reader, &files, "counters").await;
    log.sort_by_key(|logged| logged.position);
    log.iter().for_each(|logged| counters.entry(number(logged, "id")).or_default().push(number(logged, "n")));
    for row in source.query("SELECT id, n FROM counters", &[]).await.unwrap() {
        let (id, n): (i32, i32) = (row.get(0), row.get(1));
        let values = &counters[&i64::from(id)];
        let expected: Vec<i64> = (values[0]..=i64::from(n)).collect();
        assert_eq!(*values, expected, "counter {id}: every value from the copied one on, once");
    }
    println!("{} lines and {} values of counters, each once", found.len(), log.len());
}
