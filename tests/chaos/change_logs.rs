//! Does a log of changes hold each change exactly once, and a current state what the source has, however often the program is
//! killed?

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use harness::change_log;
use harness::clickhouse::{self, clickhouse};
use harness::duckdb::{Reader, Row};
use harness::kill::Program;
use harness::parquet::{Stamped, Which, current, query, read};
use harness::postgres::{Database, client, database};
use harness::seed::{numbers, seed};
use rand::RngExt;
use tokio_postgres::Client;

/// Where the log is, and somebody else's eyes on it.
enum Place {
    Files(Reader, PathBuf),
    Parquet(Reader, PathBuf),
    DuckDb(Reader, PathBuf),
    Postgres(Database),
    ClickHouse(clickhouse::ClickHouse),
}

/// A change of a table: the row's `id` and `n`, where it has one, and its place.
struct Logged {
    id: i64,
    n: Option<i64>,
    position: (u64, u64),
}

/// A log of lines whose numbers say whether one is missing or there twice, and counters whose values do; and a stock of which
/// the current state is kept, where that can be.
const TABLES: &str = "
CREATE TABLE lines (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, words text NOT NULL);
CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL);
INSERT INTO lines (words) SELECT repeat('copied ', 20) FROM generate_series(1, 2000);
INSERT INTO counters SELECT g, 0 FROM generate_series(1, 20) g;
CREATE TABLE stock (id int PRIMARY KEY, n int NOT NULL, words text NOT NULL);
ALTER TABLE stock ALTER words SET STORAGE EXTERNAL;
INSERT INTO stock SELECT g, 0, repeat(md5(g::text), 100) FROM generate_series(1, 100) g;
CREATE PUBLICATION p FOR TABLE lines, counters, stock";

const TRANSACTION: &str = "
INSERT INTO lines (words) SELECT 'streamed' FROM generate_series(1, 5);
UPDATE counters SET n = n + 1 WHERE id = 1 + (random() * 19)::int;
UPDATE stock SET n = n + 1 WHERE id % 10 = (random() * 9)::int;
DELETE FROM stock WHERE id = (SELECT id FROM stock ORDER BY random() LIMIT 1);
INSERT INTO stock SELECT max(id) + 1, 1, repeat('new ', 800) FROM stock;
UPDATE stock SET id = (SELECT max(id) + 1 FROM stock) WHERE id = (SELECT min(id) FROM stock) AND random() < 0.005;";

/// What everybody has to say of the stock, in the same words.
const STOCK: &str = "SELECT CAST(id AS VARCHAR) AS key, CAST(n AS VARCHAR) AS count, md5(words) AS digest FROM";

/// Of the stock the state is kept, of the others the log.
const LOGS: &str = "defaults: { write_mode: append }\ntables: [{ match: public.stock, write_mode: upsert }]";

