//! Which blocks and transactions does the relay hold, who still needs them, and where does a reader begin?

mod recovered;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::block::{Block, Content, Picked, first_after, merge};
use super::record::{Description, Synced};
use super::segment::Record;
use super::spool::Spooled;
use super::{Head, Mark, Read, StartAt, Transaction};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;
use crate::store::CursorId;

/// How many of the last transactions are known one by one.
const RECENT: usize = 1 << 16;

/// The log without its waiting: every method answers at once.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Blocks in order, without gaps; none is empty. Those with a record come before those without.
    blocks: VecDeque<Block>,
    /// The last complete transactions, in commit order.
    recent: VecDeque<Transaction>,
    /// What the marks have said so far.
    tail: Tail,
    /// The log offset after the last byte.
    end: u64,
    /// The bytes of the blocks in memory.
    memory: u64,
    /// Every transaction that commits at or after this is here or still to come. `None`: nothing is known.
    covered: Option<Lsn>,
    /// It came from disk, and nobody has said yet where the stream goes on.
    is_unsure: bool,
    /// While it comes from disk: bytes of the transaction that is incomplete are missing.
    has_hole: bool,
    /// Something else than a block has changed what is known since the last one.
    is_moved: bool,
    readers: BTreeMap<u64, Place>,
    next_reader: u64,
    next_block: u64,
}

/// What a reader finds.
#[derive(Debug)]
pub(super) enum Found {
    /// This, and it counts as read.
    Read(Read),
    /// A block that must be loaded first. It does not count as read.
    Disk(Record),
    /// A piece of a streamed transaction that must be loaded first. It does not count as read.
    Spooled { spooled: Arc<Spooled>, piece: usize },
}

/// What stands around the changes of a transaction whose changes are in a file.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) begin: Bytes,
    pub(super) commit: Bytes,
}

/// A transaction that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    /// The log offset of its first byte.
    pub(super) begin: u64,
    pub(super) commit: Lsn,
    pub(super) xid: u32,
    pub(super) at: Timestamp,
}

/// Where the log ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) open: Option<Open>,
    pub(super) last: Option<Transaction>,
    pub(super) end_lsn: Lsn,
    /// The log offset after the last complete transaction or keepalive.
    pub(super) boundary: u64,
}

impl Tail {
    /// The commit LSN of the last transaction that has begun.
    fn begun(&self) -> Lsn {
        let last = self.last.map_or(Lsn::ZERO, |last| last.commit);
        self.open.map_or(last, |open| open.commit)
    }
}

#[derive(Debug)]
struct Place {
    owner: Option<CursorId>,
    read: u64,
    released: u64,
    rewound: bool,
    /// It begins with the first transaction after this, somewhere in the block that it has to load first or behind it.
    seeks: Option<Lsn>,
}

impl Place {
    /// Goes to where it is to begin, or behind the block where that is not in it; says whether there is anything of the
    /// block to read.
    fn finds(&mut self, block: &Block, marks: &[Mark]) -> bool {
        if let Some(lsn) = self.seeks {
            let begin = block.begins_after(marks, lsn);
            self.read = self.read.max(block.offset + begin.unwrap_or(block.len).min(block.len) as u64);
            self.seeks = self.seeks.filter(|_| begin.is_none());
        }
        self.read < block.end()
    }

    /// The rest of this block, whose bytes these are.
    fn take(&mut self, block: &Block, bytes: &Bytes) -> Option<Read> {
        let offset = self.read;
        let skip = usize::try_from(offset.checked_sub(block.offset)?).ok()?;
        if skip > block.len || block.len > bytes.len() {
            return None;
        }
        self.read = block.end();
        Some(Read::Block { bytes: bytes.slice(skip..block.len), offset, in_stream: None })
    }

    /// The rest of this piece, whose bytes these are.
    fn take_piece(&mut self, block: &Block, spooled: &Spooled, piece: usize, bytes: &Bytes) -> Option<Read> {
        let offset = self.read;
        let at = spooled.place(piece)?;
        let skip = usize::try_from(offset.checked_sub(block.offset + at.start)?).ok()?;
        if skip >= bytes.len() {
            return None;
        }
        self.read = block.offset + at.end;
        Some(Read::Block { bytes: bytes.slice(skip..), offset, in_stream: spooled.contents().aborted.clone() })
    }
}

impl Log {
    /// Appends a block. Nothing changes when the marks make no sense.
    pub(super) fn append(&mut self, bytes: Bytes, marks: &[Mark]) -> EtlResult<()> {
        self.push(Content::memory(bytes), marks)?;
        self.free();
        Ok(())
    }

