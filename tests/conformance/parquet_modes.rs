//! What does `parquet` leave in a place: which files, what is in them, and which current states?

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etl::data::{Event, Op};
use etl::destination::Destination;
use etl::store::{MemoryStore, SharedStore};
use etl::{ByteSize, CursorId, ErrorKind, Lsn, Position};
use etl_destinations::parquet::{
    CompactConfig, Parquet, ParquetCompression, ParquetConfig, ParquetInfinities, ParquetLayout, ParquetStatistics,
};
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use harness::duckdb::Reader;
use harness::parquet::{current, query};
use harness::s3::python;

use crate::small_table::{COMMITTED, TABLE, chunk, delete, insert, rekey, row, schema, transaction, update};

struct Scene {
    reader: Reader,
    store: SharedStore,
    config: ParquetConfig,
    mode: Option<WriteMode>,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new(mode: Option<WriteMode>) -> Option<Self> {
        let reader = Reader::find_or_skip().await?;
        let store: SharedStore = Arc::new(MemoryStore::new());
        store.put_schema(schema()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = ParquetConfig::new(dir.path().join("lake").display().to_string());
        Some(Self { reader, store, config, mode, dir })
    }

    fn open(&self) -> TableDestination<Parquet> {
        let defaults = RuleSettings { write_mode: self.mode, ..RuleSettings::default() };
        let rules = TableRules { defaults, rules: Vec::new() };
        Parquet::with_config(self.config.clone(), Arc::clone(&self.store), rules).unwrap()
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("lake")
    }

    /// Copies `a` and `b`, then delivers the changes.
    async fn run(&self, destination: &impl Destination, ops: Vec<Op>) {
        let rows = ["a", "b"].map(|key| row(&schema(), [key, "old"])).to_vec();
        destination.write_copy_chunk(TABLE, chunk(), rows.into()).await.unwrap();
        let (batch, events) = transaction(100, ops);
        destination.write_batch(batch, events).await.unwrap();
    }

    /// What a glob finds.
    async fn texts(&self, columns: &str, from: &str) -> Vec<String> {
        let sql = format!("SELECT {columns} FROM {from} ORDER BY ALL");
        let rows = query(&self.reader, &sql).await;
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        rows.iter().map(|row| row.iter().map(text).collect::<Vec<_>>().join(" ")).collect()
    }

    async fn log(&self) -> Vec<String> {
        self.texts(ALL, &glob(&self.place(), "log/*.parquet")).await
    }

    async fn current(&self) -> Vec<String> {
        self.texts(STATE, &current(&self.place(), "public", "t")).await
    }
}

const ALL: &str = "_LSN, _ORDINAL, _CHANGE_TYPE, k, v, _UNCHANGED";
const STATE: &str = "k, v, _CHANGE_TYPE, _LSN, _ORDINAL";

fn glob(place: &Path, files: &str) -> String {
    format!("read_parquet('{}/public/t/{files}', union_by_name = true)", place.display())
}

fn files(place: &Path, folder: &str) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(place.join("public/t").join(folder)) else { return Vec::new() };
    let mut found: Vec<PathBuf> = found.map(|file| file.unwrap().path()).collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_glob_finds_every_change_and_what_was_not_sent() {
    let Some(scene) = Scene::new(None).await else { return };
    let ops = vec![update(["a", "?"]), rekey("a", ["c", "2"]), insert(["d", "-"]), delete("d")];
    scene.run(&scene.open(), ops).await;
    let expected = [
        "50 0 UPSERT a old -",
        "50 0 UPSERT b old -",
        "100 1 UPDATE a - ['v']",
        "100 2 DELETE a - -",
        "100 3 UPDATE c 2 -",
        "100 4 INSERT d - -",
        "100 5 DELETE d - -",
    ];
    assert_eq!(scene.log().await, expected);
}

#[tokio::test]
async fn the_hive_layout_has_a_directory_a_day() {
    let Some(mut scene) = Scene::new(None).await else { return };
    scene.config.layout = ParquetLayout::Hive;
    scene.run(&scene.open(), vec![insert(["c", "1"])]).await;
    let from = glob(&scene.place(), "log/*/*.parquet").replace("union", "hive_partitioning = true, union");
    assert_eq!(scene.texts("DISTINCT etl_date", &from).await, ["2023-11-14"]);
}

#[tokio::test]
async fn files_are_written_as_the_config_says() {
    let Some(mut scene) = Scene::new(None).await else { return };
    let rows: Vec<_> = (0..100_000_u32)
        .map(|n| {
            row(&schema(), [&n.to_string(), &format!("{:x}", u128::from(n).pow(5).wrapping_mul(0x9e37_79b9_7f4a_7c15))])
        })
        .collect();
    let meta = "count(DISTINCT file_name), count(DISTINCT (file_name, row_group_id)), any_value(compression), \
                count(stats_min_value) > 0";
    let mut found = Vec::new();
    for (place, compression, statistics) in [
        ("whole", ParquetCompression::Zstd, ParquetStatistics::Chunk),
        ("pieces", ParquetCompression::None, ParquetStatistics::None),
        ("paged", ParquetCompression::None, ParquetStatistics::Page),
    ] {
        scene.config.location = scene.dir.path().join(place).display().to_string();
        (scene.config.compression, scene.config.statistics) = (compression, statistics);
        (scene.config.compression_level, scene.config.file_bytes) = (1, ByteSize(1 << 30));
        if place != "whole" {
            (scene.config.file_bytes, scene.config.row_group_bytes) = (ByteSize(3 << 20), ByteSize(1 << 20));
        }
        scene.open().write_copy_chunk(TABLE, chunk(), rows.clone().into()).await.unwrap();
        let from = format!("parquet_metadata('{}/public/t/log/*.parquet')", scene.config.location);
        found.extend(scene.texts(meta, &from).await);
        if let (Some(mut python), true) = (python().await, place != "whole") {
            let script = "import pyarrow.parquet as p, sys; print([p.ParquetFile(f).metadata.row_group(0).column(0).has_column_index for f in sys.argv[1:]][0])";
            let files = files(&scene.dir.path().join(place), "log");
            let output = python.args(["-c", script]).args(files).output().await.unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said.trim() == "True", place == "paged", "whether there is an index of pages: {said}");
        }
    }
    assert_eq!(found[0], "1 1 ZSTD True");
    let numbers: Vec<u32> = found[1].split(' ').take(2).map(|number| number.parse().unwrap()).collect();
    assert!(numbers[0] >= 2 && numbers[1] > numbers[0] && found[1].ends_with("UNCOMPRESSED False"), "{found:?}");
    assert!(found[2].ends_with("UNCOMPRESSED True"), "{found:?}");
}

