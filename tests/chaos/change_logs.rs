//! Does a log of changes hold each change exactly once, however often the program is killed?

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use harness::change_log;
use harness::duckdb::Reader;
use harness::kill::Program;
use harness::postgres::{Database, client, database};
use harness::seed::{numbers, seed};
use rand::RngExt;
use tokio_postgres::Client;

/// Where the log is, and somebody else's eyes on it.
enum Place {
    Files(Reader, PathBuf),
    DuckDb(Reader, PathBuf),
    Postgres(Database),
}

/// A change of a table: the row's `id` and `n`, where it has one, and its place.
struct Logged {
    id: i64,
    n: Option<i64>,
    position: (u64, u64),
}

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

/// How often it is killed.
fn kills(place: &Place) -> usize {
    match place {
        Place::Files(..) => 50,
        _ if std::env::var_os("ETL_SOAK").is_some() => 50,
        _ => 15,
    }
}

async fn kill(program: &Program, times: usize) {
    let seed = seed(31);
    println!("kills from seed {seed}");
    let mut rng = numbers(seed, 3);
    for _ in 0..times {
        let mut running = program.start().unwrap();
        let life = Duration::from_millis(rng.random_range(80..900));
        if let Ok(status) = running.end(life).await {
            panic!("etl gave up: {status}\n{}", running.output());
        }
        running.kill().await;
    }
}

impl Place {
    /// The destination in the config, and its rules.
    fn config(&self) -> String {
        match self {
            Self::Files(_, path) => {
                format!("destination: {{ file: {{ path: {path:?}, max_bytes: 64KiB, max_age: 100ms }} }}")
            }
            Self::DuckDb(_, path) => {
                format!("destination: {{ duckdb: {{ path: {path:?} }} }}\ndefaults: {{ write_mode: append }}")
            }
            Self::Postgres(target) => {
                format!(
                    "destination: {{ postgres: {{ url: {:?} }} }}\ndefaults: {{ write_mode: append }}",
                    target.url()
                )
            }
        }
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
            Self::DuckDb(reader, path) => {
                let rows = reader.query(path, &query).await.unwrap();
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
    let mut running = Program::etl(["-c", &config, "run", "--until-caught-up"]).await.start().unwrap();
    let ended = running.end(Duration::from_secs(180)).await.unwrap();
    assert!(ended.success(), "{ended}\n{}", running.output());

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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_hold_each_change_exactly_once_after_fifty_kills() {
    let Some(reader) = Reader::find_or_skip().await else { return };
    let dir = tempfile::tempdir().unwrap();
    holds_each_change_once(Place::Files(reader, dir.path().join("files")), &dir).await;
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
