//! When may the source forget? What is durable is stored first, and told to the slot only then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::control::Stop;
use super::report::note_touched;
use super::run::Run;
use super::settings::Ack;
use crate::error::EtlResult;
use crate::failpoint;
use crate::lsn::Lsn;
use crate::retry::RetryPolicy;

/// How long the last confirmation may take once everything is written.
const LAST_SYNC: Duration = Duration::from_secs(5);

/// How long what is received is gathered before it is fsynced and confirmed with [`Ack::Relay`].
const GATHER: Duration = Duration::from_millis(50);

/// What the main cursor has reached, and what the slot has been told.
#[derive(Debug)]
pub(super) struct Progress {
    /// Everything before is durable in the destination, as far as the main cursor goes.
    reached: watch::Sender<Lsn>,
    /// Everything before is complete in the relay.
    received: watch::Sender<Lsn>,
    /// What the feedback repeats: everything before is stored as confirmed.
    confirmed: watch::Sender<Lsn>,
    /// How many tables have a cursor of their own.
    own_cursors: AtomicUsize,
}

impl Progress {
    /// Begins with what is stored: the source was told `confirmed`, and the main cursor has `reached`.
    pub(super) fn new(confirmed: Lsn, reached: Lsn) -> Self {
        Self {
            reached: watch::Sender::new(reached),
            received: watch::Sender::new(confirmed),
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

    /// Everything before `end` is complete in the relay. Never goes back.
    pub(super) fn received(&self, end: Lsn) {
        self.received.send_if_modified(|received| {
            let is_more = end > *received;
            *received = end.max(*received);
            is_more
        });
    }

    /// What is both durable in the destination and stored as confirmed: no restart reads it again.
    pub(super) fn passed(&self) -> Lsn {
        let reached = *self.reached.borrow();
        reached.min(*self.confirmed.borrow())
    }

    /// What the main cursor has reached.
    pub(super) fn reached_now(&self) -> Lsn {
        *self.reached.borrow()
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

/// Stores and confirms what is safe, until the pipeline ends; `over` says that nothing more is written.
pub(super) async fn confirm(run: Arc<Run>, over: watch::Receiver<bool>) -> EtlResult<()> {
    confirm_until(&run, over).await?;
    // What was reached since is no reason to copy anything again where the relay is lost.
    run.note_reached().await?;
    note_touched(&run).await
}

/// What the confirming task wakes up for.
enum Wake {
    Safe,
    Reached,
    End,
}

async fn confirm_until(run: &Arc<Run>, mut over: watch::Receiver<bool>) -> EtlResult<()> {
    let mut reached = run.progress.reached.subscribe();
    let mut safe = match run.settings.ack {
        Ack::Destination => run.progress.reached.subscribe(),
        Ack::Relay => run.progress.received.subscribe(),
    };
    let mut stop = run.stop.subscribe();
    loop {
        let end = *safe.borrow_and_update();
        if end > *run.progress.confirmed.borrow() {
            tokio::select! {
                biased;
                done = confirm_one(run, end) => done?,
                // The relay may wait for room that nobody makes any more.
                _ = stop.wait_for(|stop| *stop == Stop::Abort) => return Ok(()),
                () = too_late(over.clone()) => return Ok(()),
            }
            // Batches say by themselves how often something is safe; what is received never stops coming.
            if run.settings.ack == Ack::Relay {
                tokio::select! {
                    () = crate::retry::pause(GATHER) => {}
                    _ = stop.wait_for(|stop| *stop == Stop::Abort) => {}
                    _ = over.wait_for(|over| *over) => {}
                }
            }
            continue;
        }
        let wake = tokio::select! {
            biased;
            changed = safe.changed() => changed.map_or(Wake::End, |()| Wake::Safe),
            changed = reached.changed() => changed.map_or(Wake::End, |()| Wake::Reached),
            _ = stop.wait_for(|stop| *stop == Stop::Abort) => Wake::End,
            _ = over.wait_for(|over| *over) => Wake::End,
        };
        match wake {
            Wake::Safe => {}
            Wake::Reached => run.settle().await?,
            Wake::End => return Ok(()),
        }
    }
}

async fn too_late(mut over: watch::Receiver<bool>) {
    let _ = over.wait_for(|over| *over).await;
    crate::retry::pause(LAST_SYNC).await;
}

/// Waits while the disk of the relay is full.
async fn sync_upto(run: &Run, end: Lsn) -> EtlResult<()> {
    let mut waits = RetryPolicy::default().waits();
    while let Err(error) = run.relay.sync_upto(end).await {
        run.board.failed(&error);
        waits.after(error).await?;
    }
    Ok(())
}

/// R9: what a cursor still needs is fsynced, then the position is stored, then the slot is told.
async fn confirm_one(run: &Run, end: Lsn) -> EtlResult<()> {
    if run.progress.has_own_cursors() || run.settings.ack == Ack::Relay {
        sync_upto(run, end).await?;
    }
    run.note_reached().await?;
    failpoint::visit("progress.before_store").await?;
    run.store.confirm(end).await?;
    failpoint::visit("progress.before_confirm").await?;
    run.relay.confirmed(end);
    run.progress.confirmed.send_replace(end);
    run.board.update(|status| status.confirmed = end);
    run.settle().await
}
