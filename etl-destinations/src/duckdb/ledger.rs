//! What is written already? Positions, chunk tokens and own tables, in the schema `_etl` of the file.

use duckdb::{Connection, OptionalExt, params};
use etl::destination::{Batch, CopyChunk};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{TableId, TableName};
use etl::{CursorId, Lsn, Position};

use super::error::DuckDbResult;

/// The layout of the schema. A row of `cursors` without a position follows the main cursor.
const LAYOUT: &str = "
    CREATE SCHEMA IF NOT EXISTS _etl;
    CREATE TABLE IF NOT EXISTS _etl.cursors (
        owner VARCHAR, cursor VARCHAR, commit_lsn UBIGINT, ordinal UBIGINT, PRIMARY KEY (owner, cursor));
    CREATE TABLE IF NOT EXISTS _etl.chunks (
        owner VARCHAR, table_id UINTEGER, generation UBIGINT, chunk UBIGINT,
        PRIMARY KEY (owner, table_id, generation, chunk));
    CREATE TABLE IF NOT EXISTS _etl.tables (schema_name VARCHAR, table_name VARCHAR, owner VARCHAR, table_id UINTEGER);
    CREATE TABLE IF NOT EXISTS _etl.runs (owner VARCHAR PRIMARY KEY, run VARCHAR);
    ALTER TABLE _etl.tables ADD COLUMN IF NOT EXISTS owner VARCHAR;
    ALTER TABLE _etl.tables ADD COLUMN IF NOT EXISTS table_id UINTEGER;
";

/// Makes the schema where it is missing.
pub(super) fn prepare(connection: &Connection) -> EtlResult<()> {
    connection.execute_batch(LAYOUT).or_duckdb("prepare its state")
}

const MAIN: &str = "main";

fn name_of(cursor: CursorId) -> String {
    match cursor {
        CursorId::Main => MAIN.to_owned(),
        CursorId::Table(table) => table.to_string(),
    }
}

/// The stored position of a cursor; a table that joined the main cursor has the main one's.
pub(super) fn position(connection: &Connection, owner: &str, cursor: CursorId) -> EtlResult<Option<Position>> {
    match row(connection, owner, &name_of(cursor))? {
        Some(None) if cursor != CursorId::Main => Ok(row(connection, owner, MAIN)?.flatten()),
        found => Ok(found.flatten()),
    }
}

fn row(connection: &Connection, owner: &str, cursor: &str) -> EtlResult<Option<Option<Position>>> {
    let query = "SELECT commit_lsn, ordinal FROM _etl.cursors WHERE owner = ? AND cursor = ?";
    let found = connection.query_row(query, [owner, cursor], |row| {
        let numbers: (Option<u64>, Option<u64>) = (row.get(0)?, row.get(1)?);
        Ok(numbers.0.zip(numbers.1).map(|(commit, ordinal)| Position::new(Lsn(commit), ordinal)))
    });
    found.optional().or_duckdb("read a position")
}

fn put(connection: &Connection, owner: &str, cursor: CursorId, at: Option<Position>) -> EtlResult<()> {
    let sql = "INSERT INTO _etl.cursors VALUES (?, ?, ?, ?) \
               ON CONFLICT DO UPDATE SET commit_lsn = excluded.commit_lsn, ordinal = excluded.ordinal";
    let (commit, ordinal) = (at.map(|at| at.commit.0), at.map(|at| at.ordinal));
    connection.execute(sql, params![owner, name_of(cursor), commit, ordinal]).or_duckdb("store a position")?;
    Ok(())
}

/// Stores what a batch makes true: its cursor's position, and which cursor its moved tables follow.
pub(super) fn advance(connection: &Connection, owner: &str, batch: &Batch, stored: Option<Position>) -> EtlResult<()> {
    let upto = stored.map_or(batch.upto, |stored| stored.max(batch.upto));
    put(connection, owner, batch.cursor, Some(upto))?;
    for (table, to) in &batch.moves {
        let at = (*to != CursorId::Main).then_some(upto);
        put(connection, owner, CursorId::Table(*table), at)?;
    }
    Ok(())
}

/// No position is beyond this one any more.
pub(super) fn go_back(connection: &Connection, owner: &str, to: Position) -> EtlResult<()> {
    let sql = "UPDATE _etl.cursors SET commit_lsn = ?, ordinal = ? \
                WHERE owner = ? AND (commit_lsn > ? OR (commit_lsn = ? AND ordinal > ?))";
    let (commit, ordinal) = (to.commit.0, to.ordinal);
    let done = connection.execute(sql, params![commit, ordinal, owner, commit, commit, ordinal]);
    done.or_duckdb("go back to an earlier position").map(drop)
}

/// Refuses a unit that was made for another position than the stored one.
pub(super) fn expect_position(
    connection: &Connection,
    owner: &str,
    cursor: CursorId,
    expected: Option<Position>,
) -> EtlResult<()> {
    let found = position(connection, owner, cursor)?;
    if found == expected {
        return Ok(());
    }
    Err(EtlError::new(ErrorKind::StoreConflict, "another position is stored than the write was made for")
        .with("cursor", cursor)
        .with("stored", found.map_or("none".to_owned(), |position| position.to_string())))
}

/// Notes a chunk; `false` where it is noted already.
pub(super) fn note_chunk(connection: &Connection, owner: &str, table: TableId, chunk: CopyChunk) -> EtlResult<bool> {
    let sql = "INSERT INTO _etl.chunks VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
    let noted = connection.execute(sql, params![owner, table.0, chunk.generation, chunk.index]);
    Ok(noted.or_duckdb("note a chunk")? > 0)
}

