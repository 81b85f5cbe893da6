//! Where are the values of a tuple? Their offsets are noted, the values are not read.

use std::sync::Arc;

use crate::data::{RowFormat, RowSpans, UNCHANGED};
use crate::postgres::scan::{Malformed, Scan, Scanner};
use crate::schema::TableSchema;

/// The rows of one table: what they look like once what is left out is gone.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    pub(super) schema: &'a Arc<TableSchema>,
    /// Which of the columns sent are kept, as many as `schema` has; `None`: all.
    pub(super) kept: Option<&'a [bool]>,
}

/// Notes one tuple of `TupleData`; returns the row's index. The scanner reads a block whose offsets fit.
#[inline]
pub(super) fn note(scan: &mut Scanner<'_>, shape: Shape<'_>, spans: &mut RowSpans) -> Scan<u32> {
    match shape.kept {
        None => note_all(scan, shape.schema, spans),
        Some(kept) => note_kept(scan, shape.schema, kept, spans),
    }
}

/// The same where some columns are left out.
fn note_kept(scan: &mut Scanner<'_>, schema: &Arc<TableSchema>, kept: &[bool], spans: &mut RowSpans) -> Scan<u32> {
    let columns = scan.i16()?;
    if usize::try_from(columns) != Ok(kept.len()) {
        return Err(Malformed("the row has another number of columns than its table"));
    }
    let row = spans.begin_row(schema, RowFormat::Tagged).ok_or(Malformed("the buffer has no room for the row"))?;
    for is_kept in kept {
        match scan.u8()? {
            b't' | b'b' => {
                let length = scan.length()?;
                let offset = scan.at() as u32;
                scan.take(length)?;
                if *is_kept {
                    spans.value_at(offset);
                }
            }
            b'n' if *is_kept => spans.null(),
            b'u' if *is_kept => spans.unchanged(),
            b'n' | b'u' => {}
            _ => return Err(Malformed("the form of a value is unknown")),
        }
    }
    Ok(row)
}

#[inline]
fn note_all(scan: &mut Scanner<'_>, schema: &Arc<TableSchema>, spans: &mut RowSpans) -> Scan<u32> {
    let columns = scan.i16()?;
    if usize::try_from(columns) != Ok(schema.columns.len()) {
        return Err(Malformed("the row has another number of columns than its table"));
    }
    let full = Malformed("the buffer has no room for the row");
    let (row, notes) = spans.whole_row(schema, RowFormat::Tagged).ok_or(full)?;
    for note in notes {
        match scan.u8()? {
            b't' | b'b' => {
                let length = scan.length()?;
                // `note_change` has checked that every offset of the block fits.
                *note = scan.at() as u32;
                scan.take(length)?;
            }
            b'n' => {}
            b'u' => *note = UNCHANGED,
            _ => return Err(Malformed("the form of a value is unknown")),
        }
    }
    Ok(row)
}
