//! Does a destination keep its promises? One case a promise, for every destination alike.
//!
//! Implement [`Subject`] for your destination and write `conformance_tests!(your_subject)`: every case becomes a
//! test of its own. No server is needed. Cases call as the engine does: `startup`, `truncate_table`, copy chunks,
//! batches, `shutdown`; rows are compared as Postgres writes them.

mod amounts;
mod changes;
mod copies;
mod failures;
mod history;
mod keyless;
mod keys;
mod replay;
mod shapes;
mod trial;
mod values;

pub use trial::{Broken, CaseResult, Trial};

use crate::destination::{AnyDestination, TextRow};
use crate::error::EtlResult;
use crate::schema::TableSchema;
use crate::store::{BoxFuture, SharedStore};

/// A destination under test, and somebody else's eyes on it.
pub trait Subject: Send + Sync {
    /// Opens the destination over the store: always the same place, which is empty at first. The one opened
    /// before is dropped by then, without a shutdown, as after a crash.
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>>;

    /// The rows of a table as Postgres would write their values, without metadata columns, in any order; `None`
    /// where there is no such table. The destination is closed meanwhile.
    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>>;

    /// What the destination can do; a case that needs more must end in a clear error.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }
}

/// What a destination may or may not be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Abilities {
    /// It follows schema changes.
    pub schema_changes: bool,
    /// It holds a log of changes, which the subject folds into rows. Then it is not told which of several equal rows an
    /// update of a table without a key replaced, and what was written before a schema change keeps its shape.
    pub log: bool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self { schema_changes: true, log: false }
    }
}

impl Abilities {
    /// Says that a schema change is refused.
    #[must_use]
    pub fn without_schema_changes(mut self) -> Self {
        self.schema_changes = false;
        self
    }

    /// Says that it holds a log of changes.
    #[must_use]
    pub fn with_log(mut self) -> Self {
        self.log = true;
        self
    }
}

/// One promise, and how it is put to the test.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// A name for the test.
    pub name: &'static str,
    run: for<'a> fn(&'a mut Trial<'a>) -> BoxFuture<'a, CaseResult>,
}

impl Case {
    /// Puts the subject to the test; the message says what was promised and what was found.
    ///
    /// # Errors
    /// A broken promise, or an error of the destination.
    pub async fn run(&self, subject: &dyn Subject) -> CaseResult {
        let mut trial = Trial::open(subject).await?;
        (self.run)(&mut trial).await
    }
}

/// Makes the list of cases, and the macro that makes a test of each.
macro_rules! cases {
    ($($name:ident in $module:ident;)*) => {
        /// All cases.
        pub const CASES: &[Case] = &[
            $(Case { name: stringify!($name), run: |trial| Box::pin($module::$name(trial)) },)*
        ];

        /// Makes a test of each case; the argument is called for a fresh subject, which may be `None` to skip.
        #[macro_export]
        macro_rules! conformance_tests {
            ($subject:expr) => {
                $(#[tokio::test]
                async fn $name() {
                    let Some(subject) = $subject().await else { return };
                    let case = $crate::destination::conformance::CASES
                        .iter()
                        .find(|case| case.name == stringify!($name))
                        .expect("a case of that name");
                    if let Err(broken) = case.run(&subject).await {
                        panic!("{broken}");
                    }
                })*
            };
        }
    };
}

cases! {
    an_empty_copy_makes_an_empty_table in copies;
    a_copy_arrives_whole_and_a_repeated_chunk_changes_nothing in copies;
    a_new_copy_forgets_the_old_one in copies;
    a_newer_copy_takes_the_place_of_rows_and_older_events_leave_it_alone in copies;
    every_kind_of_value_arrives_exactly in values;
    every_kind_of_value_arrives_exactly_in_changes in values;
    every_byte_and_odd_text_arrives_exactly in values;
    inserts_updates_and_deletes_end_in_the_current_state in changes;
    a_partial_update_keeps_what_was_not_sent in changes;
    a_truncate_removes_what_came_before_it in changes;
    odd_names_and_keys_are_kept in changes;
    a_key_change_moves_the_row in keys;
    keys_can_be_swapped_in_one_transaction in keys;
    rows_are_found_by_keys_of_every_kind in keys;
    rows_without_a_key_are_kept_as_they_are in keyless;
    an_old_row_hits_exactly_one_equal_row in keyless;
    what_is_delivered_again_changes_nothing in replay;
    an_older_event_changes_and_reads_nothing_newer in replay;
    what_is_written_again_without_positions_changes_nothing in replay;
    a_failed_write_leaves_nothing_behind in failures;
    any_history_in_any_cut_ends_in_the_same_state in history;
    positions_and_moves_are_stored_with_the_data in replay;
    schema_changes_are_followed_within_a_batch in shapes;
    the_longest_names_are_kept_apart in amounts;
    ten_tables_are_copied_at_once_and_written_together in amounts;
    five_hundred_small_batches_arrive in amounts;
    one_large_batch_arrives in amounts;
    a_write_that_is_given_up_and_made_again_changes_nothing in amounts;
}
