//! What does a system say of a batch? Of its jobs, and of its rows.

use std::collections::BTreeSet;
use std::time::Duration;

use etl::error::EtlError;
use etl::store::{Accounting, OperationContext};

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// All is known already.
    Completed(UploadStats),
    /// It is known later, by these.
    Pending(Vec<OperationContext>),
}

/// What a job is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollState {
    /// It is not done.
    Pending {
        /// How much of it is, 0 to 100, where the system says.
        progress: Option<u8>,
        /// Not to be asked for before this has passed.
        retry_after: Option<Duration>,
    },
    /// It is done; its rows may have failed all the same.
    Completed,
    /// It failed as a whole.
    Failed {
        /// What is to be done about it.
        class: ErrorClass,
        /// The system's code.
        code: String,
        /// What the system said.
        message: String,
    },
    /// The system does not know it.
    Gone,
}

impl PollState {
    /// Not done, and nothing more is known.
    pub const PENDING: Self = Self::Pending { progress: None, retry_after: None };
}

/// What all jobs of a batch come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overall {
    /// One at least is not done.
    Pending,
    /// All are completed.
    Completed,
    /// None is completed.
    Failed,
    /// Some are completed, some are not and will not be.
    Partial,
}

impl Overall {
    /// Its name, as metrics show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Partial => "partial",
        }
    }
}

/// What all jobs come to. No job is none that could be completed.
pub fn overall(states: &[PollState]) -> Overall {
    let completed = states.iter().filter(|state| matches!(state, PollState::Completed)).count();
    if states.iter().any(|state| matches!(state, PollState::Pending { .. })) {
        Overall::Pending
    } else if completed == 0 {
        Overall::Failed
    } else if completed == states.len() {
        Overall::Completed
    } else {
        Overall::Partial
    }
}

/// How far a batch is: the least of its jobs, where all say.
pub fn progress(states: &[PollState]) -> Option<u8> {
    let of = |state: &PollState| match state {
        PollState::Pending { progress, .. } => progress.map(|progress| progress.min(100)),
        _ => Some(100),
    };
    states.iter().map(of).collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// What is to be done about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorClass {
    /// Again later.
    Retry,
    /// Again after this, or later and later.
    Throttle(Option<Duration>),
    /// With new credentials; with those that are there where these are new.
    Reauth,
    /// In two halves, so that what is wrong is found.
    Split,
    /// Without these rows, each with what is wrong with it.
    RejectRows(Vec<(u32, String)>),
    /// The batch is refused as it is.
    RefuseBatch,
    /// Nothing helps but another configuration: rows wait.
    Config,
}

/// Why a request failed.
#[derive(Debug)]
pub struct CallError {
    /// What is to be done about it.
    pub class: ErrorClass,
    /// Whether the system may have taken the batch all the same.
    pub in_doubt: bool,
    /// What failed.
    pub error: EtlError,
}

/// What became of the rows of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadStats {
    /// The rows that the system spoke of, by their ordinals.
    pub rows: Vec<(u32, RowOutcome)>,
    /// The others.
    pub rest: Rest,
}

impl UploadStats {
    /// Every row was taken.
    pub const SUCCEEDED: Self = Self { rows: Vec::new(), rest: Rest::Succeeded };
}

/// What became of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOutcome {
    /// Taken.
    Succeeded,
    /// Taken, with a warning.
    Warned(String),
    /// Not taken this time.
    Retry(String),
    /// Refused for good.
    Rejected(String),
}

/// What became of the rows that a system did not speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Taken: the system says so of all but those that it spoke of.
    Succeeded,
    /// Not taken this time.
    Failed,
    /// So many of them failed, and it is not known which. None of them counts as taken.
    Unattributed(u32),
}

impl RowOutcome {
    const fn severity(&self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Warned(_) => 1,
            Self::Retry(_) => 2,
            Self::Rejected(_) => 3,
        }
    }
}

/// Each row's outcome, the worst of what was said of it; `None` where it is not known.
pub(super) fn outcomes(stats: &UploadStats, rows: u32) -> Vec<Option<RowOutcome>> {
    let rest = match stats.rest {
        Rest::Succeeded | Rest::Unattributed(0) => Some(RowOutcome::Succeeded),
        Rest::Failed => Some(RowOutcome::Retry("the system did not take the batch".to_owned())),
        Rest::Unattributed(_) => None,
    };
    let mut said: Vec<Option<RowOutcome>> = vec![None; rows as usize];
    for (ordinal, outcome) in &stats.rows {
        if let Some(place) = said.get_mut(*ordinal as usize)
            && place.as_ref().is_none_or(|worst| worst.severity() < outcome.severity())
        {
            *place = Some(outcome.clone());
        }
    }
    said.into_iter().map(|outcome| outcome.or_else(|| rest.clone())).collect()
}

