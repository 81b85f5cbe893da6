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
    /// What DuckDB itself may hold in memory.
    #[serde(default)]
    pub memory_limit: Option<ByteSize>,
    /// How many threads DuckDB may use.
    #[serde(default)]
    pub threads: Option<u32>,
}
