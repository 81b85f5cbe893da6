//! Where is the current state to be read? In a view beside the table, of what is left of its rows.

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::TableName;

use super::ddl::columns;
use super::places::Places;
use super::sql::{DELETED, VERSION, literal, quoted, quoted_table};
use crate::metadata_columns::{ChangeType, MetadataColumns};
use crate::writer::TargetTable;

/// What the comment of a view says that was made here.
const MARK: &str = "etl view";

/// What the table's view is called; nothing where it has none.
pub(super) fn name(table: &TableName, suffix: &str) -> Option<TableName> {
    (!suffix.is_empty()).then(|| TableName::new(table.schema.clone(), format!("{}{suffix}", table.name)))
}

/// Makes the view of a table, or makes it anew.
///
/// # Errors
/// `DestinationRejected` when there is something of that name that was made by somebody else.
pub(super) async fn show(places: &Places<'_>, table: &TargetTable) -> EtlResult<()> {
    let Some(view) = name(&table.name, places.view_suffix).filter(|_| !table.is_log()) else { return Ok(()) };
    if places.comment(&view).await?.is_some_and(|comment| comment != MARK) {
        return Err(EtlError::new(ErrorKind::DestinationRejected, "the name of a table's view is taken")
            .with("table", &table.name)
            .with("view", view)
            .hint("Move the other one away, or choose another `view_suffix`"));
    }
    let query = query(table, &shown(places, table).await?);
    let sql = format!("CREATE OR REPLACE VIEW {} AS {query} COMMENT {}", quoted_table(&view), literal(MARK));
    places.run(&sql, "create a view", &table.name).await
}

/// Drops the view of a table, if it was made here.
pub(super) async fn hide(places: &Places<'_>, table: &TableName) -> EtlResult<()> {
    let Some(view) = name(table, places.view_suffix) else { return Ok(()) };
    if places.comment(&view).await?.is_none_or(|comment| comment != MARK) {
        return Ok(());
    }
    places.run(&format!("DROP VIEW IF EXISTS {} SYNC", quoted_table(&view)), "drop a view", table).await
}

/// The columns that the table has by now, but those that say what became of a row.
async fn shown(places: &Places<'_>, table: &TargetTable) -> EtlResult<Vec<String>> {
    let own: Vec<&str> =
        table.metadata.iter().flat_map(|metadata| metadata.names()).chain([VERSION, DELETED]).collect();
    let found = columns(places, &table.name).await?;
    Ok(found.into_iter().map(|column| column.name).filter(|name| !own.contains(&name.as_str())).collect())
}

/// What reads these columns of the current state of a table, and what it says of its rows.
pub(super) fn query(table: &TargetTable, columns: &[String]) -> String {
    let (name, values) = (quoted_table(&table.name), columns.iter().map(|name| quoted(name)).collect::<Vec<_>>());
    match table.metadata.as_deref() {
        Some(metadata) if !table.is_keyed() => of_equal_rows(table, &name, &values, metadata),
        metadata => {
            let stamps = metadata.iter().flat_map(|metadata| metadata.names()).map(quoted);
            let list: Vec<String> = values.into_iter().chain(stamps).collect();
            format!("SELECT {} FROM {name} FINAL", list.join(", "))
        }
    }
}

/// Of equal rows as many as came and did not go: the newest.
fn of_equal_rows(table: &TargetTable, name: &str, columns: &[String], metadata: &MetadataColumns) -> String {
    let [change_type, lsn, ordinal, timestamp] = metadata.names().map(quoted);
    let (gone, marked) = (quoted(DELETED), quoted("_etl_marked"));
    let compared: Vec<usize> = table.compared_columns().collect();
    let has_no_values = |place: usize| !compared.contains(&place);
    let unfed: Vec<String> = (0..table.columns.len())
        .filter(|place| has_no_values(*place))
        .map(|place| quoted(&table.columns[place]))
        .collect();
    // What the source has no values for any more is no part of what rows are told apart by.
    let value = |column: &String| match unfed.contains(column) {
        true => format!("anyIf(t.{column}, NOT t.{gone}) AS {column}"),
        false => format!("t.{column} AS {column}"),
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let groups = columns.iter().filter(|column| !unfed.contains(column)).map(|column| format!("t.{column}"));
    let groups: Vec<String> = groups.chain([marked.clone()]).collect();
    let (delete, upsert) = (ChangeType::Delete, ChangeType::Upsert);
    format!(
        "SELECT {list}, if({marked}, '{delete}', '{upsert}') AS {change_type}, `_etl_stamp`.1 AS {lsn}, \
         `_etl_stamp`.2 AS {ordinal}, `_etl_stamp`.3 AS {timestamp} \
         FROM (SELECT {values}, (t.{change_type} = '{delete}' AND NOT t.{gone}) AS {marked}, \
         arraySlice(arraySort(groupArrayIf((t.{lsn}, t.{ordinal}, t.{timestamp}), NOT t.{gone})), 1 + countIf(t.{gone})) \
         AS `_etl_stamps` FROM {name} AS t GROUP BY {groups}) ARRAY JOIN `_etl_stamps` AS `_etl_stamp`",
        list = columns.join(", "),
        values = values.join(", "),
        groups = groups.join(", "),
    )
}
