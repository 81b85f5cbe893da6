//! Which statements make and change a table? Types, names, and what follows a schema change.

use std::sync::Arc;

use duckdb::Connection;
use etl::destination::is_struct;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{Attribute, Column, Kind, SchemaChange, TableName};

use super::error::DuckDbResult;
use super::ledger;
use super::places::Tables;

use crate::write_mode::WriteMode;
use crate::writer::{FilledColumn, TargetTable};

/// A name as SQL takes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name as SQL takes it.
pub(super) fn quoted_table(name: &TableName) -> String {
    format!("{}.{}", quoted(&name.schema), quoted(&name.name))
}

/// The names of all columns, the metadata columns last.
pub(super) fn column_names(table: &TargetTable) -> Vec<&str> {
    let mut names: Vec<&str> = table.columns.iter().map(|name| &**name).collect();
    if let Some(metadata) = &table.metadata {
        names.extend(metadata.names());
    }
    names
}

/// The type of a column. `json` stays text: DuckDB would refuse some of what Postgres takes.
pub(super) fn sql_type(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "BOOLEAN",
        Kind::Int2 => "SMALLINT",
        Kind::Int4 => "INTEGER",
        Kind::Int8 => "BIGINT",
        Kind::Oid => "UINTEGER",
        Kind::Float4 => "FLOAT",
        Kind::Float8 => "DOUBLE",
        Kind::Numeric(Some((precision @ ..=38, scale @ 0..))) if *scale as u16 <= *precision => {
            return format!("DECIMAL({precision},{scale})");
        }
        Kind::Bytea => "BLOB",
        Kind::Date => "DATE",
        Kind::Time => "TIME",
        Kind::Timestamp => "TIMESTAMP",
        Kind::TimestampTz => "TIMESTAMP WITH TIME ZONE",
        Kind::Uuid => "UUID",
        Kind::Jsonb => "JSON",
        Kind::Interval => "INTERVAL",
        Kind::Geometry(_) => "BLOB",
        Kind::Hstore => "MAP(VARCHAR, VARCHAR)",
        Kind::Vector(dimensions) | Kind::HalfVector(dimensions) => {
            return dimensions.map_or_else(|| "FLOAT[]".to_owned(), |dimensions| format!("FLOAT[{dimensions}]"));
        }
        Kind::Array(element) => return format!("{}[]", sql_type(element)),
        Kind::Multirange(element) => return format!("{}[]", range_type(element)),
        Kind::Range(element) => return range_type(element),
        Kind::Composite(attributes) if is_struct(attributes) => {
            let field = |of: &Attribute| format!("{} {}", quoted(&of.name), sql_type(&of.kind));
            return format!("STRUCT({})", attributes.iter().map(field).collect::<Vec<_>>().join(", "));
        }
        _ => "VARCHAR",
    }
    .to_owned()
}

fn range_type(element: &Kind) -> String {
    let of = sql_type(element);
    format!(
        "STRUCT(\"lower\" {of}, \"upper\" {of}, lower_inclusive BOOLEAN, upper_inclusive BOOLEAN, \"empty\" BOOLEAN)"
    )
}

/// Whether there is a table of this name.
pub(super) fn exists(connection: &Connection, name: &TableName) -> EtlResult<bool> {
    let query = "SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database() \
                 AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)";
    let found: i64 = connection
        .query_row(query, [&*name.schema, &*name.name], |row| row.get(0))
        .or_duckdb("look for a table")
        .map_err(|error| error.with("table", name))?;
    Ok(found > 0)
}

/// Makes the table where it is missing.
///
/// # Errors
/// `DestinationRejected` when there is a table of that name that was made by somebody else.
pub(super) fn ensure(connection: &Connection, tables: Tables<'_>, table: &TargetTable) -> EtlResult<()> {
    if table.write_mode == WriteMode::SoftDelete && table.metadata.is_none() {
        return Err(EtlError::new(ErrorKind::Config, "without metadata columns a deleted row cannot be marked")
            .with("table", &table.name)
            .hint("Use another `write_mode`, or leave `metadata` on"));
    }
    if tables.settle(connection, table)? {
        return Ok(());
    }
    let name = quoted_table(&table.name);
    let mut columns: Vec<String> =
        table.named_columns().map(|(name, column)| format!("{} {}", quoted(name), sql_type(&column.kind))).collect();
    if let Some(metadata) = &table.metadata {
        let types = ["VARCHAR", "BIGINT", "BIGINT", "TIMESTAMP WITH TIME ZONE"];
        columns.extend(metadata.names().into_iter().zip(types).map(|(name, of)| format!("{} {of}", quoted(name))));
    }
    let mut sql = format!("CREATE SCHEMA IF NOT EXISTS {};\n", quoted(&table.name.schema));
    sql.push_str(&format!("CREATE TABLE {name} ({});\n", columns.join(", ")));
    for (column, of) in table.named_columns() {
        sql.push_str(&comment(&name, column, of));
    }
    run(connection, &sql, "create a table", &table.name)?;
    ledger::own_table(connection, tables.owner, table.id, &table.name)
}

