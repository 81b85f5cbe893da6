//! Where does one message end and the next begin? Frames are cut out of the read buffer, never copied.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use crate::memory::{Claim, MemoryBudget, Part, held, held_of_buffer};

/// No message of a server is larger: a field holds at most 1 GiB.
const LONGEST: usize = (1 << 30) + (1 << 20);
/// How large a buffer is that nobody counts.
const ROOM: usize = 64 << 10;
/// A buffer with less than this part of it free is not read into any more.
const LEAST_OF_ROOM: usize = 8;

/// One message: its tag, and where its content lies in the block around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) content: Range<usize>,
}

/// The messages of a block of whole messages.
#[derive(Debug, Clone)]
pub(crate) struct Frames<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    pub(crate) fn new(block: &'a [u8]) -> Self {
        Self { block, at: 0 }
    }

    /// Where the next message begins.
    pub(crate) fn at(&self) -> usize {
        self.at
    }
}

impl Iterator for Frames<'_> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let end = self.at + length(self.block.get(self.at..)?).ok().flatten()?;
        let tag = *self.block.get(self.at)?;
        let content = self.at + 5..end;
        (end <= self.block.len()).then(|| self.at = end)?;
        Some(Frame { tag, content })
    }
}

/// The length of the message at the beginning, its header included; `None` when too little of it is there.
fn length(bytes: &[u8]) -> EtlResult<Option<usize>> {
    let Some([a, b, c, d]) = bytes.get(1..5).and_then(|length| <[u8; 4]>::try_from(length).ok()) else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..=LONGEST).contains(&length) {
        return Err(EtlError::new(ErrorKind::Protocol, "the server sent a message of an impossible length")
            .with("length", length));
    }
    Ok(Some(length + 1))
}

/// A read buffer.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    bytes: BytesMut,
    /// How much of the buffer is known to be whole messages.
    whole: usize,
    /// What the bytes count for, and what may still come into the buffer of that.
    memory: Option<(MemoryBudget, Part)>,
    claim: Option<Claim>,
    /// Whether the buffer is one of the budget's.
    is_lent: bool,
}

impl ReadBuffer {
    /// What is read from now on counts for this part of the budget, for as long as anybody has any of it.
    pub(crate) fn within(&mut self, memory: &MemoryBudget, part: Part) {
        self.memory = Some((memory.clone(), part));
    }

    /// Whether everything that was read was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Counts what is held because of what was read, beside it.
    pub(crate) fn charge(&self, bytes: usize) -> Option<Claim> {
        self.memory.as_ref().map(|(memory, part)| memory.charge(*part, bytes))
    }

    /// Reads once. Dropping the future loses nothing. Returns how much came.
    ///
    /// # Errors
    /// [`SourceUnavailable`](ErrorKind::SourceUnavailable) at the end of the stream.
    pub(crate) async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> EtlResult<usize> {
        self.make_room().await;
        let count =
            stream.read_buf(&mut self.bytes).await.or_etl(ErrorKind::SourceUnavailable, "read from the source")?;
        if count == 0 {
            return Err(EtlError::new(ErrorKind::SourceUnavailable, "the source closed the connection"));
        }
        Ok(count)
    }

    /// Waits until there is memory for the rest of the message that has begun to come, or else for what comes.
    pub(crate) async fn make_room(&mut self) {
        let begun = self.bytes.get(self.whole..).unwrap_or_default();
        let length = length(begun).ok().flatten().unwrap_or(0);
        let missing = length.saturating_sub(begun.len());
        let usual = self.memory.as_ref().map_or(ROOM, |(memory, _)| memory.blocks().size());
        let wanted = if missing > 0 { missing } else { usual / LEAST_OF_ROOM };
        if self.bytes.capacity() - self.bytes.len() >= wanted {
            return;
        }
        // Where whole messages are left, there is more to keep than what has begun.
        let size = usual.max(self.bytes.len() + missing).max(self.bytes.len() + usual / LEAST_OF_ROOM);
        let is_usual = size == usual;
        let mut larger = match &self.memory {
            None => BytesMut::with_capacity(size),
            Some((memory, part)) => {
                let claim = memory.claim(*part, size).await;
                self.claim = Some(claim);
                if is_usual { memory.blocks().take() } else { BytesMut::with_capacity(size) }
            }
        };
        larger.extend_from_slice(&self.bytes);
        let old = std::mem::replace(&mut self.bytes, larger);
        let was_lent = std::mem::replace(&mut self.is_lent, is_usual);
        if let Some((memory, _)) = self.memory.as_ref().filter(|_| was_lent) {
            memory.blocks().put(old);
        }
    }

