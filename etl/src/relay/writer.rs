//! How do received changes get into the relay, and what happens when it is full?

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::log::Frames;
use super::prepared::{Found, Prepare};
use super::spool::Spooled;
use super::streams::Streams;
use super::{AtLimit, Mark, Relay, Transaction, blocking};
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
        let spooled = Arc::new(self.streams.take(transaction.xid)?.finish(true));
        self.take_over(spooled, Frames { begin, commit }, transaction)
    }

    fn take_over(&self, spooled: Arc<Spooled>, frames: Frames, transaction: Transaction) -> EtlResult<()> {
        self.relay.0.log().adopt(spooled, frames, transaction)?;
        self.relay.0.grown.notify_waiters();
        Ok(())
    }

    /// The transaction whose chunks came is prepared; its messages name their (sub)transactions where it
    /// `is_streamed`. It survives everything from now on; one that is here already stays as it is.
    ///
    /// # Errors
    /// `Disk` when that cannot be written, which can be tried again; `Protocol` when no chunk of it came.
    pub async fn prepare(&mut self, which: &Prepare, is_streamed: bool) -> EtlResult<()> {
        if self.relay.0.prepared().has(which) {
            self.streams.abort(which.xid, which.xid);
            return Ok(());
        }
        let segments = &self.relay.0.segments;
        let (spooled, note) = self.streams.prepare(segments, which.clone(), is_streamed).await?;
        self.relay.0.prepared().add(which.clone(), Arc::new(spooled), note);
        Ok(())
    }

    /// A prepared transaction is complete: as [`RelayWriter::adopt`]. False where it should be here and is not.
    /// With `is_known` the log has it.
    ///
    /// # Errors
    /// As of [`RelayWriter::adopt`]; `Disk` when that cannot be noted.
    pub async fn commit_prepared(
        &mut self,
        gid: &str,
        (begin, commit): (Bytes, Bytes),
        transaction: Transaction,
        is_known: bool,
    ) -> EtlResult<bool> {
        if !is_known {
            self.room().await?;
        }
        let (inner, gid) = (Arc::clone(&self.relay.0), gid.to_owned());
        match blocking(move || inner.prepared().find(transaction.xid, &gid, transaction.end)).await? {
            Found::Here(spooled) if !is_known => {
                self.take_over(spooled, Frames { begin, commit }, transaction).map(|()| true)
            }
            Found::Lost if !is_known => Ok(false),
            _ => Ok(true),
        }
    }

    /// A prepared transaction was rolled back.
    pub fn rollback_prepared(&mut self, xid: u32, gid: &str) {
        self.relay.0.prepared().forget(xid, gid);
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
