//! What do the rows that are there get in new columns? Written once a unit has altered all: DuckDB refuses, at the commit, what
//! a transaction alters after it has written to the table, if only a default.

use std::sync::Arc;

use duckdb::Connection;
use etl::error::EtlResult;
use etl::schema::SchemaChange;

use super::ddl;
use super::places::Tables;
use crate::writer::{FilledColumn, TargetTable};

/// What is owed to the rows of each table.
#[derive(Default)]
pub(super) struct Fills(Vec<(Arc<TargetTable>, Vec<FilledColumn>)>);

impl Fills {
    /// Owes the table's rows these values.
    pub(super) fn add(&mut self, table: &Arc<TargetTable>, columns: impl IntoIterator<Item = FilledColumn>) {
        let place = self.0.iter().position(|(owed, _)| owed.id == table.id);
        let place = place.unwrap_or_else(|| {
            self.0.push((Arc::clone(table), Vec::new()));
            self.0.len() - 1
        });
        self.0[place].1.extend(columns);
    }

    /// The table was altered once more.
    pub(super) fn follow(&mut self, table: &TargetTable, change: &SchemaChange) {
        for (_, columns) in self.0.iter_mut().filter(|(owed, _)| owed.id == table.id) {
            match change {
                SchemaChange::DropColumn(dropped) => columns.retain(|column| column.name != dropped.name),
                SchemaChange::RenameColumn { from, to } => {
                    columns
                        .iter_mut()
                        .filter(|column| column.name == *from)
                        .for_each(|column| column.name = to.clone());
                }
                _ => {}
            }
        }
    }

    /// Writes all that is owed.
    pub(super) fn write(&mut self, connection: &Connection, tables: Tables<'_>) -> EtlResult<()> {
        for (table, columns) in self.0.drain(..).filter(|(_, columns)| !columns.is_empty()) {
            ddl::fill(connection, &*tables.found(connection, &table)?, &columns)?;
        }
        Ok(())
    }
}
