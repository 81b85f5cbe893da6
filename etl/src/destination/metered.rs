//! How long do the calls of a destination take, and which fail? A destination that is measured, each call a span.

use std::future::Future;
use std::sync::Arc;

use tracing::{Instrument, debug_span};

use super::{
    AnyDestination, Batch, Capabilities, CopyChunk, Destination, Replayed, StagedRun, TableChange, ValueLimits,
};
use crate::clock;
use crate::data::{CopiedRows, Event, TableRow};
use crate::error::EtlResult;
use crate::lsn::Position;
use crate::metrics::DestinationMetrics;
use crate::schema::{TableExtras, TableId, TableSchema};
use crate::store::{CursorId, DeadLetter};

/// Forwards every call, and measures it.
#[derive(Debug, Clone)]
pub(crate) struct Metered {
    inner: AnyDestination,
    metrics: DestinationMetrics,
}

impl Metered {
    /// The calls count for this pipeline.
    pub(crate) fn new(inner: AnyDestination, pipeline: &str) -> Self {
        let metrics = DestinationMetrics { pipeline: pipeline.to_owned(), destination: inner.name().to_owned() };
        Self { inner, metrics }
    }

    async fn measured<T>(&self, call: &'static str, work: impl Future<Output = EtlResult<T>> + Send) -> EtlResult<T> {
        let begun = clock::monotonic();
        let done = work.await;
        self.metrics.took(call, clock::monotonic().saturating_duration_since(begun).as_secs_f64());
        if let Err(error) = &done {
            self.metrics.failed(call, error.kind().name());
        }
        done
    }
}

impl Destination for Metered {
    async fn truncate_table(&self, table_id: TableId) -> EtlResult<()> {
        let span = debug_span!("truncate_table", table = %table_id, destination = self.name());
        self.measured("truncate_table", self.inner.truncate_table(table_id)).instrument(span).await
    }

    async fn write_table_rows(&self, table_id: TableId, table_rows: Vec<TableRow>) -> EtlResult<()> {
        self.measured("write_table_rows", self.inner.write_table_rows(table_id, table_rows)).await
    }

    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        self.measured("write_events", self.inner.write_events(events)).await
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn value_limits(&self) -> ValueLimits {
        self.inner.value_limits()
    }

    fn needs_all_values(&self, schema: &TableSchema) -> bool {
        self.inner.needs_all_values(schema)
    }

    fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
        self.inner.replaces_copied_rows(schema)
    }

    async fn allow_change(&self, change: TableChange) -> EtlResult<()> {
        self.inner.allow_change(change).await
    }

    async fn check_connection(&self) -> EtlResult<()> {
        self.measured("check_connection", self.inner.check_connection()).await
    }

    async fn startup(&self) -> EtlResult<()> {
        self.measured("startup", self.inner.startup()).await
    }

    async fn shutdown(&self) -> EtlResult<()> {
        self.measured("shutdown", self.inner.shutdown()).await
    }

    async fn begin_run(&self, run: StagedRun) -> EtlResult<()> {
        self.measured("begin_run", self.inner.begin_run(run)).await
    }

    async fn finalize_run(&self, run: StagedRun) -> EtlResult<()> {
        self.measured("finalize_run", self.inner.finalize_run(run)).await
    }

    async fn abandon_run(&self, run: StagedRun) -> EtlResult<()> {
        self.measured("abandon_run", self.inner.abandon_run(run)).await
    }

    async fn write_copy_chunk(&self, table_id: TableId, chunk: CopyChunk, table_rows: CopiedRows) -> EtlResult<()> {
        let (rows, index) = (table_rows.len(), chunk.index);
        let span = debug_span!("write_copy_chunk", table = %table_id, rows, index, destination = self.name());
        let writing = self.inner.write_copy_chunk(table_id, chunk, table_rows);
        self.measured("write_copy_chunk", writing).instrument(span).await
    }

    async fn write_batch(&self, batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        let (cursor, upto, count) = (batch.cursor, batch.upto, events.len());
        let span = debug_span!("write_batch", %cursor, %upto, events = count, destination = self.name());
        self.measured("write_batch", self.inner.write_batch(batch, events)).instrument(span).await
    }

    async fn complete_table(&self, table_id: TableId, extras: TableExtras) -> EtlResult<()> {
        self.measured("complete_table", self.inner.complete_table(table_id, extras)).await
    }

    async fn go_back(&self, to: Position) -> EtlResult<()> {
        self.measured("go_back", self.inner.go_back(to)).await
    }

    async fn replay(&self, letters: Vec<DeadLetter>) -> EtlResult<Replayed> {
        self.measured("replay", self.inner.replay(letters)).await
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        self.measured("durable_position", self.inner.durable_position(cursor)).await
    }
}
