//! What does the slot cost the source? The WAL that it keeps, and how far the server is.

use serde::Serialize;
use tokio_postgres::Client;

use crate::error::EtlResult;
use crate::lsn::Lsn;
use crate::postgres::query_error;

/// What the source says about the slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SlotStatus {
    /// Whether somebody reads it.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// WAL that the server keeps for it.
    pub retained_bytes: u64,
    /// WAL that may still be written before it is lost; absent without a limit.
    pub safe_bytes: Option<u64>,
    /// The server has flushed everything before.
    #[serde(skip)]
    pub flushed: Lsn,
}

/// Asks the source about a slot; `None` where there is none of that name.
pub(crate) async fn slot_status(client: &Client, name: &str) -> EtlResult<Option<SlotStatus>> {
    let query =
        "SELECT active, wal_status, restart_lsn::text, safe_wal_size, pg_catalog.pg_current_wal_flush_lsn()::text
                   FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let found = client.query_opt(query, &[&name]).await.map_err(|e| query_error("ask about the slot", e))?;
    let Some(row) = found else { return Ok(None) };
    let flushed: Lsn = row.get::<_, String>(4).parse()?;
    let restart = row.get::<_, Option<String>>(2).map(|lsn| lsn.parse::<Lsn>()).transpose()?;
    Ok(Some(SlotStatus {
        active: row.get(0),
        wal_status: row.get(1),
        retained_bytes: restart.map_or(0, |restart| flushed.0.saturating_sub(restart.0)),
        // Negative once the limit is passed and the next checkpoint may remove the WAL.
        safe_bytes: row.get::<_, Option<i64>>(3).map(|bytes| u64::try_from(bytes).unwrap_or(0)),
        flushed,
    }))
}
