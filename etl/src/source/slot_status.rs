//! What does the slot cost the source? The WAL that it keeps, and how far the server is.

use serde::Serialize;
use tokio_postgres::Client;

use crate::error::EtlResult;
use crate::lsn::Lsn;
use crate::postgres::query_error;

/// What the source says about the slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SlotStatus {
    /// Whether somebody reads it.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Why the server has given it up, where it has (from version 17 on).
    pub invalidation_reason: Option<String>,
    /// WAL that the server keeps for it.
    pub retained_bytes: u64,
    /// WAL that may still be written before it is lost; absent without a limit.
    pub safe_bytes: Option<u64>,
    /// Whether standbys get a copy of it.
    pub failover: bool,
    /// Whether the server is a standby.
    pub is_standby: bool,
    /// The server has flushed everything before.
    #[serde(skip)]
    pub flushed: Lsn,
}

/// How far the server is: what a standby has replayed is flushed.
pub(crate) const FLUSHED: &str = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
         ELSE pg_catalog.pg_current_wal_flush_lsn() END";

/// Asks the source about a slot; `None` where there is none of that name.
pub(crate) async fn slot_status(client: &Client, name: &str) -> EtlResult<Option<SlotStatus>> {
    let query = format!(
        "SELECT s.active, s.wal_status, s.restart_lsn::text, s.safe_wal_size, ({FLUSHED})::text,
                pg_catalog.to_jsonb(s)->>'invalidation_reason', pg_catalog.to_jsonb(s)->>'failover',
                pg_catalog.pg_is_in_recovery()
           FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = $1"
    );
    let found = client.query_opt(&query, &[&name]).await.map_err(|e| query_error("ask about the slot", e))?;
    let Some(row) = found else { return Ok(None) };
    let flushed = row.get::<_, Option<String>>(4).map(|lsn| lsn.parse::<Lsn>()).transpose()?.unwrap_or_default();
    let restart = row.get::<_, Option<String>>(2).map(|lsn| lsn.parse::<Lsn>()).transpose()?;
    Ok(Some(SlotStatus {
        active: row.get(0),
        wal_status: row.get(1),
        invalidation_reason: row.get(5),
        retained_bytes: restart.map_or(0, |restart| flushed.0.saturating_sub(restart.0)),
        // Negative once the limit is passed and the next checkpoint may remove the WAL.
        safe_bytes: row.get::<_, Option<i64>>(3).map(|bytes| u64::try_from(bytes).unwrap_or(0)),
        failover: row.get::<_, Option<String>>(6).as_deref() == Some("true"),
        is_standby: row.get(7),
        flushed,
    }))
}
