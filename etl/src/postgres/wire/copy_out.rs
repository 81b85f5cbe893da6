//! How do the rows of a `COPY ... TO STDOUT` come in? In blocks of whole messages, as they were read.

use std::ops::Range;

use bytes::Bytes;

use super::coalesced_reads::CoalescedReads;
use super::connection::Connection;
use super::server_error;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::memory::Claim;

/// The data of a copy that is under way. A connection on which it is dropped early can be asked nothing more.
#[derive(Debug)]
pub struct CopyOut<'a> {
    connection: &'a mut Connection,
    reads: CoalescedReads,
    is_over: bool,
}

impl<'a> CopyOut<'a> {
    pub(super) fn new(connection: &'a mut Connection) -> Self {
        Self { reads: connection.reads(false), connection, is_over: false }
    }

    /// The next block of messages; `None` once all rows came. `note` is told of the data as it is found: the bytes from the
    /// beginning of the block, and where in them the data of a `CopyData` message lies.
    ///
    /// # Errors
    /// What the server says; a lost connection; those of `note`.
    pub async fn next_block(
        &mut self,
        mut note: impl FnMut(&[u8], Range<usize>) -> EtlResult<()>,
    ) -> EtlResult<Option<Bytes>> {
        if self.is_over {
            return Ok(None);
        }
        loop {
            let (mut failed, mut is_over) = (None, false);
            let taken = self.connection.buffer.take_block_with(|bytes, frame| match frame.tag {
                b'd' => note(bytes, frame.content),
                b'E' => {
                    failed = Some(server_error::parse(bytes.get(frame.content).unwrap_or_default()));
                    Ok(())
                }
                b'Z' => {
                    is_over = true;
                    Ok(())
                }
                // The end of the data, completion, notices and parameters.
                b'c' | b'C' | b'N' | b'S' => Ok(()),
                tag => Err(EtlError::new(ErrorKind::Protocol, "the server sent something else within a copy")
                    .with("tag", char::from(tag))),
            });
            let block = taken.inspect_err(|_| self.cut_off())?;
            if is_over || failed.is_some() {
                self.reads.read_at_once();
            }
            if let Some(error) = failed {
                if !is_over {
                    self.connection.until_ready().await?;
                }
                self.is_over = true;
                return Err(error);
            }
            self.is_over = is_over;
            if block.is_some() {
                return Ok(block);
            }
            let Connection { buffer, socket, .. } = &mut *self.connection;
            self.reads.fill(buffer, socket).await?;
        }
    }

    fn cut_off(&mut self) {
        self.connection.is_cut_off = true;
        self.is_over = true;
    }

    /// Counts what is held because of a block, beside it; nothing where nobody counts.
    pub(crate) fn charge(&self, bytes: usize) -> Option<Claim> {
        self.connection.buffer.charge(bytes)
    }
}

impl Drop for CopyOut<'_> {
    fn drop(&mut self) {
        // Whoever reads next wants less than a copy.
        self.reads.read_at_once();
        if !self.is_over {
            self.cut_off();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::postgres::wire::socket::Socket;

    const ROWS: [u8; 200] = [b'd'; 200];
    const END: &[u8] = b"c\0\0\0\x04C\0\0\0\x04Z\0\0\0\x05I";

    async fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = Socket::Tcp(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        (Connection::over(socket, true), listener.accept().await.unwrap().0)
    }

    fn data(rows: usize) -> Vec<u8> {
        [&b"d"[..], &204_u32.to_be_bytes(), &ROWS].concat().repeat(rows)
    }

    async fn soon<T>(doing: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(30), doing).await.expect("it never wakes")
    }

    #[tokio::test]
    async fn what_comes_after_a_copy_is_read_however_little_it_is() {
        let (mut connection, mut server) = pair().await;
        let mut copy = CopyOut::new(&mut connection);
        copy.reads.hurry();
        server.write_all(&[&data(2000), END].concat()).await.unwrap();
        let mut rows = 0;
        let mut note = |_: &[u8], payload: Range<usize>| {
            rows += payload.len() / ROWS.len();
            Ok(())
        };
        while soon(copy.next_block(&mut note)).await.unwrap().is_some() {}
        drop(copy);
        assert_eq!(rows, 2000);
        assert!(!connection.is_cut_off());
        server.write_all(b"Z\0\0\0\x05I").await.unwrap();
        soon(connection.until_ready()).await.unwrap();
    }

    #[tokio::test]
    async fn a_copy_that_is_left_early_or_cannot_be_noted_cuts_its_connection_off() {
        for fails in [false, true] {
            let (mut connection, mut server) = pair().await;
            let mut copy = CopyOut::new(&mut connection);
            copy.reads.hurry();
            server.write_all(&data(2000)).await.unwrap();
            let note = |_: &[u8], _: Range<usize>| match fails {
                true => Err(EtlError::new(ErrorKind::Protocol, "no row")),
                false => Ok(()),
            };
            assert_eq!(soon(copy.next_block(note)).await.is_err(), fails);
            if fails {
                assert_eq!(soon(copy.next_block(|_, _| Ok(()))).await.unwrap(), None);
            }
            drop(copy);
            assert!(connection.is_cut_off());
            server.write_all(END).await.unwrap();
            soon(connection.until_ready()).await.unwrap();
        }
    }
}
