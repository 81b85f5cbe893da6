//! How do the rows of a `COPY ... TO STDOUT` come in? In blocks of whole messages, as they were read.

use bytes::Bytes;

use super::connection::Connection;
use super::frame::Frames;
use super::server_error;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::memory::Claim;

/// The data of a copy that is under way. To drop it early breaks the connection for further queries.
#[derive(Debug)]
pub struct CopyOut<'a> {
    connection: &'a mut Connection,
    is_over: bool,
}

impl<'a> CopyOut<'a> {
    pub(super) fn new(connection: &'a mut Connection) -> Self {
        Self { connection, is_over: false }
    }

    /// The next block; [`CopyOut::payloads`] finds the data in it. `None` once all rows came.
    ///
    /// # Errors
    /// What the server says; a lost connection.
    pub async fn next_block(&mut self) -> EtlResult<Option<Bytes>> {
        if self.is_over {
            return Ok(None);
        }
        loop {
            if let Some(block) = self.connection.buffer.take_block()? {
                self.look_for_end(&block).await?;
                return Ok(Some(block));
            }
            self.connection.buffer.fill(&mut self.connection.socket).await?;
        }
    }

    /// Counts what is held because of a block, beside it; nothing where nobody counts.
    pub(crate) fn charge(&self, bytes: usize) -> Option<Claim> {
        self.connection.buffer.charge(bytes)
    }

    /// Where the data of each `CopyData` message lies in a block.
    pub fn payloads(block: &Bytes) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        Frames::new(block).filter(|frame| frame.tag == b'd').map(|frame| frame.content)
    }

    async fn look_for_end(&mut self, block: &Bytes) -> EtlResult<()> {
        let mut failed = None;
        for frame in Frames::new(block) {
            match frame.tag {
                b'E' => failed = Some(server_error::parse(block.get(frame.content).unwrap_or_default())),
                b'Z' => self.is_over = true,
                // Data, the end of it, completion, notices and parameters.
                b'd' | b'c' | b'C' | b'N' | b'S' => {}
                tag => {
                    return Err(EtlError::new(ErrorKind::Protocol, "the server sent something else within a copy")
                        .with("tag", char::from(tag)));
                }
            }
        }
        let Some(error) = failed else { return Ok(()) };
        if !std::mem::replace(&mut self.is_over, true) {
            self.connection.until_ready().await?;
        }
        Err(error)
    }
}
