//! Who is put to the test? A destination, somebody else's eyes on it, and hands in its way.

use super::Fault;
use crate::destination::{AnyDestination, Mode, StampedText, TextRow};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::schema::{Kind, TableSchema};
use crate::store::{BoxFuture, SharedStore};

/// A destination under test, and somebody else's eyes on it. Two methods are required; each other one lets the suite look
/// closer.
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

    /// The write modes that can be chosen for a table; none where there is nothing to choose. Those of
    /// [`Mode::ALL`] that are missing must be refused by [`open_in`](Self::open_in) with a clear error.
    fn modes(&self) -> &[Mode] {
        &[]
    }

    /// As [`open`](Self::open), with this write mode for all tables.
    ///
    /// # Errors
    /// For a mode that the destination does not have, and for all where nothing can be chosen.
    fn open_in(&self, mode: Mode, _store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async move { Err(nothing_to_choose(mode)) })
    }

    /// The write modes in which every case is to hold as well, each time in a fresh place, beside the one of
    /// [`open`](Self::open).
    fn held_in(&self) -> &[Mode] {
        &[]
    }

    /// The rows as the write mode leaves them, deleted ones and those of a log too, with what their metadata columns
    /// say. In a log, a value that was left out because it was not sent is [`UNSENT`]; another that is not there is null.
    fn stamped_rows<'a>(&'a self, _table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<StampedText>>>> {
        Box::pin(async { Ok(None) })
    }

    /// What the place has for a value that it does not tell from an equal one, such as `0` for `-0`; its documentation says
    /// so.
    fn holds_for(&self, _kind: &Kind, _value: &str) -> Option<String> {
        None
    }

    /// Makes what lies between the destination and its place behave like this from now on; without a fault as usual.
    /// `false` where there is nothing between them: the suite then fails its calls from outside ([`Faulty`](super::Faulty)).
    fn suffer(&self, _fault: Option<Fault>) -> BoxFuture<'_, EtlResult<bool>> {
        Box::pin(async { Ok(false) })
    }

    /// Makes it impossible to create the table, or possible again. The destination is closed meanwhile. `false` where nothing
    /// can stand in its way.
    fn obstruct<'a>(&'a self, _table: &'a TableSchema, _obstructed: bool) -> BoxFuture<'a, EtlResult<bool>> {
        Box::pin(async { Ok(false) })
    }
}

/// What stands for a value in the row of a log that leaves it out since it was not sent.
pub const UNSENT: &str = "\u{0}unsent";

fn nothing_to_choose(mode: Mode) -> EtlError {
    EtlError::new(ErrorKind::DestinationUnsupported, "the destination has no write modes")
        .with("write_mode", mode.word())
        .hint("Leave `write_mode` out")
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
    /// An update may leave out values that did not change. Where not, such an update ends in an error of the kind
    /// [`Value`](ErrorKind::Value) that names the table and the column.
    pub unsent: bool,
    /// What was written can be read. Where not, a case shows only that everything is taken.
    pub rows: bool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self { schema_changes: true, log: false, unsent: true, rows: true }
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

    /// Says that an update without all values is refused.
    #[must_use]
    pub fn without_unsent(mut self) -> Self {
        self.unsent = false;
        self
    }

    /// Says that nothing that was written can be read.
    #[must_use]
    pub fn without_rows(mut self) -> Self {
        self.rows = false;
        self
    }
}
