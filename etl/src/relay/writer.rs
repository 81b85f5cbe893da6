//! How do received changes get into the relay, and what happens when it is full?

use std::pin::pin;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{AtLimit, Mark, Relay, Transaction};
use crate::error::EtlResult;
use crate::lsn::Lsn;

/// The log's one writer.
#[derive(Debug)]
pub struct RelayWriter {
    relay: Relay,
}

impl RelayWriter {
    pub(super) fn new(relay: Relay) -> Self {
        Self { relay }
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
                let mut log = inner.log();
                if log.memory_bytes() <= inner.tail_bytes {
                    log.append(block, marks)?;
                    break;
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
        inner.grown.notify_waiters();
        Ok(())
    }

    /// After a lost connection: drops the incomplete last transaction, which the source sends again.
    ///
    /// A reader that began to read it gets [`super::Read::Rewound`].
    pub fn rewind(&mut self) {
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
