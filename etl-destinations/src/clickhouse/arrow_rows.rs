//! How do rows get into ClickHouse's ArrowStream? As record batches without a word of metadata, one after the other.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt8Array, new_null_array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use etl::error::{ErrorKind, EtlResult, ResultExt};

use super::sql::{DELETED, DIGITS};
use crate::columnar::{ArrowLimits, ArrowTable, Calendar, stamps};
use crate::writer::{StampedRow, TargetTable};

/// From 1900-01-01 to 2299-12-31, in days: what `Date32` and `DateTime64` have.
const DAYS: (i32, i32) = (-25_567, 120_529);
const DAY: i64 = 86_400_000_000;

/// What ClickHouse's columns hold.
pub(super) const LIMITS: ArrowLimits = ArrowLimits {
    infinities: None,
    intervals: false,
    decimal_digits: DIGITS,
    parts: false,
    uuids: false,
    calendar: Calendar { dates: DAYS, timestamps: (DAYS.0 as i64 * DAY, (DAYS.1 as i64 + 1) * DAY - 1) },
    ..ArrowLimits::ARROW
};

/// The batches as one stream; all have the same columns.
pub(super) fn stream(batches: &[RecordBatch]) -> EtlResult<Vec<u8>> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    // What is said twice must be the same bytes: the order of metadata is not.
    let fields = first
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_metadata(Default::default()))
        .collect::<Vec<_>>();
    let schema = Arc::new(Schema::new(fields));
    let size = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let mut writer = StreamWriter::try_new(Vec::with_capacity(size), &schema)
        .or_etl(ErrorKind::Internal, "begin a stream of rows")?;
    for batch in batches {
        let batch = RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec());
        let batch = batch.or_etl(ErrorKind::Internal, "put columns together")?;
        writer.write(&batch).or_etl(ErrorKind::Internal, "write a stream of rows")?;
    }
    writer.into_inner().or_etl(ErrorKind::Internal, "end a stream of rows")
}

/// The batch, with a last column that says of all its rows whether they are gone.
pub(super) fn flagged(batch: &RecordBatch, is_gone: bool) -> EtlResult<RecordBatch> {
    let flag = UInt8Array::from(vec![u8::from(is_gone); batch.num_rows()]);
    with_columns(batch, vec![(Field::new(DELETED, DataType::UInt8, false), Arc::new(flag))])
}

/// The batch with more columns after its own.
pub(super) fn with_columns(batch: &RecordBatch, more: Vec<(Field, ArrayRef)>) -> EtlResult<RecordBatch> {
    let schema = batch.schema();
    let own = schema.fields().iter().map(|field| field.as_ref().clone()).zip(batch.columns().iter().cloned());
    self::batch(own.chain(more).collect())
}

/// A batch of these columns.
pub(super) fn batch(columns: Vec<(Field, ArrayRef)>) -> EtlResult<RecordBatch> {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).or_etl(ErrorKind::Internal, "put columns together")
}

/// Rows of which only the key and the stamps are there; everything else is null.
pub(super) fn keys(arrow: &ArrowTable, table: &TargetTable, rows: &[StampedRow]) -> EtlResult<RecordBatch> {
    let source = &table.source;
    let mut columns = Vec::with_capacity(arrow.schema().fields().len());
    for (place, field) in arrow.schema().fields().iter().enumerate().take(source.columns.len()) {
        let is_key = source.key.iter().any(|key| usize::from(*key) == place);
        if is_key {
            columns.extend(arrow.some_columns(std::iter::once(place), rows.iter().map(|row| &row.row))?);
        } else {
            columns.push(new_null_array(field.data_type(), rows.len()));
        }
    }
    if table.metadata.is_some() {
        columns.extend(stamps(rows)?);
    }
    RecordBatch::try_new(Arc::clone(arrow.schema()), columns).or_etl(ErrorKind::Internal, "put columns together")
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;
    use arrow::ipc::reader::StreamReader;

    use super::*;

    #[test]
    fn a_stream_has_all_rows_and_is_the_same_each_time() {
        let metadata = [("a", "1"), ("b", "2"), ("c", "3")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let field = Field::new("n", DataType::Int32, true).with_metadata(metadata.into());
        let schema = Arc::new(Schema::new(vec![field]));
        let batch = |numbers: Vec<i32>| {
            let column: ArrayRef = Arc::new(Int32Array::from(numbers));
            RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap()
        };
        let batches = [flagged(&batch(vec![1, 2]), false).unwrap(), flagged(&batch(vec![3]), true).unwrap()];
        let bytes = stream(&batches).unwrap();
        assert_eq!(bytes, stream(&batches).unwrap());
        let read: Vec<RecordBatch> = StreamReader::try_new(&bytes[..], None).unwrap().map(Result::unwrap).collect();
        assert_eq!(read.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(read[0].schema().field(1).name(), DELETED);
        assert!(stream(&[]).unwrap().is_empty());
    }
}
