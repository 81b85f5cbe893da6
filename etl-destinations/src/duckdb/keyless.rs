//! How do changes of a table without a key get into it? Each old row takes exactly one equal row with it.

use std::sync::Arc;

use duckdb::Connection;
use etl::error::EtlResult;

use super::ddl::{column_names, quoted, quoted_table, run};
use super::rows::{LIMITS, Stage, append};
use crate::columnar::ArrowTable;
use crate::metadata_columns::{ChangeType, MetadataColumns};
use crate::writer::{KeylessChanges, StampedRow, TargetTable};

/// Applies the changes within the open transaction.
pub(super) fn apply(connection: &Connection, table: &Arc<TargetTable>, changes: &KeylessChanges) -> EtlResult<()> {
    if !changes.removals.is_empty() {
        hit(connection, table, &changes.removals, None)?;
    }
    if !changes.marks.is_empty() {
        hit(connection, table, &changes.marks, table.metadata.as_deref())?;
    }
    if changes.inserts.is_empty() {
        return Ok(());
    }
    append(connection, &table.name, ArrowTable::new(table, LIMITS).stamped(&changes.inserts)?)
}

/// Removes one row for each old row, or marks it.
fn hit(
    connection: &Connection,
    table: &Arc<TargetTable>,
    old: &[StampedRow],
    marks: Option<&MetadataColumns>,
) -> EtlResult<()> {
    let columns: Vec<String> = column_names(table).into_iter().map(quoted).collect();
    let stage = Stage::like(connection, "_etl_old", table, &columns)?;
    stage.append(connection, ArrowTable::new(table, LIMITS).stamped(old)?)?;
    let values: Vec<&String> = table.compared_columns().map(|place| &columns[place]).collect();
    let equal: Vec<String> = values.iter().map(|name| format!("t.{name} IS NOT DISTINCT FROM o.{name}")).collect();
    let list = values.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    let not_marked = table.metadata.as_ref().map_or_else(String::new, |metadata| {
        format!(" WHERE t.{} <> '{}'", quoted(&metadata.change_type), ChangeType::Delete)
    });
    let stamps = table.metadata.iter().flat_map(|metadata| metadata.names());
    let stamps: String = stamps.map(|name| format!(", o.{0} AS {0}", quoted(name))).collect();
    // The n-th of equal old rows takes the n-th of the rows that equal it.
    let hits = format!(
        "CREATE OR REPLACE TEMP TABLE _etl_hits AS \
         WITH o AS (SELECT *, row_number() OVER (PARTITION BY {list}) AS _etl_nth FROM {stage}), \
         t AS (SELECT t.rowid AS _etl_row, row_number() OVER (PARTITION BY {list}) AS _etl_nth, {list} \
               FROM {target} t{not_marked}) \
         SELECT t._etl_row{stamps} FROM t JOIN o ON t._etl_nth = o._etl_nth AND {equal}",
        stage = stage.sql(),
        target = quoted_table(&table.name),
        equal = equal.join(" AND "),
    );
    run(connection, &hits, "find rows", &table.name)?;
    let target = quoted_table(&table.name);
    let sql = match marks {
        None => format!("DELETE FROM {target} WHERE rowid IN (SELECT _etl_row FROM temp.main._etl_hits)"),
        Some(metadata) => {
            let stamps = metadata.names().map(|name| format!("{0} = h.{0}", quoted(name)));
            format!("UPDATE {target} t SET {} FROM temp.main._etl_hits h WHERE t.rowid = h._etl_row", stamps.join(", "))
        }
    };
    run(connection, &sql, "delete rows", &table.name)?;
    run(connection, "DROP TABLE temp.main._etl_hits", "clean up", &table.name)?;
    stage.drop(connection)
}
