//! How do events reach the destination? The loop of one cursor: read, assemble, write, acknowledge.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::apply_state::{ApplyState, Decision, Join};
use super::batch::Sealed;
use super::control::Stop;
use super::run::Run;
use crate::clock;
use crate::destination::{Batch, Destination};
use crate::error::{ErrorKind, EtlError, EtlResult, RetryClass};
use crate::failpoint;
use crate::lsn::{Lsn, Position};
use crate::relay::{Read, Reader, StartAt};
use crate::retry::{RetryPolicy, Waits};
use crate::schema::TableId;
use crate::source::{Assembler, Boundary, Follow};
use crate::store::CursorId;

/// A table asks to share the main cursor.
#[derive(Debug)]
pub(super) struct JoinRequest {
    pub(super) table: TableId,
    /// The last commit that the table's cursor has begun to read.
    pub(super) begun: Lsn,
    pub(super) follow: Follow,
    /// Answers with the commit after which its changes come with the main cursor.
    pub(super) answer: oneshot::Sender<Lsn>,
    /// Told once the table has made everything up to there durable.
    pub(super) arrived: oneshot::Receiver<()>,
}

/// What happened while a cursor waited.
enum Input {
    Read(EtlResult<Read>),
    Written(EtlResult<()>),
    Join(JoinRequest),
    Arrived(TableId, bool),
    Time,
    Stop(Stop),
}

/// A task that does not outlive whoever waits for it: a late write would meet those of the next run.
struct Write(JoinHandle<EtlResult<()>>);

impl Drop for Write {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A write that is under way, and what it makes true.
struct InFlight {
    task: Write,
    upto: Position,
    boundary: Option<Boundary>,
    joins: Vec<Join>,
    events: usize,
}

/// One cursor.
pub(super) struct Applier {
    run: Arc<Run>,
    cursor: CursorId,
    reader: Reader,
    assembler: Assembler,
    state: ApplyState,
    in_flight: VecDeque<InFlight>,
    /// Everything up to here is durable.
    durable: Position,
    joins: mpsc::Receiver<JoinRequest>,
    /// Tables that were to join, and whether they have arrived.
    arrivals: mpsc::Receiver<(TableId, bool)>,
    arrive: mpsc::Sender<(TableId, bool)>,
    stop: watch::Receiver<Stop>,
    waits: Waits,
}

impl Applier {
    /// A cursor that begins after `durable`.
    pub(super) fn open(
        run: &Arc<Run>,
        cursor: CursorId,
        durable: Position,
        assembler: Assembler,
        joins: mpsc::Receiver<JoinRequest>,
    ) -> EtlResult<Self> {
        let mut reader = run.relay.reader(start_after(durable))?;
        // When the run ends before the cursor does, the next one reads on from here.
        reader.stay();
        let writes = run.destination.capabilities().writes_in_flight;
        let (arrive, arrivals) = mpsc::channel(16);
        Ok(Self {
            cursor,
            reader,
            assembler,
            state: ApplyState::new(durable, run.settings.batch.clone(), writes),
            in_flight: VecDeque::new(),
            durable,
            joins,
            arrivals,
            arrive,
            stop: run.stop.subscribe(),
            waits: RetryPolicy::default().waits(),
            run: Arc::clone(run),
        })
    }

    /// The last commit of which anything was read.
    pub(super) fn begun(&self) -> Lsn {
        self.assembler.begun()
    }

    /// Ends for good: what it has not read comes with another cursor.
    pub(super) fn leave(self) {
        self.reader.leave();
    }

    /// How far the reader is behind the relay's end, in bytes.
    pub(super) fn behind(&self) -> u64 {
        self.reader.behind()
    }

    /// Reads no further than this commit.
    pub(super) fn finish_at(&mut self, commit: Lsn) {
        self.assembler.stop_after(commit);
        self.state.finish_at(commit);
    }

