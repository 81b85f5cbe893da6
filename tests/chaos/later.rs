//! Is no row lost, and none handed over twice that must not be, when the process dies anywhere between sealing a batch and
//! forgetting it? The system lives in the test, the pipeline in a process of its own, which is killed.

mod client;
mod vendor;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etl::pipeline::{BatchSettings, Pipeline, Settings};
use etl::source::SourceConfig;
use etl::store::{DeadLetterStore, OperationStore, SharedStore, SqliteStore};
use etl_destinations::bulk::{Bulk, BulkSettings};
use etl_destinations::table_rules::TableRules;
use harness::kill::Program;
use harness::postgres::{Database, database};
use serde_json::{Value, json};
use tokio_postgres::Client as Source;

use self::client::{Class, Client};
use self::vendor::Vendor;

/// What the process is told that this test starts: its own executable, with one test.
const TOLD: &str = "ETL_TEST_LATER";

const SOON: Duration = Duration::from_secs(120);

/// Where the process dies, in the order in which a batch meets the places: C0 to C12 of the design.
const POINTS: [&str; 14] = [
    "bulk.building",
    "bulk.on_disk",
    "bulk.sealed",
    "bulk.submitting",
    "bulk.step_saved",
    "bulk.answered",
    "bulk.submitted",
    "bulk.polled",
    "bulk.outcomes_read",
    "bulk.settling",
    "bulk.settled",
    "bulk.cleaned_up",
    "progress.before_store",
    "progress.before_confirm",
];

/// Before these it is not known whether the batch has arrived.
const IN_DOUBT: [&str; 3] = ["bulk.submitting", "bulk.step_saved", "bulk.answered"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the tests beside it start it"]
async fn pipeline() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let told: Value = serde_json::from_str(&told).unwrap();
    let word = |name: &str| told[name].as_str().unwrap().to_owned();
    let data = PathBuf::from(word("data"));
    let class = Class::ALL.into_iter().find(|class| class.name() == word("class")).unwrap();
    let store: SharedStore = Arc::new(SqliteStore::open(&data).await.unwrap());
    let client = Client { address: word("address").parse().unwrap(), class };
    let settings = BulkSettings { dead_letters: true, ..BulkSettings::new(data.join("spool")) };
    let destination = Bulk::destination(client, settings, Arc::clone(&store), TableRules::default());
    let batch = BatchSettings { max_age: Duration::from_millis(20), ..BatchSettings::default() };
    let source = SourceConfig::from_url(&word("url")).unwrap().publication("p");
    let running = Pipeline::builder(word("id"), source)
        .settings(Settings { batch, ..Settings::default() })
        .data_dir(&data)
        .store(store)
        .destination(destination)
        .build()
        .unwrap();
    let running = running.start().await.unwrap();
    running.handle().caught_up().await.unwrap();
    running.shutdown(SOON).await.unwrap();
}

/// A source, the system, and a pipeline between them.
struct Scene {
    source: Source,
    vendor: Vendor,
    program: Program,
    dir: tempfile::TempDir,
    _database: Database,
    rows: u32,
}

impl Scene {
    async fn new(class: Class) -> Option<Self> {
        let database = database().await?;
        let source = database.client().await;
        let sql = "CREATE TABLE t (k text PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t";
        source.batch_execute(sql).await.unwrap();
        let (vendor, address) = Vendor::open().await;
        let dir = tempfile::tempdir().unwrap();
        let told = json!({
            "data": dir.path(), "class": class.name(), "url": database.url(), "address": address.to_string(),
            "id": database.name(),
        });
        let this = std::env::current_exe().unwrap();
        let words = ["later::pipeline", "--exact", "--ignored", "--nocapture"];
        let program = Program::at(&this, words).variable(TOLD, told.to_string());
        Some(Self { source, vendor, program, dir, _database: database, rows: 0 })
    }

    fn data(&self) -> &Path {
        self.dir.path()
    }

    /// Writes rows of which some are bad, and changes and removes older ones, in one transaction.
    async fn write(&mut self) {
        let (first, last) = (self.rows + 1, self.rows + 20);
        self.rows = last;
        let sql = format!(
            "BEGIN;
             INSERT INTO t SELECT 'k' || n, CASE WHEN n % 4 = 1 THEN 'bad ' ELSE 'good ' END || n FROM generate_series({first}, {last}) n;
             UPDATE t SET v = 'good again ' || {last} WHERE k IN (SELECT 'k' || n FROM generate_series({first} - 10, {first} - 1, 3) n);
             DELETE FROM t WHERE k = 'k' || ({first} - 2);
             COMMIT"
        );
        self.source.batch_execute(&sql).await.unwrap();
    }

    /// Runs until it dies at the place.
    async fn die(&self, at: &str, visit: u32) {
        let mut running = self.program.clone().failpoints(format!("{at}=kill@{visit}")).start().unwrap();
        let ended = running.end(SOON).await.unwrap();
        assert_eq!(ended.code(), None, "it did not die at {at}\n{}", running.output());
    }

