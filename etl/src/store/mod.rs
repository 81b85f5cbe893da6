//! What does the engine remember across restarts? Table states, positions and schemas; never rows.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod copy;
mod cursor;
mod dead_letter;
mod held;
mod memory;
mod operation;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use copy::{CopiedLeaf, CopySoFar, CopyStore, Mixed, RepairKey};
pub use cursor::CursorId;
pub use dead_letter::{DeadLetter, DeadLetterId, DeadLetterStore};
pub use held::{Held, Quarantine};
pub use memory::MemoryStore;
pub use operation::{Accounting, Operation, OperationContext, OperationId, OperationState, OperationStore};
pub use postgres::{PostgresStore, STATE_MARK, StoredPipeline};
use serde::{Deserialize, Serialize};
pub use sqlite::SqliteStore;

use crate::error::EtlResult;
use crate::lsn::{Lsn, Position};
use crate::schema::{TableId, TableSchema};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a table stands, and the revision under which that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableState {
    /// Counts the stored changes of this state; a store fills it in.
    pub revision: u64,
    /// How often the table was begun to be copied; chunks carry it.
    pub generation: u64,
    /// What is being done with the table.
    pub phase: Phase,
}

impl TableState {
    /// A table that was just found.
    pub const PENDING: Self = Self { revision: 0, generation: 0, phase: Phase::Pending };
}

/// What is being done with a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Found, not begun.
    Pending,
    /// Its existing rows are being read.
    Copying {
        /// The cursor P of its first snapshot (`SOURCE.md` R1).
        cursor: Position,
        /// What it has done, where it can go on under another snapshot.
        #[serde(default)]
        so_far: Option<CopySoFar>,
    },
    /// Its rows are copied; what happened meanwhile is read from the relay.
    CatchingUp {
        /// The cursor P of its snapshot; catching up begins here.
        cursor: Position,
        /// Which transactions the copy has seen.
        snapshot: SnapshotFilter,
        /// Where its rows are from more than one snapshot.
        #[serde(default)]
        mixed: Option<Mixed>,
    },
    /// It shares the main cursor.
    Ready,
    /// Somebody paused it.
    Paused(Held),
    /// It failed, and waits.
    Quarantined(Box<Quarantine>),
    /// It left the publication.
    Removed,
}

impl Phase {
    /// The names of all phases.
    pub const NAMES: &[&'static str] =
        &["pending", "copying", "catching_up", "ready", "paused", "quarantined", "removed"];

    /// The phase's name, as status pages show it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Copying { .. } => "copying",
            Self::CatchingUp { .. } => "catching_up",
            Self::Ready => "ready",
            Self::Paused(_) => "paused",
            Self::Quarantined(_) => "quarantined",
            Self::Removed => "removed",
        }
    }

    /// What becomes of it where nothing that was done so far is of use: a table that waits goes on waiting.
    pub(crate) fn begun_anew(self) -> Self {
        match self {
            Self::Paused(_) => Self::Paused(Held::default()),
            Self::Quarantined(why) => Self::Quarantined(Box::new(Quarantine { held: Held::default(), ..*why })),
            _ => Self::Pending,
        }
    }

    /// What a table that waits goes on from.
    pub(crate) fn held(&self) -> Option<&Held> {
        match self {
            Self::Paused(held) => Some(held),
            Self::Quarantined(why) => Some(&why.held),
            _ => None,
        }
    }
}

/// Which transactions a copy has seen (`SOURCE.md` R4): those visible in its snapshot, up to an LSN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFilter {
    /// Every transaction below is visible (64 bits, with epoch).
    pub xmin: u64,
    /// No transaction from here on is visible.
    pub xmax: u64,
    /// The ones between that are not visible, sorted.
    pub in_progress: Box<[u64]>,
    /// The insert LSN read after the snapshot: no commit beyond it is visible.
    pub until: Lsn,
}

impl SnapshotFilter {
    /// Of a copy that has seen none of the changes that are left.
    pub fn nothing() -> Self {
        Self { xmin: 0, xmax: 0, in_progress: Box::default(), until: Lsn::ZERO }
    }
}

/// The stored positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What each cursor has made durable in the destination.
    pub cursors: Vec<(CursorId, Position)>,
    /// What the slot may be told: the end of a commit, or a keepalive's position.
    pub confirmed: Option<Lsn>,
}

impl Progress {
    /// The stored position of a cursor.
    pub fn cursor(&self, id: CursorId) -> Option<Position> {
        self.cursors.iter().find(|(known, _)| *known == id).map(|(_, position)| *position)
    }
}

/// Remembers table states and positions.
pub trait StateStore: Send + Sync {
    /// All stored states.
    fn table_states(&self) -> BoxFuture<'_, EtlResult<Vec<(TableId, TableState)>>>;

    /// Stores a state if the stored revision is the expected one (`None`: nothing is stored yet); returns the
    /// new revision.
    ///
    /// # Errors
    /// [`StoreConflict`](crate::ErrorKind::StoreConflict) when it is not; nothing is changed then.
    fn set_table_state(&self, table: TableId, expect: Option<u64>, state: TableState) -> BoxFuture<'_, EtlResult<u64>>;

    /// Moves a cursor forward; an older position changes nothing.
    fn advance(&self, cursor: CursorId, to: Position) -> BoxFuture<'_, EtlResult<()>>;

    /// Forgets a cursor, once its table shares the main one or is copied anew.
    fn forget_cursor(&self, cursor: CursorId) -> BoxFuture<'_, EtlResult<()>>;

    /// Stores what the slot may be told, before it is told; an older LSN changes nothing.
    fn confirm(&self, end: Lsn) -> BoxFuture<'_, EtlResult<()>>;

    /// Stores what the slot was told where that is less than what is stored: the source has another history since.
    fn set_back(&self, confirmed: Lsn) -> BoxFuture<'_, EtlResult<()>>;

    /// All stored positions.
    fn progress(&self) -> BoxFuture<'_, EtlResult<Progress>>;

    /// What was stored under a name: the identity of the source, the publication's fingerprint.
    fn fact(&self, name: &'static str) -> BoxFuture<'_, EtlResult<Option<String>>>;

    /// Stores a fact under a name.
    fn set_fact(&self, name: &'static str, value: String) -> BoxFuture<'_, EtlResult<()>>;
}

/// Remembers what tables looked like.
pub trait SchemaStore: Send + Sync {
    /// The schema in force at a position: the newest whose `since` is not after it.
    fn schema_at(&self, table: TableId, at: Position) -> BoxFuture<'_, EtlResult<Option<Arc<TableSchema>>>>;

    /// Stores a schema under its `since`, in place of one that is there.
    fn put_schema(&self, schema: Arc<TableSchema>) -> BoxFuture<'_, EtlResult<()>>;

    /// Forgets the schemas that no position from `before` on needs.
    fn prune_schemas(&self, table: TableId, before: Position) -> BoxFuture<'_, EtlResult<()>>;
}

/// All that the engine remembers.
pub trait Store: StateStore + SchemaStore + CopyStore + OperationStore + DeadLetterStore {}

impl<T: StateStore + SchemaStore + CopyStore + OperationStore + DeadLetterStore + ?Sized> Store for T {}

/// The fact with the id of the pipeline that a store is of; a pipeline stores it before it starts its destination.
pub const PIPELINE_FACT: &str = "pipeline.id";

/// A store that engine and destination use together.
pub type SharedStore = Arc<dyn Store>;
