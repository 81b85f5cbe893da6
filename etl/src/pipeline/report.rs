//! Who keeps the status and the metrics fresh? A task that asks the source now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::guard;
use super::run::Run;
use crate::clock;
use crate::error::{ErrorKind, EtlResult};
use crate::postgres::Session;
use crate::source::{GuardLevel, SlotStatus, look_again, slot_status};

/// How often gauges move.
const TICK: Duration = Duration::from_secs(1);

/// How often the source is asked about the slot.
const ASK: Duration = Duration::from_secs(5);

/// How often it is noted up to where each table has something.
const NOTE: Duration = Duration::from_secs(10);

/// Reports until the pipeline ends. A source that does not answer is the stream's concern, not this one's.
pub(super) async fn report(run: Arc<Run>, mut over: watch::Receiver<bool>) -> EtlResult<()> {
    let mut session = None;
    let mut level = GuardLevel::Calm;
    let mut was_standby = false;
    let mut noted = clock::monotonic();
    let mut asked = None;
    loop {
        let now = clock::monotonic();
        if asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK) {
            asked = Some(now);
            let answered = tokio::select! {
                answered = ask(&run, &mut session) => answered,
                _ = over.wait_for(|over| *over) => return Ok(()),
            };
            match answered {
                Ok(Some(slot)) => {
                    level = guard::watch(&run, level, &slot)?;
                    // A standby that was promoted has another timeline from here on.
                    let is_promoted = was_standby && !slot.is_standby;
                    was_standby = slot.is_standby || (is_promoted && !is_known_again(&run).await?);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "the source was not asked about the slot");
                    session = None;
                }
            }
        }
        run.board.publish();
        if now.saturating_duration_since(noted) >= NOTE {
            noted = now;
            note_touched(&run).await?;
        }
        tokio::select! {
            () = crate::retry::pause(TICK) => {}
            _ = over.wait_for(|over| *over) => return Ok(()),
        }
    }
}

/// Whether the source was looked at again. One that cannot be reached is asked later.
async fn is_known_again(run: &Run) -> EtlResult<bool> {
    match look_again(run.stream_request(false), &run.store).await {
        Err(error) if error.kind() == ErrorKind::SourceIdentity => Err(error),
        looked => Ok(looked.is_ok()),
    }
}

/// Notes up to where each table has something.
pub(super) async fn note_touched(run: &Run) -> EtlResult<()> {
    let durable = run.board.status().durable.unwrap_or_default();
    run.touched.note(&run.store, durable.commit, run.relay.head().last).await
}

async fn ask(run: &Run, session: &mut Option<Session>) -> EtlResult<Option<SlotStatus>> {
    let session = match session {
        Some(session) => session,
        None => session.insert(Session::connect(&run.source.connect.for_purpose("status")).await?),
    };
    let slot = slot_status(session.client(), &run.slot).await?;
    run.board.source(slot.clone());
    Ok(slot)
}
