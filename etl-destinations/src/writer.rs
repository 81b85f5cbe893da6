//! What does the author of a destination implement? Units of steps, applied in order.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use etl::clock::Timestamp;
use etl::data::{CopiedRows, RawValue, TableRow};
use etl::destination::{Batch, Capabilities, CopyChunk, ValueLimits};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{Column, SchemaChange, TableExtras, TableId, TableName, TableSchema};
use etl::store::{DeadLetter, DeadLetterId};
use etl::{CursorId, Position};

use crate::kept_shape::is_fed;
use crate::metadata_columns::{ChangeType, MetadataColumns};
use crate::table_name::NameRules;
use crate::write_mode::WriteMode;

/// Writes units into a place that has tables; order, grouping, modes, names and retry come from
/// [`TableDestination`](crate::table_destination::TableDestination).
pub trait TableWriter: Send + Sync + 'static {
    /// The name that logs and errors show.
    fn name(&self) -> &str;

    /// What the writer can do; `atomic` means that a whole unit and its position land together or not at all. One that takes
    /// several batches at a time gets units of one table then: what its tables have to do goes on side by side, each in the
    /// order of its changes.
    fn capabilities(&self) -> Capabilities;

    /// Which names the place can hold.
    fn name_rules(&self) -> NameRules {
        NameRules::default()
    }

    /// What the place's columns can hold; any other value has to be an error in [`apply`](Self::apply).
    fn value_limits(&self) -> ValueLimits {
        ValueLimits::NONE
    }

    /// Whether a row of a change log has to have all its values, so that one that was not sent is an error.
    fn needs_all_values(&self) -> bool {
        true
    }

    /// Whether a table's shape can only change before anything is written in a unit. A batch is then cut into units
    /// there, each with the position up to which it goes.
    fn alters_first(&self) -> bool {
        false
    }

    /// Whether part of a batch may be there already when it comes: changes are folded less then. Of a row without a key that
    /// comes and goes both are told, so that removals may be of rows that are among the inserts; a row that moves without
    /// all its values is told alone.
    fn keeps_every_change(&self) -> bool {
        false
    }

    /// Makes the unit durable. The same unit, or the events of it in other units, may come again: what is there
    /// and as new already stays as it is. The future may be dropped half-way.
    ///
    /// An atomic writer stores [`WriteUnit::batch`] and [`WriteUnit::chunk`] in the same transaction. It drops a
    /// chunk whose token it finds there, and refuses a batch whose [`WriteUnit::stored`] is not what it finds.
    ///
    /// # Errors
    /// [`StoreConflict`](etl::ErrorKind::StoreConflict) when another position is stored than the unit was made
    /// for: it is made anew then. Nothing is written in that case.
    fn apply(&self, unit: WriteUnit) -> impl Future<Output = EtlResult<()>> + Send;

    /// Applies the unit and takes all of it back: what would refuse it says so. Dead letters of a place whose own rules
    /// refuse rows are found by it.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply); [`DestinationUnsupported`](ErrorKind::DestinationUnsupported) where nothing can be
    /// taken back.
    fn rehearse(&self, _unit: WriteUnit) -> impl Future<Output = EtlResult<()>> + Send {
        async { Err(EtlError::new(ErrorKind::DestinationUnsupported, "what is applied cannot be taken back")) }
    }

    /// Writes the rows of dead letters once more, which are all of one table; returns those of which nothing is left to be
    /// done. It may be called again with the same ones.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply); all letters stay then.
    fn replay(
        &self,
        unit: WriteUnit,
        letters: Vec<DeadLetter>,
    ) -> impl Future<Output = EtlResult<Vec<DeadLetterId>>> + Send {
        async {
            self.apply(unit).await?;
            Ok(letters.into_iter().map(|letter| letter.id).collect())
        }
    }

    /// Empties a table before it is copied anew, and forgets the position and the chunks stored for it. Its old
    /// shape may go too: [`Step::Ensure`] comes before the next rows. Does nothing where there is no such table.
    fn reset(&self, table: &Arc<TargetTable>) -> impl Future<Output = EtlResult<()>> + Send;

    /// Whether the place can be reached and written to; changes nothing.
    fn check_connection(&self) -> impl Future<Output = EtlResult<()>> + Send;

    /// Called once before anything else is written.
    fn startup(&self) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// Called once after the last write.
    fn shutdown(&self) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// Makes what the source's table has besides, as far as that is wanted; its rows are there.
    fn complete(&self, _table: &Arc<TargetTable>, _extras: &TableExtras) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// A run begins that is shown once it is whole ([`Destination::begin_run`](etl::destination::Destination::begin_run));
    /// what other runs have staged is removed.
    ///
    /// # Errors
    /// Where one of the tables could not be replaced: somebody else made what has its name.
    fn begin_run(&self, _run: &str, _tables: &[Replacement]) -> impl Future<Output = EtlResult<()>> + Send {
        async { Err(stages_nothing(self.name())) }
    }

    /// As [`apply`](Self::apply), for copied rows of a run: the tables of the unit are its own, with names in which the run
    /// is.
    fn stage(&self, _run: &str, _unit: WriteUnit) -> impl Future<Output = EtlResult<()>> + Send {
        async { Err(stages_nothing(self.name())) }
    }

    /// Every staged table takes the place of its own, all at once where the place can do that, and what is stored of
    /// positions and chunks of these tables is forgotten. Changes nothing where that was done.
    fn publish(&self, _run: &str, _tables: &[Replacement]) -> impl Future<Output = EtlResult<()>> + Send {
        async { Err(stages_nothing(self.name())) }
    }

    /// Removes what the run has staged, if anything.
    fn abandon_run(&self, _run: &str, _tables: &[Replacement]) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// Positions that an atomic writer has stored beyond this one become this one, before anything is written.
    fn go_back(&self, _to: Position) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// The position that an atomic writer stored with its data; `None` where it stores none.
    fn durable_position(&self, _cursor: CursorId) -> impl Future<Output = EtlResult<Option<Position>>> + Send {
        async { Ok(None) }
    }
}

