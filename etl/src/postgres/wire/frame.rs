//! Where does one message end and the next begin? Frames are cut out of the read buffer, never copied.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::{ErrorKind, EtlError, EtlResult, ResultExt};

/// No message of a server is larger: a field holds at most 1 GiB.
const LONGEST: usize = (1 << 30) + (1 << 20);
/// How much room a read has at least.
const ROOM: usize = 256 << 10;

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
}

impl ReadBuffer {
    /// Reads once. Dropping the future loses nothing. Returns how much came.
    ///
    /// # Errors
    /// [`SourceUnavailable`](ErrorKind::SourceUnavailable) at the end of the stream.
    pub(crate) async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> EtlResult<usize> {
        self.reserve();
        let count =
            stream.read_buf(&mut self.bytes).await.or_etl(ErrorKind::SourceUnavailable, "read from the source")?;
        if count == 0 {
            return Err(EtlError::new(ErrorKind::SourceUnavailable, "the source closed the connection"));
        }
        Ok(count)
    }

    /// Room for the rest of the message that has begun to come, and for more.
    fn reserve(&mut self) {
        let begun = self.bytes.get(self.whole..).unwrap_or_default();
        let missing = length(begun).ok().flatten().unwrap_or(0).saturating_sub(begun.len());
        self.bytes.reserve(missing.max(ROOM));
    }

    /// All whole messages that are there, at least one; `None` when none is.
    ///
    /// # Errors
    /// [`Protocol`](ErrorKind::Protocol) when the bytes cannot be messages.
    pub(crate) fn take_block(&mut self) -> EtlResult<Option<Bytes>> {
        while let Some(length) = length(self.bytes.get(self.whole..).unwrap_or_default())? {
            if self.whole + length > self.bytes.len() {
                break;
            }
            self.whole += length;
        }
        if self.whole == 0 {
            return Ok(None);
        }
        Ok(Some(self.bytes.split_to(std::mem::take(&mut self.whole)).freeze()))
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
