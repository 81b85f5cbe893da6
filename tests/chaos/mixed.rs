//! Do four destinations end as one source has it, each followed by a program of its own that is killed again and again? Rows
//! come, change, move and go, large values stay unsent, a table is emptied, a column is added.

mod depot;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use etl::store::{DeadLetterStore, OperationState, OperationStore, SqliteStore};
use harness::change_log::{self, Logged, fold};
use harness::compare::Pair;
use harness::contract::Server;
use harness::duckdb::Row;
use harness::kill::Program;
use harness::postgres::{Database, client, database};
use harness::seed::{numbers, seed};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_postgres::Client;

use self::depot::{Depot, PROFILE};
use crate::site::{Site, slots};

const TABLES: &str = "
CREATE TABLE lines (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, words text NOT NULL);
INSERT INTO lines (words) SELECT 'copied ' || g FROM generate_series(1, 500) g;
CREATE TABLE stock (id int PRIMARY KEY, n int NOT NULL, words text NOT NULL);
ALTER TABLE stock ALTER words SET STORAGE EXTERNAL;
INSERT INTO stock SELECT g, 0, repeat(md5(g::text), 100) FROM generate_series(1, 200) g;
CREATE TABLE scratch (id int PRIMARY KEY, n int NOT NULL);
CREATE PUBLICATION p FOR TABLE lines, stock, scratch";

/// Each table, its columns in the end, and its key.
const COLUMNS: [(&str, &[&str]); 3] =
    [("lines", &["id", "words"]), ("stock", &["id", "n", "words", "note"]), ("scratch", &["id", "n"])];

/// How long it goes on, and how long a program lives.
fn times() -> (Duration, Range<u64>) {
    match std::env::var_os("ETL_SOAK") {
        Some(_) => (Duration::from_secs(600), 5_000..20_000),
        None => (Duration::from_secs(15), 700..3_000),
    }
}

/// One transaction.
fn transaction(rng: &mut StdRng, has_note: bool) -> String {
    let mut sql = "BEGIN;\n".to_owned();
    for _ in 0..rng.random_range(1..6) {
        let (one, other): (u32, u32) = (rng.random_range(0..20), rng.random());
        let statement = match rng.random_range(0..100) {
            0..30 => format!("INSERT INTO lines (words) VALUES ('good {other}'), ('good too')"),
            30..34 => format!("INSERT INTO lines (words) VALUES ('bad {other}')"),
            34..50 => format!("UPDATE stock SET n = n + 1 WHERE id % 20 = {one}"),
            50..58 => format!("UPDATE stock SET words = repeat(md5('{other}'), 100) WHERE id % 20 = {one}"),
            58..66 => format!("DELETE FROM stock WHERE id IN (SELECT id FROM stock ORDER BY id OFFSET {one} LIMIT 1)"),
            66..78 => format!(
                "INSERT INTO stock (id, n, words) SELECT max(id) + 1, {one}, repeat(md5('{other}'), 100) FROM stock"
            ),
            78..84 => "UPDATE stock SET id = (SELECT max(id) + 1 FROM stock) WHERE id = (SELECT min(id) FROM stock)"
                .to_owned(),
            84..96 => {
                format!("INSERT INTO scratch VALUES ({one}, {one}) ON CONFLICT (id) DO UPDATE SET n = scratch.n + 1")
            }
            96..97 => "TRUNCATE scratch".to_owned(),
            _ if has_note => format!("UPDATE stock SET note = 'noted {other}' WHERE id % 20 = {one}"),
            _ => "DELETE FROM scratch WHERE n > 50".to_owned(),
        };
        sql.push_str(&format!("{statement};\n"));
    }
    sql + "COMMIT"
}

