//! How do received changes get into the relay, and what happens when it is full?

use std::pin::pin;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::log::Frames;
use super::streams::Streams;
use super::{AtLimit, Mark, Relay, Transaction};
use crate::error::EtlResult;
use crate::lsn::Lsn;

/// The log's one writer.
#[derive(Debug)]
pub struct RelayWriter {
    relay: Relay,
    streams: Streams,
}

impl RelayWriter {
    pub(super) fn new(relay: Relay) -> Self {
        Self { relay, streams: Streams::default() }
    }

    /// Appends whole frames. Beyond the tail, the oldest blocks go to disk; at the limit of that, it waits for the
    /// slowest reader or fails, as configured.
    ///
    /// It never waits when every reader has read everything: they may need more to complete a transaction, which
    /// then exceeds the limit on disk, not in memory. Cancel-safe: the block is appended or not.
    ///
    /// # Errors
    /// `Relay` at the limit with [`AtLimit::Stop`]; `Disk` when a segment cannot be written;
    /// `Internal` when the marks contradict each other.
    pub async fn append(&mut self, block: Bytes, marks: &[Mark]) -> EtlResult<()> {
        self.room().await?;
        self.relay.0.log().append(block, marks)?;
        self.relay.0.grown.notify_waiters();
        Ok(())
    }

    /// A chunk of a transaction in progress begins; the first one of this id makes what came of an earlier one void.
    ///
    /// # Errors
    /// `Disk` when its file cannot be created; `Protocol` when it goes on with what never began.
    pub async fn begin_chunk(&mut self, xid: u32, is_first: bool) -> EtlResult<()> {
        self.streams.begin(&self.relay.0.segments, xid, is_first).await
    }

    /// Keeps whole frames of the chunk that has begun. Never waits for a reader.
    ///
    /// # Errors
    /// `Disk` when they cannot be written; `Protocol` when no chunk of this transaction has begun.
    pub async fn spool(&mut self, xid: u32, frames: Bytes) -> EtlResult<()> {
        self.streams.write(xid, frames).await
    }

    /// What came of a subtransaction is void; of the whole transaction where `subxid` is `xid`.
    pub fn abort(&mut self, xid: u32, subxid: u32) {
        self.streams.abort(xid, subxid);
    }

    /// A streamed transaction is complete: its file is the log's, between a frame that begins the transaction and
    /// one that ends it. Waits as [`RelayWriter::append`] does.
    ///
    /// # Errors
    /// As of [`RelayWriter::append`]; `Protocol` when no chunk of it came.
    pub async fn adopt(&mut self, begin: Bytes, commit: Bytes, transaction: Transaction) -> EtlResult<()> {
        self.room().await?;
        let spooled = self.streams.take(transaction.xid)?.adopt();
        self.relay.0.log().adopt(spooled, Frames { begin, commit }, transaction)?;
        self.relay.0.grown.notify_waiters();
        Ok(())
    }

    /// Waits for room in memory; nobody else takes it.
    async fn room(&mut self) -> EtlResult<()> {
        let inner = &self.relay.0;
        if !inner.is_durable.load(Ordering::Relaxed)
            && let Ok(mut pen) = inner.pen.try_lock()
        {
            pen.let_go();
        }
        loop {
            let mut freed = pin!(inner.freed.notified());
            // Listens before it looks: what is freed in between wakes it.
            freed.as_mut().enable();
            let is_unlimited = {
                let log = inner.log();
                if log.memory_bytes() <= inner.tail_bytes {
                    return Ok(());
                }
                inner.at_limit != AtLimit::Stop && !log.somebody_is_behind()
            };
            // A quarter at a time, so that not every block is a file operation.
            let keep = inner.tail_bytes / 4 * 3;
            if self.relay.with_pen(move |pen, inner| pen.spill(inner, keep, is_unlimited)).await? {
                continue;
            }
            if inner.at_limit == AtLimit::Stop {
                return Err(inner.is_full());
            }
            inner.room(freed).await;
        }
    }

    /// After a lost connection: drops the incomplete last transaction and all that are in progress, which the source
    /// sends again.
    ///
    /// A reader that began to read it gets [`super::Read::Rewound`].
    pub fn rewind(&mut self) {
        self.streams.discard();
        self.relay.0.log().rewind();
        self.relay.0.grown.notify_waiters();
    }

    /// The stream begins here: the head's end where nothing later was received. Never moves back.
    ///
    /// What an earlier log left is held from now on, unless something is missing between it and this.
    pub fn begin_at(&mut self, lsn: Lsn) {
        self.relay.0.log().begin_at(lsn);
    }

    /// The complete transaction that committed there, if it is one of the last 65536.
    pub fn has(&self, commit: Lsn) -> Option<Transaction> {
        self.relay.0.log().has(commit)
    }
}
