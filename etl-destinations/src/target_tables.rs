//! Which tables has this process met, and what do they look like in the destination?

use std::collections::HashMap;
use std::sync::Arc;

use etl::schema::{TableId, TableName, TableSchema};

use crate::table_name::NameRules;
use crate::table_rules::TableRules;
use crate::writer::TargetTable;

/// The destination's tables, as far as they were written to.
#[derive(Debug)]
pub(crate) struct TargetTables {
    rules: TableRules,
    names: NameRules,
    /// The source's names of all tables; they decide who gets a name that several come to.
    known: Vec<(TableId, TableName)>,
    current: HashMap<TableId, Arc<TargetTable>>,
}

impl TargetTables {
    pub(crate) fn new(rules: TableRules, names: NameRules) -> Self {
        Self { rules, names, known: Vec::new(), current: HashMap::new() }
    }

    /// The rules that decide how tables are written.
    pub(crate) fn rules(&self) -> &TableRules {
        &self.rules
    }

    /// Whether the table's name is among those that tables are named by.
    pub(crate) fn knows(&self, table: TableId) -> bool {
        self.known.iter().any(|(id, _)| *id == table)
    }

    /// The names of all tables from now on.
    pub(crate) fn learn(&mut self, names: Vec<(TableId, TableName)>) {
        self.known = names;
    }

    /// The table as it is; `None` where it is yet to be ensured.
    pub(crate) fn get(&self, table: TableId) -> Option<&Arc<TargetTable>> {
        self.current.get(&table)
    }

    /// The table that rows of this shape belong into, by the rules alone.
    pub(crate) fn make(&self, schema: &Arc<TableSchema>) -> TargetTable {
        let settings = self.rules.of(schema.source_name());
        TargetTable {
            id: schema.id,
            name: self.names.map_table(schema.id, &schema.name, &self.known),
            columns: self.names.map_columns(schema, settings.metadata.as_deref()),
            write_mode: settings.write_mode,
            metadata: settings.metadata,
            source: Arc::clone(schema),
        }
    }

    /// The table after its source's shape changed. How it is written stays.
    pub(crate) fn reshape(&self, table: &TargetTable, schema: &Arc<TableSchema>) -> TargetTable {
        TargetTable {
            columns: self.names.map_columns(schema, table.metadata.as_deref()),
            write_mode: table.write_mode,
            metadata: table.metadata.clone(),
            ..self.make(schema)
        }
    }

    /// The tables are in the destination like this now.
    pub(crate) fn settle(&mut self, tables: impl IntoIterator<Item = Arc<TargetTable>>) {
        self.current.extend(tables.into_iter().map(|table| (table.id, table)));
    }

    /// The table has to be ensured again.
    pub(crate) fn forget(&mut self, table: TableId) {
        self.current.remove(&table);
    }
}
