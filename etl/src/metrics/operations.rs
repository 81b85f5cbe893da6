//! What is measured of a destination that answers later?

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use super::to_float;

/// The handles of one destination that answers later. Without a recorder they do nothing.
#[derive(Debug, Clone, Default)]
pub struct OperationMetrics {
    pipeline: String,
    destination: String,
}

impl OperationMetrics {
    /// Of the destination of a pipeline.
    pub fn new(pipeline: &str, destination: &str) -> Self {
        Self { pipeline: pipeline.to_owned(), destination: destination.to_owned() }
    }

    fn labels(&self) -> [(&'static str, String); 2] {
        [("pipeline", self.pipeline.clone()), ("destination", self.destination.clone())]
    }

    fn labels_with(&self, label: &'static str, value: &str) -> [(&'static str, String); 3] {
        let [pipeline, destination] = self.labels();
        [pipeline, destination, (label, value.to_owned())]
    }

    fn labels_of(&self, table: &str, label: &'static str, value: &str) -> [(&'static str, String); 4] {
        let [pipeline, destination, label] = self.labels_with(label, value);
        [pipeline, destination, ("table", table.to_owned()), label]
    }

    /// So many batches are in this state.
    pub fn under_way(&self, state: &str, count: u64) {
        gauge!(super::OPERATIONS, &self.labels_with("state", state)).set(to_float(count));
    }

    /// So many tables wait for somebody.
    pub fn tables_held(&self, count: u64) {
        gauge!(super::OPERATION_TABLES_HELD, &self.labels()).set(to_float(count));
    }

    /// The oldest batch under way was sealed so long ago.
    pub fn oldest_age(&self, age: Duration) {
        gauge!(super::OPERATION_OLDEST_AGE_SECONDS, &self.labels()).set(age.as_secs_f64());
    }

    /// The batches under way have so many bytes.
    pub fn spool_bytes(&self, bytes: u64) {
        gauge!(super::OPERATION_SPOOL_BYTES, &self.labels()).set(to_float(bytes));
    }

    /// Rows of a settled batch ended like this.
    pub fn rows(&self, table: &str, outcome: &str, rows: u64) {
        counter!(super::OPERATION_ROWS, &self.labels_of(table, "outcome", outcome)).increment(rows);
    }

    /// Jobs were asked for.
    pub fn polled(&self, result: &str) {
        counter!(super::OPERATION_POLLS, &self.labels_with("result", result)).increment(1);
    }

    /// A submission was answered after so long.
    pub fn submitted(&self, after: Duration) {
        histogram!(super::OPERATION_SUBMIT_SECONDS, &self.labels()).record(after.as_secs_f64());
    }

    /// A batch was settled so long after it was sealed.
    pub fn settled(&self, after: Duration) {
        histogram!(super::OPERATION_SETTLE_SECONDS, &self.labels()).record(after.as_secs_f64());
    }

    /// A batch is handed over again.
    pub fn submitted_again(&self, reason: &str) {
        counter!(super::OPERATIONS_SUBMITTED_AGAIN, &self.labels_with("reason", reason)).increment(1);
    }

    /// A request waits so long for the account.
    pub fn throttled(&self, wait: Duration) {
        histogram!(super::OPERATION_THROTTLE_SECONDS, &self.labels()).record(wait.as_secs_f64());
    }

    /// Rows became dead letters.
    pub fn dead_letters(&self, table: &str, code: &str, letters: u64) {
        dead_letters(&self.pipeline, table, code, letters);
    }

    /// Changes were left out.
    pub fn ignored(&self, table: &str, change: &str, changes: u64) {
        counter!(super::CHANGES_IGNORED, &self.labels_of(table, "change", change)).increment(changes);
    }
}

/// Counts rows of a pipeline that became dead letters.
pub fn dead_letters(pipeline: &str, table: &str, code: &str, letters: u64) {
    let labels = [("pipeline", pipeline.to_owned()), ("table", table.to_owned()), ("code", code.to_owned())];
    counter!(super::DEAD_LETTERS, &labels).increment(letters);
}
