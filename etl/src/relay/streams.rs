//! Which transactions in progress does the source stream? Their chunks, until each commits or is void.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::blocking;
use super::prepared::{Prepare, keep};
use super::segment::Segments;
use super::spool::{PIECE_BYTES, Spool, Spooled};
use crate::error::{ErrorKind, EtlError, EtlResult};

/// The files of the transactions in progress, by top-level transaction id.
#[derive(Debug, Default)]
pub(super) struct Streams(HashMap<u32, Spool>);

impl Streams {
    /// A chunk begins. With the first one of a transaction, nothing is left of an earlier one with this id.
    pub(super) async fn begin(&mut self, segments: &Arc<Segments>, xid: u32, is_first: bool) -> EtlResult<()> {
        if !is_first {
            return if self.0.contains_key(&xid) { Ok(()) } else { Err(unknown(xid)) };
        }
        let segments = Arc::clone(segments);
        let spool = blocking(move || Spool::create(&segments, PIECE_BYTES)).await?;
        self.0.insert(xid, spool);
        Ok(())
    }

    /// Keeps frames of a chunk that has begun. What failed can be tried again.
    pub(super) async fn write(&mut self, xid: u32, frames: Bytes) -> EtlResult<()> {
        let mut spool = self.take(xid)?;
        let write = move || Ok((spool.write(&frames), spool));
        let (written, spool) = blocking(write).await?;
        self.0.insert(xid, spool);
        written
    }

    /// The transaction is prepared: makes it survive, with what is known of it.
    pub(super) async fn prepare(
        &mut self,
        segments: &Arc<Segments>,
        which: Prepare,
        names_them: bool,
    ) -> EtlResult<(Spooled, PathBuf)> {
        let (spool, segments) = (self.take(which.xid)?, Arc::clone(segments));
        let xid = which.xid;
        let (kept, spool) = blocking(move || Ok((keep(&segments, &which, &spool, names_them), spool))).await?;
        match kept {
            Ok(note) => {
                let spooled = spool.finish(names_them);
                spooled.is_recorded();
                Ok((spooled, note))
            }
            Err(error) => {
                // It can be tried again.
                self.0.insert(xid, spool);
                Err(error)
            }
        }
    }

    /// A subtransaction is void, or all of the transaction.
    pub(super) fn abort(&mut self, xid: u32, subxid: u32) {
        if xid == subxid {
            self.0.remove(&xid);
        } else if let Some(spool) = self.0.get_mut(&xid) {
            spool.abort(subxid);
        }
    }

    /// The transaction is in progress no more.
    pub(super) fn take(&mut self, xid: u32) -> EtlResult<Spool> {
        self.0.remove(&xid).ok_or_else(|| unknown(xid))
    }

    /// The connection is lost: the source sends everything again, and tells nothing of what ended in a crash.
    pub(super) fn discard(&mut self) {
        self.0.clear();
    }
}

fn unknown(xid: u32) -> EtlError {
    EtlError::new(ErrorKind::Protocol, "the source goes on with a streamed transaction whose beginning it did not send")
        .with("xid", xid)
}
