//! What comes next for one reader of the relay?

use super::log::Found;
use super::{Read, Relay, blocking};
use crate::error::EtlResult;

/// One reader's place in the log. Dropping it releases everything it held, unless it [stays](Reader::stay).
#[derive(Debug)]
pub struct Reader {
    relay: Relay,
    id: u64,
    stays: bool,
}

impl Reader {
    pub(super) fn new(relay: Relay, id: u64) -> Self {
        Self { relay, id, stays: false }
    }

    /// The next bytes, or that they are void; waits for them. Cancel-safe: nothing is lost.
    ///
    /// A reader that begins inside a block first gets the rest of that block.
    ///
    /// # Errors
    /// `Relay` when a segment is damaged, `Disk` when it cannot be read.
    pub async fn next(&mut self) -> EtlResult<Read> {
        let inner = &self.relay.0;
        loop {
            let mut grown = std::pin::pin!(inner.grown.notified());
            // Listens before it looks: what is appended in between wakes it.
            grown.as_mut().enable();
            let found = inner.log().read(self.id);
            let read = match found {
                None => {
                    grown.await;
                    continue;
                }
                Some(Found::Read(read)) => Some(read),
                Some(Found::Disk(record)) => {
                    let load = move || record.load().map(|(description, bytes)| (record, description, bytes));
                    let (record, description, bytes) = blocking(load).await?;
                    inner.log().read_loaded(self.id, &record, &description.marks, &bytes)
                }
                Some(Found::Spooled { spooled, piece }) => {
                    let load = move || spooled.load(piece).map(|bytes| (spooled, bytes));
                    let (spooled, bytes) = blocking(load).await?;
                    inner.log().read_spooled(self.id, &spooled, piece, &bytes)
                }
            };
            if let Some(read) = read {
                inner.freed.notify_waiters();
                return Ok(read);
            }
        }
    }

    /// Everything before this log offset is durable for this reader. Beyond what it has read, it counts for nothing.
    pub fn release(&mut self, upto: u64) {
        self.relay.0.log().release(self.id, upto);
        self.relay.0.freed.notify_waiters();
    }

    /// What it holds stays when it is dropped: somebody goes on from there in the log that is opened next.
    pub fn stay(&mut self) {
        self.stays = true;
    }

    /// Takes [`Reader::stay`] back: nobody needs what it holds.
    pub fn leave(mut self) {
        self.stays = false;
    }

    /// Holds nothing from now on, and gets nothing any more.
    pub fn let_go(&mut self) {
        self.relay.0.log().remove_reader(self.id);
        self.relay.0.freed.notify_waiters();
    }

    /// The bytes between what [`Reader::next`] has returned and the end.
    pub fn behind(&self) -> u64 {
        self.relay.0.log().behind(self.id)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        self.let_go();
    }
}
