//! Which statements make and change a table? Types, names, keys, and what follows a schema change.

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::postgres::{quote_ident, quote_literal};
use etl::schema::{Column, SchemaChange, TableName};

use super::link::Link;
use super::types::wanted;
use super::{adopted, ledger};
use crate::write_mode::WriteMode;
use crate::writer::{FilledColumn, TargetTable};

/// A table's name as SQL takes it.
pub(super) fn quoted_table(name: &TableName) -> String {
    format!("{}.{}", quote_ident(&name.schema), quote_ident(&name.name))
}

/// The names of all columns as SQL takes them, the metadata columns last.
pub(super) fn columns_of(table: &TargetTable) -> Vec<String> {
    let metadata = table.metadata.iter().flat_map(|metadata| metadata.names());
    table.columns.iter().map(|name| &**name).chain(metadata).map(quote_ident).collect()
}

/// The key's columns as SQL takes them.
pub(super) fn key_of(table: &TargetTable) -> Vec<String> {
    table.key_names().map(quote_ident).collect()
}

async fn run(link: &Link, sql: &str, doing: &'static str, table: &TableName) -> EtlResult<()> {
    link.run(sql, doing).await.map_err(|error| error.with("table", table))
}

/// Whether there is a table of this name, or something else that has it.
pub(super) async fn exists(link: &Link, name: &TableName) -> EtlResult<bool> {
    Ok(!link.rows(&format!("SELECT {} WHERE {0} IS NOT NULL", oid(name)), "look for a table").await?.is_empty())
}

pub(super) fn oid(name: &TableName) -> String {
    format!("to_regclass({})", quote_literal(&quoted_table(name)))
}

/// The types of the columns in the target.
async fn types(link: &Link, columns: impl Iterator<Item = &Column> + Clone) -> EtlResult<Vec<String>> {
    let uncertain: Vec<&str> =
        columns.clone().map(wanted).filter(|(_, is_asked)| *is_asked).map(|(name, _)| name).collect();
    let mut known = Vec::new();
    if !uncertain.is_empty() {
        let names: Vec<String> = uncertain.iter().map(|name| quote_literal(name)).collect();
        let sql = format!("SELECT t FROM unnest(ARRAY[{}]) AS t WHERE to_regtype(t) IS NOT NULL", names.join(", "));
        let rows = link.rows(&sql, "look for types").await?;
        known.extend(rows.iter().filter_map(|row| row.get(0).map(str::to_owned)));
    }
    let of = |column| match wanted(column) {
        (name, true) if !known.iter().any(|known| known == name) => "text".to_owned(),
        (name, _) => name.to_owned(),
    };
    Ok(columns.map(of).collect())
}

/// The columns of the table with their types, as they are to be.
pub(super) async fn definitions(link: &Link, table: &TargetTable) -> EtlResult<Vec<(String, String)>> {
    let types = types(link, table.source.columns.iter()).await?;
    let names = columns_of(table);
    let metadata = ["text", "bigint", "bigint", "timestamp with time zone"].map(str::to_owned);
    Ok(names.into_iter().zip(types.into_iter().chain(metadata)).collect())
}

/// Makes the table where it is missing. The transaction has the lock of [`ledger::lock_shapes`].
///
/// # Errors
/// `DestinationRejected` when there is a table of that name that was made by somebody else.
pub(super) async fn ensure(link: &Link, table: &TargetTable) -> EtlResult<()> {
    if table.write_mode == WriteMode::SoftDelete && table.metadata.is_none() {
        return Err(EtlError::new(ErrorKind::Config, "without metadata columns a deleted row cannot be marked")
            .with("table", &table.name)
            .hint("Use another `write_mode`, or leave `metadata` on"));
    }
    if exists(link, &table.name).await? {
        return if table.is_adopted {
            adopted::expect_fit(link, table).await
        } else {
            ledger::expect_own_table(link, &table.name).await
        };
    }
    let name = quoted_table(&table.name);
    let definitions = definitions(link, table).await?;
    let mut columns: Vec<String> = definitions.into_iter().map(|(name, of)| format!("{name} {of}")).collect();
    if table.is_keyed() {
        columns.push(format!("PRIMARY KEY ({})", key_of(table).join(", ")));
    }
    let sql = format!(
        "CREATE SCHEMA IF NOT EXISTS {}; CREATE TABLE {name} ({})",
        quote_ident(&table.name.schema),
        columns.join(", ")
    );
    run(link, &sql, "create a table", &table.name).await?;
    ledger::own_table(link, &table.name).await
}

