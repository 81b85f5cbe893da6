//! What is written already? Positions, chunk tokens and own tables, in the schema `_etl` of the target.

use etl::destination::{Batch, CopyChunk};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::postgres::quote_literal;
use etl::schema::{TableId, TableName};
use etl::store::STATE_MARK;
use etl::{CursorId, Lsn, Position};
use tokio_postgres::SimpleQueryRow;

use super::link::Link;

/// The layout of the schema. A row of `cursors` without a position follows the main cursor; `staged` has the tables of runs
/// that are not shown, `runs` the last one that is.
const LAYOUT: &str = "
    CREATE SCHEMA IF NOT EXISTS _etl;
    CREATE TABLE IF NOT EXISTS _etl.cursors (
        owner text, cursor text, commit_lsn numeric(20), ordinal numeric(20), PRIMARY KEY (owner, cursor))
        WITH (fillfactor = 50);
    CREATE TABLE IF NOT EXISTS _etl.chunks (
        owner text, table_id bigint, generation numeric(20), chunk numeric(20),
        PRIMARY KEY (owner, table_id, generation, chunk));
    CREATE TABLE IF NOT EXISTS _etl.tables (schema_name text, table_name text, PRIMARY KEY (schema_name, table_name));
    CREATE TABLE IF NOT EXISTS _etl.staged (
        owner text, run text, schema_name text, table_name text, PRIMARY KEY (schema_name, table_name));
    CREATE TABLE IF NOT EXISTS _etl.runs (owner text PRIMARY KEY, run text)";

/// Held by whoever makes or changes tables: `IF NOT EXISTS` does not see what another transaction is about to commit.
const SHAPES: &str = "SELECT pg_advisory_xact_lock(7310580, 1)";

/// Makes the schema where it is missing.
pub(super) async fn prepare(link: &Link) -> EtlResult<()> {
    lock_shapes(link).await?;
    link.run(LAYOUT, "prepare its state").await?;
    mark(link).await
}

/// Says of the tables what they are: a publication that holds them is refused.
async fn mark(link: &Link) -> EtlResult<()> {
    let mark = quote_literal(STATE_MARK);
    let unmarked = format!(
        "SELECT pg_catalog.quote_ident(relname) FROM pg_catalog.pg_class
          WHERE relnamespace = '_etl'::pg_catalog.regnamespace AND relname IN ('cursors', 'chunks', 'tables', 'staged', 'runs')
            AND pg_catalog.obj_description(oid, 'pg_class') IS DISTINCT FROM {mark}
            AND pg_catalog.pg_has_role(relowner, 'USAGE')"
    );
    let unmarked = link.rows(&unmarked, "look at its state").await?;
    let comment = |row: &SimpleQueryRow| format!("COMMENT ON TABLE _etl.{} IS {mark}", row.get(0).unwrap_or_default());
    let comments: Vec<String> = unmarked.iter().map(comment).collect();
    if comments.is_empty() { Ok(()) } else { link.run(&comments.join("; "), "prepare its state").await }
}

/// Until the transaction ends, nobody else makes or changes tables.
pub(super) async fn lock_shapes(link: &Link) -> EtlResult<()> {
    link.run(SHAPES, "wait for its turn").await
}

const MAIN: &str = "main";

fn name_of(cursor: CursorId) -> String {
    match cursor {
        CursorId::Main => MAIN.to_owned(),
        CursorId::Table(table) => table.to_string(),
    }
}

fn number(row: &SimpleQueryRow, column: usize) -> EtlResult<Option<u64>> {
    let parsed = row.get(column).map(str::parse).transpose();
    parsed.map_err(|e| EtlError::new(ErrorKind::Internal, "the target holds a position that is none").because(e))
}

/// The stored position of a cursor; a table that joined the main cursor has the main one's.
pub(super) async fn position(link: &Link, owner: &str, cursor: CursorId) -> EtlResult<Option<Position>> {
    let sql = format!(
        "SELECT m.commit_lsn, m.ordinal FROM _etl.cursors c
           JOIN _etl.cursors m ON m.owner = c.owner AND m.cursor = CASE WHEN c.commit_lsn IS NULL THEN '{MAIN}' ELSE c.cursor END
          WHERE c.owner = {} AND c.cursor = {}",
        quote_literal(owner),
        quote_literal(&name_of(cursor))
    );
    let rows = link.rows(&sql, "read a position").await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let numbers = number(row, 0)?.zip(number(row, 1)?);
    Ok(numbers.map(|(commit, ordinal)| Position::new(Lsn(commit), ordinal)))
}

/// Stores what a batch makes true: its cursor's position, and which cursor its moved tables follow.
pub(super) async fn advance(link: &Link, owner: &str, batch: &Batch, stored: Option<Position>) -> EtlResult<()> {
    let upto = stored.map_or(batch.upto, |stored| stored.max(batch.upto));
    let owner = quote_literal(owner);
    let row = |cursor, at: Option<Position>| {
        let (commit, ordinal) =
            at.map_or(("NULL".to_owned(), "NULL".to_owned()), |at| (at.commit.0.to_string(), at.ordinal.to_string()));
        format!("({owner}, {}, {commit}::numeric, {ordinal}::numeric)", quote_literal(&name_of(cursor)))
    };
    let moved =
        |(table, to): &(TableId, CursorId)| row(CursorId::Table(*table), (*to != CursorId::Main).then_some(upto));
    let rows: Vec<String> =
        std::iter::once(row(batch.cursor, Some(upto))).chain(batch.moves.iter().map(moved)).collect();
    let sql = format!(
        "INSERT INTO _etl.cursors VALUES {}
         ON CONFLICT (owner, cursor) DO UPDATE SET commit_lsn = excluded.commit_lsn, ordinal = excluded.ordinal",
        rows.join(", ")
    );
    link.run(&sql, "store a position").await
}

