//! How do cells become rows? Encoded as the server would, many rows in one buffer.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::decode::{DecodeError, Decoded, check_numeric_text};
use super::{Cell, RawValue, RowBuffer, RowFormat, RowSpans, TableRow};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::memory::{Claim, held};
use crate::schema::{Kind, TableSchema};

/// Makes rows of cells; all of them have one buffer in common.
#[derive(Debug, Default)]
pub struct RowBuilder {
    bytes: BytesMut,
    spans: RowSpans,
    rows: Vec<u32>,
    scratch: String,
}

impl RowBuilder {
    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row of one cell a column; returns the index that makes a [`TableRow`] of the buffer.
    ///
    /// # Errors
    /// `Value`, naming table, column and type, when a cell does not hold a value of its column's type, and
    /// when there are more or fewer cells than columns. The row is then not added.
    pub fn push(&mut self, schema: &Arc<TableSchema>, cells: &[Cell<'_>]) -> EtlResult<u32> {
        let (mark, length) = (self.spans.mark(), self.bytes.len());
        let row = self.encode(schema, cells);
        match row {
            Ok(row) => self.rows.push(row),
            Err(_) => {
                self.spans.rewind(mark);
                self.bytes.truncate(length);
            }
        }
        row
    }

    /// Adds a row of values in either of the server's forms, which are taken over as they are.
    ///
    /// # Errors
    /// `Value` when there are more or fewer values than columns, or no room. The row is then not added.
    pub fn push_raw<'a>(
        &mut self,
        schema: &Arc<TableSchema>,
        values: impl ExactSizeIterator<Item = RawValue<'a>>,
    ) -> EtlResult<u32> {
        if values.len() != schema.columns.len() {
            return Err(miscounted(schema, values.len()));
        }
        let (mark, length) = (self.spans.mark(), self.bytes.len());
        let row = self.spans.begin_row(schema, RowFormat::Tagged).ok_or_else(|| full(schema))?;
        for value in values {
            let put = match value {
                RawValue::Null => {
                    self.spans.null();
                    Ok(())
                }
                RawValue::Unchanged => {
                    self.spans.unchanged();
                    Ok(())
                }
                RawValue::Text(text) => self.put(schema, b't', text),
                RawValue::Binary(bytes) => self.put(schema, b'b', bytes),
            };
            if let Err(error) = put {
                self.spans.rewind(mark);
                self.bytes.truncate(length);
                return Err(error);
            }
        }
        self.rows.push(row);
        Ok(row)
    }

    /// The rows, in the order in which they were added.
    pub fn finish(self) -> Vec<TableRow> {
        self.finish_counted(|_| None)
    }

    /// The same; what the buffer takes is held by the claim that counts it.
    pub(crate) fn finish_counted(mut self, count: impl FnOnce(usize) -> Option<Claim>) -> Vec<TableRow> {
        let rows = std::mem::take(&mut self.rows);
        let bytes = self.bytes.freeze();
        let claim = count(bytes.len() + self.spans.byte_size() + rows.len() * size_of::<TableRow>());
        let buffer = self.spans.finish(match claim {
            Some(claim) => held(bytes, claim),
            None => bytes,
        });
        rows.into_iter().map(|row| TableRow::new(Arc::clone(&buffer), row)).collect()
    }

    /// The buffer that the indexes of [`RowBuilder::push`] belong to.
    pub fn into_buffer(self) -> Arc<RowBuffer> {
        self.spans.finish(self.bytes.freeze())
    }