/// Changes the source for so long; half-way a column is added.
async fn work(client: &Client, seed: u64, lasts: Duration) -> u64 {
    let (mut rng, began, mut has_note, mut done) = (numbers(seed, 0), Instant::now(), false, 0);
    while began.elapsed() < lasts {
        if !has_note && began.elapsed() > lasts / 2 {
            client.batch_execute("ALTER TABLE stock ADD COLUMN note text").await.unwrap();
            has_note = true;
        }
        client.batch_execute(&transaction(&mut rng, has_note)).await.unwrap();
        done += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    done
}

/// Starts and kills the program again and again until the work is done; says how often.
async fn kill(program: &Program, mut rng: StdRng, lives: Range<u64>, mut is_done: watch::Receiver<bool>) -> u32 {
    for kills in 0.. {
        let mut running = program.start().unwrap();
        let life = Duration::from_millis(rng.random_range(lives.clone()));
        tokio::select! {
            biased;
            _ = is_done.wait_for(|done| *done) => {
                running.kill().await;
                return kills;
            }
            ended = running.end(life) => if let Ok(status) = ended {
                panic!("etl gave up: {status}\n{}", running.output());
            },
        }
        running.kill().await;
    }
    unreachable!("it is killed until the work is done")
}

/// A source and what follows it.
struct Scene {
    source: Database,
    duckdb: Site,
    postgres: Site,
    target: Database,
    files: Site,
    later: Site,
    depot: Server<Depot>,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Option<Self> {
        let (source, target) = (database().await?, database().await?);
        source.client().await.batch_execute(TABLES).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let depot = Server::start(Depot::default(), &dir.path().join("depot")).await.unwrap();
        let profile = dir.path().join("depot.toml");
        std::fs::write(&profile, PROFILE).unwrap();
        let url = source.url();
        let to_files = |file: std::path::PathBuf| {
            let path = file.with_file_name("log");
            format!("file: {{ path: {path:?}, max_bytes: 64KiB, max_age: 200ms }}")
        };
        let to_depot = |_| {
            format!(
                "profile: {{ path: {profile:?}, settings: {{ base: {:?} }} }}
defaults: {{ write_mode: append }}",
                depot.url()
            )
        };
        let to_postgres = |_| format!("postgres: {{ url: {:?} }}", target.url());
        Some(Self {
            duckdb: Site::new(&url).await?,
            postgres: Site::into_destination(&url, "ack: destination", "{}", to_postgres).await?,
            files: Site::into_destination(&url, "ack: destination", "{}", to_files).await?,
            later: Site::into_destination(&url, "dead_letters: { max_percent: 100 }", "{}", to_depot).await?,
            source,
            target,
            depot,
            _dir: dir,
        })
    }

    fn sites(&self) -> [&Site; 4] {
        [&self.duckdb, &self.postgres, &self.files, &self.later]
    }

    async fn catch_up(&self) {
        let [a, b, c, d] = self.sites();
        tokio::join!(a.catch_up(), b.catch_up(), c.catch_up(), d.catch_up());
    }

    /// The rows of a table, as the server writes them, in the order of their keys.
    async fn rows(&self, client: &Client, table: &str, columns: &[&str]) -> Vec<Row> {
        let texts: Vec<String> = columns.iter().map(|name| format!("{name}::text")).collect();
        let sql = format!("SELECT {} FROM public.{table} ORDER BY id", texts.join(", "));
        let rows = client.query(&sql, &[]).await.unwrap();
        rows.iter().map(|row| (0..columns.len()).map(|place| row.get(place)).collect()).collect()
    }

    /// What was refused for good: the ids of lines.
    async fn refused(&self) -> Vec<String> {
        let store = SqliteStore::open(&self.later.data_dir()).await.unwrap();
        for operation in store.operations().await.unwrap() {
            let OperationState::Settled { accounting, .. } = operation.state else { panic!("{operation:?}") };
            assert_eq!(accounting.unattributed, 0, "the depot speaks for every row");
        }
        let letters = store.dead_letters(None, None, u32::MAX).await.unwrap();
        assert!(letters.iter().all(|letter| letter.row["words"].as_str().unwrap().starts_with("bad")), "{letters:?}");
        letters.into_iter().map(|letter| letter.key.unwrap()[0].clone()).collect()
    }

    async fn assert_equal(&self) {
        let (client, target) = (self.source.client().await, self.target.client().await);
        let refused = self.refused().await;
        for (table, columns) in COLUMNS {
            let expected = self.rows(&client, table, columns).await;
            let pair = Pair::new(format!("public.{table}"), format!("public.{table}"));
            let compared = pair.compare(&client, &self.duckdb.reader, &self.duckdb.file()).await;
            compared.unwrap_or_else(|different| panic!("{table} in DuckDB: {different}"));
            assert_eq!(self.rows(&target, table, columns).await, expected, "{table} in Postgres");
            let directory = self.files.file_dir().join("log/public").join(table);
            let log = change_log::read(&self.files.reader, &directory, "").await.unwrap().unwrap();
            assert_eq!(sorted(fold(log, &["id"], columns)), sorted(expected.clone()), "{table} in files");
            let mut taken = expected;
            taken.retain(|row| table != "lines" || !refused.contains(row[0].as_ref().unwrap()));
            let mut whole = self.depot.look(|depot| depot.log(table));
            assert_once(table, &whole);
            // A table that got a column is copied again, over what the depot has of it: of a copy that was cut short, too.
            let mut log = whole.split_off(self.depot.look(|depot| depot.last_copy(table)));
            let copied = log.iter().filter(|row| row.change_type == "UPSERT").map(|row| row.position.0).max();
            log.retain(|row| copied.is_none_or(|copied| row.position.0 >= copied));
            assert_eq!(sorted(fold(log, &["id"], columns)), sorted(taken.clone()), "{table} at the depot");
            println!("{table}: {} rows", taken.len());
        }
        let bad =
            client.query("SELECT id::text FROM lines WHERE words LIKE 'bad%' ORDER BY lines.id", &[]).await.unwrap();
        let mut found = refused;
        found.sort_by_key(|id| id.parse::<u64>().unwrap());
        assert_eq!(found, bad.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), "each is kept, once");
        assert_eq!(slots(&client).await, 4, "one slot each, whatever happened");
        println!("{} lines were refused", found.len());
    }
}

/// Of a system that knows our names: no change is there twice.
fn assert_once(table: &str, log: &[Logged]) {
    let mut places: BTreeMap<(u64, u64), u32> = BTreeMap::new();
    log.iter().filter(|row| row.position.1 > 0).for_each(|row| *places.entry(row.position).or_default() += 1);
    let twice: Vec<_> = places.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{table}: {twice:?}");
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_destinations_end_as_the_source_while_each_is_killed() {
    let Some(scene) = Scene::new().await else { return };
    scene.catch_up().await;
    let (seed, (lasts, lives)) = (seed(45), times());
    println!("kills from seed {seed}");
    let (done, is_done) = watch::channel(false);
    let writer = client(&scene.source.url()).await;
    let working = async {
        let transactions = work(&writer, seed, lasts).await;
        done.send_replace(true);
        transactions
    };
    let killing = scene.sites().into_iter().zip(1..);
    let killing = killing.map(|(site, part)| kill(&site.program, numbers(seed, part), lives.clone(), is_done.clone()));
    let (transactions, kills) = tokio::join!(working, futures_util::future::join_all(killing));
    println!("{transactions} transactions, {kills:?} kills");
    assert!(kills.iter().all(|kills| *kills > 1), "{kills:?}");
    scene.catch_up().await;
    scene.assert_equal().await;
}
