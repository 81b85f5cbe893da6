//! What do rows say about themselves? The four metadata columns.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The names of the metadata columns; their place is after all other columns, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetadataColumns {
    /// Text: what happened to the row.
    pub change_type: Box<str>,
    /// Signed 64-bit: the commit LSN of the change; for a copied row the LSN of its cursor.
    pub lsn: Box<str>,
    /// Signed 64-bit: the place within the transaction, from 1; 0 for a copied row.
    pub ordinal: Box<str>,
    /// Timestamp with time zone, microseconds: when it committed; for a copied row when its snapshot was taken.
    pub timestamp: Box<str>,
}

impl Default for MetadataColumns {
    fn default() -> Self {
        Self {
            change_type: "_CHANGE_TYPE".into(),
            lsn: "_LSN".into(),
            ordinal: "_ORDINAL".into(),
            timestamp: "_TIMESTAMP".into(),
        }
    }
}

impl MetadataColumns {
    /// The names in the order of the columns.
    pub fn names(&self) -> [&str; 4] {
        [&self.change_type, &self.lsn, &self.ordinal, &self.timestamp]
    }
}

/// What happened to a row, as the column says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeType {
    /// Change log: the row is new.
    Insert,
    /// Change log: the row changed.
    Update,
    /// Change log: the row is gone. Current state: the row is marked as deleted.
    Delete,
    /// Change log: the table was emptied.
    Truncate,
    /// The row as it is: copied rows, and current state.
    Upsert,
}

impl ChangeType {
    /// The column's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
            Self::Upsert => "UPSERT",
        }
    }

    /// What the column's value says.
    pub fn of(text: &str) -> Option<Self> {
        let all = [Self::Insert, Self::Update, Self::Delete, Self::Truncate, Self::Upsert];
        all.into_iter().find(|change| change.as_str() == text)
    }
}

impl fmt::Display for ChangeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
