//! Which statements make and change a table? Engine, columns, and what follows a schema change.

use etl::Position;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{Column, SchemaChange, TableName};

use super::places::{Places, REBUILT};
use super::server::text;
use super::sql::{DELETED, METADATA, VERSION, fill, literal, quoted, quoted_table, sql_type, version};
use super::view;
use crate::writer::{FilledColumn, TargetTable};

/// So many of the last blocks are known, and dropped when they come again. What is there when an insert is answered is
/// on disk.
const SETTINGS: &str = "non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1";

/// What copies rows within ClickHouse writes in blocks of its usual size.
pub(super) const IN_BLOCKS: &str =
    "SETTINGS min_insert_block_size_rows = 1048449, min_insert_block_size_bytes = 268402944, insert_deduplicate = 0";

/// A column as ClickHouse has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) name: String,
    of: String,
    is_key: bool,
}

/// That the table can be written as it is to be.
///
/// # Errors
/// `Config`, where it cannot.
pub(super) fn expect_metadata(table: &TargetTable) -> EtlResult<()> {
    if table.is_log() || table.metadata.is_some() {
        return Ok(());
    }
    Err(EtlError::new(ErrorKind::Config, "without metadata columns nothing says which of two rows is the newer")
        .with("table", &table.name)
        .hint("Leave `metadata` on, or write the table as a log (`write_mode: append`)"))
}

/// Makes the table where it is missing, and its view.
///
/// # Errors
/// `DestinationRejected` when there is a table of that name that was made by somebody else.
pub(super) async fn ensure(places: &Places<'_>, table: &TargetTable) -> EtlResult<()> {
    expect_metadata(table)?;
    if !places.settle(table).await? {
        places.make_database(&table.name).await?;
        let sql = create(table, &table.name, &places.mark(table.id, Position::ZERO));
        places.run(&sql, "create a table", &table.name).await?;
        places.gates.of(table.id).is_called(Some(table.name.clone()));
        places.gates.of(table.id).is_shaped(Position::ZERO);
    }
    view::show(places, table).await
}

/// The statement that makes the table under this name.
fn create(table: &TargetTable, name: &TableName, mark: &str) -> String {
    let mut columns: Vec<String> = Vec::new();
    for (place, (name, column)) in table.named_columns().enumerate() {
        let of = sql_type(&column.kind, is_key(table, place));
        columns.push(format!("{} {of} COMMENT {}", quoted(name), literal(&column.type_name)));
    }
    if let Some(metadata) = &table.metadata {
        columns.extend(metadata.names().into_iter().zip(METADATA).map(|(name, of)| format!("{} {of}", quoted(name))));
    }
    columns.extend(hidden(table).into_iter().map(|(name, of)| format!("{} {of}", quoted(name))));
    format!(
        "CREATE TABLE {} ({}) ENGINE = {} ORDER BY {} SETTINGS {SETTINGS} COMMENT {}",
        quoted_table(name),
        columns.join(", "),
        engine(table),
        order(table),
        literal(mark)
    )
}

fn is_key(table: &TargetTable, place: usize) -> bool {
    table.is_keyed() && table.source.key.iter().any(|key| usize::from(*key) == place)
}

fn engine(table: &TargetTable) -> String {
    if table.is_keyed() {
        format!("ReplacingMergeTree({}, {})", quoted(VERSION), quoted(DELETED))
    } else {
        "MergeTree".to_owned()
    }
}

fn order(table: &TargetTable) -> String {
    let columns: Vec<String> = match &table.metadata {
        _ if table.is_keyed() => table.key_names().map(quoted).collect(),
        Some(metadata) => vec![quoted(&metadata.lsn), quoted(&metadata.ordinal)],
        None => Vec::new(),
    };
    if columns.is_empty() { "tuple()".to_owned() } else { format!("({})", columns.join(", ")) }
}

