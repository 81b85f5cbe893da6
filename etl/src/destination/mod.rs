//! Where do rows and events go? The contract with a destination.

mod any;
#[cfg(feature = "conformance")]
pub mod conformance;
mod limits;
mod memory;
mod metered;
mod mode;
mod staged;

use std::future::Future;
use std::sync::Arc;

pub use any::AnyDestination;
pub use limits::{IntervalLimit, ValueLimits, is_struct};
pub use memory::{MemoryDestination, TextRow};
pub(crate) use metered::Metered;
pub use mode::{Mode, StampedText};
pub use staged::StagedRun;

use crate::clock::Timestamp;
use crate::data::{CopiedRows, Event, TableRow};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Position;
use crate::schema::{TableExtras, TableId, TableSchema};
use crate::store::{CursorId, DeadLetter};

/// What became of dead letters that were handed over again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Delivered; what was refused once more is a letter once more.
    pub delivered: u64,
    /// Left out: a newer version of the row was delivered, or will be.
    pub overtaken: u64,
    /// They cannot be handed over, and stay.
    pub left: u64,
}

/// A place that rows and events are written to.
///
/// Three methods are required. **`Ok(())` means durable**: there is no other acknowledgement. Per cursor, calls
/// come in stream order, and the next one starts before the last `Ok` only up to
/// [`Capabilities::writes_in_flight`]. Other cursors and copies, always of other tables, may call at the same
/// time. Dropping a future half-way and calling again with the same content must do no harm.
pub trait Destination: Send + Sync + 'static {
    /// Empties a table before it is copied, creating nothing: ends its old generation and every position
    /// stored for it. Does nothing for a table that does not exist.
    fn truncate_table(&self, table_id: TableId) -> impl Future<Output = EtlResult<()>> + Send;

    /// Writes copied rows of one table; also called with none, so that an empty table exists.
    fn write_table_rows(
        &self,
        table_id: TableId,
        table_rows: Vec<TableRow>,
    ) -> impl Future<Output = EtlResult<()>> + Send;

    /// Writes events, in order.
    fn write_events(&self, events: Vec<Event>) -> impl Future<Output = EtlResult<()>> + Send;

    /// The name that logs and errors show.
    fn name(&self) -> &str {
        "destination"
    }

    /// What the destination can do beyond the required.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// What its columns can hold: `on_value` says what becomes of other values before they get here, and `etl check`
    /// tells of them. One that comes all the same has to be an error.
    fn value_limits(&self) -> ValueLimits {
        ValueLimits::NONE
    }

    /// Whether a change of the table has to come with all its values: it holds a log, in which nothing can stand for a
    /// value that was not sent. With `on_value: null` that is null then, and an error here without.
    fn needs_all_values(&self, _schema: &TableSchema) -> bool {
        false
    }

    /// Whether the destination can be reached and written to; changes nothing.
    fn check_connection(&self) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// Called once before anything else is written.
    fn startup(&self) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// Called once after the last write.
    fn shutdown(&self) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// A run begins that shows nothing before it is whole: copied rows that come from here on until it is finalized or
    /// abandoned are staged. What other runs have staged here is removed. Called where
    /// [`Capabilities::staged_runs`] says that it can.
    fn begin_run(&self, _run: StagedRun) -> impl Future<Output = EtlResult<()>> + Send {
        async { Err(no_staged_runs(self.name())) }
    }

    /// Everything of the run is durable: what is staged of each of its tables takes the table's place, so that a reader
    /// sees the old rows or the new ones. Called once a run; again, in a later process too, where nobody heard how it ended,
    /// and then it changes nothing that is done.
    fn finalize_run(&self, _run: StagedRun) -> impl Future<Output = EtlResult<()>> + Send {
        async { Err(no_staged_runs(self.name())) }
    }

    /// The run failed or died: what it has staged is removed, and the tables stay as they are. Harmless when repeated, and
    /// where nothing is staged.
    fn abandon_run(&self, _run: StagedRun) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// What copies call: [`write_table_rows`](Self::write_table_rows) with the chunk's token, by which a
    /// destination with transactions drops a repeated chunk.
    fn write_copy_chunk(
        &self,
        table_id: TableId,
        _chunk: CopyChunk,
        table_rows: CopiedRows,
    ) -> impl Future<Output = EtlResult<()>> + Send {
        self.write_table_rows(table_id, table_rows.into_rows())
    }

    /// Whether copied rows of the table may come again, newer ([`CopyChunk::replaces`]): they then take the place of
    /// those with their key, and no older event changes or reads them. Only such a table's copy goes on where it was
    /// cut short (`SOURCE.md` R5); others begin anew.
    fn replaces_copied_rows(&self, _schema: &Arc<TableSchema>) -> bool {
        false
    }

    /// Whether this may follow from a change of a table at the source; asked before anything of it is written. An error
    /// of the kind [`SchemaChanged`](crate::ErrorKind::SchemaChanged) stops the table, and it alone, until somebody lets
    /// it go on; then it is copied again, whatever is said here.
    fn allow_change(&self, _change: TableChange) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// What streams call: [`write_events`](Self::write_events) with the cursor, the positions that the batch
    /// covers, and the tables that leave or join the main cursor with it.
    fn write_batch(&self, _batch: Batch, events: Vec<Event>) -> impl Future<Output = EtlResult<()>> + Send {
        self.write_events(events)
    }

    /// All rows of the table are there, and changes until shortly before now: what would have slowed its copy can be made.
    /// Called where [`Capabilities::table_extras`] asks for it, each time that the table joins the main cursor; nothing else
    /// of this table is written meanwhile.
    fn complete_table(&self, _table_id: TableId, _extras: TableExtras) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// Positions that are stored beyond this one become this one: the source has another history since. Called before
    /// anything is written; tables that have something from beyond are copied again. Needed where positions are stored.
    fn go_back(&self, _to: Position) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// Hands rows over once more that were refused, and removes the letters of which nothing is left to be done: delivered,
    /// or overtaken by a newer version of the row. It may be called beside every other call, and again after a crash.
    ///
    /// # Errors
    /// [`DestinationUnsupported`](ErrorKind::DestinationUnsupported) where it cannot; what still refuses them else.
    fn replay(&self, _letters: Vec<DeadLetter>) -> impl Future<Output = EtlResult<Replayed>> + Send {
        async {
            Err(EtlError::new(ErrorKind::DestinationUnsupported, "the destination does not take dead letters again")
                .hint("Copy their table again: `etl tables resync`"))
        }
    }

    /// The position that an atomic destination stored with its data; `None` where it stores none.
    fn durable_position(&self, _cursor: CursorId) -> impl Future<Output = EtlResult<Option<Position>>> + Send {
        async { Ok(None) }
    }
}

