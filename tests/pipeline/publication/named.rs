//! Is a table found in DuckDB under the name that it has at the source, whatever had that name before?

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etl::destination::AnyDestination;
use etl::pipeline::RunningPipeline;
use etl_destinations::duckdb::DuckDb;
use harness::duckdb::{Reader, Row};
use harness::postgres::{Database, database};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{When, find, generation, until};
use crate::running::{World, caught_up, stop};

/// A pipeline into a DuckDB file.
struct Place {
    world: World,
    reader: Reader,
    client: Client,
    _database: Database,
    running: Option<RunningPipeline>,
}

impl Place {
    async fn start(tables: &str) -> Option<Self> {
        let reader = Reader::find_or_skip().await?;
        let database = database().await?;
        let client = database.client().await;
        client.batch_execute(tables).await.unwrap();
        let world = World::new(database.name(), &database.url());
        let mut place = Self { world, reader, client, _database: database, running: None };
        place.go_on().await;
        caught_up(place.running()).await;
        Some(place)
    }

    fn file(&self) -> PathBuf {
        self.world.data_dir().join("t.duckdb")
    }

    fn running(&self) -> &RunningPipeline {
        self.running.as_ref().unwrap()
    }

    async fn go_on(&mut self) {
        let destination = DuckDb::open(self.file(), Arc::clone(&self.world.store)).await.unwrap();
        self.running = Some(self.world.start_into(AnyDestination::new(destination)).await);
    }

    async fn rest(&mut self) {
        stop(self.running.take().unwrap()).await;
    }

    /// Does this while the tables are followed, or between two runs.
    async fn meanwhile(&mut self, when: When, sql: &str) {
        println!("{when:?}: {sql}");
        if when == When::Down {
            self.rest().await;
        }
        self.client.batch_execute(sql).await.unwrap();
        if when == When::Down {
            self.go_on().await;
        }
    }

    async fn is_called(&self, names: &[&str]) {
        let found = async || {
            let tables = self.running().handle().status().tables;
            let mut found: Vec<_> = tables.iter().map(|table| (table.name.to_string(), table.phase)).collect();
            found.sort();
            found == names.iter().map(|name| ((*name).to_owned(), "ready")).collect::<Vec<_>>()
        };
        until("called so", self.running(), found).await;
    }

    async fn query(&self, sql: &str) -> Vec<Row> {
        for _ in 0..100 {
            match self.reader.query(&self.file(), sql).await {
                Err(error) if error.contains("lock") => tokio::time::sleep(Duration::from_millis(50)).await,
                found => return found.unwrap(),
            }
        }
        panic!("the file stays locked");
    }

