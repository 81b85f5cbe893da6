//! How is a destination driven? As the engine does it, with transactions built from text.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{Abilities, Outcome, Subject, fold};
use crate::clock::Timestamp;
use crate::data::{Change, Event, OldRow, Op, RawValue, RowBuilder, TableRow};
use crate::destination::{AnyDestination, Batch, CopyChunk, Destination, Mode, StampedText, TextRow};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TableSchema};
use crate::store::{CursorId, MemoryStore, Phase, SharedStore, TableState};

/// How a case ends: well, or with what was promised and what was found.
pub type CaseResult = Result<(), Broken>;

/// A promise that was not kept, and how that showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    found: String,
    /// Of the destination's own error: its kind, and whether it says what to do.
    error: Option<(ErrorKind, bool)>,
}

impl Broken {
    pub(super) fn new(found: impl Into<String>) -> Self {
        Self { found: found.into(), error: None }
    }

    /// Says where.
    pub(super) fn within(self, place: &str) -> Self {
        Self { found: format!("{place}: {}", self.found), ..self }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found)
    }
}

impl std::error::Error for Broken {}

impl From<EtlError> for Broken {
    fn from(error: EtlError) -> Self {
        Self { error: Some((error.kind(), error.hint_text().is_some())), found: error.to_string() }
    }
}

/// That it is as it should be; else what it is instead.
pub(super) fn promised(holds: bool, found: impl FnOnce() -> String) -> CaseResult {
    if holds { Ok(()) } else { Err(Broken::new(found())) }
}

/// What cannot be done ends in an error that says so, names the table, and says what to do.
pub(super) fn is_clear(error: &EtlError, table: Option<&TableSchema>) -> CaseResult {
    use ErrorKind::{Config, DestinationRejected, DestinationUnsupported, SchemaChanged, Value};
    let kinds = [Config, DestinationRejected, DestinationUnsupported, SchemaChanged, Value];
    promised(kinds.contains(&error.kind()), || format!("{kinds:?} would say what the matter is: {error:?}"))?;
    let text = error.to_string();
    if let Some(table) = table {
        promised(text.contains(&*table.name.name), || format!("the error does not name the table: {text}"))?;
    }
    promised(error.hint_text().is_some(), || format!("the error does not say what to do: {text}"))
}