    /// Appends a whole transaction whose changes are in a file. Nothing changes when another one is incomplete.
    pub(super) fn adopt(&mut self, spooled: Arc<Spooled>, frames: Frames, adopted: Transaction) -> EtlResult<()> {
        let Transaction { commit, end, xid, at } = adopted;
        spooled.is_adopted();
        self.push(Content::memory(frames.begin), &[Mark::Begin { offset: 0, commit, xid, at }])?;
        if spooled.len() > 0 {
            self.push(Content::spooled(spooled), &[])?;
        }
        let after = frames.commit.len();
        self.push(Content::memory(frames.commit), &[Mark::Commit { after, end }])?;
        self.free();
        Ok(())
    }

    fn push(&mut self, content: Content, marks: &[Mark]) -> EtlResult<()> {
        let len = content.len();
        let before = self.tail;
        let mut tail = before;
        let mut done = Vec::new();
        let mut first = None;
        for mark in marks {
            let at = self.end + mark.checked_offset(len)? as u64;
            match (*mark, tail.open) {
                (Mark::Begin { commit, xid, at: time, .. }, None) => {
                    first = first.or(Some(commit));
                    tail.open = Some(Open { begin: at, commit, xid, at: time });
                }
                (Mark::Commit { end, .. }, Some(open)) => {
                    let transaction = Transaction { commit: open.commit, end, xid: open.xid, at: open.at };
                    done.push(transaction);
                    tail.open = None;
                    tail.last = Some(transaction);
                    tail.end_lsn = tail.end_lsn.max(end);
                    tail.boundary = at;
                }
                (Mark::KeepAlive { end, .. }, None) => {
                    tail.end_lsn = tail.end_lsn.max(end);
                    tail.boundary = at;
                }
                // Within a transaction it says nothing about what is complete.
                (Mark::KeepAlive { .. }, Some(_)) => {}
                (Mark::Begin { commit, .. }, Some(open)) => {
                    return Err(broken("a transaction began within another")
                        .with("commit", commit)
                        .with("within", open.commit));
                }
                (Mark::Commit { end, .. }, None) => {
                    return Err(broken("a transaction ended that had not begun").with("end", end));
                }
            }
        }
        self.recent.extend(done);
        self.recent.drain(..self.recent.len().saturating_sub(RECENT));
        let covered = self.covered;
        self.covered = covered.or(first);
        self.tail = tail;
        if len == 0 {
            self.is_moved = true;
            return Ok(());
        }
        let follows = !std::mem::take(&mut self.is_moved);
        let marks = if content.disk.is_some() { Box::default() } else { marks.into() };
        let (id, offset, end_lsn, begun) = (self.next_block, self.end, tail.end_lsn, tail.begun());
        let block = Block { id, offset, len, covered, before, follows, end_lsn, begun, marks, content };
        self.next_block += 1;
        self.end += len as u64;
        self.memory += block.memory();
        self.blocks.push_back(block);
        Ok(())
    }

    /// Drops the incomplete last transaction, and sets back whoever began to read it.
    pub(super) fn rewind(&mut self) {
        let Some(open) = self.tail.open.take() else { return };
        let cut = open.begin;
        self.cut(cut);
        for place in self.readers.values_mut() {
            if place.read > cut {
                place.read = cut;
                place.rewound = true;
            }
            place.released = place.released.min(cut);
        }
        self.free();
    }

    /// Nothing is left from this log offset on.
    fn cut(&mut self, cut: u64) {
        while self.blocks.back().is_some_and(|block| block.offset >= cut) {
            self.memory -= self.blocks.pop_back().map_or(0, |block| block.memory());
        }
        if let Some(block) = self.blocks.back_mut() {
            let keep = usize::try_from(cut - block.offset).unwrap_or(usize::MAX).min(block.len);
            self.memory -= block.memory();
            block.len = keep;
            block.begun = block.begun.min(self.tail.last.map_or(Lsn::ZERO, |last| last.commit));
            if let Some(bytes) = &mut block.content.memory {
                bytes.truncate(keep);
            }
            let is_void =
                |mark: &Mark| matches!(mark, Mark::Begin { offset, .. } if block.offset + *offset as u64 >= cut);
            if let Some(first) = block.marks.iter().position(is_void) {
                block.marks = block.marks.iter().take(first).copied().collect();
            }
            self.memory += block.memory();
        }
        self.end = cut;
        self.is_moved = true;
    }

    pub(super) fn begin_at(&mut self, lsn: Lsn) {
        self.is_unsure = false;
        if lsn > self.tail.end_lsn {
            // What committed between the old end and here may never have been received.
            self.tail.end_lsn = lsn;
            self.covered = Some(lsn);
            self.is_moved = true;
        }
    }

