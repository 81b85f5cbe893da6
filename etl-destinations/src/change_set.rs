//! What is left of many changes of one table? Folded in order, so that each key has only its last state.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use etl::Position;
use etl::data::{Change, OldRow, Op, RawValue, RowBuilder, TableRow};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::Kind;
use foldhash::fast::RandomState;
use indexmap::IndexMap;
use indexmap::map::Entry::{Occupied, Vacant};
use smallvec::SmallVec;

use crate::metadata_columns::ChangeType;
use crate::write_mode::WriteMode;
use crate::writer::{BatchRows, KeyedChanges, KeylessChanges, RowUpdate, StampedRow, TargetTable};

#[cfg(test)]
mod tests;

/// Changes of one table between two changes of its shape or content as a whole.
#[derive(Debug)]
pub enum ChangeSet {
    /// Every change is a row.
    Log(Vec<StampedRow>),
    /// Rows are found by their key.
    Keyed(KeyedSet),
    /// Rows are found by all their values.
    Keyless(KeylessSet),
}

impl ChangeSet {
    /// No changes yet.
    pub fn new(table: &TargetTable) -> Self {
        Self::folding(table, true)
    }

    /// Makes room for so many changes.
    pub(crate) fn reserve(&mut self, changes: usize) {
        match self {
            Self::Log(rows) => rows.reserve(changes),
            Self::Keyed(set) => set.entries.reserve(changes),
            Self::Keyless(set) => set.inserts.reserve(changes),
        }
    }

    /// No changes yet. Where it does not `fold`, rows without a key that come and go in the set are not left out of it, and
    /// a row that moves without all its values is a set of its own: part of what is folded may be there already.
    pub(crate) fn folding(table: &TargetTable, folds: bool) -> Self {
        let soft = table.write_mode == WriteMode::SoftDelete;
        match table.write_mode {
            WriteMode::Append => Self::Log(Vec::new()),
            _ if table.source.has_key() => Self::Keyed(KeyedSet { soft, moves_alone: !folds, ..KeyedSet::default() }),
            _ => Self::Keyless(KeylessSet { soft, keeps_all: !folds, ..KeylessSet::default() }),
        }
    }

    /// Folds a change in. `false` where it has to come after everything that is in the set: that goes out first,
    /// and the change begins a new set.
    ///
    /// # Errors
    /// `DestinationUnsupported` when an update or delete does not say which row it is about; `Value` when what is
    /// needed of a row was not sent.
    pub fn add(&mut self, change: &Change) -> EtlResult<bool> {
        match self {
            Self::Log(rows) => log(rows, change).map(|()| true),
            Self::Keyed(set) => set.add(change),
            Self::Keyless(set) => set.add(change).map(|()| true),
        }
    }

    /// What there is to do, if anything.
    pub fn finish(self) -> Option<BatchRows> {
        let rows = match self {
            Self::Log(rows) => BatchRows::Log(rows),
            Self::Keyed(set) => BatchRows::Keyed(set.finish()),
            Self::Keyless(set) => BatchRows::Keyless(set.finish()),
        };
        (!rows.is_empty()).then_some(rows)
    }
}

fn stamped(row: TableRow, change_type: ChangeType, change: &Change) -> StampedRow {
    StampedRow { row, change_type, position: change.position, at: change.committed_at }
}

/// The log has a row for each change; one that moves a row has two (`SOURCE.md` R4), and so has one of a row without a
/// key, of which only its old values say which it was.
fn log(rows: &mut Vec<StampedRow>, change: &Change) -> EtlResult<()> {
    match &change.op {
        Op::Insert { new } => rows.push(stamped(new.clone(), ChangeType::Insert, change)),
        Op::Delete { old } => rows.push(stamped(old.row().clone(), ChangeType::Delete, change)),
        Op::Update { old, new } => {
            let new = complete(old.as_ref(), new)?;
            let mut update = stamped(new, ChangeType::Update, change);
            let is_moved = match old {
                Some(old) if update.row.schema().has_key() => key_of(old.row())? != key_of(&update.row)?,
                old => matches!(old, Some(OldRow::Full(_))),
            };
            if let Some(old) = old.as_ref().filter(|_| is_moved) {
                rows.push(stamped(old.row().clone(), ChangeType::Delete, change));
                update.position.ordinal += 1;
            }
            rows.push(update);
        }
    }
    Ok(())
}

/// A key as the server's exact text. That of one number is in the map itself, and not elsewhere in memory.
type Key = SmallVec<[u8; 16]>;

