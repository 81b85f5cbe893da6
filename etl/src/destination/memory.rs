//! What does a destination promise? The reference, in memory: current state, exactly once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Batch, Capabilities, CopyChunk, Destination};
use crate::data::{Change, Event, OldRow, Op, RawValue, TableRow};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Position;
use crate::schema::{Column, SchemaChange, TableId, TableSchema, changes};
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

/// What is done to a table, with all values read: nothing can fail once writing begins.
enum Write {
    Put {
        key: TextRow,
        row: TextRow,
    },
    Update {
        from: TextRow,
        key: TextRow,
        sent: Vec<Sent>,
    },
    Remove {
        key: TextRow,
    },
    Append {
        row: TextRow,
    },
    TakeOne {
        old: TextRow,
    },
    Replace {
        old: TextRow,
        new: TextRow,
    },
    Truncate,
    /// What the rows that are there have in each column.
    Reshape {
        columns: Vec<Reshaped>,
    },
}

/// What a column of a changed table has in rows that are there.
enum Reshaped {
    WasAt(usize),
    Filled(Option<String>),
}

/// A value of an update.
enum Sent {
    Value(Option<String>),
    Unchanged,
}

impl Write {
    fn of(change: &Change) -> EtlResult<Self> {
        Ok(match &change.op {
            Op::Insert { new } => Self::row(new)?,
            Op::Update { old, new } if new.schema().has_key() => {
                let key = key_of(new)?;
                let from = old.as_ref().map(|old| key_of(old.row())).transpose()?.unwrap_or_else(|| key.clone());
                let sent = |column| match new.raw(column) {
                    RawValue::Unchanged => Ok(Sent::Unchanged),
                    _ => Ok(Sent::Value(new.text(column)?.map(Into::into))),
                };
                let sent = (0..new.schema().columns.len()).map(sent).collect::<EtlResult<_>>()?;
                Self::Update { from, key, sent }
            }
            Op::Update { old: Some(OldRow::Full(old)), new } => Self::Replace { old: full(old)?, new: full(new)? },
            Op::Delete { old } if old.row().schema().has_key() => Self::Remove { key: key_of(old.row())? },
            Op::Delete { old: OldRow::Full(old) } => Self::TakeOne { old: full(old)? },
            Op::Update { .. } | Op::Delete { .. } => return Err(no_identity(change)),
        })
    }

    fn row(row: &TableRow) -> EtlResult<Self> {
        let values = full(row)?;
        Ok(if row.schema().has_key() {
            Self::Put { key: key_of(row)?, row: values }
        } else {
            Self::Append { row: values }
        })
    }
}

