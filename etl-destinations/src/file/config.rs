//! What can be set for `file`? The directory, the format, and when a file is complete.

use std::path::PathBuf;
use std::time::Duration;

use etl::ByteSize;
use serde::Deserialize;

/// The settings of `file`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The directory; each table has one in it, `schema/table`.
    pub path: PathBuf,
    /// `jsonl` (one JSON object a line), `csv`, or `sql` (one `INSERT` a row). Default `jsonl`.
    #[serde(default)]
    pub format: FileFormat,
    /// A file is complete once it is this large; it may exceed that by one batch. Default 128MiB.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: ByteSize,
    /// A file is complete once its first row is this old. Default 1m.
    #[serde(default = "default_max_age", with = "etl::duration")]
    pub max_age: Duration,
    /// What stands for null in CSV, without quotes. Default `\N`.
    #[serde(default = "default_null_marker")]
    pub null_marker: String,
    /// What separates the fields in CSV. Default `,`.
    #[serde(default = "default_delimiter")]
    pub delimiter: char,
}

/// How rows look in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// One JSON object a line.
    #[default]
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
    /// An `INSERT` a row.
    Sql,
}

impl FileConfig {
    /// The defaults for a directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: FileFormat::default(),
            max_bytes: default_max_bytes(),
            max_age: default_max_age(),
            null_marker: default_null_marker(),
            delimiter: default_delimiter(),
        }
    }
}

const fn default_max_bytes() -> ByteSize {
    ByteSize(128 << 20)
}

const fn default_max_age() -> Duration {
    Duration::from_secs(60)
}

fn default_null_marker() -> String {
    "\\N".to_owned()
}

const fn default_delimiter() -> char {
    ','
}
