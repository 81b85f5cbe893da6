//! How do events reach the destination? The loop of one cursor: read, assemble, write, acknowledge.

mod calls;
mod changed;
mod failed;
mod given_up;
mod request;

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::calls::Calls;
pub(super) use self::changed::{Changed, LeftChanged};
use self::changed::{Reshaped, Rest, Waiting};
pub(super) use self::failed::LeftFailed;
pub(super) use self::given_up::GiveUp;
use self::given_up::GivenUp;
pub(super) use self::request::{JoinRequest, Leave, LeaveRequest, Left, MainRequest};
use super::apply_state::{ApplyState, Decision, Join, Taken};
use super::batch::{Sealed, committed_at};
use super::board::CursorMeter;
use super::control::Stop;
use super::memory_budget::batch_limits;
use super::repair::Owed;
use super::run::Run;
use crate::clock::{self, Timestamp};
use crate::data::{Change, Event, Op};
use crate::destination::{Batch, Destination};
use crate::error::{ErrorKind, EtlError, EtlResult, RetryClass};
use crate::failpoint;
use crate::lsn::{Lsn, Position};
use crate::memory::{Claim, Part};
use crate::relay::{Read, Reader, StartAt};
use crate::retry::{RetryPolicy, Waits};
use crate::schema::TableId;
use crate::source::{Assembler, Assembly, Boundary, Follow, Reading};
use crate::store::{CursorId, SharedStore};

/// What happened while a cursor waited.
enum Input {
    Read(EtlResult<Read>),
    Written(EtlResult<()>),
    Request(MainRequest),
    Arrived(TableId, Option<Reading>),
    Crowded,
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
    leaves: Vec<(LeaveRequest, Follow)>,
    /// Whether it says that all tables were given up.
    gives_up: bool,
    /// Whether it is durable only with the rest of its transaction.
    is_piece: bool,
    events: usize,
    bytes: u64,
    /// When its oldest change was committed.
    oldest: Option<Timestamp>,
    begun: Instant,
}

/// One cursor.
pub(super) struct Applier {
    run: Arc<Run>,
    cursor: CursorId,
    reader: Reader,
    assembler: Assembler,
    state: ApplyState,
    in_flight: VecDeque<InFlight>,
    calls: Calls,
    /// Everything up to here is durable.
    durable: Position,
    /// The last commit of which anything was sent to be written, or that was passed: the destination may have it although
    /// nobody heard so.
    sent: Lsn,
    /// The end of what is durable, as the source counts.
    reached: Lsn,
    /// Of a table whose rows are from more than one snapshot.
    owed: Option<Owed>,
    /// Wakes it, so that its table is looked at.
    wake: Option<watch::Receiver<bool>>,
    requests: mpsc::Receiver<MainRequest>,
    leaves: Vec<LeaveRequest>,
    given_up: Option<GivenUp>,
    /// What is left of a block in which a table was found to look different.
    stopped: Option<Waiting>,
    /// Changes of shape that are not durable yet, and how rows were read before.
    reshaped: Vec<Reshaped>,
    /// Tables that were to join, and how they are read if they have arrived.
    arrivals: mpsc::Receiver<(TableId, Option<Reading>)>,
    arrive: mpsc::Sender<(TableId, Option<Reading>)>,
    stop: watch::Receiver<Stop>,
    waits: Waits,
    /// How many writes have failed in a row because of one table.
    strikes: u32,
    /// How many events were written that become durable with the next write.
    pieces: usize,
    /// What the events that wait to be written take beside their rows' bytes.
    notes: Claim,
    /// Where a status page looks.
    meter: Arc<CursorMeter>,
}

impl Applier {
    /// A cursor that begins after `durable`.
    pub(super) fn open(
        run: &Arc<Run>,
        cursor: CursorId,
        durable: Position,
        assembler: Assembler,
        requests: mpsc::Receiver<MainRequest>,
    ) -> EtlResult<Self> {
        // Of the commit itself nothing is there where the position is before its first change.
        let begun = if durable.ordinal > 0 { durable.commit } else { Lsn::ZERO };
        // What the source has forgotten already is in the relay alone. A table that joined before the end of it would
        // need it, and the next start keeps it only for tables that have not joined.
        let kept = run.relay.head().last.map_or(Lsn::ZERO, |last| last.commit);
        let mut reader = run.relay.reader_of(cursor, start_after(durable))?;
        // When the run ends before the cursor does, the next one reads on from here.
        reader.stay();
        reader.within(&run.board.memory, part_of(cursor));
        let can = run.destination.capabilities();
        let (arrive, arrivals) = mpsc::channel(16);
        Ok(Self {
            cursor,
            reader,
            assembler,
            state: ApplyState::new(durable, batch_limits(&run.settings), can).shown_whole(run.shown_whole(cursor)),
            in_flight: VecDeque::new(),
            calls: Calls::default(),
            durable,
            sent: if cursor == CursorId::Main { kept.max(begun) } else { begun },
            reached: Lsn::ZERO,
            owed: None,
            wake: None,
            requests,
            leaves: Vec::new(),
            given_up: None,
            stopped: None,
            reshaped: Vec::new(),
            arrivals,
            arrive,
            stop: run.stop.subscribe(),
            waits: RetryPolicy::default().waits(),
            strikes: 0,
            pieces: 0,
            notes: run.board.memory.charge(part_of(cursor), 0),
            meter: run.board.meter(cursor),
            run: Arc::clone(run),
        })
    }

