//! What becomes of one table? It is copied, catches up, and joins the main cursor.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::Instrument;

use super::apply::{Applier, Changed, JoinRequest, Left, MainRequest};
use super::memory_budget::CopyBudget;
use super::repair::read_again;
use super::run::Run;
use super::table_copy::{Copied, CopyOrder};
use super::table_state::Begin;
use crate::destination::{Batch, Destination};
use crate::error::{ErrorKind, EtlError, EtlResult, RetryClass};
use crate::failpoint;
use crate::lsn::Position;
use crate::relay::{Reader, StartAt};
use crate::retry::RetryPolicy;
use crate::schema::TableId;
use crate::source::{Assembler, Follow};
use crate::store::CursorId;
use crate::store::{CopySoFar, Mixed, Phase, SnapshotFilter, TableState};

/// How near to the relay's end a table asks to join the main cursor.
const NEAR_BYTES: u64 = 1 << 20;

/// A table on its way to the main cursor.
pub(super) struct Table {
    pub(super) run: Arc<Run>,
    pub(super) id: TableId,
    pub(super) budget: CopyBudget,
    /// How many tables are copied at a time.
    pub(super) turns: Arc<Semaphore>,
    /// Keeps in the relay what a table that goes on catching up has to read.
    pub(super) hold: Option<Reader>,
    /// Says that the table is to rest.
    pub(super) leave: watch::Receiver<bool>,
}

/// How the work on a table ended.
#[derive(Debug)]
pub(super) enum Brought {
    /// It shares the main cursor.
    Joined,
    /// It rests, as it was told.
    Rests(Rest),
    /// The pipeline ends.
    Ended,
}

/// What a table that rests goes on from.
#[derive(Debug)]
pub(super) enum Rest {
    /// It is not copied.
    Pending,
    /// Its copy goes on under another snapshot, and then from what the reader keeps.
    Copying { cursor: Position, so_far: CopySoFar, hold: Reader },
    /// It has got so far in the relay.
    CatchingUp { left: Left, snapshot: SnapshotFilter, mixed: Option<Mixed> },
}

/// How catching up ended.
enum CaughtUp {
    Brought(Brought),
    /// The table looks different now; nothing is being written.
    Changed,
}

/// Where catching up begins.
struct CatchUp {
    from: Position,
    /// The cursor P of its first snapshot.
    cursor: Position,
    snapshot: SnapshotFilter,
    mixed: Option<Mixed>,
    /// Keeps in the relay what comes after `from`, until there is a reader for it.
    hold: Option<Reader>,
}

impl Table {
    /// Brings the table to where it shares the main cursor. A lost connection is made anew.
    ///
    /// # Errors
    /// What trying again does not help against.
    pub(super) async fn bring(mut self, mut begin: Begin) -> EtlResult<Brought> {
        loop {
            let catch_up = match begin {
                Begin::Share { .. } | Begin::Wait | Begin::Rest => return Ok(Brought::Joined),
                Begin::CatchUp { from, cursor, snapshot, mixed } => {
                    tracing::info!(table = %self.run.name(self.id), %from, "the table goes on catching up from the relay");
                    CatchUp { from, cursor, snapshot, mixed, hold: self.hold.take() }
                }
                Begin::Copy { .. } | Begin::Resume => match self.copy().await? {
                    Some(catch_up) => catch_up,
                    None => return Ok(Brought::Rests(self.rest())),
                },
            };
            match self.catch_up(catch_up).await? {
                CaughtUp::Brought(brought) => return Ok(brought),
                CaughtUp::Changed => {
                    self.run.set_phase(self.id, Phase::Pending).await?;
                    begin = Begin::Copy { generation: self.run.states.get(self.id).generation + 1 };
                }
            }
        }
    }

    /// What is left to do of a copy.
    fn rest(&mut self) -> Rest {
        match (self.run.states.get(self.id).phase, self.hold.take()) {
            (Phase::Copying { cursor, so_far: Some(so_far) }, Some(hold)) => Rest::Copying { cursor, so_far, hold },
            (_, hold) => {
                // It is copied anew, whatever happens: nobody needs what is kept.
                if let Some(hold) = hold {
                    hold.leave();
                }
                Rest::Pending
            }
        }
    }

