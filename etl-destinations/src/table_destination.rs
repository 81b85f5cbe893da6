//! How does a writer become a destination? Order, grouping, modes, names, retry and metrics are added here.

use std::fmt;

use etl::retry::RetryPolicy;
use etl::store::SharedStore;

use crate::table_rules::TableRules;
use crate::writer::TableWriter;

/// A destination made of a writer of tables.
pub struct TableDestination<W> {
    writer: W,
    #[expect(dead_code, reason = "read when the trait is implemented")]
    store: SharedStore,
    rules: TableRules,
    retry: RetryPolicy,
}

impl<W: TableWriter> TableDestination<W> {
    /// The writer finds its tables' schemas in the store, and writes them as the rules say.
    pub fn new(writer: W, store: SharedStore, rules: TableRules) -> Self {
        Self { writer, store, rules, retry: RetryPolicy::default() }
    }

    /// Says how long failures that may pass are tried again.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The writer.
    pub fn writer(&self) -> &W {
        &self.writer
    }
}

impl<W: TableWriter> fmt::Debug for TableDestination<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableDestination")
            .field("writer", &self.writer.name())
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