    /// A table has made everything up to this commit durable by itself, and shares this cursor from there on.
    pub(super) fn joins_after(&mut self, table: TableId, commit: Lsn) {
        self.state.expect(table, commit);
        self.state.arrived(table, true);
    }

    /// Whether everything up to the commit of [`finish_at`](Self::finish_at) is durable.
    pub(super) fn has_finished(&self) -> bool {
        self.in_flight.is_empty() && self.state.has_finished()
    }

    /// Works until it is told to stop, or has reached the commit at which it ends.
    ///
    /// # Errors
    /// What trying again does not help against.
    pub(super) async fn work(&mut self) -> EtlResult<()> {
        while self.step().await? {}
        Ok(())
    }

    /// One decision and what it leads to; `false` once there is nothing left to do.
    pub(super) async fn step(&mut self) -> EtlResult<bool> {
        let done = match self.state.decide(clock::monotonic()) {
            Decision::Finish => return Ok(false),
            Decision::Write => self.write(),
            Decision::Advance(boundary) => {
                self.state.advance(clock::monotonic());
                self.reached(boundary);
                Ok(())
            }
            Decision::Wait { read, until } => {
                let input = self.input(read, until).await;
                self.take(input).await
            }
        };
        match done {
            Ok(()) => Ok(true),
            Err(error) if error.retry_class() == RetryClass::Transient => self.begin_again(error).await.map(|()| true),
            Err(error) => Err(error.with("cursor", self.cursor)),
        }
    }

    async fn input(&mut self, read: bool, until: Option<Instant>) -> Input {
        let is_draining = self.state.is_draining();
        let is_news = |stop: &Stop| if is_draining { *stop == Stop::Abort } else { *stop != Stop::No };
        tokio::select! {
            biased;
            stop = self.stop.wait_for(is_news) => Input::Stop(stop.map_or(Stop::Abort, |stop| *stop)),
            Some(join) = self.joins.recv() => Input::Join(join),
            Some((table, has_arrived)) = self.arrivals.recv() => Input::Arrived(table, has_arrived),
            written = front(&mut self.in_flight), if !self.in_flight.is_empty() => Input::Written(written),
            () = retry_until(until), if until.is_some() => Input::Time,
            read = self.reader.next(), if read => Input::Read(read),
        }
    }

    async fn take(&mut self, input: Input) -> EtlResult<()> {
        match input {
            Input::Read(read) => self.read(read?),
            Input::Written(written) => self.written(written).await,
            Input::Join(join) => {
                self.join(join);
                Ok(())
            }
            Input::Arrived(table, has_arrived) => {
                self.state.arrived(table, has_arrived);
                Ok(())
            }
            Input::Time => Ok(()),
            Input::Stop(Stop::Abort) => Err(EtlError::new(ErrorKind::Cancelled, "the pipeline was aborted")),
            Input::Stop(_) => {
                self.state.drain();
                Ok(())
            }
        }
    }

    fn read(&mut self, read: Read) -> EtlResult<()> {
        match read {
            Read::Block { bytes, offset, .. } => {
                let assembly = self.assembler.read(&bytes, offset)?;
                self.state.add(assembly, clock::monotonic());
            }
            Read::Rewound => {
                self.state.rewind();
                self.assembler.rewind(self.state.handed_out());
            }
        }
        Ok(())
    }

    /// Sends the batch on its way, in a task of its own, so that the next one fills meanwhile.
    fn write(&mut self) -> EtlResult<()> {
        let Some((Sealed { events, from, upto, boundary }, joins)) = self.state.take(clock::monotonic()) else {
            return Err(EtlError::new(ErrorKind::Internal, "there was nothing to write"));
        };
        let moves = joins.iter().map(|join| (join.table, CursorId::Main)).collect();
        let batch = Batch { cursor: self.cursor, from, upto, moves };
        let destination = self.run.destination.clone();
        let count = events.len();
        let task = tokio::spawn(async move {
            failpoint::visit("apply.before_write").await?;
            destination.write_batch(batch, events).await?;
            failpoint::visit("apply.after_write").await
        });
        self.in_flight.push_back(InFlight { task: Write(task), upto, boundary, joins, events: count });
        Ok(())
    }