    /// Copies the table; nothing when it is to rest.
    async fn copy(&mut self) -> EtlResult<Option<CatchUp>> {
        let mut waits = RetryPolicy::default().waits();
        loop {
            let rows = self.run.board.rows_copied_of(self.id);
            let error = match self.copy_once().await {
                Ok(copied) => return Ok(copied),
                Err(error) => error.with("table", self.run.name(self.id)),
            };
            self.run.board.table_failed(self.id, &error);
            let error = match error.retry_class() {
                RetryClass::Transient => error,
                _ if self.run.is_published(self.id).await? => return Err(error),
                // Dropped: whoever watches the publication calls this back.
                _ => unpublished().because(error),
            };
            if self.run.board.rows_copied_of(self.id) > rows {
                waits.reset();
            }
            tokio::select! {
                waited = waits.after(error) => waited?,
                () = told(self.leave.clone()) => return Ok(None),
            }
        }
    }

    async fn copy_once(&mut self) -> EtlResult<Option<CatchUp>> {
        let turns = Arc::clone(&self.turns);
        let _turn = tokio::select! {
            turn = turns.acquire() => turn.map_err(|_| cancelled())?,
            () = told(self.leave.clone()) => return Ok(None),
        };
        loop {
            let (cursor, so_far) = match (self.run.states.get(self.id).phase, &self.hold) {
                (Phase::Copying { cursor, so_far: Some(so_far) }, Some(_)) => {
                    self.show_resumed().await?;
                    (cursor, Some(so_far))
                }
                _ => (self.begin_copy().await?, None),
            };
            let run = &self.run;
            let generation = run.states.get(self.id).generation;
            let span = tracing::debug_span!("copy_table", table = run.name(self.id), generation);
            let (budget, leave) = (&self.budget, &self.leave);
            let order = CopyOrder { run, id: self.id, generation, cursor, so_far, budget, leave };
            match order.copy().instrument(span).await? {
                Copied::Whole(snapshot, mixed) => {
                    let phase = Phase::CatchingUp { cursor, snapshot: snapshot.clone(), mixed };
                    run.set_phase(self.id, phase).await?;
                    return Ok(Some(CatchUp { from: cursor, cursor, snapshot, mixed, hold: self.hold.take() }));
                }
                Copied::Rests => return Ok(None),
                Copied::Rewritten => {
                    tracing::warn!(table = %run.name(self.id), "the table was changed: it is copied from the beginning");
                    run.set_phase(self.id, Phase::Pending).await?;
                }
            }
        }
    }

    /// R1: the cursor is fixed first, and what comes after it stays in the relay until it is caught up.
    async fn begin_copy(&mut self) -> EtlResult<Position> {
        let run = &self.run;
        // What comes in a form that nobody can read comes before the cursor.
        let was_text = run.form.is_text();
        let mut hold = run.relay.reader_of(CursorId::Table(self.id), StartAt::Head)?;
        // When the run ends before the copy does, the next one goes on with what it keeps.
        hold.stay();
        if let Some(before) = self.hold.replace(hold) {
            before.leave();
        }
        let cursor = Position::new(run.relay.head().end, 0);
        if !run.describe_again(self.id).await? {
            return Err(unpublished());
        }
        run.require_readable(self.id, was_text)?;
        let generation = run.states.get(self.id).generation + 1;
        run.store.forget_cursor(CursorId::Table(self.id)).await?;
        let phase = Phase::Copying { cursor, so_far: None };
        run.set_state(self.id, TableState { revision: 0, generation, phase }).await?;
        run.store.forget_copy(self.id).await?;
        run.board.table(self.id, |status| {
            status.rows_copied = 0;
            (status.durable, status.error) = (None, None);
        });
        run.destination.truncate_table(self.id).await?;
        if run.destination.capabilities().atomic {
            // A destination that does not have it when the copy goes on is another one.
            let batch = Batch { cursor: CursorId::Table(self.id), from: cursor, upto: cursor, moves: Vec::new() };
            run.destination.write_batch(batch, Vec::new()).await?;
        }
        Ok(cursor)
    }

    /// Shows what was copied before.
    async fn show_resumed(&self) -> EtlResult<()> {
        let rows = self.run.store.copied(self.id).await?.iter().map(|leaf| leaf.rows).sum();
        tracing::info!(table = %self.run.name(self.id), rows, "the copy goes on where it was cut short");
        self.run.board.table(self.id, |status| status.rows_copied = rows);
        Ok(())
    }

