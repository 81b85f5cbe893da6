//! A pipeline into memory, and what the source has, side by side.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etl::destination::{Destination, MemoryDestination, TextRow};
use etl::pipeline::{BatchSettings, CopySettings, Pipeline, RunningPipeline, Settings};
use etl::schema::TableId;
use etl::source::{OnPartitionGone, Origin, SourceConfig, WalGuard};
use etl::store::{MemoryStore, SharedStore};
use etl::transform::Transform;
use etl::{ByteSize, ErrorKind, EtlError, EtlResult, Lsn};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::watched::Watched;

/// What outlives a run: the destination, the store, and the directory.
pub(crate) struct World {
    pub(crate) id: String,
    pub(crate) url: String,
    pub(crate) memory: MemoryDestination,
    pub(crate) destination: Watched,
    pub(crate) store: SharedStore,
    pub(crate) transform: Transform,
    pub(crate) settings: Settings,
    pub(crate) streaming: bool,
    pub(crate) two_phase: bool,
    pub(crate) decoding_memory: Option<ByteSize>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) origin: Origin,
    pub(crate) failover: Option<bool>,
    pub(crate) wal_guard: WalGuard,
    /// In place of the publication `p`.
    pub(crate) tables: Vec<String>,
    pub(crate) watch_every: Duration,
    pub(crate) on_partition_gone: OnPartitionGone,
    dir: tempfile::TempDir,
}

/// Small batches and chunks, so that there are many.
fn settings() -> Settings {
    Settings {
        batch: BatchSettings { max_age: Duration::from_millis(20), max_rows: 500, ..BatchSettings::default() },
        copy: CopySettings { chunk_bytes: ByteSize(256 << 10), connections_per_table: 2, ..CopySettings::default() },
        ..Settings::default()
    }
}

impl World {
    pub(crate) fn new(id: &str, url: &str) -> Self {
        let memory = MemoryDestination::new();
        Self {
            id: id.to_owned(),
            url: url.to_owned(),
            destination: Watched::new(memory.clone(), true),
            memory,
            store: Arc::new(MemoryStore::new()),
            transform: Transform::default(),
            settings: settings(),
            streaming: true,
            two_phase: false,
            decoding_memory: None,
            heartbeat: None,
            origin: Origin::Any,
            failover: None,
            wal_guard: WalGuard::default(),
            tables: Vec::new(),
            watch_every: Duration::from_millis(300),
            on_partition_gone: OnPartitionGone::Resync,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn pipeline(&self) -> Pipeline {
        self.pipeline_into(self.destination.clone())
    }

    pub(crate) fn pipeline_into(&self, destination: impl Destination) -> Pipeline {
        let source = SourceConfig::from_url(&self.url).unwrap().streaming(self.streaming);
        let mut source = source.transform(self.transform.clone());
        source.decoding_memory = self.decoding_memory;
        source.heartbeat = self.heartbeat;
        source.origin = self.origin;
        source.two_phase = self.two_phase;
        source.publication = self.tables.is_empty().then(|| "p".to_owned());
        source.tables.clone_from(&self.tables);
        source.watch_every = self.watch_every;
        source.on_partition_gone = self.on_partition_gone;
        source.failover = self.failover;
        source.wal_guard.clone_from(&self.wal_guard);
        Pipeline::builder(&self.id, source)
            .settings(self.settings.clone())
            .data_dir(self.dir.path())
            .store(Arc::clone(&self.store))
            .destination(destination)
            .build()
            .unwrap()
    }

    /// Starts into another destination.
    pub(crate) async fn start_into(&self, destination: impl Destination + Clone) -> RunningPipeline {
        started(|| self.pipeline_into(destination.clone())).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts, and is refused.
    pub(crate) async fn refusal(&self) -> EtlError {
        started(|| self.pipeline()).await.map(drop).unwrap_err()
    }

    /// Starts into the destination that is watched.
    pub(crate) async fn start(&self) -> RunningPipeline {
        self.start_into(self.destination.clone()).await
    }

    /// Where the relay keeps its segments.
    pub(crate) fn relay_dir(&self) -> PathBuf {
        self.dir.path().join("relay")
    }

    /// Where the pipeline keeps its files.
    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Whether every table is what the source has now.
    pub(crate) async fn is_equal(&self, client: &Client, tables: &[&str]) -> bool {
        for table in tables {
            let (id, expected) = source_rows(client, table).await;
            if self.memory.rows(id).as_ref() != Some(&expected) {
                return false;
            }
        }
        true
    }

    /// Compares every table with what the source has now.
    pub(crate) async fn assert_equal(&self, client: &Client, tables: &[&str]) {
        for table in tables {
            let (id, expected) = source_rows(client, table).await;
            let found = self.memory.rows(id).unwrap_or_else(|| panic!("{table} never arrived"));
            assert_eq!(found.len(), expected.len(), "{table}: rows");
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found, expected, "{table}");
            }
        }
    }
}

/// Starts once the directory is free. It is held for a moment by what was dropped, and by each process that was forked
/// and has not begun yet.
pub(crate) async fn started(pipeline: impl Fn() -> Pipeline) -> EtlResult<RunningPipeline> {
    for _ in 0..2400 {
        match pipeline().start().await {
            Err(error) if error.kind() == ErrorKind::Locked => tokio::time::sleep(Duration::from_millis(50)).await,
            done => return done,
        }
    }
    panic!("the directory stays locked");
}

/// Waits until the pipeline has everything, with an end to patience.
pub(crate) async fn caught_up(running: &RunningPipeline) {
    let handle = running.handle();
    let waited = tokio::time::timeout(Duration::from_secs(180), handle.caught_up()).await;
    let Ok(done) = waited else { panic!("not caught up: {:#?}", handle.status()) };
    done.unwrap_or_else(|error| panic!("{error}: {:#?}", handle.status()));
}

/// Waits until everything that the source has flushed by now is in the relay.
pub(crate) async fn received(running: &RunningPipeline, client: &Client) {
    let row = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
    let flushed: Lsn = row.get::<_, String>(0).parse().unwrap();
    let handle = running.handle();
    while handle.status().received < flushed {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the server has noticed that nobody reads the slot any more.
pub(crate) async fn slot_is_free(client: &Client) {
    let query = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active";
    while client.query_one(query, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn stop(running: RunningPipeline) {
    running.shutdown(Duration::from_secs(180)).await.unwrap();
}

async fn source_rows(client: &Client, table: &str) -> (TableId, Vec<TextRow>) {
    client.batch_execute("SET timezone = 'UTC'; SET extra_float_digits = 3").await.unwrap();
    let row = client.query_one("SELECT $1::text::regclass::oid", &[&table]).await.unwrap();
    let mut rows: Vec<TextRow> = Vec::new();
    for message in client.simple_query(&format!("SELECT * FROM {table}")).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect());
        }
    }
    rows.sort();
    (TableId(row.get(0)), rows)
}
