//! What comes next for one reader of the relay?

use bytes::{Bytes, BytesMut};

use super::log::Found;
use super::{Read, Relay, blocking};
use crate::error::EtlResult;
use crate::memory::{MemoryBudget, Part, held, held_of_buffer};

/// One reader's place in the log. Dropping it releases everything it held, unless it [stays](Reader::stay).
#[derive(Debug)]
pub struct Reader {
    relay: Relay,
    id: u64,
    stays: bool,
    /// What is loaded from disk counts there.
    memory: Option<(MemoryBudget, Part)>,
}

impl Reader {
    pub(super) fn new(relay: Relay, id: u64) -> Self {
        Self { relay, id, stays: false, memory: None }
    }

    /// What it loads from disk from now on counts for this part of the budget.
    pub(crate) fn within(&mut self, memory: &MemoryBudget, part: Part) {
        self.memory = Some((memory.clone(), part));
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
                    // It may have come to the end without finding anything.
                    inner.freed.notify_waiters();
                    grown.await;
                    continue;
                }
                Some(Found::Read(read)) => Some(read),
                Some(Found::Disk(record)) => {
                    let len = record.len();
                    let load = move |buffer: &mut BytesMut| {
                        let (description, bytes) = record.load_into(buffer)?;
                        Ok(((record, description), bytes))
                    };
                    let ((record, description), bytes) = self.load(len, load).await?;
                    inner.log().read_loaded(self.id, &record, &description.marks, &bytes)
                }
                Some(Found::Spooled { spooled, piece }) => {
                    let len = spooled.piece_len(piece);
                    let load = move |buffer: &mut BytesMut| {
                        let bytes = spooled.load_into(piece, buffer)?;
                        Ok((spooled, bytes))
                    };
                    let (spooled, bytes) = self.load(len, load).await?;
                    inner.log().read_spooled(self.id, &spooled, piece, &bytes)
                }
            };
            inner.freed.notify_waiters();
            if let Some(read) = read {
                return Ok(read);
            }
        }
    }

    /// Loads so many bytes once there is memory for them: into a buffer of the budget, where they fit into one.
    async fn load<T: Send + 'static>(
        &self,
        len: usize,
        load: impl FnOnce(&mut BytesMut) -> EtlResult<(T, Bytes)> + Send + 'static,
    ) -> EtlResult<(T, Bytes)> {
        let Some((memory, part)) = &self.memory else {
            return blocking(move || load(&mut BytesMut::new())).await;
        };
        let claim = memory.claim(*part, len).await;
        // Something small would keep a whole buffer for as long as anybody has it.
        let size = memory.blocks().size();
        let is_usual = (size / 2..=size).contains(&len);
        let mut buffer = if is_usual { memory.blocks().take() } else { BytesMut::new() };
        let (loaded, bytes, buffer) =
            blocking(move || load(&mut buffer).map(|(of, bytes)| (of, bytes, buffer))).await?;
        if !is_usual {
            return Ok((loaded, held(bytes, claim)));
        }
        memory.blocks().put(buffer);
        Ok((loaded, held_of_buffer(bytes, claim)))
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
