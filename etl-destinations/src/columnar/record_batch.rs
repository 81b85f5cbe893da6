//! How do the rows of a table become record batches? Column by column, the metadata columns last.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use etl::Position;
use etl::clock::Timestamp;
use etl::data::decode::DecodeError;
use etl::data::{CopiedRows, RawValue, RowRun, TableRow};
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::schema::TableSchema;

use super::arrow_schema::{ArrowLimits, arrow_field};
use super::column::ColumnBuilder;
use crate::metadata_columns::{ChangeType, MetadataColumns};
use crate::writer::{StampedRow, TargetTable};

/// A record batch is about as large: what is made of rows needs memory beside them.
const PIECE_BYTES: usize = 1 << 20;
const PIECE_ROWS: usize = 16 << 10;

/// So many rows are put into all columns before the next ones are: their bytes are then still in the processor's cache.
const BLOCK_ROWS: usize = 128;

/// A table's Arrow schema, and how its rows are put into it.
#[derive(Debug, Clone)]
pub struct ArrowTable {
    target: Arc<TargetTable>,
    limits: ArrowLimits,
    schema: SchemaRef,
}

impl ArrowTable {
    /// The columns of the table, then its metadata columns.
    pub fn new(target: &Arc<TargetTable>, limits: ArrowLimits) -> Self {
        let mut fields: Vec<Field> =
            target.named_columns().map(|(name, column)| arrow_field(name, column, limits)).collect();
        if let Some(metadata) = &target.metadata {
            fields.extend(metadata_fields(metadata));
        }
        Self { target: Arc::clone(target), limits, schema: Arc::new(Schema::new(fields)) }
    }

    /// The schema of all record batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Copied rows, which have position and time in common.
    ///
    /// # Errors
    /// `Value`, when a value cannot be held exactly.
    pub fn copied(&self, rows: &[RowRun], position: Position, at: Timestamp) -> EtlResult<RecordBatch> {
        let count = rows.iter().map(RowRun::len).sum();
        let mut columns = self.columns(count);
        for run in rows {
            for block in run.indexes().chunks(BLOCK_ROWS) {
                for (place, column) in columns.iter_mut().enumerate() {
                    column.fill(run.values(block, place)).map_err(|error| self.cannot(place, error))?;
                }
            }
        }
        let mut columns: Vec<ArrayRef> = columns.into_iter().map(ColumnBuilder::finish).collect();
        if self.target.metadata.is_some() {
            columns.push(Arc::new(StringArray::new_repeated(ChangeType::Upsert.as_str(), count)));
            columns.push(Arc::new(Int64Array::from(vec![signed(position.commit.0)?; count])));
            columns.push(Arc::new(Int64Array::from(vec![signed(position.ordinal)?; count])));
            columns.push(Arc::new(TimestampMicrosecondArray::from(vec![at.0; count]).with_timezone("UTC")));
        }
        self.batch(columns)
    }

    /// Rows with their stamps.
    ///
    /// # Errors
    /// `Value`, when a value cannot be held exactly, and when one was not sent.
    pub fn stamped(&self, rows: &[StampedRow]) -> EtlResult<RecordBatch> {
        self.of_stamped(rows, false)
    }

    /// Rows with their stamps, where null stands for what was not sent.
    ///
    /// # Errors
    /// `Value`, when a value cannot be held exactly.
    pub fn partial(&self, rows: &[StampedRow]) -> EtlResult<RecordBatch> {
        self.of_stamped(rows, true)
    }

