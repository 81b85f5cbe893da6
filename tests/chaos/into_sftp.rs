//! Does a server get each row once over SFTP, in files that are whole, whichever side is killed in the middle of one?

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::change_log::read;
use harness::duckdb::Reader;
use harness::kill::Program;
use harness::postgres::{Database, client, database};
use harness::seed::{numbers, seed};
use harness::sshd::Sshd;
use rand::RngExt;

const TABLE: &str = "CREATE TABLE lines (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, words text NOT NULL);
INSERT INTO lines (words) SELECT repeat('copied ', 100) FROM generate_series(1, 2000);
CREATE PUBLICATION p FOR TABLE lines";

const MORE: &str = "INSERT INTO lines (words) SELECT repeat('streamed ', 80) FROM generate_series(1, 1000)";

struct Scene {
    sshd: Sshd,
    source: Database,
    reader: Reader,
    program: Program,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Option<Self> {
        let (reader, sshd) = (Reader::find_or_skip().await?, Sshd::start_or_skip().await?);
        let (source, dir) = (database().await?, tempfile::tempdir().unwrap());
        client(&source.url()).await.batch_execute(TABLE).await.unwrap();
        let id = format!("chaos_{:08x}", rand::random::<u32>());
        let text = format!(
            "pipeline: {{ id: {id}, data_dir: {data:?}, batch: {{ max_age: 50ms }} }}
source: {{ postgres: {{ url: {url:?}, tls: {{ mode: disable }}, publication: p }} }}
destination:
  sftp:
    host: 127.0.0.1
    port: {port}
    user: {user}
    private_key: {key:?}
    known_hosts: {known_hosts:?}
    path: {path:?}
    template: \"{{schema}}/{{table}}/{{part}}.jsonl\"
    timeout: 5s
",
            data = dir.path().join("data"),
            url = source.url(),
            port = sshd.port(),
            user = sshd.user(),
            key = sshd.key(),
            known_hosts = sshd.known_hosts(),
            path = sshd.files(),
        );
        let config = dir.path().join("etl.yaml");
        fs::write(&config, text).unwrap();
        let program = Program::etl(["-c", &config.display().to_string(), "run"]).await;
        Some(Self { sshd, source, reader, program, _dir: dir })
    }

    fn directory(&self) -> PathBuf {
        self.sshd.files().join("public/lines")
    }

    /// The complete files; each has to be whole.
    fn assert_whole(&self) {
        for path in names(&self.directory()) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.ends_with("}\n"), "{} is cut off", path.display());
            for line in text.lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            }
        }
    }

    async fn catch_up(&self) {
        // What a killed process has asked the server for may still be done, and leave something that the next one removes.
        self.sshd.rest().await;
        let mut running = self.program.clone().argument("--until-caught-up").start().unwrap();
        let ended = running.end(Duration::from_secs(180)).await.unwrap();
        assert!(ended.success(), "{ended}\n{}", running.output());
    }

    /// Each row of the source is there, once, and nothing else.
    async fn assert_each_once(&self) {
        self.assert_whole();
        let client = client(&self.source.url()).await;
        let ids = client.query("SELECT id FROM lines ORDER BY id", &[]).await.unwrap();
        let expected: Vec<i64> = ids.iter().map(|row| row.get(0)).collect();
        let log = read(&self.reader, &self.directory(), "\\N").await.unwrap().unwrap();
        let mut found: Vec<i64> = log.iter().map(|row| row.values["id"].clone().unwrap().parse().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, expected);
        let left: Vec<PathBuf> = fs::read_dir(self.directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!left.iter().any(|path| path.extension().is_some_and(|part| part == "part")), "{left:?}");
    }
}

