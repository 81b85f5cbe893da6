//! Which blocks and transactions does the relay hold, who still needs them, and where does a reader begin?

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{Head, Mark, Read, RelayStatus, StartAt, Transaction};
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
    /// Every transaction that commits at or after this is here or still to come. `None`: nothing is known.
    covered: Option<Lsn>,
    readers: BTreeMap<u64, Place>,
    next_reader: u64,
}

#[derive(Debug)]
struct Block {
    offset: u64,
    bytes: Bytes,
}

impl Block {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
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
            let offset = self.end;
            self.end += bytes.len() as u64;
            self.blocks.push_back(Block { offset, bytes });
        }
        self.free();
        Ok(())
    }

    /// Drops the incomplete last transaction, and sets back whoever began to read it.
    pub(super) fn rewind(&mut self) {
        let Some(open) = self.tail.open.take() else { return };
        let cut = open.begin;
        while self.blocks.back().is_some_and(|block| block.offset >= cut) {
            self.blocks.pop_back();
        }
        if let Some(block) = self.blocks.back_mut() {
            let keep = usize::try_from(cut - block.offset).unwrap_or(usize::MAX);
            block.bytes.truncate(keep);
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
    pub(super) fn read(&mut self, id: u64) -> Option<Read> {
        let place = self.readers.get_mut(&id)?;
        if std::mem::take(&mut place.rewound) {
            return Some(Read::Rewound);
        }
        let block = self.blocks.get(self.blocks.partition_point(|block| block.end() <= place.read))?;
        let offset = place.read;
        let skip = usize::try_from(offset.checked_sub(block.offset)?).ok()?;
        let bytes = block.bytes.slice(skip..);
        place.read = block.end();
        Some(Read::Block { bytes, offset })
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
        self.end - self.start()
    }

    pub(super) fn status(&self) -> RelayStatus {
        RelayStatus { memory_bytes: self.memory_bytes(), disk_bytes: 0 }
    }

    /// Drops the blocks that nobody needs. The incomplete transaction stays: the next reader begins with it.
    fn free(&mut self) {
        let complete = self.tail.open.map_or(self.end, |open| open.begin);
        let needed = self.readers.values().map(|place| place.released).min().unwrap_or(complete).min(complete);
        while self.blocks.front().is_some_and(|block| block.end() <= needed) {
            self.blocks.pop_front();
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
