//! How is a destination driven? As the engine does it, with transactions built from text.

use std::fmt;
use std::sync::Arc;

use super::{Abilities, Subject};
use crate::clock::Timestamp;
use crate::data::{Change, Event, OldRow, Op, RawValue, RowBuilder, TableRow};
use crate::destination::{AnyDestination, Batch, CopyChunk, Destination, TextRow};
use crate::error::{EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TableSchema};
use crate::store::{CursorId, MemoryStore, Phase, SharedStore, TableState};

/// How a case ends: well, or with what was promised and what was found.
pub type CaseResult = Result<(), Broken>;

/// A promise that was not kept, and how that showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub(super) String);

impl Broken {
    /// Says where.
    pub(super) fn within(self, place: &str) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

impl From<EtlError> for Broken {
    fn from(error: EtlError) -> Self {
        Self(error.to_string())
    }
}

/// That it is as it should be; else what it is instead.
pub(super) fn promised(holds: bool, found: impl FnOnce() -> String) -> CaseResult {
    if holds { Ok(()) } else { Err(Broken(found())) }
}

/// A destination that is being tested, and the position up to which it was written.
pub struct Trial<'s> {
    subject: &'s dyn Subject,
    store: SharedStore,
    open: Option<AnyDestination>,
    /// How far the main cursor is.
    pub(super) at: Position,
}

/// Instead of text: the value is null.
pub(super) const NULL: &str = "\u{0}null";
/// Instead of text: the value was not sent.
pub(super) const UNCHANGED: &str = "\u{0}unchanged";

/// When everything commits.
pub(super) const COMMITTED: Timestamp = Timestamp(1_700_000_000_123_456);

impl fmt::Debug for Trial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("at", &self.at).finish_non_exhaustive()
    }
}

impl<'s> Trial<'s> {
    pub(super) async fn open(subject: &'s dyn Subject) -> EtlResult<Self> {
        let store: SharedStore = Arc::new(MemoryStore::new());
        let mut trial = Self { subject, store, open: None, at: Position::ZERO };
        trial.reopen().await?;
        Ok(trial)
    }

    /// Drops the destination as a crash does, and opens the place again.
    pub(super) async fn reopen(&mut self) -> EtlResult<()> {
        self.open = None;
        let destination = self.subject.open(Arc::clone(&self.store)).await?;
        destination.startup().await?;
        self.open = Some(destination);
        Ok(())
    }

    pub(super) fn abilities(&self) -> Abilities {
        self.subject.abilities()
    }

    pub(super) fn destination(&self) -> &AnyDestination {
        self.open.as_ref().expect("a trial's destination is open between its calls")
    }

    /// Makes a schema known, as the engine does before rows of it come.
    pub(super) async fn declare(&self, schema: &Arc<TableSchema>) -> EtlResult<()> {
        self.store.put_schema(Arc::clone(schema)).await?;
        if !self.store.table_states().await?.iter().any(|(id, _)| *id == schema.id) {
            let state = TableState { phase: Phase::Ready, ..TableState::PENDING };
            self.store.set_table_state(schema.id, None, state).await?;
        }
        Ok(())
    }

    /// Copies rows as a first copy does, in one chunk; the table is declared before.
    pub(super) async fn copy(&self, schema: &Arc<TableSchema>, rows: &[&[&str]]) -> EtlResult<()> {
        self.declare(schema).await?;
        self.destination().truncate_table(schema.id).await?;
        self.chunk(schema, chunk(1, 0), &[]).await?;
        self.chunk(schema, chunk(1, 1), rows).await
    }

    /// Writes one chunk.
    pub(super) async fn chunk(&self, schema: &Arc<TableSchema>, chunk: CopyChunk, rows: &[&[&str]]) -> EtlResult<()> {
        let rows = rows.iter().map(|values| row(schema, values)).collect();
        self.destination().write_copy_chunk(schema.id, chunk, rows).await
    }

    /// Delivers transactions in one batch of the main cursor.
    pub(super) async fn deliver(&mut self, transactions: &[Transaction]) -> EtlResult<()> {
        let (batch, events) = self.batch(transactions);
        self.destination().write_batch(batch.clone(), events).await?;
        self.at = batch.upto;
        Ok(())
    }

    /// Delivers transactions by the required method alone, without cursor and positions.
    pub(super) async fn write(&self, transactions: &[Transaction]) -> EtlResult<()> {
        let (_, events) = self.batch(transactions);
        self.destination().write_events(events).await
    }

    /// The batch that transactions make.
    pub(super) fn batch(&self, transactions: &[Transaction]) -> (Batch, Vec<Event>) {
        let events = transactions.iter().flat_map(|transaction| transaction.events.iter().cloned()).collect();
        let upto = transactions.last().map_or(self.at, |last| Position::after(last.commit));
        (Batch { cursor: CursorId::Main, from: self.at, upto, moves: Vec::new() }, events)
    }

    /// That the table holds exactly these rows. The destination is closed and opened again for it.
    pub(super) async fn expect(&mut self, schema: &TableSchema, rows: &[&[&str]]) -> CaseResult {
        if let Some(open) = self.open.take() {
            open.shutdown().await?;
        }
        let found = self.subject.rows(schema).await?;
        self.reopen().await?;
        let Some(mut found) = found else { return Err(Broken(format!("the table {} is missing", schema.name))) };
        let text = |value: &&str| (*value != NULL).then(|| (*value).to_owned());
        let mut expected: Vec<TextRow> = rows.iter().map(|row| row.iter().map(text).collect()).collect();
        found.sort();
        expected.sort();
        promised(found == expected, || format!("{}: expected {expected:#?}, found {found:#?}", schema.name))
    }
}

