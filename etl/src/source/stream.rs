//! How is the stream begun, and where do transactions begin and end in what comes?

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::config::Origin;
use super::identity::remember;
use super::judgement::{Found, Judgement, Remembered, judge, must_come};
use super::origin::must_still_come;
use super::touched::affected;
use crate::byte_size::ByteSize;
use crate::clock::Timestamp;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;
use crate::memory::{MemoryBudget, Part};
use crate::postgres::pgoutput::{
    self, CommitPrepared, Message, Prepared, RollbackPrepared, StreamAbort, StreamCommit, StreamStart,
};
use crate::postgres::{
    ConnectOptions, Connection, ReplicationFrame, ReplicationStream, Session, quote_ident, quote_literal,
    replication_frames,
};
use crate::relay::{Prepare, Transaction};
use crate::store::SharedStore;
use tokio_postgres::Client;

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
    /// Whether prepared transactions are to come when they are prepared.
    pub(crate) is_two_phase: bool,
    /// Which changes are to come.
    pub(crate) origin: Origin,
    /// How much of transactions in progress the server holds.
    pub(crate) decoding_memory: ByteSize,
    /// What is received counts there.
    pub(crate) memory: &'a MemoryBudget,
}

/// A stream that has begun.
pub(crate) struct Opened {
    pub(crate) stream: ReplicationStream,
    /// What the slot confirms.
    pub(crate) confirmed: Lsn,
    /// What it has to send again, if the history is the same.
    pub(crate) must_come: Option<Transaction>,
}

/// Connects, checks that the server's history is ours (R9), and starts at the slot's own position. Returns the
/// stream and what the slot confirms.
pub(crate) async fn open_stream(request: StreamRequest<'_>, store: &SharedStore) -> EtlResult<Opened> {
    let options = request.options.for_purpose("stream");
    let session = Session::connect(&options).await?;
    let mut connection = Connection::connect_replication(&options).await?;
    connection.within(request.memory, Part::Stream);
    let (confirmed, must_come) = go_on(&request, store, session.client(), &mut connection).await?;
    let binary = if request.is_binary { ", binary 'true'" } else { "" };
    let origin = if request.origin == Origin::None { ", origin 'none'" } else { "" };
    // In kB, and not less than the server allows.
    let memory = (request.decoding_memory.0 >> 10).clamp(64, i32::MAX as u64);
    connection.query(&format!("SET logical_decoding_work_mem = {memory}")).await?;
    let protocol = protocol(request.is_streaming, request.is_two_phase, session.server_version());
    let start = format!(
        "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version {protocol}, publication_names {}{binary}{origin})",
        quote_ident(request.slot),
        quote_literal(&quote_ident(request.publication)),
    );
    let stream = connection.start_replication(&start).await?;
    Ok(Opened { stream, confirmed, must_come })
}

/// Looks again whether the source is the one that was read before, beside a stream that goes on.
pub(crate) async fn look_again(request: StreamRequest<'_>, store: &SharedStore) -> EtlResult<()> {
    let options = request.options.for_purpose("probe");
    let session = Session::connect(&options).await?;
    let mut connection = Connection::connect_replication(&options).await?;
    go_on(&request, store, session.client(), &mut connection).await.map(drop)
}

/// The source is the one that was read before, and the slot is where it was left.
async fn go_on(
    request: &StreamRequest<'_>,
    store: &SharedStore,
    client: &Client,
    connection: &mut Connection,
) -> EtlResult<(Lsn, Option<Transaction>)> {
    let before = Remembered::read(store, request.slot, Lsn::ZERO).await?;
    let found = Found::look(client, connection, &before, request.slot, request.publication).await?;
    match judge(&before, &found) {
        Judgement::GoOn(confirmed) => {
            remember(store, &before, &found).await?;
            let last = must_come(&before, &found, confirmed);
            Ok((confirmed, must_still_come(store, request.origin, last).await?))
        }
        Judgement::Broken(broken) => {
            let affected = affected(store, broken.extent, before.main).await?;
            Err(broken.into_error(&affected))
        }
        Judgement::Refused(error) => Err(error),
        Judgement::CreateSlot { .. } => Err(EtlError::new(ErrorKind::Internal, "the stream has no slot")),
    }
}

