//! Where and when is a file on the server? At its path, whole or not at all, whatever fails in the middle of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etl::data::Event;
use etl::destination::{Batch, Destination, Mode};
use etl::retry::RetryPolicy;
use etl::store::{MemoryStore, SharedStore};
use etl::{ByteSize, ErrorKind, EtlResult, Lsn, Position};
use etl_destinations::bulk::{Bulk, Simple};
use etl_destinations::dead_rows::DeadLetterRules;
use etl_destinations::sftp::{OnTruncate, Sftp, SftpConfig, SftpFormat};
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_rules::{RuleSettings, TableRules};
use harness::change_log::read;
use harness::disk::SmallDisk;
use harness::duckdb::Reader;
use harness::proxy::Proxy;
use harness::sshd::Sshd;

use crate::rules::all_in;
use crate::sftp::reaching;
use crate::small_table::{COMMITTED, TABLE, chunk, delete, insert, row, schema, transaction};

type Opened = TableDestination<Bulk<Simple<Sftp>>>;

/// A server, and a pipeline's store and spool.
struct Scene {
    sshd: Sshd,
    reader: Reader,
    store: SharedStore,
    spool: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Option<Self> {
        let (reader, sshd) = (Reader::find_or_skip().await?, Sshd::start_or_skip().await?);
        let store: SharedStore = Arc::new(MemoryStore::new());
        store.put_schema(schema()).await.unwrap();
        Some(Self { sshd, reader, store, spool: tempfile::tempdir().unwrap() })
    }

    fn config(&self) -> SftpConfig {
        reaching(&self.sshd).of_pipeline("shop", self.spool.path())
    }

    fn open(&self, config: SftpConfig) -> Opened {
        self.open_with(config, TableRules::default())
    }

    /// Nothing is tried again.
    fn open_with(&self, config: SftpConfig, rules: TableRules) -> Opened {
        let once = RetryPolicy { give_up_after: Some(Duration::ZERO), ..RetryPolicy::default() };
        Sftp::with_config(config, Arc::clone(&self.store), rules).unwrap().with_retry(once)
    }

    /// The keys and change types of the rows in a directory.
    async fn rows(&self, directory: &Path) -> Vec<(String, String)> {
        let rows = read(&self.reader, directory, "\\N").await.unwrap().unwrap_or_default();
        rows.into_iter().map(|row| (row.values["k"].clone().unwrap_or_default(), row.change_type)).collect()
    }
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found.sort();
    found
}

fn is_part(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "part")
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn write(destination: &Opened, commit: u64, keys: impl IntoIterator<Item = String>) -> EtlResult<()> {
    write_long(destination, commit, keys, "x").await
}

async fn write_long(
    destination: &Opened,
    commit: u64,
    keys: impl IntoIterator<Item = String>,
    value: &str,
) -> EtlResult<()> {
    let ops = keys.into_iter().map(|key| insert([&key, value])).collect();
    let (batch, events) = transaction(commit, ops);
    destination.write_batch(batch, events).await
}

/// The source empties the table.
fn emptied(commit: u64) -> (Batch, Vec<Event>) {
    let positions = Box::new([Position::new(Lsn(commit), 1)]);
    let event = Event::Truncate { tables: Box::new([TABLE]), positions, at: COMMITTED };
    (transaction(commit, Vec::new()).0, vec![event])
}

fn keys(count: u32) -> impl Iterator<Item = String> + Clone {
    (0..count).map(|n| format!("{n:05}"))
}

