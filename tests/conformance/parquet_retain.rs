//! How long do files stay that others have taken the place of, and do they go then, after a killed run too?

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etl::clock::{Timestamp, follow_tokio};
use etl::data::Op;
use etl::destination::Destination;
use etl::store::{MemoryStore, SharedStore};
use etl_destinations::parquet::{CompactConfig, Parquet, ParquetConfig, RetainConfig};
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use harness::duckdb::Reader;
use harness::parquet::{current, query};

use crate::small_table::{TABLE, chunk, delete, insert, row, schema, transaction, update};

const MINUTE: Duration = Duration::from_secs(60);

struct Scene {
    store: SharedStore,
    retain: RetainConfig,
    mode: WriteMode,
    dir: tempfile::TempDir,
}

impl Scene {
    /// From here on time passes when it is told to.
    async fn new(retain: RetainConfig) -> Self {
        follow_tokio(Timestamp(1_800_000_000_000_000));
        let store: SharedStore = Arc::new(MemoryStore::new());
        store.put_schema(schema()).await.unwrap();
        Self { store, retain, mode: WriteMode::Upsert, dir: tempfile::tempdir().unwrap() }
    }

    /// Nothing comes by itself.
    fn open(&self) -> TableDestination<Parquet> {
        let config = ParquetConfig {
            merge_every: Duration::ZERO,
            compact: CompactConfig { every: Duration::ZERO, ..CompactConfig::default() },
            retain: self.retain.clone(),
            ..ParquetConfig::new(self.place().display().to_string())
        };
        let defaults = RuleSettings { write_mode: Some(self.mode), ..RuleSettings::default() };
        Parquet::with_config(config, Arc::clone(&self.store), TableRules { defaults, rules: Vec::new() }).unwrap()
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("lake")
    }

    fn count(&self, folder: &str) -> usize {
        std::fs::read_dir(self.place().join("public/t").join(folder)).map_or(0, Iterator::count)
    }

    async fn copied(&self) -> TableDestination<Parquet> {
        let destination = self.open();
        let rows = ["a", "b"].map(|key| row(&schema(), [key, "old"])).to_vec();
        destination.write_copy_chunk(TABLE, chunk(), rows.into()).await.unwrap();
        destination
    }

    async fn state(&self) -> Vec<String> {
        let Some(reader) = Reader::find_or_skip().await else { return Vec::new() };
        // Nobody looks at the clock while another process works.
        tokio::time::resume();
        let rows =
            query(&reader, &format!("SELECT k, v FROM {} ORDER BY k", current(&self.place(), "public", "t"))).await;
        tokio::time::pause();
        rows.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect()
    }
}

async fn write(destination: &impl Destination, commit: u64, ops: Vec<Op>) {
    let (batch, events) = transaction(commit, ops);
    destination.write_batch(batch, events).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_older_state_stays_for_whoever_is_reading_it_and_goes_then() {
    let scene = Scene::new(RetainConfig::default()).await;
    let destination = scene.copied().await;
    for round in 1..4 {
        destination.writer().compact().await.unwrap();
        write(&destination, round * 100, vec![update(["a", &round.to_string()])]).await;
        tokio::time::advance(MINUTE).await;
    }
    assert_eq!(scene.count("current"), 3);
    // The first two were replaced a minute after each other, the first one 2 minutes ago.
    tokio::time::advance(57 * MINUTE).await;
    destination.writer().merge().await.unwrap();
    assert_eq!(scene.count("current"), 3, "nobody has waited for an hour");
    tokio::time::advance(MINUTE).await;
    destination.writer().merge().await.unwrap();
    assert_eq!(scene.count("current"), 2);
    // The process is killed; the next one goes on with it.
    drop(destination);
    let destination = scene.open();
    destination.startup().await.unwrap();
    assert_eq!(scene.count("current"), 2);
    drop(destination);
    tokio::time::advance(MINUTE).await;
    let destination = scene.open();
    destination.startup().await.unwrap();
    assert_eq!(scene.count("current"), 1);
    destination.truncate_table(TABLE).await.unwrap();
    assert_eq!((scene.count("current"), scene.count("log")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn merged_files_go_at_once_or_stay_as_long_as_they_are_told_to() {
    for (stay, left) in [(Duration::ZERO, 1), (MINUTE, 22)] {
        let scene = Scene::new(RetainConfig { merged: stay, ..RetainConfig::default() }).await;
        let destination = scene.copied().await;
        for round in 1..=20 {
            write(&destination, round * 100, vec![insert([&format!("k{round}"), "x"])]).await;
        }
        assert_eq!(destination.writer().merge().await.unwrap(), 21);
        assert_eq!(scene.count("log"), left);
        drop(destination);
        let destination = scene.open();
        destination.startup().await.unwrap();
        assert_eq!(scene.count("log"), left, "a start does not take them away");
        tokio::time::advance(MINUTE).await;
        destination.writer().merge().await.unwrap();
        assert_eq!(scene.count("log"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_current_state_has_leaves_the_log_in_time_and_is_not_lost() {
    let retain = RetainConfig { states: Duration::ZERO, folded: 60 * MINUTE, ..RetainConfig::default() };
    let mut scene = Scene::new(retain).await;
    let destination = scene.copied().await;
    write(&destination, 100, vec![update(["a", "?"]), insert(["c", "1"]), delete("b")]).await;
    destination.writer().compact().await.unwrap();
    tokio::time::advance(30 * MINUTE).await;
    write(&destination, 200, vec![update(["c", "2"])]).await;
    destination.writer().compact().await.unwrap();
    write(&destination, 300, vec![update(["a", "?"])]).await;
    assert_eq!((scene.count("log"), scene.count("current")), (4, 1));
    tokio::time::advance(30 * MINUTE).await;
    assert_eq!(destination.writer().compact().await.unwrap()[0].rows, 2);
    assert_eq!(scene.count("log"), 2, "two files are in a state that is an hour old");
    tokio::time::advance(60 * MINUTE).await;
    assert!(destination.writer().compact().await.unwrap().is_empty());
    assert_eq!(scene.count("log"), 0);
    assert!(destination.writer().compact().await.unwrap().is_empty(), "an empty log is nothing new");
    drop(destination);
    let destination = scene.open();
    write(&destination, 400, vec![update(["a", "?"]), insert(["d", "1"])]).await;
    destination.writer().compact().await.unwrap();
    let expected = ["a old", "c 2", "d 1"];
    let found = scene.state().await;
    assert!(found.is_empty() || found == expected, "{found:?}");
    drop(destination);
    // Another mode begins with the state, since the log is not whole any more.
    scene.mode = WriteMode::SoftDelete;
    let destination = scene.open();
    write(&destination, 500, vec![delete("c")]).await;
    destination.writer().compact().await.unwrap();
    let found = scene.state().await;
    assert!(found.is_empty() || found == expected, "{found:?}");
}
