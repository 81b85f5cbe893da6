//! Who keeps the status and the metrics fresh? A task that asks the source now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::run::Run;
use crate::clock;
use crate::error::EtlResult;
use crate::postgres::Session;
use crate::source::slot_status;

/// How often gauges move.
const TICK: Duration = Duration::from_secs(1);

/// How often the source is asked about the slot.
const ASK: Duration = Duration::from_secs(5);

/// Reports until the pipeline ends. A source that does not answer is the stream's concern, not this one's.
pub(super) async fn report(run: Arc<Run>, mut over: watch::Receiver<bool>) -> EtlResult<()> {
    let mut session = None;
    let mut asked = None;
    loop {
        let now = clock::monotonic();
        if asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK) {
            asked = Some(now);
            tokio::select! {
                answered = ask(&run, &mut session) => if let Err(error) = answered {
                    tracing::debug!(%error, "the source was not asked about the slot");
                    session = None;
                },
                _ = over.wait_for(|over| *over) => return Ok(()),
            }
        }
        run.board.publish();
        tokio::select! {
            () = crate::retry::pause(TICK) => {}
            _ = over.wait_for(|over| *over) => return Ok(()),
        }
    }
}

async fn ask(run: &Run, session: &mut Option<Session>) -> EtlResult<()> {
    let session = match session {
        Some(session) => session,
        None => session.insert(Session::connect(&run.source.connect.for_purpose("status")).await?),
    };
    run.board.source(slot_status(session.client(), &run.slot).await?);
    Ok(())
}
