//! When does a run end that has an end? Once what the source had flushed at its start is durable.

use std::sync::Arc;

use tokio::sync::watch;

use super::control::{Stop, tell};
use super::run::Run;
use super::settings::SyncMode;
use crate::error::EtlResult;
use crate::lsn::Lsn;
use crate::postgres::{Session, query_error};
use crate::source::FLUSHED;

/// Everything before has been flushed at the source.
pub(super) async fn flushed(session: &Session) -> EtlResult<Lsn> {
    let query = format!("SELECT ({FLUSHED})::text");
    let row = session.client().query_one(&query, &[]).await.map_err(|e| query_error("ask for the WAL's end", e))?;
    row.get::<_, String>(0).parse()
}

/// Where a run of this mode ends.
pub(super) async fn end_of(mode: SyncMode, session: &Session) -> EtlResult<Option<Lsn>> {
    Ok(match mode {
        SyncMode::Stream | SyncMode::FullRefresh => None,
        SyncMode::Incremental => Some(flushed(session).await?),
    })
}

/// Lets the run end once everything before `until` is durable and confirmed, and no table is on its way any more.
pub(super) async fn end_at(run: Arc<Run>, until: Lsn, mut over: watch::Receiver<bool>) -> EtlResult<()> {
    let mut changes = run.board.changes.subscribe();
    while !run.board.has_everything_before(until) {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            _ = over.wait_for(|over| *over) => return Ok(()),
        }
    }
    tracing::info!(%until, "everything is durable that the source had when the run began: the run ends");
    tell(&run.stop, Stop::Drain);
    Ok(())
}
