//! How is a running pipeline told what to do, and asked how it is?

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::status::{PipelineStatus, TableStatus};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::relay::RelayStatus;
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

    fn tell(&self, stop: Stop) {
        self.stop.send_if_modified(|told| {
            let is_more = stop > *told;
            *told = (*told).max(stop);
            is_more
        });
    }
}

fn ended() -> EtlError {
    EtlError::new(ErrorKind::Cancelled, "the pipeline ended")
}

/// Where the parts of a run write what they do, and a status page reads it.
#[derive(Debug)]
pub(super) struct Board {
    status: Mutex<PipelineStatus>,
    changes_written: AtomicU64,
    /// Moves whenever something on the board does.
    pub(super) changes: watch::Sender<u64>,
    /// The LSN that `caught_up` waits for: wanted, or known.
    target: watch::Sender<Target>,
}

/// What `caught_up` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Nobody asks.
    None,
    /// Somebody asks; the source has yet to say.
    Wanted,
    /// The source had flushed this much.
    Known(Lsn),
}

impl Board {
    pub(super) fn new(id: &str, slot: &str) -> Self {
        let status = PipelineStatus { id: id.to_owned(), slot: slot.to_owned(), ..PipelineStatus::default() };
        Self {
            status: Mutex::new(status),
            changes_written: AtomicU64::new(0),
            changes: watch::Sender::new(0),
            target: watch::Sender::new(Target::None),
        }
    }

    /// Changes the status and wakes who waits for it.
    pub(super) fn update(&self, change: impl FnOnce(&mut PipelineStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|version| *version += 1);
    }

    /// Changes one table's status.
    pub(super) fn table(&self, id: TableId, change: impl FnOnce(&mut TableStatus)) {
        self.update(|status| {
            if let Some(table) = status.tables.iter_mut().find(|table| table.id == id) {
                change(table);
            }
        });
    }

    /// Shows an error that the pipeline lives with, or dies of.
    pub(super) fn failed(&self, error: &EtlError) {
        self.update(|status| status.last_error = Some(error.to_string()));
    }

    pub(super) fn count_changes(&self, count: usize) {
        self.changes_written.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Everything before `end` was received; the relay holds this much.
    pub(super) fn received(&self, end: Lsn, relay: RelayStatus) {
        self.update(|status| {
            status.received = end;
            status.relay_memory_bytes = relay.memory_bytes;
            status.relay_disk_bytes = relay.disk_bytes;
        });
    }

    pub(super) fn durable(&self, position: Position) {
        self.update(|status| status.durable = Some(position));
    }

    pub(super) fn status(&self) -> PipelineStatus {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.changes_written = self.changes_written.load(Ordering::Relaxed);
        status
    }

    fn ask_for_target(&self) {
        self.target.send_replace(Target::Wanted);
    }

    /// Follows what `caught_up` asks for.
    pub(super) fn targets(&self) -> watch::Receiver<Target> {
        self.target.subscribe()
    }

    pub(super) fn set_target(&self, lsn: Lsn) {
        self.target.send_replace(Target::Known(lsn));
        self.changes.send_modify(|version| *version += 1);
    }

    fn is_caught_up(&self) -> bool {
        let Target::Known(target) = *self.target.borrow() else { return false };
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.confirmed >= target
            && status.tables.iter().all(|t| !matches!(t.phase, "pending" | "copying" | "catching_up"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn caught_up_waits_for_the_source_and_the_slot() {
        let handle = PipelineHandle {
            stop: Arc::new(watch::Sender::new(Stop::No)),
            board: Arc::new(Board::new("shop", "etl_shop")),
        };
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
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_stronger_word_is_never_taken_back() {
        let handle = PipelineHandle {
            stop: Arc::new(watch::Sender::new(Stop::No)),
            board: Arc::new(Board::new("shop", "etl_shop")),
        };
        handle.abort();
        handle.shutdown();
        assert_eq!(*handle.stop.borrow(), Stop::Abort);
        assert_eq!(handle.caught_up().await.unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
