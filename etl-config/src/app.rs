//! Which keys does a config have? The sections of the file, with their defaults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use etl::pipeline::{Ack, BatchSettings, CopySettings, QuarantineSettings, Settings, SyncMode};
use etl::postgres::{ChannelBinding, KeepaliveOptions, TargetSession, TlsOptions};
use etl::relay::RelaySettings;
use etl::source::{OnPartitionGone, Origin, WalGuard};
use etl::{ByteSize, Secret};
use etl_destinations::dead_rows::DeadLetterRules;
use etl_destinations::registry::DestinationConfig;
use serde::Deserialize;

use crate::libpq::Libpq;
use crate::table_entry::{Defaults, TableEntry};

/// A config that has no known problem.
#[derive(Debug, Clone)]
pub struct AppConfig {
    /// The pipeline: its name, its directory, its limits.
    pub pipeline: PipelineConfig,
    /// Where changes wait for tables that are not ready.
    pub relay: RelaySettings,
    /// The database that is read.
    pub source: PostgresConfig,
    /// Where the engine remembers what it did.
    pub store: StoreConfig,
    /// Where the rows go.
    pub destination: DestinationConfig,
    /// How every table is written.
    pub defaults: Defaults,
    /// What is passed on of some tables, and how they are written.
    pub tables: Vec<TableEntry>,
    /// What the process says about itself.
    pub telemetry: Telemetry,
}

/// The section `pipeline`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineConfig {
    /// `[a-z0-9_]{1,40}`; the slot is `etl_` and the id.
    pub id: String,
    /// What a run does, and when it ends: it follows every change until it is told to stop, or ends with what the source
    /// had flushed when it began, or copies every table anew and shows all of them at once.
    #[serde(default)]
    pub mode: SyncMode,
    /// State and relay; locked while the pipeline runs. Default `./etl-data`.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// When the source may forget a change: once the destination has made it durable, or once it is on the relay's disk.
    #[serde(default)]
    pub ack: Ack,
    /// How large and how old a batch may get.
    #[serde(default)]
    pub batch: BatchSettings,
    /// All of the engine's buffers together; a quarter of what the control group of the process allows where that is less
    /// than the default. Default 128MiB.
    #[serde(default = "default_memory_limit")]
    pub memory_limit: ByteSize,
    /// How tables are copied.
    #[serde(default)]
    pub copy: CopySettings,
    /// When tables that failed alone are tried again.
    #[serde(default)]
    pub quarantine: QuarantineSettings,
    /// Whether rows that the destination refuses for good are kept as dead letters, so that their tables go on; off where it
    /// is left out.
    #[serde(default)]
    pub dead_letters: Option<DeadLetterRules>,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("./etl-data")
}

fn default_memory_limit() -> ByteSize {
    Settings::default().memory_limit
}

/// The section `source`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SourceSection {
    Postgres(PostgresConfig),
}

/// The section `source.postgres`: a URL or its parts, and a publication or tables.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`.
    pub url: Option<Secret>,
    /// A name, an address or a directory with the server's socket; or several, such as `db1,db2:5433`.
    pub host: Option<String>,
    /// Of hosts that name none. Default 5432.
    pub port: Option<u16>,
    /// Default: the user's name.
    pub database: Option<String>,
    /// Who reads; needs REPLICATION and SELECT.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// How the connection is encrypted; before what the URL says.
    pub tls: Option<TlsOptions>,
    /// Which of several servers is used: `any`, `read-write`, `read-only`, `primary`, `standby` or `prefer-standby`.
    /// Default: of several the first that takes writes.
    pub target_session_attrs: Option<TargetSession>,
    /// Whether the login is bound to the encrypted connection: `prefer`, `require` or `disable`. Default `prefer`.
    pub channel_binding: Option<ChannelBinding>,
    /// How long connecting to one server may take. Default 10s.
    #[serde(with = "etl::duration::optional")]
    pub connect_timeout: Option<Duration>,
    /// How a server is noticed that vanished without a word.
    pub keepalive: Option<KeepaliveOptions>,
    /// How the names of the connections begin in `pg_stat_activity`, before the pipeline's id. Default `etl`.
    pub application_name: Option<String>,
    /// Whether bytes of the stream and of copies pile up before they are read while they come in many little pieces less than
    /// 4 ms apart: for 1 ms at most, or 4 ms while the server is ahead. Default true.
    pub coalesced_reads: Option<bool>,
    /// A publication that exists.
    pub publication: Option<String>,
    /// Patterns such as `public.*` and `!public.audit_*`; the pipeline keeps its own publication of them.
    pub tables: Vec<String>,
    /// Whether large transactions are received while they are in progress, into files in `data_dir`; else the server
    /// keeps them until they commit. Default true.
    pub streaming: Option<bool>,
    /// Whether transactions are received when they are prepared (`PREPARE TRANSACTION`), kept in `data_dir`, and applied
    /// when they commit; else the server keeps their WAL until then. From Postgres 15 on. A slot that has it keeps it.
    #[serde(default)]
    pub two_phase: bool,
    /// How much of transactions in progress the server holds in its memory before it streams the largest one, or
    /// without streaming puts it on its disk. Default 64MiB with streaming, 256MiB without.
    pub decoding_memory: Option<ByteSize>,
    /// Which changes are sent: `any`, or `none` for those alone that were made at the source, and not what it has from
    /// elsewhere under a replication origin; from Postgres 16 on. Default `any`.
    pub origin: Origin,
    /// How often a message is written into the source's WAL (`pg_logical_emit_message`): a sign of life where nobody works
    /// in the database, for whoever watches the slot. Its position follows without, too. Default: never.
    #[serde(with = "etl::duration::optional")]
    pub heartbeat: Option<Duration>,
    /// How often publication and catalog are looked at for what the stream does not tell: tables that come and go,
    /// partitions, rewrites. Default 2s.
    #[serde(with = "etl::duration::optional")]
    pub watch_every: Option<Duration>,
    /// What becomes of the rows of a partition that was detached, dropped or emptied by itself, where the table is
    /// published by its root: they go, by a new copy of the table, or stay.
    pub on_partition_gone: OnPartitionGone,
    /// Whether standbys get a copy of the slot, so that the stream goes on after a failover; from version 17 on. Default:
    /// a slot that is there stays as it is.
    pub failover: Option<bool>,
    /// How much WAL the source may keep for the slot, and what happens then.
    pub wal_guard: WalGuard,
    /// What the environment says where nothing else does.
    #[serde(skip)]
    pub(crate) libpq: Libpq,
}