    pub(super) fn has(&self, commit: Lsn) -> Option<Transaction> {
        let found = self.recent.binary_search_by_key(&commit, |transaction| transaction.commit).ok()?;
        self.recent.get(found).copied()
    }

    pub(super) fn head(&self) -> Head {
        Head { last: self.tail.last, end: self.tail.end_lsn }
    }

    pub(super) fn holds(&self, from: StartAt) -> bool {
        match from {
            StartAt::Head => true,
            StartAt::After(lsn) => {
                !self.is_unsure && self.covered.is_some_and(|covered| lsn.0.saturating_add(1) >= covered.0)
            }
        }
    }

    /// The log offset of the first byte that is here.
    fn start(&self) -> u64 {
        self.blocks.front().map_or(self.end, |block| block.offset)
    }

    pub(super) fn add_reader(&mut self, owner: Option<CursorId>, from: StartAt) -> u64 {
        let found = match from {
            StartAt::Head => None,
            StartAt::After(lsn) => self.place_after(lsn),
        };
        let (read, seeks) = found.unwrap_or((self.tail.boundary.max(self.start()), None));
        let id = self.next_reader;
        self.next_reader += 1;
        self.readers.insert(id, Place { owner, read, released: read, rewound: false, seeks });
        id
    }

    fn place_after(&self, lsn: Lsn) -> Option<(u64, Option<Lsn>)> {
        let block = self.blocks.get(self.blocks.partition_point(|block| block.begun <= lsn))?;
        match block.content.memory {
            Some(_) if let Some(begin) = first_after(&block.marks, lsn) => Some((block.offset + begin as u64, None)),
            _ => Some((block.offset, Some(lsn))),
        }
    }

    pub(super) fn remove_reader(&mut self, id: u64) {
        self.readers.remove(&id);
        self.free();
    }

    /// What this reader gets next; nothing when it is at the end.
    pub(super) fn read(&mut self, id: u64) -> Option<Found> {
        let place = self.readers.get_mut(&id)?;
        if std::mem::take(&mut place.rewound) {
            return Some(Found::Read(Read::Rewound));
        }
        loop {
            let block = self.blocks.get(self.blocks.partition_point(|block| block.end() <= place.read))?;
            if let Some(spooled) = &block.content.spooled {
                if place.seeks.is_some() {
                    // It began before what is here.
                    place.read = block.end();
                    continue;
                }
                let piece = spooled.piece_at(place.read - block.offset);
                return Some(Found::Spooled { spooled: Arc::clone(spooled), piece });
            }
            let Some(bytes) = &block.content.memory else { return block.content.disk.clone().map(Found::Disk) };
            if place.finds(block, &block.marks) {
                return place.take(block, bytes).map(Found::Read);
            }
        }
    }

    /// What this reader gets from the block that it has loaded; nothing when it has to look again.
    pub(super) fn read_loaded(&mut self, id: u64, record: &Record, marks: &[Mark], bytes: &Bytes) -> Option<Read> {
        let place = self.readers.get_mut(&id).filter(|place| !place.rewound)?;
        let block = self.blocks.get(self.blocks.partition_point(|block| block.end() <= place.read))?;
        if !block.content.disk.as_ref().is_some_and(|disk| disk.is(record)) {
            return None;
        }
        if !place.finds(block, marks) {
            return None;
        }
        place.take(block, bytes)
    }

    /// The same for a piece of a streamed transaction.
    pub(super) fn read_spooled(
        &mut self,
        id: u64,
        spooled: &Arc<Spooled>,
        piece: usize,
        bytes: &Bytes,
    ) -> Option<Read> {
        let place = self.readers.get_mut(&id).filter(|place| !place.rewound)?;
        let block = self.blocks.get(self.blocks.partition_point(|block| block.end() <= place.read))?;
        let is_same = block.content.spooled.as_ref().is_some_and(|found| Arc::ptr_eq(found, spooled));
        if is_same { place.take_piece(block, spooled, piece, bytes) } else { None }
    }

    /// Takes the oldest blocks out of memory until what stays is at most `keep` bytes, as far as they have a
    /// record; picks those that need one first, none beyond `room`. Says whether memory was freed.
    pub(super) fn spill(&mut self, keep: u64, room: u64) -> (bool, Vec<Picked>) {
        let before = self.memory;
        let (mut left, mut upto) = (before, 0);
        for block in &mut self.blocks {
            if left <= keep {
                break;
            }
            left -= block.memory();
            upto += 1;
            if block.content.disk.is_some() {
                self.memory -= block.memory();
                block.only_on_disk();
            }
        }
        (self.memory < before, self.pick(upto, room).1)
    }

