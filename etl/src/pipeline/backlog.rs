//! What was the source told to forget that the destination does not have? With `ack: relay`, what is in the relay.

use std::collections::HashMap;

use super::settings::Ack;
use super::start::forget_copies;
use crate::error::EtlResult;
use crate::lsn::Lsn;
use crate::schema::TableId;
use crate::store::{Phase, SharedStore, TableState};

/// How far the main cursor was when that was last noted, and where the last transaction that the source was told to
/// forget ends. Absent where the source was never told more than the main cursor had reached.
const REACHED: &str = "main.reached";

/// Notes how far the main cursor is: before the source is told anything beyond, and before a table forgets what its
/// snapshot has seen.
#[derive(Debug)]
pub(super) struct Notes {
    /// Whether the source was ever told more, or may be.
    are_needed: bool,
    last: Option<Noted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Noted {
    /// Everything before was durable in the destination, as far as the main cursor goes.
    reached: Lsn,
    /// The end of the last transaction that was received.
    received: Lsn,
}

impl Notes {
    pub(super) async fn open(store: &SharedStore, ack: Ack) -> EtlResult<Self> {
        let last = noted(store).await?;
        Ok(Self { are_needed: ack == Ack::Relay || last.is_some(), last })
    }

    /// Notes that everything before `reached` is durable, and that the last transaction ends at `received`.
    pub(super) async fn note(&mut self, store: &SharedStore, reached: Lsn, received: Lsn) -> EtlResult<()> {
        let now = Noted { reached, received };
        if self.are_needed && self.last != Some(now) {
            store.set_fact(REACHED, format!("{reached} {received}")).await?;
            self.last = Some(now);
        }
        Ok(())
    }
}

async fn noted(store: &SharedStore) -> EtlResult<Option<Noted>> {
    let Some(text) = store.fact(REACHED).await? else { return Ok(None) };
    let (reached, received) = text.split_once(' ').unwrap_or((&text, &text));
    Ok(Some(Noted { reached: reached.parse()?, received: received.parse()? }))
}

/// How far the main cursor is at least, where the source was told to forget transactions beyond.
pub(super) async fn reached_before(store: &SharedStore) -> EtlResult<Option<Lsn>> {
    let behind = noted(store).await?.filter(|noted| noted.reached < noted.received);
    Ok(behind.map(|noted| noted.reached))
}

/// There is nothing that the relay has alone.
pub(super) async fn forget(store: &SharedStore, confirmed: Lsn) -> EtlResult<()> {
    store.set_fact(REACHED, format!("{confirmed} {confirmed}")).await
}

/// The relay with the backlog is lost: every table that shares the main cursor is copied again (`SOURCE.md` R18).
/// Stored before anything else is done, so that nobody takes them for whole.
pub(super) async fn is_lost(
    store: &SharedStore,
    states: &mut HashMap<TableId, TableState>,
    confirmed: Lsn,
) -> EtlResult<()> {
    let ready = states.iter().filter(|(_, state)| state.phase == Phase::Ready);
    let ready: Vec<TableId> = ready.map(|(table, _)| *table).collect();
    for table in &ready {
        tracing::warn!(%table, "the relay with changes that the source has forgotten is lost: the table is copied again");
    }
    forget_copies(store, states, &ready).await?;
    forget(store, confirmed).await
}
