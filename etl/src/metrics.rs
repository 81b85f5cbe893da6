//! What is measured? Every metric with its unit and meaning, and the handles that the engine writes to.

mod operations;

use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};

pub use operations::{OperationMetrics, dead_letters};

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Only grows, from zero at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by their size.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name; the unit is part of it, as Prometheus has it.
    pub name: &'static str,
    /// How it moves.
    pub shape: Shape,
    /// What it counts.
    pub unit: Unit,
    /// Labels beside `pipeline`, which all have.
    pub labels: &'static [&'static str],
    /// What it says.
    pub meaning: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $shape:ident, $unit:ident, [$($label:literal),*], $meaning:literal;)*) => {
        $(const $constant: &str = $name;)*

        /// Every metric of the engine.
        pub const ALL: &[Metric] = &[$(Metric {
            name: $name, shape: Shape::$shape, unit: Unit::$unit, labels: &[$($label),*], meaning: $meaning,
        }),*];
    };
}

metrics! {
    STREAMING = "etl_streaming", Gauge, Count, [],
        "1 while the replication stream is open, else 0";
    RECEIVED_BYTES = "etl_received_bytes_total", Counter, Bytes, [],
        "What the replication stream has sent";
    RECONNECTS = "etl_reconnects_total", Counter, Count, [],
        "Replication streams that were lost";
    ERRORS = "etl_errors_total", Counter, Count, ["kind"],
        "Errors that the pipeline met, those included that went away by themselves";
    TABLES = "etl_tables", Gauge, Count, ["phase"],
        "Tables in this phase";
    QUARANTINES = "etl_quarantines_total", Counter, Count, ["table"],
        "How often the table failed alone and was put into quarantine";
    ROWS_COPIED = "etl_rows_copied_total", Counter, Count, ["table"],
        "Copied rows that are durable in the destination";
    CHANGES_WRITTEN = "etl_changes_written_total", Counter, Count, [],
        "Events that are durable in the destination";
    BATCHES_WRITTEN = "etl_batches_written_total", Counter, Count, [],
        "Batches that are durable in the destination";
    BATCH_WRITE_SECONDS = "etl_batch_write_seconds", Histogram, Seconds, [],
        "From handing a batch to the destination until it is durable";
    COMMIT_TO_DURABLE_SECONDS = "etl_commit_to_durable_seconds", Histogram, Seconds, [],
        "From the commit of the oldest change of a batch until it is durable, by the clocks of both machines";
    LAG_BYTES = "etl_lag_bytes", Gauge, Bytes, [],
        "WAL that the source has flushed and the main cursor has not made durable";
    LAG_SECONDS = "etl_lag_seconds", Gauge, Seconds, [],
        "Age of the oldest commit that was received and is not durable; 0 when there is none";
    SLOT_RETAINED_BYTES = "etl_slot_retained_bytes", Gauge, Bytes, [],
        "WAL that the source keeps for the slot";
    SLOT_SAFE_BYTES = "etl_slot_safe_bytes", Gauge, Bytes, [],
        "WAL that may still be written before the slot is lost; absent where max_slot_wal_keep_size is unlimited";
    WAL_GUARD_LEVEL = "etl_wal_guard_level", Gauge, Count, [],
        "Because of the WAL that the source keeps: 0 nothing, 1 it is said, 2 copies are slowed down, 3 copies wait, 4 the limit is reached";
    RELAY_MEMORY_BYTES = "etl_relay_memory_bytes", Gauge, Bytes, [],
        "The relay's bytes in memory";
    RELAY_DISK_BYTES = "etl_relay_disk_bytes", Gauge, Bytes, [],
        "The relay's bytes on disk";
    BATCH_MEMORY_BYTES = "etl_batch_memory_bytes", Gauge, Bytes, [],
        "What is being collected into batches or written";
    COPY_MEMORY_BYTES = "etl_copy_memory_bytes", Gauge, Bytes, [],
        "What copies hold of rows that are not written yet";
    PROCESS_RESIDENT_BYTES = "etl_process_resident_bytes", Gauge, Bytes, [],
        "Memory of the process, where the system says it";
    MEMORY_USED_BYTES = "etl_memory_used_bytes", Gauge, Bytes, [],
        "What the engine's buffers hold of pipeline.memory_limit";
    MEMORY_LIMIT_BYTES = "etl_memory_limit_bytes", Gauge, Bytes, [],
        "pipeline.memory_limit";
    VALUE_POLICY = "etl_value_policy_total", Counter, Count, ["table", "column", "policy"],
        "Values that the destination cannot hold, of which on_value made null or the nearest one; counted again when they are sent again";
    DESTINATION_CALL_SECONDS = "etl_destination_call_seconds", Histogram, Seconds, ["destination", "call"],
        "How long calls of the destination took";
    DESTINATION_ERRORS = "etl_destination_errors_total", Counter, Count, ["destination", "call", "kind"],
        "Calls of the destination that failed";
    OPERATIONS = "etl_operations", Gauge, Count, ["destination", "state"],
        "Batches under way to a system that answers later, by what is being done with them";
    OPERATION_TABLES_HELD = "etl_operation_tables_held", Gauge, Count, ["destination"],
        "Tables that wait because one of their batches is held until somebody says what becomes of it";
    OPERATION_ROWS = "etl_operation_rows_total", Counter, Count, ["destination", "table", "outcome"],
        "Rows of settled batches by how they ended: succeeded, warned, retried (they went on in another batch), dead (letters), unattributed";
    OPERATION_POLLS = "etl_operation_polls_total", Counter, Count, ["destination", "result"],
        "Questions for jobs by what came of them: pending, completed, failed, partial, unanswered";
    OPERATION_SUBMIT_SECONDS = "etl_operation_submit_seconds", Histogram, Seconds, ["destination"],
        "From sending a batch until its submission was answered";
    OPERATION_SETTLE_SECONDS = "etl_operation_settle_seconds", Histogram, Seconds, ["destination"],
        "From sealing a batch until every row of it was accounted for";
    OPERATION_OLDEST_AGE_SECONDS = "etl_operation_oldest_age_seconds", Gauge, Seconds, ["destination"],
        "How long ago the oldest batch that is under way was sealed, when one of them last moved; 0 when there is none";
    OPERATION_SPOOL_BYTES = "etl_operation_spool_bytes", Gauge, Bytes, ["destination"],
        "Bodies of batches under way, on disk";
    OPERATIONS_SUBMITTED_AGAIN = "etl_operations_submitted_again_total", Counter, Count, ["destination", "reason"],
        "Batches that were handed over again: in_doubt (it is not known whether the first time arrived), gone (the system forgot them), failed";
    OPERATION_THROTTLE_SECONDS = "etl_operation_throttle_seconds", Histogram, Seconds, ["destination"],
        "How long requests waited so that the account makes no more than it may";
    DEAD_LETTERS = "etl_dead_letters_total", Counter, Count, ["table", "code"],
        "Rows that were kept as dead letters, by the kind of refusal";
    CHANGES_IGNORED = "etl_changes_ignored_total", Counter, Count, ["destination", "table", "change"],
        "Deletes and truncates that the destination cannot take and was told to ignore";
}