    async fn catch_up(&self, CatchUp { from, cursor, snapshot, mut mixed, hold }: CatchUp) -> EtlResult<CaughtUp> {
        let run = &self.run;
        let selection = run.selection(self.id)?;
        let follow = Follow { selection, after: from, seen: Some(snapshot.clone()) };
        let assembler = Assembler::new([(self.id, follow.clone())]);
        let (_nobody, requests) = mpsc::channel(1);
        let mut applier = Applier::open(run, CursorId::Table(self.id), from, assembler, requests)?;
        if let Some(hold) = hold {
            hold.leave();
        }
        applier.set_mixed(mixed);
        applier.wake_when(Some(self.leave.clone()));
        loop {
            let is_settled = match mixed {
                Some(mixed) => applier.reached_now() >= mixed.until,
                None => applier.behind() <= NEAR_BYTES,
            };
            if *self.leave.borrow() {
                let rest = Rest::CatchingUp { left: applier.rest().await?, snapshot, mixed };
                return Ok(CaughtUp::Brought(Brought::Rests(rest)));
            }
            match mixed {
                Some(before) if is_settled => {
                    applier.settle().await?;
                    let catching_up = |mixed| Phase::CatchingUp { cursor, snapshot: snapshot.clone(), mixed };
                    mixed = match self.repair(before, catching_up).await {
                        Err(error) if error.kind() == ErrorKind::SchemaChanged => {
                            let what = error.context("change").unwrap_or_default().to_owned();
                            run.show_changed(&Changed { table: self.id, what });
                            applier.leave();
                            return Ok(CaughtUp::Changed);
                        }
                        repaired => repaired?,
                    };
                    applier.set_mixed(mixed);
                }
                None if is_settled => break,
                _ => {
                    if !applier.step().await? {
                        return Ok(self.ended(applier));
                    }
                }
            }
        }
        self.join(applier, follow).await
    }

    /// Shares the main cursor from where both have begun to read.
    async fn join(&self, mut applier: Applier, follow: Follow) -> EtlResult<CaughtUp> {
        let run = &self.run;
        // It may have been followed into another shape since.
        let selection = applier.selection_of(self.id).unwrap_or(follow.selection);
        let follow = Follow { selection, ..follow };
        applier.wake_when(None);
        let (answer, answered) = oneshot::channel();
        let (arrive, arrived) = oneshot::channel();
        let request = JoinRequest { table: self.id, begun: applier.begun(), follow, answer, arrived };
        if run.requests.send(MainRequest::Join(request)).await.is_err() {
            return Ok(CaughtUp::Brought(Brought::Ended));
        }
        let Ok(commit) = answered.await else { return Ok(CaughtUp::Brought(Brought::Ended)) };
        applier.finish_at(commit);
        applier.work().await?;
        if !applier.has_finished() {
            return Ok(self.ended(applier));
        }
        failpoint::visit("catch_up.joined").await?;
        // The main cursor is gone when the pipeline ends.
        let _ = arrive.send(());
        applier.leave();
        Ok(CaughtUp::Brought(Brought::Joined))
    }

    /// The cursor reads no further: the pipeline ends, or the table has changed.
    fn ended(&self, applier: Applier) -> CaughtUp {
        let Some(changed) = applier.changed() else { return CaughtUp::Brought(Brought::Ended) };
        self.run.show_changed(changed);
        applier.leave();
        CaughtUp::Changed
    }

    /// Reads again what is owed, if anything, and stores what is known then.
    async fn repair(&self, before: Mixed, phase: impl Fn(Option<Mixed>) -> Phase) -> EtlResult<Option<Mixed>> {
        let run = &self.run;
        let keys = run.store.repairs(self.id).await?;
        if keys.is_empty() {
            run.set_phase(self.id, phase(None)).await?;
            return Ok(None);
        }
        // Counted before anything is written: no other attempt has the same tokens.
        let begun = Mixed { snapshots: before.snapshots + 1, ..before };
        run.set_phase(self.id, phase(Some(begun))).await?;
        let read = tokio::select! {
            read = read_again(run, self.id, begun.snapshots, &keys) => read,
            () = told(self.leave.clone()) => return Ok(Some(begun)),
        };
        match read {
            Ok(until) => {
                let mixed = Some(Mixed { until, has_gaps: false, ..begun });
                run.set_phase(self.id, phase(mixed)).await?;
                run.store.remove_repairs(self.id, keys).await?;
                Ok(mixed)
            }
            Err(error) if error.kind() == ErrorKind::SchemaChanged => Err(error),
            Err(error) => {
                RetryPolicy::default().waits().after(error.with("table", run.name(self.id))).await?;
                Ok(Some(begun))
            }
        }
    }
}

/// Waits until somebody says it.
pub(super) async fn told(mut leave: watch::Receiver<bool>) {
    if leave.wait_for(|leave| *leave).await.is_err() {
        std::future::pending().await
    }
}

fn unpublished() -> EtlError {
    EtlError::new(ErrorKind::SourceUnavailable, "the table is not published any more")
}

fn cancelled() -> EtlError {
    EtlError::new(ErrorKind::Cancelled, "the pipeline ended")
}