#[tokio::test]
async fn infinite_times_are_refused_or_as_duckdb_has_them() {
    let Some(mut scene) = Scene::new(None).await else { return };
    let mut dated = etl::schema::TableSchema::clone(&schema());
    dated.columns[1].kind = etl::schema::Kind::Date;
    let dated = Arc::new(dated);
    scene.store.put_schema(Arc::clone(&dated)).await.unwrap();
    let rows = || vec![row(&dated, ["a", "-infinity"])];
    let error = scene.open().write_copy_chunk(TABLE, chunk(), rows().into()).await.unwrap_err();
    assert_eq!((error.kind(), error.context("value")), (ErrorKind::Value, Some("infinity")), "{error}");
    scene.config.infinities = ParquetInfinities::DuckDb;
    scene.open().write_copy_chunk(TABLE, chunk(), rows().into()).await.unwrap();
    assert_eq!(scene.texts("v::VARCHAR", &glob(&scene.place(), "log/*.parquet")).await, ["-infinity"]);
}

#[tokio::test]
async fn a_current_state_is_what_the_log_comes_to() {
    let Some(scene) = Scene::new(Some(WriteMode::Upsert)).await else { return };
    let destination = scene.open();
    let ops = vec![update(["a", "?"]), rekey("b", ["c", "?"]), insert(["d", "1"]), delete("d"), insert(["e", "1"])];
    scene.run(&destination, ops).await;
    let made = destination.writer().compact().await.unwrap();
    assert_eq!((made.len(), made[0].rows), (1, 3), "{made:?}");
    assert_eq!(scene.current().await, ["a old UPSERT 100 1", "c old UPSERT 100 2", "e 1 UPSERT 100 6"]);
    assert!(destination.writer().compact().await.unwrap().is_empty(), "nothing has come since");
    drop(destination);
    let destination = scene.open();
    let (batch, events) = transaction(200, vec![update(["c", "new"]), rekey("e", ["f", "?"]), update(["f", "?"])]);
    destination.write_batch(batch, events).await.unwrap();
    destination.writer().compact().await.unwrap();
    assert_eq!(scene.current().await, ["a old UPSERT 100 1", "c new UPSERT 200 1", "f 1 UPSERT 200 4"]);
    let position = Position::new(Lsn(300), 1);
    let truncate = Event::Truncate { tables: Box::new([TABLE]), positions: Box::new([position]), at: COMMITTED };
    let (batch, mut events) = transaction(300, vec![insert(["z", "after"])]);
    let Some(Event::Change(change)) = events.first_mut() else { unreachable!() };
    change.position.ordinal = 2;
    events.insert(0, truncate);
    destination.write_batch(batch, events).await.unwrap();
    destination.writer().compact().await.unwrap();
    assert_eq!(scene.current().await, ["z after UPSERT 300 2"]);
    assert_eq!(files(&scene.place(), "current").len(), 3, "this state and those before, which may still be read");
    destination.truncate_table(TABLE).await.unwrap();
    assert!(files(&scene.place(), "current").is_empty() && files(&scene.place(), "log").is_empty());
    assert!(!scene.place().join("public/t/current.json").exists());
}

