//! Which tables left the publication while nobody watched? What was written to them before is sent all the same.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;

use super::describe::{END, is_same};
use super::published::Published;
use crate::error::EtlResult;
use crate::schema::{TableId, TableSchema};
use crate::source::{Look, PublishedTable, Sight, existing_tables};
use crate::store::{Phase, SharedStore, TableState};
use crate::transform::Transform;

/// Tables that are not published any more, and go once the stream has passed that.
#[derive(Debug, Default)]
pub(super) struct Leaving(Vec<Published>);

impl Leaving {
    /// Finds them, as they were known: the server decodes what was written before with the catalog of then.
    pub(super) async fn find(
        client: &Client,
        store: &SharedStore,
        transform: &Transform,
        tables: &[PublishedTable],
        server_version: u32,
    ) -> EtlResult<Self> {
        let mut known: HashMap<TableId, Arc<TableSchema>> = HashMap::new();
        for (id, state) in store.table_states().await? {
            let is_published = tables.iter().any(|table| table.schema.id == id);
            if !is_published && matches!(state.phase, Phase::Ready | Phase::CatchingUp { .. }) {
                known.extend(store.schema_at(id, END).await?.map(|schema| (id, schema)));
            }
        }
        if known.is_empty() {
            return Ok(Self::default());
        }
        let ids: Vec<TableId> = known.keys().copied().collect();
        let existing = existing_tables(client, &ids, server_version).await?;
        let mut leaving = Vec::new();
        for (id, schema) in known {
            let existing =
                existing.iter().find(|table| table.schema.id == id).map(|table| table.called(schema.source_name()));
            let found = existing.and_then(|table| as_known(transform, table, &schema));
            // Without a choice of columns its rows come as they are stored.
            let found = found.or_else(|| as_known(transform, PublishedTable::gone(&schema), &schema));
            match found {
                Some(found) => leaving.push(found),
                None => {
                    tracing::warn!(table = %schema.source_name(), "what was written to the table before it left the publication may be missing")
                }
            }
        }
        Ok(Self(leaving))
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out tables that wait until the one that had their name is gone: whoever watches finds them then.
    pub(super) fn take_successors(&self, tables: &mut Vec<PublishedTable>, seen: &mut Look) -> Vec<PublishedTable> {
        let has_name =
            |table: &PublishedTable| self.0.iter().any(|leaving| leaving.table.schema.name == table.schema.name);
        let successors: Vec<PublishedTable> = tables.extract_if(.., |table| has_name(table)).collect();
        for table in &successors {
            seen.tables.remove(&table.schema.id.0);
        }
        successors
    }

    /// Lets whoever watches find that they are gone.
    pub(super) fn show(&self, seen: &mut Look) {
        for Published { table, .. } in &self.0 {
            let name = &table.schema.name;
            let sight = || Sight { schema: name.schema.to_string(), name: name.name.to_string(), ..Sight::default() };
            seen.tables.entry(table.schema.id.0).or_insert_with(sight);
        }
    }

    /// Whether the table is one of them.
    fn has(&self, id: TableId) -> bool {
        self.0.iter().any(|leaving| leaving.table.schema.id == id)
    }

    /// The tables, as they were known.
    pub(super) fn into_tables(self) -> Vec<Published> {
        self.0
    }
}

/// The table, where rows that come like this are what is stored of it.
fn as_known(transform: &Transform, table: PublishedTable, known: &Arc<TableSchema>) -> Option<Published> {
    let selection = transform.select(&table.schema).ok().filter(|selection| is_same(known, &selection.schema))?;
    let selection = Arc::new(selection.with_schema(Arc::clone(known)));
    Some(Published { table: Arc::new(table), selection })
}

/// The stored states of the tables that are published or leave; one that left before is removed.
pub(super) async fn keep_states(
    store: &SharedStore,
    tables: &[PublishedTable],
    leaving: &Leaving,
) -> EtlResult<HashMap<TableId, TableState>> {
    let mut states = HashMap::new();
    for (id, state) in store.table_states().await? {
        if leaving.has(id) || tables.iter().any(|table| table.schema.id == id) {
            states.insert(id, state);
        } else if state.phase != Phase::Removed {
            let (revision, removed) = (state.revision, TableState { phase: Phase::Removed, ..state });
            store.set_table_state(id, Some(revision), removed).await?;
            tracing::warn!(table = %id, "the table left the publication; its rows stay in the destination");
        }
    }
    Ok(states)
}
