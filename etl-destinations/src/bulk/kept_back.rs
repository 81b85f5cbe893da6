//! Where do the changes of a run wait until the last of them is there? As the rows of a run that copies: settled out of sight,
//! by operations of its own. When all are, they are shown, and what their tables have settled goes on from there.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use etl::Position;
use etl::destination::Batch;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::failpoint;
use etl::schema::TableId;
use etl::store::Operation;
use serde::{Deserialize, Serialize};

use super::BulkDestination;
use super::sealed::{Spool, off_thread};
use super::staging::{Staging, is_staged};
use super::writer::Bulk;
use crate::made_up;
use crate::table_destination::LOST_PIECES;
use crate::writer::WriteUnit;

/// The fact of the store with the last run whose changes waited.
const KEPT_FACT: &str = "bulk.kept_back";

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// It waits for more: nothing of it counts.
    Waiting,
    /// All is there, and is shown or about to be.
    Showing,
    /// It is shown: what is left of it goes.
    Shown,
    /// Nothing is left of it.
    Over,
}

#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    run: String,
    step: Step,
}

/// What the main cursor has brought that is shown with a later batch.
#[derive(Debug, Default)]
pub(super) struct KeptBack {
    open: Option<Run>,
    /// Where the run had come to that was taken back as one of its tables began anew: who goes on from there has to begin again.
    lost_at: Option<Position>,
}

#[derive(Debug)]
struct Run {
    id: String,
    upto: Position,
    /// Everything is there: it is shown whatever happens.
    is_whole: bool,
    is_shown: bool,
}

impl<B: BulkDestination> Bulk<B> {
    /// Hands a batch of the main cursor over, out of sight where more belongs to it.
    pub(super) async fn apply_main(&self, unit: &WriteUnit, batch: &Batch) -> EtlResult<()> {
        // Tables join and leave between transactions.
        let is_piece = batch.is_piece && !batch.upto.is_boundary() && batch.moves.is_empty();
        let mut kept = self.kept_back.lock().await;
        if kept.open.as_ref().is_some_and(|run| run.is_whole) {
            self.show(&mut kept).await?;
        }
        if kept.open.as_ref().is_some_and(|run| run.upto != batch.from) {
            self.take_back(&mut kept).await?;
        }
        if kept.lost_at == Some(batch.from) {
            return Err(EtlError::new(ErrorKind::DestinationUnavailable, LOST_PIECES).with("cursor", batch.cursor));
        }
        kept.lost_at = None;
        if kept.open.is_none() && !is_piece {
            drop(kept);
            return self.hand_over(unit, None).await;
        }
        let run = match &mut kept.open {
            Some(run) => run,
            None => {
                let run = self.begin_kept(batch.from).await?;
                kept.open.insert(run)
            }
        };
        self.hand_over(unit, Some(&run.id)).await?;
        run.upto = batch.upto;
        if is_piece {
            return Ok(());
        }
        run.is_whole = true;
        self.show(&mut kept).await
    }

    async fn begin_kept(&self, from: Position) -> EtlResult<Run> {
        self.spool().await?;
        let id = format!("{:08x}", made_up::number() as u32);
        self.note(&id, Step::Waiting).await?;
        self.bulk.begin_run(&id).await?;
        Ok(Run { id, upto: from, is_whole: false, is_shown: false })
    }

    /// Shows what waits, and goes on from it. Done again, it goes on where that failed.
    async fn show(&self, kept: &mut KeptBack) -> EtlResult<()> {
        let Some(run) = &mut kept.open else { return Ok(()) };
        if !run.is_shown {
            self.show_staged(&run.id).await?;
            run.is_shown = true;
        }
        self.bulk.remove_run(&run.id).await?;
        self.note(&run.id, Step::Over).await?;
        kept.open = None;
        Ok(())
    }

    async fn show_staged(&self, run: &str) -> EtlResult<()> {
        let staged = self.staged_operations().await?;
        if staged.iter().any(|operation| !operation.state.is_settled()) {
            return Err(EtlError::new(
                ErrorKind::DestinationUnavailable,
                "not all that the run has brought is settled",
            )
            .with("run", run)
            .hint("It is tried again"));
        }
        self.note(run, Step::Showing).await?;
        if !self.bulk.append_run(run).await? {
            return Err(EtlError::new(ErrorKind::DestinationRejected, "what the run has handed over is gone")
                .with("run", run)
                .hint("Somebody removed it: run again"));
        }
        for operation in newest(staged).into_values() {
            let mut lane = self.lane(operation.table).await?;
            let taken_over = self.take_over(operation, lane.generation).await?;
            if let Some(past) = lane.has_settled(taken_over) {
                self.store.forget_operation(past).await?;
            }
        }
        failpoint::visit("bulk.taken_over").await?;
        self.forget_staged(self.spool().await?).await?;
        self.note(run, Step::Shown).await
    }

