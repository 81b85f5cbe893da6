//! What if a prepared transaction is committed whose changes are lost with the relay? Every table is copied again.

use std::collections::HashMap;

use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;
use crate::schema::TableId;
use crate::store::{Phase, SharedStore, TableState};

/// The end of the last transaction that committed after it was lost, and whether the tables are marked since.
const LOST: &str = "prepared.lost";

/// Says `LOST` of what was marked.
const MARKED: &str = " marked";

/// Notes that a transaction is lost that ends there (`SOURCE.md` R11); returns what the run ends with.
pub(super) async fn is_lost(store: &SharedStore, gid: &str, end: Lsn) -> EtlResult<EtlError> {
    store.set_fact(LOST, end.to_string()).await?;
    Ok(EtlError::new(ErrorKind::Relay, "a prepared transaction committed whose changes were lost with the relay")
        .with("gid", gid)
        .hint("Start again: every table is copied anew"))
}

/// Marks every table to be copied again where something is lost, before anybody takes them for whole. Returns where
/// nothing before is missed any more.
pub(super) async fn mark(store: &SharedStore, states: &mut HashMap<TableId, TableState>) -> EtlResult<Lsn> {
    let Some(fact) = store.fact(LOST).await? else { return Ok(Lsn::ZERO) };
    if let Some(end) = fact.strip_suffix(MARKED) {
        return end.parse();
    }
    let end = fact.parse()?;
    for (table, state) in states.iter_mut().filter(|(_, state)| state.phase != Phase::Removed) {
        tracing::warn!(%table, "a prepared transaction is lost: the table is copied again");
        let phase = state.phase.clone().begun_anew();
        let (revision, marked) = (state.revision, TableState { phase, ..state.clone() });
        let revision = store.set_table_state(*table, Some(revision), marked.clone()).await?;
        *state = TableState { revision, ..marked };
    }
    store.set_fact(LOST, format!("{fact}{MARKED}")).await?;
    Ok(end)
}