impl Table {
    fn write(&mut self, write: Write, position: Position) {
        match write {
            Write::Put { key, row } => self.put(key, row, position),
            Write::Update { from, key, sent } => self.update(from, key, sent, position),
            Write::Remove { key } => self.remove(key, position),
            Write::Append { row } => self.keyless.push(row),
            Write::TakeOne { old } => self.take_one(&old),
            Write::Replace { old, new } => {
                self.take_one(&old);
                self.keyless.push(new);
            }
            Write::Truncate => self.truncate(position),
            Write::Reshape { columns } => self.reshape(&columns),
        }
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
    fn update(&mut self, from: TextRow, key: TextRow, sent: Vec<Sent>, position: Position) {
        let before = self.keyed.get(&from).filter(|(at, _)| *at <= position).and_then(|(_, row)| row.clone());
        let mut row = TextRow::with_capacity(sent.len());
        for (column, sent) in sent.into_iter().enumerate() {
            row.push(match (sent, &before) {
                (Sent::Value(value), _) => value,
                (Sent::Unchanged, Some(before)) => before.get(column).cloned().flatten(),
                // The row is newer than this update, or was deleted later: there is nothing to do.
                (Sent::Unchanged, None) => return,
            });
        }
        if from != key {
            self.remove(from, position);
        }
        self.put(key, row, position);
    }

    /// Removes exactly one row that equals the old image.
    fn take_one(&mut self, old: &TextRow) {
        if let Some(place) = self.keyless.iter().position(|row| row == old) {
            self.keyless.swap_remove(place);
        }
    }

    fn reshape(&mut self, columns: &[Reshaped]) {
        let rows = self.keyed.values_mut().filter_map(|(_, row)| row.as_mut()).chain(&mut self.keyless);
        for row in rows {
            let value = |column: &Reshaped| match column {
                Reshaped::WasAt(place) => row.get(*place).cloned().flatten(),
                Reshaped::Filled(value) => value.clone(),
            };
            *row = columns.iter().map(value).collect();
        }
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
        .of_table(change.table_id)
        .with("table", change.table_id)
        .hint("Give the table a primary key, or REPLICA IDENTITY FULL")
}

/// What a batch or a chunk does, in order, and the shapes that its rows have.
#[derive(Default)]
struct Plan {
    writes: Vec<(TableId, Position, Write)>,
    shapes: HashMap<TableId, Arc<TableSchema>>,
}

impl Plan {
    /// Rows from here on have this shape, and those that are there get it. The key stays.
    fn expect_shape(&mut self, content: &Content, shape: &Arc<TableSchema>) -> EtlResult<()> {
        let known = self.shapes.entry(shape.id).or_insert_with(|| {
            let stored = content.tables.get(&shape.id).and_then(|table| table.shape.as_ref());
            Arc::clone(stored.unwrap_or(shape))
        });
        if Arc::ptr_eq(known, shape) {
            return Ok(());
        }
        let changes = changes(known, shape);
        if changes.iter().any(|change| matches!(change, SchemaChange::ChangeKey { .. })) {
            return Err(EtlError::new(ErrorKind::DestinationUnsupported, "`memory` does not follow a change of key")
                .of_table(shape.id)
                .with("table", &shape.name)
                .hint("Copy the table again, or use another destination"));
        }
        if !changes.is_empty() {
            let is_same = |a: &Column, b: &Column| if a.attnum > 0 { a.attnum == b.attnum } else { a.name == b.name };
            let reshaped = |column: &Column| match known.columns.iter().position(|before| is_same(before, column)) {
                Some(place) => Reshaped::WasAt(place),
                None => Reshaped::Filled(column.fill.as_deref().map(str::to_owned)),
            };
            let columns = shape.columns.iter().map(reshaped).collect();
            self.writes.push((shape.id, Position::ZERO, Write::Reshape { columns }));
        }
        *known = Arc::clone(shape);
        Ok(())
    }

    /// The events after the position.
    fn of_events(content: &Content, events: &[Event], after: Option<Position>) -> EtlResult<Self> {
        let is_new = |position: Position| after.is_none_or(|after| position > after);
        let mut plan = Self::default();
        for event in events {
            match event {
                Event::Change(change) if is_new(change.position) => {
                    plan.expect_shape(
                        content,
                        match &change.op {
                            Op::Insert { new } | Op::Update { new, .. } => new.schema(),
                            Op::Delete { old } => old.row().schema(),
                        },
                    )?;
                    plan.writes.push((change.table_id, change.position, Write::of(change)?));
                }
                Event::Relation { new, position } if is_new(*position) => plan.expect_shape(content, new)?,
                Event::Truncate { tables, positions, .. } => {
                    let new = tables.iter().zip(positions).filter(|(_, position)| is_new(**position));
                    plan.writes.extend(new.map(|(table, position)| (*table, *position, Write::Truncate)));
                }
                _ => {}
            }
        }
        Ok(plan)
    }

    fn of_copy(content: &Content, table: TableId, position: Position, rows: &[TableRow]) -> EtlResult<Self> {
        let mut plan = Self::default();
        for row in rows {
            plan.expect_shape(content, row.schema())?;
            plan.writes.push((table, position, Write::row(row)?));
        }
        Ok(plan)
    }
}

impl Content {
    fn apply(&mut self, plan: Plan) {
        for (id, shape) in plan.shapes {
            self.tables.entry(id).or_default().shape = Some(shape);
        }
        for (table, position, write) in plan.writes {
            self.tables.entry(table).or_default().write(write, position);
        }
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
        let mut content = self.content();
        let plan = Plan::of_copy(&content, table_id, Position::ZERO, &table_rows)?;
        content.tables.entry(table_id).or_default();
        content.apply(plan);
        Ok(())
    }

    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        let mut content = self.content();
        let plan = Plan::of_events(&content, &events, None)?;
        content.apply(plan);
        Ok(())
    }

    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_atomic().with_schema_changes()
    }

    fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
        schema.has_key()
    }

    async fn write_copy_chunk(&self, table_id: TableId, chunk: CopyChunk, table_rows: Vec<TableRow>) -> EtlResult<()> {
        let mut content = self.content();
        let plan = Plan::of_copy(&content, table_id, chunk.position, &table_rows)?;
        if content.tables.entry(table_id).or_default().chunks.insert((chunk.generation, chunk.index)) {
            content.apply(plan);
        }
        Ok(())
    }

    async fn write_batch(&self, batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        let mut content = self.content();
        let stored = content.position(batch.cursor);
        let plan = Plan::of_events(&content, &events, stored)?;
        content.apply(plan);
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

    async fn go_back(&self, to: Position) -> EtlResult<()> {
        let mut content = self.content();
        content.main = content.main.map(|main| main.min(to));
        for table in content.tables.values_mut() {
            if let Cursor::Own(position) = &mut table.cursor {
                *position = to.min(*position);
            }
        }
        Ok(())
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        Ok(self.content().position(cursor))
    }
}
