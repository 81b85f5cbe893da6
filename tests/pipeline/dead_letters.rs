//! Do rows that a destination cannot hold become dead letters where that is wanted, and only then, and only a few?

use std::path::PathBuf;
use std::sync::Arc;

use etl::destination::{AnyDestination, Destination, Replayed};
use etl::pipeline::RunningPipeline;
use etl::store::DeadLetter;
use etl_destinations::dead_rows::DeadLetterRules;
use etl_destinations::duckdb::{DuckDb, DuckDbConfig};
use etl_destinations::postgres::{Postgres, PostgresTargetConfig};
use etl_destinations::table_rules::{RuleSettings, TableRules};
use harness::duckdb::Reader;
use harness::postgres::{Database, database};
use serde_json::json;
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};

/// One of forty rows is not a number, which no decimal of DuckDB can hold; the text of each is masked.
const TABLES: &str = "
CREATE TABLE t (id int PRIMARY KEY, price numeric(5, 2));
CREATE TABLE log (price numeric(5, 2));
INSERT INTO t SELECT n, CASE WHEN n = 7 THEN 'NaN' ELSE '1.50' END::numeric FROM generate_series(1, 40) n;
INSERT INTO log SELECT price FROM t;
CREATE PUBLICATION p FOR TABLE t, log";

struct Scene {
    world: World,
    client: Client,
    reader: Reader,
    dead_letters: Option<DeadLetterRules>,
    _database: Database,
}

impl Scene {
    async fn new(dead_letters: Option<DeadLetterRules>) -> Option<Self> {
        let (reader, database) = (Reader::find_or_skip().await?, database().await?);
        let client = database.client().await;
        client.batch_execute(TABLES).await.unwrap();
        let world = World::new(database.name(), &database.url());
        Some(Self { world, client, reader, dead_letters, _database: database })
    }

    fn file(&self) -> PathBuf {
        self.world.data_dir().join("dead.duckdb")
    }

    fn duckdb(&self) -> AnyDestination {
        let defaults = RuleSettings { dead_letters: self.dead_letters, ..RuleSettings::default() };
        let (config, store) = (DuckDbConfig::new(self.file()), Arc::clone(&self.world.store));
        let duckdb = DuckDb::with_config(config, store, TableRules { defaults, rules: Vec::new() });
        AnyDestination::new(duckdb)
    }

    async fn start(&self) -> RunningPipeline {
        self.world.start_into(self.duckdb()).await
    }

    async fn count(&self, table: &str) -> String {
        let rows = self.reader.query(&self.file(), &format!("SELECT count(*) FROM public.{table}")).await.unwrap();
        rows[0][0].clone().unwrap()
    }

    async fn letters(&self) -> Vec<DeadLetter> {
        self.world.store.dead_letters(None, None, 100).await.unwrap()
    }
}

