//! What comes of a transaction before it has committed? The segments of protocol 2, and how it ended.

use super::transaction::{lsn, no_flags, time};
use crate::clock::Timestamp;
use crate::lsn::Lsn;
use crate::postgres::scan::{Malformed, Scan, Scanner};

/// A segment of a transaction in progress begins; what follows up to the segment's end belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStart {
    /// The top-level transaction.
    pub xid: u32,
    /// Whether it is the transaction's first segment in this session.
    pub is_first: bool,
}

impl StreamStart {
    pub(super) fn read(scan: &mut Scanner<'_>) -> Scan<Self> {
        let xid = scan.u32()?;
        let is_first = match scan.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("it is neither the first segment nor a later one")),
        };
        Ok(Self { xid, is_first })
    }
}

/// A streamed transaction has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCommit {
    /// The top-level transaction.
    pub xid: u32,
    /// The LSN of its commit record.
    pub commit: Lsn,
    /// The LSN after its commit record.
    pub end: Lsn,
    /// When it committed.
    pub at: Timestamp,
}

impl StreamCommit {
    pub(super) fn read(scan: &mut Scanner<'_>) -> Scan<Self> {
        let xid = scan.u32()?;
        no_flags(scan)?;
        Ok(Self { xid, commit: lsn(scan)?, end: lsn(scan)?, at: time(scan)? })
    }
}

/// A streamed transaction, or one of its subtransactions, was rolled back: what came of it is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamAbort {
    /// The top-level transaction.
    pub xid: u32,
    /// The subtransaction; the same where the whole transaction is void.
    pub subxid: u32,
    /// The LSN of the abort and its time: from protocol 4 on, with `streaming = parallel`.
    pub aborted: Option<(Lsn, Timestamp)>,
}

impl StreamAbort {
    pub(super) fn read(scan: &mut Scanner<'_>) -> Scan<Self> {
        let (xid, subxid) = (scan.u32()?, scan.u32()?);
        let aborted = if scan.is_empty() { None } else { Some((lsn(scan)?, time(scan)?)) };
        Ok(Self { xid, subxid, aborted })
    }

    /// Whether all of the transaction is void, rather than a subtransaction.
    pub const fn is_whole(&self) -> bool {
        self.xid == self.subxid
    }
}
