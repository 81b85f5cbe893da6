//! Which run was the last one that staged, and how far did it come? Stored, so that the next start finishes it or clears up.

use std::hash::{BuildHasher, RandomState};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::destination::{AnyDestination, Destination, StagedRun};
use crate::error::{ErrorKind, EtlResult, ResultExt, RetryClass};
use crate::schema::TableId;
use crate::store::{CursorId, SharedStore, TableState};

/// The fact of the store with the last run.
const LAST: &str = "run.staged";

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// Rows are copied: nothing of it counts.
    Staging,
    /// Everything is there, and is shown or about to be.
    Publishing,
    /// It is shown, or removed.
    Over,
}

#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    run: StagedRun,
    step: Step,
}

async fn note(store: &SharedStore, run: &StagedRun, step: Step) -> EtlResult<()> {
    let noted = serde_json::to_string(&Noted { run: run.clone(), step });
    store.set_fact(LAST, noted.or_etl(ErrorKind::Internal, "write how far the run is")?).await
}

/// Begins a run of these tables. What it stages counts for nothing until it is [sealed](seal).
pub(super) async fn begin(store: &SharedStore, tables: Vec<TableId>) -> EtlResult<StagedRun> {
    let id = RandomState::new().hash_one(clock::now().0) as u32;
    let run = StagedRun { id: format!("{id:08x}").into(), tables };
    note(store, &run, Step::Staging).await?;
    Ok(run)
}

/// Everything is staged: from here on the run is shown, whatever happens. A stream that goes on later copies the tables
/// again: what it holds of them is not what it left.
pub(super) async fn seal(store: &SharedStore, run: &StagedRun) -> EtlResult<()> {
    for (id, state) in store.table_states().await? {
        if run.tables.contains(&id) {
            let (phase, revision) = (state.phase.begun_anew(), state.revision);
            store.set_table_state(id, Some(revision), TableState { phase, ..state }).await?;
            store.forget_cursor(CursorId::Table(id)).await?;
            store.forget_copy(id).await?;
        }
    }
    note(store, run, Step::Publishing).await
}

/// The run is shown.
pub(super) async fn is_over(store: &SharedStore, run: &StagedRun) -> EtlResult<()> {
    note(store, run, Step::Over).await
}

/// The run is given up: what it has staged is removed.
pub(super) async fn abandon(store: &SharedStore, destination: &AnyDestination, run: &StagedRun) -> EtlResult<()> {
    destination.abandon_run(run.clone()).await?;
    note(store, run, Step::Over).await
}

/// Brings a run to its end that died: what was whole is shown, what was not is removed.
pub(super) async fn settle_last(store: &SharedStore, destination: &AnyDestination) -> EtlResult<()> {
    let Some(text) = store.fact(LAST).await? else { return Ok(()) };
    let Noted { run, step } = serde_json::from_str(&text).or_etl(ErrorKind::Store, "read how far the last run was")?;
    if !destination.capabilities().staged_runs {
        // Another destination has nothing of it.
        return Ok(());
    }
    match step {
        Step::Over => Ok(()),
        Step::Staging => {
            tracing::warn!(run = %run.id, "the last run did not copy everything: what it has staged is removed");
            abandon(store, destination, &run).await
        }
        Step::Publishing => {
            tracing::warn!(run = %run.id, "the last run ended while it was shown: that is finished");
            match destination.finalize_run(run.clone()).await {
                Err(error) if error.retry_class() != RetryClass::Transient => {
                    tracing::error!(%error, run = %run.id, "what it has staged cannot be shown, and is removed");
                    abandon(store, destination, &run).await
                }
                shown => {
                    shown?;
                    is_over(store, &run).await
                }
            }
        }
    }
}
