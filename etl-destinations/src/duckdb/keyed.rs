//! How do changes of a table with a key get into it? Everything is read first, then old rows go and new ones come.
//!
//! Deleting and inserting beats `MERGE`, `UPDATE` and `INSERT OR REPLACE` (`docs/performance.md`). There is no
//! primary key: its index would be held in memory, and make copies slower.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use duckdb::Connection;
use etl::data::{RawValue, TableRow};
use etl::error::{ErrorKind, EtlResult, ResultExt};

use super::ddl::{column_names, quoted, quoted_table, run};
use super::rows::{LIMITS, Stage};
use crate::columnar::{ArrowTable, arrow_field};
use crate::write_mode::WriteMode;
use crate::writer::{KeyedChanges, RowUpdate, StampedRow, TargetTable};

/// A table whose changes are being applied.
struct Target<'a> {
    connection: &'a Connection,
    table: &'a TargetTable,
    arrow: ArrowTable,
    name: String,
}

/// Applies the changes within the open transaction.
pub(super) fn apply(connection: &Connection, table: &Arc<TargetTable>, changes: &KeyedChanges) -> EtlResult<()> {
    let arrow = ArrowTable::new(table, LIMITS);
    let target = Target { connection, table, arrow, name: quoted_table(&table.name) };
    let columns: Vec<String> = column_names(table).into_iter().map(quoted).collect();
    let rows = Stage::like(connection, "_etl_rows", table, &columns)?;
    rows.append(connection, target.arrow.stamped(&changes.upserts)?)?;
    if !changes.updates.is_empty() {
        target.resolve(&rows, &columns, &changes.updates)?;
    }
    let marks = table.write_mode == WriteMode::SoftDelete;
    if !changes.deletes.is_empty() {
        target.remove(&changes.deletes, marks.then_some((&rows, &columns)))?;
    }
    if !changes.vacated.is_empty() {
        target.remove(&changes.vacated, None)?;
    }
    target.replace(&rows, &columns)?;
    rows.drop(connection)
}