/// Forgets everything that is stored about a table.
pub(super) fn forget(connection: &Connection, owner: &str, table: TableId) -> EtlResult<()> {
    let cursor = name_of(CursorId::Table(table));
    connection
        .execute("DELETE FROM _etl.cursors WHERE owner = ? AND cursor = ?", [owner, &cursor])
        .or_duckdb("forget a position")?;
    connection
        .execute("DELETE FROM _etl.chunks WHERE owner = ? AND table_id = ?", params![owner, table.0])
        .or_duckdb("forget chunks")?;
    Ok(())
}

/// What a table that was made here is written from.
#[derive(Debug, Default)]
pub(super) struct Holder {
    pub(super) owner: Option<String>,
    pub(super) table: Option<TableId>,
}

/// Notes where a table is that was made here.
pub(super) fn own_table(connection: &Connection, owner: &str, id: TableId, name: &TableName) -> EtlResult<()> {
    disown_table(connection, name)?;
    connection
        .execute("DELETE FROM _etl.tables WHERE owner = ? AND table_id = ?", params![owner, id.0])
        .or_duckdb("forget a table")?;
    let sql = "INSERT INTO _etl.tables (schema_name, table_name, owner, table_id) VALUES (?, ?, ?, ?)";
    connection.execute(sql, params![&*name.schema, &*name.name, owner, id.0]).or_duckdb("note a table").map(drop)
}

/// Where the rows of a table are.
pub(super) fn place(connection: &Connection, owner: &str, id: TableId) -> EtlResult<Option<TableName>> {
    let query = "SELECT schema_name, table_name FROM _etl.tables WHERE owner = ? AND table_id = ?";
    let found = connection.query_row(query, params![owner, id.0], |row| {
        Ok(TableName::new(row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    });
    found.optional().or_duckdb("look for a table")
}

/// What the table of this name is written from, as far as that is known.
///
/// # Errors
/// `DestinationRejected` where somebody else made it.
pub(super) fn holder(connection: &Connection, name: &TableName) -> EtlResult<Holder> {
    expect_own_table(connection, name)?;
    let query = "SELECT owner, table_id FROM _etl.tables \
                  WHERE lower(schema_name) = lower(?) AND lower(table_name) = lower(?)";
    let found = connection.query_row(query, [&*name.schema, &*name.name], |row| {
        Ok(Holder { owner: row.get(0)?, table: row.get::<_, Option<u32>>(1)?.map(TableId) })
    });
    found.optional().or_duckdb("look for a table").map(Option::unwrap_or_default)
}

/// Forgets that a table was made here.
pub(super) fn disown_table(connection: &Connection, name: &TableName) -> EtlResult<()> {
    let sql = "DELETE FROM _etl.tables WHERE lower(schema_name) = lower(?) AND lower(table_name) = lower(?)";
    connection.execute(sql, [&*name.schema, &*name.name]).or_duckdb("forget a table").map(drop)
}

/// The owners whose names begin like this, by their tables and chunks.
pub(super) fn owners(connection: &Connection, prefix: &str) -> EtlResult<Vec<String>> {
    let query = "SELECT owner FROM _etl.tables WHERE starts_with(owner, ?) \
                 UNION SELECT owner FROM _etl.chunks WHERE starts_with(owner, ?)";
    let mut statement = connection.prepare(query).or_duckdb("look for runs")?;
    let rows = statement.query_map([prefix, prefix], |row| row.get(0)).or_duckdb("look for runs")?;
    rows.collect::<Result<_, _>>().or_duckdb("look for runs")
}

/// The tables of an owner.
pub(super) fn tables_of(connection: &Connection, owner: &str) -> EtlResult<Vec<TableName>> {
    let query = "SELECT schema_name, table_name FROM _etl.tables WHERE owner = ?";
    let mut statement = connection.prepare(query).or_duckdb("look for tables")?;
    let rows = statement
        .query_map([owner], |row| Ok(TableName::new(row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .or_duckdb("look for tables")?;
    rows.collect::<Result<_, _>>().or_duckdb("look for tables")
}

/// Forgets the tables and chunks of an owner.
pub(super) fn forget_owner(connection: &Connection, owner: &str) -> EtlResult<()> {
    for table in ["tables", "chunks"] {
        let sql = format!("DELETE FROM _etl.{table} WHERE owner = ?");
        connection.execute(&sql, [owner]).or_duckdb("forget a run")?;
    }
    Ok(())
}

/// Whether this was the last run that is shown.
pub(super) fn is_shown(connection: &Connection, owner: &str, run: &str) -> EtlResult<bool> {
    let query = "SELECT count(*) FROM _etl.runs WHERE owner = ? AND run = ?";
    let found: i64 = connection.query_row(query, [owner, run], |row| row.get(0)).or_duckdb("look for a run")?;
    Ok(found > 0)
}

/// Notes that it is.
pub(super) fn show(connection: &Connection, owner: &str, run: &str) -> EtlResult<()> {
    let sql = "INSERT INTO _etl.runs VALUES (?, ?) ON CONFLICT DO UPDATE SET run = excluded.run";
    connection.execute(sql, [owner, run]).or_duckdb("note a run").map(drop)
}

/// That a table was made here.
///
/// # Errors
/// `DestinationRejected` where somebody else made it.
fn expect_own_table(connection: &Connection, name: &TableName) -> EtlResult<()> {
    let query = "SELECT count(*) FROM _etl.tables WHERE lower(schema_name) = lower(?) AND lower(table_name) = lower(?)";
    let found: i64 =
        connection.query_row(query, [&*name.schema, &*name.name], |row| row.get(0)).or_duckdb("look for a table")?;
    if found > 0 {
        return Ok(());
    }
    Err(EtlError::new(ErrorKind::DestinationRejected, "a table of that name is there that this program did not make")
        .with("table", name)
        .hint("Rename or drop it, or write into another file"))
}
