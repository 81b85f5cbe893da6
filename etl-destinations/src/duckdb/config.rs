//! What can be set for `duckdb`? The file, and what DuckDB may use.

use std::path::PathBuf;

use etl::ByteSize;
use serde::Deserialize;

/// The settings of `duckdb`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuckDbConfig {
    /// The file.
    pub path: PathBuf,
    /// What DuckDB itself may hold in memory. Default 256MiB.
    #[serde(default = "default_memory_limit")]
    pub memory_limit: ByteSize,
    /// How many threads DuckDB may use. Default: as many as there are processors.
    #[serde(default)]
    pub threads: Option<u32>,
}

impl DuckDbConfig {
    /// The defaults for a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), memory_limit: default_memory_limit(), threads: None }
    }
}

const fn default_memory_limit() -> ByteSize {
    ByteSize(256 << 20)
}