async fn write(client: &Client) -> std::convert::Infallible {
    loop {
        client.batch_execute(TRANSACTION).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How often it is killed.
fn kills(place: &Place) -> usize {
    match place {
        Place::Files(..) => 50,
        _ if is_soak() => 50,
        _ => 15,
    }
}

/// Whether what takes longer is wanted.
fn is_soak() -> bool {
    std::env::var_os("ETL_SOAK").is_some()
}

/// The first third of the kills is while it copies, the others are while it follows.
async fn kill(program: &Program, times: usize) {
    let seed = seed(31);
    println!("kills from seed {seed}");
    let mut rng = numbers(seed, 3);
    for kills in 0..times {
        if kills == times / 3 {
            catch_up(program).await;
        }
        let mut running = program.start().unwrap();
        if kills >= times / 3 {
            running.line("progress", Duration::from_secs(120)).await.unwrap();
        }
        let life = Duration::from_millis(rng.random_range(80..900));
        if let Ok(status) = running.end(life).await {
            panic!("etl gave up: {status}\n{}", running.output());
        }
        running.kill().await;
    }
}

/// Runs until everything is there, and ends.
async fn catch_up(program: &Program) {
    let mut running = program.clone().argument("--until-caught-up").start().unwrap();
    let ended = running.end(Duration::from_secs(180)).await.unwrap();
    assert!(ended.success(), "{ended}\n{}", running.output());
}

impl Place {
    /// The destination in the config, and its rules.
    fn config(&self) -> String {
        match self {
            Self::Files(_, path) => {
                format!("destination: {{ file: {{ path: {path:?}, max_bytes: 64KiB, max_age: 100ms }} }}")
            }
            Self::Parquet(_, path) => {
                let compact = "{ every: 70ms, at_end: true }";
                format!(
                    "destination: {{ parquet: {{ location: {path:?}, merge_every: 50ms, compact: {compact} }} }}\n\
                     defaults: {{ write_mode: upsert }}"
                )
            }
            Self::DuckDb(_, path) => {
                format!("destination: {{ duckdb: {{ path: {path:?} }} }}\n{LOGS}")
            }
            Self::Postgres(target) => {
                format!("destination: {{ postgres: {{ url: {:?} }} }}\n{LOGS}", target.url())
            }
            Self::ClickHouse(place) => {
                format!(
                    "destination: {{ clickhouse: {{ url: {:?}, database_prefix: {:?} }} }}\n{LOGS}",
                    place.url(),
                    place.prefix()
                )
            }
        }
    }

    /// The stock, where it is more than a log.
    async fn stock(&self) -> Option<Vec<Row>> {
        let ordered = |from: &str| format!("{STOCK} {from} ORDER BY id");
        Some(match self {
            Self::Files(..) => return None,
            Self::ClickHouse(place) => {
                let sql = format!(
                    "SELECT toString(id), toString(n), lower(hex(MD5(words))) FROM {}public.stock_current ORDER BY id",
                    place.prefix()
                );
                place.query(&sql).await.unwrap()
            }
            Self::Parquet(reader, path) => query(reader, &ordered(&current(path, "public", "stock"))).await,
            Self::DuckDb(reader, path) => reader.query(path, &ordered("public.stock")).await.unwrap(),
            Self::Postgres(target) => stock(&target.client().await).await,
        })
    }

    /// All changes of a table, of which none that was streamed has the place of another.
    async fn log(&self, table: &str) -> Vec<Logged> {
        let n = if table == "counters" { "n" } else { "NULL" };
        let query = format!("SELECT id::text, {n}::text, \"_LSN\"::text, \"_ORDINAL\"::text FROM public.{table}");
        let rows: Vec<[Option<String>; 4]> = match self {
            Self::Files(reader, path) => {
                let log = change_log::read(reader, &path.join("public").join(table), "").await.unwrap();
                let row = |logged: change_log::Logged| {
                    let value = |name: &str| logged.values.get(name).cloned().flatten();
                    let (lsn, ordinal) = logged.position;
                    [value("id"), value("n"), Some(lsn.to_string()), Some(ordinal.to_string())]
                };
                log.expect("the table's directory").into_iter().map(row).collect()
            }
            Self::Parquet(reader, path) => {
                let columns = ["id", "n"].map(|name| (name.to_owned(), format!("{name}::VARCHAR")));
                let log = read(reader, path, &format!("public.{table}"), Which::Log, &columns).await.unwrap();
                let row = |logged: Stamped| {
                    let (lsn, ordinal) = logged.position;
                    let value = |place: usize| logged.values[place].clone();
                    [value(0), value(1), Some(lsn.to_string()), Some(ordinal.to_string())]
                };
                log.expect("the table").into_iter().map(row).collect()
            }
            Self::DuckDb(reader, path) => {
                let rows = reader.query(path, &query).await.unwrap();
                rows.into_iter().map(|row| row.try_into().unwrap()).collect()
            }
            Self::ClickHouse(place) => {
                let sql = format!(
                    "SELECT toString(id), toString({n}), toString(_LSN), toString(_ORDINAL) FROM {}public.{table}",
                    place.prefix()
                );
                let rows = place.query(&sql).await.unwrap();
                rows.into_iter().map(|row| row.try_into().unwrap()).collect()
            }
            Self::Postgres(target) => {
                let rows = target.client().await.query(&query, &[]).await.unwrap();
                rows.iter().map(|row| [0, 1, 2, 3].map(|place| row.get(place))).collect()
            }
        };
        let mut places = BTreeSet::new();
        let logged = |[id, n, lsn, ordinal]: [Option<String>; 4]| {
            let number = |text: &Option<String>| text.as_deref().unwrap().parse::<u64>().unwrap();
            let position = (number(&lsn), number(&ordinal));
            assert!(position.1 == 0 || places.insert(position), "{table}: a change is there twice: {position:?}");
            Logged { id: id.unwrap().parse().unwrap(), n: n.map(|n| n.parse().unwrap()), position }
        };
        rows.into_iter().map(logged).collect()
    }
}

async fn stock(client: &Client) -> Vec<Row> {
    let rows = client.query(&format!("{STOCK} public.stock ORDER BY id"), &[]).await.unwrap();
    rows.iter().map(|row| (0..3).map(|place| row.get(place)).collect()).collect()
}

async fn holds_each_change_once(place: Place, dir: &tempfile::TempDir) {
    let Some(database) = database().await else { return };
    let source = database.client().await;
    source.batch_execute(TABLES).await.unwrap();
    let config = dir.path().join("etl.yaml");
    let text = format!(
        "pipeline: {{ id: {}, data_dir: {:?}, batch: {{ max_age: 20ms }}, copy: {{ chunk_bytes: 64KiB }} }}
source: {{ postgres: {{ url: {:?}, publication: p }} }}
{}
",
        database.name(),
        dir.path().join("data"),
        database.url(),
        place.config(),
    );
    std::fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    let program = Program::etl(["-c", &config, "run"]).await;
    let writer = client(&database.url()).await;
    tokio::select! {
        () = kill(&program, kills(&place)) => {}
        never = write(&writer) => match never {},
    }
    // What it said last is done by now.
    writer.batch_execute("").await.unwrap();
    catch_up(&program).await;

    let lines = place.log("lines").await;
    let rows = source.query("SELECT id FROM lines ORDER BY id", &[]).await.unwrap();
    let expected: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let mut found: Vec<i64> = lines.iter().map(|logged| logged.id).collect();
    found.sort_unstable();
    assert_eq!(found, expected, "each line once");
    let mut counters: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    let mut log = place.log("counters").await;
    log.sort_by_key(|logged| logged.position);
    log.iter().for_each(|logged| counters.entry(logged.id).or_default().push(logged.n.unwrap()));
    for row in source.query("SELECT id, n FROM counters", &[]).await.unwrap() {
        let (id, n): (i32, i32) = (row.get(0), row.get(1));
        let values = &counters[&i64::from(id)];
        let expected: Vec<i64> = (values[0]..=i64::from(n)).collect();
        assert_eq!(*values, expected, "counter {id}: every value from the copied one on, once");
    }
    println!("{} lines and {} values of counters, each once", found.len(), log.len());
    if let Some(found) = place.stock().await {
        assert_eq!(found, stock(&source).await, "the stock");
        println!("{} rows of the stock, the same on both sides", found.len());
    }
    if let Place::Parquet(reader, path) = &place {
        for table in ["lines", "counters"] {
            let row = if table == "lines" { "id || words" } else { "id || ' ' || n" };
            let sum = |from: &str| {
                format!("SELECT count(*)::text, sum(id)::text, md5(string_agg({row}, '' ORDER BY id)) FROM {from}")
            };
            let row = source.query_one(&sum(table), &[]).await.unwrap();
            let expected: Vec<Option<String>> = (0..3).map(|place| row.get(place)).collect();
            assert_eq!(query(reader, &sum(&current(path, "public", table))).await, [expected], "{table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_hold_each_change_exactly_once_after_fifty_kills() {
    let Some(reader) = Reader::find_or_skip().await else { return };
    let dir = tempfile::tempdir().unwrap();
    holds_each_change_once(Place::Files(reader, dir.path().join("files")), &dir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_parquet_holds_each_change_exactly_once_after_kills() {
    let Some(reader) = Reader::find_or_skip().await else { return };
    let dir = tempfile::tempdir().unwrap();
    holds_each_change_once(Place::Parquet(reader, dir.path().join("lake")), &dir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_duckdb_holds_each_change_exactly_once_after_kills() {
    let Some(reader) = Reader::find_or_skip().await else { return };
    let dir = tempfile::tempdir().unwrap();
    holds_each_change_once(Place::DuckDb(reader, dir.path().join("log.duckdb")), &dir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_postgres_holds_each_change_exactly_once_after_kills() {
    let Some(target) = database().await else { return };
    let dir = tempfile::tempdir().unwrap();
    holds_each_change_once(Place::Postgres(target), &dir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_clickhouse_holds_each_change_exactly_once_after_kills() {
    let Some(place) = clickhouse().await else { return };
    let dir = tempfile::tempdir().unwrap();
    holds_each_change_once(Place::ClickHouse(place), &dir).await;
}
