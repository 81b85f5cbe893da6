//! What becomes of one table? It is copied, catches up, and joins the main cursor.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::Instrument;

use super::apply::{Applier, Changed, JoinRequest, Left, MainRequest};
use super::describe::Fate;
use super::memory_budget::CopyBudget;
use super::quarantine::is_of_one_table;
use super::repair::{Owed, read_again};
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
use crate::transform::Selection;

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
    /// How that begins to be read, where that is not how the table is read by now.
    pub(super) selection: Option<Arc<Selection>>,
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
    /// It failed, alone.
    Failed(EtlError, Rest),
    /// The pipeline ends.
    Ended,
}

/// What keeps the changes of a table that waits.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) reader: Reader,
    /// How they begin to be read.
    pub(super) selection: Option<Arc<Selection>>,
}

impl Kept {
    /// Nobody needs them any more.
    pub(super) fn leave(self) {
        self.reader.leave();
    }
}

impl From<Left> for Kept {
    fn from(left: Left) -> Self {
        Self { reader: left.hold, selection: left.selection }
    }
}

impl From<Reader> for Kept {
    fn from(reader: Reader) -> Self {
        Self { reader, selection: None }
    }
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

/// Why a table's cursor reads no further.
enum CatchUpEnd {
    /// It is near the main cursor, or shares it.
    Joins,
    /// It was told to rest.
    Rests(Left),
    /// The table looks different now.
    Changed(Changed),
    /// The pipeline ends.
    Ended,
}

/// Where catching up begins.
pub(super) struct CatchUp {
    pub(super) from: Position,
    /// The cursor P of its first snapshot.
    pub(super) cursor: Position,
    pub(super) snapshot: SnapshotFilter,
    pub(super) mixed: Option<Mixed>,
    /// Keeps in the relay what comes after `from`, until there is a reader for it.
    pub(super) hold: Option<Reader>,
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
                Begin::Copy { .. } | Begin::Resume => match self.copy().await {
                    Ok(Some(catch_up)) => catch_up,
                    Ok(None) => return Ok(Brought::Rests(self.rest())),
                    Err(error) if is_of_one_table(&error) => return Ok(Brought::Failed(error, self.rest())),
                    Err(error) => return Err(error),
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
                _ => match self.run.fate_of(self.id).await {
                    Err(lost) => lost,
                    // The server knows something no more that it was asked for.
                    Ok(Fate::Changed(what)) if error.kind() == ErrorKind::SourceQuery => {
                        self.run.set_phase(self.id, Phase::Pending).await?;
                        let changed =
                            EtlError::new(ErrorKind::SourceUnavailable, "the table was changed: it is copied anew");
                        changed.with("change", what).because(error)
                    }
                    Ok(Fate::Same | Fate::Changed(_)) => return Err(error),
                    // Whoever watches the publication calls this back.
                    Ok(Fate::Gone) => unpublished().because(error),
                },
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
        let (run, turns) = (Arc::clone(&self.run), Arc::clone(&self.turns));
        // Whoever waits for its turn takes what the one before it leaves.
        let _copying = run.idle.copying();
        let _turn = tokio::select! {
            turn = turns.acquire() => turn.map_err(|_| cancelled())?,
            () = told(self.leave.clone()) => return Ok(None),
        };
        if !self.run.copies(self.id)? {
            return self.begin_uncopied().await;
        }
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
    pub(super) async fn fix_cursor(&mut self) -> EtlResult<Position> {
        let run = &self.run;
        // What comes in a form that nobody can read comes before the cursor.
        let was_text = run.streams.is_text();
        let mut hold = run.relay.reader_of(CursorId::Table(self.id), StartAt::Head)?;
        // When the run ends before the copy does, the next one goes on with what it keeps.
        hold.stay();
        if let Some(before) = self.hold.replace(hold) {
            before.leave();
        }
        let cursor = Position::new(run.relay.head().end, 0);
        run.copied_files.will_be_those_to_come(self.id);
        if !run.describe_again(self.id).await? {
            return Err(unpublished());
        }
        run.require_readable(self.id, was_text)?;
        Ok(cursor)
    }

    /// What was copied before is void from here on.
    async fn begin_copy(&mut self) -> EtlResult<Position> {
        let cursor = self.fix_cursor().await?;
        let run = &self.run;
        let generation = run.states.get(self.id).generation + 1;
        run.store.forget_cursor(CursorId::Table(self.id)).await?;
        let phase = Phase::Copying { cursor, so_far: None };
        run.set_state(self.id, TableState { revision: 0, generation, phase }).await?;
        run.store.forget_copy(self.id).await?;
        run.wished.remove(&run.store, self.id).await?;
        run.board.table(self.id, |status| {
            status.rows_copied = 0;
            (status.durable, status.error) = (None, None);
        });
        run.destination.truncate_table(self.id).await?;
        if run.destination.capabilities().atomic {
            // A destination that does not have it when the copy goes on is another one.
            let batch = Batch {
                cursor: CursorId::Table(self.id),
                from: cursor,
                upto: cursor,
                moves: Vec::new(),
                is_piece: false,
            };
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

    async fn catch_up(&mut self, CatchUp { from, cursor, snapshot, mut mixed, hold }: CatchUp) -> EtlResult<CaughtUp> {
        let selection = match self.selection.take() {
            Some(selection) => selection,
            None => self.run.selection(self.id)?,
        };
        let run = &self.run;
        let follow = Follow { selection, after: from, seen: Some(snapshot.clone()) };
        let assembler = Assembler::new([(self.id, follow.clone())]);
        let (_nobody, requests) = mpsc::channel(1);
        let mut applier = Applier::open(run, CursorId::Table(self.id), from, assembler, requests)?;
        if let Some(hold) = hold {
            hold.leave();
        }
        let read = match self.read_on(&mut applier, cursor, &follow, &mut mixed).await {
            Ok(CatchUpEnd::Joins) => self.join(&mut applier, follow).await,
            read => read,
        };
        let rest = |left| Rest::CatchingUp { left, snapshot, mixed };
        Ok(match read {
            Ok(CatchUpEnd::Joins) => {
                applier.leave();
                CaughtUp::Brought(Brought::Joined)
            }
            Ok(CatchUpEnd::Rests(left)) => CaughtUp::Brought(Brought::Rests(rest(left))),
            Ok(CatchUpEnd::Changed(changed)) => {
                run.show_changed(&changed);
                applier.leave();
                CaughtUp::Changed
            }
            Ok(CatchUpEnd::Ended) => CaughtUp::Brought(Brought::Ended),
            Err(error) if is_of_one_table(&error) => {
                CaughtUp::Brought(Brought::Failed(error, rest(applier.stop_here().await?)))
            }
            Err(error) => return Err(error),
        })
    }

    /// Reads the table's changes until it is near enough to the main cursor.
    async fn read_on(
        &self,
        applier: &mut Applier,
        cursor: Position,
        follow: &Follow,
        mixed: &mut Option<Mixed>,
    ) -> EtlResult<CatchUpEnd> {
        applier.owes(self.owed(*mixed).await?);
        applier.wake_when(Some(self.leave.clone()));
        let mut is_complete = !self.run.destination.capabilities().table_extras;
        loop {
            let is_settled = match mixed {
                Some(mixed) => applier.reached_now() >= mixed.until,
                None => applier.behind() <= NEAR_BYTES,
            };
            if *self.leave.borrow() {
                return applier.rest().await.map(CatchUpEnd::Rests);
            }
            match *mixed {
                Some(before) if is_settled => {
                    applier.settle().await?;
                    let snapshot = || follow.seen.clone().unwrap_or_else(SnapshotFilter::nothing);
                    let catching_up = |mixed| Phase::CatchingUp { cursor, snapshot: snapshot(), mixed };
                    *mixed = match self.repair(before, catching_up).await {
                        Err(error) if error.kind() == ErrorKind::SchemaChanged => {
                            let what = error.context("change").unwrap_or_default().to_owned();
                            return Ok(CatchUpEnd::Changed(Changed { table: self.id, what }));
                        }
                        repaired => repaired?,
                    };
                    applier.owes(self.owed(*mixed).await?);
                }
                None if is_settled && is_complete => return Ok(CatchUpEnd::Joins),
                None if is_settled => {
                    applier.settle().await?;
                    is_complete = self.complete().await?;
                }
                _ => {
                    if !applier.step().await? {
                        return Ok(ended(applier));
                    }
                }
            }
        }
    }

    /// Shares the main cursor from where both have begun to read.
    async fn join(&self, applier: &mut Applier, follow: Follow) -> EtlResult<CatchUpEnd> {
        let run = &self.run;
        applier.wake_when(None);
        let (answer, answered) = oneshot::channel();
        let (arrive, arrived) = oneshot::channel();
        let request = JoinRequest { table: self.id, begun: applier.begun(), follow, answer, arrived };
        if run.requests.send(MainRequest::Join(request)).await.is_err() {
            return Ok(CatchUpEnd::Ended);
        }
        let Ok(commit) = answered.await else { return Ok(CatchUpEnd::Ended) };
        applier.finish_at(commit);
        applier.work().await?;
        if !applier.has_finished() {
            return Ok(ended(applier));
        }
        failpoint::visit("catch_up.joined").await?;
        if let Some(reading) = applier.reading_of(self.id) {
            // The main cursor is gone when the pipeline ends.
            let _ = arrive.send(reading);
        }
        Ok(CatchUpEnd::Joins)
    }

    /// Which rows are to be read again.
    async fn owed(&self, mixed: Option<Mixed>) -> EtlResult<Option<Owed>> {
        let Some(mixed) = mixed else { return Ok(None) };
        Ok(Some(Owed::new(mixed, self.run.store.repairs(self.id).await?)))
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
        match read_again(run, self.id, begun.snapshots, &keys, &self.leave).await {
            Ok(None) => Ok(Some(begun)),
            Ok(Some(until)) => {
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

/// The cursor reads no further: the pipeline ends, or the table has changed.
fn ended(applier: &Applier) -> CatchUpEnd {
    applier.changed().cloned().map_or(CatchUpEnd::Ended, CatchUpEnd::Changed)
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
