//! How do received changes get into the relay, and what happens when it is full?

use std::sync::Arc;

use bytes::Bytes;

use super::segment::Segment;
use super::{AtLimit, Mark, Relay, Transaction, blocking};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;

/// The log's one writer.
#[derive(Debug)]
pub struct RelayWriter {
    relay: Relay,
    /// The one that is written to.
    segment: Option<Arc<Segment>>,
}

impl RelayWriter {
    pub(super) fn new(relay: Relay) -> Self {
        Self { relay, segment: None }
    }

    /// Appends whole frames; beyond the tail, the oldest blocks go to disk; at the limit, waits for the slowest reader or fails, as configured.
    ///
    /// It never waits when every reader has read everything: they may need more to complete a transaction.
    /// Cancel-safe: the block is appended or not.
    ///
    /// # Errors
    /// `Relay` at the limit with [`AtLimit::Stop`]; `Disk` when a segment cannot be written;
    /// `Internal` when the marks contradict each other.
    pub async fn append(&mut self, block: Bytes, marks: &[Mark]) -> EtlResult<()> {
        loop {
            if self.segment.as_ref().is_some_and(Segment::is_idle) {
                self.segment = None;
            }
            let inner = &self.relay.0;
            let old = {
                let mut log = inner.log();
                if log.memory_bytes() <= inner.tail_bytes || !log.somebody_is_behind() {
                    log.append(block, marks)?;
                    break;
                }
                log.oldest_in_memory(inner.tail_bytes / 4 * 3, inner.segments.room())
            };
            if !old.is_empty() {
                let (segments, current) = (Arc::clone(&inner.segments), self.segment.clone());
                let (current, records) = blocking(move || segments.write(current, &old)).await?;
                inner.log().moved_to_disk(records);
                self.segment = current;
            } else if inner.at_limit == AtLimit::Stop {
                return Err(EtlError::new(ErrorKind::Relay, "the relay is full")
                    .with("disk_bytes", inner.segments.bytes())
                    .hint("Find out why the destination is slow, raise relay.max_bytes, or let relay.at_limit wait"));
            } else {
                inner.freed.notified().await;
            }
        }
        self.relay.0.grown.notify_waiters();
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
    pub fn begin_at(&mut self, lsn: Lsn) {
        self.relay.0.log().begin_at(lsn);
    }

    /// The complete transaction that committed there, while the log still holds it.
    pub fn has(&self, commit: Lsn) -> Option<Transaction> {
        self.relay.0.log().has(commit)
    }
}
