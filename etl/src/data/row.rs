//! Where are the values of a row? A row is a buffer that many rows have in common, and an index into it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::decode;
use super::{Cell, RowBuilder};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::schema::{Column, Kind, TableSchema};

/// Instead of an offset: the value is null.
const NULL: u32 = u32::MAX;
/// Instead of an offset: the value was not sent because it did not change.
pub(crate) const UNCHANGED: u32 = u32::MAX - 1;

/// How the values of one row are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFormat {
    /// All in the server's text form.
    Text,
    /// All in the server's binary form.
    Binary,
    /// Each as the byte before its length says: `t` or `b` (pgoutput's tuple data).
    Tagged,
}

/// One value as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawValue<'a> {
    /// Null.
    Null,
    /// Not sent: an unchanged TOAST value.
    Unchanged,
    /// The server's text form; not checked to be UTF-8 yet.
    Text(&'a [u8]),
    /// The server's binary form.
    Binary(&'a [u8]),
}

/// The bytes of many rows, where each value lies in them, and the schemas that they follow.
///
/// A row is a header (schema, format and number of columns) and one offset a column. The offset points at the value;
/// its length is the big-endian `i32` before it, as COPY's binary format and pgoutput both write it.
pub struct RowBuffer {
    bytes: Bytes,
    spans: Box<[u32]>,
    schemas: Box<[Arc<TableSchema>]>,
}

impl fmt::Debug for RowBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowBuffer").field("bytes", &self.bytes.len()).field("spans", &self.spans.len()).finish()
    }
}

impl RowBuffer {
    /// The memory that the buffer keeps alive, in bytes.
    pub fn byte_size(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.spans)
    }

    /// The shape of a row.
    pub(super) fn schema(&self, row: u32) -> &Arc<TableSchema> {
        &self.schemas[self.header(row).place()]
    }

    /// A value as it arrived. Panics where the row's schema has no such column.
    // Called for every value of every row, from other crates.
    #[inline(always)]
    pub(super) fn raw(&self, row: u32, column: usize) -> RawValue<'_> {
        let header = self.header(row);
        assert!(column < header.columns(), "no column {column}");
        let offset = match self.spans[row as usize + 1 + column] {
            NULL => return RawValue::Null,
            UNCHANGED => return RawValue::Unchanged,
            offset => offset as usize,
        };
        let bytes = &self.bytes[..];
        let mut length = [0; 4];
        length.copy_from_slice(&bytes[offset - 4..offset]);
        let value = &bytes[offset..offset + u32::from_be_bytes(length) as usize];
        if header.is_binary(|| bytes[offset - 5]) { RawValue::Binary(value) } else { RawValue::Text(value) }
    }

    #[inline]
    fn header(&self, row: u32) -> Header {
        Header(self.spans[row as usize])
    }
}

/// Notes where values lie while bytes are parsed; becomes a [`RowBuffer`].
///
/// Whoever notes an offset has checked that the value and the length before it lie within the bytes that
/// [`RowSpans::finish`] gets.
#[derive(Debug, Default)]
pub struct RowSpans {
    spans: Vec<u32>,
    schemas: Vec<Arc<TableSchema>>,
    /// The place of the last row's schema.
    current: usize,
    /// The places of the schemas by address, once they are many.
    places: HashMap<usize, usize>,
}

/// Up to here schemas are found by looking at each.
const FEW_SCHEMAS: usize = 8;

/// What a row's first note says: the place of its schema in the lowest 16 bits, its format in two, and how many columns
/// it has in the others.
#[derive(Debug, Clone, Copy)]
struct Header(u32);

impl Header {
    fn new(place: usize, format: RowFormat, columns: usize) -> Option<Self> {
        let format = match format {
            RowFormat::Text => 0,
            RowFormat::Binary => 1,
            RowFormat::Tagged => 2,
        };
        let columns = u32::try_from(columns).ok().filter(|columns| *columns < 1 << 14)?;
        Some(Self(columns << 18 | format << 16 | u32::from(u16::try_from(place).ok()?)))
    }

    fn place(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    fn columns(self) -> usize {
        (self.0 >> 18) as usize
    }

    /// Whether a value is binary; `tag` is the byte before its length.
    fn is_binary(self, tag: impl FnOnce() -> u8) -> bool {
        match self.0 >> 16 & 3 {
            0 => false,
            1 => true,
            _ => tag() == b'b',
        }
    }
}

impl RowSpans {
    /// The most bytes that offsets can point into.
    pub const MAX_BYTES: usize = UNCHANGED as usize - 1;