/// The section `store`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreConfig {
    /// A file in `data_dir`.
    Sqlite(NoKeys),
    /// A schema of any Postgres that can be written.
    Postgres(Box<PostgresStoreConfig>),
    /// Forgotten when the process ends: every start copies everything again.
    Memory(NoKeys),
}

/// The section `store.postgres`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresStoreConfig {
    /// As that of the source; the server must be one that can be written, and not be reached through a pooler.
    pub url: Secret,
    /// How the connection is encrypted; before what the URL says.
    #[serde(default)]
    pub tls: Option<TlsOptions>,
    /// Where its tables are; several pipelines can share one. Default `etl`.
    #[serde(default = "default_schema")]
    pub schema: String,
    /// What the environment says where nothing else does.
    #[serde(skip)]
    pub(crate) libpq: Libpq,
}

fn default_schema() -> String {
    "etl".to_owned()
}

/// A section without keys of its own.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoKeys {}

impl Default for StoreConfig {
    fn default() -> Self {
        Self::Sqlite(NoKeys {})
    }
}

/// The section `telemetry`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// What the process logs.
    pub log: Log,
    /// Where it answers `/livez`, `/readyz`, `/status` and `/metrics`; nowhere without.
    pub http: Option<Http>,
    /// Where traces go; nowhere without. Needs the binary's feature `otlp`.
    pub traces: Option<Traces>,
}

/// The section `telemetry.http`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address and port, such as `127.0.0.1:9898`.
    pub bind: SocketAddr,
    /// What `/status` and `/metrics` ask for as `Authorization: Bearer ...`; required unless `bind` is this machine's
    /// own address.
    #[serde(default)]
    pub token: Option<Secret>,
}

/// The section `telemetry.traces`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// A collector of OpenTelemetry that takes OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`. Without TLS:
    /// a collector on the same machine sends on what goes further.
    pub endpoint: String,
    /// One of this many traces is sent. Default 1.
    #[serde(default = "every_one")]
    pub one_in: u64,
}

fn every_one() -> u64 {
    1
}

/// The section `telemetry.log`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How a line looks.
    pub format: Format,
    /// What is worth a line.
    pub level: Level,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is worth a line in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What failed.
    Error,
    /// And what is not as it should be.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And why.
    Debug,
    /// And every step.
    Trace,
}

impl AppConfig {
    /// What the engine needs to know of all this.
    pub fn settings(&self) -> Settings {
        Settings {
            mode: self.pipeline.mode,
            ack: self.pipeline.ack,
            batch: self.pipeline.batch.clone(),
            memory_limit: self.pipeline.memory_limit,
            copy: self.pipeline.copy.clone(),
            quarantine: self.pipeline.quarantine.clone(),
            relay: self.relay.clone(),
        }
    }

    /// The name of the pipeline's replication slot.
    pub fn slot(&self) -> String {
        format!("etl_{}", self.pipeline.id)
    }
}