    /// The last commit of which anything was read. What is read again after a failure counts from the first time: the
    /// destination skips what it has of this cursor.
    pub(super) fn begun(&self) -> Lsn {
        self.assembler.begun().max(self.sent)
    }

    /// Notes which rows are to be read again because the table's copy had several snapshots.
    pub(super) fn owes(&mut self, owed: Option<Owed>) {
        self.owed = owed;
    }

    /// Does not wait once this is said.
    pub(super) fn wake_when(&mut self, said: Option<watch::Receiver<bool>>) {
        self.wake = said;
    }

    /// Waits until nothing is being written.
    ///
    /// # Errors
    /// What trying again does not help against.
    pub(super) async fn settle(&mut self) -> EtlResult<()> {
        while !self.in_flight.is_empty() {
            let written = front(&mut self.in_flight).await;
            match self.written(written).await {
                Err(error) if error.retry_class() == RetryClass::Transient => self.begin_again(error).await?,
                done => done?,
            }
        }
        Ok(())
    }

    /// Everything before is durable, as far as the table goes.
    pub(super) fn reached_now(&self) -> Lsn {
        self.reached
    }

    /// Ends for good: what it has not read comes with another cursor.
    pub(super) fn leave(self) {
        self.run.board.forget_meter(self.cursor);
        self.reader.leave();
    }

    /// Writes what is complete and stops there; returns where that is, with what keeps the rest.
    ///
    /// # Errors
    /// What trying again does not help against.
    pub(super) async fn rest(&mut self) -> EtlResult<Left> {
        self.state.drain();
        self.work().await?;
        self.hold()
    }

