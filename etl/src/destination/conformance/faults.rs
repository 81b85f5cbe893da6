//! What can go wrong between an engine and a place? A destination whose calls are refused, unheard, endless or slow.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use crate::data::{CopiedRows, Event, TableRow};
use crate::destination::{
    AnyDestination, Batch, Capabilities, CopyChunk, Destination, Replayed, StagedRun, TableChange,
};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Position;
use crate::schema::{TableExtras, TableId, TableSchema};
use crate::store::{CursorId, DeadLetter};

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is refused before anything happens.
    Reject,
    /// It happens, and fails all the same: the answer is lost.
    LoseAnswers,
    /// It begins, and never ends.
    Hang,
    /// It takes long.
    Slow,
}

/// A destination whose writes go wrong as long as it is told so. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Faulty {
    inner: AnyDestination,
    fault: Arc<Mutex<Option<Fault>>>,
    /// How often writes that hang are polled: further each time.
    patience: Arc<AtomicU32>,
}

impl Faulty {
    /// Does what the other one does, until it is told otherwise.
    pub fn new(inner: AnyDestination) -> Self {
        Self { inner, fault: Arc::default(), patience: Arc::default() }
    }

    /// Writes go wrong like this from now on; without a fault they go well.
    pub fn suffer(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    async fn write(&self, write: impl Future<Output = EtlResult<()>> + Send) -> EtlResult<()> {
        let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            None => write.await,
            Some(Fault::Reject) => Err(failed("the write was refused")),
            Some(Fault::LoseAnswers) => match write.await {
                Ok(()) => Err(failed("nothing was heard of the write")),
                refused => refused,
            },
            Some(Fault::Hang) => {
                let polls = self.patience.fetch_add(1, Relaxed);
                polled(write, polls).await;
                std::future::pending().await
            }
            Some(Fault::Slow) => slowly(write).await,
        }
    }
}

fn failed(what: &str) -> EtlError {
    EtlError::new(ErrorKind::DestinationUnavailable, what).hint("It is tried again")
}

/// Polls it so often, and drops it.
pub(super) async fn polled(work: impl Future, most: u32) {
    let mut work = pin!(work);
    let mut polls = 0;
    poll_fn(|context| {
        polls += 1;
        if polls > most || work.as_mut().poll(context).is_ready() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Lets everything else happen between any two of its steps.
async fn slowly<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut waits = 0_u8;
    poll_fn(|context| {
        waits = (waits + 1) % 8;
        if waits == 0 {
            return work.as_mut().poll(context);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

impl Destination for Faulty {
    async fn truncate_table(&self, table_id: TableId) -> EtlResult<()> {
        self.write(self.inner.truncate_table(table_id)).await
    }

    async fn write_table_rows(&self, table_id: TableId, table_rows: Vec<TableRow>) -> EtlResult<()> {
        self.write(self.inner.write_table_rows(table_id, table_rows)).await
    }

    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        self.write(self.inner.write_events(events)).await
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn check_connection(&self) -> EtlResult<()> {
        self.write(self.inner.check_connection()).await
    }

    async fn startup(&self) -> EtlResult<()> {
        self.write(self.inner.startup()).await
    }

    async fn shutdown(&self) -> EtlResult<()> {
        self.write(self.inner.shutdown()).await
    }

    async fn begin_run(&self, run: StagedRun) -> EtlResult<()> {
        self.write(self.inner.begin_run(run)).await
    }

    async fn finalize_run(&self, run: StagedRun) -> EtlResult<()> {
        self.write(self.inner.finalize_run(run)).await
    }

    async fn abandon_run(&self, run: StagedRun) -> EtlResult<()> {
        self.write(self.inner.abandon_run(run)).await
    }

    async fn write_copy_chunk(&self, table_id: TableId, chunk: CopyChunk, rows: CopiedRows) -> EtlResult<()> {
        self.write(self.inner.write_copy_chunk(table_id, chunk, rows)).await
    }

    fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
        self.inner.replaces_copied_rows(schema)
    }

    async fn allow_change(&self, change: TableChange) -> EtlResult<()> {
        self.inner.allow_change(change).await
    }

    async fn write_batch(&self, batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        self.write(self.inner.write_batch(batch, events)).await
    }

    async fn complete_table(&self, table_id: TableId, extras: TableExtras) -> EtlResult<()> {
        self.inner.complete_table(table_id, extras).await
    }

    async fn replay(&self, letters: Vec<DeadLetter>) -> EtlResult<Replayed> {
        self.inner.replay(letters).await
    }

    async fn go_back(&self, to: Position) -> EtlResult<()> {
        self.write(self.inner.go_back(to)).await
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        self.inner.durable_position(cursor).await
    }
}
