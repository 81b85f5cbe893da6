//! How is a transaction prepared, and what becomes of it? The messages of protocol 3.

use super::transaction::{lsn, no_flags, time};
use crate::clock::Timestamp;
use crate::lsn::Lsn;
use crate::postgres::scan::{Scan, Scanner};

/// A transaction begins, has ended its first phase, or was prepared after it had been streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared<'a> {
    /// The LSN of its PREPARE.
    pub prepare: Lsn,
    /// The LSN after its PREPARE.
    pub end: Lsn,
    /// When it was prepared.
    pub at: Timestamp,
    /// The transaction.
    pub xid: u32,
    /// The name that the user gave it.
    pub gid: &'a str,
}

impl<'a> Prepared<'a> {
    pub(super) fn read_begin(scan: &mut Scanner<'a>) -> Scan<Self> {
        Ok(Self { prepare: lsn(scan)?, end: lsn(scan)?, at: time(scan)?, xid: scan.u32()?, gid: scan.text()? })
    }

    pub(super) fn read(scan: &mut Scanner<'a>) -> Scan<Self> {
        no_flags(scan)?;
        Self::read_begin(scan)
    }
}

/// A prepared transaction was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitPrepared<'a> {
    /// The LSN of its COMMIT PREPARED.
    pub commit: Lsn,
    /// The LSN after its COMMIT PREPARED.
    pub end: Lsn,
    /// When it committed.
    pub at: Timestamp,
    /// The transaction.
    pub xid: u32,
    /// The name that the user gave it.
    pub gid: &'a str,
}

impl<'a> CommitPrepared<'a> {
    pub(super) fn read(scan: &mut Scanner<'a>) -> Scan<Self> {
        no_flags(scan)?;
        Ok(Self { commit: lsn(scan)?, end: lsn(scan)?, at: time(scan)?, xid: scan.u32()?, gid: scan.text()? })
    }
}

/// A prepared transaction was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollbackPrepared<'a> {
    /// The LSN after its PREPARE.
    pub prepare_end: Lsn,
    /// The LSN after its ROLLBACK PREPARED.
    pub end: Lsn,
    /// When it was prepared.
    pub prepared_at: Timestamp,
    /// When it was rolled back.
    pub at: Timestamp,
    /// The transaction.
    pub xid: u32,
    /// The name that the user gave it.
    pub gid: &'a str,
}

impl<'a> RollbackPrepared<'a> {
    pub(super) fn read(scan: &mut Scanner<'a>) -> Scan<Self> {
        no_flags(scan)?;
        Ok(Self {
            prepare_end: lsn(scan)?,
            end: lsn(scan)?,
            prepared_at: time(scan)?,
            at: time(scan)?,
            xid: scan.u32()?,
            gid: scan.text()?,
        })
    }
}
