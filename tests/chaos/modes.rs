//! Is a run that stages shown whole or not at all, and once, wherever it is killed?

use std::path::PathBuf;
use std::time::Duration;

use harness::postgres::database;
use tokio_postgres::Client;

use crate::site::{Site, slots};

const LONG: Duration = Duration::from_secs(300);

/// Runs once; says whether it ended well.
async fn run(site: &Site, mode: &str, failpoints: &str) -> bool {
    let program = site.program.clone().variable("ETL__PIPELINE__MODE", mode).failpoints(failpoints);
    let mut running = program.start().unwrap();
    let ended = running.end(LONG).await.unwrap();
    assert!(ended.success() || !failpoints.is_empty(), "{ended}\n{}", running.output());
    ended.success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_is_killed_anywhere_is_shown_whole_by_the_next_run_and_doubles_nothing() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, round int); CREATE TABLE bare (id int, round int); CREATE TABLE empty (id int);
             INSERT INTO t SELECT g, 0 FROM generate_series(1, 20000) g; INSERT INTO bare SELECT id, 0 FROM t;
             ALTER TABLE bare REPLICA IDENTITY FULL;
             CREATE PUBLICATION p FOR TABLE t, bare, empty",
        )
        .await
        .unwrap();
    let Some(site) = Site::new(&database.url()).await else { return };
    assert!(run(&site, "full_refresh", "").await);
    let count = async || {
        let query =
            "SELECT concat_ws(' ', (SELECT count(*) FROM public.t), (SELECT min(round) FROM public.t), (SELECT max(round) FROM public.t),
                     (SELECT count(*) FROM public.bare), (SELECT min(round) FROM public.bare), (SELECT max(round) FROM public.bare),
                     (SELECT count(*) FROM public.empty))";
        let staged = "SELECT count(*)::VARCHAR FROM duckdb_tables() WHERE contains(table_name, '_stg_')";
        let one = async |sql| site.reader.query(&site.file(), sql).await.unwrap()[0][0].clone().unwrap();
        (one(query).await, one(staged).await)
    };
    let shown = |round: i32| format!("20000 {round} {round} 20000 {round} {round} 0");
    let (mut round, mut last) = (0, 0);
    for (failpoint, is_shown) in [
        ("copy.chunk_written=kill@2", false),
        ("run.staged=kill", false),
        ("run.sealed=kill", false),
        ("run.published=kill", true),
    ] {
        round += 1;
        let next = format!("BEGIN; UPDATE t SET round = {round}; UPDATE bare SET round = {round}; COMMIT");
        client.batch_execute(&next).await.unwrap();
        assert!(!run(&site, "full_refresh", failpoint).await, "{failpoint}");
        last = if is_shown { round } else { last };
        assert_eq!(count().await.0, shown(last), "{failpoint}");
        assert!(run(&site, "full_refresh", "").await, "{failpoint}");
        last = round;
        assert_eq!(count().await, (shown(round), "0".to_owned()), "{failpoint}");
    }
    assert_eq!(slots(&client).await, 0, "no run has made a slot");
    // What dies before it is shown is brought to its end by a run of another mode, too.
    assert!(!run(&site, "full_refresh", "run.sealed=kill").await);
    assert!(run(&site, "incremental", "").await);
    assert_eq!(count().await, (shown(round), "0".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_run_that_is_killed_anywhere_is_gone_on_with_and_doubles_nothing() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, round int); CREATE TABLE bare (id int); ALTER TABLE bare REPLICA IDENTITY FULL;
             INSERT INTO t SELECT g, 0 FROM generate_series(1, 20000) g; CREATE PUBLICATION p FOR TABLE t, bare",
        )
        .await
        .unwrap();
    let Some(site) = Site::new(&database.url()).await else { return };
    for failpoint in [
        "copy.finished=kill",
        "apply.before_write=kill",
        "apply.after_write=kill",
        "progress.before_store=kill",
        "progress.before_confirm=kill",
    ] {
        client
            .batch_execute("UPDATE t SET round = round + 1; INSERT INTO bare SELECT g FROM generate_series(1, 500) g")
            .await
            .unwrap();
        assert!(!run(&site, "incremental", failpoint).await, "{failpoint}");
        assert!(run(&site, "incremental", "").await);
        for table in ["t", "bare"] {
            let pair = harness::compare::Pair::new(format!("public.{table}"), format!("public.{table}"));
            let compared = pair.compare(&client, &site.reader, &site.file()).await;
            compared.unwrap_or_else(|different| panic!("{failpoint}, {table}: {different}"));
        }
    }
    assert_eq!(slots(&client).await, 1);
}

