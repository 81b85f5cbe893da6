//! How do changes of a table with a key get into it? As newer versions of rows; what is not sent is read where it is.
//!
//! All that reads comes before what could hide it: rows that lack values, then marks, then one block of whole rows and
//! keys that are gone. Nothing older than a row replaces it, whenever it comes: the version decides.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::Field;
use arrow::record_batch::RecordBatch;
use etl::data::RawValue;
use etl::error::EtlResult;

use super::arrow_rows::{LIMITS, batch, flagged, keys, stream};
use super::ddl::IN_BLOCKS;
use super::server::{Server, Stage};
use super::sql::{DELETED, METADATA, VERSION, columns_of, quoted, quoted_table, staged_type, version_of};
use super::unit::{Span, token};
use crate::columnar::{ArrowTable, pieces, stamps};
use crate::write_mode::WriteMode;
use crate::writer::{KeyedChanges, RowUpdate, StampedRow, TargetTable};

/// The name of the rows that go with a statement.
const STAGE: &str = "etl_stage";

/// A table whose changes are being applied.
struct Target<'a> {
    server: &'a Server,
    table: &'a TargetTable,
    arrow: ArrowTable,
    name: String,
    columns: Vec<String>,
    run_by: &'a str,
}

/// Applies the changes.
pub(super) async fn apply(
    server: &Server,
    table: &Arc<TargetTable>,
    changes: &KeyedChanges,
    run_by: &str,
) -> EtlResult<()> {
    let arrow = ArrowTable::new(table, LIMITS);
    let (name, columns) = (quoted_table(&table.name), columns_of(table));
    let target = Target { server, table, arrow, name, columns, run_by };
    // Whatever cannot be written is an error before anything is.
    let whole = target.whole(changes)?;
    for updates in changes.updates.chunks(PIECE) {
        target.complete(updates).await?;
    }
    if table.write_mode == WriteMode::SoftDelete {
        for deletes in changes.deletes.chunks(PIECE) {
            target.mark(deletes).await?;
        }
    }
    if let Some((batches, span)) = whole {
        let list = [&target.columns[..], &[quoted(DELETED)]].concat().join(", ");
        let rows = stream(&batches)?;
        let sql = format!("INSERT INTO {} ({list})", target.name);
        server.insert(&sql, Some(token("rows", span, &rows)), rows, run_by).await?;
    }
    Ok(())
}

/// So many rows are completed by one statement.
const PIECE: usize = 16 << 10;

