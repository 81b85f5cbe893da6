//! Which steps do events become? Grouped by table, folded by key, cut where a table's shape or content changes.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use etl::Position;
use etl::data::{Change, Event, OldRow, Op, RawValue, RowBuilder, TableRow};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{Column, SchemaChange, TableId, TableSchema, changes};
use foldhash::fast::RandomState;

use crate::change_set::ChangeSet;
use crate::kept_shape::{Fit, Moved};
use crate::metadata_columns::ChangeType;
use crate::target_tables::{Current, TargetTables};
use crate::write_mode::{OnSchemaChange, WriteMode};
use crate::writer::{FilledColumn, StampedRow, Step, TableBatch, TargetTable, Truncated};

#[cfg(test)]
mod tests;

/// What to do, and what the tables look like once it is done.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) steps: Vec<Step>,
    pub(crate) tables: Vec<Current>,
}

/// Turns events into steps. What is not beyond `stored` is left out.
///
/// `schemas` holds the schemas of truncated and changed tables that were not met before.
pub(crate) fn plan(
    events: &[Event],
    stored: Option<Position>,
    tables: &TargetTables,
    schemas: &HashMap<TableId, Arc<TableSchema>>,
) -> EtlResult<Planned> {
    let mut planner = Planner {
        tables,
        open: Vec::new(),
        places: HashMap::default(),
        last: 0,
        changes: changes_of(events),
        steps: Vec::new(),
    };
    let is_new = |position: Position| stored.is_none_or(|stored| position > stored);
    for event in events {
        match event {
            Event::Change(change) if is_new(change.position) => planner.change(change)?,
            Event::Relation { new, position } if is_new(*position) => {
                if let Some(before) = schemas.get(&new.id).filter(|_| !planner.places.contains_key(&new.id)) {
                    planner.open(before)?;
                }
                planner.open(new)?;
            }
            Event::Truncate { tables, positions, at } => {
                let mut truncated = Vec::new();
                for (id, position) in tables.iter().zip(positions).filter(|(_, position)| is_new(**position)) {
                    let table = planner.known(*id, schemas)?;
                    truncated.push(Truncated { table, position: *position, at: *at });
                }
                planner.truncate(truncated)?;
            }
            _ => {}
        }
    }
    Ok(planner.finish())
}

/// How many changes there are of each table.
fn changes_of(events: &[Event]) -> HashMap<TableId, usize, RandomState> {
    let mut changes = HashMap::default();
    let table = |event: &Event| match event {
        Event::Change(change) => Some(change.table_id),
        _ => None,
    };
    for run in events.chunk_by(|a, b| table(a) == table(b)) {
        if let Some(table) = run.first().and_then(table) {
            *changes.entry(table).or_default() += run.len();
        }
    }
    changes
}

struct Planner<'a> {
    tables: &'a TargetTables,
    open: Vec<Open>,
    places: HashMap<TableId, usize, RandomState>,
    /// The place of the table that was met last.
    last: usize,
    /// How many changes each table has.
    changes: HashMap<TableId, usize, RandomState>,
    steps: Vec<Step>,
}

/// A table that changes are gathered for.
struct Open {
    table: Arc<TargetTable>,
    /// The last shape of the source that the table has met.
    seen: Arc<TableSchema>,
    /// How its rows become rows of the table, where they are not.
    fit: Option<Arc<Fit>>,
    set: ChangeSet,
    folds: bool,
}

impl Open {
    fn new(Current { table, seen, fit }: Current, folds: bool) -> Self {
        Self { set: ChangeSet::folding(&table, folds), table, seen, fit, folds }
    }

    /// Closes what was gathered.
    fn flush(&mut self, steps: &mut Vec<Step>) {
        let set = std::mem::replace(&mut self.set, ChangeSet::folding(&self.table, self.folds));
        if let Some(rows) = set.finish() {
            steps.push(Step::Write(TableBatch { table: Arc::clone(&self.table), rows }));
        }
    }
}

