//! How is a running pipeline told what to do, and asked how it is?

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::board::Board;
use super::status::PipelineStatus;
use super::tables::{Order, Wish};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::schema::TableId;

/// What the parts of a run have been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// Go on.
    No,
    /// Write what is complete, confirm it, and end.
    Drain,
    /// End at once.
    Abort,
}

/// Tells and asks a running pipeline; clones are the same one.
#[derive(Debug, Clone)]
pub struct PipelineHandle {
    pub(super) stop: Arc<watch::Sender<Stop>>,
    pub(super) board: Arc<Board>,
    pub(super) orders: mpsc::Sender<Order>,
}

impl PipelineHandle {
    /// Ends the pipeline once what it has read is durable. Copies that are under way start over next time.
    pub fn shutdown(&self) {
        self.tell(Stop::Drain);
    }

    /// Ends the pipeline at once. Nothing is lost: the next run begins at the last durable position.
    pub fn abort(&self) {
        self.tell(Stop::Abort);
    }

    /// How the pipeline is doing.
    pub fn status(&self) -> PipelineStatus {
        self.board.status()
    }

    /// Waits until every table is ready and everything that the source had flushed at the call is durable.
    ///
    /// # Errors
    /// [`Cancelled`](ErrorKind::Cancelled) when the pipeline ends before.
    pub async fn caught_up(&self) -> EtlResult<()> {
        self.board.ask_for_target();
        let mut changes = self.board.changes.subscribe();
        let mut stop = self.stop.subscribe();
        loop {
            if self.board.is_caught_up() {
                return Ok(());
            }
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| ended())?,
                told = stop.wait_for(|stop| *stop != Stop::No) => {
                    let _told = told;
                    return Err(ended());
                }
            }
        }
    }

    /// Holds a table back: its changes wait in the relay, on disk. Returns once that is so. A table that is being
    /// copied starts its copy over when it goes on.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for a table that is not published, [`Cancelled`](ErrorKind::Cancelled) when the
    /// pipeline ends before.
    pub async fn pause(&self, table: TableId) -> EtlResult<()> {
        self.order(table, Wish::Pause).await
    }

    /// Lets a paused table go on: with what waits in the relay, or with a new copy where that is lost.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub async fn resume(&self, table: TableId) -> EtlResult<()> {
        self.order(table, Wish::Resume).await
    }

    /// Tries a table in quarantine again now: with what waits in the relay, or with a new copy where that is lost.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub async fn release(&self, table: TableId) -> EtlResult<()> {
        self.order(table, Wish::Release).await
    }

    /// Copies a table anew, beside the stream. Returns once that has begun.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub async fn resync(&self, table: TableId) -> EtlResult<()> {
        self.order(table, Wish::Resync).await
    }

    async fn order(&self, table: TableId, wish: Wish) -> EtlResult<()> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(Order { table, wish, answer }).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    fn tell(&self, stop: Stop) {
        tell(&self.stop, stop);
    }
}

/// Says it; a stronger word is never taken back.
pub(super) fn tell(told: &watch::Sender<Stop>, stop: Stop) {
    told.send_if_modified(|told| {
        let is_more = stop > *told;
        *told = (*told).max(stop);
        is_more
    });
}

fn ended() -> EtlError {
    EtlError::new(ErrorKind::Cancelled, "the pipeline ended")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;
    use crate::pipeline::board::Target;
    use crate::pipeline::settings::Settings;

    fn handle() -> PipelineHandle {
        PipelineHandle {
            stop: Arc::new(watch::Sender::new(Stop::No)),
            board: Arc::new(Board::new("shop", "etl_shop", &Settings::default())),
            orders: mpsc::channel(1).0,
        }
    }

    #[tokio::test]
    async fn caught_up_waits_for_the_source_the_slot_and_the_destination() {
        let handle = handle();
        let waiting = tokio::spawn({
            let handle = handle.clone();
            async move { handle.caught_up().await }
        });
        let mut targets = handle.board.targets();
        targets.wait_for(|target| *target == Target::Wanted).await.unwrap();
        handle.board.set_target(Lsn(10));
        handle.board.update(|status| status.confirmed = Lsn(9));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        handle.board.update(|status| status.confirmed = Lsn(10));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "the source was told, and the destination does not have it");
        handle.board.reached(Lsn(10));
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_stronger_word_is_never_taken_back() {
        let handle = handle();
        handle.abort();
        handle.shutdown();
        assert_eq!(*handle.stop.borrow(), Stop::Abort);
        assert_eq!(handle.caught_up().await.unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