/// A destination that is being tested, and the position up to which it was written.
pub struct Trial<'s> {
    subject: &'s dyn Subject,
    /// The write mode, where it is not the subject's own.
    mode: Option<Mode>,
    /// The case asked for it.
    has_entered: bool,
    store: SharedStore,
    open: Option<AnyDestination>,
    /// How far the main cursor is.
    pub(super) at: Position,
    /// How the case ends if it ends well.
    outcome: Outcome,
    /// Something was written that the destination has to refuse.
    must_refuse: AtomicBool,
    looked: bool,
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
    pub(super) async fn open(subject: &'s dyn Subject, mode: Option<Mode>) -> EtlResult<Self> {
        let mut trial = Self {
            subject,
            mode,
            has_entered: false,
            store: Arc::new(MemoryStore::new()),
            open: None,
            at: Position::ZERO,
            outcome: Outcome::Kept,
            must_refuse: AtomicBool::new(false),
            looked: false,
        };
        trial.reopen().await?;
        Ok(trial)
    }

    /// Drops the destination as a crash does, and opens the place again.
    pub(super) async fn reopen(&mut self) -> EtlResult<()> {
        self.open = None;
        let store = Arc::clone(&self.store);
        let destination = match self.mode {
            Some(mode) => self.subject.open_in(mode, store).await?,
            None => self.subject.open(store).await?,
        };
        destination.startup().await?;
        self.open = Some(destination);
        Ok(())
    }

    /// Goes on in a write mode; `false` where the subject does not have it, and says so as it should, and where it is in
    /// one already: what a mode has of its own is looked at once.
    pub(super) async fn enter(&mut self, mode: Mode) -> Result<bool, Broken> {
        let modes = self.subject.modes();
        if modes.is_empty() || self.mode.is_some() {
            self.outcome = Outcome::Beside;
            return Ok(false);
        }
        self.open = None;
        (self.mode, self.has_entered) = (Some(mode), true);
        if modes.contains(&mode) {
            self.reopen().await?;
            return Ok(true);
        }
        match self.subject.open_in(mode, Arc::clone(&self.store)).await {
            Ok(_) => Err(Broken::new(format!("`{}` is not offered, and was not refused", mode.word()))),
            Err(error) => {
                is_clear(&error, None)?;
                self.outcome = Outcome::Refused(error.to_string());
                Ok(false)
            }
        }
    }

    /// The write mode that was entered.
    pub(super) fn mode(&self) -> Option<Mode> {
        self.mode.filter(|_| self.has_entered && self.open.is_some())
    }

    /// So many, or few where they were shown to go through in another mode.
    pub(super) fn amount<N: From<u8>>(&self, many: N, few: u8) -> N {
        if self.mode.is_some() { few.into() } else { many }
    }

    /// Whether it writes a log that says itself how far it has come: what is older is left out.
    pub(super) fn is_log_of_its_own(&self) -> bool {
        self.mode == Some(Mode::Append) && !self.destination().capabilities().atomic
    }

    /// The subject, where a case does more than write.
    pub(super) fn subject(&self) -> &'s dyn Subject {
        self.subject
    }

    /// There is nothing here that the case could be about.
    pub(super) fn is_beside(&mut self) -> CaseResult {
        self.outcome = Outcome::Beside;
        Ok(())
    }

    /// What was done cannot be done here: the destination must say so.
    pub(super) fn is_refused(&mut self, done: EtlResult<()>, table: &TableSchema) -> CaseResult {
        let Err(error) = done else {
            return Err(Broken::new("what cannot be done must be an error"));
        };
        is_clear(&error, Some(table))?;
        self.outcome = Outcome::Refused(error.to_string());
        Ok(())
    }

    /// As [`is_refused`](Self::is_refused), of what is about no table alone.
    pub(super) fn is_refused_altogether(&mut self, done: EtlResult<()>) -> CaseResult {
        let Err(error) = done else {
            return Err(Broken::new("what cannot be done must be an error"));
        };
        is_clear(&error, None)?;
        self.outcome = Outcome::Refused(error.to_string());
        Ok(())
    }

    /// What has to be refused is looked at by the case itself.
    pub(super) fn looks_at_refusals(&self) {
        self.must_refuse.store(false, Relaxed);
    }

    /// How the case ended.
    pub(super) fn end(self, result: CaseResult) -> Result<Outcome, Broken> {
        if !self.must_refuse.load(Relaxed) {
            // Where all is a log, rows without a key may have no current state.
            let is_folded = self.mode.is_some_and(|mode| mode != Mode::Append) && self.abilities().log;
            if is_folded && let Err(Broken { error: Some((ErrorKind::DestinationUnsupported, true)), found }) = result {
                return Ok(Outcome::Refused(found));
            }
            let unseen = self.outcome == Outcome::Kept && !self.looked && !self.abilities().rows;
            return result.map(|()| if unseen { Outcome::Beside } else { self.outcome });
        }
        match result {
            Err(Broken { error: Some((ErrorKind::Value, true)), found }) => Ok(Outcome::Refused(found)),
            Err(broken) => Err(broken),
            Ok(()) => Err(Broken::new("an update without all values was taken in silence")),
        }
    }

    pub(super) fn abilities(&self) -> Abilities {
        let own = self.subject.abilities();
        match self.mode {
            // A table has no place for a value that was not sent; a place that holds nothing but logs may have.
            Some(Mode::Append) if !own.log => own.with_log().without_unsent(),
            _ => own,
        }
    }

    pub(super) fn destination(&self) -> &AnyDestination {
        self.open.as_ref().expect("a trial's destination is open between its calls")
    }

    /// The rows, with the nearest value in place of each that the place says it cannot hold. That one is put to the test:
    /// it has to end in an error that names table and column.
    pub(super) async fn held<const N: usize>(
        &self,
        schema: &Arc<TableSchema>,
        rows: [&[&str]; N],
    ) -> Result<[Vec<String>; N], Broken> {
        let limits = self.destination().value_limits();
        let mut held = rows.map(|row| row.iter().map(|value| (*value).to_owned()).collect::<Vec<String>>());
        for (values, held) in rows.iter().zip(&mut held) {
            for (place, column) in schema.columns.iter().enumerate() {
                let raw = RawValue::Text(values[place].as_bytes());
                if [NULL, UNCHANGED].contains(&values[place]) || limits.check(&column.kind, raw).is_ok() {
                    continue;
                }
                held[place] = limits.nearest(&column.kind, raw).unwrap_or_else(|| NULL.to_owned());
                let mut odd: Vec<&str> = vec![NULL; values.len()];
                schema.key.iter().for_each(|key| odd[usize::from(*key)] = values[usize::from(*key)]);
                odd[place] = values[place];
                self.declare(schema).await?;
                let refused = self.chunk(schema, chunk(1, 99), &[&odd]).await;
                let Err(error) = refused else {
                    return Err(Broken::new(format!(
                        "{} was taken for a value of {}",
                        values[place], column.type_name
                    )));
                };
                let text = error.to_string();
                let is_told = error.kind() == ErrorKind::Value
                    && text.contains(&*schema.name.name)
                    && text.contains(&*column.name);
                promised(is_told, || format!("the error names neither table nor column: {text}"))?;
            }
        }
        Ok(held)
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
        let events: Vec<Event> =
            transactions.iter().flat_map(|transaction| transaction.events.iter().cloned()).collect();
        if !self.abilities().unsent && events.iter().any(lacks_a_value) {
            self.must_refuse.store(true, Relaxed);
        }
        let upto = transactions.last().map_or(self.at, |last| Position::after(last.commit));
        (Batch { cursor: CursorId::Main, from: self.at, upto, moves: Vec::new(), is_piece: false }, events)
    }

    /// That the table holds exactly these rows. The destination is closed and opened again for it.
    pub(super) async fn expect(&mut self, schema: &TableSchema, rows: &[&[&str]]) -> CaseResult {
        self.expect_text(schema, rows.iter().map(|row| text_row(row)).collect()).await
    }

    /// The same, of rows that are texts already.
    pub(super) async fn expect_text(&mut self, schema: &TableSchema, mut expected: Vec<TextRow>) -> CaseResult {
        self.looked |= self.abilities().rows || self.mode.is_some();
        let found = match self.mode {
            Some(mode) => self.stamped(schema).await?.map(|rows| current_state(mode, rows, schema)),
            None => {
                self.close().await?;
                let found = if self.abilities().rows { self.subject.rows(schema).await? } else { None };
                self.reopen().await?;
                found
            }
        };
        if !self.looked {
            return Ok(());
        }
        let Some(mut found) = found else { return Err(missing(schema)) };
        found.sort();
        expected.sort();
        promised(found == expected, || differences(schema, &expected, &found))
    }

    /// That the table holds exactly these rows in its write mode: change type, commit LSN, ordinal, and values.
    pub(super) async fn expect_stamped(&mut self, schema: &TableSchema, rows: &[Stamped<'_>]) -> CaseResult {
        let Some(mut found) = self.stamped(schema).await? else { return Err(missing(schema)) };
        let stamped = |(change_type, commit, ordinal, values): &Stamped<'_>| StampedText {
            position: Position::new(Lsn(*commit), *ordinal),
            change_type: (*change_type).to_owned(),
            values: text_row(values),
        };
        let mut expected: Vec<StampedText> = rows.iter().map(stamped).collect();
        found.sort();
        expected.sort();
        promised(found == expected, || format!("{}: expected {expected:#?}, found {found:#?}", schema.name))
    }

    /// Ends the destination in order, so that others may look at the place; [`reopen`](Self::reopen) comes after.
    pub(super) async fn close(&mut self) -> EtlResult<()> {
        match self.open.take() {
            Some(open) => open.shutdown().await,
            None => Ok(()),
        }
    }

    /// What somebody else sees of the table in its write mode.
    async fn stamped(&mut self, schema: &TableSchema) -> EtlResult<Option<Vec<StampedText>>> {
        self.close().await?;
        let found = self.subject.stamped_rows(schema).await?;
        self.reopen().await?;
        Ok(found)
    }
}

