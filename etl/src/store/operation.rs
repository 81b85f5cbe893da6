//! What became of what was handed to a system that answers later? So that no restart hands it over again.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BoxFuture, DeadLetter};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Position;
use crate::schema::TableId;

/// What names an operation. It is made of what the operation carries, so that the same rows have the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(pub Box<str>);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A batch of one table's rows that was sealed on disk, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its name.
    pub id: OperationId,
    /// Counts the stored changes; a store fills it in.
    pub revision: u64,
    /// Its place among all operations of the pipeline, in the order in which they were sealed.
    pub sequence: u64,
    /// The table.
    pub table: TableId,
    /// How often the table was begun to be copied when its rows were read.
    pub generation: u64,
    /// Where its first row is in the source's history; for copied rows the cursor of their snapshot.
    pub first: Position,
    /// Where its last row is.
    pub last: Position,
    /// How many rows it carries.
    pub rows: u32,
    /// How many bytes its body has.
    pub bytes: u64,
    /// When it was sealed.
    pub sealed_at: Timestamp,
    /// How often it was submitted, or may have been.
    pub attempts: u32,
    /// Whether it carries dead letters: their place in the history says nothing of what else is settled.
    #[serde(default)]
    pub is_replay: bool,
    /// What is being done with it.
    pub state: OperationState,
}

/// What is being done with an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum OperationState {
    /// On disk; it waits for its turn, or for the time of its next attempt.
    Sealed {
        /// Not to be submitted before.
        not_before: Option<Timestamp>,
        /// What the last attempt ended in; `None`: there was none, or somebody wants another one.
        reason: Option<String>,
    },
    /// A request may have been sent. Stored before it is.
    Submitting {
        /// When the first request of this attempt was about to be sent.
        since: Timestamp,
        /// What the system has said so far, step by step.
        contexts: Vec<OperationContext>,
    },
    /// The system has it, and says later what became of it.
    Submitted {
        /// When it said so.
        since: Timestamp,
        /// What it is asked by.
        contexts: Vec<OperationContext>,
        /// When it is asked next.
        next_poll: Timestamp,
        /// How often it was asked.
        polls: u32,
        /// After this it is stuck.
        deadline: Timestamp,
        /// After this the system does not know it any more; `None`: it does not forget.
        expires: Option<Timestamp>,
    },
    /// Every row is accounted for.
    Settled {
        /// How they ended.
        accounting: Accounting,
        /// When.
        at: Timestamp,
    },
    /// It is not known what became of it, and it is not tried again by itself: its lane waits for somebody.
    Held {
        /// Why.
        reason: String,
        /// What the system has said.
        contexts: Vec<OperationContext>,
        /// Whether it can be asked by that: it was handed over whole.
        #[serde(default)]
        is_submitted: bool,
        /// Since when.
        since: Timestamp,
    },
}

impl OperationState {
    /// The names of all states.
    pub const NAMES: &[&'static str] = &["sealed", "submitting", "submitted", "settled", "held"];

    /// The state's name, as lists show it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sealed { .. } => "sealed",
            Self::Submitting { .. } => "submitting",
            Self::Submitted { .. } => "submitted",
            Self::Settled { .. } => "settled",
            Self::Held { .. } => "held",
        }
    }

    /// Whether nothing is left to be done.
    pub const fn is_settled(&self) -> bool {
        matches!(self, Self::Settled { .. })
    }

    /// What the system has said of it.
    pub fn contexts(&self) -> &[OperationContext] {
        match self {
            Self::Submitting { contexts, .. } | Self::Submitted { contexts, .. } | Self::Held { contexts, .. } => {
                contexts
            }
            Self::Sealed { .. } | Self::Settled { .. } => &[],
        }
    }
}

/// What a system said of one of its jobs: all that it is asked by later, small and without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationContext {
    /// The step of the submission that it was said in, from 0.
    pub step: u16,
    /// What was said.
    pub vendor: serde_json::Value,
    /// The ordinals of the rows that it is about: from the first, to before the last.
    pub rows: (u32, u32),
}

/// How the rows of an operation ended; each is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounting {
    /// Taken.
    pub succeeded: u64,
    /// Taken, with a warning.
    pub warned: u64,
    /// Went on in another operation.
    pub retried: u64,
    /// Refused, and kept as dead letters.
    pub dead: u64,
    /// Of which the system did not say what became of them.
    pub unattributed: u64,
}

impl Accounting {
    /// All rows that were counted.
    pub const fn rows(&self) -> u64 {
        self.succeeded + self.warned + self.retried + self.dead + self.unattributed
    }
}

impl Operation {
    /// Lets an operation that is held go on: it is asked for where the system has it, for so long at most, unless it is to
    /// be `anew`; else it is submitted again.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) where it is not held.
    pub fn put_back(self, now: Timestamp, longest: Duration, anew: bool) -> EtlResult<Self> {
        let OperationState::Held { contexts, is_submitted, .. } = self.state else { return Err(self.not_held()) };
        let longest = i64::try_from(longest.as_micros()).unwrap_or(i64::MAX);
        let state = if is_submitted && !anew && !contexts.is_empty() {
            let deadline = Timestamp(now.0.saturating_add(longest));
            OperationState::Submitted { since: now, contexts, next_poll: now, polls: 0, deadline, expires: None }
        } else {
            OperationState::Sealed { not_before: None, reason: None }
        };
        Ok(Self { state, ..self })
    }

    /// The error of a wish that only an operation in `held` can be told.
    pub fn not_held(&self) -> EtlError {
        EtlError::new(ErrorKind::Config, "the operation is not held")
            .with("operation", &self.id)
            .with("state", self.state.name())
            .hint("It goes on by itself; `etl operations list` shows which ones wait for you")
    }
}

/// Remembers operations. A store that keeps none is good for every destination that answers at once.
pub trait OperationStore: Send + Sync {
    /// All that are not forgotten, in the order of their sequence.
    fn operations(&self) -> BoxFuture<'_, EtlResult<Vec<Operation>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Stores an operation if the stored revision is the expected one (`None`: it is not stored yet), and with it the rows
    /// that it could not deliver: both or neither. Returns the new revision.
    ///
    /// # Errors
    /// [`StoreConflict`](ErrorKind::StoreConflict) when it is not; nothing is changed then.
    fn put_operation(
        &self,
        expect: Option<u64>,
        operation: Operation,
        dead: Vec<DeadLetter>,
    ) -> BoxFuture<'_, EtlResult<u64>> {
        let _ = (expect, operation, dead);
        Box::pin(std::future::ready(Err(unkept())))
    }

    /// Forgets an operation.
    fn forget_operation(&self, id: OperationId) -> BoxFuture<'_, EtlResult<()>> {
        let _ = id;
        Box::pin(std::future::ready(Ok(())))
    }
}

pub(super) fn unkept() -> EtlError {
    EtlError::new(ErrorKind::Store, "this store keeps neither operations nor dead letters")
        .hint("Implement OperationStore and DeadLetterStore for it, or use one of the stores that come with the engine")
}

/// The error of a compare-and-set that lost.
pub(super) fn conflict(id: &OperationId, expected: Option<u64>, found: Option<u64>) -> EtlError {
    let text = |revision: Option<u64>| revision.map_or("none".to_owned(), |revision| revision.to_string());
    EtlError::new(ErrorKind::StoreConflict, "somebody else changed an operation")
        .with("operation", id)
        .with("expected revision", text(expected))
        .with("found", text(found))
        .hint("Make sure that the pipeline runs only once")
}
