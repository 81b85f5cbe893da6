//! What does a table keep in the destination when its shape at the source changes, by `widen` and by `ignore`?
//!
//! Decided from what the table has in the destination and from what the source has now, and nothing else. The names of
//! what it has never change, and nothing of it goes.

use std::sync::Arc;

use etl::data::{RawValue, RowBuilder, TableRow, converted};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{Column, TableSchema};

#[cfg(test)]
mod tests;

/// The `attnum` of a column that the source has no values for any more.
const RETIRED: i16 = i16::MIN;

/// What a table has once it has met a shape of the source.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The columns, under the source's names; the source's own schema where they are the same.
    pub(crate) shape: Arc<TableSchema>,
    /// What the rows that are there lack: values of columns whose values the source had elsewhere.
    pub(crate) moved: Vec<Moved>,
    /// What is not to be followed; with it, the shape is what a table that is copied anew gets.
    pub(crate) refused: Vec<String>,
}

/// A column whose values the rows that are there do not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Its place in the kept shape.
    pub(crate) to: usize,
    /// The place of the column that has them; without one, they are what older rows have at the source.
    pub(crate) from: Option<usize>,
}

/// Whether a column gets values from the source.
pub(crate) fn is_fed(column: &Column) -> bool {
    column.attnum != RETIRED
}

/// Whether the source's column is the one that feeds the kept one.
fn feeds(source: &Column, kept: &Column) -> bool {
    match kept.attnum {
        RETIRED => false,
        attnum if attnum > 0 => attnum == source.attnum,
        _ => kept.name == source.name,
    }
}

/// The table grows by what is new: `had` is what it has, `now` what the source has.
///
/// A renamed column is a new one; the old one stays, without values from then on. A column that comes to a name that the
/// table has goes on there.
pub(crate) fn widened(had: &TableSchema, now: &Arc<TableSchema>) -> Kept {
    let mut columns: Vec<Column> = had.columns.iter().map(retired).collect();
    let (mut moved, mut refused) = (Vec::new(), Vec::new());
    let mut homes = Vec::with_capacity(now.columns.len());
    for column in &now.columns {
        let from = had.columns.iter().position(|kept| feeds(column, kept));
        let home = had.columns.iter().position(|kept| kept.name == column.name);
        let Some(place) = home else {
            columns.push(column.clone());
            moved.extend(from.map(|from| Moved { to: columns.len() - 1, from: Some(from) }));
            homes.push(columns.len() - 1);
            continue;
        };
        if from != home {
            moved.push(Moved { to: place, from });
        }
        let wide = grown(&had.columns[place], column, &mut refused);
        columns[place] = Column { fill: column.fill.clone(), ..wide };
        homes.push(place);
    }
    let key: Box<[u16]> = now.key.iter().map(|place| at(homes[usize::from(*place)])).collect();
    if key != had.key {
        refused.push(another_key(had, now));
    }
    Kept { shape: same_or_kept(had, now, columns, key), moved, refused }
}

/// A column as wide as both.
fn grown(had: &Column, now: &Column, refused: &mut Vec<String>) -> Column {
    let takes_nulls = |column: &Column| Column { nullable: had.nullable || now.nullable, ..column.clone() };
    if now.holds(had) {
        return takes_nulls(now);
    }
    refused.push(format!(
        "the column {} is {} and was {}, which has values that {} does not hold",
        now.name, now.type_name, had.type_name, now.type_name
    ));
    let wider = if had.holds(now) { Column { attnum: now.attnum, ..had.clone() } } else { now.clone() };
    takes_nulls(&wider)
}

/// The table stays as it is. Only what rows are told apart by is added, where it is copied anew.
pub(crate) fn unchanged(had: &TableSchema, now: &Arc<TableSchema>) -> Kept {
    let mut homes = vec![None; now.columns.len()];
    let mut columns: Vec<Column> = had.columns.iter().map(retired).collect();
    for (place, kept) in had.columns.iter().enumerate() {
        if let Some(fed_by) = now.columns.iter().position(|column| feeds(column, kept)) {
            let Column { attnum, nullable, .. } = now.columns[fed_by];
            columns[place] = Column { attnum, nullable: nullable || kept.nullable, ..kept.clone() };
            homes[fed_by] = Some(place);
        }
    }
    let (mut refused, mut key) = (Vec::new(), Vec::with_capacity(now.key.len()));
    for place in &now.key {
        let column = &now.columns[usize::from(*place)];
        key.push(at(homes[usize::from(*place)].unwrap_or_else(|| {
            refused.push(format!("the key has the column {}, which the table does not have", column.name));
            columns.push(column.clone());
            columns.len() - 1
        })));
    }
    Kept { shape: same_or_kept(had, now, columns, key.into()), moved: Vec::new(), refused }
}

