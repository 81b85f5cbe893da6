//! How do a table's existing rows reach the destination? One snapshot, several readers, pieces in flight.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::memory_budget::CopyBudget;
use super::run::Run;
use super::table::told;
use crate::clock;
use crate::data::TableRow;
use crate::destination::{CopyChunk, Destination};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::failpoint;
use crate::lsn::Position;
use crate::postgres::{ConnectOptions, Connection, Session};
use crate::schema::TableId;
use crate::source::{
    Chunk, ChunkReader, Chunks, PublishedTable, Snapshot, SnapshotId, join_snapshot, wait_for_writers,
};
use crate::store::SnapshotFilter;

/// A chunk's pieces are numbered within it: the token of a piece is the chunk's number and this many bits.
const PIECE_BITS: u32 = 24;

/// What the workers of one copy have in common.
struct Job {
    run: Arc<Run>,
    table: PublishedTable,
    snapshot: SnapshotId,
    token: CopyChunk,
    budget: CopyBudget,
    left: Mutex<Chunks>,
    /// Says that the table is to rest.
    leave: watch::Receiver<bool>,
    /// Whether all chunks are given out.
    is_given_out: watch::Sender<bool>,
}

impl Job {
    fn left(&self) -> MutexGuard<'_, Chunks> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies a table whose cursor P is fixed and whose destination table is empty; returns what was seen, or nothing when
/// the table is to rest before it is done.
pub(super) async fn copy_table(
    run: &Arc<Run>,
    id: TableId,
    generation: u64,
    cursor: Position,
    budget: &CopyBudget,
    leave: &watch::Receiver<bool>,
) -> EtlResult<Option<SnapshotFilter>> {
    let table = run.table(id)?.clone();
    let options = copy_options(run, &table);
    let session = Session::connect(&options).await?;
    let shows = |who| run.board.table(id, |status| status.waits_for = who);
    let snapshot = async {
        wait_for_writers(session.client(), &table, shows).await?;
        Snapshot::take(&options, &table, session.client()).await
    };
    let snapshot = tokio::select! {
        snapshot = Box::pin(snapshot) => snapshot?,
        () = told(leave.clone()) => {
            shows(None);
            return Ok(None);
        }
    };
    let token = CopyChunk { generation, index: 0, position: cursor, read_at: snapshot.read_at };
    run.destination.write_copy_chunk(id, token, Vec::new()).await?;

    let left = Chunks::new(snapshot.leaves.clone(), run.settings.copy.chunk_bytes.0);
    let workers = left.readers(run.settings.copy.connections_per_table);
    let Snapshot { connection, id: snapshot_id, filter, leaves, .. } = snapshot;
    let job = Arc::new(Job {
        run: Arc::clone(run),
        table,
        snapshot: SnapshotId { id: snapshot_id, leaves },
        token,
        budget: budget.clone(),
        left: Mutex::new(left),
        leave: leave.clone(),
        is_given_out: watch::Sender::new(false),
    });
    let mut tasks = JoinSet::new();
    // The connection that exported the snapshot reads too; it is the last to go.
    tasks.spawn(Box::pin(work(Arc::clone(&job), Some(connection)).in_current_span()));
    for _ in 1..workers {
        tasks.spawn(Box::pin(work(Arc::clone(&job), None).in_current_span()));
    }
    let mut exporters = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.map_err(|e| EtlError::new(ErrorKind::Internal, "a copy was cut short").because(e))?;
        exporters.push(ended?);
    }
    if *leave.borrow() {
        return Ok(None);
    }
    failpoint::visit("copy.finished").await?;
    Ok(Some(filter))
}

