//! Who reads a table's chunks? Several connections that share a snapshot, each with one piece in flight.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use super::board::Board;
use super::copy_ledger::CopyLedger;
use super::idle_connections::IdleConnections;
use super::memory_budget::CopyBudget;
use super::pace::Pace;
use super::run::Run;
use super::settings::CopySettings;
use super::table::told;
use super::table_copy::{CopyOrder, PIECE_BITS, copy_options};
use crate::clock;
use crate::data::CopiedRows;
use crate::destination::{AnyDestination, CopyChunk, Destination};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::failpoint;
use crate::memory::Part;
use crate::postgres::{ConnectOptions, Connection};
use crate::schema::TableId;
use crate::source::{Chunk, Chunks, PublishedTable, RowReader, Rows, Snapshot, SnapshotId, join_snapshot};
use crate::transform::Selection;

/// Where tables are copied from and to, and how.
pub(super) trait CopySite: Send + Sync {
    fn destination(&self) -> &AnyDestination;
    fn board(&self) -> &Arc<Board>;
    fn pace(&self) -> &Pace;
    fn settings(&self) -> &CopySettings;
    /// What of the table is passed on.
    fn selection(&self, table: TableId) -> EtlResult<Arc<Selection>>;
    fn options(&self, table: &PublishedTable) -> ConnectOptions;
    /// Connections that copies leave to each other, where they do.
    fn idle(&self) -> Option<&IdleConnections> {
        None
    }
}

impl CopySite for Run {
    fn destination(&self) -> &AnyDestination {
        &self.destination
    }

    fn board(&self) -> &Arc<Board> {
        &self.board
    }

    fn pace(&self) -> &Pace {
        &self.pace
    }

    fn settings(&self) -> &CopySettings {
        &self.settings.copy
    }

    fn selection(&self, table: TableId) -> EtlResult<Arc<Selection>> {
        Self::selection(self, table)
    }

    fn options(&self, table: &PublishedTable) -> ConnectOptions {
        copy_options(self, table)
    }

    fn idle(&self) -> Option<&IdleConnections> {
        Some(&self.idle)
    }
}

/// What the workers of one snapshot have in common.
pub(super) struct Job {
    site: Arc<dyn CopySite>,
    table: Arc<PublishedTable>,
    snapshot: SnapshotId,
    token: CopyChunk,
    budget: CopyBudget,
    left: Mutex<Chunks>,
    /// Where what is durable is noted, if that helps a later copy.
    ledger: Option<Arc<CopyLedger>>,
    /// Says that the table is to rest.
    leave: watch::Receiver<bool>,
    /// Whether no more chunks are given out.
    is_given_out: watch::Sender<bool>,
}

/// How far the workers came.
pub(super) enum Read {
    /// All chunks are durable.
    All,
    /// The table is to rest, or the snapshot is old. What they have begun is durable, where the table can go on.
    Stopped,
}

impl Job {
    pub(super) fn new(
        order: &CopyOrder<'_>,
        table: &Arc<PublishedTable>,
        snapshot: &Snapshot,
        token: CopyChunk,
        left: Chunks,
        ledger: Option<Arc<CopyLedger>>,
    ) -> Self {
        let site = Arc::clone(order.run) as Arc<dyn CopySite>;
        let snapshot = SnapshotId { id: snapshot.id.clone(), leaves: snapshot.leaves.clone() };
        Self { ledger, leave: order.leave.clone(), ..Self::of(site, table, snapshot, token, left, order.budget) }
    }

    /// Of which nothing is noted, and which nobody makes rest.
    pub(super) fn of(
        site: Arc<dyn CopySite>,
        table: &Arc<PublishedTable>,
        snapshot: SnapshotId,
        token: CopyChunk,
        left: Chunks,
        budget: &CopyBudget,
    ) -> Self {
        Self {
            site,
            table: Arc::clone(table),
            snapshot,
            token,
            budget: budget.clone(),
            left: Mutex::new(left),
            ledger: None,
            leave: watch::channel(false).1,
            is_given_out: watch::Sender::new(false),
        }
    }