/// Rows of no kind can have more columns.
fn at(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}

fn retired(column: &Column) -> Column {
    Column { attnum: RETIRED, nullable: true, fill: None, ..column.clone() }
}

fn another_key(had: &TableSchema, now: &TableSchema) -> String {
    let names = |schema: &TableSchema| schema.key_columns().map(|c| &*c.name).collect::<Vec<_>>().join(", ");
    format!("the key is ({}) and was ({})", names(now), names(had))
}

/// The source's schema itself where the table has the same columns, so that rows go in as they are.
fn same_or_kept(had: &TableSchema, now: &Arc<TableSchema>, columns: Vec<Column>, key: Box<[u16]>) -> Arc<TableSchema> {
    let is_alike = |(kept, now): (&Column, &Column)| {
        let of = |column: &Column| (column.attnum, column.type_oid, column.modifier);
        of(kept) == of(now) && kept.name == now.name && kept.kind == now.kind
    };
    let is_same = columns.len() == now.columns.len() && columns.iter().zip(&now.columns).all(is_alike);
    if is_same && key == now.key && had.name == now.name {
        return Arc::clone(now);
    }
    let source_name = Some(now.source_name()).filter(|name| **name != had.name).cloned();
    let (name, columns) = (had.name.clone(), columns.into());
    Arc::new(TableSchema { name, source_name, columns, key, ..TableSchema::clone(now) })
}

/// How the source's rows become rows of the kept shape.
#[derive(Debug, Clone)]
pub(crate) struct Fit {
    shape: Arc<TableSchema>,
    /// Where each value comes from; nothing for a column that is null from now on.
    from: Box<[Option<usize>]>,
}

impl Fit {
    /// Nothing where rows are right as they are.
    pub(crate) fn new(now: &Arc<TableSchema>, shape: &Arc<TableSchema>) -> Option<Arc<Self>> {
        if Arc::ptr_eq(now, shape) || now == shape {
            return None;
        }
        let place = |kept: &Column| now.columns.iter().position(|column| feeds(column, kept));
        Some(Arc::new(Self { shape: Arc::clone(shape), from: shape.columns.iter().map(place).collect() }))
    }

    /// The rows in the kept shape, in their order.
    ///
    /// # Errors
    /// `Value`, for a value that the kept type does not hold.
    pub(crate) fn rows<'r>(&self, rows: impl Iterator<Item = &'r TableRow>) -> EtlResult<Vec<TableRow>> {
        let mut builder = RowBuilder::new();
        for row in rows {
            let values: Vec<Fitted<'_>> =
                (0..self.from.len()).map(|place| self.value(row, place)).collect::<EtlResult<_>>()?;
            builder.push_raw(&self.shape, values.iter().map(Fitted::raw))?;
        }
        Ok(builder.finish())
    }

    fn value<'r>(&self, row: &'r TableRow, place: usize) -> EtlResult<Fitted<'r>> {
        let Some(from) = self.from[place] else { return Ok(Fitted::Raw(RawValue::Null)) };
        let raw = row.raw(from);
        let (kept, source) = (&self.shape.columns[place], &row.schema().columns[from]);
        if kept.kind == source.kind || matches!(raw, RawValue::Null | RawValue::Unchanged) {
            return Ok(Fitted::Raw(raw));
        }
        let text = row.text(from)?.unwrap_or_default();
        match converted(&text, &source.kind, &kept.kind) {
            Some(text) => Ok(Fitted::Text(text)),
            None => Err(EtlError::new(ErrorKind::Value, "the column keeps its type, which does not hold the value")
                .of_table(self.shape.id)
                .with("table", self.shape.source_name())
                .with("column", &kept.name)
                .with("type", &source.type_name)
                .with("type in the destination", &kept.type_name)
                .hint("With `on_schema_change: apply` or `widen`, `etl tables resync` gives the column another type")),
        }
    }
}

/// A value, as it came or as the text of it.
enum Fitted<'r> {
    Raw(RawValue<'r>),
    Text(String),
}

impl Fitted<'_> {
    fn raw(&self) -> RawValue<'_> {
        match self {
            Self::Raw(raw) => *raw,
            Self::Text(text) => RawValue::Text(text.as_bytes()),
        }
    }
}
