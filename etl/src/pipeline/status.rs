//! How is the pipeline doing? What a status page, a progress bar and a test want to know.

use serde::Serialize;

use crate::lsn::{Lsn, Position};
use crate::schema::{TableId, TableName};

/// The state of a running pipeline at one moment.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct PipelineStatus {
    /// The pipeline's id.
    pub id: String,
    /// The slot at the source.
    pub slot: String,
    /// Whether the replication stream is open.
    pub streaming: bool,
    /// Everything before was received from the source.
    pub received: Lsn,
    /// Everything before may be forgotten by the source.
    pub confirmed: Lsn,
    /// What the main cursor has made durable.
    pub durable: Option<Position>,
    /// Changes that were written since the start, of all tables.
    pub changes_written: u64,
    /// The relay's bytes in memory.
    pub relay_memory_bytes: u64,
    /// The relay's bytes on disk.
    pub relay_disk_bytes: u64,
    /// What last made the pipeline reconnect, with its hint.
    pub last_error: Option<String>,
    /// Every table of the publication, by name.
    pub tables: Vec<TableStatus>,
}

/// The state of one table.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TableStatus {
    /// The table's oid at the source.
    pub id: TableId,
    /// Its name at the source.
    pub name: TableName,
    /// `pending`, `copying`, `catching_up`, `ready` and so on.
    pub phase: &'static str,
    /// Rows that the running or last copy has made durable.
    pub rows_copied: u64,
    /// The source's estimate of the rows to copy, where it has one.
    pub rows_estimated: Option<u64>,
    /// What the table waits for: the sessions that hold locks (`SOURCE.md` R1).
    pub waits_for: Option<String>,
    /// Its last error, with the hint.
    pub error: Option<String>,
}