    /// Only these columns of the rows, by their places in the source's schema.
    ///
    /// # Errors
    /// `Value`, when a value cannot be held exactly, and when one was not sent.
    pub fn some_columns<'a>(
        &self,
        places: impl Iterator<Item = usize>,
        rows: impl Iterator<Item = &'a TableRow> + Clone,
    ) -> EtlResult<Vec<ArrayRef>> {
        let column = |place| {
            let mut column = self.column(place, rows.size_hint().0);
            self.fill(&mut column, place, rows.clone(), false)?;
            Ok(column.finish())
        };
        places.map(column).collect()
    }

    fn of_stamped(&self, rows: &[StampedRow], partial: bool) -> EtlResult<RecordBatch> {
        let mut columns = self.columns(rows.len());
        for block in rows.chunks(BLOCK_ROWS) {
            for (place, column) in columns.iter_mut().enumerate() {
                self.fill(column, place, block.iter().map(|stamped| &stamped.row), partial)?;
            }
        }
        let mut columns: Vec<ArrayRef> = columns.into_iter().map(ColumnBuilder::finish).collect();
        if self.target.metadata.is_some() {
            columns.extend(stamps(rows)?);
        }
        self.batch(columns)
    }

    /// Empty columns with room for so many rows.
    fn columns(&self, capacity: usize) -> Vec<ColumnBuilder> {
        (0..self.target.source.columns.len()).map(|place| self.column(place, capacity)).collect()
    }

    fn column(&self, place: usize, capacity: usize) -> ColumnBuilder {
        ColumnBuilder::new(&self.target.source.columns[place].kind, self.limits, capacity)
    }

    fn fill<'a>(
        &self,
        column: &mut ColumnBuilder,
        place: usize,
        rows: impl Iterator<Item = &'a TableRow>,
        partial: bool,
    ) -> EtlResult<()> {
        let filled = if partial {
            column.fill(rows.map(|row| match row.raw(place) {
                RawValue::Unchanged => RawValue::Null,
                raw => raw,
            }))
        } else {
            column.fill(rows.map(|row| row.raw(place)))
        };
        filled.map_err(|error| self.cannot(place, error))
    }

    fn cannot(&self, place: usize, error: DecodeError) -> EtlError {
        TableSchema::value_error(&self.target.source, place, error)
    }

    fn batch(&self, columns: Vec<ArrayRef>) -> EtlResult<RecordBatch> {
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .or_etl(ErrorKind::Internal, "put columns together")
            .map_err(|error| error.with("table", &self.target.source.name))
    }
}

/// Cuts copied rows where a record batch is large enough; a single run may be larger.
pub fn copied_pieces(rows: &CopiedRows) -> impl Iterator<Item = &[RowRun]> {
    let mut rest = rows.runs();
    std::iter::from_fn(move || {
        let (mut bytes, mut count) = (0, 0);
        let is_enough = |next: &RowRun| {
            bytes += next.byte_size();
            count += next.len();
            bytes >= PIECE_BYTES || count >= PIECE_ROWS
        };
        let count = rest.iter().position(is_enough).map_or(rest.len(), |last| last + 1);
        let (piece, after) = rest.split_at(count);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Cuts rows where a record batch is large enough; a single row may be larger.
pub fn pieces<R>(rows: &[R], row: impl Fn(&R) -> &TableRow) -> impl Iterator<Item = &[R]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let is_enough = |next: &R| {
            bytes += row(next).extent();
            bytes >= PIECE_BYTES
        };
        let count = rest.iter().position(is_enough).map_or(rest.len(), |last| last + 1);
        let (piece, after) = rest.split_at(count.min(PIECE_ROWS));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The four metadata columns of the rows.
///
/// # Errors
/// `Value`, when a position does not fit a signed 64-bit column.
pub(crate) fn stamps(rows: &[StampedRow]) -> EtlResult<[ArrayRef; 4]> {
    let numbers = |number: fn(&Position) -> u64| {
        let numbers = rows.iter().map(|stamped| signed(number(&stamped.position)));
        Ok::<_, EtlError>(Int64Array::from(numbers.collect::<EtlResult<Vec<i64>>>()?))
    };
    let times: Vec<i64> = rows.iter().map(|stamped| stamped.at.0).collect();
    Ok([
        Arc::new(StringArray::from_iter_values(rows.iter().map(|stamped| stamped.change_type.as_str()))),
        Arc::new(numbers(|position| position.commit.0)?),
        Arc::new(numbers(|position| position.ordinal)?),
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
    ])
}

fn metadata_fields(names: &MetadataColumns) -> [Field; 4] {
    [
        Field::new(&*names.change_type, DataType::Utf8, false),
        Field::new(&*names.lsn, DataType::Int64, false),
        Field::new(&*names.ordinal, DataType::Int64, false),
        Field::new(&*names.timestamp, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ]
}

fn signed(number: u64) -> EtlResult<i64> {
    i64::try_from(number).map_err(|_| {
        EtlError::new(ErrorKind::Value, "a position does not fit a signed 64-bit column").with("position", number)
    })
}