    /// All whole messages that are there, at least one; `None` when none is.
    ///
    /// # Errors
    /// [`Protocol`](ErrorKind::Protocol) when the bytes cannot be messages.
    pub(crate) fn take_block(&mut self) -> EtlResult<Option<Bytes>> {
        self.take_block_with(|_, _| Ok(()))
    }

    /// The same; each message is shown on the way, with the bytes from the beginning of the block.
    ///
    /// # Errors
    /// As [`take_block`](Self::take_block), and those of whoever looks.
    pub(crate) fn take_block_with(
        &mut self,
        mut look: impl FnMut(&[u8], Frame) -> EtlResult<()>,
    ) -> EtlResult<Option<Bytes>> {
        while let Some(length) = length(self.bytes.get(self.whole..).unwrap_or_default())? {
            let end = self.whole + length;
            if end > self.bytes.len() {
                break;
            }
            look(&self.bytes, Frame { tag: self.bytes[self.whole], content: self.whole + 5..end })?;
            self.whole = end;
        }
        if self.whole == 0 {
            return Ok(None);
        }
        let block = self.bytes.split_to(std::mem::take(&mut self.whole)).freeze();
        if self.bytes.is_empty() && !self.is_lent {
            // What is left of a buffer that was made for one message would keep all of it.
            self.bytes = BytesMut::new();
        }
        Ok(Some(match &mut self.claim {
            Some(claim) => {
                let claim = claim.split(block.len());
                if self.is_lent { held_of_buffer(block, claim) } else { held(block, claim) }
            }
            None => block,
        }))
    }

    /// The first whole message.
    ///
    /// # Errors
    /// As [`take_block`](Self::take_block).
    pub(crate) fn take_message(&mut self) -> EtlResult<Option<(u8, Bytes)>> {
        self.whole = 0;
        let Some(length) = length(&self.bytes)? else { return Ok(None) };
        if length > self.bytes.len() {
            return Ok(None);
        }
        let message = self.bytes.split_to(length).freeze();
        Ok(message.first().map(|tag| (*tag, message.slice(5..))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len() + 4).unwrap().to_be_bytes();
        [&[tag], &length[..], content].concat()
    }

    #[tokio::test]
    async fn messages_are_found_wherever_the_stream_is_cut() {
        let stream = [message(b'd', b"first"), message(b'Z', b""), message(b'd', &[7; 300])].concat();
        for cut in 0..stream.len() {
            let mut buffer = ReadBuffer::default();
            let mut found = Vec::new();
            for mut part in [&stream[..cut], &stream[cut..]] {
                while !part.is_empty() {
                    buffer.fill(&mut part).await.unwrap();
                }
                if let Some(block) = buffer.take_block().unwrap() {
                    found.extend(Frames::new(&block).map(|frame| (frame.tag, block.slice(frame.content))));
                }
            }
            let expected = [(b'd', Bytes::from("first")), (b'Z', Bytes::new()), (b'd', Bytes::from(vec![7; 300]))];
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn an_impossible_length_is_an_error() {
        for length in [3_u32, u32::MAX] {
            let mut buffer = ReadBuffer::default();
            buffer.fill(&mut &[&b"d"[..], &length.to_be_bytes()].concat()[..]).await.unwrap();
            assert_eq!(buffer.take_block().unwrap_err().kind(), ErrorKind::Protocol);
        }
    }

    #[tokio::test]
    async fn the_end_of_the_stream_is_an_error_that_may_pass() {
        let error = ReadBuffer::default().fill(&mut tokio::io::empty()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SourceUnavailable);
    }
}
