//! Does the source go on where it was left? If not, the pipeline refuses to start, or copies again what is affected.

use super::backlog;
use super::builder::Pipeline;
use crate::destination::Destination;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::postgres::{Connection, Session};
use crate::relay::Relay;
use crate::source::{
    Affected, Break, Extent, Found, Judgement, Remembered, affected, can_failover, create_slot, drop_slot,
    forget_touched, is_resyncing, judge, remember, set_diverged, set_failover, set_resyncing,
};
use crate::store::{CursorId, SharedStore, TableState};

/// What the answer depends on, and what is changed by it.
pub(super) struct Continuity<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) store: &'a SharedStore,
    pub(super) session: &'a Session,
    pub(super) replication: &'a mut Connection,
    pub(super) slot: &'a str,
    pub(super) publication: &'a str,
    /// Where the relay keeps its segments.
    pub(super) relay: std::path::PathBuf,
}

impl Continuity<'_> {
    /// Finds or creates the slot, and returns where the stream begins.
    ///
    /// # Errors
    /// [`SourceIdentity`](ErrorKind::SourceIdentity) with the tables that have to be copied again, unless the user
    /// allows that.
    pub(super) async fn settle(mut self) -> EtlResult<Lsn> {
        let destination = &self.pipeline.destination;
        let held = if destination.capabilities().atomic {
            destination.durable_position(CursorId::Main).await?.unwrap_or_default().commit
        } else {
            Lsn::ZERO
        };
        let before = Remembered::read(self.store, self.slot, held).await?;
        let client = self.session.client();
        let found = Found::look(client, self.replication, &before, self.slot, self.publication).await?;
        let wants_failover = self.pipeline.source.failover;
        if wants_failover == Some(true) {
            can_failover(self.session.server_version(), found.is_standby)?;
        }
        let begins = match judge(&before, &found) {
            Judgement::Refused(error) => return Err(error),
            Judgement::GoOn(begins) => {
                if let (Some(slot), Some(wanted)) = (&found.slot, wants_failover) {
                    set_failover(self.replication, slot, wanted).await?;
                }
                begins
            }
            Judgement::CreateSlot { drops } => {
                if drops {
                    tracing::info!(slot = self.slot, "creating the slot again: the first attempt was cut short");
                    drop_slot(client, self.slot).await?;
                }
                let begins = create_slot(self.replication, self.store, self.slot, wants_failover == Some(true)).await?;
                self.store.confirm(begins).await?;
                begins
            }
            Judgement::Broken(broken) => self.mend(broken, &before, &found).await?,
        };
        remember(self.store, &before, &found).await?;
        if is_resyncing(self.store).await? {
            set_diverged(self.store, None).await?;
            set_resyncing(self.store, "").await?;
        }
        Ok(begins)
    }

    /// Marks what is affected to be copied again, if that is allowed, and makes a beginning for the stream.
    async fn mend(&mut self, broken: Break, before: &Remembered, found: &Found) -> EtlResult<Lsn> {
        let has_backlog = backlog::reached_before(self.store).await?.is_some();
        // What the relay holds is of the old history, and goes with it.
        let extent = if has_backlog { Extent::Gap } else { broken.extent };
        let affected = affected(self.store, extent, before.main).await?;
        let is_allowed = self.pipeline.resync_affected || is_resyncing(self.store).await? || affected.is_empty();
        if !is_allowed {
            return Err(broken.into_error(&affected));
        }
        let (extent, keeps_slot) = (broken.extent, broken.keeps_slot);
        let what = broken.into_error(&affected);
        tracing::warn!(error = %what, "the source does not go on where it was left: affected tables are copied again");
        set_resyncing(self.store, what.message()).await?;
        mark(self.store, &affected).await?;
        let to = if let Extent::Since(at) = extent { at } else { Lsn::ZERO };
        forget_touched(self.store, &affected, to).await?;
        Relay::remove(self.relay.clone()).await?;
        let slot = found.slot.as_ref();
        match (slot.filter(|_| keeps_slot), extent) {
            (Some(slot), Extent::Since(at)) => {
                self.go_back(Position::new(at, 0), slot.confirmed).await?;
                self.forget_backlog(slot.confirmed).await?;
                Ok(slot.confirmed)
            }
            _ => {
                if slot.is_some() {
                    drop_slot(self.session.client(), self.slot).await?;
                }
                let has_failover = self.pipeline.source.failover == Some(true);
                let begins = create_slot(self.replication, self.store, self.slot, has_failover).await?;
                // Positions of another history say nothing about this one.
                let to = if extent == Extent::Gap { Position::new(begins, 0) } else { Position::ZERO };
                self.go_back(to, begins).await?;
                self.forget_backlog(begins).await?;
                Ok(begins)
            }
        }
    }

    /// No stored position is beyond this one any more.
    async fn go_back(&self, to: Position, confirmed: Lsn) -> EtlResult<()> {
        let destination = &self.pipeline.destination;
        destination.go_back(to).await?;
        let left = destination.durable_position(CursorId::Main).await?.filter(|left| *left > to);
        if let Some(left) = left {
            return Err(EtlError::new(
                ErrorKind::DestinationUnsupported,
                "the destination cannot go back to an earlier position",
            )
            .with("destination", destination.name())
            .with("stored", left)
            .with("back to", to)
            .hint("Start with an empty destination, an empty data_dir and without the slot"));
        }
        let stored = self.store.progress().await?.cursor(CursorId::Main);
        self.store.forget_cursor(CursorId::Main).await?;
        if let Some(stored) = stored {
            self.store.advance(CursorId::Main, stored.min(to)).await?;
        }
        self.store.set_back(confirmed).await
    }

    async fn forget_backlog(&self, confirmed: Lsn) -> EtlResult<()> {
        match backlog::reached_before(self.store).await? {
            Some(_) => backlog::forget(self.store, confirmed).await,
            None => Ok(()),
        }
    }
}

/// Lets tables be copied from the beginning; those that wait go on waiting.
pub(super) async fn mark(store: &SharedStore, affected: &[Affected]) -> EtlResult<()> {
    for (id, state) in store.table_states().await? {
        if !affected.iter().any(|table| table.id == id) {
            continue;
        }
        let (phase, revision) = (state.phase.begun_anew(), state.revision);
        store.set_table_state(id, Some(revision), TableState { phase, ..state }).await?;
        store.forget_cursor(CursorId::Table(id)).await?;
    }
    Ok(())
}