impl Planner<'_> {
    fn change(&mut self, change: &Change) -> EtlResult<()> {
        let schema = Arc::clone(match &change.op {
            Op::Insert { new } | Op::Update { new, .. } => new.schema(),
            Op::Delete { old } => old.row().schema(),
        });
        let place = self.open(&schema)?;
        let open = &mut self.open[place];
        let fitted = open.fit.as_ref().map(|fit| fitted(fit, change)).transpose()?;
        let change = fitted.as_ref().unwrap_or(change);
        if !open.set.add(change)? {
            open.flush(&mut self.steps);
            // A new set takes any change.
            open.set.add(change)?;
        }
        Ok(())
    }

    /// The place of the table, in the shape of the schema.
    fn open(&mut self, schema: &Arc<TableSchema>) -> EtlResult<usize> {
        // Most changes are of the table of the one before.
        if self.open.get(self.last).is_some_and(|open| Arc::ptr_eq(&open.seen, schema)) {
            return Ok(self.last);
        }
        let place = match self.places.get(&schema.id) {
            Some(place) => *place,
            None => {
                let current = match self.tables.get(schema.id) {
                    Some(current) => current.clone(),
                    None => {
                        let current = self.tables.met_before(schema);
                        self.steps.push(Step::Ensure(Arc::clone(&current.table)));
                        current
                    }
                };
                let mut open = Open::new(current, self.tables.folds);
                open.set.reserve(self.changes.get(&schema.id).copied().unwrap_or(0));
                self.open.push(open);
                self.places.insert(schema.id, self.open.len() - 1);
                self.open.len() - 1
            }
        };
        self.last = place;
        let open = &mut self.open[place];
        if !Arc::ptr_eq(&open.seen, schema) {
            if *open.seen == **schema {
                open.seen = Arc::clone(schema);
            } else {
                open.flush(&mut self.steps);
                *open = Open::new(change_shape(self.tables, &open.table, schema, &mut self.steps)?, self.tables.folds);
            }
        }
        Ok(place)
    }

    fn known(&mut self, id: TableId, schemas: &HashMap<TableId, Arc<TableSchema>>) -> EtlResult<Arc<TargetTable>> {
        if let Some(place) = self.places.get(&id) {
            return Ok(Arc::clone(&self.open[*place].table));
        }
        let schema = self.tables.get(id).map(|current| &current.seen).or_else(|| schemas.get(&id));
        let schema = schema.ok_or_else(|| {
            EtlError::new(ErrorKind::Internal, "a table was truncated whose shape is not known").with("table", id)
        })?;
        let place = self.open(&Arc::clone(schema))?;
        Ok(Arc::clone(&self.open[place].table))
    }

    /// In the log a truncate is a row; elsewhere it ends what was gathered.
    fn truncate(&mut self, truncated: Vec<Truncated>) -> EtlResult<()> {
        let mut emptied = Vec::new();
        for truncated in truncated {
            let Some(open) = self.places.get(&truncated.table.id).map(|place| &mut self.open[*place]) else { continue };
            match &mut open.set {
                ChangeSet::Log(rows) => rows.push(StampedRow {
                    row: row_of_nulls(&open.table.source)?,
                    change_type: ChangeType::Truncate,
                    position: truncated.position,
                    at: truncated.at,
                }),
                _ => {
                    open.flush(&mut self.steps);
                    emptied.push(truncated);
                }
            }
        }
        if !emptied.is_empty() {
            self.steps.push(Step::Truncate(emptied));
        }
        Ok(())
    }

    fn finish(mut self) -> Planned {
        for open in &mut self.open {
            open.flush(&mut self.steps);
        }
        let current = |Open { table, seen, fit, .. }| Current { table, seen, fit };
        Planned { steps: self.steps, tables: self.open.into_iter().map(current).collect() }
    }
}

/// The change as one of rows that the table has.
fn fitted(fit: &Fit, change: &Change) -> EtlResult<Change> {
    let one = |row: &TableRow| fit.rows(std::iter::once(row)).map(|mut rows| rows.remove(0));
    let old = |old: &OldRow| match old {
        OldRow::Key(row) => one(row).map(OldRow::Key),
        OldRow::Full(row) => one(row).map(OldRow::Full),
    };
    let op = match &change.op {
        Op::Insert { new } => Op::Insert { new: one(new)? },
        Op::Update { old: before, new } => Op::Update { old: before.as_ref().map(old).transpose()?, new: one(new)? },
        Op::Delete { old: before } => Op::Delete { old: old(before)? },
    };
    Ok(Change { op, ..change.clone() })
}

/// What the table becomes when its source has this shape, and the steps that lead there.
fn change_shape(
    tables: &TargetTables,
    before: &TargetTable,
    seen: &Arc<TableSchema>,
    steps: &mut Vec<Step>,
) -> EtlResult<Current> {
    let Some(kept) = tables.kept_with(Some(&before.source), seen) else {
        let after = tables.reshape(before, seen, seen);
        let changes = target_changes(before, &after.table);
        if tables.on_change(seen) == OnSchemaChange::Stop && !changes.is_empty() {
            return Err(refused(seen, OnSchemaChange::Stop, changes.iter()));
        }
        steps.extend(changes.into_iter().map(|change| Step::Alter(Arc::clone(&after.table), change)));
        return Ok(after);
    };
    if !kept.refused.is_empty() {
        return Err(refused(seen, tables.on_change(seen), kept.refused.iter()));
    }
    let after = tables.reshape(before, &kept.shape, seen);
    steps.extend(growth(before, &after.table).into_iter().map(|change| Step::Alter(Arc::clone(&after.table), change)));
    // The rows of a log are what they were.
    if !kept.moved.is_empty() && !after.table.is_log() {
        let name = |place: usize| after.table.columns[place].clone();
        let column = |moved: &Moved| FilledColumn {
            name: name(moved.to),
            column: after.table.source.columns[moved.to].clone(),
            from: moved.from.map(name),
        };
        steps.push(Step::Fill(Arc::clone(&after.table), kept.moved.iter().map(column).collect()));
    }
    Ok(after)
}

