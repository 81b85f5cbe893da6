//! Which blocks and transactions does the relay hold, who still needs them, and where does a reader begin?

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::segment::{Record, Segments};
use super::{Head, Mark, Read, StartAt, Transaction};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;

/// The log without its waiting: every method answers at once.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Blocks in order, without gaps; none is empty.
    blocks: VecDeque<Block>,
    /// Complete transactions whose first byte is still here, in commit order.
    held: VecDeque<Held>,
    /// What the marks have said so far.
    tail: Tail,
    /// The log offset after the last byte.
    end: u64,
    /// The bytes of the blocks in memory.
    memory: u64,
    /// Every transaction that commits at or after this is here or still to come. `None`: nothing is known.
    covered: Option<Lsn>,
    readers: BTreeMap<u64, Place>,
    next_reader: u64,
}

#[derive(Debug)]
struct Block {
    offset: u64,
    /// Less than what was written of it, where its end was rewound.
    len: usize,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Memory(Bytes),
    Disk(Record),
}

impl Block {
    fn end(&self) -> u64 {
        self.offset + self.len as u64
    }

    fn memory(&self) -> u64 {
        if matches!(self.data, Data::Memory(_)) { self.len as u64 } else { 0 }
    }
}

/// What a reader finds.
#[derive(Debug)]
pub(super) enum Found {
    /// This, and it counts as read.
    Read(Read),
    /// A block that must be loaded first, of this log offset. It does not count as read.
    Disk(u64, Record),
}

