//! What is a table called in a place, beside all others that are there? As the place's rules for names say.

use std::sync::{Arc, Mutex, PoisonError};

use etl::schema::{TableId, TableName, TableSchema};
use etl::store::SharedStore;
use etl::{EtlResult, Lsn, Position};
use etl_destinations::metadata_columns::MetadataColumns;
use etl_destinations::table_name::NameRules;

/// The store that the destination was opened over: it knows all tables.
#[derive(Default)]
pub(crate) struct Names(Mutex<Option<SharedStore>>);

/// A table's name, and those of its columns.
pub(crate) struct Named {
    pub(crate) table: TableName,
    pub(crate) columns: Vec<String>,
}

impl Names {
    /// From now on the tables are those of this store.
    pub(crate) fn are_of(&self, store: &SharedStore) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(store));
    }

    pub(crate) async fn of(&self, table: &TableSchema, rules: NameRules) -> EtlResult<Named> {
        let store = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all: Vec<(TableId, TableName)> = Vec::new();
        if let Some(store) = store {
            for (id, _) in store.table_states().await? {
                let schema = store.schema_at(id, Position::after(Lsn(u64::MAX))).await?;
                all.extend(schema.map(|schema| (id, schema.name.clone())));
            }
        }
        let columns = rules.map_columns(table, Some(&MetadataColumns::default()));
        let columns = columns.iter().map(|name| name.to_string()).collect();
        Ok(Named { table: rules.map_table(table.id, &table.name, &all), columns })
    }
}