/// The newest protocol that helps, and what is asked of it.
fn protocol(is_streaming: bool, is_two_phase: bool, server_version: u32) -> &'static str {
    match (is_streaming, is_two_phase, server_version) {
        (true, true, 160_000..) => "'4', streaming 'parallel', two_phase 'on'",
        (true, true, 150_000..) => "'3', streaming 'on', two_phase 'on'",
        (false, true, 150_000..) => "'3', two_phase 'on'",
        (true, _, 160_000..) => "'4', streaming 'parallel'",
        (true, _, 140_000..) => "'2', streaming 'on'",
        _ => "'1'",
    }
}

/// Whether the server can send prepared transactions when they are prepared.
///
/// # Errors
/// `SourceSetup` where it is too old for what is asked.
pub(crate) fn check_two_phase(is_asked: bool, server_version: u32) -> EtlResult<()> {
    if is_asked && server_version < 150_000 {
        return Err(EtlError::new(
            ErrorKind::SourceSetup,
            "the server cannot send transactions when they are prepared",
        )
        .with("server_version", server_version)
        .hint("Leave out source.postgres.two_phase, or upgrade the server to 15 or newer"));
    }
    Ok(())
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Apart {
    /// What follows belongs to a transaction in progress.
    ChunkBegin(StreamStart),
    /// Up to here.
    ChunkEnd,
    /// What came of the (sub)transaction is void.
    Abort { xid: u32, subxid: u32 },
    /// The streamed transaction is complete.
    Commit(StreamCommit),
    /// What follows belongs to this transaction, which will be prepared.
    PrepareBegin { xid: u32 },
    /// It is prepared, and comes no more. Its messages name their (sub)transactions where it `is_streamed`.
    Prepared { which: Prepare, is_streamed: bool },
    /// A prepared transaction is complete.
    CommitPrepared { gid: Box<str>, done: StreamCommit },
    /// A prepared transaction is void.
    RollbackPrepared { xid: u32, gid: Box<str>, end: Lsn },
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
    if !matches!(message.first(), Some(b'B' | b'C' | b'S' | b'E' | b'A' | b'c' | b'b' | b'P' | b'p' | b'K' | b'r')) {
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
        Message::BeginPrepare(prepared) => apart(Apart::PrepareBegin { xid: prepared.xid }),
        Message::Prepare(prepared) => apart(Apart::Prepared { which: named(prepared), is_streamed: false }),
        Message::StreamPrepare(prepared) => apart(Apart::Prepared { which: named(prepared), is_streamed: true }),
        Message::CommitPrepared(CommitPrepared { commit, end, at, xid, gid }) => {
            apart(Apart::CommitPrepared { gid: gid.into(), done: StreamCommit { xid, commit, end, at } })
        }
        Message::RollbackPrepared(RollbackPrepared { xid, gid, end, .. }) => {
            apart(Apart::RollbackPrepared { xid, gid: gid.into(), end })
        }
        _ => None,
    })
}

fn named(prepared: Prepared<'_>) -> Prepare {
    Prepare { xid: prepared.xid, gid: prepared.gid.into(), prepare: prepared.prepare }
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
        for (is_streaming, is_two_phase, version, expected) in [
            (true, false, 180_001, "'4', streaming 'parallel'"),
            (true, false, 160_000, "'4', streaming 'parallel'"),
            (true, false, 150_012, "'2', streaming 'on'"),
            (true, false, 140_000, "'2', streaming 'on'"),
            (false, false, 180_001, "'1'"),
            (true, true, 160_000, "'4', streaming 'parallel', two_phase 'on'"),
            (true, true, 150_012, "'3', streaming 'on', two_phase 'on'"),
            (false, true, 180_001, "'3', two_phase 'on'"),
        ] {
            assert_eq!(protocol(is_streaming, is_two_phase, version), expected);
        }
        assert!(check_two_phase(true, 150_000).is_ok() && check_two_phase(false, 140_000).is_ok());
        assert_eq!(check_two_phase(true, 140_012).unwrap_err().kind(), ErrorKind::SourceSetup);
    }
}