fn stages_nothing(name: &str) -> EtlError {
    EtlError::new(ErrorKind::DestinationUnsupported, "the destination does not stage what is copied")
        .with("destination", name)
        .hint("Use `stream` or `incremental`")
}

/// A table of a run, and the one whose place it takes.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// Where the rows wait.
    pub from: Arc<TargetTable>,
    /// What readers know.
    pub to: Arc<TargetTable>,
}

/// What is applied together.
#[derive(Debug, Clone)]
pub struct WriteUnit {
    /// What to do, in this order.
    pub steps: Vec<Step>,
    /// The cursor, positions and moves that the unit covers; `None` for copied rows.
    pub batch: Option<Batch>,
    /// The cursor's position that an atomic writer has stored; what it covers is left out of the steps.
    pub stored: Option<Position>,
    /// The table and the token of the copied rows.
    pub chunk: Option<(TableId, CopyChunk)>,
}

/// One step of a unit.
#[derive(Debug, Clone)]
pub enum Step {
    /// The table must exist; the first step of a table in this process. One that exists stays as it is.
    Ensure(Arc<TargetTable>),
    /// The table changes its shape. The table is the one after all changes of its relation, and the names in
    /// the change are the target's. A change that is there already is no error.
    Alter(Arc<TargetTable>, SchemaChange),
    /// Columns whose values the rows that are there have elsewhere, or nowhere: they get them, all at once. Never in
    /// `append`.
    Fill(Arc<TargetTable>, Vec<FilledColumn>),
    /// The source emptied the tables, which are in `upsert` or `soft_delete`: rows older than the position are
    /// removed or marked. (In `append` the truncate is a row of the log.)
    Truncate(Vec<Truncated>),
    /// Rows of one table.
    Write(TableBatch),
}

/// A column that all rows of a table get other values in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilledColumn {
    /// Its name in the destination.
    pub name: Box<str>,
    /// What it is; where there is no other column to take the values from, they are its [`fill`](Column::fill).
    pub column: Column,
    /// The name in the destination of the column that has the values so far.
    pub from: Option<Box<str>>,
}

/// A table that the source emptied.
#[derive(Debug, Clone)]
pub struct Truncated {
    /// The table.
    pub table: Arc<TargetTable>,
    /// The place of the truncate; rows of later positions stay.
    pub position: Position,
    /// When it committed.
    pub at: Timestamp,
}

/// A table as the destination has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTable {
    /// The table at the source.
    pub id: TableId,
    /// The shape of its rows: that at the source, or what `on_schema_change` keeps of it.
    pub source: Arc<TableSchema>,
    /// Its name in the destination.
    pub name: TableName,
    /// The names of its columns in the destination, as many as `source.columns`.
    pub columns: Box<[Box<str>]>,
    /// How it is written.
    pub write_mode: WriteMode,
    /// Its metadata columns, which come after the others; `None` where they are off.
    pub metadata: Option<Arc<MetadataColumns>>,
    /// Whether the destination's table is taken as it is, whoever made it: what is in the source's is not copied.
    pub is_adopted: bool,
}

impl TargetTable {
    /// Whether rows are found by a key: there is one, and the table holds the current state.
    pub fn is_keyed(&self) -> bool {
        self.source.has_key() && self.write_mode != WriteMode::Append
    }

    /// The columns with their names in the destination.
    pub fn named_columns(&self) -> impl ExactSizeIterator<Item = (&str, &Column)> {
        self.columns.iter().map(|name| &**name).zip(&self.source.columns)
    }