/// The files that are not hidden.
fn names(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).map(|entry| entry.path()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etl_that_is_killed_at_each_step_of_a_file_hands_each_row_over_once() {
    let Some(scene) = Scene::new().await else { return };
    let client = client(&scene.source.url()).await;
    for steps in [
        "sftp.write=kill@1",
        "sftp.write=kill@4",
        "sftp.before_rename=kill@1",
        "sftp.after_rename=kill@1",
        "sftp.before_rename=kill@2",
        "sftp.after_rename=kill@2",
    ] {
        let mut running = scene.program.clone().failpoints(steps).start().unwrap();
        let mut writing = true;
        while writing {
            client.batch_execute(MORE).await.unwrap();
            writing = running.end(Duration::from_millis(200)).await.is_err();
        }
        let ended = running.end(Duration::from_secs(10)).await.unwrap();
        assert_eq!(ended.code(), None, "{steps}: it was not killed\n{}", running.output());
        scene.assert_whole();
    }
    scene.catch_up().await;
    scene.assert_each_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_row_arrives_once_while_both_sides_are_killed_at_any_time() {
    let Some(scene) = Scene::new().await else { return };
    let client = client(&scene.source.url()).await;
    let seed = seed(37);
    println!("kills from seed {seed}");
    let mut rng = numbers(seed, 7);
    let mut running = scene.program.start().unwrap();
    for _ in 0..12 {
        client.batch_execute(MORE).await.unwrap();
        if let Ok(ended) = running.end(Duration::from_millis(rng.random_range(20..600))).await {
            panic!("etl gave up: {ended}\n{}", running.output());
        }
        if rng.random_range(0..2) == 0 {
            running.kill().await;
            running = scene.program.start().unwrap();
        } else {
            scene.sshd.kill();
            scene.assert_whole();
            scene.sshd.up();
        }
        scene.assert_whole();
    }
    running.kill().await;
    scene.catch_up().await;
    scene.assert_each_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_is_killed_anywhere_ends_with_each_row_once_and_leaves_nothing_hidden() {
    let Some(scene) = Scene::new().await else { return };
    let client = client(&scene.source.url()).await;
    let refresh = scene.program.clone().variable("ETL__PIPELINE__MODE", "full_refresh");
    let whole = async || {
        let mut running = refresh.clone().start().unwrap();
        let ended = running.end(Duration::from_secs(180)).await.unwrap();
        assert!(ended.success(), "{ended}\n{}", running.output());
        scene.assert_each_once().await;
        let hidden = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
        assert!(!fs::read_dir(scene.sshd.files()).unwrap().flatten().any(hidden), "what a run has left is removed");
    };
    whole().await;
    for (steps, is_shown) in [
        ("sftp.before_rename=kill", false),
        ("bulk.settled=kill", false),
        ("run.staged=kill", false),
        ("run.sealed=kill", false),
        ("sftp.run_shown=kill", true),
        ("run.published=kill", true),
    ] {
        let before = names(&scene.directory());
        client.batch_execute(MORE).await.unwrap();
        let mut running = refresh.clone().failpoints(steps).start().unwrap();
        let ended = running.end(Duration::from_secs(60)).await.unwrap();
        assert_eq!(ended.code(), None, "{steps}: it was not killed\n{}", running.output());
        assert_eq!(names(&scene.directory()) != before, is_shown, "{steps}");
        whole().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_run_that_is_killed_anywhere_shows_nothing_before_it_is_whole_and_each_row_once() {
    let Some(scene) = Scene::new().await else { return };
    let client = client(&scene.source.url()).await;
    // Each transaction is several batches.
    let run = scene.program.clone().variable("ETL__PIPELINE__MODE", "incremental");
    let run = run.variable("ETL__PIPELINE__BATCH__MAX_ROWS", "300");
    let assert_whole = async || {
        scene.assert_each_once().await;
        let hidden = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
        assert!(!fs::read_dir(scene.sshd.files()).unwrap().flatten().any(hidden), "what a run has left is removed");
    };
    let whole = async || {
        scene.sshd.rest().await;
        let mut running = run.clone().start().unwrap();
        let ended = running.end(Duration::from_secs(180)).await.unwrap();
        assert!(ended.success(), "{ended}\n{}", running.output());
        assert_whole().await;
    };
    whole().await;
    for (steps, is_shown) in [
        ("apply.after_write=kill@2", Some(false)),
        ("sftp.before_rename=kill@3", Some(false)),
        ("bulk.settled=kill@4", Some(false)),
        ("apply.before_write=kill@6", Some(false)),
        ("sftp.file_shown=kill@2", Some(true)),
        ("sftp.run_shown=kill", Some(true)),
        ("bulk.taken_over=kill", Some(true)),
        // What came before the run may be confirmed before any of it is shown.
        ("progress.before_store=kill", None),
    ] {
        let before = names(&scene.directory());
        for _ in 0..3 {
            client.batch_execute(MORE).await.unwrap();
        }
        let mut running = run.clone().failpoints(steps).start().unwrap();
        let ended = running.end(Duration::from_secs(120)).await.unwrap();
        assert_eq!(ended.code(), None, "{steps}: it was not killed\n{}", running.output());
        let was_shown = names(&scene.directory()) != before;
        assert_eq!(was_shown, is_shown.unwrap_or(was_shown), "{steps}");
        scene.assert_whole();
        // The next one need not be of the same mode.
        if steps.starts_with("bulk") {
            scene.catch_up().await;
            assert_whole().await;
        }
        whole().await;
    }
    let before = names(&scene.directory());
    whole().await;
    assert_eq!(names(&scene.directory()), before, "a run that has nothing to bring");
}
