//! Does a destination keep its promises? One case a promise, for every destination alike.
//!
//! Implement [`Subject`] for your destination and write `conformance_tests!(your_subject)`: every case becomes a
//! test of its own. No server is needed. Cases call as the engine does: `startup`, `truncate_table`, copy chunks,
//! batches, `shutdown`; rows are compared as Postgres writes them.

mod amounts;
mod changes;
mod copies;
mod failures;
mod faults;
mod fold;
mod history;
mod keyless;
mod keys;
mod kinds;
mod modes;
mod replay;
mod runs;
mod shapes;
mod subject;
mod trial;
mod values;

pub use faults::{Fault, Faulty};
pub use fold::fold;
pub use subject::{Abilities, Subject, UNSENT};
pub use trial::{Broken, CaseResult, Trial};

use crate::destination::Mode;
use crate::store::BoxFuture;

/// One promise, and how it is put to the test.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// A name for the test.
    pub name: &'static str,
    run: for<'a, 's> fn(&'a mut Trial<'s>) -> BoxFuture<'a, CaseResult>,
}

/// How a case ended that broke no promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The promise was put to the test, and kept.
    Kept,
    /// The destination cannot do it, and says so in this error.
    Refused(String),
    /// There is nothing in this place that the promise could be about, or nobody can look.
    Beside,
}

impl Case {
    /// Puts the subject to the test; the message says what was promised and what was found.
    ///
    /// # Errors
    /// A broken promise, or an error of the destination.
    pub async fn run(&self, subject: &dyn Subject) -> CaseResult {
        self.outcome(subject).await.map(drop)
    }

    /// As [`run`](Self::run), and says how the promise was kept.
    ///
    /// # Errors
    /// A broken promise, or an error of the destination.
    pub async fn outcome(&self, subject: &dyn Subject) -> Result<Outcome, Broken> {
        self.tried(Trial::open(subject, None).await?).await
    }

    /// As [`outcome`](Self::outcome), with the subject in a write mode that it offers. The rows that are compared are those
    /// that the mode leaves as the current state; what would take long is done in small, and cases about one mode are beside.
    ///
    /// # Errors
    /// A broken promise, or an error of the destination.
    pub async fn outcome_in(&self, mode: Mode, subject: &dyn Subject) -> Result<Outcome, Broken> {
        let tried = async { self.tried(Trial::open(subject, Some(mode)).await?).await };
        tried.await.map_err(|broken: Broken| broken.within(mode.word()))
    }

    /// As [`outcome`](Self::outcome), of a fresh subject, and of others in each mode that it names besides
    /// ([`Subject::held_in`]): it holds where it holds in all. Nothing where there is no subject.
    ///
    /// # Errors
    /// A broken promise, or an error of the destination.
    pub async fn outcome_in_all<S: Subject>(
        &self,
        subject: impl AsyncFn() -> Option<S>,
    ) -> Option<Result<Outcome, Broken>> {
        let first = subject().await?;
        let outcome = self.outcome(&first).await;
        for mode in first.held_in() {
            if outcome.is_ok()
                && let Err(broken) = self.outcome_in(*mode, &subject().await?).await
            {
                return Some(Err(broken));
            }
        }
        Some(outcome)
    }

    async fn tried(&self, mut trial: Trial<'_>) -> Result<Outcome, Broken> {
        let result = (self.run)(&mut trial).await;
        trial.end(result)
    }
}