    /// The places of the columns by whose values a row of a table without a key is found: all that the source has
    /// values for.
    pub fn compared_columns(&self) -> impl Iterator<Item = usize> {
        self.source.columns.iter().enumerate().filter(|(_, column)| is_fed(column)).map(|(place, _)| place)
    }

    /// The names of the key's columns in the destination, in key order.
    pub fn key_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.source.key.iter().map(|place| &*self.columns[usize::from(*place)])
    }
}

/// Rows of one table.
#[derive(Debug, Clone)]
pub struct TableBatch {
    /// The table; all rows have its shape.
    pub table: Arc<TargetTable>,
    /// What to do with which rows.
    pub rows: BatchRows,
}

/// What to do with the rows of a batch.
#[derive(Debug, Clone)]
pub enum BatchRows {
    /// Copied rows: insert them as they are. Their change type is `UPSERT`.
    Copied {
        /// The rows, which all attempts to write them share.
        rows: Arc<CopiedRows>,
        /// What all of them carry as `_LSN` and `_ORDINAL`.
        position: Position,
        /// What all of them carry as `_TIMESTAMP`.
        at: Timestamp,
    },
    /// One row a change: append them. A column that does not belong to a delete's old row is null, whether or
    /// not the source allows nulls there.
    Log(Vec<StampedRow>),
    /// Changes of a table with a key.
    Keyed(KeyedChanges),
    /// Changes of a table without one.
    Keyless(KeylessChanges),
}

/// A row, and what the metadata columns say about it.
#[derive(Debug, Clone)]
pub struct StampedRow {
    /// The row.
    pub row: TableRow,
    /// What happened to it.
    pub change_type: ChangeType,
    /// The place of the change: `_LSN` and `_ORDINAL`.
    pub position: Position,
    /// When it committed.
    pub at: Timestamp,
}

/// What is left of a run of changes once each key has only its last state.
///
/// Every key is written by one entry at most. Parts are applied in the order of the fields, unless all is read
/// before anything is written. **Guard**: a row is changed, removed, or read as a base only where its stored
/// (`_LSN`, `_ORDINAL`) is less than the entry's position.
#[derive(Debug, Clone, Default)]
pub struct KeyedChanges {
    /// Changes of rows that the batch does not hold whole, in the order of their positions.
    pub updates: Vec<RowUpdate>,
    /// Rows that are gone. Only the key's columns are meaningful. `upsert`: remove; `soft_delete`: mark the
    /// row with the entry's change type, position and time, and keep its values.
    pub deletes: Vec<StampedRow>,
    /// Keys that rows moved away from; only the key's columns are meaningful. Remove, in both modes.
    pub vacated: Vec<StampedRow>,
    /// Whole rows: insert, or replace an older row with that key.
    pub upserts: Vec<StampedRow>,
    /// Where an entry has more than one change in it, the position of the first one, by its own. All up to a place is
    /// written once every entry is that begins before it.
    pub since: BTreeMap<Position, Position>,
}

/// A change of a row whose other values are in the destination alone.
#[derive(Debug, Clone)]
pub struct RowUpdate {
    /// The key under which the row is found before the batch; only the key's columns are meaningful. Where no
    /// such row is there, or it is not older, there is nothing to do.
    pub base: TableRow,
    /// The row after: its key, which may be another than the base's, and what was sent. What is unchanged
    /// keeps the value of the base. An older row that has the new key already gives way. With the change type
    /// `DELETE` (`soft_delete` only) the row is marked.
    pub new: StampedRow,
    /// Whether the key of `new` is another than the base's. The base's key is then in
    /// [`KeyedChanges::vacated`] unless another row has it now.
    pub moves: bool,
}

/// Changes of a table without a key, in the order in which they are applied.
#[derive(Debug, Clone, Default)]
pub struct KeylessChanges {
    /// Old rows, all columns: each removes exactly one row that equals it (null equals null) and is not marked.
    pub removals: Vec<StampedRow>,
    /// Old rows, all columns: each marks exactly one such row (`soft_delete` only).
    pub marks: Vec<StampedRow>,
    /// New rows. With the change type `DELETE` they are inserted as marked.
    pub inserts: Vec<StampedRow>,
}

impl RowUpdate {
    /// The places, among so many columns, of those that one of the updates at least did not send.
    pub fn unsent_places(updates: &[Self], columns: usize) -> Vec<usize> {
        let is_unsent = |place: &usize| updates.iter().any(|of| of.new.row.raw(*place) == RawValue::Unchanged);
        (0..columns).filter(is_unsent).collect()
    }
}

impl BatchRows {
    /// The number of entries.
    pub fn len(&self) -> usize {
        match self {
            Self::Copied { rows, .. } => rows.len(),
            Self::Log(rows) => rows.len(),
            Self::Keyed(set) => set.updates.len() + set.deletes.len() + set.vacated.len() + set.upserts.len(),
            Self::Keyless(set) => set.removals.len() + set.marks.len() + set.inserts.len(),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
