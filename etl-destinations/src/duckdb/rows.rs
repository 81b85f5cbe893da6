//! How do rows get into a table? Through DuckDB's appender, from Arrow.

use arrow::record_batch::RecordBatch;
use duckdb::Connection;
use etl::error::EtlResult;
use etl::schema::TableName;

use super::ddl::{quoted, quoted_table, run};
use super::error::DuckDbResult;
use crate::columnar::{ArrowLimits, Infinities};
use crate::writer::TargetTable;

/// DuckDB's infinities are its largest numbers and their opposites.
pub(super) const LIMITS: ArrowLimits = ArrowLimits {
    infinities: Some(Infinities { dates: (-i32::MAX, i32::MAX), timestamps: (-i64::MAX, i64::MAX) }),
    half_floats: false,
    // The driver loses nulls among them; DuckDB reads the text.
    intervals: false,
    ..ArrowLimits::ARROW
};

/// Appends to a table by the names of the batch's columns.
pub(super) fn append(connection: &Connection, table: &TableName, batch: RecordBatch) -> EtlResult<()> {
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let appended = connection.appender_with_columns_to_db(&table.name, &table.schema, &names);
    appended
        .and_then(|mut appender| {
            appender.append_record_batch(batch)?;
            appender.flush()
        })
        .or_duckdb("append rows")
        .map_err(|error| error.with("table", table))
}

/// A table of the connection's own, which holds rows on their way.
pub(super) struct Stage {
    name: &'static str,
}

impl Stage {
    /// An empty one with these columns of the table, and more.
    pub(super) fn like(
        connection: &Connection,
        name: &'static str,
        table: &TargetTable,
        columns: &[String],
    ) -> EtlResult<Self> {
        let from = quoted_table(&table.name);
        let sql = format!(
            "CREATE OR REPLACE TEMP TABLE {} AS SELECT {} FROM {from} LIMIT 0",
            quoted(name),
            columns.join(", ")
        );
        run(connection, &sql, "prepare rows", &table.name)?;
        Ok(Self { name })
    }

    /// Appends the batch, whose columns are in the stage's order.
    pub(super) fn append(&self, connection: &Connection, batch: RecordBatch) -> EtlResult<()> {
        let appended = connection.appender_to_catalog_and_db(self.name, "temp", "main");
        appended
            .and_then(|mut appender| {
                appender.append_record_batch(batch)?;
                appender.flush()
            })
            .or_duckdb("append rows")
    }

    /// Its name as SQL takes it.
    pub(super) fn sql(&self) -> String {
        format!("temp.main.{}", quoted(self.name))
    }

    /// Removes it.
    pub(super) fn drop(self, connection: &Connection) -> EtlResult<()> {
        connection.execute_batch(&format!("DROP TABLE {}", self.sql())).or_duckdb("clean up")
    }
}