    fn encode(&mut self, schema: &Arc<TableSchema>, cells: &[Cell<'_>]) -> EtlResult<u32> {
        if cells.len() != schema.columns.len() {
            return Err(miscounted(schema, cells.len()));
        }
        let row = self.spans.begin_row(schema, RowFormat::Tagged).ok_or_else(|| full(schema))?;
        let mut scratch = std::mem::take(&mut self.scratch);
        for (place, (cell, column)) in cells.iter().zip(&schema.columns).enumerate() {
            match cell {
                Cell::Null => self.spans.null(),
                Cell::Unchanged => self.spans.unchanged(),
                cell => {
                    let value =
                        encode(&column.kind, cell, &mut scratch).map_err(|error| schema.value_error(place, error))?;
                    match &value {
                        Encoded::Raw(RawValue::Text(text)) => self.put(schema, b't', text)?,
                        Encoded::Raw(RawValue::Binary(bytes)) => self.put(schema, b'b', bytes)?,
                        Encoded::Small(bytes, length) => self.put(schema, b'b', &bytes[..*length])?,
                        Encoded::Raw(RawValue::Null | RawValue::Unchanged) => {}
                    }
                }
            }
        }
        self.scratch = scratch;
        Ok(row)
    }

    fn put(&mut self, schema: &TableSchema, form: u8, value: &[u8]) -> EtlResult<()> {
        let length = i32::try_from(value.len()).map_err(|_| full(schema))?;
        self.bytes.put_u8(form);
        self.bytes.put_i32(length);
        let offset = self.bytes.len();
        if offset.saturating_add(value.len()) > RowSpans::MAX_BYTES {
            return Err(full(schema));
        }
        self.bytes.put_slice(value);
        self.spans.value_at(offset as u32);
        Ok(())
    }
}

fn miscounted(schema: &TableSchema, values: usize) -> EtlError {
    EtlError::new(ErrorKind::Value, "a row has another number of values than its table columns")
        .of_table(schema.id)
        .with("table", &schema.name)
        .with("values", values)
        .with("columns", schema.columns.len())
}

fn full(schema: &TableSchema) -> EtlError {
    EtlError::new(ErrorKind::Value, "a buffer has no room for the row")
        .of_table(schema.id)
        .with("table", &schema.name)
        .hint("Build fewer rows at once")
}

/// A value in one of the server's forms; numbers are small enough to be held here.
enum Encoded<'a> {
    Raw(RawValue<'a>),
    Small([u8; 16], usize),
}

fn encode<'a>(kind: &Kind, cell: &'a Cell<'_>, scratch: &'a mut String) -> Decoded<Encoded<'a>> {
    let out_of_range = |_| DecodeError::OutOfRange;
    Ok(match (kind, cell) {
        (Kind::Bool, Cell::Bool(value)) => small([u8::from(*value)]),
        (Kind::Int2, Cell::I64(value)) => small(i16::try_from(*value).map_err(out_of_range)?.to_be_bytes()),
        (Kind::Int4, Cell::I64(value)) => small(i32::try_from(*value).map_err(out_of_range)?.to_be_bytes()),
        (Kind::Oid, Cell::I64(value)) => small(u32::try_from(*value).map_err(out_of_range)?.to_be_bytes()),
        (Kind::Int8, Cell::I64(value))
        | (Kind::Timestamp, Cell::Timestamp(value))
        | (Kind::TimestampTz, Cell::TimestampTz(value)) => small(value.to_be_bytes()),
        (Kind::Time, Cell::Time(value)) if (0..=86_400_000_000).contains(value) => small(value.to_be_bytes()),
        (Kind::Time, Cell::Time(_)) => return Err(DecodeError::OutOfRange),
        (Kind::Float4, Cell::F32(value)) => small(value.to_be_bytes()),
        (Kind::Float8, Cell::F64(value)) => small(value.to_be_bytes()),
        (Kind::Date, Cell::Date(value)) => small(value.to_be_bytes()),
        (Kind::Uuid, Cell::Uuid(value)) => small(*value),
        (Kind::Bytea, Cell::Bytes(value)) => Encoded::Raw(RawValue::Binary(value)),
        (Kind::Numeric(_), Cell::Numeric(value)) => {
            check_numeric_text(value)?;
            Encoded::Raw(RawValue::Text(value.as_bytes()))
        }
        (Kind::Json | Kind::Jsonb, Cell::Json(value)) => Encoded::Raw(RawValue::Text(value.as_bytes())),
        (kind, Cell::Text(value)) if is_text(kind) => Encoded::Raw(RawValue::Text(value.as_bytes())),
        (Kind::Array(element), Cell::Array(array)) if element.delimiter() == b',' => {
            for cell in &array.elements {
                if !matches!(cell, Cell::Null) {
                    encode(element, cell, scratch)?;
                }
            }
            scratch.clear();
            cell.write_text(scratch)?;
            Encoded::Raw(RawValue::Text(scratch.as_bytes()))
        }
        _ => return Err(DecodeError::WrongType),
    })
}

/// Whether values of this kind are cells of text.
fn is_text(kind: &Kind) -> bool {
    match kind {
        Kind::Bool
        | Kind::Int2
        | Kind::Int4
        | Kind::Int8
        | Kind::Oid
        | Kind::Float4
        | Kind::Float8
        | Kind::Numeric(_)
        | Kind::Bytea
        | Kind::Date
        | Kind::Time
        | Kind::Timestamp
        | Kind::TimestampTz
        | Kind::Uuid
        | Kind::Json
        | Kind::Jsonb => false,
        Kind::Array(element) => element.delimiter() != b',',
        _ => true,
    }
}