impl Target<'_> {
    /// The block of whole rows and keys that are gone.
    fn whole(&self, changes: &KeyedChanges) -> EtlResult<Option<(Vec<RecordBatch>, Span)>> {
        let mut batches = Vec::new();
        let mut span = Span::default();
        for piece in pieces(&changes.upserts, |row: &StampedRow| &row.row) {
            batches.push(flagged(&self.arrow.stamped(piece)?, false)?);
            piece.iter().for_each(|row| span.add(row.position));
        }
        let deletes: &[StampedRow] =
            if self.table.write_mode == WriteMode::SoftDelete { &[] } else { &changes.deletes };
        for gone in [deletes, &changes.vacated] {
            if !gone.is_empty() {
                batches.push(flagged(&keys(&self.arrow, self.table, gone)?, true)?);
                gone.iter().for_each(|row| span.add(row.position));
            }
        }
        Ok((!batches.is_empty()).then_some((batches, span)))
    }

    /// That both have the same key.
    fn same_key(&self) -> String {
        let equal = |place: usize| format!("t.{} = s.{}", self.columns[place], key_of(place));
        self.key().map(equal).collect::<Vec<_>>().join(" AND ")
    }

    fn key(&self) -> impl Iterator<Item = usize> {
        self.table.source.key.iter().map(|place| usize::from(*place))
    }

    /// The rows of the table whose keys are in the stage, as they are now.
    fn rows_of_keys(&self) -> String {
        let key: Vec<&str> = self.key().map(|place| self.columns[place].as_str()).collect();
        let staged: Vec<String> = self.key().map(key_of).collect();
        format!(
            "(SELECT {}, {} FROM {} FINAL WHERE ({}) IN (SELECT {} FROM {STAGE}))",
            self.columns.join(", "),
            quoted(VERSION),
            self.name,
            key.join(", "),
            staged.join(", ")
        )
    }

    /// Writes the rows of the table whose keys are in the stage once more, with these values: of `t`, which is the table,
    /// and of `s`, which is the stage. Newer rows stay.
    async fn write_again(&self, values: &[String], staged: Staged, doing: &'static str) -> EtlResult<()> {
        let count = self.table.source.columns.len();
        let [lsn, ordinal] = [1, 2].map(|place| format!("s.{}", own(count + place)));
        let sql = format!(
            "INSERT INTO {} ({}, {}) SELECT {}, 0 FROM {STAGE} AS s INNER JOIN {} AS t ON {} WHERE t.{} < {} {IN_BLOCKS}",
            self.name,
            self.columns.join(", "),
            quoted(DELETED),
            values.join(", "),
            self.rows_of_keys(),
            self.same_key(),
            quoted(VERSION),
            version_of(&lsn, &ordinal)
        );
        let rows = stream(&[batch(staged.columns)?])?;
        let stage = Stage { name: STAGE, columns: staged.types.join(", "), rows };
        self.server.run_with(&sql, stage, self.run_by, doing).await
    }

    /// Completes rows from those in the table.
    async fn complete(&self, updates: &[RowUpdate]) -> EtlResult<()> {
        let source = &self.table.source;
        let unknown = RowUpdate::unsent_places(updates, source.columns.len());
        let unchanged = |place: usize| format!("u{place}");
        let rows: Vec<StampedRow> = updates.iter().map(|update| update.new.clone()).collect();
        let mut staged = Staged::default();
        let types = source.columns.iter().map(|column| staged_type(&column.kind, false)).chain(staged_metadata());
        for ((place, array), of) in self.arrow.partial(&rows)?.columns().iter().enumerate().zip(types) {
            staged.push(own(place), &of, Arc::clone(array));
        }
        let bases = self.arrow.some_columns(self.key(), updates.iter().map(|update| &update.base))?;
        for (place, array) in self.key().zip(bases) {
            staged.push(key_of(place), &staged_type(&source.columns[place].kind, true), array);
        }
        for place in &unknown {
            let flags: BooleanArray =
                updates.iter().map(|update| Some(update.new.row.raw(*place) == RawValue::Unchanged)).collect();
            staged.push(unchanged(*place), "Bool", Arc::new(flags));
        }
        let value = |(place, name): (usize, &String)| match unknown.contains(&place) {
            true => format!("if(s.{}, t.{name}, s.{})", unchanged(place), own(place)),
            false => format!("s.{}", own(place)),
        };
        let values: Vec<String> = self.columns.iter().enumerate().map(value).collect();
        self.write_again(&values, staged, "complete rows").await
    }

    /// Marks rows, which keep their values.
    async fn mark(&self, deletes: &[StampedRow]) -> EtlResult<()> {
        let source = &self.table.source;
        let mut staged = Staged::default();
        let arrays = self.arrow.some_columns(self.key(), deletes.iter().map(|gone| &gone.row))?;
        for (place, array) in self.key().zip(arrays) {
            staged.push(key_of(place), &staged_type(&source.columns[place].kind, true), array);
        }
        let count = source.columns.len();
        for ((place, array), of) in (count..).zip(stamps(deletes)?).zip(staged_metadata()) {
            staged.push(own(place), &of, array);
        }
        let value = |(place, name): (usize, &String)| match place < count {
            true => format!("t.{name}"),
            false => format!("s.{}", own(place)),
        };
        let values: Vec<String> = self.columns.iter().enumerate().map(value).collect();
        self.write_again(&values, staged, "mark rows").await
    }
}

/// The columns of a stage. Their names are short, since a statement and its form have limits.
#[derive(Default)]
struct Staged {
    columns: Vec<(Field, ArrayRef)>,
    types: Vec<String>,
}

impl Staged {
    fn push(&mut self, name: String, of: &str, array: ArrayRef) {
        self.types.push(format!("{name} {of}"));
        self.columns.push((Field::new(name, array.data_type().clone(), true), array));
    }
}

/// What the stage calls a column of the table.
fn own(place: usize) -> String {
    format!("c{place}")
}

/// What the stage calls a column of the key by which a row is found.
fn key_of(place: usize) -> String {
    format!("k{place}")
}

/// The types of the metadata columns in a stage.
fn staged_metadata() -> [String; 4] {
    METADATA.map(|of| of.replace("LowCardinality(String)", "String"))
}
