//! Which rows does a row message hold? Their places are noted, old image and new.

use std::ops::Range;
use std::sync::Arc;

use super::message::named;
use super::tuple::{self, Shape};
use crate::data::RowSpans;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::postgres::scan::{Malformed, Scan, Scanner};
use crate::schema::TableSchema;

/// The rows of one message, each by the index that makes a [`crate::data::TableRow`] of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotedChange {
    /// A new row.
    Insert {
        /// The row.
        new: u32,
    },
    /// A changed row.
    Update {
        /// The row before, where the message holds it.
        old: Option<NotedOld>,
        /// The row after. What did not change is taken from a full old image.
        new: u32,
    },
    /// A deleted row.
    Delete {
        /// The row before.
        old: NotedOld,
    },
}

/// What a message tells of a row before its change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotedOld {
    /// The columns of the replica identity; the others are null.
    Key(u32),
    /// All columns.
    Full(u32),
}

/// Notes the rows of the insert, update or delete that lies at `message` within `block`.
///
/// `spans` must be finished with the whole block. On an error nothing of the message stays noted.
///
/// # Errors
/// `Protocol` when the bytes are not such a message, the rows do not have the schema's columns, the message
/// is about another table, or the block is too large for offsets of 32 bits.
pub fn note_change(
    block: &[u8],
    message: Range<usize>,
    schema: &Arc<TableSchema>,
    spans: &mut RowSpans,
) -> EtlResult<NotedChange> {
    noted(block, message, Shape { schema, kept: None }, spans, note::<false>)
}

/// The same where columns are left out: `kept` says of each column sent whether `schema` has it.
///
/// # Errors
/// As of [`note_change`].
pub fn note_kept_change(
    block: &[u8],
    message: Range<usize>,
    schema: &Arc<TableSchema>,
    kept: &[bool],
    spans: &mut RowSpans,
) -> EtlResult<NotedChange> {
    check_kept(schema, kept)?;
    noted(block, message, Shape { schema, kept: Some(kept) }, spans, note::<false>)
}

/// The same for a message of a segment, which names its (sub)transaction before the table.
///
/// # Errors
/// As of [`note_change`].
pub fn note_streamed_change(
    block: &[u8],
    message: Range<usize>,
    schema: &Arc<TableSchema>,
    spans: &mut RowSpans,
) -> EtlResult<NotedChange> {
    noted(block, message, Shape { schema, kept: None }, spans, note::<true>)
}

/// The same where columns are left out, as with [`note_kept_change`].
///
/// # Errors
/// As of [`note_change`].
pub fn note_kept_streamed_change(
    block: &[u8],
    message: Range<usize>,
    schema: &Arc<TableSchema>,
    kept: &[bool],
    spans: &mut RowSpans,
) -> EtlResult<NotedChange> {
    check_kept(schema, kept)?;
    noted(block, message, Shape { schema, kept: Some(kept) }, spans, note::<true>)
}

fn check_kept(schema: &TableSchema, kept: &[bool]) -> EtlResult<()> {
    if kept.iter().filter(|kept| **kept).count() != schema.columns.len() {
        return Err(EtlError::new(ErrorKind::Internal, "other columns are kept than the schema has")
            .with("table", &schema.name));
    }
    Ok(())
}

type Note = fn(&[u8], Range<usize>, Shape<'_>, &mut RowSpans) -> Scan<NotedChange>;

#[inline]
fn noted(
    block: &[u8],
    message: Range<usize>,
    shape: Shape<'_>,
    spans: &mut RowSpans,
    note: Note,
) -> EtlResult<NotedChange> {
    let mark = spans.mark();
    note(block, message.clone(), shape, spans).map_err(|malformed| {
        spans.rewind(mark);
        named(malformed, block.get(message).unwrap_or_default()).with("table", &shape.schema.name)
    })
}

#[inline]
fn note<const IN_STREAM: bool>(
    block: &[u8],
    message: Range<usize>,
    shape: Shape<'_>,
    spans: &mut RowSpans,
) -> Scan<NotedChange> {
    if block.len() > RowSpans::MAX_BYTES {
        return Err(Malformed("the block around it is too large"));
    }
    let mut scan = Scanner::within(block, message)?;
    let tag = scan.u8()?;
    if IN_STREAM {
        scan.u32()?;
    }
    if scan.u32()? != shape.schema.id.0 {
        return Err(Malformed("it is about another table than its schema"));
    }
    let noted = match tag {
        b'I' => {
            new_tuple(scan.u8()?)?;
            NotedChange::Insert { new: tuple::note(&mut scan, shape, spans)? }
        }
        b'U' => {
            let mut form = scan.u8()?;
            let mut old = None;
            if form != b'N' {
                old = Some(note_old(form, &mut scan, shape, spans)?);
                form = scan.u8()?;
            }
            new_tuple(form)?;
            let new = tuple::note(&mut scan, shape, spans)?;
            if let Some(NotedOld::Full(old)) = old {
                spans.fill_unchanged(new, old);
            }
            NotedChange::Update { old, new }
        }
        b'D' => {
            let form = scan.u8()?;
            NotedChange::Delete { old: note_old(form, &mut scan, shape, spans)? }
        }
        _ => return Err(Malformed("it holds no row")),
    };
    scan.end()?;
    Ok(noted)
}

fn new_tuple(form: u8) -> Scan<()> {
    if form == b'N' { Ok(()) } else { Err(Malformed("its new row is missing")) }
}

fn note_old(form: u8, scan: &mut Scanner<'_>, shape: Shape<'_>, spans: &mut RowSpans) -> Scan<NotedOld> {
    match form {
        b'K' => tuple::note(scan, shape, spans).map(NotedOld::Key),
        b'O' => tuple::note(scan, shape, spans).map(NotedOld::Full),
        _ => Err(Malformed("its old row is neither a key nor whole")),
    }
}
