//! How do tables take the place of others at once? They are filled beside them, and renamed in one transaction.

use std::collections::HashSet;

use duckdb::Connection;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::TableName;

use super::ddl::{exists, quoted_table, run as execute};
use super::ledger;
use super::places::{Tables, rename};
use super::unit;
use crate::writer::{Replacement, WriteUnit};

/// Under what the run's own tables and chunk tokens are kept.
fn owner_of(owner: &str, run: &str) -> String {
    format!("{owner}#{run}")
}

/// That every table may be replaced. What other runs have left is removed.
pub(super) fn begin(connection: &Connection, owner: &str, run: &str, tables: &[Replacement]) -> EtlResult<()> {
    for Replacement { to, .. } in tables {
        if exists(connection, &to.name)? {
            ledger::holder(connection, &to.name)?;
        }
    }
    for other in ledger::owners(connection, &owner_of(owner, ""))? {
        if other != owner_of(owner, run) {
            remove(connection, &other)?;
        }
    }
    Ok(())
}

/// Writes rows of the run into its own tables.
pub(super) fn stage(connection: &Connection, owner: &str, run: &str, unit: &WriteUnit) -> EtlResult<()> {
    let (owner, gone) = (owner_of(owner, run), HashSet::new());
    unit::apply(connection, Tables { owner: &owner, gone: &gone }, unit)
}

/// Removes what the run has staged.
pub(super) fn abandon(connection: &Connection, owner: &str, run: &str) -> EtlResult<()> {
    remove(connection, &owner_of(owner, run))
}

fn remove(connection: &Connection, owner: &str) -> EtlResult<()> {
    for name in ledger::tables_of(connection, owner)? {
        drop_table(connection, &name)?;
    }
    ledger::forget_owner(connection, owner)
}

fn drop_table(connection: &Connection, name: &TableName) -> EtlResult<()> {
    execute(connection, &format!("DROP TABLE IF EXISTS {}", quoted_table(name)), "drop a table", name)?;
    ledger::disown_table(connection, name)
}

/// Puts every staged table in the place of its own, all in this transaction. Does nothing where that was done.
pub(super) fn publish(
    connection: &Connection,
    tables: Tables<'_>,
    run: &str,
    replaced: &[Replacement],
) -> EtlResult<()> {
    let owner = owner_of(tables.owner, run);
    if ledger::is_shown(connection, tables.owner, run)? {
        return Ok(());
    }
    for Replacement { from, to } in replaced {
        if !exists(connection, &from.name)? {
            return Err(EtlError::new(ErrorKind::DestinationRejected, "what the run has staged is gone")
                .with("table", &to.name)
                .with("staged", &from.name)
                .hint("Somebody removed it: run again"));
        }
        ledger::forget(connection, tables.owner, to.id)?;
        if tables.begin_anew(connection, to)? {
            drop_table(connection, &to.name)?;
        }
        rename(connection, &from.name, &to.name)?;
        ledger::disown_table(connection, &from.name)?;
        ledger::own_table(connection, tables.owner, to.id, &to.name)?;
    }
    ledger::forget_owner(connection, &owner)?;
    ledger::show(connection, tables.owner, run)
}
