//! Does the source write anything while nobody works in its database? A message of ours from time to time.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::postgres::{ConnectOptions, Session, query_error};
use crate::retry;

/// What a message is known by, where anybody reads messages.
const PREFIX: &str = "etl_heartbeat";

/// Needs no table and no transaction: it is in the WAL, and the stream passes it by. A standby writes none.
const BEAT: &str = "
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL
            ELSE pg_catalog.pg_logical_emit_message(false, $1::text, $2::text) END::text";

/// Writes a message of this text into the WAL at every interval, until the pipeline ends. One that could not be written
/// is told and left out.
pub(crate) async fn heartbeat(
    options: &ConnectOptions,
    interval: Duration,
    text: &str,
    mut over: watch::Receiver<bool>,
) -> EtlResult<()> {
    let options = options.for_purpose("heartbeat");
    let mut session = None;
    loop {
        let patience = options.connect_timeout.max(interval);
        let beaten = async {
            let beaten = tokio::time::timeout(patience, beat(&options, text, &mut session)).await;
            beaten.unwrap_or_else(|_| Err(EtlError::new(ErrorKind::SourceUnavailable, "the source does not answer")))
        };
        tokio::select! {
            beaten = beaten => if let Err(error) = beaten {
                tracing::warn!(%error, "no heartbeat was written");
                session = None;
            },
            _ = over.wait_for(|over| *over) => return Ok(()),
        }
        tokio::select! {
            () = retry::pause(interval) => {}
            _ = over.wait_for(|over| *over) => return Ok(()),
        }
    }
}

async fn beat(options: &ConnectOptions, text: &str, session: &mut Option<Session>) -> EtlResult<()> {
    let open = match session.take() {
        Some(open) => open,
        None => Session::connect(options).await?,
    };
    let query = open.client().query_one(BEAT, &[&PREFIX, &text]).await;
    query.map_err(|e| query_error("write a heartbeat", e))?;
    *session = Some(open);
    Ok(())
}
