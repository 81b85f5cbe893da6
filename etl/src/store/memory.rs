//! What does a store promise? The reference, in memory, for tests and for runs that need not survive.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    BoxFuture, CopiedLeaf, CopyStore, CursorId, DeadLetter, DeadLetterId, DeadLetterStore, Operation, OperationId,
    OperationStore, Progress, RepairKey, SchemaStore, StateStore, TableState, operation,
};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::schema::{TableId, TableSchema};

/// Remembers everything for as long as it lives.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    states: HashMap<TableId, TableState>,
    cursors: BTreeMap<CursorId, Position>,
    confirmed: Option<Lsn>,
    facts: HashMap<&'static str, String>,
    schemas: HashMap<TableId, BTreeMap<Position, Arc<TableSchema>>>,
    copied: BTreeMap<(TableId, TableId), CopiedLeaf>,
    repairs: BTreeSet<(TableId, RepairKey)>,
    operations: BTreeMap<OperationId, Operation>,
    letters: BTreeMap<DeadLetterId, DeadLetter>,
}

impl MemoryStore {
    /// Remembers nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ready<'a, T: Send + 'a>(value: EtlResult<T>) -> BoxFuture<'a, EtlResult<T>> {
    Box::pin(std::future::ready(value))
}

/// The error of a compare-and-set that lost.
pub(super) fn conflict(table: TableId, expected: Option<u64>, found: Option<u64>) -> EtlError {
    let text = |revision: Option<u64>| revision.map_or("none".to_owned(), |revision| revision.to_string());
    EtlError::new(ErrorKind::StoreConflict, "somebody else changed the state of a table")
        .with("table", table)
        .with("expected revision", text(expected))
        .with("found", text(found))
        .hint("Make sure that the pipeline runs only once")
}

impl StateStore for MemoryStore {
    fn table_states(&self) -> BoxFuture<'_, EtlResult<Vec<(TableId, TableState)>>> {
        ready(Ok(self.content().states.iter().map(|(id, state)| (*id, state.clone())).collect()))
    }

    fn set_table_state(&self, table: TableId, expect: Option<u64>, state: TableState) -> BoxFuture<'_, EtlResult<u64>> {
        let mut content = self.content();
        let found = content.states.get(&table).map(|state| state.revision);
        if found != expect {
            return ready(Err(conflict(table, expect, found)));
        }
        let revision = found.unwrap_or(0) + 1;
        content.states.insert(table, TableState { revision, ..state });
        ready(Ok(revision))
    }

    fn advance(&self, cursor: CursorId, to: Position) -> BoxFuture<'_, EtlResult<()>> {
        let mut content = self.content();
        let position = content.cursors.entry(cursor).or_insert(to);
        *position = to.max(*position);
        ready(Ok(()))
    }

    fn forget_cursor(&self, cursor: CursorId) -> BoxFuture<'_, EtlResult<()>> {
        self.content().cursors.remove(&cursor);
        ready(Ok(()))
    }

    fn confirm(&self, end: Lsn) -> BoxFuture<'_, EtlResult<()>> {
        let mut content = self.content();
        content.confirmed = content.confirmed.max(Some(end));
        ready(Ok(()))
    }

    fn set_back(&self, confirmed: Lsn) -> BoxFuture<'_, EtlResult<()>> {
        self.content().confirmed = Some(confirmed);
        ready(Ok(()))
    }

    fn progress(&self) -> BoxFuture<'_, EtlResult<Progress>> {
        let content = self.content();
        let cursors = content.cursors.iter().map(|(cursor, position)| (*cursor, *position)).collect();
        ready(Ok(Progress { cursors, confirmed: content.confirmed }))
    }

    fn fact(&self, name: &'static str) -> BoxFuture<'_, EtlResult<Option<String>>> {
        ready(Ok(self.content().facts.get(name).cloned()))
    }

    fn set_fact(&self, name: &'static str, value: String) -> BoxFuture<'_, EtlResult<()>> {
        self.content().facts.insert(name, value);
        ready(Ok(()))
    }
}

impl SchemaStore for MemoryStore {
    fn schema_at(&self, table: TableId, at: Position) -> BoxFuture<'_, EtlResult<Option<Arc<TableSchema>>>> {
        let content = self.content();
        let schemas = content.schemas.get(&table);
        let newest = schemas.and_then(|schemas| schemas.range(..=at).next_back());
        ready(Ok(newest.map(|(_, schema)| Arc::clone(schema))))
    }

    fn put_schema(&self, schema: Arc<TableSchema>) -> BoxFuture<'_, EtlResult<()>> {
        self.content().schemas.entry(schema.id).or_default().insert(schema.since, schema);
        ready(Ok(()))
    }

    fn prune_schemas(&self, table: TableId, before: Position) -> BoxFuture<'_, EtlResult<()>> {
        if let Some(schemas) = self.content().schemas.get_mut(&table)
            && let Some(in_force) = schemas.range(..=before).next_back().map(|(since, _)| *since)
        {
            schemas.retain(|since, _| *since >= in_force);
        }
        ready(Ok(()))
    }
}

