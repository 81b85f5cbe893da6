//! What becomes of values that the destination cannot hold, and of columns that are given another type?

use std::path::PathBuf;
use std::sync::Arc;

use etl::destination::AnyDestination;
use etl::pipeline::RunningPipeline;
use etl::schema::TablePatterns;
use etl::transform::{ColumnChoice, ColumnType, OnValue, TableRename, Transform, TransformRule};
use etl_destinations::duckdb::{DuckDb, DuckDbConfig};
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use harness::duckdb::{Reader, Row};
use harness::postgres::{Database, database};
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};

const TABLES: &str = "
CREATE TABLE t (id int PRIMARY KEY, at timestamp, price numeric(5, 2), list int[], n numeric, big text);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
INSERT INTO t VALUES (1, '2026-01-01', 1.50, '{1,2}', 1.005, repeat('b', 5000)), (2, '294276-12-31', 'NaN', '[0:1]={1,2}', 1e20, 'x');
CREATE PUBLICATION p FOR TABLE t";

/// What is changed while the pipeline runs: what was held comes to be beyond, and back.
const CHANGES: &str = "
UPDATE t SET at = '294276-01-01', list = '{{1},{2}}' WHERE id = 1;
INSERT INTO t VALUES (3, 'infinity', 2, '{{3}}', NULL, NULL);
UPDATE t SET id = 4, n = -1e20 WHERE id = 2;
UPDATE t SET at = '2026-01-03', price = 'NaN', list = NULL WHERE id = 3";

struct Scene {
    world: World,
    client: Client,
    reader: Reader,
    mode: WriteMode,
    _database: Database,
}

impl Scene {
    async fn new(policy: OnValue, mode: WriteMode, columns: ColumnChoice) -> Option<Self> {
        let (reader, database) = (Reader::find_or_skip().await?, database().await?);
        let client = database.client().await;
        client.batch_execute(TABLES).await.unwrap();
        let mut world = World::new(database.name(), &database.url());
        let tables = TablePatterns::new(["public.t"]);
        let rule =
            TransformRule { tables, columns, rename: TableRename::default(), filter: None, on_value: None, copy: None };
        world.transform = Transform::new(vec![rule]).with_on_value(policy);
        Some(Self { world, client, reader, mode, _database: database })
    }

    fn file(&self) -> PathBuf {
        self.world.data_dir().join("misfits.duckdb")
    }

    async fn start(&self) -> RunningPipeline {
        let defaults = RuleSettings { write_mode: Some(self.mode), ..RuleSettings::default() };
        let (config, store) = (DuckDbConfig::new(self.file()), Arc::clone(&self.world.store));
        let duckdb = DuckDb::with_config(config, store, TableRules { defaults, rules: Vec::new() });
        self.world.start_into(AnyDestination::new(duckdb)).await
    }

    /// Copied, changed while it runs, and after another start.
    async fn run(&self) {
        let running = self.start().await;
        caught_up(&running).await;
        self.client.batch_execute(CHANGES).await.unwrap();
        caught_up(&running).await;
        stop(running).await;
        self.client.batch_execute("UPDATE t SET price = 7 WHERE id = 4").await.unwrap();
        let running = self.start().await;
        caught_up(&running).await;
        stop(running).await;
    }

    async fn query(&self, sql: &str) -> Vec<Row> {
        self.reader.query(&self.file(), sql).await.unwrap()
    }

    async fn lines(&self, columns: &str) -> Vec<String> {
        let rows = self.query(&format!("SELECT {columns} FROM public.t ORDER BY id")).await;
        let line =
            |row: Row| row.into_iter().map(|value| value.unwrap_or("-".to_owned())).collect::<Vec<_>>().join("|");
        rows.into_iter().map(line).collect()
    }
}

