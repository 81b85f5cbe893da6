//! Which rows did a copy read? The blocks that they came in, and where each row begins there.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::{RawValue, RowBuffer, TableRow};
use crate::schema::TableSchema;

/// A run that is made of single rows is about as large at most; one of a block is as large as the block.
const RUN_BYTES: usize = 1 << 20;
const RUN_ROWS: usize = 16 << 10;

/// Rows of one table, in the order in which they were read.
///
/// As a slice they are [`TableRow`]s, which are made when they are first asked for. Whoever makes columns of them takes
/// the [runs](Self::runs), for which no row has to be made.
#[derive(Debug, Clone, Default)]
pub struct CopiedRows {
    runs: Vec<RowRun>,
    rows: OnceLock<Vec<TableRow>>,
}

/// Rows that follow each other, all in one buffer.
#[derive(Debug, Clone)]
pub struct RowRun {
    buffer: Arc<RowBuffer>,
    rows: Vec<u32>,
    bytes: usize,
}

impl RowRun {
    /// The rows that [`RowSpans::begin_row`](super::RowSpans::begin_row) gave these indexes.
    pub fn new(buffer: Arc<RowBuffer>, rows: Vec<u32>) -> Self {
        let bytes = buffer.byte_size();
        Self { buffer, rows, bytes }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// About how many bytes of memory they take.
    pub fn byte_size(&self) -> usize {
        self.bytes
    }

    /// The rows by their indexes; a part of these is what [`RowRun::values`] takes.
    pub fn indexes(&self) -> &[u32] {
        &self.rows
    }

    /// The values of a column in some of the rows. Panics where the schema has no such column.
    pub fn values<'r>(&'r self, rows: &'r [u32], column: usize) -> impl Iterator<Item = RawValue<'r>> {
        rows.iter().map(move |row| self.buffer.raw(*row, column))
    }

    fn rows(&self) -> impl Iterator<Item = TableRow> {
        self.rows.iter().map(|row| TableRow::new(Arc::clone(&self.buffer), *row))
    }
}

impl CopiedRows {
    /// The rows, run by run.
    pub fn runs(&self) -> &[RowRun] {
        &self.runs
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.runs.iter().map(RowRun::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(RowRun::is_empty)
    }

    /// The shape of the first row; none where there is no row.
    pub fn schema(&self) -> Option<&Arc<TableSchema>> {
        let run = self.runs.iter().find(|run| !run.is_empty())?;
        run.rows.first().map(|row| run.buffer.schema(*row))
    }

    /// Adds rows that were read after these.
    pub fn append(&mut self, more: Self) {
        self.rows.take();
        self.runs.extend(more.runs.into_iter().filter(|run| !run.is_empty()));
    }

    /// The rows by themselves.
    pub fn into_rows(mut self) -> Vec<TableRow> {
        match self.rows.take() {
            Some(rows) => rows,
            None => self.runs.iter().flat_map(RowRun::rows).collect(),
        }
    }
}

impl Deref for CopiedRows {
    type Target = [TableRow];

    fn deref(&self) -> &[TableRow] {
        self.rows.get_or_init(|| self.runs.iter().flat_map(RowRun::rows).collect())
    }
}

impl From<RowRun> for CopiedRows {
    fn from(run: RowRun) -> Self {
        Self { runs: vec![run], rows: OnceLock::new() }
    }
}

impl From<Vec<TableRow>> for CopiedRows {
    fn from(rows: Vec<TableRow>) -> Self {
        let mut runs: Vec<RowRun> = Vec::new();
        for row in &rows {
            let bytes = row.extent();
            match runs.last_mut() {
                Some(run)
                    if Arc::ptr_eq(&run.buffer, row.buffer()) && run.bytes < RUN_BYTES && run.len() < RUN_ROWS =>
                {
                    run.rows.push(row.index());
                    run.bytes += bytes;
                }
                _ => runs.push(RowRun { buffer: Arc::clone(row.buffer()), rows: vec![row.index()], bytes }),
            }
        }
        Self { runs, rows: OnceLock::from(rows) }
    }
}

impl FromIterator<TableRow> for CopiedRows {
    fn from_iter<I: IntoIterator<Item = TableRow>>(rows: I) -> Self {
        rows.into_iter().collect::<Vec<_>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::mutation::table;
    use crate::data::{Cell, RowBuilder};
    use crate::schema::Kind;

    fn rows(of: std::ops::Range<i32>) -> Vec<TableRow> {
        let (schema, mut builder) = (table(1, &[Kind::Int4]), RowBuilder::new());
        for number in of {
            builder.push(&schema, &[Cell::I64(number.into())]).unwrap();
        }
        builder.finish()
    }

    fn numbers<'r>(values: impl Iterator<Item = RawValue<'r>>) -> Vec<i32> {
        values.map(|value| crate::data::decode::int4(value).unwrap()).collect()
    }

    #[test]
    fn rows_of_several_buffers_are_runs_and_a_slice_in_the_same_order() {
        let mut copied = CopiedRows::from([rows(0..3), rows(3..5)].concat());
        copied.append(rows(5..40_000).into());
        assert_eq!(copied.len(), 40_000);
        let of_run = |run: &RowRun| numbers(run.values(run.indexes(), 0));
        let all: Vec<i32> = copied.runs().iter().flat_map(of_run).collect();
        assert_eq!(all, (0..40_000).collect::<Vec<_>>());
        let sizes: Vec<usize> = copied.runs().iter().map(RowRun::len).collect();
        assert_eq!(sizes, [3, 2, 16 << 10, 16 << 10, 39_995 - (32 << 10)]);
        assert_eq!(numbers(copied.iter().map(|row| row.raw(0))), all);
        assert_eq!(copied.schema().unwrap(), copied[0].schema());
        assert_eq!(numbers(copied.into_rows().iter().map(|row| row.raw(0))), all);
        assert!(CopiedRows::default().is_empty() && CopiedRows::default().schema().is_none());
    }

    #[test]
    fn what_was_asked_for_before_more_came_holds_all_of_it() {
        let mut copied = CopiedRows::from(RowRun::new(Arc::clone(rows(7..8)[0].buffer()), vec![0]));
        assert_eq!(numbers(copied.iter().map(|row| row.raw(0))), [7]);
        copied.append(rows(8..9).into());
        assert_eq!(numbers(copied.iter().map(|row| row.raw(0))), [7, 8]);
    }
}
