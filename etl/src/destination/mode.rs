//! What becomes of the rows that are there when one of them changes? The ways of writing, and what a row then says of itself.

use super::TextRow;
use crate::lsn::Position;

/// A way of writing a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The current state: a row a key.
    Upsert,
    /// The current state, where deleted rows stay and are marked.
    SoftDelete,
    /// The log: a row a change.
    Append,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Upsert, Self::SoftDelete, Self::Append];

    /// The word for it in a config.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Upsert => "upsert",
            Self::SoftDelete => "soft_delete",
            Self::Append => "append",
        }
    }
}

/// A row with what its metadata columns say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StampedText {
    /// `_LSN` and `_ORDINAL`.
    pub position: Position,
    /// `_CHANGE_TYPE`.
    pub change_type: String,
    /// The values, as Postgres writes them.
    pub values: TextRow,
}

impl StampedText {
    /// Whether it says that the row is deleted.
    pub fn is_deleted(&self) -> bool {
        self.change_type == "DELETE"
    }
}