const SHOWN: &str = "id, CAST(\"at\" AS VARCHAR), CAST(price AS VARCHAR), CAST(list AS VARCHAR), n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_makes_of_values_that_do_not_fit_what_it_says() {
    // What has no nearest value would stop the table.
    let no_nan = [("price".to_owned(), OnValue::Null), ("list".to_owned(), OnValue::Null)];
    for (policy, of_columns, expected) in [
        (OnValue::Null, None, ["1|-|1.50|-|1.005", "3|2026-01-03 00:00:00|-|-|-", "4|-|7.00|-|-100000000000000000000"]),
        (
            OnValue::Clamp,
            Some(no_nan.into()),
            [
                "1|294247-01-10 04:00:54.775806|1.50|-|1.005",
                "3|2026-01-03 00:00:00|-|-|-",
                "4|294247-01-10 04:00:54.775806|7.00|-|-100000000000000000000",
            ],
        ),
        (
            OnValue::Text,
            None,
            [
                "1|294276-01-01 00:00:00|1.50|{{1},{2}}|1.005",
                "3|2026-01-03 00:00:00|NaN|-|-",
                "4|294276-12-31 00:00:00|7.00|[0:1]={1,2}|-100000000000000000000",
            ],
        ),
    ] {
        let columns = ColumnChoice { on_value: of_columns, ..ColumnChoice::default() };
        let Some(scene) = Scene::new(policy, WriteMode::Upsert, columns).await else { return };
        scene.run().await;
        assert_eq!(scene.lines(SHOWN).await, expected, "{policy:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_policy_a_value_that_does_not_fit_stops_its_table() {
    let Some(scene) = Scene::new(OnValue::Error, WriteMode::Upsert, ColumnChoice::default()).await else { return };
    let running = scene.start().await;
    let stopped = async {
        loop {
            let status = running.handle().status();
            if let Some(table) = status.tables.iter().find(|table| table.phase == "quarantined") {
                return format!("{table:?}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let said = tokio::time::timeout(std::time::Duration::from_secs(60), stopped).await.unwrap();
    assert!(said.contains("out of range") && said.contains("at"), "{said}");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_with_another_type_is_that_in_copy_and_stream() {
    let types = [("n", "numeric(9,2)"), ("id", "text"), ("list", "text"), ("at", "text")];
    let types = types.map(|(name, of)| (name.to_owned(), ColumnType::named(of).unwrap()));
    let on_value = Some([("price".to_owned(), OnValue::Null)].into());
    let columns = ColumnChoice { types: Some(types.into()), on_value, ..ColumnChoice::default() };
    let Some(scene) = Scene::new(OnValue::Clamp, WriteMode::Upsert, columns).await else { return };
    scene.run().await;
    let expected = [
        "1|294276-01-01 00:00:00|1.50|{{1},{2}}|1.01",
        "3|2026-01-03 00:00:00|-|-|-",
        "4|294276-12-31 00:00:00|7.00|[0:1]={1,2}|-9999999.99",
    ];
    assert_eq!(scene.lines(SHOWN).await, expected);
    let query = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 't' AND column_index IN (1, 5)";
    let types: Vec<Row> = scene.query(query).await;
    assert_eq!(types[1], [Some("n".to_owned()), Some("DECIMAL(9,2)".to_owned())]);
    assert_eq!(types[0][1].as_deref(), Some("VARCHAR"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_sent_is_null_in_a_log_that_may_have_it_so() {
    let Some(scene) = Scene::new(OnValue::Null, WriteMode::Append, ColumnChoice::default()).await else { return };
    let running = scene.start().await;
    caught_up(&running).await;
    scene
        .client
        .batch_execute("UPDATE t SET price = 3 WHERE id = 1; UPDATE t SET big = 'y' WHERE id = 1")
        .await
        .unwrap();
    caught_up(&running).await;
    stop(running).await;
    let sql = "SELECT price, length(big), \"_CHANGE_TYPE\" FROM public.t WHERE id = 1 ORDER BY \"_LSN\", \"_ORDINAL\"";
    let rows: Vec<String> = scene.query(sql).await.into_iter().map(|row| format!("{:?}", row)).collect();
    let line = |price: &str, length: Option<&str>, change: &str| format!("{:?}", [Some(price), length, Some(change)]);
    assert_eq!(
        rows,
        [line("1.50", Some("5000"), "UPSERT"), line("3.00", None, "UPDATE"), line("3.00", Some("1"), "UPDATE")]
    );
}
