//! How do the rows of a `COPY ... TO STDOUT` come in? In blocks of whole messages, as they were read.

use std::ops::Range;

use bytes::Bytes;

use super::coalesced_reads::CoalescedReads;
use super::connection::Connection;
use super::server_error;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::memory::Claim;

/// The data of a copy that is under way. To drop it early breaks the connection for further queries.
#[derive(Debug)]
pub struct CopyOut<'a> {
    connection: &'a mut Connection,
    reads: CoalescedReads,
    is_over: bool,
}

impl<'a> CopyOut<'a> {
    pub(super) fn new(connection: &'a mut Connection) -> Self {
        Self { reads: connection.reads(), connection, is_over: false }
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
            let block = self.connection.buffer.take_block_with(|bytes, frame| match frame.tag {
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
            })?;
            self.is_over = is_over;
            if is_over || failed.is_some() {
                self.reads.read_at_once();
            }
            if let Some(error) = failed {
                if !std::mem::replace(&mut self.is_over, true) {
                    self.connection.until_ready().await?;
                }
                return Err(error);
            }
            if block.is_some() {
                return Ok(block);
            }
            let Connection { buffer, socket, .. } = &mut *self.connection;
            self.reads.fill(buffer, socket).await?;
        }
    }

    /// Counts what is held because of a block, beside it; nothing where nobody counts.
    pub(crate) fn charge(&self, bytes: usize) -> Option<Claim> {
        self.connection.buffer.charge(bytes)
    }
}