/// No position is beyond this one any more.
pub(super) async fn go_back(link: &Link, owner: &str, to: Position) -> EtlResult<()> {
    let (owner, commit, ordinal) = (quote_literal(owner), to.commit.0, to.ordinal);
    let sql = format!(
        "UPDATE _etl.cursors SET commit_lsn = {commit}, ordinal = {ordinal}
          WHERE owner = {owner} AND (commit_lsn, ordinal) > ({commit}, {ordinal})"
    );
    link.run(&sql, "go back to an earlier position").await
}

/// Refuses a unit that was made for another position than the stored one. Whoever writes for this cursor meanwhile is
/// waited for.
pub(super) async fn expect_position(
    link: &Link,
    owner: &str,
    cursor: CursorId,
    expected: Option<Position>,
) -> EtlResult<()> {
    let name = quote_literal(&format!("{owner} {}", name_of(cursor)));
    let lock = format!("SELECT pg_advisory_xact_lock(hashtextextended({name}, 7310580))");
    link.run(&lock, "wait for its turn").await?;
    let found = position(link, owner, cursor).await?;
    if found == expected {
        return Ok(());
    }
    Err(EtlError::new(ErrorKind::StoreConflict, "another position is stored than the write was made for")
        .with("cursor", cursor)
        .with("stored", found.map_or("none".to_owned(), |position| position.to_string())))
}

/// Notes a chunk; `false` where it is noted already. Whoever notes it meanwhile is waited for.
pub(super) async fn note_chunk(link: &Link, owner: &str, table: TableId, chunk: CopyChunk) -> EtlResult<bool> {
    let sql = format!(
        "INSERT INTO _etl.chunks VALUES ({}, {}, {}, {}) ON CONFLICT DO NOTHING RETURNING true",
        quote_literal(owner),
        table.0,
        chunk.generation,
        chunk.index
    );
    Ok(!link.rows(&sql, "note a chunk").await?.is_empty())
}

/// Forgets everything that is stored about a table.
pub(super) async fn forget(link: &Link, owner: &str, table: TableId) -> EtlResult<()> {
    let (owner, cursor) = (quote_literal(owner), quote_literal(&name_of(CursorId::Table(table))));
    let sql = format!(
        "DELETE FROM _etl.cursors WHERE owner = {owner} AND cursor = {cursor};
         DELETE FROM _etl.chunks WHERE owner = {owner} AND table_id = {}",
        table.0
    );
    link.run(&sql, "forget a table").await
}

fn names(name: &TableName) -> (String, String) {
    (quote_literal(&name.schema), quote_literal(&name.name))
}

/// Notes that a table was made here.
pub(super) async fn own_table(link: &Link, name: &TableName) -> EtlResult<()> {
    let (schema, table) = names(name);
    link.run(&format!("INSERT INTO _etl.tables VALUES ({schema}, {table}) ON CONFLICT DO NOTHING"), "note a table")
        .await
}

/// Forgets that a table was made here.
pub(super) async fn disown_table(link: &Link, name: &TableName) -> EtlResult<()> {
    let (schema, table) = names(name);
    let sql = format!("DELETE FROM _etl.tables WHERE schema_name = {schema} AND table_name = {table}");
    link.run(&sql, "forget a table").await
}

/// A table that was made here has another name.
pub(super) async fn rename_table(link: &Link, from: &TableName, to: &TableName) -> EtlResult<()> {
    let ((schema, table), (new_schema, new_table)) = (names(from), names(to));
    let sql = format!(
        "WITH own AS (DELETE FROM _etl.tables WHERE schema_name = {schema} AND table_name = {table} RETURNING true)
         INSERT INTO _etl.tables SELECT {new_schema}, {new_table} FROM own ON CONFLICT DO NOTHING"
    );
    link.run(&sql, "note a table").await
}

/// Whether a table was made here.
pub(super) async fn is_own_table(link: &Link, name: &TableName) -> EtlResult<bool> {
    let (schema, table) = names(name);
    let sql = format!("SELECT true FROM _etl.tables WHERE schema_name = {schema} AND table_name = {table}");
    Ok(!link.rows(&sql, "look for a table").await?.is_empty())
}

/// That a table was made here.
///
/// # Errors
/// `DestinationRejected` where somebody else made it.
pub(super) async fn expect_own_table(link: &Link, name: &TableName) -> EtlResult<()> {
    if is_own_table(link, name).await? {
        return Ok(());
    }
    Err(EtlError::new(ErrorKind::DestinationRejected, "a table of that name is there that this program did not make")
        .with("table", name)
        .hint("Rename or drop it, or write into another database, or under another name (`rename`)"))
}