    /// The oldest write has ended: what it covers is durable, or everything after `durable` is read again.
    async fn written(&mut self, written: EtlResult<()>) -> EtlResult<()> {
        let Some(write) = self.in_flight.pop_front() else { return Ok(()) };
        if let Err(error) = written {
            self.state.expect_again(write.joins);
            return Err(error);
        }
        self.state.written();
        self.waits.reset();
        self.durable = write.upto;
        self.run.store.advance(self.cursor, write.upto).await?;
        for join in &write.joins {
            self.run.table_joined(join.table, self.assembler.seen_until(join.table)).await?;
        }
        self.run.board.count_changes(write.events);
        if self.cursor == CursorId::Main {
            self.run.board.durable(write.upto);
        }
        if let Some(boundary) = write.boundary {
            self.reached(boundary);
        }
        Ok(())
    }

    /// Everything before the boundary is durable.
    fn reached(&mut self, boundary: Boundary) {
        self.reader.release(boundary.offset);
        if self.cursor == CursorId::Main {
            self.run.progress.reached(boundary.end);
        }
    }

    /// Fixes where a table's changes come over: after everything that either cursor has begun to read.
    fn join(&mut self, request: JoinRequest) {
        let JoinRequest { table, begun, follow, answer, arrived } = request;
        // What is durable is not read again after a restart.
        let at = begun.max(self.assembler.begun()).max(self.durable.commit);
        let after = follow.after.max(Position::after(at));
        self.assembler.follow(table, Follow { after, ..follow });
        self.state.expect(table, at);
        let arrivals = self.arrive.clone();
        tokio::spawn(async move {
            let has_arrived = arrived.await.is_ok();
            // Nobody listens any more when the pipeline ends.
            let _ = arrivals.send((table, has_arrived)).await;
        });
        if answer.send(at).is_err() {
            self.state.arrived(table, false);
        }
    }

    /// Waits, then reads again what is not durable.
    async fn begin_again(&mut self, error: EtlError) -> EtlResult<()> {
        self.run.board.failed(&error);
        for mut write in self.in_flight.drain(..) {
            write.task.0.abort();
            // Whether it ended by itself or by the abort, nothing of it goes on after this.
            let _ = (&mut write.task.0).await;
            self.state.expect_again(write.joins);
        }
        tokio::select! {
            waited = self.waits.after(error) => waited?,
            _ = self.stop.wait_for(|stop| *stop == Stop::Abort) => {
                return Err(EtlError::new(ErrorKind::Cancelled, "the pipeline was aborted"));
            }
        }
        let mut reader = self.run.relay.reader(start_after(self.durable))?;
        reader.stay();
        std::mem::replace(&mut self.reader, reader).leave();
        self.assembler.restart(self.durable);
        self.state.restart(self.durable);
        Ok(())
    }
}

/// The relay's first transaction that is not wholly durable.
pub(super) fn start_after(durable: Position) -> StartAt {
    if durable.ordinal == Position::WHOLE {
        StartAt::After(durable.commit)
    } else {
        StartAt::After(Lsn(durable.commit.0.saturating_sub(1)))
    }
}

/// Waits for the oldest write; the caller takes it out.
async fn front(in_flight: &mut VecDeque<InFlight>) -> EtlResult<()> {
    match in_flight.front_mut() {
        Some(write) => (&mut write.task.0).await.unwrap_or_else(|error| {
            Err(EtlError::new(ErrorKind::Internal, "a write to the destination was cut short").because(error))
        }),
        None => std::future::pending().await,
    }
}

async fn retry_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        crate::retry::pause(deadline.saturating_duration_since(clock::monotonic())).await;
    }
}