    /// The tables that are in the file, and nothing else, have the rows of the source. The pipeline rests after that.
    async fn has(&mut self, names: &[&str]) {
        caught_up(self.running()).await;
        self.rest().await;
        let tables =
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE schema_name <> '_etl' ORDER BY 1";
        let found: Vec<String> = self.query(tables).await.into_iter().filter_map(|mut row| row.remove(0)).collect();
        assert_eq!(found, names);
        for name in names {
            let (schema, table) = name.split_once('.').unwrap();
            let name = format!("{schema}.\"{table}\"");
            let mut expected: Vec<Row> = Vec::new();
            for message in self.client.simple_query(&format!("SELECT id, v FROM {name}")).await.unwrap() {
                if let SimpleQueryMessage::Row(row) = message {
                    expected.push((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect());
                }
            }
            let mut found = self.query(&format!("SELECT id::VARCHAR, v FROM {name}")).await;
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{name}");
        }
    }
}

const TABLES: &str = "
CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 't' FROM generate_series(1, 50) g;
CREATE SCHEMA s; CREATE TABLE s.u (id int PRIMARY KEY, v text); INSERT INTO s.u SELECT g, 'u' FROM generate_series(1, 50) g;
CREATE TABLE other (id int PRIMARY KEY, v text); INSERT INTO other VALUES (1, 'o');";

/// Published by schema or as everything, so that what is made is published too.
fn all() -> String {
    format!("{TABLES} CREATE PUBLICATION p FOR ALL TABLES")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_an_idle_table_is_renamed_without_a_row_and_without_a_copy() {
    for when in [When::Live, When::Down] {
        let Some(mut place) = Place::start(&all()).await else { return };
        place.meanwhile(when, "ALTER TABLE t RENAME TO \"T 2\"; ALTER SCHEMA s RENAME TO z").await;
        place.is_called(&["public.T 2", "public.other", "z.u"]).await;
        place.rest().await;
        place.go_on().await;
        place
            .client
            .batch_execute("UPDATE \"T 2\" SET v = 'after' WHERE id < 9; INSERT INTO z.u VALUES (99, 'new')")
            .await
            .unwrap();
        place.has(&["public.T 2", "public.other", "z.u"]).await;
        for table in ["\"T 2\"", "z.u", "other"] {
            assert_eq!(generation(&place.world, &place.client, table).await, 1, "{when:?} {table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_rename_that_is_written_after_needs_no_copy() {
    let Some(mut place) = Place::start(&all()).await else { return };
    let sql =
        "UPDATE t SET v = 'before' WHERE id = 1; BEGIN; INSERT INTO t VALUES (101, 'x'); ALTER TABLE t RENAME TO t2;
        INSERT INTO t2 VALUES (102, 'y'); COMMIT; INSERT INTO t2 VALUES (103, 'z')";
    place.meanwhile(When::Live, sql).await;
    place.is_called(&["public.other", "public.t2", "s.u"]).await;
    place.has(&["public.other", "public.t2", "s.u"]).await;
    assert_eq!(generation(&place.world, &place.client, "t2").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_rename_that_ends_in_a_copy_leaves_no_table_behind() {
    for when in [When::Live, When::Down] {
        let Some(mut place) = Place::start(&all()).await else { return };
        let sql = "BEGIN; ALTER TABLE t RENAME TO t2; ALTER TABLE t2 ALTER id TYPE bigint; COMMIT; INSERT INTO t2 VALUES (5000000000, 'big')";
        place.meanwhile(when, sql).await;
        place.is_called(&["public.other", "public.t2", "s.u"]).await;
        place.has(&["public.other", "public.t2", "s.u"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_tables_that_exchange_their_names_keep_their_rows() {
    for when in [When::Live, When::Down] {
        for write in ["", "INSERT INTO t VALUES (200, 'in t'); INSERT INTO other VALUES (200, 'in other')"] {
            let Some(mut place) = Place::start(&all()).await else { return };
            let sql = format!(
                "BEGIN; ALTER TABLE t RENAME TO x; ALTER TABLE other RENAME TO t; ALTER TABLE x RENAME TO other; COMMIT; {write}"
            );
            place.meanwhile(when, &sql).await;
            let t: u32 = place.client.query_one("SELECT 't'::regclass::oid", &[]).await.unwrap().get(0);
            let has_moved = async || find(place.running(), "t").is_some_and(|table| table.id.0 == t);
            until("moved", place.running(), has_moved).await;
            place.is_called(&["public.other", "public.t", "s.u"]).await;
            place.has(&["public.other", "public.t", "s.u"]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_takes_the_place_of_another_one_has_its_name() {
    for when in [When::Live, When::Down] {
        for write in ["", "; INSERT INTO t VALUES (200, 'in t')"] {
            let Some(mut place) = Place::start(&all()).await else { return };
            let sql = format!("BEGIN; ALTER TABLE t RENAME TO t_old; ALTER TABLE other RENAME TO t; COMMIT{write}");
            place.meanwhile(when, &sql).await;
            place.is_called(&["public.t", "public.t_old", "s.u"]).await;
            place.has(&["public.t", "public.t_old", "s.u"]).await;
            place.go_on().await;
            // The same with a new one, and the old one goes.
            let sql = "DROP TABLE t_old; CREATE TABLE t_new (id int PRIMARY KEY, v text); INSERT INTO t_new VALUES (1, 'newest');
                BEGIN; DROP TABLE t; ALTER TABLE t_new RENAME TO t; COMMIT";
            place.meanwhile(when, sql).await;
            let t: u32 = place.client.query_one("SELECT 't'::regclass::oid", &[]).await.unwrap().get(0);
            let is_there = async || find(place.running(), "t").is_some_and(|table| table.id.0 == t);
            until("there", place.running(), is_there).await;
            place.is_called(&["public.t", "s.u"]).await;
            caught_up(place.running()).await;
            place.rest().await;
            assert_eq!(place.query("SELECT v FROM public.t").await, [[Some("newest".to_owned())]]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_a_table_that_is_dropped_and_made_again_takes_the_place_of_the_one_before() {
    for when in [When::Live, When::Down] {
        let Some(mut place) = Place::start(&all()).await else { return };
        for (round, of) in ["int", "bigint", "bigint"].into_iter().enumerate() {
            let sql = format!(
                "INSERT INTO t VALUES (7000, 'last'); DROP TABLE t; CREATE TABLE t (id {of} PRIMARY KEY, v text);
                 INSERT INTO t VALUES ({round}, 'again'); INSERT INTO t VALUES (100, 'more')"
            );
            place.meanwhile(when, &sql).await;
            let t: u32 = place.client.query_one("SELECT 't'::regclass::oid", &[]).await.unwrap().get(0);
            let is_there = async || find(place.running(), "t").is_some_and(|table| table.id.0 == t);
            until("there", place.running(), is_there).await;
            place.is_called(&["public.other", "public.t", "s.u"]).await;
            place.has(&["public.other", "public.t", "s.u"]).await;
            place.go_on().await;
        }
        place.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_what_was_written_before_a_table_left_while_nobody_listened_arrives() {
    for leaves in ["ALTER PUBLICATION p DROP TABLE t", "DROP TABLE t"] {
        let tables = format!("{TABLES} CREATE PUBLICATION p FOR TABLE t, s.u, other");
        let Some(mut place) = Place::start(&tables).await else { return };
        let sql = format!(
            "INSERT INTO t VALUES (7000, 'last'); UPDATE t SET v = 'last' WHERE id = 2; DELETE FROM t WHERE id > 2 AND id < 7000;
             {leaves}; INSERT INTO other VALUES (2, 'after')"
        );
        place.meanwhile(When::Down, &sql).await;
        place.is_called(&["public.other", "s.u"]).await;
        caught_up(place.running()).await;
        place.rest().await;
        let row = |id: &str, v: &str| vec![Some(id.to_owned()), Some(v.to_owned())];
        let found = place.query("SELECT id::VARCHAR, v FROM public.t ORDER BY id").await;
        assert_eq!(found, [row("1", "t"), row("2", "last"), row("7000", "last")], "{leaves}");
        assert_eq!(place.query("SELECT id::VARCHAR, v FROM public.other ORDER BY id").await.len(), 2);
    }
}
