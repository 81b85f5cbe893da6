//! How are the rows of a table read that is about to join? As its own cursor reads them once it has arrived, which may
//! meet a change of shape on its way: a shape is told only once.

use std::sync::Arc;

use super::{Assembler, Follow, ShapeChange};
use crate::lsn::Position;
use crate::schema::TableId;
use crate::source::shape::{Shape, difference};
use crate::transform::Selection;

/// A shape that was told, and whether that was in what was rolled back.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) shape: Shape,
    pub(super) is_void: bool,
    /// The place of the next row.
    pub(super) at: Position,
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
        if let Some(told) = told {
            self.told(table, told);
        }
    }

    /// The rows of a followed table look like this.
    pub(super) fn told(&mut self, id: TableId, Told { shape, is_void, at }: Told) {
        let Some(follow) = self.follows.get(&id) else { return };
        match difference(&follow.selection.wire, &shape) {
            Some(what) => {
                self.changed.insert(id, ShapeChange { what, shape: (!is_void).then_some(shape), told: at });
            }
            None if is_void => {}
            None => {
                self.changed.remove(&id);
            }
        }
    }

    /// What was told after this is told again before any row that is wanted.
    pub(super) fn forget_told(&mut self, after: Position) {
        self.changed.retain(|_, change| change.told <= after);
        for told in self.expected.values_mut() {
            told.take_if(|told| told.at > after);
        }
    }

    /// The rows of a table are read as before this change of their shape, which was told already.
    pub(crate) fn read_as_before(&mut self, table: TableId, before: Arc<Selection>, change: ShapeChange) {
        if self.read_as(table, before).is_some() {
            self.changed.insert(table, change);
        }
    }

    /// How the table is read from here on.
    pub(crate) fn reading(&self, table: TableId) -> Option<Reading> {
        let selection = Arc::clone(&self.follows.get(&table)?.selection);
        Some(Reading { selection, change: self.changed.get(&table).cloned() })
    }
}