impl CopyStore for MemoryStore {
    fn copied(&self, table: TableId) -> BoxFuture<'_, EtlResult<Vec<CopiedLeaf>>> {
        let content = self.content();
        let copied = content.copied.iter().filter(|((of, _), _)| *of == table);
        ready(Ok(copied.map(|(_, leaf)| leaf.clone()).collect()))
    }

    fn put_copied(&self, table: TableId, leaf: CopiedLeaf) -> BoxFuture<'_, EtlResult<()>> {
        self.content().copied.insert((table, leaf.leaf), leaf);
        ready(Ok(()))
    }

    fn repairs(&self, table: TableId) -> BoxFuture<'_, EtlResult<Vec<RepairKey>>> {
        let content = self.content();
        let repairs = content.repairs.iter().filter(|(of, _)| *of == table);
        ready(Ok(repairs.map(|(_, key)| key.clone()).collect()))
    }

    fn add_repairs(&self, table: TableId, keys: Vec<RepairKey>) -> BoxFuture<'_, EtlResult<()>> {
        self.content().repairs.extend(keys.into_iter().map(|key| (table, key)));
        ready(Ok(()))
    }

    fn remove_repairs(&self, table: TableId, keys: Vec<RepairKey>) -> BoxFuture<'_, EtlResult<()>> {
        let mut content = self.content();
        for key in keys {
            content.repairs.remove(&(table, key));
        }
        ready(Ok(()))
    }

    fn forget_copy(&self, table: TableId) -> BoxFuture<'_, EtlResult<()>> {
        let mut content = self.content();
        content.copied.retain(|(of, _), _| *of != table);
        content.repairs.retain(|(of, _)| *of != table);
        ready(Ok(()))
    }
}

impl OperationStore for MemoryStore {
    fn operations(&self) -> BoxFuture<'_, EtlResult<Vec<Operation>>> {
        let mut operations: Vec<Operation> = self.content().operations.values().cloned().collect();
        operations.sort_by_key(|operation| operation.sequence);
        ready(Ok(operations))
    }

    fn put_operation(
        &self,
        expect: Option<u64>,
        operation: Operation,
        dead: Vec<DeadLetter>,
    ) -> BoxFuture<'_, EtlResult<u64>> {
        let mut content = self.content();
        let found = content.operations.get(&operation.id).map(|operation| operation.revision);
        if found != expect {
            return ready(Err(operation::conflict(&operation.id, expect, found)));
        }
        let revision = found.unwrap_or(0) + 1;
        content.operations.insert(operation.id.clone(), Operation { revision, ..operation });
        content.letters.extend(dead.into_iter().map(|letter| (letter.id.clone(), letter)));
        ready(Ok(revision))
    }

    fn forget_operation(&self, id: OperationId) -> BoxFuture<'_, EtlResult<()>> {
        self.content().operations.remove(&id);
        ready(Ok(()))
    }
}

impl DeadLetterStore for MemoryStore {
    fn dead_letters(
        &self,
        table: Option<TableId>,
        after: Option<DeadLetterId>,
        limit: u32,
    ) -> BoxFuture<'_, EtlResult<Vec<DeadLetter>>> {
        let content = self.content();
        let letters = content.letters.values().filter(|letter| {
            table.is_none_or(|table| letter.table == table) && after.as_ref().is_none_or(|after| letter.id > *after)
        });
        ready(Ok(letters.take(limit as usize).cloned().collect()))
    }

    fn put_dead_letters(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, EtlResult<()>> {
        self.content().letters.extend(letters.into_iter().map(|letter| (letter.id.clone(), letter)));
        ready(Ok(()))
    }

    fn remove_dead_letters(&self, ids: Vec<DeadLetterId>) -> BoxFuture<'_, EtlResult<()>> {
        let mut content = self.content();
        for id in ids {
            content.letters.remove(&id);
        }
        ready(Ok(()))
    }
}