#[derive(Debug)]
struct Held {
    transaction: Transaction,
    begin: u64,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    begin: u64,
    commit: Lsn,
    xid: u32,
    at: crate::clock::Timestamp,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tail {
    open: Option<Open>,
    last: Option<Transaction>,
    end_lsn: Lsn,
    /// The log offset after the last complete transaction or keepalive.
    boundary: u64,
}

#[derive(Debug)]
struct Place {
    read: u64,
    released: u64,
    rewound: bool,
}

impl Place {
    /// The rest of this block, whose bytes these are.
    fn take(&mut self, block: &Block, bytes: &Bytes) -> Option<Read> {
        let offset = self.read;
        let skip = usize::try_from(offset.checked_sub(block.offset)?).ok()?;
        if skip > block.len || block.len > bytes.len() {
            return None;
        }
        self.read = block.end();
        Some(Read::Block { bytes: bytes.slice(skip..block.len), offset })
    }
}

impl Log {
    /// Appends a block. Nothing changes when the marks make no sense.
    pub(super) fn append(&mut self, bytes: Bytes, marks: &[Mark]) -> EtlResult<()> {
        let mut tail = self.tail;
        let mut done = Vec::new();
        let mut first = None;
        for mark in marks {
            let at = self.end + mark.checked_offset(bytes.len())? as u64;
            match (*mark, tail.open) {
                (Mark::Begin { commit, xid, at: time, .. }, None) => {
                    first = first.or(Some(commit));
                    tail.open = Some(Open { begin: at, commit, xid, at: time });
                }
                (Mark::Commit { end, .. }, Some(open)) => {
                    let transaction = Transaction { commit: open.commit, end, xid: open.xid, at: open.at };
                    done.push(Held { transaction, begin: open.begin });
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
        self.tail = tail;
        self.held.extend(done);
        self.covered = self.covered.or(first);
        if !bytes.is_empty() {
            let (offset, len) = (self.end, bytes.len());
            self.end += len as u64;
            self.memory += len as u64;
            self.blocks.push_back(Block { offset, len, data: Data::Memory(bytes) });
        }
        self.free();
        Ok(())
    }

    /// Drops the incomplete last transaction, and sets back whoever began to read it.
    pub(super) fn rewind(&mut self) {
        let Some(open) = self.tail.open.take() else { return };
        let cut = open.begin;
        while self.blocks.back().is_some_and(|block| block.offset >= cut) {
            self.memory -= self.blocks.pop_back().map_or(0, |block| block.memory());
        }
        if let Some(block) = self.blocks.back_mut() {
            let keep = usize::try_from(cut - block.offset).unwrap_or(usize::MAX).min(block.len);
            self.memory -= block.memory();
            block.len = keep;
            if let Data::Memory(bytes) = &mut block.data {
                bytes.truncate(keep);
            }
            self.memory += block.memory();
        }
        self.end = cut;
        for place in self.readers.values_mut() {
            if place.read > cut {
                place.read = cut;
                place.rewound = true;
            }
            place.released = place.released.min(cut);
        }
        self.free();
    }

    pub(super) fn begin_at(&mut self, lsn: Lsn) {
        if lsn > self.tail.end_lsn {
            // What committed between the old end and here may never have been received.
            self.tail.end_lsn = lsn;
            self.covered = Some(lsn);
        }
    }

    pub(super) fn has(&self, commit: Lsn) -> Option<Transaction> {
        let found = self.held.binary_search_by_key(&commit, |held| held.transaction.commit).ok()?;
        self.held.get(found).map(|held| held.transaction)
    }

    pub(super) fn head(&self) -> Head {
        Head { last: self.tail.last, end: self.tail.end_lsn }
    }

    pub(super) fn holds(&self, from: StartAt) -> bool {
        match from {
            StartAt::Head => true,
            StartAt::After(_) if self.tail.last.is_none() && self.tail.open.is_none() => false,
            StartAt::After(lsn) => self.covered.is_some_and(|covered| lsn.0.saturating_add(1) >= covered.0),
        }
    }

    /// The log offset of the first byte that is here.
    fn start(&self) -> u64 {
        self.blocks.front().map_or(self.end, |block| block.offset)
    }

    pub(super) fn add_reader(&mut self, from: StartAt) -> u64 {
        let complete = match from {
            StartAt::Head => None,
            StartAt::After(lsn) => {
                let first = self.held.partition_point(|held| held.transaction.commit <= lsn);
                self.held.get(first).map(|held| held.begin)
            }
        };
        let read = complete.unwrap_or(self.tail.boundary).max(self.start());
        let id = self.next_reader;
        self.next_reader += 1;
        self.readers.insert(id, Place { read, released: read, rewound: false });
        id
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
        let block = self.blocks.get(self.blocks.partition_point(|block| block.end() <= place.read))?;
        match &block.data {
            Data::Memory(bytes) => place.take(block, bytes).map(Found::Read),
            Data::Disk(record) => Some(Found::Disk(block.offset, record.clone())),
        }
    }

    /// What this reader gets from the block that it has loaded; nothing when that is no longer its next one.
    pub(super) fn read_loaded(&mut self, id: u64, loaded: &Record, bytes: &Bytes) -> Option<Read> {
        let place = self.readers.get_mut(&id).filter(|place| !place.rewound)?;
        let block = self.blocks.get(self.blocks.partition_point(|block| block.end() <= place.read))?;
        match &block.data {
            Data::Disk(record) if record.is(loaded) => place.take(block, bytes),
            _ => None,
        }
    }

    /// The oldest blocks in memory, so many that what stays is at most `keep` bytes; none beyond `room` on disk.
    pub(super) fn oldest_in_memory(&self, keep: u64, mut room: u64) -> Vec<(u64, Bytes)> {
        let mut chosen = Vec::new();
        let mut left = self.memory;
        for block in &self.blocks {
            let Data::Memory(bytes) = &block.data else { continue };
            let cost = Segments::cost(block.len);
            if left <= keep || cost > room {
                break;
            }
            room -= cost;
            left -= block.memory();
            chosen.push((block.offset, bytes.clone()));
        }
        chosen
    }

    /// These blocks are on disk now. Those that are gone meanwhile count for nothing.
    pub(super) fn moved_to_disk(&mut self, records: Vec<(u64, Record)>) {
        for (offset, record) in records {
            let Ok(found) = self.blocks.binary_search_by_key(&offset, |block| block.offset) else { continue };
            if let Some(block) = self.blocks.get_mut(found) {
                self.memory -= block.memory();
                block.data = Data::Disk(record);
            }
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

    /// Whether some reader has not yet read everything: only then can waiting free memory.
    pub(super) fn somebody_is_behind(&self) -> bool {
        self.readers.values().any(|place| place.read < self.end || place.rewound)
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory
    }

    /// Drops the blocks that nobody needs. The incomplete transaction stays: the next reader begins with it.
    fn free(&mut self) {
        let complete = self.tail.open.map_or(self.end, |open| open.begin);
        let needed = self.readers.values().map(|place| place.released).min().unwrap_or(complete).min(complete);
        while self.blocks.front().is_some_and(|block| block.end() <= needed) {
            self.memory -= self.blocks.pop_front().map_or(0, |block| block.memory());
        }
        let start = self.start();
        while let Some(held) = self.held.pop_front_if(|held| held.begin < start) {
            self.covered = Some(Lsn(held.transaction.commit.0.saturating_add(1)));
        }
    }
}

impl Mark {
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
