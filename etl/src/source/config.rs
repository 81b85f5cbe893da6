//! Which source? The server, and what of it is published.

use std::time::Duration;

use serde::Deserialize;

use super::WalGuard;
use crate::byte_size::ByteSize;
use crate::destination::AnyDestination;
use crate::error::EtlResult;
use crate::postgres::ConnectOptions;
use crate::transform::Transform;

/// The source of a pipeline.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// How to reach the server.
    pub connect: ConnectOptions,
    /// The publication to read; it must exist.
    pub publication: Option<String>,
    /// Instead of a publication: patterns of the tables for which the pipeline keeps its own, such as
    /// `public.*` and `!public.audit_*`.
    pub tables: Vec<String>,
    /// How often a message is written into its WAL; never without.
    pub heartbeat: Option<Duration>,
    /// Whether standbys get a copy of the slot, so that the stream goes on after a failover (version 17 and newer).
    /// Default: a slot that is there stays as it is.
    pub failover: Option<bool>,
    /// How much WAL the source may keep for the slot.
    pub wal_guard: WalGuard,
    /// How often publication and catalog are looked at for what the stream does not tell. Default: 2 s.
    pub watch_every: Duration,
    /// What becomes of the rows of a partition that was detached, dropped or emptied by itself, of which the stream does
    /// not tell.
    pub on_partition_gone: OnPartitionGone,
    /// Which of its columns are passed on, and under which names.
    pub transform: Transform,
    /// Whether large transactions are received while they are in progress, into files. Default: they are.
    pub streaming: bool,
    /// Whether transactions are received when they are prepared, and applied when they commit, so that the source need
    /// not keep their WAL; from Postgres 15 on. Once a slot has it, it stays. Default: they are not.
    pub two_phase: bool,
    /// How much of transactions in progress the server holds before it streams the largest one, or puts it on its disk.
    /// Default: 64MiB with streaming, 256MiB without.
    pub decoding_memory: Option<ByteSize>,
    /// Whether changes come that the source itself has from elsewhere. Default: they do.
    pub origin: Origin,
}

/// Which changes of the source are sent, by where they come from (the manual, replication progress tracking).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// All.
    #[default]
    Any,
    /// Those that were made there: not what a session wrote under a replication origin, as subscriptions do, and the
    /// destination `postgres` with `origin: true`. From version 16 on.
    None,
}

/// What becomes of rows whose partition is gone (`SOURCE.md` R7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnPartitionGone {
    /// They go: the table is copied again.
    #[default]
    Resync,
    /// They stay, until something else makes the table be copied again.
    Keep,
}

impl SourceConfig {
    /// A source at this server.
    pub fn new(connect: ConnectOptions) -> Self {
        Self {
            connect,
            publication: None,
            tables: Vec::new(),
            heartbeat: None,
            watch_every: Duration::from_secs(2),
            on_partition_gone: OnPartitionGone::Resync,
            transform: Transform::default(),
            streaming: true,
            two_phase: false,
            decoding_memory: None,
            origin: Origin::Any,
            failover: None,
            wal_guard: WalGuard::default(),
        }
    }

    /// From a URL such as `postgres://user:password@host:5432/database?sslmode=verify-full`.
    ///
    /// # Errors
    /// Says which part of the URL is wrong, and never shows the password.
    pub fn from_url(url: &str) -> EtlResult<Self> {
        ConnectOptions::from_url(url).map(Self::new)
    }

    /// Reads this publication.
    #[must_use]
    pub fn publication(mut self, name: impl Into<String>) -> Self {
        self.publication = Some(name.into());
        self
    }

    /// Receives transactions while they are in progress, or only once they have committed.
    #[must_use]
    pub fn streaming(mut self, on: bool) -> Self {
        self.streaming = on;
        self
    }

    /// Receives transactions when they are prepared, or only once they have committed.
    #[must_use]
    pub fn two_phase(mut self, on: bool) -> Self {
        self.two_phase = on;
        self
    }

    /// Receives all changes, or those alone that were made at the source.
    #[must_use]
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// How much of transactions in progress the server holds (`logical_decoding_work_mem`).
    pub(crate) fn decoding_memory(&self) -> ByteSize {
        self.decoding_memory.unwrap_or(ByteSize::mib(if self.streaming { 64 } else { 256 }))
    }

    /// Lets standbys have a copy of the slot.
    #[must_use]
    pub fn failover(mut self, is_wanted: bool) -> Self {
        self.failover = Some(is_wanted);
        self
    }

    /// Keeps no more WAL at the source than this.
    #[must_use]
    pub fn wal_guard(mut self, guard: WalGuard) -> Self {
        self.wal_guard = guard;
        self
    }

    /// Passes on these columns under these names.
    #[must_use]
    pub fn transform(mut self, transform: Transform) -> Self {
        self.transform = transform;
        self
    }

    /// Says where rows go, for what [`check`](fn@super::check) foretells; a pipeline says it by itself. What becomes of values
    /// is counted for the pipeline of this id.
    #[must_use]
    pub fn toward(mut self, destination: &AnyDestination, pipeline: &str) -> Self {
        self.transform = self.transform.toward(destination, pipeline);
        self
    }

    /// Writes a message into the source's WAL at every interval, as a pulse of a database in which nobody works.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = Some(interval);
        self
    }

    /// Keeps a publication of its own for the tables that match these patterns.
    #[must_use]
    pub fn tables<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.tables = patterns.into_iter().map(Into::into).collect();
        self
    }
}

impl<'de> Deserialize<'de> for SourceConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ConnectOptions::deserialize(deserializer).map(Self::new)
    }
}