/// The columns of its own that a current state needs.
fn hidden(table: &TargetTable) -> Vec<(&'static str, String)> {
    let deleted = (DELETED, "UInt8".to_owned());
    if table.is_log() {
        Vec::new()
    } else if table.is_keyed() {
        vec![(VERSION, format!("UInt128 MATERIALIZED {}", version(table))), deleted]
    } else {
        vec![deleted]
    }
}

/// Changes the table as the source's was changed. Its names are those of the change.
pub(super) async fn alter(places: &Places<'_>, table: &TargetTable, change: &SchemaChange) -> EtlResult<()> {
    if let SchemaChange::RenameTable { .. } = change {
        return places.settle(table).await.map(drop);
    }
    if table.source.since > places.gates.of(table.id).shaped() {
        places.note_shape(&table.name, table.id, table.source.since).await?;
    }
    let name = quoted_table(&table.name);
    let columns = columns(places, &table.name).await?;
    let of = |column: &str| columns.iter().find(|found| found.name == column);
    let sql = match change {
        SchemaChange::DropColumn(column) => match of(&column.name) {
            Some(found) if found.is_key => return Err(needs_a_copy(table, change)),
            Some(_) => format!("DROP COLUMN {}", quoted(&column.name)),
            None => return Ok(()),
        },
        SchemaChange::RenameColumn { from, to } => match of(from) {
            Some(found) if found.is_key => {
                return rebuild(places, table, &columns, |column| match *column.name == **from {
                    true => (to.to_string(), column.of.clone()),
                    false => (column.name.clone(), column.of.clone()),
                })
                .await;
            }
            Some(_) => format!("RENAME COLUMN {} TO {}", quoted(from), quoted(to)),
            None => return Ok(()),
        },
        SchemaChange::RetypeColumn { to, .. } => {
            let Some(found) = of(&to.name) else { return Ok(()) };
            let new = sql_type(&to.kind, found.is_key);
            if found.of != new && (found.is_key || !always_fits(&found.of, &new)) {
                return rebuild(places, table, &columns, |column| match *column.name == *to.name {
                    true => (column.name.clone(), new.clone()),
                    false => (column.name.clone(), column.of.clone()),
                })
                .await;
            }
            format!("MODIFY COLUMN {} {new} COMMENT {}", quoted(&to.name), literal(&to.type_name))
        }
        SchemaChange::AddColumn(column) if of(&column.name).is_none() => add(table, column)?,
        // Columns take nulls, and keys come with a new copy.
        _ => return Ok(()),
    };
    places.run(&format!("ALTER TABLE {name} {sql}"), "change a table's shape", &table.name).await
}

fn needs_a_copy(table: &TargetTable, change: &SchemaChange) -> EtlError {
    EtlError::new(ErrorKind::SchemaChanged, "ClickHouse cannot change the table like this")
        .of_table(table.id)
        .with("table", &table.name)
        .with("change", change)
        .hint(format!("`etl tables resync {}` copies it as it is now", table.source.source_name()))
}

/// Whether every value of the one type is one of the other, so that the column can be changed where it is.
fn always_fits(from: &str, to: &str) -> bool {
    let inner = |of: &str| of.strip_prefix("Nullable(").and_then(|of| of.strip_suffix(')')).unwrap_or(of).to_owned();
    let (from, to) = (inner(from), inner(to));
    let whole = ["Int16", "Int32", "Int64"];
    let place = |of: &str| whole.iter().position(|whole| *whole == of);
    match (place(&from), place(&to)) {
        (Some(from), Some(to)) => from < to,
        _ => from == "Float32" && to == "Float64",
    }
}

/// The default is for the rows that are there: later ones come with all their values.
fn add(table: &TargetTable, column: &Column) -> EtlResult<String> {
    let (name, of) = (quoted(&column.name), sql_type(&column.kind, false));
    let default = match (&column.fill, fill(column)) {
        (None, _) => String::new(),
        (Some(_), Some(value)) => format!(" DEFAULT CAST({value} AS {of})"),
        (Some(_), None) => return Err(needs_a_copy(table, &SchemaChange::AddColumn(column.clone()))),
    };
    Ok(format!("ADD COLUMN {name} {of}{default} COMMENT {}", literal(&column.type_name)))
}