    /// Runs until everything is there.
    async fn catch_up(&self) {
        let mut running = self.program.start().unwrap();
        let ended = running.end(SOON).await.unwrap();
        assert!(ended.success(), "{ended}\n{}", running.output());
    }

    fn submits(&self) -> BTreeMap<String, u32> {
        self.vendor.content().submits.clone()
    }

    /// The system has what the source has, but for what is bad, which is in dead letters: each change once.
    async fn assert_equal(&self, at: &str) {
        let rows = self.source.query("SELECT k, v FROM t", &[]).await.unwrap();
        let rows = rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, String>(1)));
        let (bad, good): (BTreeMap<_, _>, BTreeMap<_, _>) = rows.partition(|(_, value)| value.contains("bad"));
        let has = self.vendor.content().rows.clone();
        assert_eq!(has, good, "after a death at {at}");
        let store = SqliteStore::open(self.data()).await.unwrap();
        let letters = store.dead_letters(None, None, u32::MAX).await.unwrap();
        let mut places: Vec<_> = letters.iter().map(|letter| (letter.key.clone(), letter.position)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), letters.len(), "no letter twice after a death at {at}");
        for letter in &letters {
            assert!(letter.row["v"].as_str().unwrap().contains("bad"), "{letter:?}");
        }
        let kept: BTreeMap<String, String> = letters
            .iter()
            .map(|letter| (letter.key.as_ref().unwrap()[0].clone(), letter.row["v"].as_str().unwrap().to_owned()))
            .collect();
        let lost: Vec<_> = bad.iter().filter(|(key, value)| kept.get(*key) != Some(value)).collect();
        assert!(lost.is_empty(), "lost after a death at {at}: {lost:?}");
        let operations = store.operations().await.unwrap();
        assert!(operations.iter().all(|operation| operation.state.is_settled()), "{operations:?}");
        assert!(operations.len() <= 1, "what is past is forgotten: {operations:?}");
        let spool = std::fs::read_dir(self.data().join("spool")).unwrap().count();
        assert_eq!(spool, 0, "what is settled is not kept on disk after a death at {at}");
    }

    /// How often the changes of the stream were committed that were committed most.
    fn most_commits(&self) -> u32 {
        let content = self.vendor.content();
        let streamed = content.committed.iter().filter(|((_, _, ordinal), _)| *ordinal > 0);
        streamed.map(|(_, count)| *count).max().unwrap_or(0)
    }
}

/// Dies at each place, and goes on from there.
async fn dies_and_goes_on(class: Class, points: &[&str]) {
    let Some(mut scene) = Scene::new(class).await else { return };
    scene.write().await;
    // In the copy first: its second batch.
    scene.die("bulk.submitted", 2).await;
    scene.catch_up().await;
    scene.assert_equal("bulk.submitted, in the copy").await;
    let may_double = matches!(class, Class::Idempotent | Class::Unsafe);
    let mut doubled = 0;
    for at in points {
        scene.write().await;
        scene.die(at, if at.starts_with("bulk") { 2 } else { 1 }).await;
        let before = scene.submits();
        scene.catch_up().await;
        scene.assert_equal(at).await;
        let after = scene.submits();
        let again: u32 = before.iter().map(|(batch, count)| after[batch] - count).sum();
        let most = u32::from(IN_DOUBT.contains(at));
        assert!(again <= most, "{class:?}: handed over again {again} times after a death at {at}");
        doubled += u32::from(*at == "bulk.answered");
        let commits = if may_double && doubled > 0 { 2 } else { 1 };
        assert!(scene.most_commits() <= commits, "{class:?}: committed twice after a death at {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_that_knows_our_names_commits_each_batch_once_wherever_the_process_dies() {
    let points: Vec<&str> = POINTS.into_iter().filter(|at| *at != "bulk.step_saved").collect();
    dies_and_goes_on(Class::ClientId, &points).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_that_can_be_asked_commits_each_batch_once_wherever_the_process_dies() {
    let points: Vec<&str> = POINTS.into_iter().filter(|at| *at != "bulk.step_saved").collect();
    dies_and_goes_on(Class::Discover, &points).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_of_two_steps_commits_each_batch_once_wherever_the_process_dies() {
    dies_and_goes_on(Class::TwoStep, &POINTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_without_either_gets_a_batch_again_only_where_nobody_knows_whether_it_has_it() {
    let points = ["bulk.sealed", "bulk.submitting", "bulk.submitted", "bulk.settled", "bulk.answered"];
    dies_and_goes_on(Class::Idempotent, &points).await;
    dies_and_goes_on(Class::Unsafe, &points).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_dealt_with_as_the_class_says() {
    for class in Class::ALL {
        let Some(mut scene) = Scene::new(class).await else { return };
        scene.catch_up().await;
        scene.write().await;
        scene.vendor.content().lost_answers = 1;
        scene.catch_up().await;
        scene.assert_equal("a lost answer").await;
        let may_double = matches!(class, Class::Idempotent | Class::Unsafe);
        assert_eq!(scene.most_commits(), if may_double { 2 } else { 1 }, "{class:?}");
    }
}
