//! What does the source keep while no run reads the slot? Told by `etl check`, where runs end by themselves.

use super::SourceConfig;
use super::check::Finding;
use super::slot_status::slot_status;
use crate::byte_size::ByteSize;
use crate::error::EtlResult;
use crate::postgres::{Session, query_error};

/// What the slot costs the source between two runs of `incremental`.
///
/// # Errors
/// Where the server cannot be asked.
pub async fn check_between_runs(source: &SourceConfig, slot: &str) -> EtlResult<Vec<Finding>> {
    let session = Session::connect(&source.connect).await?;
    let query = "SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'";
    let row = session.client().query_one(query, &[]).await;
    let megabytes: i64 = row.map_err(|e| query_error("ask for max_slot_wal_keep_size", e))?.get(0);
    let kept = slot_status(session.client(), slot).await?.map_or(0, |slot| slot.retained_bytes);
    let what = format!("between two incremental runs the source keeps WAL for the slot {slot}, now {}", ByteSize(kept));
    Ok(vec![match u64::try_from(megabytes) {
        Ok(megabytes) => Finding::warning(
            format!("{what}, up to max_slot_wal_keep_size ({})", ByteSize(megabytes << 20)),
            "A run that comes later than that finds the slot lost, and copies everything again with --resync-affected",
        ),
        Err(_) => Finding::warning(
            format!("{what}, without a limit"),
            "Let runs follow each other closely, or set max_slot_wal_keep_size at the source; a pipeline that is to run no \
             more leaves its slot to `etl gc`",
        ),
    }])
}
