//! How does the stream come in? In blocks of whole messages; what they say is read where it is needed.

use std::ops::Range;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

use super::coalesced_reads::CoalescedReads;
use super::frame::{Frames, ReadBuffer};
use super::server_error;
use super::socket::Socket;
use crate::clock::{self, Timestamp};
use crate::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use crate::lsn::Lsn;

/// The server is asked for an answer twice a second; one that is alive, however busy, gives it well within this time.
const SILENCE: Duration = Duration::from_secs(60);

/// A replication stream whose two directions can part.
#[derive(Debug)]
pub struct ReplicationStream {
    /// What the server sends.
    pub reader: StreamReader,
    /// What it is told.
    pub writer: StreamWriter,
}

impl ReplicationStream {
    pub(super) fn new(socket: Socket, buffer: ReadBuffer, reads: CoalescedReads) -> Self {
        let (read, write) = tokio::io::split(socket);
        let reader = StreamReader { half: read, buffer, left: None, reads };
        Self { reader, writer: StreamWriter { half: write, packet: BytesMut::new() } }
    }
}

/// Reads the stream.
#[derive(Debug)]
pub struct StreamReader {
    half: ReadHalf<Socket>,
    buffer: ReadBuffer,
    /// Of the last block: what begins with a message that is not data.
    left: Option<Bytes>,
    reads: CoalescedReads,
}

impl StreamReader {
    /// The next block of whole `CopyData` messages. Dropping the future loses nothing.
    ///
    /// # Errors
    /// What the server says, and a lost or ended stream.
    pub async fn next_block(&mut self) -> EtlResult<Bytes> {
        loop {
            let block = match self.left.take() {
                Some(left) => left,
                None => match self.buffer.take_block()? {
                    Some(block) => block,
                    None => {
                        self.fill().await?;
                        continue;
                    }
                },
            };
            if let Some(data) = self.leading_data(block)? {
                return Ok(data);
            }
        }
    }

    /// The data before the first message that is none; that one is dealt with at the next call.
    fn leading_data(&mut self, block: Bytes) -> EtlResult<Option<Bytes>> {
        let mut frames = Frames::new(&block);
        let mut end = 0;
        while let Some(frame) = frames.next() {
            if frame.tag == b'd' {
                end = frames.at();
            } else if end > 0 {
                self.left = Some(block.slice(end..));
                return Ok(Some(block.slice(..end)));
            } else {
                let after = frames.at();
                other(frame.tag, block.get(frame.content).unwrap_or_default())?;
                let rest = block.slice(after..);
                self.left = (!rest.is_empty()).then_some(rest);
                return Ok(None);
            }
        }
        Ok(Some(block))
    }

    /// Reads once.
    async fn fill(&mut self) -> EtlResult<()> {
        // The server is not silent while there is no memory to hear it.
        self.buffer.make_room().await;
        let reading = self.reads.fill(&mut self.buffer, &mut self.half);
        tokio::time::timeout(SILENCE, reading).await.unwrap_or_else(|_| {
            Err(EtlError::new(ErrorKind::SourceUnavailable, "the source is silent: the connection is taken for lost")
                .with("silent for", crate::duration::format(SILENCE)))
        })
    }
}

fn other(tag: u8, body: &[u8]) -> EtlResult<()> {
    match tag {
        b'E' => Err(server_error::parse(body)),
        b'N' | b'S' => Ok(()),
        _ => Err(EtlError::new(ErrorKind::SourceUnavailable, "the source ended the stream")),
    }
}

/// Tells the server how far we are.
#[derive(Debug)]
pub struct StreamWriter {
    half: WriteHalf<Socket>,
    packet: BytesMut,
}

impl StreamWriter {
    /// Sends a standby status update (protocol, streaming replication): what was received, and what is safe.
    ///
    /// # Errors
    /// A lost connection.
    pub async fn status(&mut self, received: Lsn, safe: Lsn, asks_reply: bool) -> EtlResult<()> {
        self.packet.clear();
        self.packet.put_u8(b'd');
        self.packet.put_u32(4 + 34);
        self.packet.put_u8(b'r');
        self.packet.put_u64(received.0);
        self.packet.put_u64(safe.0);
        self.packet.put_u64(safe.0);
        self.packet.put_i64(clock::now().to_postgres());
        self.packet.put_u8(u8::from(asks_reply));
        self.write().await
    }