    fn left(&self) -> MutexGuard<'_, Chunks> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next chunk; none once all are given out, or the workers are to stop.
    fn next(&self) -> Option<Chunk> {
        if *self.leave.borrow() || *self.is_given_out.borrow() {
            return None;
        }
        let next = self.left().next();
        if next.is_none() {
            self.is_given_out.send_replace(true);
        }
        next
    }
}

/// Reads all chunks, unless the snapshot gets old before.
pub(super) async fn read_all(
    job: Job,
    exporter: Connection,
    old: impl Future<Output = EtlResult<()>>,
) -> EtlResult<Read> {
    let workers = job.left().readers(job.site.settings().connections_per_table);
    let job = Arc::new(job);
    let mut tasks = JoinSet::new();
    // The connection that exported the snapshot reads too; it is the last to go.
    tasks.spawn(Box::pin(work(Arc::clone(&job), Some(exporter)).in_current_span()));
    for _ in 1..workers {
        tasks.spawn(Box::pin(work(Arc::clone(&job), None).in_current_span()));
    }
    let mut exporters = Vec::new();
    let mut old = std::pin::pin!(old);
    let (mut is_old, mut failed) = (false, None);
    loop {
        let ended = tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(ended) => flatten(ended).map(|exporter| exporters.push(exporter)),
                None => break,
            },
            renew = &mut old, if !is_old => {
                is_old = true;
                job.is_given_out.send_replace(true);
                renew
            }
        };
        // The others end what they have begun: nothing of this copy is written once it has failed.
        if let Err(error) = ended {
            job.is_given_out.send_replace(true);
            failed.get_or_insert(error);
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some(idle) = job.site.idle() {
        for connection in exporters.into_iter().flatten() {
            idle.keep_connection(connection).await;
        }
    }
    let is_all = job.left().is_empty() && !*job.leave.borrow();
    Ok(if is_all { Read::All } else { Read::Stopped })
}

fn flatten<T>(ended: Result<EtlResult<T>, JoinError>) -> EtlResult<T> {
    ended.map_err(|e| EtlError::new(ErrorKind::Internal, "a copy was cut short").because(e))?
}

/// How many times longer than reading it the writing of a chunk may count. What is read and not written is lost when the
/// run is killed; but what takes long whatever its size is not to be cut to pieces, so that it counts for destinations
/// with transactions only, which take small writes well.
const WRITES: u32 = 16;

/// One connection.
struct Worker {
    job: Arc<Job>,
    is_transactional: bool,
    /// The piece that is being written.
    writes: JoinSet<EtlResult<()>>,
    /// Chunks of which every piece was sent on its way, and their rows.
    sent: Vec<(Chunk, u64)>,
}

/// Reads chunks until there are none left.
async fn work(job: Arc<Job>, exporter: Option<Connection>) -> EtlResult<Option<Connection>> {
    let (mut connection, _seat) = match exporter {
        Some(connection) => (connection, None),
        None => {
            let mut given_out = job.is_given_out.subscribe();
            tokio::select! {
                joined = joined(&job) => joined.map(|(connection, seat)| (connection, Some(seat)))?,
                // Behind somebody who waits for the exporter to let go of the table: nothing is left to help with.
                _ = given_out.wait_for(|given_out| *given_out) => return Ok(None),
            }
        }
    };
    connection.within(&job.budget.memory, Part::Copies);
    let is_transactional = job.site.destination().capabilities().atomic;
    let mut worker = Worker { job, is_transactional, writes: JoinSet::new(), sent: Vec::new() };
    let read = worker.read_all(&mut connection).await;
    if read.is_err() {
        // A destination may go on with a write that nobody waits for, and would meet the next copy with it. Whether it
        // succeeds, nobody asks: it is not noted, and comes again.
        while worker.writes.join_next().await.is_some() {}
    }
    read.map(|()| Some(connection))
}

async fn joined(job: &Job) -> EtlResult<(Connection, OwnedSemaphorePermit)> {
    let seat = job.budget.admit().await?;
    let options = job.site.options(&job.table);
    let mut connection = match job.site.idle() {
        Some(idle) => idle.connection(&options).await?,
        None => Connection::connect(&options).await?,
    };
    join_snapshot(&mut connection, &job.table, &job.snapshot).await?;
    Ok((connection, seat))
}