/// The source's type, for those that DuckDB has no type for, and for whoever wonders.
fn comment(table: &str, name: &str, column: &Column) -> String {
    let type_name = column.type_name.replace('\'', "''");
    format!("COMMENT ON COLUMN {table}.{} IS '{type_name}';\n", quoted(name))
}

/// Changes the table as the source's was changed; returns what the rows that are there are to get in a column that is new.
pub(super) fn alter(
    connection: &Connection,
    tables: Tables<'_>,
    table: &Arc<TargetTable>,
    change: &SchemaChange,
) -> EtlResult<Option<FilledColumn>> {
    if let SchemaChange::RenameTable { .. } = change {
        return tables.settle(connection, table).map(|_| None);
    }
    let table = &tables.found(connection, table)?;
    let name = quoted_table(&table.name);
    let has = |column: &str| has_column(connection, &table.name, column);
    let sql = match change {
        SchemaChange::DropColumn(column) if has(&column.name)? => {
            format!("ALTER TABLE {name} DROP COLUMN {}", quoted(&column.name))
        }
        SchemaChange::RenameColumn { from, to } if has(from)? => {
            format!("ALTER TABLE {name} RENAME COLUMN {} TO {}", quoted(from), quoted(to))
        }
        SchemaChange::RetypeColumn { to, .. } => format!(
            "ALTER TABLE {name} ALTER COLUMN {} SET DATA TYPE {};\n{}",
            quoted(&to.name),
            sql_type(&to.kind),
            comment(&name, &to.name, to)
        ),
        SchemaChange::AddColumn(column) if !has(&column.name)? => {
            let (added, of) = (quoted(&column.name), sql_type(&column.kind));
            format!("ALTER TABLE {name} ADD COLUMN {added} {of};\n{}", comment(&name, &column.name, column))
        }
        // Columns take nulls, keys are not constraints, and what is done already stays.
        _ => return Ok(None),
    };
    run(connection, &sql, "change a table's shape", &table.name)?;
    Ok(match change {
        // Later rows come with all their values.
        SchemaChange::AddColumn(column) if column.fill.is_some() => {
            Some(FilledColumn { name: column.name.clone(), column: column.clone(), from: None })
        }
        _ => None,
    })
}

/// Gives the rows that are there the values of columns that they did not have.
pub(super) fn fill(connection: &Connection, table: &TargetTable, columns: &[FilledColumn]) -> EtlResult<()> {
    let value = |filled: &FilledColumn| {
        let (name, of) = (quoted(&filled.name), sql_type(&filled.column.kind));
        let value = match (&filled.from, &filled.column.fill) {
            (Some(from), _) => quoted(from),
            (None, Some(fill)) => format!("'{}'", fill.replace('\'', "''")),
            (None, None) => "NULL".to_owned(),
        };
        format!("{name} = CAST({value} AS {of})")
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let sql = format!("UPDATE {} SET {}", quoted_table(&table.name), values.join(", "));
    run(connection, &sql, "fill columns", &table.name)
}

fn has_column(connection: &Connection, table: &TableName, column: &str) -> EtlResult<bool> {
    Ok(columns(connection, table)?.iter().any(|(name, _)| name.eq_ignore_ascii_case(column)))
}

/// The names and types of the columns that the table has.
fn columns(connection: &Connection, table: &TableName) -> EtlResult<Vec<(String, String)>> {
    let query = "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() \
                 AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?) ORDER BY column_index";
    let mut statement = connection.prepare(query).or_duckdb("read a table's columns")?;
    let rows = statement
        .query_map([&*table.schema, &*table.name], |row| Ok((row.get(0)?, row.get(1)?)))
        .or_duckdb("read a table's columns")?;
    rows.collect::<Result<_, _>>().or_duckdb("read a table's columns")
}

/// Whether the table has the shape that it would be created with.
pub(super) fn is_in_shape(connection: &Connection, table: &TargetTable) -> EtlResult<bool> {
    let found = columns(connection, &table.name)?;
    let wanted = table.named_columns().map(|(name, column)| (name, sql_type(&column.kind)));
    let count = column_names(table).len();
    let metadata = table.metadata.iter().flat_map(|metadata| metadata.names());
    if found.len() != count || !metadata.into_iter().all(|name| found.iter().any(|(found, _)| found == name)) {
        return Ok(false);
    }
    for (name, of) in wanted {
        let Some((_, found)) = found.iter().find(|(found, _)| found == name) else { return Ok(false) };
        if *found != of && *found != spelled(connection, &of)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A type as DuckDB writes it, which quotes fewer names.
fn spelled(connection: &Connection, of: &str) -> EtlResult<String> {
    let query = format!("SELECT typeof(CAST(NULL AS {of}))");
    connection.query_row(&query, [], |row| row.get(0)).or_duckdb("read how a type is written")
}

pub(super) fn run(connection: &Connection, sql: &str, doing: &'static str, table: &TableName) -> EtlResult<()> {
    connection.execute_batch(sql).or_duckdb(doing).map_err(|error| error.with("table", table))
}