    /// Picks the blocks without a record of all transactions that committed before `end`, as far as there is `room`
    /// for them; says whether that was so.
    pub(super) fn unrecorded(&mut self, end: Lsn, room: u64) -> (bool, Vec<Picked>) {
        // The first block in which a later transaction begins may hold the end of an earlier one.
        let last = self.blocks.partition_point(|block| block.begun < end);
        let reaches = self.blocks.get(last).is_some_and(|block| block.end_lsn >= end);
        self.pick(if reaches { last + 1 } else { self.blocks.len() }, room)
    }

    fn pick(&mut self, upto: usize, mut room: u64) -> (bool, Vec<Picked>) {
        let from = self.blocks.partition_point(|block| block.content.disk.is_some());
        let upto = self.merge(from, upto);
        let mut picked = Vec::new();
        let fits = self.blocks.iter().take(upto).skip(from).all(|block| block.pick(&mut picked, &mut room));
        (fits, picked)
    }

    /// Makes large blocks of these small ones, which have no record; returns the new end of them.
    fn merge(&mut self, from: usize, upto: usize) -> usize {
        if from >= upto {
            return upto;
        }
        let rest = self.blocks.split_off(upto);
        let small = self.blocks.split_off(from);
        self.blocks.extend(merge(small));
        let upto = self.blocks.len();
        self.blocks.extend(rest);
        upto
    }

    /// What says how far the log reaches, where every block has a record.
    pub(super) fn note(&self) -> Option<Description> {
        let is_recorded = self.blocks.back().is_none_or(|block| block.content.disk.is_some());
        is_recorded.then(|| Description {
            offset: self.end,
            covered: self.covered,
            before: self.tail,
            synced: Synced::default(),
            marks: Box::default(),
            spooled: None,
        })
    }

    /// This block has a record now. One that is gone meanwhile counts for nothing.
    pub(super) fn recorded(&mut self, id: u64, record: Record) {
        let Ok(found) = self.blocks.binary_search_by_key(&id, |block| block.id) else { return };
        if let Some(block) = self.blocks.get_mut(found) {
            block.content.disk = Some(record);
        }
    }

    pub(super) fn release(&mut self, id: u64, upto: u64) {
        if let Some(place) = self.readers.get_mut(&id) {
            place.released = upto.min(place.read).max(place.released);
            self.free();
        }
    }

    pub(super) fn behind(&self, id: u64) -> u64 {
        self.readers.get(&id).map_or(0, |place| self.end - place.read)
    }

    /// Whose reader holds the most, and from which log offset on; of several a table's.
    pub(super) fn slowest(&self) -> Option<(CursorId, u64)> {
        let behind = self.readers.values().filter(|place| place.released < self.end);
        let owned = behind.filter_map(|place| Some((place.owner?, place.released)));
        owned.min_by_key(|(owner, released)| (*released, *owner == CursorId::Main))
    }

    /// Whether some reader has not yet read every complete transaction: only then can waiting free memory. What is here
    /// of an incomplete one is needed until all of it is.
    pub(super) fn somebody_is_behind(&self) -> bool {
        let complete = self.complete();
        self.readers.values().any(|place| place.read < complete || place.rewound)
    }

    /// The log offset after the last complete transaction.
    fn complete(&self) -> u64 {
        self.tail.open.map_or(self.end, |open| open.begin)
    }

    #[cfg(test)]
    pub(super) fn end_offset(&self) -> u64 {
        self.end
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory
    }

    /// Drops the blocks that nobody needs. The incomplete transaction stays: the next reader begins with it.
    fn free(&mut self) {
        let complete = self.complete();
        let needed = self.readers.values().map(|place| place.released).min().unwrap_or(complete).min(complete);
        while let Some(block) = self.blocks.pop_front_if(|block| block.end() <= needed) {
            self.memory -= block.memory();
            if block.begun > Lsn::ZERO {
                self.covered = self.covered.max(Some(Lsn(block.begun.0.saturating_add(1))));
            }
        }
    }
}

impl Mark {
    pub(super) fn moved(self, by: usize) -> Self {
        match self {
            Self::Begin { offset, commit, xid, at } => Self::Begin { offset: offset + by, commit, xid, at },
            Self::Commit { after, end } => Self::Commit { after: after + by, end },
            Self::KeepAlive { after, end } => Self::KeepAlive { after: after + by, end },
        }
    }

    fn checked_offset(self, len: usize) -> EtlResult<usize> {
        let (Self::Begin { offset, .. } | Self::Commit { after: offset, .. } | Self::KeepAlive { after: offset, .. }) =
            self;
        if offset <= len {
            return Ok(offset);
        }
        Err(broken("a mark lies outside of its block").with("offset", offset).with("length", len))
    }
}

fn broken(what: &'static str) -> EtlError {
    EtlError::new(ErrorKind::Internal, what).hint("This is a defect of the engine; please report it")
}
