//! What do the rows of a place with tables look like in each write mode, metadata columns included?

use std::sync::Arc;

use etl::data::{Event, Op};
use etl::destination::{AnyDestination, Destination, TextRow};
use etl::store::{BoxFuture, MemoryStore, SharedStore};
use etl::{CursorId, ErrorKind, EtlResult, Lsn, Position};
use etl_destinations::duckdb::{DuckDb, DuckDbConfig};
use etl_destinations::metadata_columns::MetadataColumns;
use etl_destinations::postgres::{Postgres, PostgresTargetConfig};
use etl_destinations::table_rules::{Metadata, RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use harness::duckdb::Reader;
use harness::postgres::{Database, database};

use crate::small_table::{COMMITTED, TABLE, chunk, delete, insert, rekey, row, schema, transaction, update};

/// Where tables are, and somebody else's eyes on it.
trait Place: Sync + Send {
    fn open(&self, store: SharedStore, rules: TableRules) -> AnyDestination;
    fn query<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Vec<TextRow>>;
    fn write<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, ()>;
}

struct Duck {
    reader: Reader,
    dir: tempfile::TempDir,
}

impl Duck {
    async fn find() -> Option<Self> {
        Some(Self { reader: Reader::find_or_skip().await?, dir: tempfile::tempdir().unwrap() })
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("t.duckdb")
    }
}

impl Place for Duck {
    fn open(&self, store: SharedStore, rules: TableRules) -> AnyDestination {
        AnyDestination::new(DuckDb::with_config(DuckDbConfig::new(self.file()), store, rules))
    }

    fn query<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Vec<TextRow>> {
        Box::pin(async { self.reader.query(&self.file(), sql).await.unwrap() })
    }

    fn write<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async { self.reader.write(&self.file(), sql).await })
    }
}

impl Place for Database {
    fn open(&self, store: SharedStore, rules: TableRules) -> AnyDestination {
        AnyDestination::new(Postgres::with_config(PostgresTargetConfig::new(self.url()), store, rules).unwrap())
    }

    fn query<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Vec<TextRow>> {
        Box::pin(async { crate::postgres::rows(self.client().await.simple_query(sql).await.unwrap()) })
    }

    fn write<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async { self.client().await.batch_execute(sql).await.unwrap() })
    }
}

struct Scene<'p> {
    place: &'p dyn Place,
    store: SharedStore,
    rules: TableRules,
}

impl<'p> Scene<'p> {
    async fn new(place: &'p dyn Place, defaults: RuleSettings) -> Self {
        let store: SharedStore = Arc::new(MemoryStore::new());
        store.put_schema(schema()).await.unwrap();
        Self { place, store, rules: TableRules { defaults, rules: Vec::new() } }
    }

    async fn mode(place: &'p dyn Place, mode: WriteMode) -> Self {
        Self::new(place, RuleSettings { write_mode: Some(mode), ..RuleSettings::default() }).await
    }

    fn open(&self) -> AnyDestination {
        self.place.open(Arc::clone(&self.store), self.rules.clone())
    }

    /// Copies `a` and `b`, then delivers the changes as one transaction, twice.
    async fn run(&self, commit: u64, ops: Vec<Op>) -> EtlResult<()> {
        let destination = self.open();
        let rows = ["a", "b"].map(|key| row(&schema(), [key, "old"])).to_vec();
        destination.write_copy_chunk(TABLE, chunk(), rows.into()).await?;
        let (batch, events) = transaction(commit, ops);
        destination.write_batch(batch.clone(), events.clone()).await?;
        drop(destination);
        self.open().write_batch(batch, events).await
    }

    async fn expect(&self, columns: &str, expected: &[&str]) {
        let sql = format!("SELECT {columns} FROM public.t ORDER BY \"_LSN\", \"_ORDINAL\", k");
        let text =
            |row: &TextRow| row.iter().map(|value| value.as_deref().unwrap_or("-")).collect::<Vec<_>>().join(" ");
        assert_eq!(self.place.query(&sql).await.iter().map(text).collect::<Vec<_>>(), expected);
    }
}

/// Makes a test of each for every place.
macro_rules! in_each_place {
    ($($name:ident;)*) => {
        mod duckdb {
            $(#[tokio::test]
            async fn $name() {
                let Some(place) = super::Duck::find().await else { return };
                super::$name(&place).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                let Some(place) = super::database().await else { return };
                super::$name(&place).await;
            })*
        }
    };
}

in_each_place! {
    append_is_a_log_of_every_change_once;
    append_refuses_an_update_whose_value_was_not_sent;
    soft_delete_marks_what_is_deleted_and_keeps_its_values;
    upsert_stamps_rows_with_the_change_that_made_them;
    metadata_columns_have_the_names_that_were_given_or_are_left_out;
    a_table_that_somebody_else_made_is_refused_and_left_alone;
    a_pipeline_with_a_fresh_store_inherits_no_positions;
}

const ALL: &str = "k, v, \"_CHANGE_TYPE\", \"_LSN\", \"_ORDINAL\"";

