//! What becomes of a change at the destination? How rows are written, and what follows a schema change.

use serde::{Deserialize, Serialize};

/// How changes are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// The log: a row a change.
    Append,
    /// The current state: a row a key.
    #[default]
    Upsert,
    /// The current state, where deleted rows are marked.
    SoftDelete,
}

/// What follows a schema change at the source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSchemaChange {
    /// The destination's table changes in the same way.
    #[default]
    Apply,
    /// The destination's table only grows: it gets new columns and wider types, and keeps what the source drops.
    Widen,
    /// The destination's table stays as it is: it takes what fits, and no new columns.
    Ignore,
    /// The table stops.
    Stop,
}

impl OnSchemaChange {
    /// The word for it in a config.
    pub fn word(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Widen => "widen",
            Self::Ignore => "ignore",
            Self::Stop => "stop",
        }
    }
}