/// Waits until a table is in quarantine.
async fn is_quarantined(running: &RunningPipeline, table: &str) {
    let handle = running.handle();
    let waits = async {
        while !handle.status().tables.iter().any(|of| &*of.name.name == table && of.phase == "quarantined") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(120), waits).await.expect("it goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_duckdb_cannot_hold_becomes_a_dead_letter_and_the_rest_is_written() {
    let Some(scene) = Scene::new(Some(DeadLetterRules::default())).await else { return };
    let running = scene.start().await;
    caught_up(&running).await;
    let copied = scene.letters().await;
    assert_eq!(copied.len(), 2, "one of each table: {copied:#?}");
    let of_t = copied.iter().find(|letter| letter.key.is_some()).unwrap();
    assert_eq!((&of_t.row, &*of_t.code), (&json!({ "id": "7", "price": "NaN" }), "value"));
    assert!(of_t.reason.contains("price") && of_t.reason.contains("numeric(5,2)"), "{}", of_t.reason);

    let sql = "
        BEGIN; INSERT INTO t SELECT n, 2 FROM generate_series(100, 140) n; UPDATE t SET price = 'NaN' WHERE id = 105;
        INSERT INTO log SELECT 2 FROM generate_series(1, 20); INSERT INTO log VALUES ('NaN'); COMMIT;
        UPDATE t SET price = 3 WHERE id = 7";
    scene.client.batch_execute(sql).await.unwrap();
    caught_up(&running).await;
    stop(running).await;
    assert_eq!(scene.letters().await.len(), 4, "{:#?}", scene.letters().await);
    assert_eq!(scene.count("t").await, "80", "40 + 41 without the new row that is bad; the other was made good");
    assert_eq!(scene.count("log").await, "59");

    // The row that was made good has overtaken its letter; that of the log has no newer version.
    let duckdb = scene.duckdb();
    let replayed = duckdb.replay(scene.letters().await).await.unwrap_err();
    assert!(replayed.to_string().contains("price"), "{replayed}");
    let mut letters = scene.letters().await;
    assert!(letters.iter().all(|letter| letter.key.as_ref().is_none_or(|key| key[0] != "7")), "{letters:#?}");
    assert_eq!(letters.len(), 3, "what is still refused stays");
    // Somebody puts the rows right.
    letters.iter_mut().for_each(|letter| letter.row["price"] = json!("7.50"));
    scene.world.store.put_dead_letters(letters).await.unwrap();
    let replayed = duckdb.replay(scene.letters().await).await.unwrap();
    assert_eq!(replayed, Replayed { delivered: 3, overtaken: 0, left: 0 });
    assert_eq!(duckdb.replay(scene.letters().await).await.unwrap(), Replayed::default(), "none is left");
    duckdb.shutdown().await.unwrap();
    drop(duckdb);
    assert_eq!((scene.count("t").await, scene.count("log").await), ("81".to_owned(), "61".to_owned()));
    let quarantined = scene.world.store.table_states().await.unwrap();
    assert!(quarantined.iter().all(|(_, state)| state.phase.name() == "ready"), "{quarantined:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_budget_and_where_nobody_asked_for_it_the_table_is_held_and_no_row_becomes_a_dead_letter() {
    for rules in [None, Some(DeadLetterRules::default())] {
        let Some(scene) = Scene::new(rules).await else { return };
        if rules.is_some() {
            scene.client.batch_execute("UPDATE t SET price = 'NaN' WHERE id % 5 = 0").await.unwrap();
        }
        let running = scene.start().await;
        is_quarantined(&running, "t").await;
        drop(running);
        let letters = scene.letters().await;
        let of_t = letters.iter().filter(|letter| letter.key.is_some()).count();
        assert_eq!((of_t, rules.is_some() || letters.is_empty()), (0, true), "{letters:?}");
    }
}

/// Rules that the target has of its own: nobody but its server knows which rows break them.
const RULES: &str = "
ALTER TABLE public.t ADD CHECK (price < 100) NOT VALID;
ALTER TABLE public.log ADD CONSTRAINT cheap CHECK (price < 100) NOT VALID;
CREATE UNIQUE INDEX ON public.t (price) WHERE price > 50";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_only_the_target_itself_refuses_become_dead_letters_each_by_itself() {
    let (Some(source), Some(target)) = (database().await, database().await) else { return };
    let (client, at_target) = (source.client().await, target.client().await);
    client.batch_execute(TABLES).await.unwrap();
    let world = World::new(source.name(), &source.url());
    let defaults = RuleSettings { dead_letters: Some(DeadLetterRules::default()), ..RuleSettings::default() };
    let rules = TableRules { defaults, rules: Vec::new() };
    let config = PostgresTargetConfig::new(target.url());
    let postgres = Postgres::with_config(config, Arc::clone(&world.store), rules).unwrap();
    let running = world.start_into(AnyDestination::new(postgres)).await;
    caught_up(&running).await;
    at_target.batch_execute(RULES).await.unwrap();

    // Both tables have a row that is refused, in one transaction; a second row of one value is refused beside the first.
    let sql = "
        BEGIN; INSERT INTO t SELECT n, 2 FROM generate_series(100, 140) n; UPDATE t SET price = 500 WHERE id = 105;
        INSERT INTO log SELECT 2 FROM generate_series(1, 20); INSERT INTO log VALUES (700); COMMIT;
        BEGIN; INSERT INTO t SELECT n, 3 FROM generate_series(200, 240) n; INSERT INTO t VALUES (300, 60), (301, 60); COMMIT";
    client.batch_execute(sql).await.unwrap();
    caught_up(&running).await;
    let letters = || async { world.store.dead_letters(None, None, 100).await.unwrap() };
    let mut found: Vec<String> =
        letters().await.iter().map(|letter| format!("{} {}", letter.code, letter.row)).collect();
    found.sort();
    let expected = [
        r#"rejected {"id":"105","price":"500.00"}"#,
        r#"rejected {"id":"301","price":"60.00"}"#,
        r#"rejected {"price":"700.00"}"#,
    ];
    assert_eq!(found, expected);
    let reasons: Vec<String> = letters().await.into_iter().map(|letter| letter.reason).collect();
    assert!(reasons.iter().any(|reason| reason.contains("check constraint")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("unique constraint")), "{reasons:?}");
    let count = async |sql: &str| at_target.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(count("SELECT count(*) FROM t").await, 40 + 40 + 42);
    assert_eq!(count("SELECT count(*) FROM log").await, 40 + 20);

    // Copied rows as well.
    let table = letters().await.iter().find(|letter| letter.key.is_some()).unwrap().table;
    running.handle().resync(table).await.unwrap();
    caught_up(&running).await;
    assert_eq!(count("SELECT count(*) FROM t").await, 40 + 40 + 42 - 1, "the number that is none is refused by now");
    assert!(letters().await.iter().any(|letter| letter.row["id"] == "105" && letter.change_type.as_ref() == "UPSERT"));
    stop(running).await;
    let states = world.store.table_states().await.unwrap();
    assert!(states.iter().all(|(_, state)| state.phase.name() == "ready"), "{states:?}");
}
