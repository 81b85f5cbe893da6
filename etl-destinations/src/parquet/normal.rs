//! What do rows of an older shape look like in the newest one? Columns by their numbers, whatever they were called.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::compute::CastOptions;
use arrow::compute::{cast_with_options, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use etl::data::{RawValue, RowBuilder};
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::schema::Column;

use super::encoding::unchanged_name;
use super::state::Shape;
use crate::columnar::{ArrowLimits, ArrowTable};
use crate::metadata_columns::ChangeType;
use crate::write_mode::WriteMode;
use crate::writer::TargetTable;

/// The columns that follow the table's own: what happened, where, when, and the places of what was not sent.
pub(super) const CHANGE: usize = 0;
pub(super) const LSN: usize = 1;
pub(super) const ORDINAL: usize = 2;
pub(super) const UNCHANGED: usize = 4;

/// The newest shape of a table, which rows of all shapes are brought into.
#[derive(Debug)]
pub(super) struct Normal {
    pub(super) target: Arc<TargetTable>,
    /// The table's columns, its metadata columns, and the places of what was not sent.
    pub(super) schema: SchemaRef,
    /// The values of columns for the rows of before they were added, one row each.
    fills: Vec<Option<ArrayRef>>,
}

impl Normal {
    pub(super) fn new(shape: &Shape, write_mode: WriteMode, limits: ArrowLimits) -> EtlResult<Self> {
        let target = shape.target(write_mode);
        let arrow = ArrowTable::new(&target, limits);
        let fills =
            target.source.columns.iter().enumerate().map(|(place, column)| fill(&arrow, &target, place, column));
        let fills = fills.collect::<EtlResult<_>>()?;
        let mut fields = arrow.schema().fields().to_vec();
        fields.push(Arc::new(Field::new("unchanged", DataType::Binary, true)));
        Ok(Self { schema: Arc::new(Schema::new(fields)), target, fills })
    }

    /// How many columns the table has of its own.
    pub(super) fn width(&self) -> usize {
        self.target.source.columns.len()
    }

    /// Brings rows of a file into the newest shape; those of a state say so.
    ///
    /// # Errors
    /// `SchemaChanged`, when a value has no place in it.
    pub(super) fn of(&self, shape: &Shape, batch: &RecordBatch, is_state: bool) -> EtlResult<RecordBatch> {
        let rows = batch.num_rows();
        let from: Vec<Option<usize>> = self.target.source.columns.iter().map(|to| place_in(shape, to)).collect();
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (place, field) in self.schema.fields().iter().take(self.width()).enumerate() {
            let column = match (from[place], &self.fills[place]) {
                (Some(from), _) => self.retyped(column(batch, &shape.columns[from])?, field)?,
                (None, Some(fill)) => {
                    take(fill, &UInt32Array::from(vec![0; rows]), None).or_etl(ErrorKind::Internal, "fill a column")?
                }
                (None, None) => new_null_array(field.data_type(), rows),
            };
            columns.push(column);
        }
        let metadata = shape.metadata.as_ref().ok_or_else(|| no_metadata(&self.target))?;
        for name in metadata.names() {
            columns.push(Arc::clone(column(batch, name)?));
        }
        if is_state && let Some(kinds) = columns.get_mut(self.width() + CHANGE) {
            *kinds = of_state(kinds);
        }
        columns.push(Arc::new(self.unchanged(shape, batch, &from)?.finish()));
        RecordBatch::try_new(Arc::clone(&self.schema), columns).or_etl(ErrorKind::Internal, "put columns together")
    }

    fn retyped(&self, column: &ArrayRef, field: &Field) -> EtlResult<ArrayRef> {
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        let exact = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(column, field.data_type(), &exact).map_err(|error| {
            EtlError::new(ErrorKind::SchemaChanged, "older values have no place in a column's new type")
                .with("table", &self.target.name)
                .with("column", field.name())
                .because(error)
                .hint("`etl tables resync` copies the table with the new type")
        })
    }

    /// The places of what was not sent, in the newest shape.
    fn unchanged(&self, shape: &Shape, batch: &RecordBatch, from: &[Option<usize>]) -> EtlResult<BinaryBuilder> {
        let mut places = BinaryBuilder::new();
        let names = batch.column_by_name(&unchanged_name(&shape.target(WriteMode::Append)));
        let names = names.and_then(|names| names.as_list_opt::<i32>());
        for row in 0..batch.num_rows() {
            let Some(names) = names.filter(|names| names.is_valid(row)) else {
                places.append_null();
                continue;
            };
            let names = names.value(row);
            let not_sent: Vec<&str> = names.as_string_opt::<i32>().into_iter().flatten().flatten().collect();
            let is_not_sent = |from: &usize| not_sent.contains(&&*shape.columns[*from]);
            let found = from.iter().enumerate().filter(|(_, from)| from.as_ref().is_some_and(is_not_sent));
            places.append_value(found.flat_map(|(place, _)| (place as u16).to_le_bytes()).collect::<Vec<u8>>());
        }
        Ok(places)
    }
}

/// What stands in place of `UPSERT` and `DELETE` in rows of a state: they are not something that is to be done.
pub(super) const KEPT: &str = "KEPT";
pub(super) const MARKED: &str = "MARKED";

fn of_state(kinds: &ArrayRef) -> ArrayRef {
    let Some(kinds) = kinds.as_string_opt::<i32>() else { return Arc::clone(kinds) };
    let kind = |kind: Option<&str>| if kind == Some(ChangeType::Delete.as_str()) { MARKED } else { KEPT };
    Arc::new(StringArray::from_iter_values(kinds.iter().map(kind)))
}

/// The places that are written in the column.
pub(super) fn places(written: &[u8]) -> impl Iterator<Item = usize> {
    written.chunks_exact(2).map(|bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
}

fn no_metadata(table: &TargetTable) -> EtlError {
    EtlError::new(ErrorKind::Config, "a current state needs the metadata columns of its log")
        .with("table", &table.name)
        .hint("Leave `metadata` on, and let `etl tables resync` copy the table again; or write it as `append`")
}

fn column<'b>(batch: &'b RecordBatch, name: &str) -> EtlResult<&'b ArrayRef> {
    batch
        .column_by_name(name)
        .ok_or_else(|| EtlError::new(ErrorKind::DestinationRejected, "a file lacks a column").with("column", name))
}

fn place_in(shape: &Shape, column: &Column) -> Option<usize> {
    shape.source.columns.iter().position(|own| own.attnum == column.attnum)
}

/// What rows of before a column was added have in it.
fn fill(arrow: &ArrowTable, target: &Arc<TargetTable>, place: usize, column: &Column) -> EtlResult<Option<ArrayRef>> {
    let Some(fill) = &column.fill else { return Ok(None) };
    let mut builder = RowBuilder::new();
    let value = |at| if at == place { RawValue::Text(fill.as_bytes()) } else { RawValue::Null };
    builder.push_raw(&target.source, (0..target.source.columns.len()).map(value))?;
    let row = builder.finish();
    Ok(arrow.some_columns(std::iter::once(place), row.iter())?.pop())
}
