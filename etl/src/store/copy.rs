//! What has a copy done, and which rows does it still owe? So that one that was cut short goes on (`SOURCE.md` R5).

use serde::{Deserialize, Serialize};

use super::{BoxFuture, SnapshotFilter};
use crate::error::EtlResult;
use crate::lsn::Lsn;
use crate::schema::TableId;

/// What a copy needs to go on under another snapshot; its chunks are in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopySoFar {
    /// What its first snapshot has seen: the only one that events are left out by.
    pub snapshot: SnapshotFilter,
    /// How many snapshots it had.
    pub snapshots: u32,
    /// The insert LSN read after the last of them: no copied row knows of a later commit.
    pub until: Lsn,
}

/// What is known of a table whose rows are from more than one snapshot, while it catches up (`SOURCE.md` R5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mixed {
    /// How many snapshots there were.
    pub snapshots: u32,
    /// Up to this LSN, an event may meet a row that is newer.
    pub until: Lsn,
    /// Whether an event up to there may also meet no row although the source has one: it went from pages that were
    /// yet to be read to others that were read.
    pub has_gaps: bool,
}

/// The pages of a table, or of one of its partitions, whose rows are durable in the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedLeaf {
    /// What holds the rows.
    pub leaf: TableId,
    /// The file in which they were; in another one they are to be copied anew.
    pub filenode: String,
    /// The pages, each range without its end; sorted, with gaps in between.
    pub pages: Vec<(u64, u64)>,
    /// How many rows those were.
    pub rows: u64,
}

/// The key of a row that is to be read again: its values in the order of the key, as the server writes them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RepairKey(pub Box<[String]>);

/// Remembers how far the copies are.
pub trait CopyStore: Send + Sync {
    /// The ledger of a table's copy.
    fn copied(&self, table: TableId) -> BoxFuture<'_, EtlResult<Vec<CopiedLeaf>>>;

    /// Stores one leaf of the ledger, in place of what is there.
    fn put_copied(&self, table: TableId, leaf: CopiedLeaf) -> BoxFuture<'_, EtlResult<()>>;

    /// The rows that are to be read again before the table is ready, in any order.
    fn repairs(&self, table: TableId) -> BoxFuture<'_, EtlResult<Vec<RepairKey>>>;

    /// Adds rows that are to be read again; one that is there already changes nothing.
    fn add_repairs(&self, table: TableId, keys: Vec<RepairKey>) -> BoxFuture<'_, EtlResult<()>>;

    /// These rows were read again.
    fn remove_repairs(&self, table: TableId, keys: Vec<RepairKey>) -> BoxFuture<'_, EtlResult<()>>;

    /// Forgets the ledger and the repairs of a table.
    fn forget_copy(&self, table: TableId) -> BoxFuture<'_, EtlResult<()>>;
}
