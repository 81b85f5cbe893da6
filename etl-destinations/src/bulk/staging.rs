//! How does a run wait at a system until it is whole? Its batches are settled out of sight, as operations of its own, and
//! the system shows them all once nothing of the run is under way.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::schema::{TableId, TableName};
use etl::store::Operation;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::BulkDestination;
use super::lane::{Lane, Source};
use super::sealed::{Frame, RUN};
use super::writer::{Bulk, Lanes};
use crate::writer::{Replacement, Step, TableBatch, TargetTable, WriteUnit};

/// The fact of the store with the run that was shown last.
const SHOWN_FACT: &str = "bulk.shown";

/// The generations of staged rows are beyond those of all copies.
const STAGED: u64 = 1 << 62;

/// The run that stages, in this process.
#[derive(Debug, Default)]
pub(super) struct Staging {
    lanes: Lanes,
    /// What its tables are called once they are shown.
    names: HashMap<TableId, TableName>,
}

/// The run that was shown last.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct LastShown {
    run: String,
    /// The number of its last batch; later ones go on from it although its operations are forgotten.
    pub(super) sequence: u64,
}

/// Whether the rows of an operation are staged in a run.
pub(super) fn is_staged(operation: &Operation) -> bool {
    operation.generation & STAGED != 0
}

/// The generation of what a run stages: no two that follow each other have the same, or their batches would.
fn generation(run: &str) -> EtlResult<u64> {
    let number = u32::from_str_radix(run, 16).or_etl(ErrorKind::Internal, "read the id of a run")?;
    Ok(STAGED | u64::from(number))
}

impl Lane {
    /// The frame of a batch of this lane.
    pub(super) fn framed(&self, mut frame: Frame) -> Frame {
        frame.known.extend(self.run.iter().map(|run| (RUN.to_owned(), run.to_string())));
        frame
    }
}

impl<B: BulkDestination> Bulk<B> {
    fn staging(&self) -> MutexGuard<'_, Staging> {
        self.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn last_shown(&self) -> EtlResult<LastShown> {
        match self.store.fact(SHOWN_FACT).await? {
            Some(text) => serde_json::from_str(&text).or_etl(ErrorKind::Store, "read which run was shown"),
            None => Ok(LastShown::default()),
        }
    }

    pub(super) async fn begin_staging(&self, run: &str, tables: &[Replacement]) -> EtlResult<()> {
        if !self.bulk.stages_runs() {
            return Err(EtlError::new(ErrorKind::DestinationUnsupported, "the system shows each batch as it gets it")
                .with("destination", self.bulk.name())
                .hint("Use `stream` or `incremental`"));
        }
        self.forget_staged(self.spool().await?).await?;
        self.staging().names = tables.iter().map(|Replacement { to, .. }| (to.id, to.name.clone())).collect();
        self.bulk.begin_run(run).await
    }

    /// The tables of which this process has staged something.
    pub(super) fn staged_tables(&self) -> Vec<TableId> {
        self.staging().lanes.keys().copied().collect()
    }

    pub(super) async fn staged_lane(&self, run: &str, table: TableId) -> EtlResult<OwnedMutexGuard<Lane>> {
        let generation = generation(run)?;
        let new = || Arc::new(AsyncMutex::new(Lane::of_run(run, generation)));
        let lane = Arc::clone(self.staging().lanes.entry(table).or_insert_with(new));
        Ok(lane.lock_owned().await)
    }

    /// Hands copied rows over, to be out of sight; once it returns they are settled.
    pub(super) async fn stage_unit(&self, run: &str, unit: WriteUnit) -> EtlResult<()> {
        for step in unit.steps {
            let Step::Write(TableBatch { table, rows }) = step else { continue };
            let name = self.staging().names.get(&table.id).cloned().ok_or_else(|| gone(run))?;
            let batch = TableBatch { table: Arc::new(TargetTable { name, ..TargetTable::clone(&table) }), rows };
            let mut lane = self.staged_lane(run, table.id).await?;
            let source = Source::Copy(lane.generation);
            self.write(&mut lane, source, &batch).await?;
        }
        Ok(())
    }

    /// Shows what the run has staged. Changes nothing where that was done.
    pub(super) async fn publish_staged(&self, run: &str, tables: &[Replacement]) -> EtlResult<()> {
        self.spool().await?;
        if self.last_shown().await?.run != run {
            if self.staged_operations().await?.iter().any(|operation| !operation.state.is_settled()) {
                return Err(EtlError::new(
                    ErrorKind::DestinationRejected,
                    "not all that the run has staged is settled",
                )
                .with("run", run)
                .hint("Run again"));
            }
            let tables: Vec<_> = tables.iter().map(|Replacement { to, .. }| Arc::clone(to)).collect();
            self.bulk.publish_run(run, &tables).await?;
            let shown = LastShown { run: run.to_owned(), sequence: self.sequence.load(Ordering::SeqCst) };
            let shown = serde_json::to_string(&shown).or_etl(ErrorKind::Internal, "write which run is shown")?;
            self.store.set_fact(SHOWN_FACT, shown).await?;
        }
        self.give_up_staged(run).await
    }

    /// Removes what is left of the run, shown or not.
    pub(super) async fn give_up_staged(&self, run: &str) -> EtlResult<()> {
        self.forget_staged(self.spool().await?).await?;
        self.bulk.remove_run(run).await
    }

    pub(super) async fn staged_operations(&self) -> EtlResult<Vec<Operation>> {
        Ok(self.store.operations().await?.into_iter().filter(is_staged).collect())
    }
}

fn gone(run: &str) -> EtlError {
    EtlError::new(ErrorKind::DestinationRejected, "what the run has staged is gone")
        .with("run", run)
        .hint("Somebody removed it: run again")
}