impl Target<'_> {
    fn run(&self, sql: &str, doing: &'static str) -> EtlResult<()> {
        run(self.connection, sql, doing, &self.table.name)
    }

    /// That both have the same key.
    fn same_key(&self, one: &str, other: &str) -> String {
        let equal = |name: &str| format!("{one}.{0} = {other}.{0}", quoted(name));
        self.table.key_names().map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// That the table's row is older than the change.
    fn is_older(&self, change: &str) -> String {
        let Some(metadata) = &self.table.metadata else { return "true".to_owned() };
        let (lsn, ordinal) = (quoted(&metadata.lsn), quoted(&metadata.ordinal));
        format!("(t.{lsn} < {change}.{lsn} OR (t.{lsn} = {change}.{lsn} AND t.{ordinal} < {change}.{ordinal}))")
    }

    /// Completes rows from those in the table.
    fn resolve(&self, rows: &Stage, columns: &[String], updates: &[RowUpdate]) -> EtlResult<()> {
        let source = &self.table.source;
        let unknown = RowUpdate::unsent_places(updates, source.columns.len());
        let base = |place: usize| format!("_etl_base_{place}");
        let unchanged = |place: usize| format!("_etl_unchanged_{place}");
        let mut staged = columns.to_vec();
        let keys = || source.key.iter().map(|place| usize::from(*place));
        staged.extend(keys().map(|place| format!("{} AS {}", columns[place], base(place))));
        staged.extend(unknown.iter().map(|place| format!("NULL::BOOLEAN AS {}", unchanged(*place))));
        let stage = Stage::like(self.connection, "_etl_updates", self.table, &staged)?;
        stage.append(self.connection, self.update_batch(&unknown, updates)?)?;

        let value = |(place, name): (usize, &String)| {
            if unknown.contains(&place) {
                format!("CASE WHEN u.{} THEN t.{name} ELSE u.{name} END", unchanged(place))
            } else {
                format!("u.{name}")
            }
        };
        let values: Vec<String> = columns.iter().enumerate().map(value).collect();
        let found: Vec<String> = keys().map(|place| format!("t.{} = u.{}", columns[place], base(place))).collect();
        let sql = format!(
            "INSERT INTO {} SELECT {} FROM {} u JOIN {} t ON {} WHERE {}",
            rows.sql(),
            values.join(", "),
            stage.sql(),
            self.name,
            found.join(" AND "),
            self.is_older("u"),
        );
        self.run(&sql, "complete rows")?;
        stage.drop(self.connection)
    }

    /// The rows, the keys under which they are found, and which of their values were not sent.
    fn update_batch(&self, unknown: &[usize], updates: &[RowUpdate]) -> EtlResult<RecordBatch> {
        let source = &self.table.source;
        let rows: Vec<StampedRow> = updates.iter().map(|update| update.new.clone()).collect();
        let sent = self.arrow.partial(&rows)?;
        let mut fields: Vec<Field> = sent.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut arrays = sent.columns().to_vec();
        let keys = || source.key.iter().map(|place| usize::from(*place));
        arrays.extend(self.arrow.some_columns(keys(), updates.iter().map(|update| &update.base))?);
        fields.extend(keys().map(|place| arrow_field(&format!("_etl_base_{place}"), &source.columns[place], LIMITS)));
        for place in unknown {
            let flags: BooleanArray =
                updates.iter().map(|update| Some(update.new.row.raw(*place) == RawValue::Unchanged)).collect();
            arrays.push(Arc::new(flags) as ArrayRef);
            fields.push(Field::new(format!("_etl_unchanged_{place}"), DataType::Boolean, false));
        }
        batch(fields, arrays)
    }

    /// Removes rows; marked ones come back with the rows to insert.
    fn remove(&self, gone: &[StampedRow], marked: Option<(&Stage, &[String])>) -> EtlResult<()> {
        let source = &self.table.source;
        let keys = || source.key.iter().map(|place| usize::from(*place));
        let mut columns: Vec<String> = self.table.key_names().map(quoted).collect();
        let mut fields: Vec<Field> =
            keys().map(|place| arrow_field(&self.table.columns[place], &source.columns[place], LIMITS)).collect();
        let rows: Vec<&TableRow> = gone.iter().map(|gone| &gone.row).collect();
        let mut arrays = self.arrow.some_columns(keys(), rows.into_iter())?;
        if let Some(metadata) = &self.table.metadata {
            columns.extend(metadata.names().map(quoted));
            let schema = self.arrow.schema();
            fields.extend(schema.fields()[source.columns.len()..].iter().map(|field| field.as_ref().clone()));
            arrays.extend(crate::columnar::stamps(gone)?);
        }
        let stage = Stage::like(self.connection, "_etl_gone", self.table, &columns)?;
        stage.append(self.connection, batch(fields, arrays)?)?;
        let (same, older) = (self.same_key("t", "g"), self.is_older("g"));
        if let Some((rows, all)) = marked {
            let count = source.columns.len();
            let values = all.iter().enumerate().map(|(place, name)| {
                let from = if place < count { "t" } else { "g" };
                format!("{from}.{name}")
            });
            let values: Vec<String> = values.collect();
            let sql = format!(
                "INSERT INTO {} SELECT {} FROM {} g JOIN {} t ON {same} WHERE {older}",
                rows.sql(),
                values.join(", "),
                stage.sql(),
                self.name,
            );
            self.run(&sql, "mark rows")?;
        } else {
            let sql = format!("DELETE FROM {} t USING {} g WHERE {same} AND {older}", self.name, stage.sql());
            self.run(&sql, "delete rows")?;
        }
        stage.drop(self.connection)
    }

    /// Puts the staged rows in the place of older ones; what is older than the table's stays out.
    fn replace(&self, rows: &Stage, columns: &[String]) -> EtlResult<()> {
        let (stage, same) = (rows.sql(), self.same_key("t", "r"));
        if self.table.metadata.is_some() {
            let sql =
                format!("DELETE FROM {stage} r USING {} t WHERE {same} AND NOT {}", self.name, self.is_older("r"));
            self.run(&sql, "leave out older rows")?;
        }
        self.run(&format!("DELETE FROM {} t USING {stage} r WHERE {same}", self.name), "replace rows")?;
        let list = columns.join(", ");
        self.run(&format!("INSERT INTO {} ({list}) SELECT {list} FROM {stage}", self.name), "insert rows")
    }
}

pub(super) fn batch(fields: Vec<Field>, arrays: Vec<ArrayRef>) -> EtlResult<RecordBatch> {
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).or_etl(ErrorKind::Internal, "put columns together")
}
