//! From which files was a table copied last? What was written anew before that needs no other copy.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::schema::TableId;
use crate::source::{LockedLeaf, Sight};

/// The files of each table's last copy in this run.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct CopiedFiles(Mutex<HashMap<TableId, Files>>);

#[derive(Debug)]
enum Files {
    /// Those that are there once the copy has locked them.
    ToCome,
    /// These, by leaf.
    Of(BTreeMap<u32, u32>),
}

impl CopiedFiles {
    fn locked(&self) -> MutexGuard<'_, HashMap<TableId, Files>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy begins. Whatever is written anew before it has its locks, it reads.
    pub(in crate::pipeline) fn will_be_those_to_come(&self, table: TableId) {
        self.locked().insert(table, Files::ToCome);
    }

    /// A copy begins that reads these, and holds locks that keep them as they are.
    pub(in crate::pipeline) fn are(&self, table: TableId, leaves: &[LockedLeaf]) {
        let files = leaves.iter().map(|leaf| (leaf.leaf.id.0, leaf.filenode.parse().unwrap_or(0)));
        self.locked().insert(table, Files::Of(files.collect()));
    }

    /// Whether the last copy has read what is there now, or is about to.
    pub(in crate::pipeline) fn are_those_of(&self, table: TableId, now: &Sight) -> bool {
        let files = now.leaves.iter().map(|(leaf, place)| (*leaf, place.file));
        match self.locked().get(&table) {
            None => false,
            Some(Files::ToCome) => true,
            Some(Files::Of(copied)) => copied.iter().map(|(leaf, file)| (*leaf, *file)).eq(files),
        }
    }

    /// The table is published no more.
    pub(in crate::pipeline) fn forget(&self, table: TableId) {
        self.locked().remove(&table);
    }
}