/// Writes the table anew with other columns, and puts it in the old one's place.
async fn rebuild(
    places: &Places<'_>,
    table: &TargetTable,
    columns: &[Found],
    change: impl Fn(&Found) -> (String, String),
) -> EtlResult<()> {
    let own: Vec<&str> =
        table.metadata.iter().flat_map(|metadata| metadata.names()).chain([VERSION, DELETED]).collect();
    let changed: Vec<(String, String, &Found)> = columns
        .iter()
        .filter(|column| !own.contains(&column.name.as_str()))
        .map(|column| {
            let (name, of) = change(column);
            (name, of, column)
        })
        .collect();
    let between = TableName::new(table.name.schema.clone(), format!("{REBUILT}{}", table.id));
    let mut definitions: Vec<String> = changed.iter().map(|(name, of, _)| format!("{} {of}", quoted(name))).collect();
    let mut kept: Vec<String> = Vec::new();
    if let Some(metadata) = &table.metadata {
        let named = metadata.names().into_iter().zip(METADATA);
        definitions.extend(named.map(|(name, of)| format!("{} {of}", quoted(name))));
        kept.extend(metadata.names().map(quoted));
    }
    for (name, of) in hidden(table) {
        definitions.push(format!("{} {of}", quoted(name)));
        if name != VERSION {
            kept.push(quoted(name));
        }
    }
    let keys: Vec<String> =
        changed.iter().filter(|(_, _, found)| found.is_key).map(|(name, ..)| quoted(name)).collect();
    let order = if keys.is_empty() { order(table) } else { format!("({})", keys.join(", ")) };
    let (old, new) = (quoted_table(&table.name), quoted_table(&between));
    let names: Vec<String> = changed.iter().map(|(name, ..)| quoted(name)).chain(kept.iter().cloned()).collect();
    let value = |(_, of, found): &(String, String, &Found)| converted(&quoted(&found.name), &found.of, of);
    let values: Vec<String> = changed.iter().map(value).chain(kept).collect();
    let run = async |sql: String, doing| places.run(&sql, doing, &table.name).await;
    run(format!("DROP TABLE IF EXISTS {new} SYNC"), "clean up").await?;
    let create = format!(
        "CREATE TABLE {new} ({}) ENGINE = {} ORDER BY {order} SETTINGS {SETTINGS} COMMENT {}",
        definitions.join(", "),
        engine(table),
        literal(&places.mark(table.id, table.source.since))
    );
    run(create, "write a table anew").await?;
    let (names, values) = (names.join(", "), values.join(", "));
    run(format!("INSERT INTO {new} ({names}) SELECT {values} FROM {old} {IN_BLOCKS}"), "write a table anew").await?;
    run(format!("EXCHANGE TABLES {old} AND {new}"), "put a table in another's place").await?;
    run(format!("DROP TABLE {new} SYNC"), "clean up").await
}

/// The value as one of another type.
fn converted(value: &str, from: &str, to: &str) -> String {
    if from == to {
        return value.to_owned();
    }
    let scale = from.trim_start_matches("Nullable(").strip_prefix("Decimal(").and_then(|of| of.split_once(", "));
    match scale.map(|(_, scale)| scale.trim_end_matches(')')) {
        // With the zeros at its end.
        Some(scale) if to.ends_with("String)") || to == "String" => format!("toDecimalString({value}, {scale})"),
        _ => format!("CAST({value} AS {to})"),
    }
}

/// Gives the rows that are there the values of columns that they did not have.
pub(super) async fn fill_columns(places: &Places<'_>, table: &TargetTable, filled: &[FilledColumn]) -> EtlResult<()> {
    let mut values = Vec::new();
    for column in filled {
        let of = sql_type(&column.column.kind, false);
        let value = match (&column.from, fill(&column.column)) {
            (Some(from), _) => quoted(from),
            (None, Some(fill)) => fill,
            (None, None) => "NULL".to_owned(),
        };
        values.push(format!("{} = CAST({value} AS {of})", quoted(&column.name)));
    }
    let sql = format!("ALTER TABLE {} UPDATE {} WHERE true", quoted_table(&table.name), values.join(", "));
    places.run(&sql, "fill columns", &table.name).await
}

