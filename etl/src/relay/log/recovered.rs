//! Which of what an earlier log has written still counts?
//!
//! Files that nobody needs are deleted, each by itself. What is missing between two records was released by every reader,
//! or belongs to a transaction that was incomplete when the connection was lost: then it is void, and only that.

use super::{Log, Open};
use crate::lsn::Lsn;
use crate::relay::block::Content;
use crate::relay::record::Description;

impl Log {
    /// Appends what an earlier log has written. Nothing when that makes no sense.
    pub(in crate::relay) fn recover(&mut self, description: Description, content: Content) -> Option<()> {
        let Description { offset, covered, before, marks, .. } = description;
        if offset < self.tail.boundary {
            return None;
        }
        let open = self.tail.open;
        let is_whole_upto = |within: Open| open == Some(within) || (open.is_none() && within.begin == self.end);
        if open.is_some_and(|open| open.begin == offset) {
            // It was void, and comes again.
            self.cut(offset);
            self.has_hole = false;
        } else if offset != self.end || before.open != open {
            if !before.open.is_some_and(is_whole_upto) {
                // Everything before was released, or what lies between would have been written.
                self.blocks.clear();
                self.recent.clear();
            }
            self.has_hole = before.open.is_some();
        }
        if self.blocks.is_empty() {
            self.covers_after(before.last.map(|last| last.commit));
        }
        (self.end, self.tail) = (offset, before);
        self.covered = self.covered.max(covered);
        self.is_unsure = true;
        self.push(content, &marks).ok()?;
        if self.has_hole && self.tail.open != before.open {
            // It is complete, so what is missing of it was released, with all before.
            self.blocks.drain(..self.blocks.len().saturating_sub(1));
            self.covers_after(before.open.map(|open| open.commit));
            self.has_hole = false;
        }
        Some(())
    }

    /// Of what committed up to here, not all is held.
    fn covers_after(&mut self, commit: Option<Lsn>) {
        self.covered = self.covered.max(commit.map(|commit| Lsn(commit.0.saturating_add(1))));
    }

    /// Drops the incomplete last transaction of a log that nobody reads yet. Frees nothing.
    pub(in crate::relay) fn rewind_unread(&mut self) {
        if let Some(open) = self.tail.open.take() {
            self.cut(open.begin);
        }
        self.has_hole = false;
    }
}