    /// What is settled of its table from now on ends with this operation of a run.
    async fn take_over(&self, operation: Operation, generation: u64) -> EtlResult<Operation> {
        let expected = operation.revision;
        let next = Operation { generation, ..operation };
        let revision = self.store.put_operation(Some(expected), next.clone(), Vec::new()).await?;
        Ok(Operation { revision, ..next })
    }

    /// Removes what waits: it comes again from the beginning.
    async fn take_back(&self, kept: &mut KeptBack) -> EtlResult<()> {
        let Some(run) = &kept.open else { return Ok(()) };
        // What was being handed over as its write was given up ends first.
        for table in self.staged_tables() {
            drop(self.requests.of(table).await);
        }
        self.forget_staged(self.spool().await?).await?;
        self.bulk.remove_run(&run.id).await?;
        self.note(&run.id, Step::Over).await?;
        kept.open = None;
        Ok(())
    }

    /// A table begins anew: what is whole is shown before, and a run that has something of the table begins again.
    pub(super) async fn take_back_of(&self, table: TableId) -> EtlResult<()> {
        let mut kept = self.kept_back.lock().await;
        if kept.open.as_ref().is_some_and(|run| run.is_whole) {
            self.show(&mut kept).await?;
        }
        let Some(upto) = kept.open.as_ref().map(|run| run.upto) else { return Ok(()) };
        if self.staged_operations().await?.iter().any(|operation| operation.table == table) {
            self.take_back(&mut kept).await?;
            kept.lost_at = Some(upto);
        }
        Ok(())
    }

    /// Removes what waits where the rest of it does not come. What cannot be removed now is at the next start.
    pub(super) async fn end_kept(&self) {
        let mut kept = self.kept_back.lock().await;
        if kept.open.as_ref().is_some_and(|run| !run.is_whole)
            && let Err(error) = self.take_back(&mut kept).await
        {
            tracing::debug!(%error, "what a run has left stays until the next start");
        }
    }

    /// Brings a run to its end that an earlier process has left: what was whole is shown, what was not is removed.
    pub(super) async fn settle_kept(&self, spool: &Spool) -> EtlResult<()> {
        let Some(text) = self.store.fact(KEPT_FACT).await? else { return Ok(()) };
        let Noted { run, step } = serde_json::from_str(&text).or_etl(ErrorKind::Store, "read how far a run was")?;
        if step == Step::Over || !self.bulk.appends_runs() {
            return Ok(());
        }
        if step == Step::Showing {
            tracing::warn!(run, "the last run ended while it was shown: that is finished");
            // What cannot be shown now may be shown in part already: it may not come again.
            match self.bulk.append_run(&run).await? {
                true => self.take_over_all().await?,
                false => tracing::error!(run, "what has waited is gone: somebody removed it. It comes again"),
            }
        }
        self.forget_staged(spool).await?;
        self.note(&run, Step::Shown).await?;
        self.bulk.remove_run(&run).await?;
        self.note(&run, Step::Over).await
    }

    /// As in [`show`](Self::show), where no lane is known yet.
    async fn take_over_all(&self) -> EtlResult<()> {
        let (staged, others): (Vec<_>, Vec<_>) = self.store.operations().await?.into_iter().partition(is_staged);
        for operation in newest(staged).into_values() {
            let of_table = others.iter().filter(|other| other.table == operation.table);
            let generation = of_table.map(|other| other.generation).max().unwrap_or(0);
            self.take_over(operation, generation).await?;
        }
        Ok(())
    }

    /// Forgets the operations of runs: what they have handed over is shown, or goes.
    pub(super) async fn forget_staged(&self, spool: &Spool) -> EtlResult<()> {
        *self.staging.lock().unwrap_or_else(PoisonError::into_inner) = Staging::default();
        for operation in self.staged_operations().await? {
            self.census.forgot(&operation.id);
            self.store.forget_operation(operation.id.clone()).await?;
            let spool = spool.clone();
            off_thread(move || spool.remove(&operation.id)).await?;
        }
        Ok(())
    }

    async fn note(&self, run: &str, step: Step) -> EtlResult<()> {
        let noted = serde_json::to_string(&Noted { run: run.to_owned(), step });
        self.store.set_fact(KEPT_FACT, noted.or_etl(ErrorKind::Internal, "write how far a run is")?).await
    }
}

/// The last operation of each table.
fn newest(operations: Vec<Operation>) -> BTreeMap<TableId, Operation> {
    let mut newest: BTreeMap<TableId, Operation> = BTreeMap::new();
    for operation in operations {
        match newest.get(&operation.table) {
            Some(known) if (known.last, known.sequence) >= (operation.last, operation.sequence) => {}
            _ => drop(newest.insert(operation.table, operation)),
        }
    }
    newest
}
