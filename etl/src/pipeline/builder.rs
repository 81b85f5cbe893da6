//! What does a pipeline need? An id, a source, a destination, and a place for its state.

use std::path::PathBuf;

use super::running::RunningPipeline;
use super::settings::{Settings, SyncMode};
use super::{full_refresh, start};
use crate::destination::{AnyDestination, Destination};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::source::SourceConfig;
use crate::store::SharedStore;

/// The longest id; with its prefix it is the slot's name.
const LONGEST_ID: usize = 40;

/// Puts a pipeline together.
#[derive(Debug)]
pub struct PipelineBuilder {
    id: String,
    source: SourceConfig,
    settings: Settings,
    data_dir: Option<PathBuf>,
    store: Option<Store>,
    destination: Option<AnyDestination>,
    resync_affected: bool,
}

/// A store that does not print.
struct Store(SharedStore);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

/// A pipeline that is complete, and not running yet.
#[derive(Debug)]
pub struct Pipeline {
    pub(super) id: String,
    pub(super) source: SourceConfig,
    pub(super) settings: Settings,
    pub(super) data_dir: PathBuf,
    store: Option<Store>,
    pub(super) destination: AnyDestination,
    pub(super) resync_affected: bool,
}

impl Pipeline {
    /// Begins with the pipeline's id, `[a-z0-9_]{1,40}`, and its source. The slot is `etl_<id>`.
    pub fn builder(id: impl Into<String>, source: SourceConfig) -> PipelineBuilder {
        PipelineBuilder {
            id: id.into(),
            source,
            settings: Settings::default(),
            data_dir: None,
            store: None,
            destination: None,
            resync_affected: false,
        }
    }

    /// Connects to the source, finds or creates the slot, and starts to copy and to stream.
    ///
    /// # Errors
    /// Everything that is wrong with source, destination or data directory and that can be found at the start.
    pub async fn start(self) -> EtlResult<RunningPipeline> {
        match self.settings.mode {
            SyncMode::FullRefresh => Box::pin(full_refresh::start(self)).await,
            SyncMode::Stream | SyncMode::Incremental => Box::pin(start::start(self)).await,
        }
    }

    /// The same, and whether it copies again by itself what a break at the source concerns
    /// ([`PipelineBuilder::resync_affected`]).
    #[must_use]
    pub fn resync_affected(self, is_allowed: bool) -> Self {
        Self { resync_affected: is_allowed, ..self }
    }

    /// The replication slot that the pipeline uses.
    pub fn slot(&self) -> String {
        format!("etl_{}", self.id)
    }

    /// The given store, or sqlite in the data directory.
    pub(super) async fn take_store(&mut self) -> EtlResult<SharedStore> {
        match self.store.take() {
            Some(Store(store)) => Ok(store),
            None => Ok(std::sync::Arc::new(crate::store::SqliteStore::open(&self.data_dir).await?)),
        }
    }
}

impl PipelineBuilder {
    /// How much, how often and how long.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// What the run does, and when it ends; another one than before is no reason to copy anything again.
    #[must_use]
    pub fn mode(mut self, mode: SyncMode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// Where state and relay live; one pipeline a directory.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// What remembers states and positions; sqlite in the data directory where it is left out. A destination
    /// that finds schemas in a store needs the same one.
    #[must_use]
    pub fn store(mut self, store: SharedStore) -> Self {
        self.store = Some(Store(store));
        self
    }

    /// Where rows and events go.
    #[must_use]
    pub fn destination(mut self, destination: impl Destination) -> Self {
        self.destination = Some(AnyDestination::new(destination));
        self
    }

    /// Where the source does not go on where it was left (a lost slot, a restored backup, a promoted standby, another
    /// database), copies the tables again that this concerns, instead of refusing to start. Default: refuses.
    #[must_use]
    pub fn resync_affected(mut self, is_allowed: bool) -> Self {
        self.resync_affected = is_allowed;
        self
    }

    /// The pipeline, checked.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn build(self) -> EtlResult<Pipeline> {
        let mut problems = Vec::new();
        let is_id = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.id.is_empty() || self.id.len() > LONGEST_ID || !self.id.chars().all(is_id) {
            problems.push(format!("the id `{}` is not of the form [a-z0-9_]{{1,40}}", self.id));
        }
        if self.source.publication.is_none() && self.source.tables.is_empty() {
            problems.push("neither a publication nor tables are named".to_owned());
        }
        if self.data_dir.is_none() {
            problems.push("there is no data_dir".to_owned());
        }
        if self.destination.is_none() {
            problems.push("there is no destination".to_owned());
        }
        let settings = &self.settings;
        for (name, is_zero) in [
            ("batch.max_bytes", settings.batch.max_bytes.0 == 0),
            ("batch.max_rows", settings.batch.max_rows == 0),
            ("copy.tables_in_parallel", settings.copy.tables_in_parallel == 0),
            ("copy.connections_per_table", settings.copy.connections_per_table == 0),
            ("copy.chunk_bytes", settings.copy.chunk_bytes.0 == 0),
            ("copy.snapshot_max_age", settings.copy.snapshot_max_age.is_zero()),
            ("copy.max_rows_per_second", settings.copy.max_rows_per_second == Some(0)),
            ("copy.max_bytes_per_second", settings.copy.max_bytes_per_second.is_some_and(|most| most.0 == 0)),
        ] {
            if is_zero {
                problems.push(format!("{name} must not be 0"));
            }
        }
        if let Some((key, why)) = self.source.wal_guard.problem() {
            problems.push(format!("wal_guard.{key}: {why}"));
        }
        match (self.data_dir, self.destination) {
            (Some(data_dir), Some(destination)) if problems.is_empty() => Ok(Pipeline {
                source: self.source.toward(&destination, &self.id),
                id: self.id,
                settings: self.settings,
                data_dir,
                store: self.store,
                destination,
                resync_affected: self.resync_affected,
            }),
            _ => Err(EtlError::new(ErrorKind::Config, problems.join("; "))),
        }
    }
}
