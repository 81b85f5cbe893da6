//! Does `on_schema_change` hold for every kind of change, live and while nobody watched, as another reader sees the file?

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etl::destination::{AnyDestination, TextRow};
use etl::pipeline::{PipelineHandle, RunningPipeline};
use etl::schema::TableId;
use etl_destinations::duckdb::{DuckDb, DuckDbConfig};
use etl_destinations::postgres::{Postgres, PostgresTargetConfig};
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::OnSchemaChange;
use harness::duckdb::Reader;
use harness::postgres::{Database, database};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::running::{World, caught_up, stop};

/// A table of each name is altered so, and written to.
const CHANGES: &[(&str, &str, &str)] = &[
    ("same", "SELECT 1", "INSERT INTO same VALUES (2, 20, 'y')"),
    ("added", "ALTER TABLE added ADD COLUMN c text", "INSERT INTO added VALUES (2, 20, 'y', 'new')"),
    ("dropped", "ALTER TABLE dropped DROP COLUMN b", "INSERT INTO dropped VALUES (2, 20)"),
    ("renamed", "ALTER TABLE renamed RENAME a TO z", "INSERT INTO renamed VALUES (2, 20, 'y')"),
    ("longer", "ALTER TABLE longer ALTER b TYPE text", "INSERT INTO longer VALUES (2, 20, 'longer')"),
    ("wider", "ALTER TABLE wider ALTER a TYPE bigint", "INSERT INTO wider VALUES (2, 5000000000, 'y')"),
    ("narrower", "ALTER TABLE narrower ALTER a TYPE smallint", "INSERT INTO narrower VALUES (2, 20, 'y')"),
    (
        "keyed",
        "ALTER TABLE keyed DROP CONSTRAINT keyed_pkey, ADD PRIMARY KEY (a)",
        "UPDATE keyed SET id = 3, b = 'z' WHERE a = 10; INSERT INTO keyed VALUES (2, 20, 'y')",
    ),
    (
        "rewritten",
        "ALTER TABLE rewritten ADD COLUMN c float8 DEFAULT random() * 0",
        "INSERT INTO rewritten VALUES (2, 20, 'y', 1)",
    ),
];

/// What each table is then: its columns, its rows, and why it is in quarantine if it is.
type Expected = [(&'static str, &'static str, &'static str, &'static str)];

const OLD: &str = "id INTEGER, a INTEGER, b VARCHAR";
const BEFORE: &str = "1 10 x";
const BOTH: &str = "1 10 x; 2 20 y";

const APPLIED: &Expected = &[
    ("same", OLD, BOTH, ""),
    ("added", "id INTEGER, a INTEGER, b VARCHAR, c VARCHAR", "1 10 x -; 2 20 y new", ""),
    ("dropped", "id INTEGER, a INTEGER", "1 10; 2 20", ""),
    ("renamed", "id INTEGER, z INTEGER, b VARCHAR", BOTH, ""),
    ("longer", OLD, "1 10 x; 2 20 longer", ""),
    ("wider", "id INTEGER, a BIGINT, b VARCHAR", "1 10 x; 2 5000000000 y", ""),
    ("narrower", "id INTEGER, a SMALLINT, b VARCHAR", BOTH, ""),
    ("keyed", OLD, "2 20 y; 3 10 z", ""),
    ("rewritten", "id INTEGER, a INTEGER, b VARCHAR, c DOUBLE", "1 10 x 0.0; 2 20 y 1.0", ""),
];

const WIDENED: &Expected = &[
    ("same", OLD, BOTH, ""),
    ("added", "id INTEGER, a INTEGER, b VARCHAR, c VARCHAR", "1 10 x -; 2 20 y new", ""),
    ("dropped", OLD, "1 10 x; 2 20 -", ""),
    ("renamed", "id INTEGER, a INTEGER, b VARCHAR, z INTEGER", "1 10 x 10; 2 - y 20", ""),
    ("longer", OLD, "1 10 x; 2 20 longer", ""),
    ("wider", "id INTEGER, a BIGINT, b VARCHAR", "1 10 x; 2 5000000000 y", ""),
    ("narrower", OLD, BEFORE, "schema_changed"),
    ("keyed", OLD, BEFORE, "schema_changed"),
    ("rewritten", "id INTEGER, a INTEGER, b VARCHAR, c DOUBLE", "1 10 x 0.0; 2 20 y 1.0", ""),
];

