//! When does a file of `file` appear, and what is in it, to the byte?

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etl::data::{Event, Op};
use etl::destination::Destination;
use etl::store::{MemoryStore, SharedStore};
use etl::{ByteSize, CursorId, ErrorKind, EtlResult, Lsn, Position};
use etl_destinations::file::{FileConfig, FileFormat, Files};
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;

use crate::small_table::{TABLE, chunk, delete, insert, rekey, row, schema, transaction, update};

struct Scene {
    store: SharedStore,
    config: FileConfig,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new(format: FileFormat) -> Self {
        let store: SharedStore = Arc::new(MemoryStore::new());
        store.put_schema(schema()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = FileConfig { format, ..FileConfig::new(dir.path().join("out")) };
        Self { store, config, dir }
    }

    fn open(&self) -> impl Destination + use<> {
        Files::with_config(self.config.clone(), Arc::clone(&self.store), TableRules::default()).unwrap()
    }

    /// Copies a row, then delivers the changes.
    async fn run(&self, destination: &impl Destination, ops: Vec<Op>) -> EtlResult<()> {
        destination.write_copy_chunk(TABLE, chunk(), vec![row(&schema(), ["a", "-"])].into()).await?;
        let (batch, events) = transaction(100, ops);
        destination.write_batch(batch, events).await
    }

    /// The complete files and what is in them.
    fn files(&self) -> Vec<(String, String)> {
        let mut files: Vec<_> = std::fs::read_dir(self.dir.path().join("out/public/t"))
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|path| !name(path).starts_with('.'))
            .map(|path| (name(&path), std::fs::read_to_string(&path).unwrap()))
            .collect();
        files.sort();
        files
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

const TIME: &str = "2023-11-14 22:13:20+00";

#[tokio::test]
async fn a_file_of_json_lines_has_every_change_and_leaves_out_what_was_not_sent() {
    let scene = Scene::new(FileFormat::Jsonl).await;
    let destination = scene.open();
    let ops = vec![update(["a", "?"]), rekey("a", ["b\n", "2"]), insert(["c", ""]), delete("c")];
    scene.run(&destination, ops).await.unwrap();
    assert!(scene.files().is_empty(), "no file is complete yet");
    destination.shutdown().await.unwrap();
    let line = |values: &str, change: &str, lsn: u64, ordinal: u64| {
        format!(
            "{{{values},\"_CHANGE_TYPE\":\"{change}\",\"_LSN\":{lsn},\"_ORDINAL\":{ordinal},\"_TIMESTAMP\":\"{TIME}\"}}\n"
        )
    };
    let expected = [
        line(r#""k":"a","v":null"#, "UPSERT", 50, 0),
        line(r#""k":"a""#, "UPDATE", 100, 1),
        line(r#""k":"a","v":null"#, "DELETE", 100, 2),
        line(r#""k":"b\n","v":"2""#, "UPDATE", 100, 3),
        line(r#""k":"c","v":"""#, "INSERT", 100, 4),
        line(r#""k":"c","v":null"#, "DELETE", 100, 5),
    ];
    assert_eq!(scene.files(), [("1-000001-000000001.jsonl".to_owned(), expected.concat())]);
}

#[tokio::test]
async fn a_file_of_csv_tells_null_from_text_and_refuses_what_was_not_sent() {
    let mut scene = Scene::new(FileFormat::Csv).await;
    scene.config.delimiter = ';';
    let destination = scene.open();
    let ops = vec![insert(["b", ""]), insert(["c;\"", "\\N"]), insert(["d\r\n", ","])];
    scene.run(&destination, ops).await.unwrap();
    let (batch, events) = transaction(200, vec![update(["a", "?"])]);
    let error = destination.write_batch(batch, events).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value, "{error}");
    assert!(error.to_string().contains("REPLICA IDENTITY FULL"), "{error}");
    destination.shutdown().await.unwrap();
    let expected = format!(
        "k;v;_CHANGE_TYPE;_LSN;_ORDINAL;_TIMESTAMP\na;\\N;UPSERT;50;0;{TIME}\nb;\"\";INSERT;100;1;{TIME}\n\
         \"c;\"\"\";\"\\N\";INSERT;100;2;{TIME}\n\"d\r\n\";,;INSERT;100;3;{TIME}\n"
    );
    assert_eq!(scene.files(), [("1-000001-000000001.csv".to_owned(), expected)]);
}

#[tokio::test]
async fn a_file_of_sql_has_a_statement_for_every_change_and_refuses_what_was_not_sent() {
    let scene = Scene::new(FileFormat::Sql).await;
    let destination = scene.open();
    scene.run(&destination, vec![insert(["b'", "\\"]), delete("b'")]).await.unwrap();
    let (batch, events) = transaction(200, vec![update(["a", "?"])]);
    let error = destination.write_batch(batch, events).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value, "{error}");
    destination.shutdown().await.unwrap();
    let line = |values: &str, change: &str, lsn: u64, ordinal: u64| {
        let columns = r#"("k", "v", "_CHANGE_TYPE", "_LSN", "_ORDINAL", "_TIMESTAMP")"#;
        let stamp = format!("'{change}', '{lsn}', '{ordinal}', '{TIME}'");
        format!("INSERT INTO \"public\".\"t\" {columns} VALUES ({values}, {stamp});\n")
    };
    let expected = [
        line("'a', NULL", "UPSERT", 50, 0),
        line(r"'b''', '\'", "INSERT", 100, 1),
        line("'b''', NULL", "DELETE", 100, 2),
    ];
    assert_eq!(scene.files(), [("1-000001-000000001.sql".to_owned(), expected.concat())]);
}

#[tokio::test]
async fn a_file_is_complete_when_it_is_large_or_old_enough() {
    let mut scene = Scene::new(FileFormat::Jsonl).await;
    (scene.config.max_bytes, scene.config.max_age) = (ByteSize(1000), Duration::from_secs(2));
    let destination = scene.open();
    scene.run(&destination, vec![insert(["b", &"x".repeat(1000)])]).await.unwrap();
    assert_eq!(scene.files().len(), 1, "too large to wait");
    let (batch, events) = transaction(200, vec![insert(["c", "small"])]);
    destination.write_batch(batch, events).await.unwrap();
    assert_eq!(scene.files().len(), 1);
    for _ in 0..12000 {
        if scene.files().len() == 2 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a file that is old enough did not appear by itself");
}

#[tokio::test]
async fn a_changed_shape_begins_a_new_file_and_a_restart_goes_on_with_the_old_one() {
    let scene = Scene::new(FileFormat::Csv).await;
    scene.run(&scene.open(), vec![insert(["b", "1"])]).await.unwrap();
    let destination = reopened(&scene).await;
    let (batch, events) = transaction(200, vec![insert(["c", "2"])]);
    destination.write_batch(batch, events).await.unwrap();
    let mut after = etl::schema::TableSchema::clone(&schema());
    after.columns[1].name = "label".into();
    let after = Arc::new(after);
    let (batch, mut events) = transaction(300, vec![Op::Insert { new: row(&after, ["d", "3"]) }]);
    events.insert(0, Event::Relation { new: Arc::clone(&after), position: Position::new(Lsn(300), 1) });
    destination.write_batch(batch, events).await.unwrap();
    destination.shutdown().await.unwrap();
    let files = scene.files();
    let columns =
        |place: usize| files[place].1.lines().map(|line| line.split(",_").next().unwrap()).collect::<Vec<_>>();
    let keys = |place: usize| columns(place).iter().map(|line| line[..3].to_owned()).collect::<Vec<_>>();
    assert_eq!(files.len(), 2);
    assert_eq!(keys(0), ["k,v", "a,\\", "b,1", "c,2"]);
    assert_eq!(columns(1)[0], "k,label");
}

/// Opens the directory anew, as after a crash.
async fn reopened(scene: &Scene) -> impl Destination + use<> {
    loop {
        let destination = scene.open();
        match destination.startup().await {
            Ok(()) => return destination,
            Err(error) if error.kind() == ErrorKind::Locked => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_look_changes_nothing_and_another_owner_begins_anew() {
    let scene = Scene::new(FileFormat::Jsonl).await;
    let destination = scene.open();
    scene.run(&destination, vec![insert(["b", "1"])]).await.unwrap();
    drop(destination);
    let position = etl::Position::after(Lsn(100));
    let destination = reopened(&scene).await;
    assert_eq!(destination.durable_position(CursorId::Main).await.unwrap(), Some(position));
    drop(destination);

    // With a store that knows nothing, as `etl check` has it.
    let stranger = Scene { store: Arc::new(MemoryStore::new()), config: scene.config.clone(), dir: scene.dir };
    let is_locked = |looked: &EtlResult<()>| looked.as_ref().is_err_and(|error| error.kind() == ErrorKind::Locked);
    let mut looked = stranger.open().check_connection().await;
    while is_locked(&looked) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        looked = stranger.open().check_connection().await;
    }
    looked.unwrap();
    let asked = reopened(&stranger).await;
    assert_eq!(asked.durable_position(CursorId::Main).await.unwrap(), None, "the position is somebody else's");
    drop(asked);
    let scene = Scene { store: scene.store, ..stranger };
    let destination = reopened(&scene).await;
    assert_eq!(destination.durable_position(CursorId::Main).await.unwrap(), Some(position), "and stays theirs");
    drop(destination);

    let stranger = Scene { store: Arc::new(MemoryStore::new()), ..scene };
    stranger.store.put_schema(schema()).await.unwrap();
    let destination = reopened(&stranger).await;
    destination.truncate_table(TABLE).await.unwrap();
    stranger.run(&destination, vec![insert(["b", "2"])]).await.unwrap();
    destination.shutdown().await.unwrap();
    assert_eq!(stranger.files().len(), 1, "what was there before is gone");
    assert!(stranger.files()[0].1.contains("\"v\":\"2\""));
}

#[tokio::test]
async fn what_is_wrong_is_refused_before_anything_is_written() {
    let scene = Scene::new(FileFormat::Csv).await;
    let with = |config: FileConfig, mode: Option<WriteMode>| {
        let rules =
            TableRules { defaults: RuleSettings { write_mode: mode, ..RuleSettings::default() }, rules: Vec::new() };
        Files::with_config(config, Arc::clone(&scene.store), rules).map(drop)
    };
    for (delimiter, null) in [('"', "\\N"), ('\n', "\\N"), ('é', "\\N"), (',', "a,b"), (',', "\"")] {
        let config = FileConfig { delimiter, null_marker: null.to_owned(), ..scene.config.clone() };
        let error = with(config, None).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.hint_text().is_some(), "{delimiter} {null}: {error}");
    }
    let error = with(scene.config.clone(), Some(WriteMode::Upsert)).unwrap_err();
    assert!(error.to_string().contains("write_mode: append"), "{error}");
    with(scene.config.clone(), Some(WriteMode::Append)).unwrap();

    let held = scene.open();
    held.startup().await.unwrap();
    let error = scene.open().startup().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Locked && error.hint_text().is_some(), "{error}");
    let nowhere = FileConfig::new(scene.dir.path().join("no/such/place"));
    let files = Files::with_config(nowhere, Arc::clone(&scene.store), TableRules::default()).unwrap();
    let error = files.check_connection().await.unwrap_err();
    assert!(error.to_string().contains("no/such"), "{error}");
}
