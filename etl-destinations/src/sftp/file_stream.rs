//! How are the bytes of the file protocol read to their end? With what the server says of the end, before it is told.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::session::LastWords;

/// The longest packet that is read, and how much one has to announce to be something else: text, for one.
pub(super) const LONGEST_PACKET: u32 = 256 * 1024;

/// How much of other talk is kept.
const TALK: usize = 200;

/// The channel of the file protocol. A channel that is closed at its end is not told what its program ended with, so the end is
/// held back until that is known; what is not the protocol is an end too.
pub(super) struct FileStream<S> {
    channel: S,
    last: Arc<LastWords>,
    /// The first bytes, until there are enough to tell.
    beginning: Vec<u8>,
    ending: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S: AsyncRead + Unpin> FileStream<S> {
    pub(super) fn new(channel: S, last: Arc<LastWords>) -> Self {
        Self { channel, last, beginning: Vec::new(), ending: None }
    }

    /// Whether what comes can be the protocol: the length of its first packet.
    fn is_protocol(&mut self, new: &[u8]) -> bool {
        let lacks = size_of::<u32>() - self.beginning.len();
        self.beginning.extend_from_slice(&new[..lacks.min(new.len())]);
        <[u8; 4]>::try_from(self.beginning.as_slice())
            .map_or(true, |length| u32::from_be_bytes(length) <= LONGEST_PACKET)
    }

    /// Keeps what is said in place of the protocol, as far as it is there.
    fn keep_talk(&mut self, cx: &mut Context<'_>) {
        let mut talk = [0; TALK];
        let mut rest = ReadBuf::new(&mut talk);
        rest.put_slice(&self.beginning);
        let _ = Pin::new(&mut self.channel).poll_read(cx, &mut rest); // the beginning will do
        let _ = self.last.talk.set(String::from_utf8_lossy(rest.filled()).trim().to_owned()); // there is one beginning
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FileStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_none() {
            let had = buf.filled().len();
            ready!(Pin::new(&mut self.channel).poll_read(cx, buf))?;
            if buf.filled().len() > had {
                if self.is_protocol(&buf.filled()[had..]) {
                    return Poll::Ready(Ok(()));
                }
                buf.set_filled(had);
                self.keep_talk(cx);
            }
            let last = Arc::clone(&self.last);
            self.ending = Some(Box::pin(async move { last.heard().await }));
        }
        if let Some(ending) = &mut self.ending {
            ready!(ending.as_mut().poll(cx));
            // Who reads on at the end is told again.
            self.ending = Some(Box::pin(std::future::ready(())));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FileStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.channel).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn stream() -> (FileStream<DuplexStream>, DuplexStream, Arc<LastWords>) {
        let (channel, server) = duplex(1024);
        let last = Arc::new(LastWords::default());
        (FileStream::new(channel, Arc::clone(&last)), server, last)
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_told_once_the_server_has_said_why() {
        let (mut stream, server, last) = stream();
        drop(server);
        let mut end = [0; 1];
        assert!(tokio::time::timeout(std::time::Duration::from_secs(1), stream.read(&mut end)).await.is_err());
        last.ended.notify_one();
        assert_eq!(stream.read(&mut end).await.unwrap(), 0);
        assert_eq!(stream.read(&mut end).await.unwrap(), 0, "and is told again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_nobody_explains_is_told_after_a_while() {
        let (mut stream, server, last) = stream();
        drop(server);
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(last.talk.get().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn packets_go_through_however_they_come_and_other_talk_is_kept() {
        let (mut protocol, mut server, last) = stream();
        server.write_all(&[0, 0, 0, 5, 2, 0, 0, 0, 3]).await.unwrap();
        let mut packet = [0; 9];
        protocol.read_exact(&mut packet[..1]).await.unwrap();
        protocol.read_exact(&mut packet[1..]).await.unwrap();
        assert_eq!((packet[4], last.talk.get()), (2, None));
        server.write_all(b"text").await.unwrap();
        assert_eq!(protocol.read(&mut packet).await.unwrap(), 4, "only the beginning is looked at");

        let (mut text, mut server, last) = stream();
        server.write_all(b"Welcome, you!\r\n").await.unwrap();
        assert!(text.read_u32().await.is_err());
        assert_eq!(last.talk.get().map(String::as_str), Some("Welcome, you!"));
    }
}
