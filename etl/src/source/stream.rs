//! How is the stream begun, and where do transactions begin and end in what comes?

use std::ops::Range;

use super::identity::{SystemIdentity, check_history, check_start};
use super::slot::ensure_slot;
use crate::clock::Timestamp;
use crate::error::EtlResult;
use crate::lsn::Lsn;
use crate::postgres::pgoutput::{self, Message};
use crate::postgres::{
    ConnectOptions, Connection, ReplicationFrame, ReplicationStream, Session, quote_ident, quote_literal,
    replication_frames,
};
use crate::store::SharedStore;

/// What is to be streamed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamRequest<'a> {
    pub(crate) options: &'a ConnectOptions,
    pub(crate) slot: &'a str,
    pub(crate) publication: &'a str,
    /// Whether every published column has a decoder for the binary form (`SOURCE.md` R15).
    pub(crate) is_binary: bool,
}

/// Connects, checks that the server's history is ours (R9), and starts at the slot's own position. Returns the
/// stream and what the slot confirms.
pub(crate) async fn open_stream(
    request: StreamRequest<'_>,
    store: &SharedStore,
) -> EtlResult<(ReplicationStream, Lsn)> {
    let options = request.options.for_purpose("stream");
    let session = Session::connect(&options).await?;
    let mut connection = Connection::connect_replication(&options).await?;
    let identity = SystemIdentity::read(&mut connection).await?;
    check_history(&mut connection, store, &identity).await?;
    let slot = ensure_slot(session.client(), &mut connection, store, request.slot).await?;
    let stored = store.progress().await?.confirmed.unwrap_or(slot.confirmed);
    check_start(stored, slot.confirmed, identity.flushed.max(slot.confirmed))?;
    let binary = if request.is_binary { ", binary 'true'" } else { "" };
    let start = format!(
        "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {}{binary})",
        quote_ident(request.slot),
        quote_literal(&quote_ident(request.publication)),
    );
    let stream = connection.start_replication(&start).await?;
    Ok((stream, slot.confirmed))
}

/// What a receiver needs to know of a frame; ranges are within the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Marked {
    Begin { at: usize, commit: Lsn, xid: u32, time: Timestamp },
    Commit { after: usize, end: Lsn },
    KeepAlive { after: usize, end: Lsn, wants_reply: bool },
}

/// Where transactions begin and end in a block, and its keepalives; rows are not looked at.
pub(crate) fn marks(block: &[u8]) -> EtlResult<Vec<Marked>> {
    let mut marks = Vec::new();
    let mut at = 0;
    for frame in replication_frames(block) {
        let (frame, after) = frame?;
        match frame {
            ReplicationFrame::KeepAlive { end, wants_reply, .. } => {
                marks.push(Marked::KeepAlive { after, end, wants_reply });
            }
            ReplicationFrame::Data { payload, .. } => marks.extend(mark(block, payload, at, after)?),
        }
        at = after;
    }
    Ok(marks)
}

fn mark(block: &[u8], payload: Range<usize>, at: usize, after: usize) -> EtlResult<Option<Marked>> {
    let message = block.get(payload).unwrap_or_default();
    if !matches!(message.first(), Some(b'B' | b'C')) {
        return Ok(None);
    }
    Ok(match pgoutput::parse(message)? {
        Message::Begin(begin) => Some(Marked::Begin { at, commit: begin.commit, xid: begin.xid, time: begin.at }),
        Message::Commit(commit) => Some(Marked::Commit { after, end: commit.end }),
        _ => None,
    })
}