/// Rows so wide that each transaction that changes all of them is several batches, however much is read at once.
const WIDE: &str = "CREATE TABLE t (id int PRIMARY KEY, round int, words text);
    INSERT INTO t SELECT g, 0, repeat('wide ', 300) FROM generate_series(1, 5000) g; CREATE PUBLICATION p FOR TABLE t";

/// Runs are killed there, of which each brings four transactions: what is found then is what is expected of the round before,
/// and after the next run what is expected of this one.
async fn assert_shown_whole(
    site: &Site,
    client: &Client,
    failpoints: &[&str],
    found: impl AsyncFn() -> String,
    expected: impl Fn(i32) -> String,
) {
    assert!(run(site, "incremental", "").await);
    assert_eq!(found().await, expected(0));
    let mut round = 0;
    for failpoint in failpoints {
        for _ in 0..4 {
            client.batch_execute("UPDATE t SET round = round + 1").await.unwrap();
        }
        assert!(!run(site, "incremental", failpoint).await, "{failpoint}");
        assert_eq!(found().await, expected(round), "{failpoint}");
        assert!(run(site, "incremental", "").await, "{failpoint}");
        round += 4;
        assert_eq!(found().await, expected(round), "{failpoint}");
    }
    assert!(run(site, "incremental", "").await, "nothing is to be brought");
    assert_eq!(found().await, expected(round));
}

const BETWEEN_WRITES: [&str; 3] =
    ["apply.after_write=kill@2", "apply.before_write=kill@9", "apply.after_write=kill@14"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_run_that_is_killed_between_its_writes_shows_nothing_of_what_it_brings() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(WIDE).await.unwrap();
    let Some(mut site) = Site::new(&database.url()).await else { return };
    site.program = site.program.clone().variable("ETL__PIPELINE__BATCH__MAX_ROWS", "1000");
    let query = "SELECT concat_ws(' ', count(*), min(round), max(round)) FROM public.t";
    let found = async || site.reader.query(&site.file(), query).await.unwrap()[0][0].clone().unwrap();
    let expected = |round| format!("5000 {round} {round}");
    assert_shown_whole(&site, &client, &BETWEEN_WRITES, found, expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_into_a_lake_that_is_killed_anywhere_shows_nothing_and_the_next_one_each_change_once() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(WIDE).await.unwrap();
    let lake = |file: PathBuf| format!("parquet: {{ location: {:?} }}", file.with_file_name("lake"));
    let Some(mut site) = Site::into_destination(&database.url(), "", "{}", lake).await else { return };
    site.program = site.program.clone().variable("ETL__PIPELINE__BATCH__MAX_ROWS", "1000");
    let place = site.file().with_file_name("lake");
    let found = async || format!("{:?}", harness::parquet::logged_rows(&place, &["public.t"]));
    let expected = |round: i32| format!("{:?}", Some([5000 * (1 + round)]));
    let [first, second, third] = BETWEEN_WRITES;
    let failpoints = [first, second, third, "parquet.run_gathered=kill"];
    assert_shown_whole(&site, &client, &failpoints, found, expected).await;
    let files = place.join("public/t/log/*.parquet").display().to_string();
    let sql = format!("SELECT count(*), count(DISTINCT (id, round)), max(round) FROM read_parquet('{files}')");
    let expected = ["85000", "85000", "16"].map(|text| Some(text.to_owned()));
    assert_eq!(harness::parquet::query(&site.reader, &sql).await, [expected]);
    assert!(!place.join(".etl/staged").exists(), "nothing is left of what has waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_into_files_that_is_killed_anywhere_shows_nothing_and_the_next_one_each_change_once() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(WIDE).await.unwrap();
    let files = |file: PathBuf| format!("file: {{ path: {:?}, max_bytes: 4MiB }}", file.with_file_name("files"));
    let Some(mut site) = Site::into_destination(&database.url(), "", "{}", files).await else { return };
    site.program = site.program.clone().variable("ETL__PIPELINE__BATCH__MAX_ROWS", "1000");
    let directory = site.file().with_file_name("files").join("public/t");
    let files = directory.join("*.jsonl").display().to_string();
    let sql =
        format!("SELECT concat_ws(' ', count(*), count(DISTINCT (id, round)), max(round)) FROM read_json('{files}')");
    let found = async || harness::parquet::query(&site.reader, &sql).await[0][0].clone().unwrap();
    let expected = |round: i32| format!("{0} {0} {round}", 5000 * (1 + round));
    assert_shown_whole(&site, &client, &BETWEEN_WRITES, found, expected).await;
    let names = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name());
    assert!(
        !names.into_iter().any(|name| name.to_string_lossy().starts_with('.')),
        "nothing is left of what has waited"
    );
}
