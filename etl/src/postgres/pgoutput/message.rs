//! Which message is it? The tag byte decides; rows stay where they are.

use super::{
    Begin, Commit, CommitPrepared, Emitted, Origin, Prepared, Relation, RollbackPrepared, StreamAbort, StreamCommit,
    StreamStart, Truncate, TypeName,
};
use crate::error::EtlResult;
use crate::postgres::scan::{Malformed, Scan, Scanner};

/// One message, borrowed from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message<'a> {
    /// A transaction begins.
    Begin(Begin),
    /// The transaction is complete.
    Commit(Commit),
    /// The transaction came from another server.
    Origin(Origin<'a>),
    /// What a table looks like from here on.
    Relation(Relation<'a>),
    /// The name of a type that is not built in.
    Type(TypeName<'a>),
    /// A new row; [`super::note_change`] finds it.
    Insert {
        /// The table's oid.
        relation: u32,
    },
    /// A changed row; [`super::note_change`] finds it.
    Update {
        /// The table's oid.
        relation: u32,
    },
    /// A deleted row; [`super::note_change`] finds it.
    Delete {
        /// The table's oid.
        relation: u32,
    },
    /// Tables were emptied.
    Truncate(Truncate<'a>),
    /// A message of `pg_logical_emit_message`.
    Message(Emitted<'a>),
    /// A segment of a transaction in progress begins (protocol 2).
    StreamStart(StreamStart),
    /// The segment ends.
    StreamStop,
    /// A streamed transaction has committed.
    StreamCommit(StreamCommit),
    /// A streamed transaction or subtransaction was rolled back.
    StreamAbort(StreamAbort),
    /// A transaction begins that was prepared (protocol 3).
    BeginPrepare(Prepared<'a>),
    /// It is complete, and waits for its second phase.
    Prepare(Prepared<'a>),
    /// A prepared transaction was committed.
    CommitPrepared(CommitPrepared<'a>),
    /// A prepared transaction was rolled back.
    RollbackPrepared(RollbackPrepared<'a>),
    /// A streamed transaction was prepared.
    StreamPrepare(Prepared<'a>),
}

impl Message<'_> {
    /// What the manual calls it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Begin(_) => "Begin",
            Self::Commit(_) => "Commit",
            Self::Origin(_) => "Origin",
            Self::Relation(_) => "Relation",
            Self::Type(_) => "Type",
            Self::Insert { .. } => "Insert",
            Self::Update { .. } => "Update",
            Self::Delete { .. } => "Delete",
            Self::Truncate(_) => "Truncate",
            Self::Message(_) => "Message",
            Self::StreamStart(_) => "Stream Start",
            Self::StreamStop => "Stream Stop",
            Self::StreamCommit(_) => "Stream Commit",
            Self::StreamAbort(_) => "Stream Abort",
            Self::BeginPrepare(_) => "Begin Prepare",
            Self::Prepare(_) => "Prepare",
            Self::CommitPrepared(_) => "Commit Prepared",
            Self::RollbackPrepared(_) => "Rollback Prepared",
            Self::StreamPrepare(_) => "Stream Prepare",
        }
    }
}

/// A message of a segment, and the (sub)transaction that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streamed<'a> {
    /// The transaction or subtransaction; absent from the segment's end and from an origin.
    pub xid: Option<u32>,
    /// The message.
    pub message: Message<'a>,
}

/// What the first bytes of a message tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    /// The tag byte, as the manual names it.
    pub tag: u8,
    /// The oid of the table that a row or a RELATION message is about.
    pub relation: Option<u32>,
}

impl Peek {
    /// Whether it is an insert, update or delete.
    pub const fn is_row(self) -> bool {
        matches!(self.tag, b'I' | b'U' | b'D')
    }
}

/// Reads the header of one whole message; of row messages only the table's oid.
///
/// # Errors
/// `Protocol` when the bytes are not one message as it comes outside of segments.
#[inline]
pub fn parse(message: &[u8]) -> EtlResult<Message<'_>> {
    let read = |message| {
        let mut scan = Scanner::new(message);
        let tag = scan.u8()?;
        read(tag, scan)
    };
    read(message).map_err(|malformed| named(malformed, message))
}

/// Reads the header of one whole message between the beginning and the end of a segment.
///
/// # Errors
/// `Protocol` when the bytes are not one message as it comes there.
#[inline]
pub fn parse_streamed(message: &[u8]) -> EtlResult<Streamed<'_>> {
    let read = |message| {
        let mut scan = Scanner::new(message);
        let tag = scan.u8()?;
        let xid = match tag {
            b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M' => Some(scan.u32()?),
            b'E' | b'O' => None,
            _ => return Err(Malformed("no message within a segment has this tag")),
        };
        Ok(Streamed { xid, message: read(tag, scan)? })
    };
    read(message).map_err(|malformed| named(malformed, message))
}

/// Reads tag and table, to skip the tables that nobody wants.
///
/// # Errors
/// `Protocol` when the message is shorter than that. Unknown tags are not an error here.
#[inline]
pub fn peek(message: &[u8]) -> EtlResult<Peek> {
    let read = |message| {
        let mut scan = Scanner::new(message);
        let tag = scan.u8()?;
        let relation = if matches!(tag, b'I' | b'U' | b'D' | b'R') { Some(scan.u32()?) } else { None };
        Ok(Peek { tag, relation })
    };
    read(message).map_err(|malformed| named(malformed, message))
}

/// Reads what follows the tag.
#[inline]
fn read(tag: u8, mut scan: Scanner<'_>) -> Scan<Message<'_>> {
    let read = match tag {
        b'I' => return Ok(Message::Insert { relation: scan.u32()? }),
        b'U' => return Ok(Message::Update { relation: scan.u32()? }),
        b'D' => return Ok(Message::Delete { relation: scan.u32()? }),
        b'B' => Message::Begin(Begin::read(&mut scan)?),
        b'C' => Message::Commit(Commit::read(&mut scan)?),
        b'O' => Message::Origin(Origin::read(&mut scan)?),
        b'R' => Message::Relation(Relation::read(&mut scan)?),
        b'Y' => Message::Type(TypeName::read(&mut scan)?),
        b'T' => Message::Truncate(Truncate::read(&mut scan)?),
        b'M' => Message::Message(Emitted::read(&mut scan)?),
        b'S' => Message::StreamStart(StreamStart::read(&mut scan)?),
        b'E' => Message::StreamStop,
        b'c' => Message::StreamCommit(StreamCommit::read(&mut scan)?),
        b'A' => Message::StreamAbort(StreamAbort::read(&mut scan)?),
        b'b' => Message::BeginPrepare(Prepared::read_begin(&mut scan)?),
        b'P' => Message::Prepare(Prepared::read(&mut scan)?),
        b'K' => Message::CommitPrepared(CommitPrepared::read(&mut scan)?),
        b'r' => Message::RollbackPrepared(RollbackPrepared::read(&mut scan)?),
        b'p' => Message::StreamPrepare(Prepared::read(&mut scan)?),
        _ => return Err(Malformed("no message of this protocol has this tag")),
    };
    scan.end()?;
    Ok(read)
}

#[cold]
pub(super) fn named(malformed: Malformed, message: &[u8]) -> crate::EtlError {
    let error = malformed.in_the("pgoutput message").with("bytes", message.len());
    match message.first() {
        Some(tag) => error.with("tag", tag.escape_ascii()),
        None => error,
    }
}
