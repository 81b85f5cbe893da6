//! What becomes of a value that a destination cannot hold?

use serde::{Deserialize, Serialize};

/// What becomes of a value that a destination cannot hold exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnValue {
    /// An error names table, column, type and value class.
    #[default]
    Error,
}