const IGNORED: &Expected = &[
    ("same", OLD, BOTH, ""),
    ("added", OLD, BOTH, ""),
    ("dropped", OLD, "1 10 x; 2 20 -", ""),
    ("renamed", OLD, BOTH, ""),
    ("longer", OLD, "1 10 x; 2 20 longer", ""),
    // What it had is gone: the copy that has begun cannot end.
    ("wider", OLD, "", "value"),
    ("narrower", OLD, BOTH, ""),
    ("keyed", OLD, "2 20 y; 3 10 z", ""),
    ("rewritten", OLD, BOTH, ""),
];

const STOPPED: &Expected = &[
    ("same", OLD, BOTH, ""),
    ("added", OLD, BEFORE, "schema_changed"),
    ("dropped", OLD, BEFORE, "schema_changed"),
    ("renamed", OLD, BEFORE, "schema_changed"),
    ("longer", OLD, BEFORE, "schema_changed"),
    ("wider", OLD, BEFORE, "schema_changed"),
    ("narrower", OLD, BEFORE, "schema_changed"),
    ("keyed", OLD, BEFORE, "schema_changed"),
    ("rewritten", OLD, BEFORE, "schema_changed"),
];

/// What a new copy brings where the stream would have left what was there.
const COPIED: &[(&str, &str)] = &[("dropped", "1 10 -; 2 20 -"), ("renamed", "1 - x 10; 2 - y 20")];

fn copied(expected: &Expected, tables: &[&str]) -> Vec<(&'static str, &'static str, &'static str, &'static str)> {
    let rows = |name: &str, rows| {
        let copied = COPIED.iter().find(|(table, _)| *table == name && tables.contains(table));
        copied.map_or(rows, |(_, rows)| *rows)
    };
    expected.iter().map(|(name, columns, old, why)| (*name, *columns, rows(name, *old), *why)).collect()
}

/// Where the tables go, and who reads them there.
enum Target {
    Duck(Reader),
    Postgres(Database),
}

const OLD_OF_POSTGRES: &str = "id integer, a integer, b character varying(5)";

const WIDENED_IN_POSTGRES: &Expected = &[
    ("same", OLD_OF_POSTGRES, BOTH, ""),
    ("added", "id integer, a integer, b character varying(5), c text", "1 10 x -; 2 20 y new", ""),
    ("dropped", OLD_OF_POSTGRES, "1 10 x; 2 20 -", ""),
    ("renamed", "id integer, a integer, b character varying(5), z integer", "1 10 x 10; 2 - y 20", ""),
    ("longer", "id integer, a integer, b text", "1 10 x; 2 20 longer", ""),
    ("wider", "id integer, a bigint, b character varying(5)", "1 10 x; 2 5000000000 y", ""),
    ("narrower", OLD_OF_POSTGRES, BEFORE, "schema_changed"),
    ("keyed", OLD_OF_POSTGRES, BEFORE, "schema_changed"),
    ("rewritten", "id integer, a integer, b character varying(5), c double precision", "1 10 x 0; 2 20 y 1", ""),
];

const IGNORED_IN_POSTGRES: &Expected = &[
    ("same", OLD_OF_POSTGRES, BOTH, ""),
    ("added", OLD_OF_POSTGRES, BOTH, ""),
    ("dropped", OLD_OF_POSTGRES, "1 10 x; 2 20 -", ""),
    ("renamed", OLD_OF_POSTGRES, BOTH, ""),
    // The place itself says that the value is too long.
    ("longer", OLD_OF_POSTGRES, BEFORE, "destination_rejected"),
    ("wider", OLD_OF_POSTGRES, "", "value"),
    ("narrower", OLD_OF_POSTGRES, BOTH, ""),
    ("keyed", OLD_OF_POSTGRES, "2 20 y; 3 10 z", ""),
    ("rewritten", OLD_OF_POSTGRES, BOTH, ""),
];

struct Scene {
    world: World,
    client: Client,
    target: Target,
    policy: OnSchemaChange,
}

impl Scene {
    async fn new(database: &Database, policy: OnSchemaChange) -> Option<Self> {
        Self::into(Target::Duck(Reader::find_or_skip().await?), database, policy).await
    }