#[tokio::test]
async fn a_current_state_marks_what_is_deleted() {
    let Some(scene) = Scene::new(Some(WriteMode::SoftDelete)).await else { return };
    let destination = scene.open();
    scene.run(&destination, vec![delete("a"), rekey("b", ["d", "?"]), insert(["c", "new"]), delete("c")]).await;
    destination.writer().compact().await.unwrap();
    let expected = ["a old DELETE 100 1", "c new DELETE 100 5", "d old UPSERT 100 2"];
    assert_eq!(scene.current().await, expected);
    let (batch, events) = transaction(110, vec![insert(["a", "again"]), delete("d")]);
    destination.write_batch(batch, events).await.unwrap();
    destination.writer().compact().await.unwrap();
    assert_eq!(scene.current().await, ["a again UPSERT 110 1", "c new DELETE 100 5", "d old DELETE 110 2"]);
}

#[tokio::test]
async fn what_a_truncate_has_marked_stays_marked() {
    let Some(scene) = Scene::new(Some(WriteMode::SoftDelete)).await else { return };
    let destination = scene.open();
    scene.run(&destination, vec![insert(["c", "1"])]).await;
    let positions = Box::new([Position::new(Lsn(200), 1)]);
    let truncate = Event::Truncate { tables: Box::new([TABLE]), positions, at: COMMITTED };
    let (batch, mut events) = transaction(200, vec![insert(["a", "again"])]);
    let Some(Event::Change(change)) = events.first_mut() else { unreachable!() };
    change.position.ordinal = 2;
    events.insert(0, truncate);
    destination.write_batch(batch, events).await.unwrap();
    destination.writer().compact().await.unwrap();
    let (batch, events) = transaction(300, vec![insert(["d", "1"])]);
    destination.write_batch(batch, events).await.unwrap();
    destination.writer().compact().await.unwrap();
    let expected = ["a again UPSERT 200 2", "b old DELETE 200 1", "c 1 DELETE 200 1", "d 1 UPSERT 300 1"];
    assert_eq!(scene.current().await, expected);
}

#[tokio::test]
async fn a_table_larger_than_the_memory_comes_to_the_same_state() {
    let Some(mut scene) = Scene::new(Some(WriteMode::Upsert)).await else { return };
    let mut states = Vec::new();
    for memory in [ByteSize(256 << 20), ByteSize(64 << 10)] {
        scene.config.location = scene.dir.path().join(memory.0.to_string()).join("lake").display().to_string();
        scene.config.compact.memory = memory;
        std::fs::create_dir_all(scene.dir.path().join(memory.0.to_string())).unwrap();
        scene.store = Arc::new(MemoryStore::new());
        scene.store.put_schema(schema()).await.unwrap();
        let destination = scene.open();
        let rows = (0..5000_u32).map(|n| row(&schema(), [&n.to_string(), &(u64::from(n).pow(3) * 7919).to_string()]));
        destination.write_copy_chunk(TABLE, chunk(), rows.collect()).await.unwrap();
        for round in 1..5_u32 {
            let key = |n: u32| n.to_string();
            let moved = |n: u32, by: u32| (n + by * 5000).to_string();
            let ops = (0..1000_u32).flat_map(|n| match n % 4 {
                0 => vec![rekey(&moved(n, round - 1), [&moved(n, round), "?"])],
                1 => vec![update([&key(n), "?"]), update([&key(n + 1000), &format!("round {round}")])],
                2 if round == 2 => vec![delete(&key(n))],
                _ => Vec::new(),
            });
            let (batch, events) = transaction(u64::from(round) * 100 + 100, ops.collect());
            destination.write_batch(batch, events).await.unwrap();
            if round == 2 {
                destination.writer().compact().await.unwrap();
            }
        }
        let made = destination.writer().compact().await.unwrap();
        assert_eq!(made[0].files.len() > 1, memory.0 < 1 << 20, "{made:?}");
        let from = current(Path::new(&scene.config.location), "public", "t");
        states.push(scene.texts(STATE, &from).await);
    }
    assert_eq!(states[0].len(), 5000 - 250);
    assert_eq!(states[0], states[1]);
    assert!(states[0].contains(&"20000 0 UPSERT 500 1".to_owned()), "a row that moved four times has its value");
}

