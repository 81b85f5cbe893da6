//! How do changes of a table without a key get into it? Each old row takes exactly one equal row with it.

use etl::error::EtlResult;
use etl::postgres::quote_ident;

use super::copy_in;
use super::ddl::{columns_of, quoted_table};
use super::link::Link;
use crate::metadata_columns::{ChangeType, MetadataColumns};
use crate::writer::{KeylessChanges, StampedRow, TargetTable};

/// Applies the changes within the open transaction.
pub(super) async fn apply(link: &mut Link, table: &TargetTable, changes: &KeylessChanges) -> EtlResult<()> {
    if !changes.removals.is_empty() {
        hit(link, table, &changes.removals, None).await?;
    }
    if !changes.marks.is_empty() {
        hit(link, table, &changes.marks, table.metadata.as_deref()).await?;
    }
    copy_in::stamped(link, (&quoted_table(&table.name), table), &changes.inserts).await
}

/// Removes one row for each old row, or marks it. Rows are compared by the text of all their values: not every type has
/// an equality, and some have one that takes different values for the same.
async fn hit(
    link: &mut Link,
    table: &TargetTable,
    old: &[StampedRow],
    marks: Option<&MetadataColumns>,
) -> EtlResult<()> {
    let (name, columns) = (quoted_table(&table.name), columns_of(table));
    let types = table.source.columns.iter().map(|column| format!("{} {}", column.type_oid, column.modifier));
    let types: Vec<String> = types.collect();
    let stage = format!("_etl_old_{}", table.id);
    let definition = format!("SELECT {} FROM {name} /* {} */", columns.join(", "), types.join(", "));
    link.stage(&stage, definition).await?;
    copy_in::stamped(link, (&format!("pg_temp.{stage}"), table), old).await?;
    let whole = |row: &str| {
        let values: Vec<String> = table.compared_columns().map(|place| format!("{row}.{}", columns[place])).collect();
        format!("ROW({})::text", values.join(", "))
    };
    let not_marked = table.metadata.as_ref().map_or_else(String::new, |metadata| {
        format!("WHERE t.{} <> '{}'", quote_ident(&metadata.change_type), ChangeType::Delete)
    });
    let stamps: Vec<String> = marks.iter().flat_map(|metadata| metadata.names().map(quote_ident)).collect();
    let carried: String = stamps.iter().map(|name| format!(", o.{name}")).collect();
    // The n-th of equal old rows takes the n-th of the rows that equal it.
    let hits = format!(
        "WITH o AS (SELECT w.*, row_number() OVER (PARTITION BY w._etl_whole) AS _etl_nth
                      FROM (SELECT o.*, {} AS _etl_whole FROM pg_temp.{stage} o) w),
              t AS (SELECT w.*, row_number() OVER (PARTITION BY w._etl_whole) AS _etl_nth
                      FROM (SELECT t.ctid AS _etl_row, {} AS _etl_whole FROM {name} t {not_marked}) w
                     WHERE w._etl_whole IN (SELECT _etl_whole FROM o)),
              h AS (SELECT t._etl_row{carried} FROM t JOIN o USING (_etl_whole, _etl_nth))",
        whole("o"),
        whole("t"),
    );
    let sql = if marks.is_none() {
        format!("{hits} DELETE FROM {name} t USING h WHERE t.ctid = h._etl_row")
    } else {
        let set: Vec<String> = stamps.iter().map(|name| format!("{name} = h.{name}")).collect();
        format!("{hits} UPDATE {name} t SET {} FROM h WHERE t.ctid = h._etl_row", set.join(", "))
    };
    link.run(&sql, "delete rows").await.map_err(|error| error.with("table", &table.name))
}
