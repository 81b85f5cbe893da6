//! Is a current state right that is made beside the pipeline, whatever that writes, merges and compacts meanwhile?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use etl::destination::Destination;
use etl::store::{MemoryStore, SharedStore};
use etl::{ByteSize, CursorId, ErrorKind, Lsn, Position};
use etl_destinations::parquet::{Parquet, ParquetConfig};
use etl_destinations::table_destination::TableDestination;
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;
use harness::duckdb::Reader;
use harness::parquet::{Which, current, query, read};

use crate::small_table::{TABLE, chunk, delete, insert, row, schema, transaction, update};

struct Scene {
    reader: Reader,
    store: SharedStore,
    config: ParquetConfig,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Option<Self> {
        let reader = Reader::find_or_skip().await?;
        let store: SharedStore = Arc::new(MemoryStore::new());
        store.put_schema(schema()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = ParquetConfig {
            file_bytes: ByteSize(64 << 10),
            ..ParquetConfig::new(dir.path().join("lake").display().to_string())
        };
        Some(Self { reader, store, config, dir })
    }

    fn rules() -> TableRules {
        let defaults = RuleSettings { write_mode: Some(WriteMode::Upsert), ..RuleSettings::default() };
        TableRules { defaults, rules: Vec::new() }
    }

    fn open(&self) -> TableDestination<Parquet> {
        Parquet::with_config(self.config.clone(), Arc::clone(&self.store), Self::rules()).unwrap()
    }

    /// Compacts from beside, again and again; says how often a state was made, and how often a pipeline had started.
    fn guest(&self, ends: &Arc<AtomicBool>) -> tokio::task::JoinHandle<(usize, usize)> {
        let (config, ends) = (self.config.clone(), Arc::clone(ends));
        tokio::spawn(async move {
            let (mut made, mut locked) = (0, 0);
            while !ends.load(Ordering::Relaxed) {
                match Parquet::compact_beside(config.clone(), Self::rules()).await {
                    Ok(states) => made += states.len(),
                    Err(error) if error.kind() == ErrorKind::Locked => locked += 1,
                    Err(error) => panic!("{error:?}"),
                }
                tokio::task::yield_now().await;
            }
            (made, locked)
        })
    }

    /// That log and state are what was written, each row once.
    async fn expect(&self, rows: &BTreeMap<String, String>, changes: usize) {
        let place = self.dir.path().join("lake");
        let sql = format!("SELECT k, v FROM {} ORDER BY k", current(&place, "public", "t"));
        let expected: Vec<_> = rows.iter().map(|(key, value)| vec![Some(key.clone()), Some(value.clone())]).collect();
        assert_eq!(query(&self.reader, &sql).await, expected);
        let log = read(&self.reader, &place, "public.t", Which::Log, &[]).await.unwrap().unwrap();
        let mut positions: Vec<(u64, u64)> =
            log.iter().filter(|row| row.position.1 > 0).map(|row| row.position).collect();
        positions.sort_unstable();
        positions.dedup();
        assert_eq!((positions.len(), log.len()), (changes, changes + 2), "each row once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_made_beside_a_pipeline_that_writes_merges_and_compacts() {
    let Some(scene) = Scene::new().await else { return };
    let mut pipeline = scene.open();
    let copied = ["a", "b"].map(|key| row(&schema(), [key, "old"])).to_vec();
    pipeline.write_copy_chunk(TABLE, chunk(), copied.into()).await.unwrap();
    let mut rows: BTreeMap<String, String> = ["a", "b"].map(|key| (key.to_owned(), "old".to_owned())).into();
    let ends = Arc::new(AtomicBool::new(false));
    let guest = scene.guest(&ends);
    let rounds = 300_u64;
    let mut changes = 0;
    for round in 1..=rounds {
        let (key, value) = (format!("k{}", round % 37), format!("round {round}"));
        let ops = match rows.insert(key.clone(), value.clone()) {
            None => vec![insert([&key, &value])],
            Some(_) if round % 5 == 0 => {
                rows.remove(&key);
                vec![update([&key, &value]), delete(&key)]
            }
            Some(_) => vec![update([&key, &value])],
        };
        changes += ops.len();
        let (batch, events) = transaction(100 * round, ops);
        pipeline.write_batch(batch, events).await.unwrap();
        match round % 20 {
            7 => drop(pipeline.writer().merge().await.unwrap()),
            13 => drop(pipeline.writer().compact().await.unwrap()),
            // The pipeline is killed, and starts again.
            19 if round % 60 == 19 => pipeline = scene.open(),
            _ => {}
        }
    }
    ends.store(true, Ordering::Relaxed);
    let (made, _) = guest.await.unwrap();
    assert!(made > 0, "nothing was made from beside");
    let at = pipeline.durable_position(CursorId::Main).await.unwrap();
    assert_eq!(at, Some(Position::after(Lsn(100 * rounds))));
    Parquet::compact_beside(scene.config.clone(), Scene::rules()).await.unwrap();
    scene.expect(&rows, changes).await;
    // What the other one has made is known at once to whoever writes, and after a start.
    assert!(pipeline.writer().compact().await.unwrap().is_empty());
    drop(pipeline);
    let pipeline = scene.open();
    assert!(pipeline.writer().compact().await.unwrap().is_empty());
    scene.expect(&rows, changes).await;
}

#[tokio::test]
async fn where_nobody_has_written_nothing_is_made() {
    let Some(scene) = Scene::new().await else { return };
    let error = Parquet::compact_beside(scene.config.clone(), Scene::rules()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.hint_text().is_some(), "{error}");
    assert!(!scene.dir.path().join("lake").exists());
}
