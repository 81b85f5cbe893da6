//! May a table that has changed at the source go on by itself? The destination says so, and what somebody wished is not asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::describe::{copied_again, describe, is_same};
use super::quarantine::refused;
use super::run::Run;
use crate::destination::{AnyDestination, Destination, TableChange};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::postgres::Session;
use crate::schema::{TableId, TableSchema};
use crate::source::{PublishedTable, published_table};
use crate::store::{Phase, SharedStore, TableState};

/// The fact of the store with the tables that are let go on.
const WISHED: &str = "tables.wished";

/// Why a table may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowance {
    /// The destination takes it as it is now.
    Granted,
    /// Somebody wished it: it is copied.
    Wished,
}

/// The tables that somebody lets go on, whatever they look like, until they are copied.
#[derive(Debug, Default)]
pub(super) struct Wished(Mutex<BTreeSet<TableId>>);

impl Wished {
    pub(super) async fn read(store: &SharedStore) -> EtlResult<Self> {
        let Some(text) = store.fact(WISHED).await? else { return Ok(Self::default()) };
        let tables = serde_json::from_str(&text)
            .map_err(|e| EtlError::new(ErrorKind::Store, "what was wished of tables cannot be read").because(e))?;
        Ok(Self(Mutex::new(tables)))
    }

    pub(super) async fn add(&self, store: &SharedStore, table: TableId) -> EtlResult<()> {
        let mut tables = self.0.lock().await;
        if tables.insert(table) { write(store, &tables).await } else { Ok(()) }
    }

    /// It was done.
    pub(super) async fn remove(&self, store: &SharedStore, table: TableId) -> EtlResult<()> {
        let mut tables = self.0.lock().await;
        if tables.remove(&table) { write(store, &tables).await } else { Ok(()) }
    }

    pub(super) async fn has(&self, table: TableId) -> bool {
        self.0.lock().await.contains(&table)
    }
}

async fn write(store: &SharedStore, tables: &BTreeSet<TableId>) -> EtlResult<()> {
    let text = serde_json::to_string(tables)
        .map_err(|e| EtlError::new(ErrorKind::Internal, "what is wished of tables cannot be stored").because(e))?;
    store.set_fact(WISHED, text).await
}

/// Who decides.
pub(super) struct Allowed<'a> {
    pub(super) destination: &'a AnyDestination,
    pub(super) wished: &'a Wished,
}

impl Allowed<'_> {
    /// # Errors
    /// [`SchemaChanged`](ErrorKind::SchemaChanged), of the table, where it is to stop.
    pub(super) async fn ask(&self, change: TableChange) -> EtlResult<Allowance> {
        let table = change.after.id;
        match self.destination.allow_change(change).await {
            Ok(()) => Ok(Allowance::Granted),
            Err(error) if error.kind() != ErrorKind::SchemaChanged => Err(error),
            Err(_) if self.wished.has(table).await => Ok(Allowance::Wished),
            Err(error) => Err(error.of_table(table)),
        }
    }

    /// What becomes of a table for which something has happened while nobody watched: it is copied again, or stops.
    pub(super) async fn copied_again(
        &self,
        store: &SharedStore,
        state: &TableState,
        before: &Arc<TableSchema>,
        after: &Arc<TableSchema>,
        what: String,
    ) -> EtlResult<TableState> {
        let (id, name) = (after.id, after.source_name());
        let change =
            TableChange { before: Arc::clone(before), after: Arc::clone(after), is_copied: true, what: what.clone() };
        let was_copied = state.generation > 0 && state.phase != Phase::Removed;
        let asked = if was_copied { self.ask(change).await } else { Ok(Allowance::Wished) };
        match asked {
            Err(error) if error.kind() == ErrorKind::SchemaChanged => {
                tracing::error!(table = %name, %error, "the table changed meanwhile: it is in quarantine");
                let phase = Phase::Quarantined(Box::new(refused(&error)));
                let state = TableState { phase, ..state.clone() };
                let revision = store.set_table_state(id, Some(state.revision), state.clone()).await?;
                Ok(TableState { revision, ..state })
            }
            asked => {
                asked?;
                tracing::warn!(table = %name, what, "the table changed meanwhile: it is copied again");
                copied_again(store, id, state.clone()).await
            }
        }
    }
}

impl Run {
    pub(super) async fn allow(&self, change: TableChange) -> EtlResult<Allowance> {
        Allowed { destination: &self.destination, wished: &self.wished }.ask(change).await
    }

    /// That a table may be copied as it is described now.
    pub(super) async fn expect_allowed(&self, table: &PublishedTable) -> EtlResult<()> {
        let id = table.schema.id;
        let before = Arc::clone(&self.published.get(id)?.selection.schema);
        let after = self.source.transform.select(&table.schema)?.schema;
        // Of one that was never copied, nobody knows any other shape.
        if self.states.get(id).generation == 0 || is_same(&before, &after) {
            return Ok(());
        }
        let what = describe(&before, &after);
        self.allow(TableChange { before, after, is_copied: true, what }).await.map(drop)
    }

    /// That a table may be copied again whose rows look different in the stream, or are in doubt.
    pub(super) async fn expect_copy_allowed(&self, id: TableId, what: &str) -> EtlResult<()> {
        let before = Arc::clone(&self.published.get(id)?.selection.schema);
        let session = Session::connect(&self.source.connect.for_purpose("tables")).await?;
        let found = published_table(session.client(), &self.publication, session.server_version(), id).await?;
        // What is not published is not copied, and whoever copies what does not fit the choice says so.
        let after = found.and_then(|now| self.source.transform.select(&now.schema).ok());
        let after = after.map_or_else(|| Arc::clone(&before), |selection| selection.schema);
        self.allow(TableChange { before, after, is_copied: true, what: what.to_owned() }).await.map(drop)
    }
}
