//! What does a segment's record say of its block, and in which bytes?
//!
//! A record is the length of its description (u32), the length of its block (u32), the CRC-32 of all the rest
//! (u32), the description, the block; all numbers are big-endian. A record without a block is a note: it says
//! how far the log reaches where nothing has to be kept. A record without a block may also stand for a spool file,
//! which has the block.

use std::sync::Arc;

use bytes::{Buf, BufMut};

use super::log::{Open, Tail};
use super::spool::{Aborted, Contents, Piece};
use super::{Mark, Transaction};
use crate::clock::Timestamp;
use crate::lsn::Lsn;

/// The bytes before the description.
pub(super) const HEADER: usize = 12;

/// The bytes of a description at most, without its marks.
pub(super) const DESCRIPTION: usize = 128;

/// The bytes of one mark at most.
pub(super) const MARK: usize = 32;

/// Begins what is said of a spool file, among the tags of marks.
const SPOOLED: u8 = b'S';

/// A place in the segments: everything before it is on disk for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Synced {
    /// The segment's number.
    pub(super) segment: u64,
    /// Bytes within it.
    pub(super) position: u64,
}

/// What a record says of its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    /// The log offset of the block's first byte.
    pub(super) offset: u64,
    /// The log before the block: every transaction that commits at or after this is there or still to come.
    pub(super) covered: Option<Lsn>,
    /// The log before the block.
    pub(super) before: Tail,
    /// What was synced when the record was written: damage before is no torn write.
    pub(super) synced: Synced,
    /// What the block says about transactions.
    pub(super) marks: Box<[Mark]>,
    /// The file that has the block.
    pub(super) spooled: Option<Contents>,
}

/// The three numbers before a description.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) description: usize,
    pub(super) block: usize,
    checksum: u32,
}

impl Header {
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut number = || bytes.try_get_u32().ok();
        let (description, block, checksum) = (number()?, number()?, number()?);
        Some(Self { description: description as usize, block: block as usize, checksum })
    }

    /// The bytes after the header.
    pub(super) fn body(self) -> u64 {
        self.description as u64 + self.block as u64
    }

    /// Whether this is the body that was written. A file's zeros are not.
    pub(super) fn fits(self, body: &[u8]) -> bool {
        let description = u32::try_from(self.description).unwrap_or(u32::MAX);
        self.description > 0
            && body.len() as u64 == self.body()
            && checksum(description, u32::try_from(self.block).unwrap_or(u32::MAX), &[body]) == self.checksum
    }
}

impl Description {
    /// The header and the description; the block follows. Nothing when the block is too long for a record.
    pub(super) fn encode(&self, block: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; HEADER];
        out.put_u64(self.offset);
        put_option(&mut out, self.covered, |out, lsn| out.put_u64(lsn.0));
        put_option(&mut out, self.before.open, |out, open| {
            out.put_u64(open.begin);
            out.put_u64(open.commit.0);
            out.put_u32(open.xid);
            out.put_i64(open.at.0);
        });
        put_option(&mut out, self.before.last, |out, last| {
            out.put_u64(last.commit.0);
            out.put_u64(last.end.0);
            out.put_u32(last.xid);
            out.put_i64(last.at.0);
        });
        out.put_u64(self.before.end_lsn.0);
        out.put_u64(self.before.boundary);
        out.put_u64(self.synced.segment);
        out.put_u64(self.synced.position);
        for mark in &self.marks {
            put_mark(&mut out, *mark)?;
        }
        if let Some(contents) = &self.spooled {
            put_contents(&mut out, contents)?;
        }
        let description = out.get(HEADER..)?;
        let (length, block_length) = (u32::try_from(description.len()).ok()?, u32::try_from(block.len()).ok()?);
        let checksum = checksum(length, block_length, &[description, block]);
        let mut header = out.get_mut(..HEADER)?;
        header.put_u32(length);
        header.put_u32(block_length);
        header.put_u32(checksum);
        Some(out)
    }

    /// Nothing when the bytes are not a description.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        let offset = from.try_get_u64().ok()?;
        let covered = get_option(from, get_lsn)?;
        let open = get_option(from, |from| {
            let (begin, commit) = (from.try_get_u64().ok()?, get_lsn(from)?);
            Some(Open { begin, commit, xid: from.try_get_u32().ok()?, at: get_time(from)? })
        })?;
        let last = get_option(from, |from| {
            let (commit, end) = (get_lsn(from)?, get_lsn(from)?);
            Some(Transaction { commit, end, xid: from.try_get_u32().ok()?, at: get_time(from)? })
        })?;
        let before = Tail { open, last, end_lsn: get_lsn(from)?, boundary: from.try_get_u64().ok()? };
        let synced = Synced { segment: from.try_get_u64().ok()?, position: from.try_get_u64().ok()? };
        let mut marks = Vec::new();
        let mut spooled = None;
        while let Some(tag) = from.first() {
            if *tag == SPOOLED {
                spooled = Some(get_contents(from)?);
            } else {
                marks.push(get_mark(from)?);
            }
        }
        Some(Self { offset, covered, before, synced, marks: marks.into(), spooled })
    }
}

fn checksum(description: u32, block: u32, parts: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&description.to_be_bytes());
    crc.update(&block.to_be_bytes());
    for part in parts {
        crc.update(part);
    }
    crc.finalize()
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

/// The outer nothing: the bytes make no sense.
fn get_option<T>(from: &mut &[u8], get: impl FnOnce(&mut &[u8]) -> Option<T>) -> Option<Option<T>> {
    match from.try_get_u8().ok()? {
        0 => Some(None),
        1 => get(from).map(Some),
        _ => None,
    }
}

