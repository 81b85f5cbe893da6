//! What can be set for `parquet`? The place, how files look, and how large they are.

use std::collections::BTreeMap;
use std::time::Duration;

use etl::{ByteSize, Secret};
use serde::Deserialize;

/// The settings of `parquet`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParquetConfig {
    /// A directory, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; one pipeline writes there.
    pub location: String,
    /// How the store is reached (`aws_region`, `aws_endpoint`, ...); a directory has none.
    #[serde(default)]
    pub options: BTreeMap<String, Secret>,
    /// `flat` (the files of a table in one directory) or `hive` (one a day, `etl_date=2026-01-31`). Default `flat`.
    #[serde(default)]
    pub layout: ParquetLayout,
    /// `zstd` or `none`. Default `zstd`.
    #[serde(default)]
    pub compression: ParquetCompression,
    /// How hard `zstd` tries, 1 to 22. Default 3.
    #[serde(default = "default_level")]
    pub compression_level: u8,
    /// About how large a file may become. Default 128MiB.
    #[serde(default = "default_file_bytes")]
    pub file_bytes: ByteSize,
    /// About how large a row group is, compressed; a writer holds one in memory. Default 32MiB.
    #[serde(default = "default_row_group_bytes")]
    pub row_group_bytes: ByteSize,
    /// What is kept of the values' bounds: `page`, `chunk` (a row group's column) or `none`. Default `chunk`.
    #[serde(default)]
    pub statistics: ParquetStatistics,
    /// What becomes of infinite dates and timestamps: `error`, or `duckdb` (the largest numbers, which DuckDB reads as
    /// infinite and others as far away). Default `error`.
    #[serde(default)]
    pub infinities: ParquetInfinities,
    /// How often small files of a log are merged; `0s` never. Default 10m.
    #[serde(default = "default_merge_every", with = "etl::duration")]
    pub merge_every: Duration,
    /// When current states are made.
    #[serde(default)]
    pub compact: CompactConfig,
    /// How long files stay that others have taken the place of.
    #[serde(default)]
    pub retain: RetainConfig,
}

/// How long files stay that others have taken the place of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetainConfig {
    /// The files of an older current state, which somebody may be reading. Default 1h.
    #[serde(with = "etl::duration")]
    pub states: Duration,
    /// Files that were merged into a larger one, or that have left the log. Whoever reads by a glob finds their rows twice
    /// as long. Default 0s.
    #[serde(with = "etl::duration")]
    pub merged: Duration,
    /// Files of a log from when the current state has their rows; `0s` for ever. Default 0s.
    #[serde(with = "etl::duration")]
    pub folded: Duration,
}

impl Default for RetainConfig {
    fn default() -> Self {
        Self { states: Duration::from_secs(3600), merged: Duration::ZERO, folded: Duration::ZERO }
    }
}

/// When the current states of `upsert` and `soft_delete` are made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompactConfig {
    /// How often; `0s` never. Default 1h.
    #[serde(with = "etl::duration")]
    pub every: Duration,
    /// Whether also when the pipeline ends. Default false.
    pub at_end: bool,
    /// About how much of a table may be in memory meanwhile. Default 256MiB.
    pub memory: ByteSize,
}

impl Default for CompactConfig {
    fn default() -> Self {
        Self { every: Duration::from_secs(3600), at_end: false, memory: ByteSize(256 << 20) }
    }
}

/// Where the files of a table are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParquetLayout {
    /// In one directory.
    #[default]
    Flat,
    /// In a directory a day of `_TIMESTAMP`, in UTC.
    Hive,
}

/// How pages are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParquetCompression {
    /// Zstandard.
    #[default]
    Zstd,
    /// Not at all.
    None,
}

/// What is kept of the values' bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParquetStatistics {
    /// Those of each page.
    Page,
    /// Those of each column of a row group.
    #[default]
    Chunk,
    /// None.
    None,
}

/// What becomes of infinite dates and timestamps, which Parquet does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParquetInfinities {
    /// The value is refused.
    #[default]
    Error,
    /// The largest number and its opposite, as DuckDB has it.
    DuckDb,
}

impl ParquetConfig {
    /// The defaults for a place.
    pub fn new(location: impl Into<String>) -> Self {
        Self {
            location: location.into(),
            options: BTreeMap::new(),
            layout: ParquetLayout::default(),
            compression: ParquetCompression::default(),
            compression_level: default_level(),
            file_bytes: default_file_bytes(),
            row_group_bytes: default_row_group_bytes(),
            statistics: ParquetStatistics::default(),
            infinities: ParquetInfinities::default(),
            merge_every: default_merge_every(),
            compact: CompactConfig::default(),
            retain: RetainConfig::default(),
        }
    }
}

const fn default_level() -> u8 {
    3
}

const fn default_file_bytes() -> ByteSize {
    ByteSize(128 << 20)
}

const fn default_row_group_bytes() -> ByteSize {
    ByteSize(32 << 20)
}

const fn default_merge_every() -> Duration {
    Duration::from_secs(600)
}
