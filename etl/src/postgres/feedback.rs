//! When does the server hear from us? A task of its own repeats what was published, whatever else is busy.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::wire::StreamWriter;
use crate::error::EtlResult;
use crate::lsn::Lsn;

/// How long the server is left without a word at most. It is asked back each time, since what it has read without
/// finding anything for us it tells by itself only now and then.
const INTERVAL: Duration = Duration::from_millis(500);
/// Confirmations that follow each other quickly are sent together.
const SOONEST: Duration = Duration::from_millis(20);

/// What the receiver tells the feedback task.
#[derive(Debug, Clone)]
pub struct Reporter {
    received: Arc<watch::Sender<Lsn>>,
    asked: Arc<Notify>,
}

impl Reporter {
    /// Begins with what was received before.
    pub fn new(received: Lsn) -> Self {
        Self { received: Arc::new(watch::Sender::new(received)), asked: Arc::new(Notify::new()) }
    }

    /// Everything before was received.
    pub fn received(&self, end: Lsn) {
        self.received.send_if_modified(|received| {
            let is_more = end > *received;
            *received = end.max(*received);
            is_more
        });
    }

    /// Everything before this was received, as far as the server will be told.
    pub fn last_received(&self) -> Lsn {
        *self.received.borrow()
    }

    /// The server wants to hear from us at once.
    pub fn reply(&self) {
        self.asked.notify_one();
    }

    /// Repeats received and confirmed positions to the server until `over` says that no more will be
    /// confirmed; then says the last word and ends the session. Never confirms more than was received.
    ///
    /// # Errors
    /// A lost connection.
    pub async fn run(
        self,
        mut writer: StreamWriter,
        mut confirmed: watch::Receiver<Lsn>,
        mut over: watch::Receiver<bool>,
    ) -> EtlResult<()> {
        let mut asks_reply = true;
        loop {
            let is_over = *over.borrow_and_update();
            let safe = *confirmed.borrow_and_update();
            let received = (*self.received.borrow()).max(safe);
            writer.status(received, safe, asks_reply && !is_over).await?;
            if is_over {
                return writer.terminate().await;
            }
            asks_reply = false;
            let has_moved = tokio::select! {
                () = self.asked.notified() => false,
                changed = confirmed.changed() => changed.is_ok(),
                // Whoever is gone confirms nothing more either.
                changed = over.changed() => changed.is_err(),
                () = crate::retry::pause(INTERVAL) => {
                    asks_reply = true;
                    false
                }
            };
            if has_moved {
                crate::retry::pause(SOONEST).await;
            }
        }
    }
}
