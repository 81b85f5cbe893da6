//! What is done while the source keeps much WAL? Copies get slower, wait, and in the end the slot is given up.

use std::time::Duration;

use super::run::Run;
use crate::clock;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::postgres::Session;
use crate::retry;
use crate::source::{AtWalLimit, GuardLevel, SlotStatus, drop_slot, set_resyncing};

/// How long a slot is waited for that the server still believes to be read.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks at what the source keeps, and shows and does what follows.
///
/// # Errors
/// [`WalRetained`](ErrorKind::WalRetained) once it is more than it may be.
pub(super) fn watch(run: &Run, before: GuardLevel, slot: &SlotStatus) -> EtlResult<GuardLevel> {
    let guard = &run.source.wal_guard;
    let level = guard.level(before, slot);
    if level == before {
        return Ok(level);
    }
    let (kept, safe) = (slot.retained_bytes, slot.safe_bytes);
    run.pace.set_level(level);
    run.board.guard(level);
    if level < before {
        tracing::info!(level = level.name(), kept, "the source keeps less WAL for the slot");
    } else {
        tracing::warn!(level = level.name(), kept, safe, "the source keeps much WAL for the slot");
    }
    if level < GuardLevel::Limit {
        return Ok(level);
    }
    let error = EtlError::new(ErrorKind::WalRetained, "the source keeps more WAL for the slot than it may")
        .with("slot", &run.slot)
        .with("kept", kept)
        .with("limit", guard.limit.map_or(0, |limit| limit.0));
    Err(error.hint(match guard.at_limit {
        AtWalLimit::Stop => {
            "The source still keeps it: let the destination keep up, or free it with \
             SELECT pg_drop_replication_slot(...) and `etl run --resync-affected`"
        }
        AtWalLimit::DropSlot => {
            "The slot is dropped, as `at_limit: drop_slot` says; the next start copies every table again"
        }
    }))
}

/// Drops the slot of a run that has ended because of what the source kept, if that is wanted.
pub(super) async fn give_up_slot(run: &Run, ended: &EtlResult<()>) -> EtlResult<()> {
    let is_limit = ended.as_ref().is_err_and(|error| error.kind() == ErrorKind::WalRetained);
    if !is_limit || run.source.wal_guard.at_limit != AtWalLimit::DropSlot {
        return Ok(());
    }
    // Stored first: no start takes the tables for whole.
    set_resyncing(&run.store, "the source kept more WAL than it may").await?;
    let session = Session::connect(&run.source.connect.for_purpose("guard")).await?;
    let begun = clock::monotonic();
    loop {
        let Err(error) = drop_slot(session.client(), &run.slot).await else {
            tracing::warn!(slot = run.slot, "the slot is dropped: the next start copies every table again");
            return Ok(());
        };
        if clock::monotonic().saturating_duration_since(begun) > PATIENCE {
            return Err(error);
        }
        // The server has not noticed yet that the stream is gone.
        retry::pause(Duration::from_millis(200)).await;
    }
}