/// The columns that the table has.
pub(super) async fn columns(places: &Places<'_>, table: &TableName) -> EtlResult<Vec<Found>> {
    let sql = format!(
        "SELECT name, type, if(is_in_sorting_key, 'key', '') FROM system.columns WHERE database = {} AND table = {} \
         ORDER BY position",
        literal(&table.schema),
        literal(&table.name)
    );
    let rows = places.server.rows(&sql, "read a table's columns").await?;
    let found = |row: &Vec<serde_json::Value>| {
        Ok(Found { name: text(row, 0)?.to_owned(), of: text(row, 1)?.to_owned(), is_key: text(row, 2)? == "key" })
    };
    rows.iter().map(found).collect()
}

/// Whether the table has the shape that it would be created with.
pub(super) async fn is_in_shape(places: &Places<'_>, table: &TargetTable) -> EtlResult<bool> {
    let sql = format!(
        "SELECT engine FROM system.tables WHERE database = {} AND name = {}",
        literal(&table.name.schema),
        literal(&table.name.name)
    );
    let rows = places.server.rows(&sql, "look for a table").await?;
    let Some(engine) = rows.first().map(|row| text(row, 0)).transpose()? else { return Ok(false) };
    if engine.ends_with("ReplacingMergeTree") != table.is_keyed() {
        return Ok(false);
    }
    let mut wanted: Vec<Found> = table
        .named_columns()
        .enumerate()
        .map(|(place, (name, column))| {
            let is_key = is_key(table, place);
            Found { name: name.to_owned(), of: sql_type(&column.kind, is_key), is_key }
        })
        .collect();
    for (name, of) in table.metadata.iter().flat_map(|metadata| metadata.names().into_iter().zip(METADATA)) {
        let is_order =
            !table.is_keyed() && table.metadata.as_ref().is_some_and(|own| *own.lsn == *name || *own.ordinal == *name);
        wanted.push(Found { name: name.to_owned(), of: of.to_owned(), is_key: is_order });
    }
    for (name, of) in hidden(table) {
        let of = of.split(' ').next().unwrap_or_default().to_owned();
        wanted.push(Found { name: name.to_owned(), of, is_key: false });
    }
    let mut found = columns(places, &table.name).await?;
    // Columns are named wherever rows are written.
    found.sort_unstable();
    wanted.sort_unstable();
    Ok(found == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_keeps_its_zeros_as_text() {
        let of = |from, to| converted("`c`", from, to);
        assert_eq!(of("Nullable(Decimal(18, 4))", "Nullable(String)"), "toDecimalString(`c`, 4)");
        assert_eq!(of("Decimal(18, 4)", "String"), "toDecimalString(`c`, 4)");
        assert_eq!(of("Decimal(18, 4)", "Decimal(20, 4)"), "CAST(`c` AS Decimal(20, 4))");
        assert_eq!(of("Nullable(Int32)", "Nullable(String)"), "CAST(`c` AS Nullable(String))");
        assert_eq!(of("UUID", "UUID"), "`c`");
    }

    #[test]
    fn a_column_is_changed_where_it_is_only_if_every_value_fits() {
        for (from, to, fits) in [
            ("Nullable(Int16)", "Nullable(Int64)", true),
            ("Nullable(Int64)", "Nullable(Int32)", false),
            ("Nullable(Float32)", "Nullable(Float64)", true),
            ("Nullable(String)", "Nullable(Int32)", false),
            ("Nullable(Int32)", "Nullable(Int32)", false),
        ] {
            assert_eq!(always_fits(from, to), fits, "{from} {to}");
        }
    }
}
