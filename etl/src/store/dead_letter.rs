//! Which rows did a destination refuse for good, and why? So that nobody has to look for them in a log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::operation::unkept;
use super::{BoxFuture, OperationId};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Position;
use crate::schema::TableId;

/// What names a dead letter: the row of an operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeadLetterId {
    /// The operation that could not deliver it.
    pub operation: OperationId,
    /// Its place in the operation, from 0.
    pub ordinal: u32,
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.operation, self.ordinal)
    }
}

impl FromStr for DeadLetterId {
    type Err = EtlError;

    fn from_str(text: &str) -> EtlResult<Self> {
        let parts = text.rsplit_once('/').and_then(|(operation, ordinal)| Some((operation, ordinal.parse().ok()?)));
        let (operation, ordinal) = parts.ok_or_else(|| {
            EtlError::new(ErrorKind::Config, "that is no name of a dead letter")
                .with("given", text)
                .hint("It is what `etl dlq list` shows in its first column")
        })?;
        Ok(Self { operation: OperationId(operation.into()), ordinal })
    }
}

/// A row that could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its name.
    pub id: DeadLetterId,
    /// The table.
    pub table: TableId,
    /// Where it is in the source's history.
    pub position: Position,
    /// Its key, each value as the server writes it; `None` for a table without one.
    pub key: Option<Box<[String]>>,
    /// What happened to the row, as `_CHANGE_TYPE` has it.
    pub change_type: Box<str>,
    /// Its values by column, as they were to be delivered: masked as configured.
    pub row: serde_json::Value,
    /// What kind of refusal it is, for counting: a code of the system, or a word of ours.
    pub code: String,
    /// What the system said.
    pub reason: String,
    /// When it was first refused.
    pub at: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether values are missing that its change did not send.
    #[serde(default)]
    pub is_partial: bool,
    /// Whether it is a row of a log of changes, which no later one takes the place of.
    #[serde(default)]
    pub is_logged: bool,
    /// Whether a newer version of its row was delivered, or will be: it is not to be handed over again.
    #[serde(default)]
    pub is_overtaken: bool,
    /// The operation in which it was handed over again, stored together with that.
    #[serde(default)]
    pub replayed_in: Option<OperationId>,
}

/// Remembers the rows that could not be delivered, until somebody replays or drops them.
pub trait DeadLetterStore: Send + Sync {
    /// Those after this one (`None`: from the first), in the order of their names, `limit` at most; of one table where one
    /// is given.
    fn dead_letters(
        &self,
        table: Option<TableId>,
        after: Option<DeadLetterId>,
        limit: u32,
    ) -> BoxFuture<'_, EtlResult<Vec<DeadLetter>>> {
        let _ = (table, after, limit);
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Stores letters, all or none; one takes the place of another with its name.
    fn put_dead_letters(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, EtlResult<()>> {
        let _ = letters;
        Box::pin(std::future::ready(Err(unkept())))
    }

    /// Removes letters; names that are not there are none.
    fn remove_dead_letters(&self, ids: Vec<DeadLetterId>) -> BoxFuture<'_, EtlResult<()>> {
        let _ = ids;
        Box::pin(std::future::ready(Ok(())))
    }
}