    /// Nothing noted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing noted yet, with room for so many notes.
    pub fn with_capacity(notes: usize) -> Self {
        Self { spans: Vec::with_capacity(notes), ..Self::default() }
    }

    /// Begins a row of this schema; returns the index that makes a [`TableRow`] of it. Exactly one note a
    /// column must follow. `None` when the buffer has no room for another schema or row, and where the schema has more
    /// than 16,383 columns (Postgres's tables have 1,600).
    pub fn begin_row(&mut self, schema: &Arc<TableSchema>, format: RowFormat) -> Option<u32> {
        let row = u32::try_from(self.spans.len()).ok()?;
        let place = match self.schemas.get(self.current) {
            Some(current) if Arc::ptr_eq(current, schema) => self.current,
            _ => self.place_of(schema),
        };
        self.current = place;
        let header = Header::new(place, format, schema.columns.len())?;
        self.spans.reserve(schema.columns.len() + 1);
        self.spans.push(header.0);
        Some(row)
    }

    /// The same where all values are noted at once: in a place for each column, which say null so far.
    #[inline]
    pub(crate) fn whole_row(&mut self, schema: &Arc<TableSchema>, format: RowFormat) -> Option<(u32, &mut [u32])> {
        let row = self.begin_row(schema, format)?;
        let first = self.spans.len();
        self.spans.resize(first + schema.columns.len(), NULL);
        Some((row, &mut self.spans[first..]))
    }

    /// The next column's value begins at this offset.
    #[inline]
    pub fn value_at(&mut self, offset: u32) {
        self.spans.push(offset);
    }

    /// The next column is null.
    #[inline]
    pub fn null(&mut self) {
        self.spans.push(NULL);
    }

    /// The next column was not sent.
    #[inline]
    pub fn unchanged(&mut self) {
        self.spans.push(UNCHANGED);
    }

    /// Takes over from `old` what is unchanged in the finished row `new`; both belong to this buffer and
    /// have the same schema and format.
    pub fn fill_unchanged(&mut self, new: u32, old: u32) {
        let columns = self.columns_of(new);
        let (new, old) = (new as usize + 1, old as usize + 1);
        for column in 0..columns {
            if self.spans[new + column] == UNCHANGED {
                self.spans[new + column] = self.spans[old + column];
            }
        }
    }

    /// Whether the finished row still has an unchanged value.
    pub fn has_unchanged(&self, row: u32) -> bool {
        let first = row as usize + 1;
        self.spans[first..first + self.columns_of(row)].contains(&UNCHANGED)
    }

    /// What is noted so far, to come back to.
    pub fn mark(&self) -> usize {
        self.spans.len()
    }

    /// Forgets what was noted after the mark.
    pub fn rewind(&mut self, mark: usize) {
        self.spans.truncate(mark);
    }

    /// The memory of the notes, in bytes.
    pub fn byte_size(&self) -> usize {
        size_of_val(&*self.spans)
    }

    fn place_of(&mut self, schema: &Arc<TableSchema>) -> usize {
        let address = Arc::as_ptr(schema).addr();
        let known = if self.schemas.len() <= FEW_SCHEMAS {
            self.schemas.iter().position(|known| Arc::ptr_eq(known, schema))
        } else {
            self.places.get(&address).copied()
        };
        known.unwrap_or_else(|| {
            let place = self.schemas.len();
            self.schemas.push(Arc::clone(schema));
            self.places.insert(address, place);
            place
        })
    }

    fn columns_of(&self, row: u32) -> usize {
        Header(self.spans[row as usize]).columns()
    }

    /// The buffer over the bytes that were parsed.
    pub fn finish(self, bytes: Bytes) -> Arc<RowBuffer> {
        Arc::new(RowBuffer { bytes, spans: self.spans.into(), schemas: self.schemas.into() })
    }
}

/// A row: sixteen bytes, cheap to clone, readable for as long as it lives.
#[derive(Clone)]
pub struct TableRow {
    buffer: Arc<RowBuffer>,
    row: u32,
}

impl TableRow {
    /// The row that [`RowSpans::begin_row`] gave this index.
    pub fn new(buffer: Arc<RowBuffer>, row: u32) -> Self {
        Self { buffer, row }
    }

