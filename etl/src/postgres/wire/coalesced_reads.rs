//! When is it worth reading? A server sends in little pieces, and who reads each at once takes the processor from it.

use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::time::Instant;

use super::frame::ReadBuffer;
use super::low_water::LowWater;
use super::socket::Socket;
use crate::clock;
use crate::error::EtlResult;
use crate::retry;

/// A read that brings less is short.
const SHORT: usize = 32 << 10;
/// After so many short reads in quick succession the reader lets bytes pile up before each.
const SHORT_READS: u32 = 8;
/// So much is enough to read, however soon. A pause alone would leave the server waiting for room.
const ENOUGH: i32 = 256 << 10;
/// How long bytes may pile up.
const PILE_UP: Duration = Duration::from_millis(1);
/// A read that brings as much says that the server is ahead.
const MANY: usize = 16 << 10;
/// How long bytes may pile up then. By that time the server's window is full of little segments, and what it writes next
/// waits at its side, where it becomes large ones.
const PILE_UP_MORE: Duration = Duration::from_millis(4);
/// How quick the succession is.
const QUICK: Duration = Duration::from_millis(4);

/// Reads of a connection that let bytes pile up first, while much comes in little pieces.
#[derive(Debug)]
pub(super) struct CoalescedReads {
    /// Whether they pause where there is no mark.
    pauses: bool,
    low_water: Option<LowWater>,
    short_reads: u32,
    /// Whether the last read brought many bytes.
    is_behind: bool,
    last_read: Instant,
}

impl CoalescedReads {
    /// Those of this connection.
    pub(super) fn of(socket: &Socket, pauses: bool) -> Self {
        Self { pauses, low_water: LowWater::of(socket), ..Self::at_once() }
    }

    /// Those that never wait for more than comes.
    pub(super) fn at_once() -> Self {
        Self { pauses: false, low_water: None, short_reads: 0, is_behind: false, last_read: clock::monotonic() }
    }

    /// Reads once. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`ReadBuffer::fill`].
    pub(super) async fn fill(
        &mut self,
        buffer: &mut ReadBuffer,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> EtlResult<()> {
        let can_pile_up = self.pauses || self.low_water.is_some();
        let piles_up = can_pile_up && self.short_reads >= SHORT_READS;
        let piled = if piles_up { self.pile_up(buffer, stream).await? } else { None };
        let count = match piled {
            Some(count) => count,
            None => {
                self.read_at_once();
                buffer.fill(stream).await?
            }
        };
        let now = clock::monotonic();
        let is_quick = now.saturating_duration_since(self.last_read) < QUICK;
        self.is_behind = count >= MANY;
        // What has piled up says that more is coming, although the read was not short.
        self.short_reads = match count < SHORT {
            true if is_quick => self.short_reads.saturating_add(1),
            false if piles_up => self.short_reads,
            _ => 0,
        };
        self.last_read = now;
        Ok(())
    }

    /// As after many short reads, with a mark that is not reached.
    #[cfg(test)]
    pub(super) fn hurry(&mut self) {
        self.short_reads = SHORT_READS;
        assert!(self.low_water.as_mut().is_none_or(|low_water| low_water.put(ENOUGH)));
    }

    /// Whoever reads from now on gets what there is.
    pub(super) fn read_at_once(&mut self) {
        if let Some(low_water) = &mut self.low_water {
            low_water.put(1);
        }
    }

    /// Reads once enough has come; `None` where that took too long.
    async fn pile_up(
        &mut self,
        buffer: &mut ReadBuffer,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> EtlResult<Option<usize>> {
        buffer.make_room().await;
        if !self.low_water.as_mut().is_some_and(|low_water| low_water.put(ENOUGH)) {
            retry::pause(PILE_UP).await;
            return Ok(None);
        }
        let most = if self.is_behind { PILE_UP_MORE } else { PILE_UP };
        tokio::select! {
            biased;
            count = buffer.fill(stream) => count.map(Some),
            () = retry::pause(most) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    #[tokio::test]
    async fn what_piles_up_comes_soon_although_it_is_not_enough() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut socket = Socket::Tcp(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (mut server, _) = listener.accept().await.unwrap();
        for mut reads in [CoalescedReads::of(&socket, false), CoalescedReads::at_once()] {
            let mut buffer = ReadBuffer::default();
            for round in 0..3 * SHORT_READS {
                let message = [&b"d\0\0\0\x08"[..], &round.to_be_bytes()].concat();
                server.write_all(&message).await.unwrap();
                let filling = tokio::time::timeout(Duration::from_secs(30), reads.fill(&mut buffer, &mut socket));
                filling.await.unwrap().unwrap();
                assert_eq!(buffer.take_block().unwrap().unwrap()[..], message);
            }
            reads.read_at_once();
        }
    }

    #[tokio::test]
    async fn where_nobody_says_when_enough_has_come_only_a_stream_pauses() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut socket = Socket::Unix(ours);
        let mut buffer = ReadBuffer::default();
        for (mut reads, is_read_at_once) in [
            (CoalescedReads::of(&socket, false), true),
            (CoalescedReads::of(&socket, true), false),
            (CoalescedReads::at_once(), true),
        ] {
            reads.hurry();
            theirs.write_all(b"d\0\0\0\x04").await.unwrap();
            socket_is_readable(&socket).await;
            let filled = futures_util::FutureExt::now_or_never(reads.fill(&mut buffer, &mut socket));
            assert_eq!(filled.is_some(), is_read_at_once);
            if !is_read_at_once {
                buffer.fill(&mut socket).await.unwrap();
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn bytes_pile_up_for_longer_after_many_than_after_few() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut socket = Socket::Tcp(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (mut server, _) = listener.accept().await.unwrap();
        let mut reads = CoalescedReads::of(&socket, false);
        let mut buffer = ReadBuffer::default();
        for (before, waits) in [(MANY, PILE_UP_MORE), (5, PILE_UP)] {
            reads.hurry();
            let message = [&b"d"[..], &u32::try_from(before - 1).unwrap().to_be_bytes(), &vec![0; before - 5]].concat();
            server.write_all(&message).await.unwrap();
            while buffer.take_block().unwrap().is_none() {
                reads.fill(&mut buffer, &mut socket).await.unwrap();
            }
            server.write_all(b"d\0\0\0\x04").await.unwrap();
            let begun = clock::monotonic();
            reads.fill(&mut buffer, &mut socket).await.unwrap();
            assert_eq!(clock::monotonic() - begun, waits);
            buffer.take_block().unwrap().unwrap();
        }
    }

    async fn socket_is_readable(socket: &Socket) {
        let Socket::Unix(stream) = socket else { unreachable!("it is a unix socket") };
        stream.readable().await.unwrap();
    }
}