fn no_staged_runs(name: &str) -> EtlError {
    EtlError::new(ErrorKind::DestinationUnsupported, "the destination does not stage what is copied")
        .with("destination", name)
        .hint("Use `stream` or `incremental`")
}

/// What a destination can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// A batch and its position land together or not at all, and so does a copy chunk with its token.
    pub atomic: bool,
    /// How many `write_batch` calls of one cursor may be under way, at least 1.
    pub writes_in_flight: usize,
    /// The pieces of a transaction that is larger than a batch become durable together, with the last one: the `Ok` of
    /// the others is no acknowledgement. After a failure they come again from the first one on.
    pub whole_transactions: bool,
    /// It changes its tables as [`Event::Relation`] says. Where it does not, a changed table is copied again.
    pub schema_changes: bool,
    /// It stages what a run copies, and shows all of it at once ([`Destination::begin_run`]).
    pub staged_runs: bool,
    /// All that a run of `incremental` brings becomes durable together, with its last batch ([`Batch::is_piece`]). After a
    /// failure it comes again from the first one on.
    pub whole_runs: bool,
    /// It makes indexes, defaults or identity columns of the source's: [`Destination::complete_table`] is called.
    pub table_extras: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            atomic: false,
            writes_in_flight: 1,
            whole_transactions: false,
            schema_changes: false,
            staged_runs: false,
            whole_runs: false,
            table_extras: false,
        }
    }
}

impl Capabilities {
    /// Says that units land together with their position or not at all.
    #[must_use]
    pub fn with_atomic(mut self) -> Self {
        self.atomic = true;
        self
    }

    /// Says that the pieces of a transaction become durable together. One write of a cursor is under way at a time.
    #[must_use]
    pub fn with_whole_transactions(mut self) -> Self {
        self.whole_transactions = true;
        self
    }

    /// Says that tables are changed as the events say.
    #[must_use]
    pub fn with_schema_changes(mut self) -> Self {
        self.schema_changes = true;
        self
    }

    /// Says that runs are staged.
    #[must_use]
    pub fn with_staged_runs(mut self) -> Self {
        self.staged_runs = true;
        self
    }

    /// Says that what a run of `incremental` brings becomes durable together.
    #[must_use]
    pub fn with_whole_runs(mut self) -> Self {
        self.whole_runs = true;
        self
    }

    /// Says that indexes, defaults or identity columns are made.
    #[must_use]
    pub fn with_table_extras(mut self) -> Self {
        self.table_extras = true;
        self
    }

    /// Says how many writes of one cursor may be under way.
    #[must_use]
    pub fn with_writes_in_flight(mut self, writes: usize) -> Self {
        self.writes_in_flight = writes.max(1);
        self
    }
}

/// What has happened to a table at the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableChange {
    /// What its rows look like until then.
    pub before: Arc<TableSchema>,
    /// What they look like from then on, as far as that is known: the same where only their values are in doubt.
    pub after: Arc<TableSchema>,
    /// Whether the table is to be copied again for it. Otherwise [`Event::Relation`] says the same in the stream.
    pub is_copied: bool,
    /// What it is, in words.
    pub what: String,
}

/// The token of a piece of a table's copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyChunk {
    /// Which copy of the table this is.
    pub generation: u64,
    /// Which chunk of that copy; each index is written once.
    pub index: u64,
    /// What the rows carry as `_LSN` and `_ORDINAL`.
    pub position: Position,
    /// When the snapshot was taken.
    pub read_at: Timestamp,
    /// Whether older rows with these keys may be there, which these take the place of; only where the destination
    /// [says](Destination::replaces_copied_rows) that it can.
    pub replaces: bool,
}

/// What a batch of events covers. One whose end is stored already, and that moves no table, may be left out as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The cursor that moves.
    pub cursor: CursorId,
    /// Where it stands before the batch.
    pub from: Position,
    /// Where it stands once the batch is durable.
    pub upto: Position,
    /// Tables whose changes from here on come with another cursor, and that cursor.
    pub moves: Vec<(TableId, CursorId)>,
    /// Whether it becomes durable with a later batch of the cursor only: its `Ok` is no acknowledgement. Never where neither
    /// [`Capabilities::whole_transactions`] nor [`Capabilities::whole_runs`] says that it can.
    pub is_piece: bool,
}
