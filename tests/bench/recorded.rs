//! What does a destination take to load what is in memory already? The same chunks and batches, without a source.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use etl::data::{CopiedRows, Event, TableRow};
use etl::destination::{AnyDestination, Batch, Capabilities, CopyChunk, Destination};
use etl::pipeline::Pipeline;
use etl::schema::TableId;
use etl::store::{MemoryStore, SharedStore};
use etl::{EtlResult, Lsn};
use etl_config::{AppConfig, Environment};
use tokio::task::JoinSet;

use crate::Result;
use crate::site::{Bench, CONNECTIONS, Site};

/// What was recorded stays in memory.
const ALL_OF_IT: &str = "  memory_limit: 16GiB\n";

/// What the engine has called, in order.
#[derive(Debug, Clone)]
enum Call {
    Empty(TableId),
    Copy(TableId, CopyChunk, CopiedRows),
    Batch(Batch, Vec<Event>),
}

/// Keeps everything, and writes nothing.
#[derive(Debug, Clone, Default)]
struct Recorder {
    calls: Arc<Mutex<Vec<Call>>>,
    can: Capabilities,
}

impl Recorder {
    fn note(&self, call: Call) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

impl Destination for Recorder {
    async fn truncate_table(&self, table_id: TableId) -> EtlResult<()> {
        self.note(Call::Empty(table_id));
        Ok(())
    }

    async fn write_table_rows(&self, _table_id: TableId, _rows: Vec<TableRow>) -> EtlResult<()> {
        Ok(())
    }

    async fn write_events(&self, _events: Vec<Event>) -> EtlResult<()> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        self.can
    }

    async fn write_copy_chunk(&self, table_id: TableId, chunk: CopyChunk, rows: CopiedRows) -> EtlResult<()> {
        self.note(Call::Copy(table_id, chunk, rows));
        Ok(())
    }

    async fn write_batch(&self, batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        self.note(Call::Batch(batch, events));
        Ok(())
    }
}

/// What a pipeline has handed over, and the store that knows its tables.
pub(crate) struct Recorded {
    calls: Vec<Call>,
    store: SharedStore,
}

/// A pipeline whose destination only remembers.
pub(crate) struct Recording {
    recorder: Recorder,
    store: SharedStore,
    app: AppConfig,
}

impl Bench {
    fn app(&self, site: &Site<'_>) -> Result<AppConfig> {
        let loaded = AppConfig::from_text("bench.yaml", &self.text(site), &Environment::default());
        loaded.map_err(|problems| problems.to_string().into())
    }

    pub(crate) fn recording(&self, site: &Site<'_>) -> Result<Recording> {
        let site = &Site { pipeline: ALL_OF_IT, ..site.clone() };
        let recorder = Recorder { can: Capabilities::default().with_schema_changes(), ..Recorder::default() };
        Ok(Recording { recorder, store: Arc::new(MemoryStore::new()), app: self.app(site)? })
    }

    /// Seconds of the destination of this site for what was recorded: chunks as many at a time as a copy has connections.
    pub(crate) async fn load(&self, site: &Site<'_>, recorded: &Recorded) -> Result<f64> {
        let destination = self.app(site)?.destination(recorded.fresh_store().await?).await?;
        destination.startup().await?;
        let began = Instant::now();
        let mut chunks = JoinSet::new();
        for call in recorded.calls.iter().cloned() {
            let is_chunk = matches!(call, Call::Copy(..));
            while chunks.len() >= if is_chunk { CONNECTIONS as usize } else { 1 } {
                chunks.join_next().await.transpose()?.transpose()?;
            }
            let destination = destination.clone();
            // The first one makes the table, and what empties it comes before all that is copied.
            let is_alone = match &call {
                Call::Empty(_) => true,
                Call::Copy(_, _, rows) => rows.is_empty(),
                Call::Batch(..) => false,
            };
            chunks.spawn(perform(destination, call));
            while is_alone && let Some(done) = chunks.join_next().await {
                done??;
            }
        }
        while let Some(done) = chunks.join_next().await {
            done??;
        }
        destination.shutdown().await?;
        Ok(began.elapsed().as_secs_f64())
    }
}

async fn perform(destination: AnyDestination, call: Call) -> EtlResult<()> {
    match call {
        Call::Empty(table) => destination.truncate_table(table).await,
        Call::Copy(table, chunk, rows) => destination.write_copy_chunk(table, chunk, rows).await,
        Call::Batch(batch, events) => destination.write_batch(batch, events).await,
    }
}

impl Recording {
    /// Runs until everything that the source has flushed is there.
    pub(crate) async fn run(&self) -> Result<()> {
        let pipeline = Pipeline::builder(self.app.pipeline.id.clone(), self.app.source()?)
            .settings(self.app.settings())
            .data_dir(self.app.pipeline.data_dir.clone())
            .store(Arc::clone(&self.store))
            .destination(self.recorder.clone())
            .build()?;
        let running = pipeline.start().await?;
        running.handle().caught_up().await?;
        running.shutdown(Duration::from_secs(60)).await?;
        Ok(())
    }

    pub(crate) fn finish(self) -> Recorded {
        let calls = std::mem::take(&mut *self.recorder.calls.lock().unwrap_or_else(PoisonError::into_inner));
        Recorded { calls, store: self.store }
    }
}

impl Recorded {
    /// A store that knows the tables, and nothing of any destination.
    async fn fresh_store(&self) -> EtlResult<SharedStore> {
        let fresh: SharedStore = Arc::new(MemoryStore::new());
        for (table, state) in self.store.table_states().await? {
            if let Some(schema) = self.store.schema_at(table, etl::Position::new(Lsn(u64::MAX), u64::MAX)).await? {
                fresh.put_schema(schema).await?;
            }
            fresh.set_table_state(table, None, state).await?;
        }
        Ok(fresh)
    }
}