#[tokio::test]
async fn small_files_become_large_ones_and_no_row_is_lost() {
    let Some(scene) = Scene::new(None).await else { return };
    let destination = scene.open();
    scene.run(&destination, vec![insert(["c", "1"])]).await;
    for round in 2..40_u64 {
        let (batch, events) = transaction(round * 100, vec![insert([&format!("k{round}"), "x"])]);
        destination.write_batch(batch, events).await.unwrap();
    }
    let (before, log) = (files(&scene.place(), "log").len(), scene.log().await);
    assert_eq!(destination.writer().merge().await.unwrap(), before);
    assert_eq!((files(&scene.place(), "log").len(), scene.log().await), (1, log.clone()));
    drop(destination);
    let destination = scene.open();
    let at = destination.durable_position(CursorId::Main).await.unwrap();
    assert_eq!((at, scene.log().await), (Some(Position::after(Lsn(3900))), log));
}

#[tokio::test]
async fn merging_and_compacting_come_by_themselves_and_at_the_end() {
    let Some(mut scene) = Scene::new(Some(WriteMode::Upsert)).await else { return };
    scene.config.merge_every = Duration::from_millis(20);
    scene.config.compact = CompactConfig { every: Duration::from_millis(20), ..CompactConfig::default() };
    let destination = scene.open();
    scene.run(&destination, vec![insert(["c", "1"])]).await;
    let pointer = scene.place().join("public/t/current.json");
    for round in 2..200_u64 {
        let (batch, events) = transaction(round * 100, vec![insert([&format!("k{round}"), "x"])]);
        destination.write_batch(batch, events).await.unwrap();
        if round > 40 && pointer.exists() && files(&scene.place(), "log").len() < 20 {
            break;
        }
        assert!(round < 199, "nothing was merged");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(destination);
    scene.config.merge_every = Duration::ZERO;
    scene.config.compact = CompactConfig { every: Duration::ZERO, at_end: true, ..CompactConfig::default() };
    let destination = scene.open();
    let (batch, events) = transaction(30_000, vec![insert(["last", "1"])]);
    destination.write_batch(batch, events).await.unwrap();
    destination.shutdown().await.unwrap();
    assert!(scene.current().await.contains(&"last 1 UPSERT 30000 1".to_owned()));
}

#[tokio::test]
async fn whoever_wrote_before_cannot_write_any_more() {
    let Some(scene) = Scene::new(None).await else { return };
    let before = scene.open();
    scene.run(&before, vec![insert(["c", "1"])]).await;
    let strange = scene.place().join("public/t/log/1-000001-000000000077-0badcafe.parquet");
    std::fs::write(&strange, "of a write that was cut short").unwrap();
    let foreign = scene.place().join("public/t/log/mine.parquet");
    std::fs::copy(&files(&scene.place(), "log")[0], &foreign).unwrap();
    let looked = scene.open();
    looked.check_connection().await.unwrap();
    let after = scene.open();
    assert_eq!(after.durable_position(CursorId::Main).await.unwrap(), Some(Position::after(Lsn(100))));
    assert!(!strange.exists() && foreign.exists());
    let (batch, events) = transaction(200, vec![insert(["d", "1"])]);
    let error = before.write_batch(batch.clone(), events.clone()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Locked && error.hint_text().is_some(), "{error}");
    after.write_batch(batch, events).await.unwrap();
    std::fs::remove_file(foreign).unwrap();
    assert_eq!(scene.log().await.len(), 4, "each row once");
}

#[tokio::test]
async fn what_is_wrong_is_refused() {
    let Some(mut scene) = Scene::new(Some(WriteMode::Upsert)).await else { return };
    let open = |config: ParquetConfig| Parquet::with_config(config, Arc::clone(&scene.store), TableRules::default());
    let error = open(ParquetConfig { compression_level: 23, ..scene.config.clone() }).unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.hint_text().is_some(), "{error}");
    assert!(open(ParquetConfig { file_bytes: ByteSize(0), ..scene.config.clone() }).is_err());
    let nowhere = open(ParquetConfig::new(scene.dir.path().join("no/such").display().to_string())).unwrap();
    let error = nowhere.check_connection().await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");

    let mut keyless = etl::schema::TableSchema::clone(&schema());
    (keyless.id, keyless.key) = (etl::schema::TableId(2), Box::default());
    keyless.columns[1].kind = etl::schema::Kind::Array(Arc::new(etl::schema::Kind::Hstore));
    let keyless = Arc::new(keyless);
    scene.store.put_schema(Arc::clone(&keyless)).await.unwrap();
    let error = scene.open().write_copy_chunk(keyless.id, chunk(), Vec::new().into()).await.unwrap_err();
    assert_eq!((error.kind(), error.table()), (ErrorKind::DestinationUnsupported, Some(keyless.id)), "{error}");
    scene.config.options = [("aws_region".to_owned(), etl::Secret::new("x"))].into();
    let error = scene.open().startup().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}