/// Where the row of a key is, as far as the set knows.
#[derive(Debug)]
enum Entry {
    /// Here, whole.
    Whole(StampedRow),
    /// Its other values are in the destination alone.
    Partial(Box<Partial>),
    /// Deleted.
    Gone(StampedRow),
    /// Under another key now.
    Vacated(StampedRow),
}

/// What the destination holds under `base`, with what was sent on top.
#[derive(Debug)]
struct Partial {
    base: TableRow,
    base_key: Key,
    new: StampedRow,
}

impl Entry {
    fn partial(base: TableRow, base_key: Key, new: StampedRow) -> Self {
        Self::Partial(Box::new(Partial { base, base_key, new }))
    }

    /// Where the last change of it is.
    fn position(&self) -> Position {
        match self {
            Self::Whole(row) | Self::Gone(row) | Self::Vacated(row) => row.position,
            Self::Partial(partial) => partial.new.position,
        }
    }
}

/// Changes of a table with a key.
#[derive(Debug, Default)]
pub struct KeyedSet {
    soft: bool,
    /// Whether a row that moves and is in the destination alone is the only entry of a set.
    moves_alone: bool,
    /// Nothing more goes in.
    is_closed: bool,
    /// What there is to do, in the order in which the keys came; each with the first change that went into it.
    entries: IndexMap<Key, (Entry, Position), RandomState>,
    /// Where rows came from that only the destination holds whole.
    moved_from: HashSet<Key>,
}

impl KeyedSet {
    fn add(&mut self, change: &Change) -> EtlResult<bool> {
        if self.is_closed {
            return Ok(false);
        }
        match &change.op {
            Op::Insert { new } => {
                self.put(key_of(new)?, Entry::Whole(stamped(new.clone(), ChangeType::Upsert, change)));
            }
            Op::Delete { old } => self.delete(old.row(), change)?,
            Op::Update { old, new } => {
                let row = complete(old.as_ref(), new)?;
                let key = key_of(&row)?;
                let old_row = old.as_ref().map(OldRow::row);
                let old_key = old_row.map(key_of).transpose()?.filter(|old| *old != key);
                let new = stamped(row, ChangeType::Upsert, change);
                match (old_key, old_row) {
                    (Some(old_key), Some(old_row)) => {
                        let is_partial = new.row.has_unchanged();
                        let is_late = self.moves_alone && !self.entries.is_empty();
                        if is_partial && (is_late || self.is_tangled(&old_key, &key)) {
                            return Ok(false);
                        }
                        self.is_closed = is_partial && self.moves_alone;
                        let old_row = old_row.clone();
                        self.move_row(old_key, &old_row, key, new)?;
                    }
                    _ => self.update(key, new)?,
                }
            }
        }
        Ok(true)
    }

    /// Whether a row that only the destination holds whole would move to a key that another such row comes from:
    /// then their order matters, which entries do not have.
    fn is_tangled(&self, from: &Key, to: &Key) -> bool {
        let returns = matches!(self.entry(from), Some(Entry::Partial(partial)) if partial.base_key == *to);
        !returns && self.moved_from.contains(to)
    }

