//! When may the source forget? What is durable is stored first, and told to the slot only then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::control::Stop;
use super::run::Run;
use crate::error::EtlResult;
use crate::failpoint;
use crate::lsn::Lsn;

/// How long the last confirmation may take once everything is written.
const LAST_SYNC: Duration = Duration::from_secs(5);

/// What the main cursor has reached, and what the slot has been told.
#[derive(Debug)]
pub(super) struct Progress {
    /// Everything before is durable in the destination, as far as the main cursor goes.
    reached: watch::Sender<Lsn>,
    /// What the feedback repeats: everything before is stored as confirmed.
    confirmed: watch::Sender<Lsn>,
    /// How many tables have a cursor of their own.
    own_cursors: AtomicUsize,
}

impl Progress {
    /// Begins with what is stored.
    pub(super) fn new(confirmed: Lsn) -> Self {
        Self {
            reached: watch::Sender::new(confirmed),
            confirmed: watch::Sender::new(confirmed),
            own_cursors: AtomicUsize::new(0),
        }
    }

    /// Everything before `end` is durable. Never goes back.
    pub(super) fn reached(&self, end: Lsn) {
        self.reached.send_if_modified(|reached| {
            let is_more = end > *reached;
            *reached = end.max(*reached);
            is_more
        });
    }

    /// For the feedback task.
    pub(super) fn confirmed(&self) -> watch::Receiver<Lsn> {
        self.confirmed.subscribe()
    }

    /// A table has a cursor of its own from here on.
    pub(super) fn own_cursor_opened(&self) {
        self.own_cursors.fetch_add(1, Ordering::SeqCst);
    }

    /// A table that had its own cursor shares the main one, durably; says whether it was the last one.
    pub(super) fn own_cursor_closed(&self) -> bool {
        self.own_cursors.fetch_sub(1, Ordering::SeqCst) == 1
    }

    fn has_own_cursors(&self) -> bool {
        self.own_cursors.load(Ordering::SeqCst) > 0
    }
}

/// Stores and confirms what is reached, until the pipeline ends; `over` says that nothing more is written.
pub(super) async fn confirm(run: Arc<Run>, mut over: watch::Receiver<bool>) -> EtlResult<()> {
    let mut reached = run.progress.reached.subscribe();
    let mut stop = run.stop.subscribe();
    loop {
        let end = *reached.borrow_and_update();
        if end > *run.progress.confirmed.borrow() {
            tokio::select! {
                biased;
                done = confirm_one(&run, end) => done?,
                // The relay may wait for room that nobody makes any more.
                _ = stop.wait_for(|stop| *stop == Stop::Abort) => return Ok(()),
                () = too_late(over.clone()) => return Ok(()),
            }
            continue;
        }
        tokio::select! {
            biased;
            changed = reached.changed() => if changed.is_err() { return Ok(()) },
            _ = stop.wait_for(|stop| *stop == Stop::Abort) => return Ok(()),
            _ = over.wait_for(|over| *over) => return Ok(()),
        }
    }
}

async fn too_late(mut over: watch::Receiver<bool>) {
    let _ = over.wait_for(|over| *over).await;
    crate::retry::pause(LAST_SYNC).await;
}

/// R9: what separate cursors still need is fsynced, then the position is stored, then the slot is told.
async fn confirm_one(run: &Run, end: Lsn) -> EtlResult<()> {
    if run.progress.has_own_cursors() {
        run.relay.sync_upto(end).await?;
    }
    failpoint::visit("progress.before_store").await?;
    run.store.confirm(end).await?;
    failpoint::visit("progress.before_confirm").await?;
    run.progress.confirmed.send_replace(end);
    run.board.update(|status| status.confirmed = end);
    run.settle().await
}
