//! Who reads the stream of changes? The cursor of all ready tables, or the one of a single table.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::schema::TableId;

/// Who reads the relay: the cursor that all ready tables have in common, or the one of a single table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CursorId {
    /// All ready tables.
    Main,
    /// One table that is being copied, caught up, paused or quarantined.
    Table(TableId),
}

impl fmt::Display for CursorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main => f.write_str("main"),
            Self::Table(id) => write!(f, "table {id}"),
        }
    }
}
