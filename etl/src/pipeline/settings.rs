//! How much, how often, how long? The settings of a pipeline, with their defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::byte_size::ByteSize;
use crate::memory::usual_limit;
use crate::relay::RelaySettings;

/// The settings of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What a run does, and when it ends.
    pub mode: SyncMode,
    /// When the source may forget a change.
    pub ack: Ack,
    /// How large and how old a batch may get.
    pub batch: BatchSettings,
    /// All of the engine's buffers together; a quarter of what the control group of the process allows where that is
    /// less than the default. Default 128MiB.
    pub memory_limit: ByteSize,
    /// How tables are copied.
    pub copy: CopySettings,
    /// When tables that failed alone are tried again.
    pub quarantine: QuarantineSettings,
    /// Where changes wait for tables that are not ready.
    pub relay: RelaySettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: SyncMode::default(),
            ack: Ack::default(),
            batch: BatchSettings::default(),
            memory_limit: usual_limit(),
            copy: CopySettings::default(),
            quarantine: QuarantineSettings::default(),
            relay: RelaySettings::default(),
        }
    }
}

/// What a run does, and when it ends. It may be another one in each run of a pipeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SyncMode {
    /// Copies what is not copied yet, and follows every change until it is told to stop.
    #[default]
    Stream,
    /// The same, up to what the source had flushed when the run began; then it ends.
    Incremental,
    /// Copies every table anew under one snapshot, out of sight, and shows all of them at once; then it ends. Needs no slot.
    FullRefresh,
}

impl SyncMode {
    /// The mode as configs and status pages write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Incremental => "incremental",
            Self::FullRefresh => "full_refresh",
        }
    }
}

/// When the source may forget a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Ack {
    /// Once the destination has made it durable.
    #[default]
    Destination,
    /// Once it is on the relay's disk: the destination may be down for as long as the relay has room. Where the relay
    /// is lost, the tables whose changes were in it are copied again.
    Relay,
}

/// How large and how old a batch may get; it ends at a commit unless one transaction alone is larger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchSettings {
    /// A batch ends at the first commit beyond this size, or this many rows, or this age. Default 16MiB.
    pub max_bytes: ByteSize,
    /// How many rows a batch may have at a commit before it ends. Default 100000.
    pub max_rows: usize,
    /// How old a batch gets, counted from its first change. Default 1s.
    #[serde(with = "crate::duration")]
    pub max_age: Duration,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self { max_bytes: ByteSize::mib(16), max_rows: 100_000, max_age: Duration::from_secs(1) }
    }
}

/// How tables are copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CopySettings {
    /// How many tables are copied at a time. Default 4.
    pub tables_in_parallel: usize,
    /// How many connections read one table. Default 4.
    pub connections_per_table: usize,
    /// How much of a table one query reads at most, by its size on disk; less where reading that takes longer than a
    /// quarter of a second. Default 64MiB.
    pub chunk_bytes: ByteSize,
    /// How long one snapshot of a table is used; then it is renewed, so that the source can clean up behind it. Also
    /// renewed when somebody waits to change the table. Tables without a key, and those of write mode `append`, are
    /// copied under one snapshot however long that takes. Default 30m.
    #[serde(with = "crate::duration")]
    pub snapshot_max_age: Duration,
    /// How many rows a second all copies together read at most. Default: as many as they can.
    pub max_rows_per_second: Option<u64>,
    /// How many bytes of rows a second all copies together read at most. Default: as many as they can.
    pub max_bytes_per_second: Option<ByteSize>,
}

impl Default for CopySettings {
    fn default() -> Self {
        Self {
            tables_in_parallel: 4,
            connections_per_table: 4,
            chunk_bytes: ByteSize::mib(64),
            snapshot_max_age: Duration::from_secs(30 * 60),
            max_rows_per_second: None,
            max_bytes_per_second: None,
        }
    }
}

/// When a table that failed alone is tried again. Each wait is twice the one before, until the table gets further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuarantineSettings {
    /// The first wait. Default 30s.
    #[serde(with = "crate::duration")]
    pub first_retry: Duration,
    /// No wait is longer. Default 30m.
    #[serde(with = "crate::duration")]
    pub longest_retry: Duration,
}

impl Default for QuarantineSettings {
    fn default() -> Self {
        Self { first_retry: Duration::from_secs(30), longest_retry: Duration::from_secs(30 * 60) }
    }
}