fn small<'a, const N: usize>(value: [u8; N]) -> Encoded<'a> {
    let mut bytes = [0; 16];
    let length = N.min(bytes.len());
    bytes[..length].copy_from_slice(&value[..length]);
    Encoded::Small(bytes, length)
}

impl TableSchema {
    /// The error about a value of this column, which is never named itself.
    #[cold]
    pub fn value_error(&self, column: usize, class: DecodeError) -> EtlError {
        let error = EtlError::new(ErrorKind::Value, "a value cannot be represented exactly").of_table(self.id);
        let error = error.with("table", &self.name);
        let error = match self.columns.get(column) {
            Some(column) => error.with("column", &column.name).with("type", &column.type_name),
            None => error.with("column", column),
        };
        let error = error.with("value", class);
        match class {
            DecodeError::Unchanged => error.hint(
                "Postgres sends an unchanged value that is stored out of line only with \
                 `ALTER TABLE ... REPLICA IDENTITY FULL`",
            ),
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::mutation::table;

    #[test]
    fn many_rows_share_one_buffer() {
        let (one, two) = (table(1, &[Kind::Int4, Kind::Text]), table(2, &[Kind::Bytea]));
        let mut builder = RowBuilder::new();
        builder.push(&one, &[Cell::I64(7), Cell::Text("a".into())]).unwrap();
        builder.push(&two, &[Cell::Bytes(b"\0\xff".as_slice().into())]).unwrap();
        builder.push(&one, &[Cell::Null, Cell::Unchanged]).unwrap();
        let rows = builder.finish();
        assert!(Arc::ptr_eq(rows[0].buffer(), rows[2].buffer()));
        assert_eq!(rows[0].get(0).unwrap(), Cell::I64(7));
        assert_eq!(rows[0].text(1).unwrap().as_deref(), Some("a"));
        assert_eq!(rows[1].text(0).unwrap().as_deref(), Some("\\x00ff"));
        assert_eq!(rows[2].get(0).unwrap(), Cell::Null);
        assert_eq!(rows[2].get(1).unwrap(), Cell::Unchanged);
        assert!(rows[2].has_unchanged() && !rows[0].has_unchanged());
    }

    #[test]
    fn a_cell_that_does_not_fit_is_an_error_that_names_all_but_the_value() {
        let schema = table(1, &[Kind::Int2]);
        let mut builder = RowBuilder::new();
        for (cell, class) in [(Cell::I64(32_768), "out of range"), (Cell::Text("32768".into()), "cell of another type")]
        {
            let error = builder.push(&schema, &[cell]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Value);
            let named =
                ["table", "column", "type", "value"].map(|key| error.context(key).unwrap_or_default().to_owned());
            assert_eq!(named, ["public.t1", "c1", "int2", class]);
            assert!(!error.to_string().contains("32768"));
        }
        assert!(builder.push(&schema, &[]).is_err());
        assert!(builder.finish().is_empty());
    }

    #[test]
    fn an_unchanged_value_has_no_text() {
        let row = TableRow::from_cells(table(1, &[Kind::Text, Kind::Text]), &[Cell::Unchanged, Cell::Null]).unwrap();
        let error = row.text(0).unwrap_err();
        assert_eq!((error.kind(), error.context("column")), (ErrorKind::Value, Some("c1")));
        assert!(error.to_string().contains("REPLICA IDENTITY FULL"));
        assert_eq!(row.text(1).unwrap(), None);
        assert_eq!(row.get(2).unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn an_array_whose_shape_does_not_fit_is_refused() {
        let schema = table(1, &[Kind::Array(Arc::new(Kind::Int4))]);
        let array = |dimensions: &[(u32, i32)], elements: Vec<Cell<'static>>| {
            let cell = Cell::Array(crate::data::ArrayCell { dimensions: dimensions.into(), elements: elements.into() });
            TableRow::from_cells(Arc::clone(&schema), &[cell]).and_then(|row| Ok(row.text(0)?.map(|t| t.into_owned())))
        };
        assert_eq!(array(&[(1, 0)], vec![Cell::I64(5)]).unwrap().as_deref(), Some("[0:0]={5}"));
        assert!(array(&[(2, 1)], vec![Cell::I64(5)]).is_err());
        assert!(array(&[], vec![Cell::I64(5)]).is_err());
        assert!(array(&[(1, 1); 7], vec![Cell::I64(5)]).is_err());
        assert!(array(&[(1, 1)], vec![Cell::Bool(true)]).is_err());
        assert!(array(&[(1, 1)], vec![Cell::Unchanged]).is_err());
    }
}