    /// Where it is, with what keeps the rest; it reads no more.
    fn hold(&mut self) -> EtlResult<Left> {
        self.run.board.forget_meter(self.cursor);
        let mut hold = self.run.relay.reader_of(self.cursor, start_after(self.durable))?;
        hold.stay();
        self.reader.let_go();
        let selection = match self.cursor {
            CursorId::Table(table) => {
                self.read_before(table).or_else(|| self.reading_of(table).map(|reading| reading.selection))
            }
            CursorId::Main => None,
        };
        Ok(Left { upto: self.durable, hold, selection })
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
        self.publish();
        if self.state.has_to_return() {
            self.recall_writes().await;
            self.read_again()?;
        }
        if self.stopped.is_some() && self.cursor != CursorId::Main {
            self.settle().await?;
            return Ok(self.stopped.is_none());
        }
        self.state.press(self.is_pressed());
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
            Err(error) => self.recover(error).await.map(|()| true),
        }
    }

    /// Shows what waits to become durable.
    fn publish(&self) {
        let in_flight = self.in_flight.iter().find_map(|write| write.oldest);
        let bytes = self.in_flight.iter().map(|write| write.bytes).sum::<u64>() + self.state.bytes() as u64;
        self.meter.show(in_flight.or_else(|| self.state.oldest()), bytes, self.reader.behind());
    }

    /// Whether somebody waits for memory that this cursor may hold: blocks of the stream, and what it read from disk.
    fn is_pressed(&self) -> bool {
        let memory = &self.run.board.memory;
        memory.is_pressed(Part::Stream) || memory.is_pressed(part_of(self.cursor))
    }

    async fn input(&mut self, read: bool, until: Option<Instant>) -> Input {
        let (memory, part) = (&self.run.board.memory, part_of(self.cursor));
        let can_give = self.state.can_give(clock::monotonic());
        let is_draining = self.state.is_draining();
        let is_news = |stop: &Stop| if is_draining { *stop == Stop::Abort } else { *stop != Stop::No };
        tokio::select! {
            biased;
            stop = self.stop.wait_for(is_news) => Input::Stop(stop.map_or(Stop::Abort, |stop| *stop)),
            Some(request) = self.requests.recv() => Input::Request(request),
            Some((table, reading)) = self.arrivals.recv() => Input::Arrived(table, reading),
            written = front(&mut self.in_flight), if !self.in_flight.is_empty() => Input::Written(written),
            () = retry_until(until), if until.is_some() => Input::Time,
            () = woken(self.wake.as_mut()), if !is_draining => Input::Time,
            () = self.run.relay.crowded(), if self.state.keeps_back() => Input::Crowded,
            () = memory.pressed(Part::Stream), if can_give => Input::Time,
            () = memory.pressed(part), if can_give => Input::Time,
            read = self.reader.next(), if read && self.stopped.is_none() => Input::Read(read),
        }
    }

    async fn take(&mut self, input: Input) -> EtlResult<()> {
        match input {
            Input::Read(read) => self.read(read?).await,
            Input::Written(written) => self.written(written).await,
            Input::Request(MainRequest::Join(join)) => {
                self.join(join);
                Ok(())
            }
            Input::Request(MainRequest::Leave(leave)) => {
                self.state.leave(leave.table);
                self.leaves.push(leave);
                Ok(())
            }
            Input::Request(MainRequest::GiveUp(request)) => self.give_up(request).await,
            Input::Arrived(table, reading) => {
                self.state.arrived(table, reading.is_some());
                match reading {
                    Some(reading) => self.assembler.arrived(table, reading),
                    None => drop(self.assembler.unfollow(table)),
                }
                self.go_on().await
            }
            Input::Crowded => self.show_in_parts().await,
            Input::Time => Ok(()),
            Input::Stop(Stop::Abort) => Err(EtlError::new(ErrorKind::Cancelled, "the pipeline was aborted")),
            Input::Stop(_) => {
                self.state.drain();
                Ok(())
            }
        }
    }

    async fn read(&mut self, read: Read) -> EtlResult<()> {
        match read {
            Read::Block { bytes, offset, in_stream } => self.block(Rest { bytes, offset, in_stream }).await?,
            Read::Rewound => {
                self.state.rewind();
                let handed_out = self.state.handed_out();
                self.read_as_before(handed_out);
                self.assembler.rewind(handed_out);
            }
        }
        Ok(())
    }

    /// Sends the batch on its way, in a task of its own, so that the next one fills meanwhile.
    fn write(&mut self) -> EtlResult<()> {
        let now = clock::monotonic();
        let Some(Taken { sealed, joining, leaving }) = self.state.take(now) else {
            return Err(EtlError::new(ErrorKind::Internal, "there was nothing to write"));
        };
        let Sealed { events, bytes, from, upto, boundary } = sealed;
        let is_piece = self.state.is_open();
        let share = self.notes.bytes().checked_div(events.len() + self.state.len()).unwrap_or(0);
        let notes = self.notes.split(share.saturating_mul(events.len()));
        let leaves = self.part(&leaving);
        let joined = joining.iter().map(|join| (join.table, CursorId::Main));
        let given_up = self.given_up.as_ref().filter(|_| !leaving.is_empty());
        let given_up_tables = given_up.map_or(&[][..], |given_up| &given_up.tables);
        let left = leaves.iter().map(|(leave, _)| leave.table).chain(given_up_tables.iter().copied());
        let left = left.map(|table| (table, CursorId::Table(table)));
        let batch = Batch { cursor: self.cursor, from, upto, moves: joined.chain(left).collect(), is_piece };
        let (destination, store) = (self.run.destination.clone(), SharedStore::clone(&self.run.store));
        let owed = match (self.cursor, &mut self.owed) {
            (CursorId::Table(table), Some(owed)) => Some((table, owed.of(&events)?)),
            _ => None,
        };
        self.run.touched.writes(&events);
        self.sent = self.sent.max(upto.commit);
        let (count, oldest) = (events.len(), events.iter().find_map(committed_at));
        let place = self.calls.next();
        let task = tokio::spawn(async move {
            // What is written is not held any more, though it may wait for what was sent before it to be acknowledged.
            let _notes = notes;
            // Before they are written: no restart forgets them.
            if let Some((table, keys)) = owed.filter(|(_, keys)| !keys.is_empty()) {
                store.add_repairs(table, keys).await?;
            }
            failpoint::visit("apply.before_write").await?;
            place.take(destination.write_batch(batch, events)).await?;
            failpoint::visit("apply.after_write").await
        });
        self.in_flight.push_back(InFlight {
            task: Write(task),
            upto,
            boundary,
            joins: joining,
            gives_up: given_up.is_some(),
            is_piece,
            leaves,
            events: count,
            bytes: bytes as u64,
            oldest,
            begun: now,
        });
        Ok(())
    }

    /// Follows these tables no more.
    fn part(&mut self, leaving: &[TableId]) -> Vec<(LeaveRequest, Follow)> {
        let mut parted = Vec::new();
        for request in self.leaves.extract_if(.., |leave| leaving.contains(&leave.table)) {
            match self.assembler.unfollow(request.table) {
                Some(follow) => parted.push((request, follow)),
                None => {
                    let stray = EtlError::new(ErrorKind::Internal, "the table does not share the main cursor");
                    // Whoever asked may be gone.
                    let _ = request.answer.send(Err(stray));
                }
            }
        }
        parted
    }

    /// The write has failed: its tables neither joined nor left.
    fn take_back(&mut self, joins: Vec<Join>, leaves: Vec<(LeaveRequest, Follow)>) {
        self.state.expect_again(joins, leaves.iter().map(|(leave, _)| leave.table));
        for (leave, follow) in leaves {
            self.assembler.follow(leave.table, follow);
            self.leaves.push(leave);
        }
    }

    /// The oldest write has ended: what it covers is durable, or everything after `durable` is read again.
    async fn written(&mut self, written: EtlResult<()>) -> EtlResult<()> {
        let Some(write) = self.in_flight.pop_front() else { return Ok(()) };
        if let Err(error) = written {
            self.take_back(write.joins, write.leaves);
            return Err(error);
        }
        self.state.written();
        if write.is_piece {
            self.pieces += write.events;
            return self.go_on().await;
        }
        self.waits.reset();
        self.strikes = 0;
        self.durable = write.upto;
        self.run.store.advance(self.cursor, write.upto).await?;
        // What joined before everything was given up is given up, too.
        for join in write.joins.iter().filter(|_| self.given_up.is_none()) {
            self.run.table_joined(join.table, self.assembler.seen_until(join.table)).await?;
        }
        for (LeaveRequest { table, why, answer }, follow) in write.leaves {
            let mut hold = self.run.relay.reader_of(CursorId::Table(table), start_after(write.upto))?;
            hold.stay();
            self.run.table_left(table, why, write.upto, follow.seen).await?;
            let selection = self.read_before(table).or(Some(follow.selection));
            // Whoever asked may be gone.
            let _ = answer.send(Ok(Left { upto: write.upto, hold, selection }));
        }
        if write.gives_up {
            self.has_given_up()?;
        }
        for passed in self.reshaped.extract_if(.., |reshaped| reshaped.position <= write.upto) {
            self.run.store.prune_schemas(passed.table, passed.position).await?;
        }
        self.go_on().await?;
        let took = clock::monotonic().saturating_duration_since(write.begun);
        let events = write.events + std::mem::take(&mut self.pieces);
        self.run.board.batch_written(self.cursor, write.upto, events, write.oldest, took);
        if let Some(boundary) = write.boundary {
            self.reached(boundary);
        }
        Ok(())
    }

    /// Everything before the boundary is durable.
    fn reached(&mut self, boundary: Boundary) {
        self.reader.release(boundary.offset);
        self.reached = self.reached.max(boundary.end);
        self.sent = self.sent.max(boundary.position.commit);
        if self.cursor == CursorId::Main {
            self.run.progress.reached(boundary.end);
            self.run.board.reached(boundary.end);
        }
    }

    /// Fixes where a table's changes come over: after everything that either cursor has begun to read.
    fn join(&mut self, request: JoinRequest) {
        let JoinRequest { table, begun, follow, answer, arrived } = request;
        // What is durable is not read again after a restart.
        let at = begun.max(self.begun()).max(self.durable.commit);
        let after = follow.after.max(Position::after(at));
        self.assembler.expect(table, Follow { after, ..follow });
        self.state.expect(table, at);
        let arrivals = self.arrive.clone();
        tokio::spawn(async move {
            let reading = arrived.await.ok();
            // Nobody listens any more when the pipeline ends.
            let _ = arrivals.send((table, reading)).await;
        });
        if answer.send(at).is_err() {
            self.state.arrived(table, false);
        }
    }
}

/// What a cursor reads from disk counts for this.
fn part_of(cursor: CursorId) -> Part {
    match cursor {
        CursorId::Main => Part::Backlog,
        CursorId::Table(_) => Part::CatchUp,
    }
}

/// What the events of a block take beside the block.
fn notes_of(assembly: &Assembly, block: usize) -> usize {
    let row = assembly.events.iter().find_map(|event| match event {
        Event::Change(Change { op: Op::Insert { new } | Op::Update { new, .. }, .. }) => Some(new),
        Event::Change(Change { op: Op::Delete { old }, .. }) => Some(old.row()),
        _ => None,
    });
    let spans = row.map_or(0, |row| row.buffer().byte_size().saturating_sub(block));
    spans + assembly.made + assembly.events.len() * size_of::<Event>()
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

/// Waits for ever where nobody wakes it.
async fn woken(wake: Option<&mut watch::Receiver<bool>>) {
    let is_said = match wake {
        Some(wake) => wake.wait_for(|said| *said).await.is_ok(),
        None => false,
    };
    if !is_said {
        std::future::pending::<()>().await;
    }
}

async fn retry_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        crate::retry::pause(deadline.saturating_duration_since(clock::monotonic())).await;
    }
}