#[tokio::test]
async fn files_are_where_the_template_says_in_the_format_that_was_chosen() {
    let Some(scene) = Scene::new().await else { return };
    for (number, format, ending) in
        [(1, SftpFormat::Jsonl, "jsonl"), (2, SftpFormat::Json, "json"), (3, SftpFormat::Csv, "csv")]
    {
        let template = "{pipeline}/{format}/{year}{month}{day}T{hour}/{schema}.{table}/new_{operation}.{format}";
        let config = SftpConfig {
            template: template.to_owned(),
            format,
            delimiter: ',',
            null_marker: "\\N".to_owned(),
            max_rows: 2,
            ..scene.config()
        };
        let destination = scene.open(config);
        destination.write_table_rows(TABLE, Vec::new()).await.unwrap();
        write(&destination, 1000 * number, keys(3)).await.unwrap();
        let (batch, events) = transaction(1000 * number + 100, vec![delete("00001")]);
        destination.write_batch(batch, events).await.unwrap();
        let (batch, events) = emptied(1000 * number + 200);
        destination.write_batch(batch, events).await.unwrap();

        let found = files(&scene.sshd.files().join("shop").join(ending));
        assert_eq!(found.len(), 4, "two, one, and one each for what came later: {found:?}");
        let mut rows = Vec::new();
        for directory in found.iter().map(|path| path.parent().unwrap()).collect::<BTreeSet<_>>() {
            rows.extend(scene.rows(directory).await);
            let hour = directory.parent().unwrap().file_name().unwrap().to_str().unwrap();
            assert!(hour.len() == 11 && hour.starts_with("20") && hour.as_bytes()[8] == b'T', "{hour}");
            assert_eq!(directory.file_name().unwrap(), "public.t");
        }
        rows.sort();
        let row = |key: &str, change: &str| (key.to_owned(), change.to_owned());
        let expected = [row("00000", "INSERT"), row("00001", "DELETE"), row("00001", "INSERT"), row("00002", "INSERT")];
        assert_eq!(rows.iter().filter(|(_, change)| change != "TRUNCATE").cloned().collect::<Vec<_>>(), expected);
        assert_eq!(rows.len(), 5, "and the truncate: {rows:?}");
        for path in found {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(name.starts_with("new_") && name.len() == "new_".len() + 36 + 1 + ending.len(), "{name}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_of_a_file_leaves_none_under_its_name_and_gets_each_row_once() {
    let Some(scene) = Scene::new().await else { return };
    let proxy = Proxy::start(scene.sshd.address()).await.unwrap();
    let config = || SftpConfig {
        port: proxy.port(),
        known_hosts: None,
        host_keys: vec![scene.sshd.fingerprint()],
        ..scene.config()
    };
    let destination = scene.open(config());
    // Connected already, so that what is slow is the file alone.
    write(&destination, 100, keys(1)).await.unwrap();
    proxy.control().throttle(1 << 20);
    let value = "long ".repeat(2000);
    for round in 0..2 {
        let whole = || files(&scene.sshd.files()).into_iter().filter(|path| !is_part(path)).count();
        let is_begun =
            || files(&scene.sshd.files()).iter().any(|path| is_part(path) && fs::metadata(path).unwrap().len() > 0);
        let before = whole();
        let killed = async {
            until(is_begun).await;
            scene.sshd.kill();
        };
        let (written, ()) = tokio::join!(write_long(&destination, 200, keys(300), &value), killed);
        let error = written.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DestinationUnavailable, "round {round}: {error}");
        assert_eq!(whole(), before, "no part of a file has its name");
        scene.sshd.up();
    }
    proxy.control().forward();
    // Another process, which finds what the first one left.
    drop(destination);
    let destination = scene.open(config());
    write_long(&destination, 200, keys(300), &value).await.unwrap();
    let found = files(&scene.sshd.files());
    assert!(!found.iter().any(|path| is_part(path)), "nothing is left of dead attempts: {found:?}");
    let rows = scene.rows(&scene.sshd.files().join("public/t")).await;
    let unique: BTreeSet<_> = rows.iter().filter(|(key, _)| key != "00000").collect();
    assert_eq!((rows.len(), unique.len()), (301, 299), "each row once");
}

#[tokio::test]
async fn what_dead_attempts_of_the_same_pipeline_left_goes_and_what_others_have_stays() {
    let Some(scene) = Scene::new().await else { return };
    let directory = scene.sshd.files().join("public/t");
    fs::create_dir_all(&directory).unwrap();
    for path in [directory.parent().unwrap(), &directory] {
        scene.sshd.own(path);
    }
    for name in [".etl-shop-0a1b2c3d.part", ".etl-other-0a1b2c3d.part", "report.csv"] {
        fs::write(directory.join(name), "left").unwrap();
    }
    let destination = scene.open(scene.config());
    write(&destination, 100, keys(1)).await.unwrap();
    let names: Vec<_> = files(&directory).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.contains(&".etl-other-0a1b2c3d.part".into()) && names.contains(&"report.csv".into()), "{names:?}");
    // A table that is copied anew leaves the files of others alone, and its own go.
    destination.truncate_table(TABLE).await.unwrap();
    destination.write_copy_chunk(TABLE, chunk(), vec![row(&schema(), ["copied", "x"])].into()).await.unwrap();
    fs::remove_file(directory.join("report.csv")).unwrap();
    assert_eq!(scene.rows(&directory).await, [("copied".to_owned(), "UPSERT".to_owned())]);
}

#[tokio::test]
async fn a_name_that_somebody_else_has_is_not_taken_from_him() {
    let Some(scene) = Scene::new().await else { return };
    let directory = scene.sshd.files().join("public/t");
    let destination = scene.open(scene.config());
    write(&destination, 100, keys(1)).await.unwrap();
    let theirs = files(&directory).remove(0);
    // The same batch again, by a store that knows nothing of the first time.
    let forgetful: SharedStore = Arc::new(MemoryStore::new());
    forgetful.put_schema(schema()).await.unwrap();
    let again = Scene { store: forgetful, ..scene };
    let destination = again.open(again.config());
    write(&destination, 100, keys(1)).await.unwrap();
    assert_eq!(files(&directory), std::slice::from_ref(&theirs), "the same batch is the same file, once");
    fs::write(&theirs, "somebody else's").unwrap();
    let forgetful: SharedStore = Arc::new(MemoryStore::new());
    forgetful.put_schema(schema()).await.unwrap();
    let again = Scene { store: forgetful, ..again };
    let destination = again.open(again.config());
    let error = write(&destination, 100, keys(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationRejected, "{error}");
    assert!(error.to_string().contains("another file has the name"), "{error}");
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "somebody else's");
    fs::remove_file(&theirs).unwrap();
    write(&destination, 100, keys(1)).await.unwrap();
    assert_eq!(again.rows(&directory).await.len(), 1, "once there is room it goes on");
}

#[tokio::test]
async fn a_full_disk_at_the_server_is_told_and_nothing_is_lost_once_there_is_room() {
    let Some(scene) = Scene::new().await else { return };
    let small = scene.sshd.files().join("small");
    let Some(disk) = SmallDisk::mount_or_skip(&small, 8) else { return };
    scene.sshd.own(disk.path());
    let config = SftpConfig { path: small.display().to_string(), ..scene.config() };
    let destination = scene.open(config);
    write(&destination, 100, keys(1)).await.unwrap();
    disk.fill().unwrap();
    let value = "long ".repeat(200);
    for _ in 0..2 {
        let error = write_long(&destination, 200, keys(500), &value).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
        assert!(error.to_string().contains("Free some space at the server"), "{error}");
        let found = files(&small);
        assert_eq!(found.len(), 1, "what was begun takes no room: {found:?}");
    }
    disk.make_room().unwrap();
    write_long(&destination, 200, keys(500), &value).await.unwrap();
    assert_eq!(scene.rows(&small.join("public/t")).await.len(), 501);
}

#[tokio::test]
async fn limits_cut_files_and_a_row_that_is_too_long_waits_or_is_a_dead_letter() {
    let Some(scene) = Scene::new().await else { return };
    let config = || SftpConfig { max_bytes: ByteSize(1000), ..scene.config() };
    let destination = scene.open(config());
    write_long(&destination, 100, keys(9), &"y".repeat(300)).await.unwrap();
    let found = files(&scene.sshd.files());
    assert!(found.iter().all(|path| fs::metadata(path).unwrap().len() <= 1000) && found.len() >= 4, "{found:?}");
    let error = write_long(&destination, 200, ["long".to_owned()], &"y".repeat(2000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Value, "{error}");
    let dead_letters = Some(DeadLetterRules { max_percent: 50 });
    let defaults = RuleSettings { dead_letters, ..RuleSettings::default() };
    let destination = scene.open_with(config(), TableRules { defaults, rules: Vec::new() });
    let (batch, events) = transaction(200, vec![insert(["long", &"y".repeat(2000)]), insert(["short", "y"])]);
    destination.write_batch(batch, events).await.unwrap();
    let letters = scene.store.dead_letters(None, None, 100).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.key.clone().unwrap()[0].clone()).collect::<Vec<_>>(), ["long"]);
    let rows = scene.rows(&scene.sshd.files().join("public/t")).await;
    assert_eq!(rows.len(), 10, "{rows:?}");
}

