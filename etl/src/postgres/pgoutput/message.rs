//! Which message is it? The tag byte decides; rows stay where they are.

use super::{Begin, Commit, Emitted, Origin, Relation, Truncate, TypeName};
use crate::error::EtlResult;
use crate::postgres::scan::{Malformed, Scan, Scanner};

/// One message of protocol 1, borrowed from its bytes.
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
/// `Protocol` when the bytes are not one message of protocol 1.
#[inline]
pub fn parse(message: &[u8]) -> EtlResult<Message<'_>> {
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

fn read(message: &[u8]) -> Scan<Message<'_>> {
    let mut scan = Scanner::new(message);
    let read = match scan.u8()? {
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