    /// The shape of the row.
    pub fn schema(&self) -> &Arc<TableSchema> {
        self.buffer.schema(self.row)
    }

    /// A column's value as it arrived. Panics where the schema has no such column.
    #[inline(always)]
    pub fn raw(&self, column: usize) -> RawValue<'_> {
        self.buffer.raw(self.row, column)
    }

    /// A column's value.
    ///
    /// # Errors
    /// `Value`, naming table, column, type and value class, when the value cannot be decoded exactly;
    /// `Internal` where the schema has no such column.
    pub fn get(&self, column: usize) -> EtlResult<Cell<'_>> {
        let of = self.column(column)?;
        Cell::decode(&of.kind, self.raw(column)).map_err(|error| self.schema().value_error(column, error))
    }

    /// A column's value exactly as the server writes it (ISO dates, UTC, hex bytea); `None` is null.
    ///
    /// # Errors
    /// As [`TableRow::get`], and also when the value was not sent.
    pub fn text(&self, column: usize) -> EtlResult<Option<Cow<'_, str>>> {
        let of = self.column(column)?;
        let text = match (self.raw(column), &of.kind) {
            (RawValue::Null, _) => return Ok(None),
            (raw @ RawValue::Text(_), _) | (raw, Kind::Text | Kind::Enum | Kind::Json) => {
                decode::text(raw).map(Cow::Borrowed)
            }
            (raw, Kind::Jsonb) => decode::jsonb(raw).map(Cow::Borrowed),
            (raw, kind) => {
                let mut text = String::new();
                decode::write_text(kind, raw, &mut text).map(|()| Cow::Owned(text))
            }
        };
        text.map(Some).map_err(|error| self.schema().value_error(column, error))
    }

    /// A row of its own; where there are many, [`super::RowBuilder`] puts them into one buffer.
    ///
    /// # Errors
    /// `Value` when there is not one cell of the right type a column.
    pub fn from_cells(schema: Arc<TableSchema>, cells: &[Cell<'_>]) -> EtlResult<Self> {
        let mut builder = RowBuilder::new();
        let row = builder.push(&schema, cells)?;
        Ok(Self::new(builder.into_buffer(), row))
    }

    fn column(&self, column: usize) -> EtlResult<&Column> {
        self.schema().columns.get(column).ok_or_else(|| {
            EtlError::new(ErrorKind::Internal, "the table has no such column")
                .with("table", &self.schema().name)
                .with("column", column)
        })
    }

    /// Whether a value was not sent because it did not change.
    pub fn has_unchanged(&self) -> bool {
        let first = self.row as usize + 1;
        self.buffer.spans[first..first + self.header().columns()].contains(&UNCHANGED)
    }

    /// The bytes of the row's values and of the notes about them.
    pub fn byte_size(&self) -> usize {
        let columns = self.header().columns();
        let values = (0..columns).map(|column| match self.raw(column) {
            RawValue::Text(value) | RawValue::Binary(value) => value.len(),
            RawValue::Null | RawValue::Unchanged => 0,
        });
        values.sum::<usize>() + (columns + 1) * size_of::<u32>()
    }

    /// About how many bytes of its buffer the row takes, found without looking at every value: from its first value to
    /// the end of its last one.
    pub fn extent(&self) -> usize {
        let first = self.row as usize + 1;
        let spans = &self.buffer.spans[first..first + self.header().columns()];
        let Some(begin) = spans.iter().find(|offset| **offset < UNCHANGED) else { return 0 };
        let Some(last) = spans.iter().rposition(|offset| *offset < UNCHANGED) else { return 0 };
        let length = match self.raw(last) {
            RawValue::Text(value) | RawValue::Binary(value) => value.len(),
            RawValue::Null | RawValue::Unchanged => 0,
        };
        spans[last].abs_diff(*begin) as usize + length
    }

    /// The buffer that the row keeps alive.
    pub fn buffer(&self) -> &Arc<RowBuffer> {
        &self.buffer
    }

    #[inline]
    fn header(&self) -> Header {
        self.buffer.header(self.row)
    }

    pub(super) fn index(&self) -> u32 {
        self.row
    }
}

impl fmt::Debug for TableRow {
    /// The table and the size; values do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableRow({}, {} bytes)", self.schema().name, self.byte_size())
    }
}