#[tokio::test]
async fn in_upsert_a_truncate_is_an_error_or_left_out_as_the_config_says() {
    let Some(scene) = Scene::new().await else { return };
    let upsert = || all_in(Mode::Upsert);
    let destination = scene.open_with(scene.config(), upsert());
    write(&destination, 100, keys(2)).await.unwrap();
    let (batch, events) = emptied(200);
    let error = destination.write_batch(batch, events).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationUnsupported, "{error}");
    let config = SftpConfig { on_truncate: OnTruncate::Ignore, ..scene.config() };
    let destination = scene.open_with(config, upsert());
    let (batch, events) = emptied(200);
    destination.write_batch(batch, events).await.unwrap();
    let (batch, events) = transaction(300, vec![delete("00001")]);
    destination.write_batch(batch, events).await.unwrap();
    let mut rows = scene.rows(&scene.sshd.files().join("public/t")).await;
    rows.sort();
    let expected = [("00000", "UPSERT"), ("00001", "DELETE"), ("00001", "UPSERT")];
    assert_eq!(rows, expected.map(|(key, change)| (key.to_owned(), change.to_owned())));
}

#[tokio::test]
async fn csv_is_written_with_the_delimiter_and_the_null_marker_that_are_set() {
    let Some(scene) = Scene::new().await else { return };
    let (format, null_marker) = (SftpFormat::Csv, "NIL".to_owned());
    let destination = scene.open(SftpConfig { format, null_marker, delimiter: ';', ..scene.config() });
    let (batch, events) = transaction(100, vec![insert(["a;b", "-"]), insert(["c", "NIL"])]);
    destination.write_batch(batch, events).await.unwrap();
    let text = fs::read_to_string(&files(&scene.sshd.files())[0]).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "k;v;_CHANGE_TYPE;_LSN;_ORDINAL;_TIMESTAMP");
    assert!(
        lines[1].starts_with("\"a;b\";NIL;INSERT;100;1;") && lines[2].starts_with("c;\"NIL\";INSERT;100;2;"),
        "{text}"
    );
}

/// One that holds its connection open and says nothing more: what waits for an answer is given up after `timeout`, and a
/// connection that is not alive after three `keepalive`.
#[tokio::test]
async fn a_server_that_says_nothing_is_left_after_the_timeout_or_when_it_is_not_alive() {
    let Some(scene) = Scene::new().await else { return };
    let (soon, never) = (Duration::from_secs(1), Duration::from_secs(600));
    for (commit, timeout, keepalive) in [(100, soon, never), (200, never, soon)] {
        let proxy = Proxy::start(scene.sshd.address()).await.unwrap();
        let destination = scene.open(SftpConfig {
            port: proxy.port(),
            known_hosts: None,
            host_keys: vec![scene.sshd.fingerprint()],
            timeout,
            keepalive,
            ..scene.config()
        });
        write(&destination, commit, keys(1)).await.unwrap();
        proxy.control().hold();
        let error = write(&destination, commit + 1, keys(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DestinationUnavailable, "{error}");
        proxy.control().forward();
        write(&destination, commit + 1, keys(1)).await.unwrap();
    }
    assert_eq!(scene.rows(&scene.sshd.files().join("public/t")).await.len(), 4);
}
