//! What does a destination promise? The reference, in memory: current state, exactly once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Batch, Capabilities, CopyChunk, Destination};
use crate::data::{Change, Event, OldRow, Op, RawValue, TableRow};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Position;
use crate::schema::{TableId, TableSchema, changes};
use crate::store::CursorId;

/// The values of a row, as Postgres writes them; `None` is null.
pub type TextRow = Vec<Option<String>>;

/// Keeps the current state of every table. Clones are the same one.
///
/// Like a database with transactions it stores positions with the data, so that a batch or a chunk that comes
/// again changes nothing.
#[derive(Debug, Clone, Default)]
pub struct MemoryDestination(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    tables: HashMap<TableId, Table>,
    main: Option<Position>,
}

#[derive(Debug, Default)]
struct Table {
    /// By key. A deleted row leaves its position, so that nothing older brings it back.
    keyed: BTreeMap<TextRow, (Position, Option<TextRow>)>,
    /// The rows of a table without a key.
    keyless: Vec<TextRow>,
    chunks: HashSet<(u64, u64)>,
    cursor: Cursor,
    /// The shape of the rows that were written.
    shape: Option<Arc<TableSchema>>,
}

/// Which position says how far a table is.
#[derive(Debug, Default, Clone, Copy)]
enum Cursor {
    #[default]
    None,
    Own(Position),
    Main,
}