    async fn into(target: Target, database: &Database, policy: OnSchemaChange) -> Option<Self> {
        let client = database.client().await;
        for (table, ..) in CHANGES {
            let sql = format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, a int NOT NULL, b varchar(5)); \
                 INSERT INTO {table} VALUES (1, 10, 'x')"
            );
            client.batch_execute(&sql).await.unwrap();
        }
        client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
        let world = World::new(database.name(), &database.url());
        Some(Self { world, client, target, policy })
    }

    fn file(&self) -> PathBuf {
        self.world.data_dir().join("policies.duckdb")
    }

    async fn start(&self) -> RunningPipeline {
        let defaults = RuleSettings { on_schema_change: Some(self.policy), ..RuleSettings::default() };
        let rules = TableRules { defaults, rules: Vec::new() };
        let store = Arc::clone(&self.world.store);
        let destination = match &self.target {
            Target::Duck(_) => AnyDestination::new(DuckDb::with_config(DuckDbConfig::new(self.file()), store, rules)),
            Target::Postgres(database) => {
                let config = PostgresTargetConfig::new(database.url());
                AnyDestination::new(Postgres::with_config(config, store, rules).unwrap())
            }
        };
        self.world.start_into(destination).await
    }

    async fn query(&self, sql: &str) -> Vec<TextRow> {
        let database = match &self.target {
            Target::Duck(reader) => return reader.query(&self.file(), sql).await.unwrap(),
            Target::Postgres(database) => database,
        };
        let messages = database.client().await.simple_query(sql).await.unwrap();
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect())
            }
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    /// The columns of each table with their types.
    async fn columns(&self) -> BTreeMap<String, String> {
        let sql = match &self.target {
            Target::Duck(_) => {
                "SELECT table_name, string_agg(column_name || ' ' || data_type, ', ' ORDER BY column_index)
                   FROM duckdb_columns() WHERE schema_name = 'public' AND NOT starts_with(column_name, '_')
                  GROUP BY table_name"
            }
            Target::Postgres(_) => {
                "SELECT relname, string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
                   FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
                  WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
                        AND NOT starts_with(attname, '_')
                  GROUP BY relname"
            }
        };
        let rows = self.query(sql).await;
        rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect()
    }

    async fn begun(&self) -> RunningPipeline {
        let running = self.start().await;
        caught_up(&running).await;
        for (table, ..) in CHANGES {
            self.is_in(table, "ready", &running.handle()).await;
        }
        running
    }

    async fn change_all(&self) {
        for (_, alteration, write) in CHANGES {
            self.client.batch_execute(alteration).await.unwrap();
            self.client.batch_execute(write).await.unwrap();
        }
    }

    fn shown(&self, table: &str, handle: &PipelineHandle) -> (String, String, TableId) {
        let status = handle.status();
        let found = status.tables.iter().find(|shown| shown.name.to_string() == format!("public.{table}")).unwrap();
        let error = found.error.as_ref().map(|error| error.kind.to_owned()).unwrap_or_default();
        (found.phase.to_owned(), error, found.id)
    }

    async fn is_in(&self, table: &str, phase: &str, handle: &PipelineHandle) {
        let is_there = async {
            while self.shown(table, handle).0 != phase {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), is_there).await;
        waited.unwrap_or_else(|_| panic!("{table} is not {phase}: {:#?}", handle.status()));
    }

    /// Waits until each table is where it is expected, ends the run, and reads the file.
    async fn ends_as(&self, running: RunningPipeline, expected: &Expected) {
        for (table, _, _, why) in expected {
            let phase = if why.is_empty() { "ready" } else { "quarantined" };
            self.is_in(table, phase, &running.handle()).await;
            assert_eq!(self.shown(table, &running.handle()).1, *why, "{table}");
        }
        caught_up(&running).await;
        stop(running).await;
        self.assert_file(expected).await;
    }

    async fn assert_file(&self, expected: &Expected) {
        let columns = self.columns().await;
        for (table, shape, rows, _) in expected {
            let found = columns.get(*table).unwrap();
            assert_eq!(found, shape, "{table} under {:?}", self.policy);
            let names: Vec<String> =
                found.split(", ").map(|c| format!("{}::VARCHAR", c.split(' ').next().unwrap())).collect();
            let query = format!("SELECT {} FROM public.{table} ORDER BY id", names.join(", "));
            let found = self.query(&query).await;
            let text =
                |row: &TextRow| row.iter().map(|value| value.as_deref().unwrap_or("-")).collect::<Vec<_>>().join(" ");
            let found = found.iter().map(text).collect::<Vec<_>>().join("; ");
            assert_eq!(found, *rows, "{table} under {:?}", self.policy);
        }
    }
}

async fn live(policy: OnSchemaChange, expected: &Expected) {
    let Some(database) = database().await else { return };
    let Some(scene) = Scene::new(&database, policy).await else { return };
    let running = scene.begun().await;
    scene.change_all().await;
    caught_up(&running).await;
    scene.ends_as(running, expected).await;
}

