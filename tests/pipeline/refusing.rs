//! What if the destination takes everything but one table? A destination in memory that refuses what it is told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use etl::data::{CopiedRows, Event, TableRow};
use etl::destination::{Batch, Capabilities, CopyChunk, Destination, MemoryDestination};
use etl::schema::{TableId, TableSchema};
use etl::{CursorId, ErrorKind, EtlError, EtlResult, Position};

/// Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Refusing {
    memory: MemoryDestination,
    refused: Arc<Mutex<Option<(TableId, ErrorKind)>>>,
    refusals: Arc<AtomicUsize>,
}

impl Refusing {
    pub(crate) fn new(memory: MemoryDestination) -> Self {
        Self { memory, refused: Arc::default(), refusals: Arc::default() }
    }

    /// From now on, writes of this table fail with an error of this kind.
    pub(crate) fn refuse(&self, table: TableId, kind: ErrorKind) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((table, kind));
    }

    /// Takes everything again.
    pub(crate) fn relent(&self) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How often it has refused.
    pub(crate) fn refusals(&self) -> usize {
        self.refusals.load(Ordering::SeqCst)
    }

    fn expect(&self, tables: impl IntoIterator<Item = TableId>) -> EtlResult<()> {
        let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((table, kind)) = refused else { return Ok(()) };
        if !tables.into_iter().any(|found| found == table) {
            return Ok(());
        }
        self.refusals.fetch_add(1, Ordering::SeqCst);
        let error = EtlError::new(kind, "the table is refused").with("table", table).hint("Let it relent");
        Err(error.of_table(table))
    }
}

impl Destination for Refusing {
    async fn truncate_table(&self, table_id: TableId) -> EtlResult<()> {
        self.memory.truncate_table(table_id).await
    }

    async fn write_table_rows(&self, table_id: TableId, table_rows: Vec<TableRow>) -> EtlResult<()> {
        self.memory.write_table_rows(table_id, table_rows).await
    }

    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        self.memory.write_events(events).await
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
        self.memory.replaces_copied_rows(schema)
    }

    async fn write_copy_chunk(&self, table_id: TableId, chunk: CopyChunk, table_rows: CopiedRows) -> EtlResult<()> {
        self.expect([table_id])?;
        self.memory.write_copy_chunk(table_id, chunk, table_rows).await
    }

    async fn write_batch(&self, batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        self.expect(events.iter().flat_map(|event| event.table_ids().iter().copied()))?;
        self.memory.write_batch(batch, events).await
    }

    async fn go_back(&self, to: Position) -> EtlResult<()> {
        self.memory.go_back(to).await
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        self.memory.durable_position(cursor).await
    }
}
