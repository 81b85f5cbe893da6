//! How is a unit applied? In one transaction, with its position or token.

use std::sync::Arc;

use duckdb::Connection;
use etl::error::EtlResult;

use super::ddl::{self, quoted, quoted_table, run};
use super::error::DuckDbResult;
use super::fills::Fills;
use super::places::Tables;
use super::rows::{LIMITS, append};
use super::{keyed, keyless, ledger};
use crate::columnar::ArrowTable;
use crate::metadata_columns::ChangeType;
use crate::write_mode::WriteMode;
use crate::writer::{BatchRows, Step, TableBatch, TargetTable, Truncated, WriteUnit};

/// Begins a transaction.
pub(super) fn begin(connection: &Connection) -> EtlResult<()> {
    connection.execute_batch("BEGIN").or_duckdb("begin a transaction")
}

/// Makes the open transaction durable.
pub(super) fn commit(connection: &Connection) -> EtlResult<()> {
    connection.execute_batch("COMMIT").or_duckdb("commit")
}

/// Runs the work in the open transaction, which is rolled back where that fails. Otherwise it is committed, unless it stays
/// open.
pub(super) fn in_transaction<T>(
    connection: &Connection,
    stays_open: bool,
    work: impl FnOnce(&Connection) -> EtlResult<T>,
) -> EtlResult<T> {
    let done = work(connection).and_then(|value| {
        if !stays_open {
            commit(connection)?;
        }
        Ok(value)
    });
    if done.is_err() {
        // A failed commit has rolled back already; the first error is the one that counts.
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

/// Applies the unit within the open transaction.
pub(super) fn apply(connection: &Connection, tables: Tables<'_>, unit: &WriteUnit) -> EtlResult<()> {
    let owner = tables.owner;
    if let Some((table, chunk)) = unit.chunk
        && !unit.steps.iter().all(|step| matches!(step, Step::Ensure(_)))
        && !ledger::note_chunk(connection, owner, table, chunk)?
    {
        return Ok(());
    }
    if let Some(batch) = &unit.batch {
        ledger::expect_position(connection, owner, batch.cursor, unit.stored)?;
    }
    let mut fills = Fills::default();
    for step in &unit.steps {
        if matches!(step, Step::Truncate(_) | Step::Write(_)) {
            fills.write(connection, tables)?;
        }
        match step {
            Step::Ensure(table) => ddl::ensure(connection, tables, table)?,
            Step::Alter(table, change) => {
                fills.follow(table, change);
                fills.add(table, ddl::alter(connection, tables, table, change)?);
            }
            Step::Fill(table, columns) => fills.add(table, columns.iter().cloned()),
            Step::Truncate(all) => all.iter().try_for_each(|truncated| {
                let table = tables.found(connection, &truncated.table)?;
                truncate(connection, &Truncated { table, ..truncated.clone() })
            })?,
            Step::Write(rows) => write(connection, tables, rows).map_err(|error| match error.context("table") {
                None => error.with("table", &rows.table.name),
                Some(_) => error,
            })?,
        }
    }
    fills.write(connection, tables)?;
    match &unit.batch {
        Some(batch) => ledger::advance(connection, owner, batch, unit.stored),
        None => Ok(()),
    }
}

fn write(connection: &Connection, tables: Tables<'_>, TableBatch { table, rows }: &TableBatch) -> EtlResult<()> {
    let table = &tables.found(connection, table)?;
    let arrow = || ArrowTable::new(table, LIMITS);
    match rows {
        BatchRows::Copied { rows, position, at } => {
            append(connection, &table.name, arrow().copied(rows.runs(), *position, *at)?)
        }
        BatchRows::Log(rows) => append(connection, &table.name, arrow().stamped(rows)?),
        BatchRows::Keyed(changes) => keyed::apply(connection, table, changes),
        BatchRows::Keyless(changes) => keyless::apply(connection, table, changes),
    }
}

/// Rows that are newer than the truncate stay.
fn truncate(connection: &Connection, Truncated { table, position, at }: &Truncated) -> EtlResult<()> {
    let name = quoted_table(&table.name);
    let Some(metadata) = &table.metadata else {
        return run(connection, &format!("DELETE FROM {name}"), "truncate a table", &table.name);
    };
    let [change_type, lsn, ordinal, timestamp] = metadata.names().map(quoted);
    let (commit, place) = (position.commit.0, position.ordinal);
    let older = format!("({lsn} < {commit} OR ({lsn} = {commit} AND {ordinal} < {place}))");
    let sql = if table.write_mode == WriteMode::SoftDelete {
        let delete = ChangeType::Delete;
        format!(
            "UPDATE {name} SET {change_type} = '{delete}', {lsn} = {commit}, {ordinal} = {place}, \
             {timestamp} = make_timestamptz({}) WHERE {older} AND {change_type} <> '{delete}'",
            at.0
        )
    } else {
        format!("DELETE FROM {name} WHERE {older}")
    };
    run(connection, &sql, "truncate a table", &table.name)
}

/// Empties the table and forgets what is stored about it; drops it where its shape is another now.
pub(super) fn reset(connection: &Connection, tables: Tables<'_>, table: &Arc<TargetTable>) -> EtlResult<()> {
    ledger::forget(connection, tables.owner, table.id)?;
    if !tables.begin_anew(connection, table)? {
        return Ok(());
    }
    let name = quoted_table(&table.name);
    if ddl::is_in_shape(connection, table)? {
        return run(connection, &format!("DELETE FROM {name}"), "empty a table", &table.name);
    }
    run(connection, &format!("DROP TABLE {name}"), "drop a table", &table.name)?;
    ledger::disown_table(connection, &table.name)
}
