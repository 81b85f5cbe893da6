//! Which pages of a table are durable in the destination? Stored after each chunk, so that no other copy reads them.

use std::collections::HashMap;

use tokio::sync::Mutex;

use crate::error::EtlResult;
use crate::schema::TableId;
use crate::source::{Chunk, Chunks, LockedLeaf};
use crate::store::{CopiedLeaf, SharedStore};

/// The ledger of one table's copy.
pub(super) struct CopyLedger {
    store: SharedStore,
    table: TableId,
    /// Locked while a leaf is stored, so that the later one is the last.
    leaves: Mutex<HashMap<TableId, CopiedLeaf>>,
}

impl CopyLedger {
    /// As it is stored.
    pub(super) async fn open(store: &SharedStore, table: TableId) -> EtlResult<Self> {
        let leaves = store.copied(table).await?.into_iter().map(|leaf| (leaf.leaf, leaf)).collect();
        Ok(Self { store: SharedStore::clone(store), table, leaves: Mutex::new(leaves) })
    }

    /// Whether what is copied is still where it was read: in the same files of the same leaves.
    pub(super) async fn is_about(&self, found: &[LockedLeaf]) -> bool {
        let leaves = self.leaves.lock().await;
        let is_there = |copied: &CopiedLeaf| {
            found.iter().any(|found| found.leaf.id == copied.leaf && found.filenode == copied.filenode)
        };
        leaves.values().all(is_there)
    }

    /// What is left to read.
    pub(super) async fn missing(&self, found: &[LockedLeaf], largest_bytes: u64) -> Chunks {
        let leaves = self.leaves.lock().await;
        let pages = |leaf: &LockedLeaf| leaves.get(&leaf.leaf.id).map_or(&[][..], |copied| &copied.pages);
        Chunks::missing(found.iter().map(|leaf| (leaf, pages(leaf))), largest_bytes)
    }

    /// The rows of a chunk are durable.
    pub(super) async fn note(&self, chunk: &Chunk, rows: u64) -> EtlResult<()> {
        let mut leaves = self.leaves.lock().await;
        let leaf = leaves.entry(chunk.leaf.id).or_insert_with(|| CopiedLeaf {
            leaf: chunk.leaf.id,
            filenode: chunk.filenode.clone(),
            pages: Vec::new(),
            rows: 0,
        });
        add(&mut leaf.pages, (chunk.first_page, chunk.end()));
        leaf.rows += rows;
        self.store.put_copied(self.table, leaf.clone()).await
    }
}

/// Adds a range to sorted ones with gaps in between.
fn add(pages: &mut Vec<(u64, u64)>, (mut first, mut end): (u64, u64)) {
    pages.retain(|&(known_first, known_end)| {
        let is_apart = known_end < first || end < known_first;
        if !is_apart {
            (first, end) = (first.min(known_first), end.max(known_end));
        }
        is_apart
    });
    let place = pages.partition_point(|known| known.0 < first);
    pages.insert(place, (first, end));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let mut pages = Vec::new();
        for (range, expected) in [
            ((10, 20), &[(10, 20)][..]),
            ((30, 40), &[(10, 20), (30, 40)]),
            ((0, 5), &[(0, 5), (10, 20), (30, 40)]),
            ((20, 30), &[(0, 5), (10, 40)]),
            ((12, 15), &[(0, 5), (10, 40)]),
            ((4, 11), &[(0, 40)]),
            ((50, 51), &[(0, 40), (50, 51)]),
            ((0, 60), &[(0, 60)]),
        ] {
            add(&mut pages, range);
            assert_eq!(pages, expected, "after {range:?}");
        }
    }
}
