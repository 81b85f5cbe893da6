//! What does a destination promise? The reference, in memory: current state or log, exactly once.

mod table;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use table::{Cursor, Reshaped, Table, Write};

use super::mode::{Mode, StampedText};
use super::{Batch, Capabilities, CopyChunk, Destination, StagedRun};
use crate::data::{CopiedRows, Event, Op, TableRow};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Position;
use crate::schema::{Column, SchemaChange, TableId, TableSchema, changes};
use crate::store::CursorId;

/// The values of a row, as Postgres writes them; `None` is null.
pub type TextRow = Vec<Option<String>>;

/// Keeps the current state of every table, or the log of its changes. Clones are the same one.
///
/// Like a database with transactions it stores positions with the data, so that a batch or a chunk that comes
/// again changes nothing.
#[derive(Debug, Clone, Default)]
pub struct MemoryDestination(Arc<Mutex<Content>>);

#[derive(Debug)]
struct Content {
    mode: Mode,
    tables: HashMap<TableId, Table>,
    main: Option<Position>,
    /// What a run has copied that is not shown.
    staged: Option<(Box<str>, HashMap<TableId, Table>)>,
    /// The run that was shown last.
    shown: Option<Box<str>>,
}

impl Default for Content {
    fn default() -> Self {
        Self { mode: Mode::Upsert, tables: HashMap::new(), main: None, staged: None, shown: None }
    }
}

impl MemoryDestination {
    /// Holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says how all tables are written. What is there stays as it is.
    #[must_use]
    pub fn in_mode(self, mode: Mode) -> Self {
        self.content().mode = mode;
        self
    }

    /// The table's rows, sorted; `None` where the table was never written.
    pub fn rows(&self, table: TableId) -> Option<Vec<TextRow>> {
        let mut rows: Vec<TextRow> = self.stamped_rows(table)?.into_iter().map(|row| row.values).collect();
        rows.sort();
        Some(rows)
    }

    /// The table's rows with what metadata columns would say, in the order of their positions; `None` where the table was
    /// never written.
    pub fn stamped_rows(&self, table: TableId) -> Option<Vec<StampedText>> {
        let mut rows: Vec<StampedText> = self.content().tables.get(&table)?.rows().cloned().collect();
        rows.sort();
        Some(rows)
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    /// In the log a truncate is a row of nulls.
    fn truncate(&self, content: &Content, table: TableId) -> Write {
        if content.mode != Mode::Append {
            return Write::Truncate;
        }
        let known = self.shapes.get(&table).or_else(|| content.tables.get(&table)?.shape.as_ref());
        let columns = known.map_or(0, |shape| shape.columns.len());
        Write::Add { row: vec![None; columns], change_type: "TRUNCATE" }
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
                    if content.mode == Mode::Append {
                        let rows = Write::logged(change)?;
                        plan.writes.extend(rows.into_iter().map(|(position, row)| (change.table_id, position, row)));
                    } else {
                        plan.writes.push((change.table_id, change.position, Write::of(change)?));
                    }
                }
                Event::Relation { new, position } if is_new(*position) => plan.expect_shape(content, new)?,
                Event::Truncate { tables, positions, .. } => {
                    let new = tables.iter().zip(positions).filter(|(_, position)| is_new(**position));
                    for (table, position) in new {
                        let write = plan.truncate(content, *table);
                        plan.writes.push((*table, *position, write));
                    }
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
            let write = if content.mode == Mode::Append { Write::copied(row)? } else { Write::row(row)? };
            plan.writes.push((table, position, write));
        }
        Ok(plan)
    }
}

impl Content {
    /// Copies rows into what is staged, if anything is, else into the tables themselves.
    fn copy(&mut self, copy: impl FnOnce(&mut Self) -> EtlResult<()>) -> EtlResult<()> {
        let Some((run, staged)) = self.staged.take() else { return copy(self) };
        let shown = std::mem::replace(&mut self.tables, staged);
        let copied = copy(self);
        self.staged = Some((run, std::mem::replace(&mut self.tables, shown)));
        copied
    }

    fn apply(&mut self, plan: Plan) {
        for (id, shape) in plan.shapes {
            self.tables.entry(id).or_default().shape = Some(shape);
        }
        for (table, position, write) in plan.writes {
            self.tables.entry(table).or_default().write(self.mode, write, position);
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
        self.content().copy(|content| {
            let plan = Plan::of_copy(content, table_id, Position::ZERO, &table_rows)?;
            content.tables.entry(table_id).or_default();
            content.apply(plan);
            Ok(())
        })
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
        Capabilities::default().with_atomic().with_schema_changes().with_staged_runs()
    }

    fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
        schema.has_key() && self.content().mode != Mode::Append
    }

    async fn write_copy_chunk(&self, table_id: TableId, chunk: CopyChunk, table_rows: CopiedRows) -> EtlResult<()> {
        self.content().copy(|content| {
            let plan = Plan::of_copy(content, table_id, chunk.position, &table_rows)?;
            if content.tables.entry(table_id).or_default().chunks.insert((chunk.generation, chunk.index)) {
                content.apply(plan);
            }
            Ok(())
        })
    }

    async fn begin_run(&self, run: StagedRun) -> EtlResult<()> {
        self.content().staged = Some((run.id, HashMap::new()));
        Ok(())
    }

    async fn finalize_run(&self, run: StagedRun) -> EtlResult<()> {
        let mut content = self.content();
        match content.staged.take_if(|(id, _)| *id == run.id) {
            Some((id, staged)) => {
                content.tables.extend(staged);
                content.shown = Some(id);
                Ok(())
            }
            None if content.shown.as_ref() == Some(&run.id) => Ok(()),
            None => Err(EtlError::new(ErrorKind::DestinationRejected, "what the run has staged is gone")
                .with("run", run.id)
                .hint("Run again")),
        }
    }

    async fn abandon_run(&self, run: StagedRun) -> EtlResult<()> {
        self.content().staged.take_if(|(id, _)| *id == run.id);
        Ok(())
    }

    async fn write_batch(&self, batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        let mut content = self.content();
        let stored = content.position(batch.cursor);
        if stored.is_some_and(|stored| stored >= batch.upto) && batch.moves.is_empty() {
            return Ok(());
        }
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
