//! How is the stream begun, and where do transactions begin and end in what comes?

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::identity::{SystemIdentity, check_history, check_start};
use super::slot::ensure_slot;
use crate::byte_size::ByteSize;
use crate::clock::Timestamp;
use crate::error::EtlResult;
use crate::lsn::Lsn;
use crate::memory::{MemoryBudget, Part};
use crate::postgres::pgoutput::{self, Message, StreamAbort, StreamCommit, StreamStart};
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
    /// Whether large transactions are to come while they are in progress.
    pub(crate) is_streaming: bool,
    /// How much of transactions in progress the server holds.
    pub(crate) decoding_memory: ByteSize,
    /// What is received counts there.
    pub(crate) memory: &'a MemoryBudget,
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
    connection.within(request.memory, Part::Stream);
    let identity = SystemIdentity::read(&mut connection).await?;
    check_history(&mut connection, store, &identity).await?;
    let slot = ensure_slot(session.client(), &mut connection, store, request.slot).await?;
    let stored = store.progress().await?.confirmed.unwrap_or(slot.confirmed);
    check_start(stored, slot.confirmed, identity.flushed.max(slot.confirmed))?;
    let binary = if request.is_binary { ", binary 'true'" } else { "" };
    // In kB, and not less than the server allows.
    let memory = (request.decoding_memory.0 >> 10).clamp(64, i32::MAX as u64);
    connection.query(&format!("SET logical_decoding_work_mem = {memory}")).await?;
    let protocol = protocol(request.is_streaming, session.server_version());
    let start = format!(
        "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version {protocol}, publication_names {}{binary})",
        quote_ident(request.slot),
        quote_literal(&quote_ident(request.publication)),
    );
    let stream = connection.start_replication(&start).await?;
    Ok((stream, slot.confirmed))
}

/// The newest protocol that helps, and what is asked of it.
fn protocol(is_streaming: bool, server_version: u32) -> &'static str {
    match (is_streaming, server_version) {
        (true, 160_000..) => "'4', streaming 'parallel'",
        (true, 140_000..) => "'2', streaming 'on'",
        _ => "'1'",
    }
}

/// What a receiver needs to know of a frame; ranges are within the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Marked {
    Begin {
        at: usize,
        commit: Lsn,
        xid: u32,
        time: Timestamp,
    },
    Commit {
        after: usize,
        end: Lsn,
    },
    KeepAlive {
        after: usize,
        end: Lsn,
        wants_reply: bool,
    },
    /// A frame that is not for the log.
    Apart {
        at: usize,
        after: usize,
        what: Apart,
    },
}

/// What is said of a transaction besides its changes, where it is not one that comes at its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apart {
    /// What follows belongs to a transaction in progress.
    ChunkBegin(StreamStart),
    /// Up to here.
    ChunkEnd,
    /// What came of the (sub)transaction is void.
    Abort { xid: u32, subxid: u32 },
    /// The streamed transaction is complete.
    Commit(StreamCommit),
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
    // Most frames are rows, in a chunk or not: they are not looked at.
    if !matches!(message.first(), Some(b'B' | b'C' | b'S' | b'E' | b'A' | b'c')) {
        return Ok(None);
    }
    let apart = |what| Some(Marked::Apart { at, after, what });
    Ok(match pgoutput::parse(message)? {
        Message::Begin(begin) => Some(Marked::Begin { at, commit: begin.commit, xid: begin.xid, time: begin.at }),
        Message::Commit(commit) => Some(Marked::Commit { after, end: commit.end }),
        Message::StreamStart(start) => apart(Apart::ChunkBegin(start)),
        Message::StreamStop => apart(Apart::ChunkEnd),
        Message::StreamAbort(StreamAbort { xid, subxid, .. }) => apart(Apart::Abort { xid, subxid }),
        Message::StreamCommit(commit) => apart(Apart::Commit(commit)),
        _ => None,
    })
}

/// The frames that stand around the changes of a transaction that comes at its commit.
pub(crate) fn frames_around(done: &StreamCommit) -> (Bytes, Bytes) {
    let (lsns, at) = ([done.commit.0.to_be_bytes(), done.end.0.to_be_bytes()], done.at.to_postgres().to_be_bytes());
    let frame = |message: &[&[u8]]| {
        let message = message.concat();
        let mut frame = BytesMut::with_capacity(message.len() + 30);
        frame.put_u8(b'd');
        frame.put_u32(message.len() as u32 + 29);
        frame.put_u8(b'w');
        lsns.iter().for_each(|lsn| frame.put_slice(lsn));
        frame.put_slice(&at);
        frame.put_slice(&message);
        frame.freeze()
    };
    let [commit, end] = &lsns;
    (frame(&[b"B", commit, &at, &done.xid.to_be_bytes()]), frame(&[b"C\0", commit, end, &at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn the_frames_around_a_streamed_transaction_are_those_of_an_ordinary_one() {
        let done = StreamCommit { xid: 731, commit: Lsn(10), end: Lsn(18), at: Timestamp::from_postgres(99) };
        let (begin, commit) = frames_around(&done);
        let found = marks(&[&begin[..], &commit[..]].concat()).unwrap();
        let after = begin.len() + commit.len();
        let time = Timestamp::from_postgres(99);
        let expected =
            [Marked::Begin { at: 0, commit: Lsn(10), xid: 731, time }, Marked::Commit { after, end: Lsn(18) }];
        assert_eq!(found, expected);
    }

    #[test]
    fn each_server_is_asked_for_the_newest_protocol_that_it_has() {
        for (is_streaming, version, expected) in [
            (true, 180_001, "'4', streaming 'parallel'"),
            (true, 160_000, "'4', streaming 'parallel'"),
            (true, 150_012, "'2', streaming 'on'"),
            (true, 140_000, "'2', streaming 'on'"),
            (false, 180_001, "'1'"),
        ] {
            assert_eq!(protocol(is_streaming, version), expected);
        }
    }
}
