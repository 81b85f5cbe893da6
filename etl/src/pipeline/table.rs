//! What becomes of one table? It is copied, catches up, and joins the main cursor.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::Instrument;

use super::apply::{Applier, JoinRequest, Left, MainRequest};
use super::memory_budget::CopyBudget;
use super::run::Run;
use super::table_copy::copy_table;
use super::table_state::Begin;
use crate::destination::Destination;
use crate::error::{ErrorKind, EtlError, EtlResult, RetryClass};
use crate::failpoint;
use crate::lsn::Position;
use crate::relay::{Reader, StartAt};
use crate::retry::RetryPolicy;
use crate::schema::TableId;
use crate::source::{Assembler, Follow};
use crate::store::CursorId;
use crate::store::{Phase, SnapshotFilter, TableState};

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
    /// It rests, as it was told: where it has got to in the relay, and what its copy has seen; nothing where it is
    /// not copied yet.
    Rests(Option<(Left, SnapshotFilter)>),
    /// The pipeline ends.
    Ended,
}

/// Where catching up begins.
struct CatchUp {
    from: Position,
    snapshot: SnapshotFilter,
    /// Keeps in the relay what comes after `from`, until there is a reader for it.
    hold: Option<Reader>,
}

impl Table {
    /// Brings the table to where it shares the main cursor. A lost connection begins the copy again.
    ///
    /// # Errors
    /// What trying again does not help against.
    pub(super) async fn bring(mut self, begin: Begin) -> EtlResult<Brought> {
        let catch_up = match begin {
            Begin::Share { .. } | Begin::Wait | Begin::Rest => return Ok(Brought::Joined),
            Begin::CatchUp { from, snapshot, .. } => {
                tracing::info!(table = %self.run.name(self.id), %from, "the table goes on catching up from the relay");
                CatchUp { from, snapshot, hold: self.hold.take() }
            }
            Begin::Copy { .. } => match self.copy().await? {
                Some(catch_up) => catch_up,
                None => return Ok(Brought::Rests(None)),
            },
        };
        self.catch_up(catch_up).await
    }

    /// Copies the table; nothing when it is to rest.
    async fn copy(&self) -> EtlResult<Option<CatchUp>> {
        let mut waits = RetryPolicy::default().waits();
        loop {
            let error = match self.copy_once().await {
                Ok(copied) => return Ok(copied),
                Err(error) => error.with("table", self.run.name(self.id)),
            };
            self.run.board.table_failed(self.id, &error);
            if error.retry_class() != RetryClass::Transient {
                return Err(error);
            }
            tokio::select! {
                waited = waits.after(error) => waited?,
                () = told(self.leave.clone()) => return Ok(None),
            }
        }
    }

    /// R1: the cursor is fixed first, and what comes after it stays in the relay until it is caught up.
    async fn copy_once(&self) -> EtlResult<Option<CatchUp>> {
        let _turn = tokio::select! {
            turn = self.turns.acquire() => turn.map_err(|_| cancelled())?,
            () = told(self.leave.clone()) => return Ok(None),
        };
        let run = &self.run;
        let hold = run.relay.reader(StartAt::Head)?;
        let cursor = Position::new(run.relay.head().end, 0);
        let generation = run.states.get(self.id).generation + 1;
        run.store.forget_cursor(CursorId::Table(self.id)).await?;
        run.set_state(self.id, TableState { revision: 0, generation, phase: Phase::Copying { cursor } }).await?;
        run.board.table(self.id, |status| {
            status.rows_copied = 0;
            (status.durable, status.error) = (None, None);
        });
        run.destination.truncate_table(self.id).await?;
        let span = tracing::debug_span!("copy_table", table = run.name(self.id), generation);
        let copy = copy_table(run, self.id, generation, cursor, &self.budget, &self.leave);
        let copied = copy.instrument(span).await?;
        let Some(snapshot) = copied else { return Ok(None) };
        run.set_phase(self.id, Phase::CatchingUp { cursor, snapshot: snapshot.clone() }).await?;
        Ok(Some(CatchUp { from: cursor, snapshot, hold: Some(hold) }))
    }

    async fn catch_up(&self, CatchUp { from, snapshot, hold }: CatchUp) -> EtlResult<Brought> {
        let run = &self.run;
        let selection = run.selections.get(&self.id).ok_or_else(cancelled)?;
        let follow = Follow { selection: Arc::clone(selection), after: from, seen: Some(snapshot.clone()) };
        let assembler = Assembler::new(Arc::clone(&run.selections), [(self.id, follow.clone())]);
        let (_nobody, requests) = mpsc::channel(1);
        let mut applier = Applier::open(run, CursorId::Table(self.id), from, assembler, requests)?;
        if let Some(hold) = hold {
            hold.leave();
        }
        while applier.behind() > NEAR_BYTES && !*self.leave.borrow() {
            if !applier.step().await? {
                return Ok(Brought::Ended);
            }
        }
        if *self.leave.borrow() {
            return Ok(Brought::Rests(Some((applier.rest().await?, snapshot))));
        }
        let (answer, answered) = oneshot::channel();
        let (arrive, arrived) = oneshot::channel();
        let request = JoinRequest { table: self.id, begun: applier.begun(), follow, answer, arrived };
        if run.requests.send(MainRequest::Join(request)).await.is_err() {
            return Ok(Brought::Ended);
        }
        let Ok(commit) = answered.await else { return Ok(Brought::Ended) };
        applier.finish_at(commit);
        applier.work().await?;
        if !applier.has_finished() {
            return Ok(Brought::Ended);
        }
        failpoint::visit("catch_up.joined").await?;
        // The main cursor is gone when the pipeline ends.
        let _ = arrive.send(());
        applier.leave();
        Ok(Brought::Joined)
    }
}

/// Waits until somebody says it.
pub(super) async fn told(mut leave: watch::Receiver<bool>) {
    if leave.wait_for(|leave| *leave).await.is_err() {
        std::future::pending().await
    }
}

fn cancelled() -> EtlError {
    EtlError::new(ErrorKind::Cancelled, "the pipeline ended")
}