/// Reads chunks until there are none left.
async fn work(job: Arc<Job>, exporter: Option<Connection>) -> EtlResult<Option<Connection>> {
    let mut connection = match exporter {
        Some(connection) => connection,
        None => {
            let mut given_out = job.is_given_out.subscribe();
            tokio::select! {
                joined = joined(&job) => joined?,
                // Behind somebody who waits for the exporter to let go of the table: nothing is left to help with.
                _ = given_out.wait_for(|given_out| *given_out) => return Ok(None),
            }
        }
    };
    let mut writes = JoinSet::new();
    loop {
        let next = job.left().next();
        let Some(chunk) = next.filter(|_| !*job.leave.borrow()) else {
            job.is_given_out.send_replace(true);
            break;
        };
        read_chunk(&job, &mut connection, &chunk, &mut writes).await?;
    }
    while let Some(written) = writes.join_next().await {
        settle(written)?;
    }
    Ok(Some(connection))
}

fn copy_options(run: &Run, table: &PublishedTable) -> ConnectOptions {
    run.source.connect.for_purpose(&format!("copy {}", table.schema.name))
}

async fn joined(job: &Job) -> EtlResult<Connection> {
    let mut connection = Connection::connect(&copy_options(&job.run, &job.table)).await?;
    join_snapshot(&mut connection, &job.table, &job.snapshot).await?;
    Ok(connection)
}

type Writes = JoinSet<EtlResult<()>>;

async fn read_chunk(job: &Arc<Job>, connection: &mut Connection, chunk: &Chunk, writes: &mut Writes) -> EtlResult<()> {
    let selection = job.run.selections.get(&job.table.schema.id);
    let selection = selection.ok_or_else(|| EtlError::new(ErrorKind::Internal, "the table has no schema"))?;
    let mut reader = ChunkReader::open(connection, &job.table, selection, chunk).await?;
    let mut piece = 0;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let mut reading = Duration::ZERO;
    loop {
        let begun = clock::monotonic();
        let Some(more) = reader.next().await? else { break };
        reading += clock::monotonic().saturating_duration_since(begun);
        bytes += more.bytes;
        if rows.is_empty() {
            rows = more.rows;
        } else {
            rows.extend(more.rows);
        }
        if bytes >= job.budget.piece {
            write(job, chunk, piece, std::mem::take(&mut rows), std::mem::take(&mut bytes), writes).await?;
            piece += 1;
            if *job.leave.borrow() {
                return Ok(());
            }
        }
    }
    job.left().took(chunk, reading);
    failpoint::visit("copy.chunk_read").await?;
    if !rows.is_empty() {
        write(job, chunk, piece, rows, bytes, writes).await?;
    }
    Ok(())
}

/// Sends a piece on its way once the one before it is written and the budget has room for it.
async fn write(
    job: &Arc<Job>,
    chunk: &Chunk,
    piece: u64,
    rows: Vec<TableRow>,
    bytes: usize,
    writes: &mut Writes,
) -> EtlResult<()> {
    let permit = job.budget.take(bytes).await?;
    let held = Held::new(&job.run, bytes);
    // One piece is written while the next is read: what a destination makes of a piece needs memory too.
    if let Some(written) = writes.join_next().await {
        settle(written)?;
    }
    let job = Arc::clone(job);
    let token = CopyChunk { index: chunk.number << PIECE_BITS | piece, ..job.token };
    let writing = async move {
        let (id, count) = (job.table.schema.id, rows.len() as u64);
        job.run.destination.write_copy_chunk(id, token, rows).await?;
        drop((permit, held));
        job.run.board.rows_copied(id, count);
        failpoint::visit("copy.chunk_written").await
    };
    writes.spawn(writing.in_current_span());
    Ok(())
}

/// Bytes of rows that are not written yet, on the board.
struct Held {
    run: Arc<Run>,
    bytes: u64,
}

impl Held {
    fn new(run: &Arc<Run>, bytes: usize) -> Self {
        run.board.copy_holds(bytes as u64);
        Self { run: Arc::clone(run), bytes: bytes as u64 }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.run.board.copy_let_go(self.bytes);
    }
}

fn settle(written: Result<EtlResult<()>, tokio::task::JoinError>) -> EtlResult<()> {
    written.map_err(|e| EtlError::new(ErrorKind::Internal, "a write of copied rows was cut short").because(e))?
}