/// The token of a chunk.
pub(super) fn chunk(generation: u64, index: u64) -> CopyChunk {
    CopyChunk { generation, index, position: Position::new(Lsn(50), 0), read_at: COMMITTED, replaces: false }
}

/// A table with columns of these names, types and kinds; the key's places come first.
pub(super) fn table(id: u32, name: &str, columns: &[(&str, u32, &str)], key: &[u16]) -> Arc<TableSchema> {
    let column = |(place, (name, type_oid, type_name)): (usize, &(&str, u32, &str))| Column {
        fill: None,
        name: (*name).into(),
        attnum: place as i16 + 1,
        type_oid: *type_oid,
        modifier: modifier(type_name),
        type_name: (*type_name).into(),
        kind: kind(*type_oid, type_name),
        nullable: !key.contains(&(place as u16)),
    };
    Arc::new(TableSchema {
        last_attnum: 0,
        source_name: None,
        id: TableId(id),
        name: TableName::new("public", name),
        columns: columns.iter().enumerate().map(column).collect(),
        key: key.into(),
        identity: if key.is_empty() { ReplicaIdentity::Full } else { ReplicaIdentity::Default },
        since: Position::ZERO,
    })
}

fn modifier(type_name: &str) -> i32 {
    if type_name == "numeric(18,4)" { ((18 << 16) | 4) + 4 } else { -1 }
}

fn kind(type_oid: u32, type_name: &str) -> Kind {
    match (type_oid, type_name) {
        (_, "integer[]") => Kind::Array(Arc::new(Kind::Int4)),
        (_, "text[]") => Kind::Array(Arc::new(Kind::Text)),
        (_, "mood") => Kind::Enum,
        (oid, _) => Kind::of_builtin(oid, modifier(type_name)).unwrap_or(Kind::Other),
    }
}

/// The table that most cases use: a key, a number, and text that may be stored out of line.
pub(super) fn items(id: u32) -> Arc<TableSchema> {
    table(id, &format!("items{id}"), &[("id", 23, "integer"), ("n", 20, "bigint"), ("big", 25, "text")], &[0])
}

/// A row of values in the server's text form.
pub(super) fn row(schema: &Arc<TableSchema>, values: &[&str]) -> TableRow {
    let raw = values.iter().map(|value| match *value {
        NULL => RawValue::Null,
        UNCHANGED => RawValue::Unchanged,
        text => RawValue::Text(text.as_bytes()),
    });
    let mut builder = RowBuilder::new();
    builder.push_raw(schema, raw).expect("as many values as columns");
    builder.finish().remove(0)
}

/// A committed transaction.
#[derive(Debug, Clone)]
pub(super) struct Transaction {
    pub(super) commit: Lsn,
    pub(super) events: Vec<Event>,
    ordinal: u64,
}

impl Transaction {
    /// One that commits at this LSN.
    pub(super) fn at(commit: u64) -> Self {
        let begin = Event::Begin { xid: commit as u32, commit: Lsn(commit) };
        Self { commit: Lsn(commit), events: vec![begin], ordinal: 0 }
    }

    fn next(&mut self, count: u64) -> Position {
        let position = Position::new(self.commit, self.ordinal + 1);
        self.ordinal += count;
        position
    }

    fn push(mut self, schema: &Arc<TableSchema>, ordinals: u64, op: Op) -> Self {
        let position = self.next(ordinals);
        let change = Change { table_id: schema.id, position, committed_at: COMMITTED, op };
        self.events.push(Event::Change(change));
        self
    }

    pub(super) fn insert(self, schema: &Arc<TableSchema>, values: &[&str]) -> Self {
        self.push(schema, 1, Op::Insert { new: row(schema, values) })
    }

    pub(super) fn insert_row(self, new: TableRow) -> Self {
        let schema = Arc::clone(new.schema());
        self.push(&schema, 1, Op::Insert { new })
    }

    pub(super) fn update(self, schema: &Arc<TableSchema>, values: &[&str]) -> Self {
        self.push(schema, 1, Op::Update { old: None, new: row(schema, values) })
    }

    /// An update that changes the key, whose old image has only that.
    pub(super) fn rekey(self, schema: &Arc<TableSchema>, old: &[&str], values: &[&str]) -> Self {
        let old = Some(OldRow::Key(row(schema, old)));
        self.push(schema, 2, Op::Update { old, new: row(schema, values) })
    }

    /// An update with the whole old row.
    pub(super) fn replace(self, schema: &Arc<TableSchema>, old: &[&str], values: &[&str]) -> Self {
        let old = Some(OldRow::Full(row(schema, old)));
        self.push(schema, 1, Op::Update { old, new: row(schema, values) })
    }

    pub(super) fn delete(self, schema: &Arc<TableSchema>, old: &[&str]) -> Self {
        let old = row(schema, old);
        let old = if schema.has_key() { OldRow::Key(old) } else { OldRow::Full(old) };
        self.push(schema, 1, Op::Delete { old })
    }

    pub(super) fn truncate(mut self, tables: &[&Arc<TableSchema>]) -> Self {
        let positions = tables.iter().map(|_| self.next(1)).collect();
        let tables = tables.iter().map(|table| table.id).collect();
        self.events.push(Event::Truncate { tables, positions, at: COMMITTED });
        self
    }

    /// The table looks like this from here on.
    pub(super) fn relation(mut self, schema: &Arc<TableSchema>) -> Self {
        let position = Position::new(self.commit, self.ordinal + 1);
        self.events.push(Event::Relation { new: Arc::clone(schema), position });
        self
    }

    pub(super) fn end(mut self) -> Self {
        self.events.push(Event::Commit { end: Lsn(self.commit.0 + 1), at: COMMITTED });
        self
    }
}