/// Makes the list of cases, and the macro that makes a test of each.
macro_rules! cases {
    ($($name:ident in $module:ident;)*) => {
        /// All cases.
        pub const CASES: &[Case] = &[
            $(Case { name: stringify!($name), run: |trial| Box::pin($module::$name(trial)) },)*
        ];

        /// Makes a test of each case; the argument is called for a fresh subject, which may be `None` to skip. A second
        /// one is called with the path of the module that the tests are in, the name of each case, and how it ended.
        #[macro_export]
        macro_rules! conformance_tests {
            ($subject:expr) => {
                $crate::conformance_tests!($subject, |_: &str, _: &str, _: &_| {});
            };
            ($subject:expr, $told:expr) => {
                $(#[tokio::test]
                async fn $name() {
                    let case = $crate::destination::conformance::CASES
                        .iter()
                        .find(|case| case.name == stringify!($name))
                        .expect("a case of that name");
                    let Some(outcome) = case.outcome_in_all($subject).await else { return };
                    ($told)(module_path!(), case.name, &outcome);
                    if let Err(broken) = outcome {
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
    a_run_is_shown_once_it_is_finalized_and_not_before in runs;
    a_run_without_rows_leaves_the_table_empty in runs;
    a_chunk_of_a_run_that_comes_again_is_staged_once in runs;
    a_run_that_is_given_up_leaves_the_tables_as_they_are in runs;
    what_a_dead_run_has_staged_is_never_shown in runs;
    a_table_that_a_run_has_shown_is_copied_and_followed_anew in runs;
    what_comes_in_pieces_is_shown_with_the_last_or_not_at_all in runs;
    every_kind_of_value_arrives_exactly in values;
    every_kind_of_value_arrives_exactly_in_changes in values;
    every_byte_and_odd_text_arrives_exactly in values;
    what_a_server_wrote_of_every_kind_arrives_or_is_named in kinds;
    inserts_updates_and_deletes_end_in_the_current_state in changes;
    a_partial_update_keeps_what_was_not_sent in changes;
    a_partial_update_of_a_missing_row_invents_nothing in changes;
    whole_old_rows_say_what_was_not_sent in changes;
    a_truncate_removes_what_came_before_it in changes;
    upsert_has_a_row_a_key in modes;
    soft_delete_marks_deleted_rows in modes;
    soft_delete_marks_one_row_of_several_equal_ones in modes;
    append_has_a_row_a_change in modes;
    append_has_a_change_once_however_often_it_comes in modes;
    append_leaves_out_or_refuses_what_was_not_sent in modes;
    a_truncate_in_upsert_removes_older_rows in modes;
    a_truncate_in_soft_delete_marks_older_rows in modes;
    a_truncate_in_append_is_a_row in modes;
    any_history_ends_in_the_same_state_in_soft_delete in history;
    any_history_ends_in_the_same_state_in_append in history;
    odd_names_and_keys_are_kept in changes;
    a_key_change_moves_the_row in keys;
    keys_can_be_swapped_in_one_transaction in keys;
    rows_are_found_by_keys_of_every_kind in keys;
    rows_without_a_key_are_kept_as_they_are in keyless;
    an_old_row_hits_exactly_one_equal_row in keyless;
    what_is_delivered_again_changes_nothing in replay;
    a_batch_that_is_cut_anywhere_and_replayed_changes_nothing in replay;
    an_older_event_changes_and_reads_nothing_newer in replay;
    what_is_written_again_without_positions_changes_nothing in replay;
    a_failed_write_leaves_nothing_behind in failures;
    a_refused_write_goes_through_afterwards in failures;
    a_write_that_nobody_heard_of_is_not_done_twice in failures;
    a_write_that_hangs_can_be_made_again in failures;
    a_slow_place_gets_everything in failures;
    a_table_that_could_not_be_made_is_made_later in failures;
    any_history_in_any_cut_ends_in_the_same_state in history;
    positions_and_moves_are_stored_with_the_data in replay;
    schema_changes_are_followed_within_a_batch in shapes;
    a_column_is_added_in_the_middle_of_a_batch in shapes;
    columns_with_defaults_are_added_beside_others in shapes;
    a_column_is_dropped_in_the_middle_of_a_batch in shapes;
    a_column_is_renamed_in_the_middle_of_a_batch in shapes;
    a_column_gets_another_type_in_the_middle_of_a_batch in shapes;
    the_longest_names_are_kept_apart in amounts;
    names_that_come_to_the_same_are_kept_apart in amounts;
    ten_tables_are_copied_at_once_and_written_together in amounts;
    a_thousand_small_batches_arrive in amounts;
    one_large_batch_arrives in amounts;
    a_write_that_is_given_up_and_made_again_changes_nothing in amounts;
}
