//! Which destinations are there? One row a destination: its name, its feature, its config.

use std::path::Path;

use etl::destination::{AnyDestination, MemoryDestination};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::store::SharedStore;
use serde::Deserialize;

#[cfg(feature = "bulk")]
use crate::bulk::{Bulk, BulkDestination, BulkSettings};
use crate::clickhouse::ClickHouseConfig;
use crate::compacted::Compacted;
use crate::duckdb::DuckDbConfig;
use crate::fault::Fault;
use crate::file::FileConfig;
use crate::log::LogConfig;
use crate::null::NullConfig;
use crate::parquet::ParquetConfig;
use crate::postgres::PostgresTargetConfig;
use crate::profile::ProfileConfig;
use crate::sftp::SftpConfig;
use crate::table_rules::TableRules;

/// Makes the enum of all configs. A config is compiled even when its feature is off, so that the error can name
/// the feature that is missing.
macro_rules! destinations {
    ($($(#[$doc:meta])* $variant:ident($config:ty), $name:literal if $compiled:expr => $open:expr;)*) => {
        /// The destination of a pipeline: one key, its name.
        #[derive(Debug, Clone, Deserialize)]
        #[serde(rename_all = "lowercase")]
        #[non_exhaustive]
        pub enum DestinationConfig {
            $($(#[$doc])* $variant($config),)*
        }

        impl DestinationConfig {
            /// The names of all destinations that there are, compiled in or not.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The name that configs and features use.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            /// The feature without which this destination cannot be used, if it is missing.
            pub fn missing_feature(&self) -> Option<&'static str> {
                match self {
                    $(Self::$variant(_) => (!$compiled).then_some($name),)*
                }
            }

            /// Opens the destination. It finds the schemas of tables in the store, and writes them as the rules say.
            ///
            /// # Errors
            /// What the destination says when it is opened, and that it is not compiled in.
            pub async fn to_destination(self, store: SharedStore, rules: TableRules) -> EtlResult<AnyDestination> {
                if let Some(feature) = self.missing_feature() {
                    return Err(EtlError::new(ErrorKind::Config, "the destination is not compiled in")
                        .with("destination", self.name())
                        .hint(format!("Build with the feature `{feature}`")));
                }
                match self {
                    $(Self::$variant(config) => $open(config, store, rules).await,)*
                }
            }
        }
    };
}

destinations! {
    /// Keeps the current state in memory, for trying things out.
    Memory(MemoryConfig), "memory" if true => open_memory;
    /// Drops everything.
    Null(NullConfig), "null" if cfg!(feature = "null") => open_null;
    /// One DuckDB file.
    DuckDb(DuckDbConfig), "duckdb" if cfg!(feature = "duckdb") => open_duckdb;
    /// Another Postgres.
    Postgres(PostgresTargetConfig), "postgres" if cfg!(feature = "postgres") => open_postgres;
    /// A log of all changes in Parquet, in a directory or a bucket.
    Parquet(ParquetConfig), "parquet" if cfg!(feature = "parquet") => open_parquet;
    /// A ClickHouse server.
    ClickHouse(ClickHouseConfig), "clickhouse" if cfg!(feature = "clickhouse") => open_clickhouse;
    /// A system that answers later, as a profile says.
    Profile(ProfileConfig), "profile" if cfg!(feature = "profile") => open_profile;
    /// A log of all changes in JSON lines or CSV.
    File(FileConfig), "file" if cfg!(feature = "file") => open_file;
    /// Files on a server, over SFTP.
    Sftp(SftpConfig), "sftp" if cfg!(feature = "sftp") => open_sftp;
    /// A line of the process's log a change.
    Log(LogConfig), "log" if cfg!(feature = "log") => open_log;
}

/// The directory below `data_dir` in which batches stand until a system has settled them.
const SPOOL: &str = "bulk";

impl DestinationConfig {
    /// Whether it holds logs of changes and nothing else, so that `append` is the only write mode.
    pub fn only_appends(&self) -> bool {
        matches!(self, Self::File(_) | Self::Log(_))
    }

    /// Says which pipeline writes, and in which directory it keeps what outlives its process.
    #[must_use]
    pub fn of_pipeline(self, id: &str, data_dir: &Path) -> Self {
        match self {
            Self::Profile(config) => Self::Profile(config.of_pipeline(&data_dir.join(SPOOL))),
            Self::Sftp(config) => Self::Sftp(config.of_pipeline(id, &data_dir.join(SPOOL))),
            other => other,
        }
    }

    /// What is wrong with the settings, as far as they show it by themselves.
    pub fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Sftp(config) => config.faults(),
            _ => Vec::new(),
        }
    }

    /// Brings current states up to date that are made of logs, beside a pipeline that may be writing there.
    ///
    /// # Errors
    /// `DestinationUnsupported` where there is nothing to compact; else what the destination says.
    pub async fn compact(self, rules: TableRules) -> EtlResult<Vec<Compacted>> {
        match self {
            #[cfg(feature = "parquet")]
            Self::Parquet(config) => crate::parquet::Parquet::compact_beside(config, rules).await,
            other => {
                let _ = rules;
                let error = EtlError::new(ErrorKind::DestinationUnsupported, "the destination has nothing to compact")
                    .with("destination", other.name());
                Err(match other.missing_feature() {
                    Some(feature) => error.hint(format!("Build with the feature `{feature}`")),
                    None => error.hint("Only `parquet` makes current states of logs"),
                })
            }
        }
    }
}

/// The settings of `memory`: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {}

async fn open_memory(_config: MemoryConfig, _store: SharedStore, rules: TableRules) -> EtlResult<AnyDestination> {
    if rules != TableRules::default() {
        return Err(EtlError::new(ErrorKind::Config, "`memory` follows no table rules: it keeps the current state")
            .hint("Remove `defaults` and `tables`"));
    }
    Ok(AnyDestination::new(MemoryDestination::new()))
}

#[cfg(feature = "null")]
async fn open_null(_config: NullConfig, store: SharedStore, rules: TableRules) -> EtlResult<AnyDestination> {
    Ok(AnyDestination::new(crate::null::Null::open(store, rules)))
}

#[cfg(feature = "duckdb")]
async fn open_duckdb(config: DuckDbConfig, store: SharedStore, rules: TableRules) -> EtlResult<AnyDestination> {
    Ok(AnyDestination::new(crate::duckdb::DuckDb::with_config(config, store, rules)))
}

#[cfg(feature = "postgres")]
async fn open_postgres(
    config: PostgresTargetConfig,
    store: SharedStore,
    rules: TableRules,
) -> EtlResult<AnyDestination> {
    Ok(AnyDestination::new(crate::postgres::Postgres::with_config(config, store, rules)?))
}

#[cfg(feature = "parquet")]
async fn open_parquet(config: ParquetConfig, store: SharedStore, rules: TableRules) -> EtlResult<AnyDestination> {
    Ok(AnyDestination::new(crate::parquet::Parquet::with_config(config, store, rules)?))
}

#[cfg(feature = "clickhouse")]
async fn open_clickhouse(config: ClickHouseConfig, store: SharedStore, rules: TableRules) -> EtlResult<AnyDestination> {
    Ok(AnyDestination::new(crate::clickhouse::ClickHouse::with_config(config, store, rules)?))
}

#[cfg(feature = "profile")]
async fn open_profile(config: ProfileConfig, store: SharedStore, rules: TableRules) -> EtlResult<AnyDestination> {
    use crate::profile::System;
    Ok(bulk_factory(System::open(&config)?, System::settings(&config)?, store, rules))
}

/// Makes a destination of a system that answers later.
#[cfg(feature = "bulk")]
pub fn bulk_factory<B: BulkDestination>(
    system: B,
    settings: BulkSettings,
    store: SharedStore,
    rules: TableRules,
) -> AnyDestination {
    AnyDestination::new(Bulk::destination(system, settings, store, rules))
}

#[cfg(feature = "file")]
async fn open_file(config: FileConfig, store: SharedStore, rules: TableRules) -> EtlResult<AnyDestination> {
    Ok(AnyDestination::new(crate::file::Files::with_config(config, store, rules)?))
}

#[cfg(feature = "sftp")]
async fn open_sftp(config: SftpConfig, store: SharedStore, rules: TableRules) -> EtlResult<AnyDestination> {
    Ok(AnyDestination::new(crate::sftp::Sftp::with_config(config, store, rules)?))
}

#[cfg(feature = "log")]
async fn open_log(config: LogConfig, store: SharedStore, rules: TableRules) -> EtlResult<AnyDestination> {
    Ok(AnyDestination::new(crate::log::Log::open(config, store, rules)?))
}

/// Makes a function that nobody reaches where the feature is off: its config was refused before.
macro_rules! not_compiled {
    ($($feature:literal $open:ident($config:ty);)*) => {
        $(#[cfg(not(feature = $feature))]
        async fn $open(_: $config, _: SharedStore, _: TableRules) -> EtlResult<AnyDestination> {
            Err(EtlError::new(ErrorKind::Internal, concat!("the feature `", $feature, "` is off")))
        })*
    };
}

not_compiled! {
    "null" open_null(NullConfig);
    "duckdb" open_duckdb(DuckDbConfig);
    "postgres" open_postgres(PostgresTargetConfig);
    "parquet" open_parquet(ParquetConfig);
    "clickhouse" open_clickhouse(ClickHouseConfig);
    "profile" open_profile(ProfileConfig);
    "file" open_file(FileConfig);
    "sftp" open_sftp(SftpConfig);
    "log" open_log(LogConfig);
}