/// Whether the system spoke of rows that it was not given: then nothing that it says of others can be relied on.
pub(super) fn is_of_others(stats: &UploadStats, rows: u32) -> bool {
    let named = stats.rows.iter().map(|(ordinal, _)| *ordinal).collect::<BTreeSet<_>>().len();
    let unattributed = match stats.rest {
        Rest::Unattributed(count) => count as usize,
        Rest::Succeeded | Rest::Failed => 0,
    };
    stats.rows.iter().any(|(ordinal, _)| *ordinal >= rows) || named.saturating_add(unattributed) > rows as usize
}

/// Counts every row once.
pub(super) fn accounting(outcomes: &[Option<RowOutcome>]) -> Accounting {
    let mut counted = Accounting::default();
    for outcome in outcomes {
        *match outcome {
            Some(RowOutcome::Succeeded) => &mut counted.succeeded,
            Some(RowOutcome::Warned(_)) => &mut counted.warned,
            Some(RowOutcome::Retry(_)) => &mut counted.retried,
            Some(RowOutcome::Rejected(_)) => &mut counted.dead,
            None => &mut counted.unattributed,
        } += 1;
    }
    counted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failed() -> PollState {
        PollState::Failed { class: ErrorClass::Retry, code: String::new(), message: String::new() }
    }

    /// Every combination of up to three jobs, against what the rule says in words.
    #[test]
    fn the_overall_status_of_every_combination_of_up_to_three_jobs_is_that_of_the_rule() {
        let states = [PollState::PENDING, PollState::Completed, failed(), PollState::Gone];
        let mut combinations: Vec<Vec<usize>> = vec![Vec::new()];
        let mut seen = 0;
        for _ in 0..3 {
            combinations = combinations
                .iter()
                .flat_map(|before| (0..4).map(move |next| before.iter().copied().chain([next]).collect()))
                .collect();
            for combination in &combinations {
                let jobs: Vec<PollState> = combination.iter().map(|place| states[*place].clone()).collect();
                let is = |place: usize| combination.contains(&place);
                let expected = match (is(0), is(1), is(2) || is(3)) {
                    (true, _, _) => Overall::Pending,
                    (false, true, false) => Overall::Completed,
                    (false, false, _) => Overall::Failed,
                    (false, true, true) => Overall::Partial,
                };
                assert_eq!(overall(&jobs), expected, "{jobs:?}");
                seen += 1;
            }
        }
        assert_eq!(seen, 4 + 16 + 64);
        assert_eq!(overall(&[]), Overall::Failed, "no job is nothing that could have succeeded");
    }

    #[test]
    fn progress_is_the_least_of_all_jobs_and_unknown_where_one_does_not_say() {
        let pending = |progress| PollState::Pending { progress, retry_after: None };
        assert_eq!(progress(&[pending(Some(70)), PollState::Completed, pending(Some(20))]), Some(20));
        assert_eq!(progress(&[pending(None), PollState::Completed]), None);
        assert_eq!(progress(&[pending(Some(255))]), Some(100));
        assert_eq!(progress(&[PollState::Completed]), Some(100));
    }

    fn outcome() -> impl Strategy<Value = RowOutcome> {
        prop_oneof![
            Just(RowOutcome::Succeeded),
            Just(RowOutcome::Warned(String::new())),
            Just(RowOutcome::Retry(String::new())),
            Just(RowOutcome::Rejected(String::new())),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn every_row_is_counted_once_whatever_is_said(
            rows in 1_u32..60,
            said in prop::collection::vec((0_u32..80, outcome()), 0..80),
            rest in prop_oneof![Just(Rest::Succeeded), Just(Rest::Failed), (0_u32..9).prop_map(Rest::Unattributed)],
        ) {
            let stats = UploadStats { rows: said.clone(), rest };
            let outcomes = outcomes(&stats, rows);
            let counted = accounting(&outcomes);
            prop_assert_eq!(counted.rows(), u64::from(rows));
            for (ordinal, _) in &said {
                if *ordinal < rows {
                    let all = said.iter().filter(|(other, _)| other == ordinal).map(|(_, outcome)| outcome.severity());
                    prop_assert_eq!(outcomes[*ordinal as usize].as_ref().map(RowOutcome::severity), all.max());
                }
            }
            if matches!(rest, Rest::Unattributed(1..)) {
                let silent = (0..rows).filter(|row| said.iter().all(|(ordinal, _)| ordinal != row)).count();
                prop_assert_eq!(counted.unattributed, silent as u64, "none of them is a success");
            }
            if said.iter().any(|(ordinal, _)| *ordinal >= rows) {
                prop_assert!(is_of_others(&stats, rows));
            }
        }
    }
}