/// Tells the installed recorder what each metric means. Call it after installing one.
pub fn describe() {
    for metric in ALL {
        let Metric { name, unit, meaning, .. } = *metric;
        match metric.shape {
            Shape::Counter => metrics::describe_counter!(name, unit, meaning),
            Shape::Gauge => metrics::describe_gauge!(name, unit, meaning),
            Shape::Histogram => metrics::describe_histogram!(name, unit, meaning),
        }
    }
}

/// Shows how much memory the pipeline's process uses.
pub fn process_resident_bytes(pipeline: &str, bytes: u64) {
    gauge!(PROCESS_RESIDENT_BYTES, "pipeline" => pipeline.to_owned()).set(to_float(bytes));
}

/// Counts what a policy made of the values of one column.
#[derive(Clone)]
pub(crate) struct ValuePolicyCounter(Counter);

impl ValuePolicyCounter {
    pub(crate) fn new(pipeline: &str, table: String, column: &str, policy: &'static str) -> Self {
        let (pipeline, column) = (pipeline.to_owned(), column.to_owned());
        Self(counter!(VALUE_POLICY, "pipeline" => pipeline, "table" => table, "column" => column, "policy" => policy))
    }

    pub(crate) fn used(&self) {
        self.0.increment(1);
    }
}

impl std::fmt::Debug for ValuePolicyCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ValuePolicyCounter")
    }
}

/// The handles of one pipeline, made once. Without a recorder they do nothing.
#[derive(Clone)]
pub(crate) struct PipelineMetrics {
    pipeline: String,
    pub(crate) streaming: Gauge,
    pub(crate) received_bytes: Counter,
    pub(crate) reconnects: Counter,
    pub(crate) changes_written: Counter,
    pub(crate) batches_written: Counter,
    pub(crate) batch_write_seconds: Histogram,
    pub(crate) commit_to_durable_seconds: Histogram,
    pub(crate) lag_bytes: Gauge,
    pub(crate) lag_seconds: Gauge,
    pub(crate) slot_retained_bytes: Gauge,
    pub(crate) wal_guard_level: Gauge,
    pub(crate) relay_memory_bytes: Gauge,
    pub(crate) relay_disk_bytes: Gauge,
    pub(crate) batch_memory_bytes: Gauge,
    pub(crate) copy_memory_bytes: Gauge,
    pub(crate) memory_used_bytes: Gauge,
    pub(crate) memory_limit_bytes: Gauge,
}

