//! What do the rows of `duckdb` look like in each write mode, metadata columns included?

use std::path::PathBuf;
use std::sync::Arc;

use etl::data::{Event, Op};
use etl::destination::{CopyChunk, Destination};
use etl::schema::TableSchema;
use etl::store::{MemoryStore, SharedStore};
use etl::{CursorId, ErrorKind, EtlResult, Lsn, Position};
use etl_destinations::duckdb::{DuckDb, DuckDbConfig};
use etl_destinations::metadata_columns::MetadataColumns;
use etl_destinations::table_rules::{Metadata, RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use harness::duckdb::Reader;

use crate::small_table::{COMMITTED, TABLE, delete, insert, rekey, row, schema, transaction, update};

struct Scene {
    schema: Arc<TableSchema>,
    store: SharedStore,
    rules: TableRules,
    reader: Reader,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new(defaults: RuleSettings) -> Option<Self> {
        let reader = Reader::find_or_skip().await?;
        let (schema, store): (_, SharedStore) = (schema(), Arc::new(MemoryStore::new()));
        store.put_schema(Arc::clone(&schema)).await.unwrap();
        let rules = TableRules { defaults, rules: Vec::new() };
        Some(Self { schema, store, rules, reader, dir: tempfile::tempdir().unwrap() })
    }

    async fn mode(mode: WriteMode) -> Option<Self> {
        Self::new(RuleSettings { write_mode: Some(mode), ..RuleSettings::default() }).await
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("t.duckdb")
    }

    fn open(&self) -> impl Destination + use<> {
        DuckDb::with_config(DuckDbConfig::new(self.file()), Arc::clone(&self.store), self.rules.clone())
    }

    /// Copies `a` and `b`, then delivers the changes as one transaction, twice.
    async fn run(&self, commit: u64, ops: Vec<Op>) -> EtlResult<()> {
        let destination = self.open();
        let chunk = CopyChunk {
            generation: 1,
            index: 1,
            position: Position::new(Lsn(50), 0),
            read_at: COMMITTED,
            replaces: false,
        };
        let rows = ["a", "b"].map(|key| row(&self.schema, [key, "old"])).to_vec();
        destination.write_copy_chunk(TABLE, chunk, rows).await?;
        let (batch, events) = transaction(commit, ops);
        destination.write_batch(batch.clone(), events.clone()).await?;
        drop(destination);
        self.open().write_batch(batch, events).await
    }

    async fn expect(&self, columns: &str, expected: &[&str]) {
        let sql = format!("SELECT {columns} FROM public.t ORDER BY _LSN, _ORDINAL, k");
        let rows = self.reader.query(&self.file(), &sql).await.unwrap();
        let text = |row: &Vec<Option<String>>| {
            row.iter().map(|value| value.as_deref().unwrap_or("-")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(rows.iter().map(text).collect::<Vec<_>>(), expected);
    }
}

const ALL: &str = "k, v, _CHANGE_TYPE, _LSN, _ORDINAL";

#[tokio::test]
async fn append_is_a_log_of_every_change_once() {
    let Some(scene) = Scene::mode(WriteMode::Append).await else { return };
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

#[tokio::test]
async fn append_refuses_an_update_whose_value_was_not_sent() {
    let Some(scene) = Scene::mode(WriteMode::Append).await else { return };
    let error = scene.run(100, vec![update(["a", "?"])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value);
    assert!(error.to_string().contains("REPLICA IDENTITY FULL"), "{error}");
    scene.expect(ALL, &["a old UPSERT 50 0", "b old UPSERT 50 0"]).await;
}

#[tokio::test]
async fn soft_delete_marks_what_is_deleted_and_keeps_its_values() {
    let Some(scene) = Scene::mode(WriteMode::SoftDelete).await else { return };
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

#[tokio::test]
async fn upsert_stamps_rows_with_the_change_that_made_them() {
    let Some(scene) = Scene::mode(WriteMode::Upsert).await else { return };
    scene.run(100, vec![update(["a", "?"]), delete("b"), insert(["c", "new"])]).await.unwrap();
    scene.expect(ALL, &["a old UPSERT 100 1", "c new UPSERT 100 3"]).await;
    scene.expect("epoch_us(_TIMESTAMP)", &["1700000000000000", "1700000000000000"]).await;
}

#[tokio::test]
async fn metadata_columns_have_the_names_that_were_given_or_are_left_out() {
    let names = MetadataColumns { lsn: "lsn".into(), change_type: "what".into(), ..MetadataColumns::default() };
    let columns = "SELECT string_agg(column_name, ' ' ORDER BY column_index) FROM duckdb_columns() \
                   WHERE schema_name = 'public'";
    for (metadata, expected) in
        [(Metadata::On(Arc::new(names)), "k v what lsn _ORDINAL _TIMESTAMP"), (Metadata::Off, "k v")]
    {
        let settings = RuleSettings { metadata: Some(metadata), ..RuleSettings::default() };
        let Some(scene) = Scene::new(settings).await else { return };
        scene.run(100, vec![update(["a", "new"]), delete("b")]).await.unwrap();
        let found = scene.reader.query(&scene.file(), columns).await.unwrap();
        assert_eq!(found[0][0].as_deref(), Some(expected));
        let rows = scene.reader.query(&scene.file(), "SELECT k, v FROM public.t").await.unwrap();
        assert_eq!(rows, [[Some("a".to_owned()), Some("new".to_owned())]]);
    }
}

#[tokio::test]
async fn a_table_that_somebody_else_made_is_refused_and_left_alone() {
    let Some(scene) = Scene::mode(WriteMode::Upsert).await else { return };
    scene.reader.write(&scene.file(), "CREATE SCHEMA public; CREATE TABLE public.t AS SELECT 42 AS answer").await;
    let error = scene.run(100, Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationRejected, "{error}");
    assert!(scene.open().truncate_table(TABLE).await.is_err());
    let rows = scene.reader.query(&scene.file(), "SELECT answer FROM public.t").await.unwrap();
    assert_eq!(rows[0][0].as_deref(), Some("42"));
}

#[tokio::test]
async fn a_pipeline_with_a_fresh_store_inherits_no_positions_from_the_file() {
    let Some(scene) = Scene::mode(WriteMode::Upsert).await else { return };
    scene.run(100, vec![insert(["c", "new"])]).await.unwrap();
    let same = scene.open().durable_position(CursorId::Main).await.unwrap();
    assert_eq!(same, Some(Position::after(Lsn(100))));
    let fresh: SharedStore = Arc::new(MemoryStore::new());
    let other = DuckDb::with_config(DuckDbConfig::new(scene.file()), fresh, TableRules::default());
    assert_eq!(other.durable_position(CursorId::Main).await.unwrap(), None);
}