fn get_lsn(from: &mut &[u8]) -> Option<Lsn> {
    from.try_get_u64().ok().map(Lsn)
}

fn get_time(from: &mut &[u8]) -> Option<Timestamp> {
    from.try_get_i64().ok().map(Timestamp)
}

fn put_mark(out: &mut Vec<u8>, mark: Mark) -> Option<()> {
    let (tag, place, lsn) = match mark {
        Mark::Begin { offset, commit, .. } => (b'B', offset, commit),
        Mark::Commit { after, end } => (b'C', after, end),
        Mark::KeepAlive { after, end } => (b'K', after, end),
    };
    out.put_u8(tag);
    out.put_u32(u32::try_from(place).ok()?);
    out.put_u64(lsn.0);
    if let Mark::Begin { xid, at, .. } = mark {
        out.put_u32(xid);
        out.put_i64(at.0);
    }
    Some(())
}

fn get_mark(from: &mut &[u8]) -> Option<Mark> {
    let tag = from.try_get_u8().ok()?;
    let (place, lsn) = (from.try_get_u32().ok()? as usize, get_lsn(from)?);
    match tag {
        b'B' => {
            let xid = from.try_get_u32().ok()?;
            Some(Mark::Begin { offset: place, commit: lsn, xid, at: get_time(from)? })
        }
        b'C' => Some(Mark::Commit { after: place, end: lsn }),
        b'K' => Some(Mark::KeepAlive { after: place, end: lsn }),
        _ => None,
    }
}

/// Its tag, the file's number, how many pieces, length (u32) and checksum of each, whether messages name their
/// (sub)transactions, how many of these are void, and which.
pub(super) fn put_contents(out: &mut Vec<u8>, contents: &Contents) -> Option<()> {
    out.put_u8(SPOOLED);
    out.put_u64(contents.number);
    out.put_u32(u32::try_from(contents.pieces.len()).ok()?);
    let mut start = 0;
    for piece in &*contents.pieces {
        out.put_u32(u32::try_from(piece.end - start).ok()?);
        out.put_u32(piece.checksum);
        start = piece.end;
    }
    out.put_u8(u8::from(contents.aborted.is_some()));
    let xids = contents.aborted.as_ref().map_or(&[][..], |aborted| aborted.xids());
    out.put_u32(u32::try_from(xids.len()).ok()?);
    xids.iter().for_each(|xid| out.put_u32(*xid));
    Some(())
}

pub(super) fn get_contents(from: &mut &[u8]) -> Option<Contents> {
    from.try_get_u8().ok()?;
    let number = from.try_get_u64().ok()?;
    let (mut end, mut pieces) = (0_u64, Vec::new());
    for _ in 0..from.try_get_u32().ok()? {
        end += u64::from(from.try_get_u32().ok()?);
        pieces.push(Piece { end, checksum: from.try_get_u32().ok()? });
    }
    let names_them = from.try_get_u8().ok()? == 1;
    let mut xids = Vec::new();
    for _ in 0..from.try_get_u32().ok()? {
        xids.push(from.try_get_u32().ok()?);
    }
    Some(Contents { number, pieces: pieces.into(), aborted: names_them.then(|| Arc::new(Aborted::new(xids))) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Description {
        let at = Timestamp(-5);
        Description {
            offset: 1 << 40,
            covered: Some(Lsn(3)),
            before: Tail {
                open: Some(Open { begin: 9, commit: Lsn(8), xid: 7, at }),
                last: Some(Transaction { commit: Lsn(1), end: Lsn(2), xid: 3, at }),
                end_lsn: Lsn(u64::MAX),
                boundary: 4,
            },
            synced: Synced { segment: 5, position: 6 },
            marks: Box::new([
                Mark::Commit { after: 1, end: Lsn(9) },
                Mark::KeepAlive { after: 1, end: Lsn(10) },
                Mark::Begin { offset: 2, commit: Lsn(11), xid: u32::MAX, at },
            ]),
            spooled: None,
        }
    }

    #[test]
    fn a_description_survives_its_bytes_and_is_not_larger_than_told() {
        let full = description();
        let empty = Description { covered: None, before: Tail::default(), marks: Box::default(), ..description() };
        let pieces = Arc::new([Piece { end: 3 << 30, checksum: 7 }, Piece { end: 6 << 30, checksum: 8 }]);
        let contents = Contents { number: 9, pieces, aborted: Some(Arc::new(Aborted::new(vec![5, 3, 5]))) };
        let named = Description { spooled: Some(contents.clone()), ..description() };
        let unnamed = Description { spooled: Some(Contents { aborted: None, ..contents }), ..description() };
        for description in [full, empty, named, unnamed] {
            let bytes = description.encode(b"block").unwrap();
            let of_file = if description.spooled.is_some() { 64 } else { 0 };
            assert!(bytes.len() <= HEADER + DESCRIPTION + MARK * description.marks.len() + of_file);
            assert_eq!(Description::decode(&bytes[HEADER..]), Some(description));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let record = [&description().encode(b"block").unwrap()[..], b"block"].concat();
        let fits = |record: &[u8]| {
            Header::decode(record).is_some_and(|header| header.fits(record.get(HEADER..).unwrap_or_default()))
        };
        assert!(fits(&record));
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!fits(&flipped), "bit {bit}");
        }
        for cut in 0..record.len() {
            assert!(!fits(&record[..cut]), "cut at {cut}");
        }
        assert!(!fits(&[0; 64]));
    }
}