/// What a table that only grows has to get.
fn growth(before: &TargetTable, after: &TargetTable) -> Vec<SchemaChange> {
    let named = |(name, column): (&str, &Column)| Column { name: name.into(), ..column.clone() };
    let (old, new): (Vec<Column>, Vec<Column>) =
        (before.named_columns().map(named).collect(), after.named_columns().map(named).collect());
    let added = new.get(old.len()..).unwrap_or_default().to_vec();
    let retyped =
        old.into_iter().zip(new).filter(|(from, to)| (from.type_oid, from.modifier) != (to.type_oid, to.modifier));
    retyped
        .map(|(from, to)| SchemaChange::RetypeColumn { from, to })
        .chain(added.into_iter().map(SchemaChange::AddColumn))
        .collect()
}

fn row_of_nulls(schema: &Arc<TableSchema>) -> EtlResult<TableRow> {
    let mut builder = RowBuilder::new();
    let row = builder.push_raw(schema, (0..schema.columns.len()).map(|_| RawValue::Null))?;
    Ok(TableRow::new(builder.into_buffer(), row))
}

/// Why a table goes no further by itself.
pub(crate) fn refused(
    table: &TableSchema,
    policy: OnSchemaChange,
    changes: impl Iterator<Item = impl Display>,
) -> EtlError {
    let changes: Vec<String> = changes.map(|change| change.to_string()).collect();
    let name = table.source_name();
    let hint = match policy {
        OnSchemaChange::Widen => format!(
            "Change it back, or let `etl tables resync {name}` copy the table with a type and a key that fit; \
             `on_schema_change: apply` makes the same changes in the destination"
        ),
        _ => format!(
            "`etl tables release {name}` and `etl tables resync {name}` copy the table as it is now; \
             `on_schema_change: apply` makes the same changes in the destination"
        ),
    };
    EtlError::new(ErrorKind::SchemaChanged, "the table's shape changed at the source")
        .of_table(table.id)
        .with("table", name)
        .with("changes", changes.join("; "))
        .with("on_schema_change", policy.word())
        .hint(hint)
}

/// The changes of a table, by the names that the destination uses.
fn target_changes(before: &TargetTable, after: &TargetTable) -> Vec<SchemaChange> {
    let name_in = |table: &TargetTable, source: &str| {
        table.source.column_index(source).map(|place| table.columns[place].clone()).unwrap_or_else(|| source.into())
    };
    let column = |table: &TargetTable, column: Column| Column { name: name_in(table, &column.name), ..column };
    let names = |table: &TargetTable, names: Vec<Box<str>>| names.iter().map(|name| name_in(table, name)).collect();
    let (mut found, mut renames) = (Vec::new(), Vec::new());
    for change in changes(&before.source, &after.source) {
        match change {
            SchemaChange::RenameTable { .. } if before.name == after.name => {}
            SchemaChange::RenameTable { .. } => {
                found.push(SchemaChange::RenameTable { from: before.name.clone(), to: after.name.clone() });
            }
            SchemaChange::DropColumn(gone) => found.push(SchemaChange::DropColumn(column(before, gone))),
            SchemaChange::RenameColumn { from, to } => renames.push((name_in(before, &from), name_in(after, &to))),
            SchemaChange::RetypeColumn { from, to } => {
                found.push(SchemaChange::RetypeColumn { from: column(after, from), to: column(after, to) });
            }
            SchemaChange::SetNullable { column, nullable } => {
                found.push(SchemaChange::SetNullable { column: name_in(after, &column), nullable });
            }
            SchemaChange::AddColumn(new) => found.push(SchemaChange::AddColumn(column(after, new))),
            SchemaChange::ChangeKey { from, to } => {
                found.push(SchemaChange::ChangeKey { from: names(before, from), to: names(after, to) });
            }
            other => found.push(other),
        }
    }
    // After the columns that are gone, before anything that goes by the new names.
    let place = found
        .iter()
        .rposition(|change| matches!(change, SchemaChange::RenameTable { .. } | SchemaChange::DropColumn(_)));
    found.splice(place.map_or(0, |place| place + 1)..place.map_or(0, |place| place + 1), in_order(renames));
    found
}

/// Renames that do not meet: where a new name is still in use, columns go by way of another.
fn in_order(renames: Vec<(Box<str>, Box<str>)>) -> Vec<SchemaChange> {
    let renames: Vec<_> = renames.into_iter().filter(|(from, to)| from != to).collect();
    let rename = |from: &str, to: &str| SchemaChange::RenameColumn { from: from.into(), to: to.into() };
    let meet = renames.iter().any(|(_, to)| renames.iter().any(|(from, _)| from == to));
    if !meet {
        return renames.iter().map(|(from, to)| rename(from, to)).collect();
    }
    let between = |place: usize| format!("_etl_renamed_{place}");
    let first = renames.iter().enumerate().map(|(place, (from, _))| rename(from, &between(place)));
    let second = renames.iter().enumerate().map(|(place, (_, to))| rename(&between(place), to));
    first.chain(second).collect()
}

impl TargetTable {
    /// Whether a truncate of the source is a row of the table.
    pub fn is_log(&self) -> bool {
        self.write_mode == WriteMode::Append
    }
}