impl Worker {
    async fn read_all(&mut self, connection: &mut Connection) -> EtlResult<()> {
        while let Some(chunk) = self.job.next() {
            self.read(connection, chunk).await?;
        }
        self.settle().await
    }

    async fn read(&mut self, connection: &mut Connection, chunk: Chunk) -> EtlResult<()> {
        let job = Arc::clone(&self.job);
        let selection = job.site.selection(job.table.schema.id)?;
        let mut reader = RowReader::open(connection, &job.table, &selection, Rows::Of(&chunk)).await?;
        let (mut piece, mut count) = (0, 0);
        let (mut rows, mut bytes) = (CopiedRows::default(), 0);
        let mut reading = Duration::ZERO;
        let cycle = clock::monotonic();
        loop {
            let begun = clock::monotonic();
            let more = {
                let mut next = pin!(reader.next());
                loop {
                    tokio::select! {
                        biased;
                        more = &mut next => break more?,
                        // What is held goes out before anybody waits for memory.
                        () = job.budget.pressed(), if !rows.is_empty() => {
                            self.write(&chunk, piece, std::mem::take(&mut rows), std::mem::take(&mut bytes)).await?;
                            piece += 1;
                        }
                    }
                }
            };
            let Some(more) = more else { break };
            // With what the caps make of it: a chunk that takes longer is more to lose, and an older snapshot.
            tokio::select! {
                () = job.site.pace().spend(more.rows.len(), more.bytes) => {}
                // Whoever waits for it to rest does not wait for the source too.
                () = told(job.leave.clone()) => {}
            }
            reading += clock::monotonic().saturating_duration_since(begun);
            bytes += more.bytes;
            count += more.rows.len() as u64;
            rows.append(more.rows);
            if bytes >= job.budget.piece {
                self.write(&chunk, piece, std::mem::take(&mut rows), std::mem::take(&mut bytes)).await?;
                piece += 1;
                if job.ledger.is_none() && *job.leave.borrow() {
                    return Ok(());
                }
            }
        }
        failpoint::visit("copy.chunk_read").await?;
        if !rows.is_empty() {
            self.write(&chunk, piece, rows, bytes).await?;
        }
        let cycle = clock::monotonic().saturating_duration_since(cycle);
        job.left().took(&chunk, if self.is_transactional { reading.max(cycle.min(reading * WRITES)) } else { reading });
        self.sent.push((chunk, count));
        Ok(())
    }

    /// Sends a piece on its way once the one before it is written.
    async fn write(&mut self, chunk: &Chunk, piece: u64, rows: CopiedRows, bytes: usize) -> EtlResult<()> {
        let held = Held::new(self.job.site.board(), bytes);
        // One piece is written while the next is read: what a destination makes of a piece needs memory too.
        self.settle().await?;
        let job = Arc::clone(&self.job);
        let token = CopyChunk { index: job.token.index | chunk.number << PIECE_BITS | piece, ..job.token };
        let writing = async move {
            let (id, count) = (job.table.schema.id, rows.len() as u64);
            job.site.destination().write_copy_chunk(id, token, rows).await?;
            drop(held);
            job.site.board().rows_copied(id, count);
            failpoint::visit("copy.chunk_written").await
        };
        self.writes.spawn(writing.in_current_span());
        Ok(())
    }

    /// Waits for what is being written. Then every chunk that was sent is durable.
    async fn settle(&mut self) -> EtlResult<()> {
        while let Some(written) = self.writes.join_next().await {
            written
                .map_err(|e| EtlError::new(ErrorKind::Internal, "a write of copied rows was cut short").because(e))??;
        }
        for (chunk, rows) in self.sent.drain(..) {
            if let Some(ledger) = &self.job.ledger {
                ledger.note(&chunk, rows).await?;
            }
        }
        Ok(())
    }
}

/// Bytes of rows that are not written yet, on the board.
struct Held {
    board: Arc<Board>,
    bytes: u64,
}

impl Held {
    fn new(board: &Arc<Board>, bytes: usize) -> Self {
        board.copy_holds(bytes as u64);
        Self { board: Arc::clone(board), bytes: bytes as u64 }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.board.copy_let_go(self.bytes);
    }
}
