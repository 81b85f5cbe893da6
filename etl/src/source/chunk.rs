//! Which part of a table is read next? Ranges of pages, each about as large as is read in a quarter of a second.

use std::collections::VecDeque;
use std::time::Duration;

use super::catalog::Leaf;
use super::snapshot::LockedLeaf;

/// Postgres's page size, unless somebody compiled another one in; chunks only get smaller or larger by it.
const PAGE_BYTES: u64 = 8192;

/// How long a chunk should take to read: short enough to spread a table over its readers, long enough that its query
/// costs nothing beside it.
const AIM: Duration = Duration::from_millis(250);

/// How large the first chunks are, while nobody knows how fast the table is read: small, so that a run that is soon
/// killed has done something.
const FIRST_BYTES: u64 = 1 << 20;

/// A range of pages of one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Counts the chunks of a copy under one snapshot, from 1.
    pub(crate) number: u64,
    pub(crate) leaf: Leaf,
    /// The leaf's file.
    pub(crate) filenode: String,
    pub(crate) first_page: u64,
    /// `None`: to the end.
    pub(crate) end_page: Option<u64>,
    /// How many pages the leaf had.
    pub(crate) leaf_pages: u64,
}

impl Chunk {
    /// The page after the last one that the snapshot can have seen.
    pub(crate) fn end(&self) -> u64 {
        self.end_page.unwrap_or(self.leaf_pages).max(self.first_page + 1)
    }
}

/// Pages of one leaf that are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gap {
    leaf: LockedLeaf,
    first_page: u64,
    /// `None`: to the end.
    end_page: Option<u64>,
}

impl Gap {
    fn pages(&self) -> u64 {
        self.end_page.unwrap_or_else(|| pages(&self.leaf)).saturating_sub(self.first_page).max(1)
    }
}

/// Cuts what is to be read of a table into chunks as they are asked for; the last one of a leaf has no end.
#[derive(Debug)]
pub(crate) struct Chunks {
    gaps: VecDeque<Gap>,
    given_out: u64,
    /// How many pages the next chunk has.
    step: u64,
    largest: u64,
}

impl Chunks {
    /// Of these leaves, without the pages that are read already, which are sorted. None is larger than this.
    pub(crate) fn missing<'a>(
        leaves: impl Iterator<Item = (&'a LockedLeaf, &'a [(u64, u64)])>,
        largest_bytes: u64,
    ) -> Self {
        let largest = (largest_bytes / PAGE_BYTES).max(1);
        let step = (FIRST_BYTES / PAGE_BYTES).min(largest);
        let gaps = leaves.flat_map(|(leaf, read)| gaps(leaf, read)).collect();
        Self { gaps, given_out: 0, step, largest }
    }

    /// Whether all are given out.
    pub(crate) fn is_empty(&self) -> bool {
        self.gaps.is_empty()
    }

    /// How many readers have something to do, of so many.
    pub(crate) fn readers(&self, most: usize) -> usize {
        let chunks: u64 = self.gaps.iter().map(|gap| gap.pages().div_ceil(self.step)).sum();
        most.min(usize::try_from(chunks).unwrap_or(usize::MAX)).max(1)
    }

    /// A chunk was read in this time; the next ones are so large that they take as long as they should.
    pub(crate) fn took(&mut self, chunk: &Chunk, reading: Duration) {
        // What has no end may have been shorter than the others.
        let Some(end) = chunk.end_page else { return };
        let pages = end - chunk.first_page;
        let micros = u64::try_from(reading.as_micros()).unwrap_or(u64::MAX).max(1);
        let aimed = pages.saturating_mul(AIM.as_micros() as u64) / micros;
        // Step by step, since one chunk may be unlike the others.
        self.step = aimed.clamp((self.step / 2).max(1), self.step.saturating_mul(2)).min(self.largest);
    }
}

impl Iterator for Chunks {
    type Item = Chunk;

    fn next(&mut self) -> Option<Chunk> {
        let gap = self.gaps.front_mut()?;
        let first_page = gap.first_page;
        let is_last = gap.pages() <= self.step;
        let end_page = if is_last { gap.end_page } else { Some(first_page + self.step) };
        self.given_out += 1;
        let (leaf, filenode) = (gap.leaf.leaf.clone(), gap.leaf.filenode.clone());
        let leaf_pages = pages(&gap.leaf);
        gap.first_page += self.step;
        if is_last {
            self.gaps.pop_front();
        }
        Some(Chunk { number: self.given_out, leaf, filenode, first_page, end_page, leaf_pages })
    }
}

