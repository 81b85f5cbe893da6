//! Which steps do events become? Grouped by table, folded by key, cut where a table's shape or content changes.

use std::collections::HashMap;
use std::sync::Arc;

use etl::Position;
use etl::data::{Change, Event, Op, RawValue, RowBuilder, TableRow};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{Column, SchemaChange, TableId, TableSchema, changes};

use crate::change_set::ChangeSet;
use crate::metadata_columns::ChangeType;
use crate::target_tables::TargetTables;
use crate::write_mode::{OnSchemaChange, WriteMode};
use crate::writer::{StampedRow, Step, TableBatch, TargetTable, Truncated};

#[cfg(test)]
mod tests;

/// What to do, and what the tables look like once it is done.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) steps: Vec<Step>,
    pub(crate) tables: Vec<Arc<TargetTable>>,
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
    let mut planner = Planner { tables, open: Vec::new(), places: HashMap::new(), steps: Vec::new() };
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

struct Planner<'a> {
    tables: &'a TargetTables,
    open: Vec<Open>,
    places: HashMap<TableId, usize>,
    steps: Vec<Step>,
}

/// A table that changes are gathered for.
struct Open {
    table: Arc<TargetTable>,
    /// The last schema found equal to the table's.
    same: Arc<TableSchema>,
    set: ChangeSet,
}

impl Open {
    /// Closes what was gathered.
    fn flush(&mut self, steps: &mut Vec<Step>) {
        let set = std::mem::replace(&mut self.set, ChangeSet::new(&self.table));
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
        if !open.set.add(change)? {
            open.flush(&mut self.steps);
            // A new set takes any change.
            open.set.add(change)?;
        }
        Ok(())
    }

    /// The place of the table, in the shape of the schema.
    fn open(&mut self, schema: &Arc<TableSchema>) -> EtlResult<usize> {
        let place = match self.places.get(&schema.id) {
            Some(place) => *place,
            None => {
                let table = match self.tables.get(schema.id) {
                    Some(table) => Arc::clone(table),
                    None => {
                        let table = Arc::new(self.tables.make(schema));
                        self.steps.push(Step::Ensure(Arc::clone(&table)));
                        table
                    }
                };
                let (same, set) = (Arc::clone(&table.source), ChangeSet::new(&table));
                self.open.push(Open { table, same, set });
                self.places.insert(schema.id, self.open.len() - 1);
                self.open.len() - 1
            }
        };
        let open = &mut self.open[place];
        if !Arc::ptr_eq(&open.same, schema) {
            if *open.table.source != **schema {
                open.flush(&mut self.steps);
                let table = Arc::new(self.tables.reshape(&open.table, schema));
                if self.tables.rules().of(schema.source_name()).on_schema_change == OnSchemaChange::Stop {
                    refuse(&open.table, &table)?;
                }
                let alter = |change| Step::Alter(Arc::clone(&table), change);
                self.steps.extend(target_changes(&open.table, &table).into_iter().map(alter));
                open.set = ChangeSet::new(&table);
                open.table = table;
            }
            open.same = Arc::clone(schema);
        }
        Ok(place)
    }

    fn known(&mut self, id: TableId, schemas: &HashMap<TableId, Arc<TableSchema>>) -> EtlResult<Arc<TargetTable>> {
        if let Some(place) = self.places.get(&id) {
            return Ok(Arc::clone(&self.open[*place].table));
        }
        let schema = self.tables.get(id).map(|table| &table.source).or_else(|| schemas.get(&id));
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
        Planned { steps: self.steps, tables: self.open.into_iter().map(|open| open.table).collect() }
    }
}

fn row_of_nulls(schema: &Arc<TableSchema>) -> EtlResult<TableRow> {
    let mut builder = RowBuilder::new();
    let row = builder.push_raw(schema, (0..schema.columns.len()).map(|_| RawValue::Null))?;
    Ok(TableRow::new(builder.into_buffer(), row))
}

fn refuse(before: &TargetTable, after: &TargetTable) -> EtlResult<()> {
    match &target_changes(before, after)[..] {
        [] => Ok(()),
        changes => Err(EtlError::new(ErrorKind::SchemaChanged, "the table's shape changed at the source")
            .of_table(before.id)
            .with("table", &before.source.name)
            .with("changes", changes.len())
            .hint("`on_schema_change: apply` makes the same changes in the destination")),
    }
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