async fn while_down(policy: OnSchemaChange, expected: &Expected) {
    let Some(database) = database().await else { return };
    let Some(scene) = Scene::new(&database, policy).await else { return };
    stop(scene.begun().await).await;
    scene.change_all().await;
    let running = scene.start().await;
    caught_up(&running).await;
    scene.ends_as(running, expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_apply_follows_every_change() {
    live(OnSchemaChange::Apply, APPLIED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_apply_follows_every_change_that_nobody_watched() {
    while_down(OnSchemaChange::Apply, APPLIED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_widen_only_grows_and_stops_at_what_would_narrow() {
    live(OnSchemaChange::Widen, WIDENED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_widen_only_grows_by_what_nobody_watched() {
    while_down(OnSchemaChange::Widen, &copied(WIDENED, &["dropped", "renamed"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_ignore_leaves_every_table_as_it_is() {
    live(OnSchemaChange::Ignore, IGNORED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_ignore_leaves_every_table_as_it_is_whoever_watched() {
    while_down(OnSchemaChange::Ignore, &copied(IGNORED, &["dropped"])).await;
}

/// Releases some and copies the others again: what was stopped is the source's then, and goes on.
async fn goes_on_by_hand(scene: &Scene) {
    let running = scene.start().await;
    caught_up(&running).await;
    let handle = running.handle();
    for (number, (table, ..)) in CHANGES.iter().enumerate().skip(1) {
        let (phase, _, id) = scene.shown(table, &handle);
        assert_eq!(phase, "quarantined", "{table}: a restart is no word");
        match number % 2 {
            0 => handle.release(id).await.unwrap(),
            _ => handle.resync(id).await.unwrap(),
        }
    }
    scene.ends_as(running, APPLIED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_stop_stops_each_changed_table_alone_until_somebody_says_so() {
    let Some(database) = database().await else { return };
    let Some(scene) = Scene::new(&database, OnSchemaChange::Stop).await else { return };
    let running = scene.begun().await;
    scene.change_all().await;
    caught_up(&running).await;
    scene.ends_as(running, STOPPED).await;
    goes_on_by_hand(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_stop_stops_each_table_that_changed_while_nobody_watched() {
    let Some(database) = database().await else { return };
    let Some(scene) = Scene::new(&database, OnSchemaChange::Stop).await else { return };
    stop(scene.begun().await).await;
    scene.change_all().await;
    let running = scene.start().await;
    caught_up(&running).await;
    scene.ends_as(running, STOPPED).await;
    goes_on_by_hand(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_stopped_table_that_is_released_goes_on_in_the_run_that_stopped_it() {
    let Some(database) = database().await else { return };
    let Some(scene) = Scene::new(&database, OnSchemaChange::Stop).await else { return };
    let running = scene.begun().await;
    scene.change_all().await;
    for (number, (table, ..)) in CHANGES.iter().enumerate().skip(1) {
        scene.is_in(table, "quarantined", &running.handle()).await;
        let id = scene.shown(table, &running.handle()).2;
        match number % 2 {
            0 => running.handle().resync(id).await.unwrap(),
            _ => running.handle().release(id).await.unwrap(),
        }
        scene.is_in(table, "ready", &running.handle()).await;
    }
    scene.ends_as(running, APPLIED).await;
}

/// Somebody looks at the files while the copy that was wished has begun and has yet to lock them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_rewrite_is_no_reason_to_stop_the_copy_that_is_to_read_it() {
    let Some(database) = database().await else { return };
    let Some(mut scene) = Scene::new(&database, OnSchemaChange::Stop).await else { return };
    scene.world.watch_every = Duration::from_secs(3_600);
    let running = scene.begun().await;
    scene.change_all().await;
    scene.is_in("wider", "quarantined", &running.handle()).await;
    let mut writer = database.client().await;
    let writing = writer.transaction().await.unwrap();
    writing.batch_execute("UPDATE wider SET b = 'z' WHERE id = 2").await.unwrap();
    running.handle().release(scene.shown("wider", &running.handle()).2).await.unwrap();
    scene.is_in("wider", "copying", &running.handle()).await;
    scene.client.batch_execute("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)").await.unwrap();
    let is_seen = || running.handle().status().tables.iter().any(|shown| shown.name.to_string() == "public.late");
    let looked = async {
        while !is_seen() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looked).await.expect("nobody looks");
    assert_eq!(scene.shown("wider", &running.handle()).0, "copying");
    writing.rollback().await.unwrap();
    scene.is_in("wider", "ready", &running.handle()).await;
    stop(running).await;
    assert_eq!(scene.columns().await["wider"], "id INTEGER, a BIGINT, b VARCHAR");
}

/// The columns stay, whoever wishes the copy; one that is to be narrower holds what comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_new_copy_keeps_what_a_table_has_that_only_grows_and_one_that_stays() {
    for (policy, narrower, keyed) in [
        (OnSchemaChange::Widen, (OLD, BOTH), (OLD, "2 20 y; 3 10 z")),
        (OnSchemaChange::Ignore, (OLD, BOTH), (OLD, "2 20 y; 3 10 z")),
    ] {
        let Some(database) = database().await else { return };
        let Some(scene) = Scene::new(&database, policy).await else { return };
        let running = scene.begun().await;
        scene.change_all().await;
        caught_up(&running).await;
        for (table, ..) in CHANGES {
            if *table != "wider" {
                let id = scene.shown(table, &running.handle()).2;
                running.handle().resync(id).await.unwrap();
            }
        }
        let base = if policy == OnSchemaChange::Widen { WIDENED } else { IGNORED };
        let mut expected =
            copied(base, if policy == OnSchemaChange::Widen { &["dropped", "renamed"] } else { &["dropped"] });
        for (table, shape, rows, why) in &mut expected {
            match *table {
                "narrower" => (*shape, *rows, *why) = (narrower.0, narrower.1, ""),
                "keyed" => (*shape, *rows, *why) = (keyed.0, keyed.1, ""),
                _ => {}
            }
        }
        scene.ends_as(running, &expected).await;
    }
}

/// A column that leaves and comes back under its name is filled as the source's is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_names_that_come_back_hold_what_the_source_has() {
    let Some(database) = database().await else { return };
    let Some(scene) = Scene::new(&database, OnSchemaChange::Widen).await else { return };
    let running = scene.begun().await;
    for sql in [
        "ALTER TABLE dropped DROP COLUMN b; INSERT INTO dropped VALUES (2, 20)",
        "ALTER TABLE dropped ADD COLUMN b varchar(9) DEFAULT 'new'; INSERT INTO dropped VALUES (3, 30, 'z')",
        "ALTER TABLE renamed RENAME a TO z; INSERT INTO renamed VALUES (2, 20, 'y')",
        "ALTER TABLE renamed RENAME z TO a; INSERT INTO renamed VALUES (3, 30, 'z'); UPDATE renamed SET b = 'w' WHERE id = 2",
        "ALTER TABLE same RENAME b TO d; ALTER TABLE same ADD COLUMN b text; DELETE FROM same WHERE id = 1;
         INSERT INTO same VALUES (2, 20, 'y', 'b')",
    ] {
        scene.client.batch_execute(sql).await.unwrap();
        caught_up(&running).await;
    }
    let expected: &Expected = &[
        ("dropped", OLD, "1 10 new; 2 20 new; 3 30 z", ""),
        ("renamed", "id INTEGER, a INTEGER, b VARCHAR, z INTEGER", "1 10 x 10; 2 20 w -; 3 30 z -", ""),
        ("same", "id INTEGER, a INTEGER, b VARCHAR, d VARCHAR", "2 20 b y", ""),
    ];
    scene.ends_as(running, expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_widen_and_ignore_hold_in_a_place_whose_types_have_lengths_and_keys() {
    for (policy, expected) in
        [(OnSchemaChange::Widen, WIDENED_IN_POSTGRES), (OnSchemaChange::Ignore, IGNORED_IN_POSTGRES)]
    {
        let (Some(source), Some(target)) = (database().await, database().await) else { return };
        let Some(scene) = Scene::into(Target::Postgres(target), &source, policy).await else { return };
        let running = scene.begun().await;
        scene.change_all().await;
        caught_up(&running).await;
        scene.ends_as(running, expected).await;
    }
}

/// Somebody wishes it while nothing runs: the next run asks nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_what_is_wished_while_nothing_runs_is_not_stopped() {
    let Some(database) = database().await else { return };
    let Some(scene) = Scene::new(&database, OnSchemaChange::Stop).await else { return };
    stop(scene.begun().await).await;
    scene.change_all().await;
    let names = ["public.added".to_owned(), "public.keyed".to_owned()];
    let (dir, id, store) = (scene.world.data_dir(), &scene.world.id, &scene.world.store);
    etl::pipeline::resync_next_time(dir, id, store, &names).await.unwrap();
    let running = scene.start().await;
    caught_up(&running).await;
    let is_wished = |name: &str| names.contains(&format!("public.{name}"));
    let expected: Vec<_> = STOPPED
        .iter()
        .zip(APPLIED)
        .map(|(stopped, applied)| *if is_wished(stopped.0) { applied } else { stopped })
        .collect();
    scene.ends_as(running, &expected).await;
}