    fn entry(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key).map(|(entry, _)| entry)
    }

    fn put(&mut self, key: Key, entry: Entry) {
        if let Entry::Partial(partial) = &entry
            && partial.base_key != key
        {
            self.moved_from.insert(partial.base_key.clone());
        }
        match self.entries.entry(key) {
            Occupied(mut known) => known.get_mut().0 = entry,
            Vacant(new) => {
                let since = entry.position();
                new.insert((entry, since));
            }
        }
    }

    fn delete(&mut self, old: &TableRow, change: &Change) -> EtlResult<()> {
        let key = key_of(old)?;
        let gone = stamped(old.clone(), ChangeType::Delete, change);
        let entry = match self.entry(&key) {
            // The marked row keeps the values that only the set knows.
            Some(Entry::Whole(row)) if self.soft => Entry::Whole(StampedRow { row: row.row.clone(), ..gone }),
            Some(Entry::Partial(partial)) if self.soft => {
                let Partial { base, base_key, new } = &**partial;
                Entry::partial(base.clone(), base_key.clone(), StampedRow { row: new.row.clone(), ..gone })
            }
            _ => Entry::Gone(gone),
        };
        self.put(key, entry);
        Ok(())
    }

    /// The row changes where it is.
    fn update(&mut self, key: Key, new: StampedRow) -> EtlResult<()> {
        let entry = if new.row.has_unchanged() {
            let base = new.row.clone();
            match self.over(&key, &base, new)? {
                Some(entry) => entry,
                None => return Ok(()),
            }
        } else {
            Entry::Whole(new)
        };
        self.put(key, entry);
        Ok(())
    }

    /// The row gets another key; the old one is free then.
    fn move_row(&mut self, old_key: Key, old: &TableRow, key: Key, new: StampedRow) -> EtlResult<()> {
        let vacated = StampedRow { row: old.clone(), change_type: ChangeType::Delete, ..new.clone() };
        let entry = if new.row.has_unchanged() { self.over(&old_key, old, new)? } else { Some(Entry::Whole(new)) };
        self.put(old_key.clone(), Entry::Vacated(vacated));
        if let Some(entry) = entry {
            self.put(key.clone(), entry);
            // What went into the row under its old key is in it.
            let from = self.entries.get(&old_key).map(|(_, since)| *since);
            if let (Some(from), Some((_, since))) = (from, self.entries.get_mut(&key)) {
                *since = from.min(*since);
            }
        }
        Ok(())
    }

    /// What was sent, on top of the row that is under the key now. `None` where there is none: then the row
    /// was deleted later than this change, which comes again.
    fn over(&self, key: &Key, base: &TableRow, new: StampedRow) -> EtlResult<Option<Entry>> {
        Ok(match self.entry(key) {
            Some(Entry::Whole(row)) => {
                let row = overlay(&row.row, &new.row)?;
                Some(Entry::Whole(StampedRow { row, ..new }))
            }
            Some(Entry::Partial(partial)) => {
                let Partial { base, base_key, new: before } = &**partial;
                let row = overlay(&before.row, &new.row)?;
                let new = StampedRow { row, ..new };
                Some(if new.row.has_unchanged() {
                    Entry::partial(base.clone(), base_key.clone(), new)
                } else {
                    Entry::Whole(new)
                })
            }
            Some(Entry::Gone(_) | Entry::Vacated(_)) => None,
            None => Some(Entry::partial(base.clone(), key.clone(), new)),
        })
    }

    fn finish(self) -> KeyedChanges {
        let mut changes = KeyedChanges { upserts: Vec::with_capacity(self.entries.len()), ..KeyedChanges::default() };
        for (key, (entry, since)) in self.entries {
            if since < entry.position() {
                let first = changes.since.entry(entry.position()).or_insert(since);
                *first = since.min(*first);
            }
            match entry {
                Entry::Whole(row) => changes.upserts.push(row),
                Entry::Gone(row) => changes.deletes.push(row),
                Entry::Vacated(row) => changes.vacated.push(row),
                Entry::Partial(partial) => {
                    let Partial { base, base_key, new } = *partial;
                    changes.updates.push(RowUpdate { base, new, moves: base_key != key });
                }
            }
        }
        changes.updates.sort_by_key(|update| update.new.position);
        changes
    }
}

/// Changes of a table without a key.
#[derive(Debug, Default)]
pub struct KeylessSet {
    soft: bool,
    keeps_all: bool,
    removals: Vec<StampedRow>,
    marks: Vec<StampedRow>,
    inserts: Vec<Option<StampedRow>>,
    /// The places of equal rows in `inserts` that are not marked; filled once something is removed.
    places: Option<HashMap<Key, Vec<usize>>>,
}

impl KeylessSet {
    fn add(&mut self, change: &Change) -> EtlResult<()> {
        match &change.op {
            Op::Insert { new } => self.insert(stamped(new.clone(), ChangeType::Upsert, change)),
            Op::Update { old: Some(OldRow::Full(old)), new } => {
                self.remove(stamped(old.clone(), ChangeType::Delete, change), false)?;
                self.insert(stamped(fill(new, old)?, ChangeType::Upsert, change))
            }
            Op::Delete { old: OldRow::Full(old) } => {
                self.remove(stamped(old.clone(), ChangeType::Delete, change), self.soft)
            }
            Op::Update { .. } | Op::Delete { .. } => Err(no_identity(change)),
        }
    }

    fn insert(&mut self, row: StampedRow) -> EtlResult<()> {
        if let Some(places) = &mut self.places {
            places.entry(whole_of(&row.row)?).or_default().push(self.inserts.len());
        }
        self.inserts.push(Some(row));
        Ok(())
    }