    /// Ends the session.
    ///
    /// # Errors
    /// A lost connection.
    pub async fn terminate(&mut self) -> EtlResult<()> {
        self.packet.clear();
        self.packet.put_slice(b"X\0\0\0\x04");
        self.write().await
    }

    async fn write(&mut self) -> EtlResult<()> {
        let doing = "report to the source";
        self.half.write_all(&self.packet).await.or_etl(ErrorKind::SourceUnavailable, doing)?;
        self.half.flush().await.or_etl(ErrorKind::SourceUnavailable, doing)
    }
}

/// What one `CopyData` message of the stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicationFrame {
    /// A message of the output plugin.
    Data {
        /// Where the message begins in the WAL; 0 for some.
        start: Lsn,
        /// Where it lies in the block.
        payload: Range<usize>,
    },
    /// Nothing, up to here.
    KeepAlive {
        /// Everything before was sent.
        end: Lsn,
        /// When it was sent.
        sent_at: Timestamp,
        /// Whether the server wants to hear from us at once.
        wants_reply: bool,
    },
}

/// The messages of a block of whole `CopyData` messages, each with the offset after it.
pub fn replication_frames(block: &[u8]) -> impl Iterator<Item = EtlResult<(ReplicationFrame, usize)>> + '_ {
    Frames::new(block).map(move |frame| {
        let after = frame.content.end;
        replication_frame(block, frame.content).map(|frame| (frame, after))
    })
}

/// `w`: start, end, time, data. `k`: end, time, whether a reply is wanted.
fn replication_frame(block: &[u8], content: Range<usize>) -> EtlResult<ReplicationFrame> {
    let bytes = block.get(content.clone()).unwrap_or_default();
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 8).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        bytes.map(u64::from_be_bytes).ok_or_else(malformed)
    };
    match bytes.first() {
        Some(b'w') if bytes.len() >= 25 => {
            Ok(ReplicationFrame::Data { start: Lsn(number(1)?), payload: content.start + 25..content.end })
        }
        Some(b'k') => Ok(ReplicationFrame::KeepAlive {
            end: Lsn(number(1)?),
            sent_at: Timestamp::from_postgres(number(9)?.cast_signed()),
            wants_reply: *bytes.get(17).ok_or_else(malformed)? != 0,
        }),
        _ => Err(malformed()),
    }
}

fn malformed() -> EtlError {
    EtlError::new(ErrorKind::Protocol, "a message of the replication stream is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy_data(content: &[u8]) -> Vec<u8> {
        [b"d", &u32::try_from(content.len() + 4).unwrap().to_be_bytes()[..], content].concat()
    }

    #[test]
    fn data_and_keepalives_are_told_apart_and_cut_ones_are_errors() {
        let data = [&b"w"[..], &7_u64.to_be_bytes(), &9_u64.to_be_bytes(), &[0; 8], b"B..."].concat();
        let keepalive = [&b"k"[..], &11_u64.to_be_bytes(), &0_u64.to_be_bytes(), &[1]].concat();
        let block = [copy_data(&data), copy_data(&keepalive)].concat();
        let frames: Vec<_> = replication_frames(&block).collect::<EtlResult<_>>().unwrap();
        assert_eq!(frames[0], (ReplicationFrame::Data { start: Lsn(7), payload: 30..34 }, 34));
        let ReplicationFrame::KeepAlive { end, wants_reply, .. } = frames[1].0 else { panic!("no keepalive") };
        assert_eq!((end, wants_reply, frames[1].1), (Lsn(11), true, block.len()));
        for whole in [&data[..25], &keepalive] {
            for cut in 0..whole.len() {
                let block = copy_data(&whole[..cut]);
                assert!(replication_frames(&block).next().unwrap().is_err(), "cut at {cut}");
            }
        }
    }
}
