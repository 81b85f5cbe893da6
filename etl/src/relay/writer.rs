//! How do received changes get into the relay, and what happens when it is full?

use bytes::Bytes;

use super::{AtLimit, Mark, Relay, Transaction};
use crate::error::{ErrorKind, EtlError, EtlResult};
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

    /// Appends whole frames; at the limit, waits for the slowest reader or fails, as configured.
    ///
    /// It never waits when every reader has read everything: they may need more to complete a transaction.
    /// Cancel-safe: the block is appended or not.
    ///
    /// # Errors
    /// `Relay` at the limit with [`AtLimit::Stop`]; `Internal` when the marks contradict each other.
    pub async fn append(&mut self, block: Bytes, marks: &[Mark]) -> EtlResult<()> {
        let inner = &self.relay.0;
        loop {
            {
                let mut log = inner.log();
                let held = log.memory_bytes();
                if held <= inner.tail_bytes || !log.somebody_is_behind() {
                    log.append(block, marks)?;
                    break;
                }
                if inner.at_limit == AtLimit::Stop {
                    return Err(EtlError::new(ErrorKind::Relay, "the relay is full")
                        .with("bytes", held)
                        .with("limit", inner.tail_bytes)
                        .hint(
                            "Find out why the destination is slow, raise memory_limit, or set relay.at_limit to wait",
                        ));
                }
            }
            inner.freed.notified().await;
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
    pub fn begin_at(&mut self, lsn: Lsn) {
        self.relay.0.log().begin_at(lsn);
    }

    /// The complete transaction that committed there, while the log still holds it.
    pub fn has(&self, commit: Lsn) -> Option<Transaction> {
        self.relay.0.log().has(commit)
    }
}