impl MemoryDestination {
    /// Holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The table's rows, sorted; `None` where the table was never written.
    pub fn rows(&self, table: TableId) -> Option<Vec<TextRow>> {
        let content = self.content();
        let table = content.tables.get(&table)?;
        let keyed = table.keyed.values().filter_map(|(_, row)| row.clone());
        let mut rows: Vec<TextRow> = keyed.chain(table.keyless.iter().cloned()).collect();
        rows.sort();
        Some(rows)
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_of(row: &TableRow) -> EtlResult<TextRow> {
    row.schema().key.iter().map(|column| Ok(row.text(usize::from(*column))?.map(Into::into))).collect()
}

fn full(row: &TableRow) -> EtlResult<TextRow> {
    (0..row.schema().columns.len()).map(|column| Ok(row.text(column)?.map(Into::into))).collect()
}

impl Table {
    fn write(&mut self, change: &Change) -> EtlResult<()> {
        self.expect_shape(match &change.op {
            Op::Insert { new } | Op::Update { new, .. } => new.schema(),
            Op::Delete { old } => old.row().schema(),
        })?;
        match &change.op {
            Op::Insert { new } if new.schema().has_key() => self.put(key_of(new)?, full(new)?, change.position),
            Op::Insert { new } => self.keyless.push(full(new)?),
            Op::Update { old, new } if new.schema().has_key() => self.update(old.as_ref(), new, change.position)?,
            Op::Update { old: Some(OldRow::Full(old)), new } => {
                self.take_one(old)?;
                self.keyless.push(full(new)?);
            }
            Op::Delete { old } if old.row().schema().has_key() => self.remove(key_of(old.row())?, change.position),
            Op::Delete { old: OldRow::Full(old) } => self.take_one(old)?,
            Op::Update { .. } | Op::Delete { .. } => return Err(no_identity(change)),
        }
        Ok(())
    }

    /// Rows are kept as they came, so all of them must have one shape.
    fn expect_shape(&mut self, shape: &Arc<TableSchema>) -> EtlResult<()> {
        let known = self.shape.get_or_insert_with(|| Arc::clone(shape));
        if Arc::ptr_eq(known, shape) || changes(known, shape).is_empty() {
            return Ok(());
        }
        Err(EtlError::new(ErrorKind::DestinationUnsupported, "`memory` does not follow schema changes")
            .with("table", &shape.name)
            .hint("Copy the table again, or use another destination"))
    }

    fn put(&mut self, key: TextRow, row: TextRow, position: Position) {
        let known = self.keyed.entry(key).or_insert((Position::ZERO, None));
        if known.0 <= position {
            *known = (position, Some(row));
        }
    }

    fn remove(&mut self, key: TextRow, position: Position) {
        let known = self.keyed.entry(key).or_insert((Position::ZERO, None));
        if known.0 <= position {
            *known = (position, None);
        }
    }

    /// What was not sent is what the row before had; an older update never reads a newer row.
    fn update(&mut self, old: Option<&OldRow>, new: &TableRow, position: Position) -> EtlResult<()> {
        let key = key_of(new)?;
        let old_key = old.map(|old| key_of(old.row())).transpose()?.unwrap_or_else(|| key.clone());
        let before = self.keyed.get(&old_key).filter(|(at, _)| *at <= position).and_then(|(_, row)| row.clone());
        let mut row = TextRow::with_capacity(new.schema().columns.len());
        for column in 0..new.schema().columns.len() {
            row.push(match (new.raw(column), &before) {
                (RawValue::Unchanged, Some(before)) => before.get(column).cloned().flatten(),
                // The row is newer than this update, or was deleted later: there is nothing to do.
                (RawValue::Unchanged, None) => return Ok(()),
                _ => new.text(column)?.map(Into::into),
            });
        }
        if old_key != key {
            self.remove(old_key, position);
        }
        self.put(key, row, position);
        Ok(())
    }

    /// Removes exactly one row that equals the old image.
    fn take_one(&mut self, old: &TableRow) -> EtlResult<()> {
        let old = full(old)?;
        if let Some(place) = self.keyless.iter().position(|row| *row == old) {
            self.keyless.swap_remove(place);
        }
        Ok(())
    }

    fn truncate(&mut self, position: Position) {
        for (at, row) in self.keyed.values_mut().filter(|(at, _)| *at <= position) {
            (*at, *row) = (position, None);
        }
        self.keyless.clear();
    }
}

fn no_identity(change: &Change) -> EtlError {
    EtlError::new(ErrorKind::DestinationUnsupported, "an update or delete does not say which row it is about")
        .with("table", change.table_id)
        .hint("Give the table a primary key, or REPLICA IDENTITY FULL")
}

impl Content {
    fn events(&mut self, events: &[Event], after: Option<Position>) -> EtlResult<()> {
        let is_new = |position: Position| after.is_none_or(|after| position > after);
        for event in events {
            match event {
                Event::Change(change) if is_new(change.position) => {
                    self.tables.entry(change.table_id).or_default().write(change)?;
                }
                Event::Relation { new, position } if is_new(*position) => {
                    self.tables.entry(new.id).or_default().expect_shape(new)?;
                }
                Event::Truncate { tables, positions, .. } => {
                    for (table, position) in tables.iter().zip(positions).filter(|(_, position)| is_new(**position)) {
                        self.tables.entry(*table).or_default().truncate(*position);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn position(&self, cursor: CursorId) -> Option<Position> {
        match cursor {
            CursorId::Main => self.main,
            CursorId::Table(table) => match self.tables.get(&table)?.cursor {
                Cursor::None => None,
                Cursor::Own(position) => Some(position),
                Cursor::Main => self.main,
            },
        }
    }
}

impl Destination for MemoryDestination {
    async fn truncate_table(&self, table_id: TableId) -> EtlResult<()> {
        self.content().tables.remove(&table_id);
        Ok(())
    }

    async fn write_table_rows(&self, table_id: TableId, table_rows: Vec<TableRow>) -> EtlResult<()> {
        let chunk = CopyChunk { generation: 0, index: 0, position: Position::ZERO, read_at: crate::clock::now() };
        let mut content = self.content();
        content.tables.entry(table_id).or_default().copied(chunk, &table_rows)
    }

    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        self.content().events(&events, None)
    }

    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_atomic()
    }

    async fn write_copy_chunk(&self, table_id: TableId, chunk: CopyChunk, table_rows: Vec<TableRow>) -> EtlResult<()> {
        let mut content = self.content();
        let table = content.tables.entry(table_id).or_default();
        if !table.chunks.insert((chunk.generation, chunk.index)) {
            return Ok(());
        }
        table.copied(chunk, &table_rows)
    }

    async fn write_batch(&self, batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        let mut content = self.content();
        let stored = content.position(batch.cursor);
        content.events(&events, stored)?;
        let upto = batch.upto.max(stored.unwrap_or_default());
        match batch.cursor {
            CursorId::Main => content.main = Some(upto),
            CursorId::Table(table) => content.tables.entry(table).or_default().cursor = Cursor::Own(upto),
        }
        for (table, to) in batch.moves {
            let cursor = if to == CursorId::Main { Cursor::Main } else { Cursor::Own(upto) };
            content.tables.entry(table).or_default().cursor = cursor;
        }
        Ok(())
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        Ok(self.content().position(cursor))
    }
}

impl Table {
    fn copied(&mut self, chunk: CopyChunk, rows: &[TableRow]) -> EtlResult<()> {
        for row in rows {
            self.expect_shape(row.schema())?;
            if row.schema().has_key() {
                self.put(key_of(row)?, full(row)?, chunk.position);
            } else {
                self.keyless.push(full(row)?);
            }
        }
        Ok(())
    }
}
