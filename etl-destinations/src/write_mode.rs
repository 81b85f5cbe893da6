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
    /// The table stops.
    Stop,
}
