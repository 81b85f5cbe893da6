//! Under which name is each table in the file? The one that it is to have, unless another table is still there.

use std::collections::HashSet;
use std::sync::Arc;

use duckdb::Connection;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{TableId, TableName};

use super::ddl::{exists, quoted, quoted_table, run};
use super::ledger::{self, Holder};
use crate::writer::TargetTable;

/// Whose tables these are, and which of them are gone at the source: whoever has their name there has it here, too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables<'a> {
    pub(super) owner: &'a str,
    pub(super) gone: &'a HashSet<TableId>,
}

/// What is in the way of a name.
enum Found {
    Nothing,
    /// A table without the name of whoever made it here, or the one itself.
    Own,
    /// One that another table of the source was written to.
    Other(TableId),
}

impl Tables<'_> {
    /// The table as it is here.
    pub(super) fn found(self, connection: &Connection, table: &Arc<TargetTable>) -> EtlResult<Arc<TargetTable>> {
        match ledger::place(connection, self.owner, table.id)? {
            Some(name) if !is_same(&name, &table.name) => {
                Ok(Arc::new(TargetTable { name, ..TargetTable::clone(table) }))
            }
            _ => Ok(Arc::clone(table)),
        }
    }

    /// Gives the table its name; `false` where there is no such table.
    ///
    /// # Errors
    /// `DestinationRejected` where somebody else's table has it.
    pub(super) fn settle(self, connection: &Connection, table: &TargetTable) -> EtlResult<bool> {
        let place = ledger::place(connection, self.owner, table.id)?;
        if place.as_ref().is_some_and(|name| is_same(name, &table.name)) {
            return exists(connection, &table.name);
        }
        let place = match place {
            Some(name) if exists(connection, &name)? => Some(name),
            _ => None,
        };
        match (self.at(connection, table)?, place) {
            (Found::Own, Some(from)) => {
                Err(EtlError::new(ErrorKind::DestinationRejected, "a renamed table finds its new name taken")
                    .with("table", from)
                    .with("new name", &table.name)
                    .hint("Move the other table away, then start again"))
            }
            (Found::Own, None) => {
                ledger::own_table(connection, self.owner, table.id, &table.name)?;
                Ok(true)
            }
            (found, place) => {
                if let Found::Other(other) = found {
                    self.make_way(connection, &table.name, other)?;
                }
                let Some(from) = place else { return Ok(false) };
                rename(connection, &from, &table.name)?;
                ledger::own_table(connection, self.owner, table.id, &table.name)?;
                Ok(true)
            }
        }
    }

    /// Leaves nothing of the table but what has its name, which is its own then; `false` where there is no such table.
    pub(super) fn begin_anew(self, connection: &Connection, table: &TargetTable) -> EtlResult<bool> {
        if let Some(before) =
            ledger::place(connection, self.owner, table.id)?.filter(|name| !is_same(name, &table.name))
        {
            run(connection, &format!("DROP TABLE IF EXISTS {}", quoted_table(&before)), "drop a table", &before)?;
            ledger::disown_table(connection, &before)?;
        }
        match self.at(connection, table)? {
            Found::Nothing => return Ok(false),
            Found::Other(other) if !self.gone.contains(&other) => {
                self.make_way(connection, &table.name, other)?;
                return Ok(false);
            }
            Found::Other(_) | Found::Own => {}
        }
        ledger::own_table(connection, self.owner, table.id, &table.name)?;
        Ok(true)
    }

    fn at(self, connection: &Connection, table: &TargetTable) -> EtlResult<Found> {
        if !exists(connection, &table.name)? {
            return Ok(Found::Nothing);
        }
        Ok(match ledger::holder(connection, &table.name)? {
            Holder { owner: Some(owner), table: Some(other) } if owner == self.owner && other != table.id => {
                Found::Other(other)
            }
            _ => Found::Own,
        })
    }

    /// What was written to a table that is gone at the source goes with it; another one waits under another name until it
    /// is known which one it has now.
    fn make_way(self, connection: &Connection, name: &TableName, other: TableId) -> EtlResult<()> {
        if self.gone.contains(&other) {
            run(connection, &format!("DROP TABLE {}", quoted_table(name)), "drop a table", name)?;
            return ledger::disown_table(connection, name);
        }
        let aside = |n: u32| {
            let more = if n == 0 { String::new() } else { format!("_{n}") };
            TableName::new(name.schema.clone(), format!("{}_{other}{more}", name.name))
        };
        for to in (0..).map(aside) {
            if !exists(connection, &to)? {
                rename(connection, name, &to)?;
                return ledger::own_table(connection, self.owner, other, &to);
            }
        }
        Ok(())
    }
}

/// Whether DuckDB takes them for one.
fn is_same(one: &TableName, other: &TableName) -> bool {
    let folded = |name: &TableName| (name.schema.to_lowercase(), name.name.to_lowercase());
    folded(one) == folded(other)
}

pub(super) fn rename(connection: &Connection, from: &TableName, to: &TableName) -> EtlResult<()> {
    let (old, new) = (quoted_table(from), quoted_table(to));
    let sql = if from.schema == to.schema {
        format!("ALTER TABLE {old} RENAME TO {}", quoted(&to.name))
    } else {
        let schema = quoted(&to.schema);
        format!("CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TABLE {new} AS FROM {old}; DROP TABLE {old}")
    };
    run(connection, &sql, "rename a table", from)
}