    /// Any of several equal rows is as good as another: one that the set holds goes first.
    fn remove(&mut self, old: StampedRow, marks: bool) -> EtlResult<()> {
        if self.keeps_all {
            if marks {
                self.marks.push(old)
            } else {
                self.removals.push(old)
            }
            return Ok(());
        }
        if self.places.is_none() {
            let mut places: HashMap<Key, Vec<usize>> = HashMap::new();
            for (place, row) in self.inserts.iter().enumerate() {
                if let Some(row) = row {
                    places.entry(whole_of(&row.row)?).or_default().push(place);
                }
            }
            self.places = Some(places);
        }
        let places = self.places.get_or_insert_default();
        match places.get_mut(&whole_of(&old.row)?).and_then(Vec::pop) {
            Some(place) if marks => self.inserts[place] = Some(old),
            Some(place) => self.inserts[place] = None,
            None if marks => self.marks.push(old),
            None => self.removals.push(old),
        }
        Ok(())
    }

    fn finish(self) -> KeylessChanges {
        let inserts = self.inserts.into_iter().flatten().collect();
        KeylessChanges { removals: self.removals, marks: self.marks, inserts }
    }
}

/// The new image, with the old one's values where they were not sent: those of the key, and all under FULL.
fn complete(old: Option<&OldRow>, new: &TableRow) -> EtlResult<TableRow> {
    if !new.has_unchanged() {
        return Ok(new.clone());
    }
    match old {
        Some(OldRow::Full(old)) => fill(new, old),
        Some(OldRow::Key(old)) if key_places(new).any(|place| new.raw(place) == RawValue::Unchanged) => {
            let key: Vec<usize> = key_places(new).collect();
            merged(new, |place| match new.raw(place) {
                RawValue::Unchanged if key.contains(&place) => old.raw(place),
                raw => raw,
            })
        }
        _ => Ok(new.clone()),
    }
}

fn fill(new: &TableRow, old: &TableRow) -> EtlResult<TableRow> {
    if new.has_unchanged() { overlay(old, new) } else { Ok(new.clone()) }
}

/// What was sent, and the row below where nothing was.
fn overlay(below: &TableRow, sent: &TableRow) -> EtlResult<TableRow> {
    merged(sent, |place| match sent.raw(place) {
        RawValue::Unchanged => below.raw(place),
        raw => raw,
    })
}

fn merged<'a>(like: &TableRow, value: impl Fn(usize) -> RawValue<'a>) -> EtlResult<TableRow> {
    let schema = like.schema();
    let mut builder = RowBuilder::new();
    let row = builder.push_raw(schema, (0..schema.columns.len()).map(value))?;
    Ok(TableRow::new(builder.into_buffer(), row))
}

fn key_places(row: &TableRow) -> impl Iterator<Item = usize> {
    let schema = Arc::clone(row.schema());
    (0..schema.key.len()).map(move |place| usize::from(schema.key[place]))
}

fn key_of(row: &TableRow) -> EtlResult<Key> {
    let mut key = Key::new();
    for place in &row.schema().key {
        write_identity(row, usize::from(*place), &mut key)?;
    }
    Ok(key)
}

fn whole_of(row: &TableRow) -> EtlResult<Key> {
    let mut whole = Key::with_capacity(row.byte_size());
    for place in 0..row.schema().columns.len() {
        write_identity(row, place, &mut whole)?;
    }
    Ok(whole)
}

/// Equal exactly where the server's text is, whatever form the value came in.
fn write_identity(row: &TableRow, place: usize, out: &mut Key) -> EtlResult<()> {
    let schema = row.schema();
    let raw = row.raw(place);
    if raw == RawValue::Null {
        out.push(0);
        return Ok(());
    }
    let number = match schema.columns[place].kind {
        Kind::Int2 => etl::data::decode::int2(raw).map(i64::from),
        Kind::Int4 => etl::data::decode::int4(raw).map(i64::from),
        Kind::Int8 => etl::data::decode::int8(raw),
        _ => {
            let text = row.text(place)?.unwrap_or_default();
            out.push(2);
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
    };
    let number = number.map_err(|error| schema.value_error(place, error))?;
    out.push(1);
    out.extend_from_slice(&number.to_le_bytes());
    Ok(())
}

fn no_identity(change: &Change) -> EtlError {
    let row = match &change.op {
        Op::Insert { new } | Op::Update { new, .. } => new,
        Op::Delete { old } => old.row(),
    };
    EtlError::new(ErrorKind::DestinationUnsupported, "an update or delete does not say which row it is about")
        .of_table(row.schema().id)
        .with("table", &row.schema().name)
        .with("position", change.position)
        .hint("Give the table a primary key, or REPLICA IDENTITY FULL")
}