/// Changes the table as the source's was changed.
pub(super) async fn alter(link: &Link, table: &TargetTable, change: &SchemaChange) -> EtlResult<()> {
    let name = quoted_table(&table.name);
    let has = async |column: &str| {
        Ok::<_, EtlError>(columns(link, &table.name).await?.iter().any(|(name, _)| *name == quote_ident(column)))
    };
    let sql = match change {
        SchemaChange::RenameTable { from, to } => return rename(link, from, to).await,
        SchemaChange::DropColumn(column) if has(&column.name).await? => {
            format!("ALTER TABLE {name} DROP COLUMN {}", quote_ident(&column.name))
        }
        SchemaChange::RenameColumn { from, to } if has(from).await? => {
            format!("ALTER TABLE {name} RENAME COLUMN {} TO {}", quote_ident(from), quote_ident(to))
        }
        SchemaChange::RetypeColumn { to, .. } => {
            let (column, of) = (quote_ident(&to.name), types(link, std::iter::once(to)).await?.remove(0));
            format!("ALTER TABLE {name} ALTER COLUMN {column} TYPE {of} USING {column}::{of}")
        }
        SchemaChange::AddColumn(column) if !has(&column.name).await? => {
            add_column(&name, column, &types(link, std::iter::once(column)).await?.remove(0))
        }
        // Columns take nulls, keys come with a new copy, and what is done already stays.
        _ => return Ok(()),
    };
    run(link, &sql, "change a table's shape", &table.name).await
}

/// The default is for the rows that are there: later ones come with all their values.
fn add_column(table: &str, column: &Column, of: &str) -> String {
    let name = quote_ident(&column.name);
    let Some(fill) = &column.fill else { return format!("ALTER TABLE {table} ADD COLUMN {name} {of}") };
    format!(
        "ALTER TABLE {table} ADD COLUMN {name} {of} DEFAULT CAST({} AS {of});
         ALTER TABLE {table} ALTER COLUMN {name} DROP DEFAULT",
        quote_literal(fill)
    )
}

/// Gives the rows that are there the values of columns that they did not have.
pub(super) async fn fill(link: &Link, table: &TargetTable, columns: &[FilledColumn]) -> EtlResult<()> {
    let types = types(link, columns.iter().map(|filled| &filled.column)).await?;
    let value = |(filled, of): (&FilledColumn, &String)| {
        let value = match (&filled.from, &filled.column.fill) {
            (Some(from), _) => quote_ident(from),
            (None, Some(fill)) => quote_literal(fill),
            (None, None) => "NULL".to_owned(),
        };
        format!("{} = CAST({value} AS {of})", quote_ident(&filled.name))
    };
    let values: Vec<String> = columns.iter().zip(&types).map(value).collect();
    let sql = format!("UPDATE {} SET {}", quoted_table(&table.name), values.join(", "));
    run(link, &sql, "fill columns", &table.name).await
}

async fn rename(link: &Link, from: &TableName, to: &TableName) -> EtlResult<()> {
    if !exists(link, from).await? {
        return Ok(());
    }
    if exists(link, to).await? {
        return Err(EtlError::new(ErrorKind::DestinationRejected, "a renamed table finds its new name taken")
            .with("table", from)
            .with("new name", to)
            .hint("Move the other table away, then start again"));
    }
    let between = TableName { schema: to.schema.clone(), name: from.name.clone() };
    let mut sql = Vec::new();
    if from.schema != to.schema {
        let schema = quote_ident(&to.schema);
        sql.push(format!(
            "CREATE SCHEMA IF NOT EXISTS {schema}; ALTER TABLE {} SET SCHEMA {schema}",
            quoted_table(from)
        ));
    }
    if from.name != to.name {
        sql.push(format!("ALTER TABLE {} RENAME TO {}", quoted_table(&between), quote_ident(&to.name)));
    }
    run(link, &sql.join("; "), "rename a table", from).await?;
    ledger::rename_table(link, from, to).await
}

/// The names, as SQL takes them, and types of the columns that the table has.
async fn columns(link: &Link, table: &TableName) -> EtlResult<Vec<(String, String)>> {
    let sql = format!(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
          WHERE attrelid = {} AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        oid(table)
    );
    let rows = link.rows(&sql, "read a table's columns").await?;
    let text = |row: &tokio_postgres::SimpleQueryRow, place| row.get(place).unwrap_or_default().to_owned();
    Ok(rows.iter().map(|row| (quote_ident(&text(row, 0)), text(row, 1))).collect())
}

/// The columns of the table's primary key, as SQL takes them.
async fn primary_key(link: &Link, table: &TableName) -> EtlResult<Vec<String>> {
    let sql = format!(
        "SELECT a.attname FROM pg_catalog.pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, nth)
           JOIN pg_catalog.pg_attribute a ON a.attnum = k.attnum
          WHERE i.indrelid = {} AND a.attrelid = i.indrelid AND i.indisprimary ORDER BY k.nth",
        oid(table)
    );
    let rows = link.rows(&sql, "read a table's key").await?;
    Ok(rows.iter().map(|row| quote_ident(row.get(0).unwrap_or_default())).collect())
}

/// Whether the table has the shape that it would be created with.
pub(super) async fn is_in_shape(link: &Link, table: &TargetTable) -> EtlResult<bool> {
    let (mut found, mut wanted) = (columns(link, &table.name).await?, definitions(link, table).await?);
    // Columns are named wherever rows are written.
    found.sort_unstable();
    wanted.sort_unstable();
    let key = if table.is_keyed() { key_of(table) } else { Vec::new() };
    Ok(found == wanted && primary_key(link, &table.name).await? == key)
}