async fn append_is_a_log_of_every_change_once(place: &dyn Place) {
    let scene = Scene::mode(place, WriteMode::Append).await;
    let ops = vec![insert(["c", "new"]), update(["a", "1"]), rekey("b", ["d", "2"]), delete("a")];
    scene.run(100, ops).await.unwrap();
    let log = [
        "a old UPSERT 50 0",
        "b old UPSERT 50 0",
        "c new INSERT 100 1",
        "a 1 UPDATE 100 2",
        "b - DELETE 100 3",
        "d 2 UPDATE 100 4",
        "a - DELETE 100 5",
    ];
    scene.expect(ALL, &log).await;
    let position = Position::new(Lsn(200), 1);
    let truncate = Event::Truncate { tables: Box::new([TABLE]), positions: Box::new([position]), at: COMMITTED };
    let (batch, _) = transaction(200, Vec::new());
    scene.open().write_batch(batch, vec![truncate]).await.unwrap();
    scene.expect(ALL, &[&log[..], &["- - TRUNCATE 200 1"]].concat()).await;
}

async fn append_refuses_an_update_whose_value_was_not_sent(place: &dyn Place) {
    let scene = Scene::mode(place, WriteMode::Append).await;
    let error = scene.run(100, vec![update(["a", "?"])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(error.to_string().contains("REPLICA IDENTITY FULL"), "{error}");
    scene.expect(ALL, &["a old UPSERT 50 0", "b old UPSERT 50 0"]).await;
}

async fn soft_delete_marks_what_is_deleted_and_keeps_its_values(place: &dyn Place) {
    let scene = Scene::mode(place, WriteMode::SoftDelete).await;
    let ops = vec![delete("a"), rekey("b", ["d", "?"]), insert(["c", "new"]), delete("c")];
    scene.run(100, ops).await.unwrap();
    scene.expect(ALL, &["a old DELETE 100 1", "d old UPSERT 100 2", "c new DELETE 100 5"]).await;
    let (batch, events) = transaction(110, vec![insert(["a", "again"]), delete("d")]);
    scene.open().write_batch(batch, events).await.unwrap();
    scene.expect(ALL, &["c new DELETE 100 5", "a again UPSERT 110 1", "d old DELETE 110 2"]).await;
    let position = Position::new(Lsn(200), 1);
    let truncate = Event::Truncate { tables: Box::new([TABLE]), positions: Box::new([position]), at: COMMITTED };
    let (batch, _) = transaction(200, Vec::new());
    scene.open().write_batch(batch, vec![truncate]).await.unwrap();
    scene.expect(ALL, &["c new DELETE 100 5", "d old DELETE 110 2", "a again DELETE 200 1"]).await;
}

async fn upsert_stamps_rows_with_the_change_that_made_them(place: &dyn Place) {
    let scene = Scene::mode(place, WriteMode::Upsert).await;
    scene.run(100, vec![update(["a", "?"]), delete("b"), insert(["c", "new"])]).await.unwrap();
    scene.expect(ALL, &["a old UPSERT 100 1", "c new UPSERT 100 3"]).await;
    scene.expect("extract(epoch FROM \"_TIMESTAMP\")::bigint", &["1700000000", "1700000000"]).await;
}

async fn metadata_columns_have_the_names_that_were_given_or_are_left_out(place: &dyn Place) {
    let names = MetadataColumns { lsn: "lsn".into(), change_type: "what".into(), ..MetadataColumns::default() };
    let columns = "SELECT string_agg(column_name, ' ' ORDER BY ordinal_position) FROM information_schema.columns \
                   WHERE table_schema = 'public'";
    for (metadata, expected) in
        [(Metadata::On(Arc::new(names)), "k v what lsn _ORDINAL _TIMESTAMP"), (Metadata::Off, "k v")]
    {
        let settings = RuleSettings { metadata: Some(metadata), ..RuleSettings::default() };
        let scene = Scene::new(place, settings).await;
        scene.open().truncate_table(TABLE).await.unwrap();
        scene.run(100, vec![update(["a", "new"]), delete("b")]).await.unwrap();
        let found = place.query(columns).await;
        assert_eq!(found[0][0].as_deref(), Some(expected));
        let rows = place.query("SELECT k, v FROM public.t").await;
        assert_eq!(rows, [[Some("a".to_owned()), Some("new".to_owned())]]);
    }
}

async fn a_table_that_somebody_else_made_is_refused_and_left_alone(place: &dyn Place) {
    let scene = Scene::mode(place, WriteMode::Upsert).await;
    place.write("CREATE SCHEMA IF NOT EXISTS public; CREATE TABLE public.t AS SELECT 42 AS answer").await;
    let error = scene.run(100, Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationRejected, "{error}");
    assert!(scene.open().truncate_table(TABLE).await.is_err());
    let rows = place.query("SELECT answer FROM public.t").await;
    assert_eq!(rows[0][0].as_deref(), Some("42"));
}

async fn a_pipeline_with_a_fresh_store_inherits_no_positions(place: &dyn Place) {
    let scene = Scene::mode(place, WriteMode::Upsert).await;
    scene.run(100, vec![insert(["c", "new"])]).await.unwrap();
    let same = scene.open().durable_position(CursorId::Main).await.unwrap();
    assert_eq!(same, Some(Position::after(Lsn(100))));
    let fresh: SharedStore = Arc::new(MemoryStore::new());
    let other = place.open(fresh, TableRules::default());
    assert_eq!(other.durable_position(CursorId::Main).await.unwrap(), None);
}
