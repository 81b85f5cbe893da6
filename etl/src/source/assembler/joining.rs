//! How are the rows of a table read that is about to join? As its own cursor reads them once it has arrived, which may
//! meet a change of shape on its way: a shape is told only once.

use std::sync::Arc;

use super::{Assembler, Follow, ShapeChange};
use crate::schema::TableId;
use crate::source::shape::Shape;
use crate::transform::Selection;

/// A shape that was told, and whether that was in what was rolled back.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) shape: Shape,
    pub(super) is_void: bool,
}

/// How a cursor reads a table where it stands.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) selection: Arc<Selection>,
    /// How its rows have changed since, where that was told and no row has come yet.
    change: Option<ShapeChange>,
}

impl Assembler {
    /// Follows a table that has yet to arrive: none of its rows is read before.
    pub(crate) fn expect(&mut self, table: TableId, follow: Follow) {
        self.follow(table, follow);
        self.expected.insert(table, None);
    }

    /// Whether the table has yet to arrive.
    pub(crate) fn expects(&self, table: TableId) -> bool {
        self.expected.contains_key(&table)
    }

    /// The table has arrived, and is read like this.
    pub(crate) fn arrived(&mut self, table: TableId, Reading { selection, change }: Reading) {
        let Some(told) = self.expected.remove(&table) else { return };
        self.read_as(table, selection);
        if let Some(change) = change {
            self.changed.insert(table, change);
        }
        if let Some(Told { shape, is_void }) = told {
            self.told(table, shape, is_void);
        }
    }

    /// How the table is read from here on.
    pub(crate) fn reading(&self, table: TableId) -> Option<Reading> {
        let selection = Arc::clone(&self.follows.get(&table)?.selection);
        Some(Reading { selection, change: self.changed.get(&table).cloned() })
    }
}
