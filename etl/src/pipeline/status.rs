//! How is the pipeline doing? What a status page, a progress bar and a test want to know.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::clock::{self, Timestamp};
use crate::data::decode;
use crate::error::{ErrorKind, EtlError};
use crate::lsn::{Lsn, Position};
use crate::schema::{TableId, TableName};
use crate::source::PublishedTable;
use crate::source::SlotStatus;
use crate::store::{Phase, Quarantine};

/// The state of a running pipeline at one moment. In JSON an LSN is its text, a time is RFC 3339.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct PipelineStatus {
    /// The pipeline's id.
    pub id: String,
    /// The slot at the source.
    pub slot: String,
    /// What the run does: `stream`, `incremental` or `full_refresh`.
    pub mode: &'static str,
    /// Where the run ends by itself, where it does: everything before is durable then.
    #[serde(serialize_with = "optional_text")]
    pub until: Option<Lsn>,
    /// The run that is staged, of `full_refresh`.
    pub run: Option<String>,
    /// When this run began.
    #[serde(serialize_with = "rfc3339")]
    pub started_at: Timestamp,
    /// Whether the replication stream is open.
    pub streaming: bool,
    /// Everything before was received from the source.
    #[serde(serialize_with = "text")]
    pub received: Lsn,
    /// Everything before may be forgotten by the source.
    #[serde(serialize_with = "text")]
    pub confirmed: Lsn,
    /// What the main cursor has made durable.
    #[serde(serialize_with = "optional_text")]
    pub durable: Option<Position>,
    /// WAL that the source has flushed, as far as is known, and the main cursor has not made durable.
    pub lag_bytes: u64,
    /// The age of the oldest commit that was received and that the main cursor has not made durable; 0 without one.
    /// By the clocks of both machines.
    pub lag_seconds: f64,
    /// Events that were written since the start, of all tables.
    pub changes_written: u64,
    /// What the source says about the slot; absent until it was asked.
    pub source: Option<SlotStatus>,
    /// What is done because of the WAL that the source keeps: `calm`, `warned`, `copies_slowed`, `copies_paused` or
    /// `limit`.
    pub wal_guard: &'static str,
    /// What the relay occupies.
    pub relay: RelayUse,
    /// What the engine's buffers hold.
    pub memory: MemoryUse,
    /// What last made the pipeline try again, or ended it.
    pub last_error: Option<ErrorStatus>,
    /// Every table of the publication, by name.
    pub tables: Vec<TableStatus>,
}

/// What the relay occupies, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RelayUse {
    /// In memory.
    pub memory_bytes: u64,
    /// On disk.
    pub disk_bytes: u64,
    /// `relay.max_bytes`.
    pub max_bytes: u64,
}

/// What the engine's buffers hold, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryUse {
    /// `pipeline.memory_limit`.
    pub limit_bytes: u64,
    /// All that is held now: what was received or read from disk and is not let go, wherever it waits. Each byte
    /// counts once, so that this is less than the sum of the relay's, of batches and of copies.
    pub used_bytes: u64,
    /// The most that was held at a time since the start.
    pub most_used_bytes: u64,
    /// Of it batches that are collected or written.
    pub batch_bytes: u64,
    /// Of it copied rows that are not written yet.
    pub copy_bytes: u64,
}

/// The state of one table.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TableStatus {
    /// The table's oid at the source.
    pub id: TableId,
    /// Its name at the source.
    #[serde(serialize_with = "text")]
    pub name: TableName,
    /// `pending`, `copying`, `catching_up`, `ready` and so on.
    pub phase: &'static str,
    /// Rows that the running or last copy has made durable.
    pub rows_copied: u64,
    /// The source's estimate of the rows to copy, where it has one.
    pub rows_estimated: Option<u64>,
    /// Everything up to here is durable; absent before the copy is done.
    #[serde(serialize_with = "optional_text")]
    pub durable: Option<Position>,
    /// For a table that shares the main cursor the pipeline's lag; for another one what it has yet to read of the
    /// relay, which holds changes of other tables too. Absent before the copy is done.
    pub lag_bytes: Option<u64>,
    /// The age of the oldest commit that was read and is not durable; absent before the copy is done and while paused.
    pub lag_seconds: Option<f64>,
    /// Since this position what the destination has may be wrong: it is being copied again.
    #[serde(serialize_with = "optional_text")]
    pub stale_since: Option<Lsn>,
    /// What the table waits for: the sessions that hold locks (`SOURCE.md` R1).
    pub waits_for: Option<String>,
    /// What last went wrong with it.
    pub error: Option<ErrorStatus>,
    /// When a table in quarantine is tried again.
    #[serde(serialize_with = "optional_rfc3339")]
    pub retry_at: Option<Timestamp>,
}

impl TableStatus {
    /// A table in this phase, of which nothing is known yet.
    pub(super) fn of(table: &PublishedTable, phase: &'static str) -> Self {
        Self {
            id: table.schema.id,
            name: table.schema.name.clone(),
            phase,
            rows_copied: 0,
            rows_estimated: table.rows_estimated,
            durable: None,
            lag_bytes: None,
            lag_seconds: None,
            stale_since: None,
            waits_for: None,
            error: None,
            retry_at: None,
        }
    }

    /// What is stored about the table.
    pub(super) fn shows(&mut self, phase: &Phase) {
        self.phase = phase.name();
        self.retry_at = None;
        if let Phase::Quarantined(why) = phase {
            self.retry_at = why.retry_at;
            self.error = Some(ErrorStatus::stored(why));
        }
    }
}

/// An error as a status page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ErrorStatus {
    /// When it happened.
    #[serde(serialize_with = "rfc3339")]
    pub at: Timestamp,
    /// Its kind, such as `source_unavailable`.
    pub kind: &'static str,
    /// What failed, where and why, with the hint.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl ErrorStatus {
    /// The error, met now.
    pub(super) fn now(error: &EtlError) -> Self {
        Self {
            at: clock::now(),
            kind: error.kind().name(),
            message: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

impl ErrorStatus {
    fn stored(why: &Quarantine) -> Self {
        let kind = ErrorKind::ALL.iter().map(|kind| kind.name()).find(|name| *name == why.kind);
        Self {
            at: why.since,
            kind: kind.unwrap_or(ErrorKind::Internal.name()),
            message: why.reason.clone(),
            hint: why.hint.clone(),
        }
    }
}

impl fmt::Display for ErrorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn text<S: Serializer>(value: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn optional_text<S: Serializer>(value: &Option<impl fmt::Display>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn optional_rfc3339<S: Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, to),
        None => to.serialize_none(),
    }
}

fn rfc3339<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&decode::rfc3339(*at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_well_as_json() {
        let error = EtlError::new(ErrorKind::SlotBusy, "the slot is in use").hint("Stop the other one");
        let status = PipelineStatus {
            received: Lsn(0x1_0000_0010),
            durable: Some(Position::new(Lsn(16), 3)),
            last_error: Some(ErrorStatus { at: Timestamp(1_500_000), ..ErrorStatus::now(&error) }),
            ..PipelineStatus::default()
        };
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["received"], "1/10");
        assert_eq!(json["durable"], Position::new(Lsn(16), 3).to_string());
        assert_eq!(json["last_error"]["at"], "1970-01-01T00:00:01.5Z");
        assert_eq!(json["last_error"]["kind"], "slot_busy");
        assert_eq!(json["last_error"]["hint"], "Stop the other one");
    }
}
