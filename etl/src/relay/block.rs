//! What is known of one block of the log, and where are its bytes?

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Mark;
use super::log::Tail;
use super::record::{Description, Synced};
use super::segment::{Record, Segments};
use super::spool::Spooled;
use crate::lsn::Lsn;

/// Smaller blocks go to disk together: what is known of each stays in memory.
const MERGED_BYTES: usize = 256 << 10;

/// Whole frames that lie together.
#[derive(Debug)]
pub(super) struct Block {
    /// Grows along the log.
    pub(super) id: u64,
    pub(super) offset: u64,
    /// Less than what was written of it, where its end was rewound.
    pub(super) len: usize,
    /// The log before it.
    pub(super) covered: Option<Lsn>,
    pub(super) before: Tail,
    /// Whether that is what the block before it says.
    pub(super) follows: bool,
    /// The head's end after it.
    pub(super) end_lsn: Lsn,
    /// The commit LSN of the last transaction that has begun in it or before.
    pub(super) begun: Lsn,
    /// Absent from a block that is only on disk: its record has them.
    pub(super) marks: Box<[Mark]>,
    pub(super) content: Content,
}

/// Where the bytes of a block are.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) memory: Option<Bytes>,
    /// What a later log finds it by.
    pub(super) disk: Option<Record>,
    /// The file of a streamed transaction, which has all of them.
    pub(super) spooled: Option<Arc<Spooled>>,
}

impl Content {
    pub(super) fn memory(bytes: Bytes) -> Self {
        Self { memory: Some(bytes), ..Self::default() }
    }

    pub(super) fn spooled(spooled: Arc<Spooled>) -> Self {
        Self { spooled: Some(spooled), ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        let recorded = || self.disk.as_ref().map_or(0, Record::block_len);
        match (&self.spooled, &self.memory) {
            (Some(spooled), _) => spooled.len(),
            (None, Some(bytes)) => bytes.len(),
            (None, None) => recorded(),
        }
    }
}

impl Block {
    pub(super) fn end(&self) -> u64 {
        self.offset + self.len as u64
    }

    pub(super) fn memory(&self) -> u64 {
        if self.content.memory.is_some() { self.len as u64 } else { 0 }
    }

    pub(super) fn only_on_disk(&mut self) {
        self.content.memory = None;
        self.marks = Box::default();
    }

    /// Where the first transaction after this begins; where none does, the first place that is within none after this.
    /// Nothing where there is no such place: all of it belongs to one that began before what is here.
    pub(super) fn begins_after(&self, marks: &[Mark], lsn: Lsn) -> Option<usize> {
        let ends = marks.iter().find_map(|mark| match mark {
            Mark::Commit { after, .. } => Some(*after),
            _ => None,
        });
        first_after(marks, lsn).or(if self.before.open.is_none() { Some(0) } else { ends })
    }

    /// Picks it if there is room.
    pub(super) fn pick(&self, picked: &mut Vec<Picked>, room: &mut u64) -> bool {
        let spooled = self.content.spooled.as_ref();
        let bytes = if spooled.is_some() { Some(Bytes::new()) } else { self.content.memory.clone() };
        let Some(bytes) = bytes else { return false };
        let cost = Segments::cost(bytes.len(), self.marks.len()) + spooled.map_or(0, |spooled| spooled.cost());
        let Some(left) = room.checked_sub(cost) else { return false };
        *room = left;
        let description = Description {
            offset: self.offset,
            covered: self.covered,
            before: self.before,
            synced: Synced::default(),
            marks: self.marks.clone(),
            spooled: spooled.map(|spooled| spooled.contents().clone()),
        };
        let spooled = spooled.map(Arc::clone);
        picked.push(Picked { id: self.id, description, bytes, spooled, end_lsn: self.end_lsn });
        true
    }
}

/// A block that is to be written.
#[derive(Debug)]
pub(super) struct Picked {
    pub(super) id: u64,
    pub(super) description: Description,
    pub(super) bytes: Bytes,
    /// Has the block's bytes in place of the segment.
    pub(super) spooled: Option<Arc<Spooled>>,
    /// The head's end after it.
    pub(super) end_lsn: Lsn,
}

/// Makes large blocks of small ones that are in memory and follow each other.
pub(super) fn merge(blocks: impl IntoIterator<Item = Block>) -> Vec<Block> {
    let (mut large, mut group, mut len) = (Vec::new(), Vec::new(), 0);
    for block in blocks {
        let stays_alone = |block: &Block| block.content.memory.is_none();
        let is_apart = !block.follows || stays_alone(&block) || group.last().is_some_and(stays_alone);
        if is_apart || len + block.len > MERGED_BYTES {
            large.extend(merged(std::mem::take(&mut group)));
            len = 0;
        }
        len += block.len;
        group.push(block);
    }
    large.extend(merged(group));
    large
}

/// One block of several that are in memory and follow each other.
fn merged(group: Vec<Block>) -> Option<Block> {
    if group.len() < 2 {
        return group.into_iter().next();
    }
    let mut bytes = BytesMut::with_capacity(group.iter().map(|block| block.len).sum());
    let mut marks = Vec::with_capacity(group.iter().map(|block| block.marks.len()).sum());
    let (end_lsn, begun) = group.last().map(|last| (last.end_lsn, last.begun))?;
    for block in &group {
        let offset = bytes.len();
        marks.extend(block.marks.iter().map(|mark| mark.moved(offset)));
        bytes.extend_from_slice(block.content.memory.as_ref()?);
    }
    let len = bytes.len();
    let first = group.into_iter().next()?;
    let content = Content::memory(bytes.freeze());
    Some(Block { len, end_lsn, begun, marks: marks.into(), content, ..first })
}

/// Where the first transaction begins that commits after this.
pub(super) fn first_after(marks: &[Mark], lsn: Lsn) -> Option<usize> {
    marks.iter().find_map(|mark| match mark {
        Mark::Begin { offset, commit, .. } if *commit > lsn => Some(*offset),
        _ => None,
    })
}
