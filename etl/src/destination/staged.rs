//! What is a run that shows nothing before it is whole?

use serde::{Deserialize, Serialize};

use crate::schema::TableId;

/// A run that copies tables into a place that nobody reads, and shows them all at once. Its id is in the names of that
/// place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedRun {
    /// Eight hexadecimal digits; no two runs that follow each other have the same.
    pub id: Box<str>,
    /// All tables that it copies.
    pub tables: Vec<TableId>,
}