impl std::fmt::Debug for PipelineMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PipelineMetrics").field(&self.pipeline).finish()
    }
}

impl PipelineMetrics {
    /// Of the pipeline with this id.
    pub(crate) fn new(pipeline: &str) -> Self {
        let label = || [("pipeline", pipeline.to_owned())];
        let to_gauge = |name| gauge!(name, &label());
        let to_counter = |name| counter!(name, &label());
        Self {
            streaming: to_gauge(STREAMING),
            received_bytes: to_counter(RECEIVED_BYTES),
            reconnects: to_counter(RECONNECTS),
            changes_written: to_counter(CHANGES_WRITTEN),
            batches_written: to_counter(BATCHES_WRITTEN),
            batch_write_seconds: histogram!(BATCH_WRITE_SECONDS, &label()),
            commit_to_durable_seconds: histogram!(COMMIT_TO_DURABLE_SECONDS, &label()),
            lag_bytes: to_gauge(LAG_BYTES),
            lag_seconds: to_gauge(LAG_SECONDS),
            slot_retained_bytes: to_gauge(SLOT_RETAINED_BYTES),
            wal_guard_level: to_gauge(WAL_GUARD_LEVEL),
            relay_memory_bytes: to_gauge(RELAY_MEMORY_BYTES),
            relay_disk_bytes: to_gauge(RELAY_DISK_BYTES),
            batch_memory_bytes: to_gauge(BATCH_MEMORY_BYTES),
            copy_memory_bytes: to_gauge(COPY_MEMORY_BYTES),
            memory_used_bytes: to_gauge(MEMORY_USED_BYTES),
            memory_limit_bytes: to_gauge(MEMORY_LIMIT_BYTES),
            pipeline: pipeline.to_owned(),
        }
    }

    /// Counts an error of this kind.
    pub(crate) fn error(&self, kind: &'static str) {
        counter!(ERRORS, "pipeline" => self.pipeline.clone(), "kind" => kind).increment(1);
    }

    /// Counts that a table was put into quarantine.
    pub(crate) fn quarantined(&self, table: String) {
        counter!(QUARANTINES, "pipeline" => self.pipeline.clone(), "table" => table).increment(1);
    }

    /// So many tables are in this phase.
    pub(crate) fn tables(&self, phase: &'static str, count: u64) {
        gauge!(TABLES, "pipeline" => self.pipeline.clone(), "phase" => phase).set(to_float(count));
    }

    /// The slot is lost after so much more WAL.
    pub(crate) fn slot_safe_bytes(&self, bytes: u64) {
        gauge!(SLOT_SAFE_BYTES, "pipeline" => self.pipeline.clone()).set(to_float(bytes));
    }

    /// Counts the copied rows of a table.
    pub(crate) fn rows_copied(&self, table: String, rows: u64) {
        counter!(ROWS_COPIED, "pipeline" => self.pipeline.clone(), "table" => table).increment(rows);
    }
}

/// The handles for the calls of one destination.
#[derive(Debug, Clone)]
pub(crate) struct DestinationMetrics {
    pub(crate) pipeline: String,
    pub(crate) destination: String,
}

impl DestinationMetrics {
    /// A call took so long.
    pub(crate) fn took(&self, call: &'static str, seconds: f64) {
        let (pipeline, destination) = (self.pipeline.clone(), self.destination.clone());
        histogram!(DESTINATION_CALL_SECONDS, "pipeline" => pipeline, "destination" => destination, "call" => call)
            .record(seconds);
    }

    /// A call failed.
    pub(crate) fn failed(&self, call: &'static str, kind: &'static str) {
        let (pipeline, destination) = (self.pipeline.clone(), self.destination.clone());
        let labels = [
            ("pipeline", pipeline),
            ("destination", destination),
            ("call", call.to_owned()),
            ("kind", kind.to_owned()),
        ];
        counter!(DESTINATION_ERRORS, &labels).increment(1);
    }
}

/// As gauges hold it: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub(crate) fn to_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_unit_and_counters_their_total() {
        for metric in ALL {
            let ends = |end: &str| metric.name.ends_with(end);
            assert!(metric.name.starts_with("etl_"), "{}", metric.name);
            assert_eq!(ends("_total"), metric.shape == Shape::Counter, "{}", metric.name);
            let stem = metric.name.trim_end_matches("_total");
            assert_eq!(stem.ends_with("_seconds"), metric.unit == Unit::Seconds, "{}", metric.name);
            assert_eq!(stem.ends_with("_bytes"), metric.unit == Unit::Bytes, "{}", metric.name);
        }
    }
}
