//! Where do transactions begin and end, and what was said within them besides rows?

use crate::clock::Timestamp;
use crate::lsn::Lsn;
use crate::postgres::scan::{Malformed, Scan, Scanner};

/// A transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The LSN of its commit record (the manual's "final LSN").
    pub commit: Lsn,
    /// When it committed.
    pub at: Timestamp,
    /// Its transaction id.
    pub xid: u32,
}

impl Begin {
    pub(super) fn read(scan: &mut Scanner<'_>) -> Scan<Self> {
        Ok(Self { commit: lsn(scan)?, at: time(scan)?, xid: scan.u32()? })
    }
}

/// The transaction is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The LSN of its commit record.
    pub commit: Lsn,
    /// The LSN after its commit record.
    pub end: Lsn,
    /// When it committed.
    pub at: Timestamp,
}

impl Commit {
    pub(super) fn read(scan: &mut Scanner<'_>) -> Scan<Self> {
        no_flags(scan)?;
        Ok(Self { commit: lsn(scan)?, end: lsn(scan)?, at: time(scan)? })
    }
}

/// The transaction was replicated from another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The LSN of its commit there.
    pub commit: Lsn,
    /// The name of the origin.
    pub name: &'a str,
}

impl<'a> Origin<'a> {
    pub(super) fn read(scan: &mut Scanner<'a>) -> Scan<Self> {
        Ok(Self { commit: lsn(scan)?, name: scan.text()? })
    }
}

/// What `pg_logical_emit_message` sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emitted<'a> {
    /// Whether it belongs to the transaction, rather than standing alone.
    pub transactional: bool,
    /// Its LSN.
    pub at: Lsn,
    /// Its prefix.
    pub prefix: &'a str,
    /// Its content.
    pub content: &'a [u8],
}

impl<'a> Emitted<'a> {
    pub(super) fn read(scan: &mut Scanner<'a>) -> Scan<Self> {
        let transactional = match scan.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("its flags are unknown")),
        };
        let (at, prefix, length) = (lsn(scan)?, scan.text()?, scan.length()?);
        Ok(Self { transactional, at, prefix, content: scan.take(length)? })
    }
}

pub(super) fn no_flags(scan: &mut Scanner<'_>) -> Scan<()> {
    if scan.u8()? == 0 { Ok(()) } else { Err(Malformed("its flags are not zero")) }
}

pub(super) fn lsn(scan: &mut Scanner<'_>) -> Scan<Lsn> {
    scan.u64().map(Lsn)
}

pub(super) fn time(scan: &mut Scanner<'_>) -> Scan<Timestamp> {
    scan.i64().map(Timestamp::from_postgres)
}
