//! What has a destination made of a log, when it was told to compact it?

/// A current state that was made of a table's log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Compacted {
    /// The table, as the destination calls it.
    pub table: String,
    /// How many rows it has.
    pub rows: u64,
    /// The files that have them, below the location.
    pub files: Vec<String>,
}