/// The pages that are not read; what lies beyond those that were there is one more gap.
fn gaps(leaf: &LockedLeaf, read: &[(u64, u64)]) -> Vec<Gap> {
    let gap = |first_page, end_page| Gap { leaf: leaf.clone(), first_page, end_page };
    let (mut gaps, mut at) = (Vec::new(), 0);
    for (first, end) in read {
        if *first > at {
            gaps.push(gap(at, Some(*first)));
        }
        at = at.max(*end);
    }
    if at < pages(leaf) {
        gaps.push(gap(at, None));
    }
    gaps
}

fn pages(leaf: &LockedLeaf) -> u64 {
    leaf.bytes.div_ceil(PAGE_BYTES).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{TableId, TableName};

    fn leaf(id: u32, pages: u64) -> LockedLeaf {
        let leaf = Leaf { id: TableId(id), name: TableName::new("s", format!("t{id}")) };
        LockedLeaf { leaf, filenode: "1".to_owned(), bytes: pages * PAGE_BYTES }
    }

    fn all(leaves: &[LockedLeaf], largest_bytes: u64) -> Chunks {
        Chunks::missing(leaves.iter().map(|leaf| (leaf, &[][..])), largest_bytes)
    }

    fn range(chunk: &Chunk) -> (u64, u32, u64, Option<u64>) {
        (chunk.number, chunk.leaf.id.0, chunk.first_page, chunk.end_page)
    }

    #[test]
    fn ranges_cover_every_page_once_and_the_last_has_no_end() {
        let found: Vec<_> =
            all(&[leaf(1, 25), leaf(2, 0), leaf(3, 10)], 10 * PAGE_BYTES + 5).map(|chunk| range(&chunk)).collect();
        assert_eq!(
            found,
            [(1, 1, 0, Some(10)), (2, 1, 10, Some(20)), (3, 1, 20, None), (4, 2, 0, None), (5, 3, 0, None)]
        );
    }

    #[test]
    fn what_was_read_is_left_out_and_what_has_grown_is_read() {
        let table = leaf(1, 30);
        for (read, expected) in [
            (&[(0, 30)][..], &[][..]),
            (&[(0, 40)], &[]),
            (&[(0, 20)], &[(20, 30, None)]),
            (&[(5, 10), (12, 30)], &[(0, 5, Some(5)), (10, 12, Some(12))]),
            (&[(0, 1)], &[(1, 11, Some(11)), (11, 21, Some(21)), (21, 30, None)]),
        ] {
            let chunks = Chunks::missing([(&table, read)].into_iter(), 10 * PAGE_BYTES);
            let found: Vec<_> = chunks.map(|chunk| (chunk.first_page, chunk.end(), chunk.end_page)).collect();
            assert_eq!(found, expected, "{read:?}");
        }
    }

    #[test]
    fn whatever_it_takes_every_page_is_in_one_range() {
        for micros in [1, 900, 250_000, 7_000_000, u64::MAX] {
            let mut chunks = all(&[leaf(1, 100_000), leaf(2, 3)], 64 << 20);
            let (mut at, mut leaf) = (0, 1);
            while let Some(chunk) = chunks.next() {
                assert_eq!((chunk.leaf.id.0, chunk.first_page), (leaf, at), "{micros}");
                chunks.took(&chunk, Duration::from_micros(micros));
                (leaf, at) = chunk.end_page.map_or((leaf + 1, 0), |end| (leaf, end));
            }
            assert_eq!((leaf, at), (3, 0), "{micros}");
        }
    }

    #[test]
    fn chunks_come_to_take_a_quarter_of_a_second() {
        // Pages a second, and the pages of a chunk after a while.
        for (rate, expected) in [(1_000_u64, 250), (20_000, 5_000), (10_000_000, (64 << 20) / PAGE_BYTES)] {
            let mut chunks = all(&[leaf(1, u64::MAX / PAGE_BYTES)], 64 << 20);
            for _ in 0..20 {
                let chunk = chunks.next().unwrap();
                let pages = chunk.end_page.unwrap() - chunk.first_page;
                chunks.took(&chunk, Duration::from_micros(pages * 1_000_000 / rate));
            }
            assert_eq!(chunks.step, expected, "{rate} pages a second");
        }
    }

    #[test]
    fn there_are_no_more_readers_than_chunks() {
        let chunks = |pages| all(&[leaf(1, pages)], 64 << 20);
        let step = FIRST_BYTES / PAGE_BYTES;
        assert_eq!([0, step, step + 1, 100 * step].map(|pages| chunks(pages).readers(4)), [1, 1, 2, 4]);
    }
}