/// A row in a write mode: change type, commit LSN, ordinal, and values.
pub(super) type Stamped<'a> = (&'a str, u64, u64, &'a [&'a str]);

/// What is there or not, against what should be.
fn differences(schema: &TableSchema, expected: &[TextRow], found: &[TextRow]) -> String {
    let lacking: Vec<&TextRow> = expected.iter().filter(|row| !found.contains(row)).collect();
    let beyond: Vec<&TextRow> = found.iter().filter(|row| !expected.contains(row)).collect();
    let (are, should) = (found.len(), expected.len());
    let name = &schema.name;
    // Of wide rows that are the same row, the values that differ are all that anybody wants to see.
    let same = |row: &&TextRow| beyond.iter().find(|other| other.first() == row.first() && other.len() == row.len());
    if are == should && !lacking.is_empty() && lacking.iter().all(|row| same(row).is_some()) {
        let differing = lacking.iter().filter_map(|row| same(row).map(|other| row.iter().zip(*other)));
        let differing = differing.flat_map(|values| schema.columns.iter().zip(values));
        let differing = differing.filter(|(_, (one, other))| one != other);
        let shown = |(column, (one, other)): (&Column, (&Option<String>, &Option<String>))| {
            format!("{} ({}): {one:?}, not {other:?}", column.name, column.type_name)
        };
        return format!("{name}: expected {}", differing.map(shown).collect::<Vec<_>>().join("; "));
    }
    format!("{name}: {are} rows instead of {should}; expected {lacking:#?}, found {beyond:#?}")
}

fn missing(schema: &TableSchema) -> Broken {
    Broken::new(format!("the table {} is missing", schema.name))
}

fn text_row(values: &[&str]) -> TextRow {
    values.iter().map(|value| (*value != NULL).then(|| (*value).to_owned())).collect()
}

/// The rows that are not deleted.
fn current_state(mode: Mode, rows: Vec<StampedText>, schema: &TableSchema) -> Vec<TextRow> {
    match mode {
        Mode::Upsert => rows.into_iter().map(|row| row.values).collect(),
        Mode::SoftDelete => rows.into_iter().filter(|row| !row.is_deleted()).map(|row| row.values).collect(),
        Mode::Append => fold(rows, schema),
    }
}

/// Whether it is an update of which something was not sent, and the old row does not tell it.
fn lacks_a_value(event: &Event) -> bool {
    let Event::Change(Change { op: Op::Update { old, new }, .. }) = event else { return false };
    new.has_unchanged() && !matches!(old, Some(OldRow::Full(_)))
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

/// Values as cases have them.
pub(super) fn texts(values: &[String]) -> Vec<&str> {
    values.iter().map(String::as_str).collect()
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
