//! What becomes of one table? It is copied, catches up, and joins the main cursor.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::apply::{Applier, JoinRequest};
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
    pub(super) async fn bring(mut self, begin: Begin) -> EtlResult<()> {
        let catch_up = match begin {
            Begin::Share { .. } | Begin::Rest => return Ok(()),
            Begin::CatchUp { from, snapshot, .. } => {
                tracing::info!(table = %self.run.name(self.id), %from, "the table goes on catching up from the relay");
                CatchUp { from, snapshot, hold: self.hold.take() }
            }
            Begin::Copy { .. } => self.copy().await?,
        };
        self.catch_up(catch_up).await
    }

    async fn copy(&self) -> EtlResult<CatchUp> {
        let mut waits = RetryPolicy::default().waits();
        loop {
            match self.copy_once().await {
                Ok(catch_up) => return Ok(catch_up),
                Err(error) if error.retry_class() == RetryClass::Transient => {
                    let error = error.with("table", self.run.name(self.id));
                    self.run.board.table(self.id, |status| status.error = Some(error.to_string()));
                    waits.after(error).await?;
                }
                Err(error) => return Err(error.with("table", self.run.name(self.id))),
            }
        }
    }

    /// R1: the cursor is fixed first, and what comes after it stays in the relay until it is caught up.
    async fn copy_once(&self) -> EtlResult<CatchUp> {
        let _turn = self.turns.acquire().await.map_err(|_| cancelled())?;
        let run = &self.run;
        let hold = run.relay.reader(StartAt::Head)?;
        let cursor = Position::new(run.relay.head().end, 0);
        let generation = run.states.get(self.id).generation + 1;
        run.store.forget_cursor(CursorId::Table(self.id)).await?;
        run.set_state(self.id, TableState { revision: 0, generation, phase: Phase::Copying { cursor } }).await?;
        run.board.table(self.id, |status| {
            status.rows_copied = 0;
            status.error = None;
        });
        run.destination.truncate_table(self.id).await?;
        let snapshot = copy_table(run, self.id, generation, cursor, &self.budget).await?;
        run.set_phase(self.id, Phase::CatchingUp { cursor, snapshot: snapshot.clone() }).await?;
        Ok(CatchUp { from: cursor, snapshot, hold: Some(hold) })
    }

    async fn catch_up(&self, CatchUp { from, snapshot, hold }: CatchUp) -> EtlResult<()> {
        let run = &self.run;
        let schema = run.schemas.get(&self.id).ok_or_else(cancelled)?;
        let follow = Follow { schema: Arc::clone(schema), after: from, seen: Some(snapshot) };
        let assembler = Assembler::new(Arc::clone(&run.schemas), [(self.id, follow.clone())]);
        let (_nobody, joins) = mpsc::channel(1);
        let mut applier = Applier::open(run, CursorId::Table(self.id), from, assembler, joins)?;
        if let Some(hold) = hold {
            hold.leave();
        }
        while applier.behind() > NEAR_BYTES {
            if !applier.step().await? {
                return Ok(());
            }
        }
        let (answer, answered) = oneshot::channel();
        let (arrive, arrived) = oneshot::channel();
        let request = JoinRequest { table: self.id, begun: applier.begun(), follow, answer, arrived };
        if run.joins.send(request).await.is_err() {
            return Ok(());
        }
        let Ok(commit) = answered.await else { return Ok(()) };
        applier.finish_at(commit);
        applier.work().await?;
        if applier.has_finished() {
            failpoint::visit("catch_up.joined").await?;
            // The main cursor is gone when the pipeline ends.
            let _ = arrive.send(());
            applier.leave();
        }
        Ok(())
    }
}

fn cancelled() -> EtlError {
    EtlError::new(ErrorKind::Cancelled, "the pipeline ended")
}
