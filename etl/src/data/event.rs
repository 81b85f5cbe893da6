//! What happened at the source? The events of the stream, in order.

use std::sync::Arc;

use bytes::Bytes;

use super::TableRow;
use crate::clock::Timestamp;
use crate::lsn::{Lsn, Position};
use crate::schema::{TableId, TableSchema};

/// One inserted, updated or deleted row.
#[derive(Debug, Clone)]
pub struct Change {
    /// The table.
    pub table_id: TableId,
    /// The place among all changes; the same on every replay.
    pub position: Position,
    /// When its transaction committed.
    pub committed_at: Timestamp,
    /// What happened to the row.
    pub op: Op,
}

/// What happened to a row.
#[derive(Debug, Clone)]
pub enum Op {
    /// It is new.
    Insert {
        /// The row.
        new: TableRow,
    },
    /// It changed. Without an old image the key did not change.
    Update {
        /// The row before, as far as the replica identity tells.
        old: Option<OldRow>,
        /// The row after; unchanged TOAST values may be missing.
        new: TableRow,
    },
    /// It is gone.
    Delete {
        /// The row before.
        old: OldRow,
    },
}

/// What is known of a row before its change.
#[derive(Debug, Clone)]
pub enum OldRow {
    /// The columns of the replica identity; the others read as null.
    Key(TableRow),
    /// All columns (`REPLICA IDENTITY FULL`).
    Full(TableRow),
}

impl OldRow {
    /// The row, whatever is known of it.
    pub fn row(&self) -> &TableRow {
        match self {
            Self::Key(row) | Self::Full(row) => row,
        }
    }
}

/// Something that happened at the source, in the order of the commits.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A transaction begins.
    Begin {
        /// Its id.
        xid: u32,
        /// The LSN of its commit.
        commit: Lsn,
    },
    /// The transaction is complete.
    Commit {
        /// The LSN after its commit record.
        end: Lsn,
        /// When it committed.
        at: Timestamp,
    },
    /// A row changed.
    Change(Change),
    /// Tables were emptied together.
    Truncate {
        /// The tables.
        tables: Box<[TableId]>,
        /// One place a table.
        positions: Box<[Position]>,
        /// When the transaction committed.
        at: Timestamp,
    },
    /// The rows of a table look different from here on.
    Relation {
        /// The new shape.
        new: Arc<TableSchema>,
        /// Where it begins.
        position: Position,
    },
    /// A message of `pg_logical_emit_message`.
    Message {
        /// Its prefix.
        prefix: Box<str>,
        /// Its content.
        content: Bytes,
        /// The place after which it came.
        position: Position,
    },
}

impl Event {
    /// The tables that the event is about.
    pub fn table_ids(&self) -> &[TableId] {
        match self {
            Self::Change(change) => std::slice::from_ref(&change.table_id),
            Self::Truncate { tables, .. } => tables,
            Self::Relation { new, .. } => std::slice::from_ref(&new.id),
            Self::Begin { .. } | Self::Commit { .. } | Self::Message { .. } => &[],
        }
    }
}
