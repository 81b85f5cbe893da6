//! What can be set for `log`? What is shown, and how often.

use serde::Deserialize;

use crate::table_rules::TablePatterns;

/// The settings of `log`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Which values stand in a line: `none`, `keys` or `all`. Default `keys`.
    pub show: Shown,
    /// Columns whose values never stand in a line, as `schema.table.column`: patterns such as `*.password`.
    pub redact: Option<TablePatterns>,
    /// One of this many changes of each table has a line. Default 1: every change.
    pub one_in: u64,
}

/// Which values stand in a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// None of them.
    None,
    /// Those of the key.
    #[default]
    Keys,
    /// All.
    All,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { show: Shown::default(), redact: None, one_in: 1 }
    }
}
