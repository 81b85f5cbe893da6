//! What does one table of the reference hold? Rows by key, rows without one, or the log of all changes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::TextRow;
use crate::data::{Change, OldRow, Op, RawValue, TableRow};
use crate::destination::mode::{Mode, StampedText};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Position;
use crate::schema::TableSchema;

#[derive(Debug, Default)]
pub(super) struct Table {
    /// By key. A row that is gone leaves its position, so that nothing older brings it back.
    keyed: BTreeMap<TextRow, (Position, Option<StampedText>)>,
    /// The rows of a table without a key, and those of a log.
    rows: Vec<StampedText>,
    pub(super) chunks: HashSet<(u64, u64)>,
    pub(super) cursor: Cursor,
    /// The shape of the rows that were written.
    pub(super) shape: Option<Arc<TableSchema>>,
}

/// Which position says how far a table is.
#[derive(Debug, Default, Clone, Copy)]
pub(super) enum Cursor {
    #[default]
    None,
    Own(Position),
    Main,
}

/// What is done to a table, with all values read: nothing can fail once writing begins.
pub(super) enum Write {
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
    Add {
        row: TextRow,
        change_type: &'static str,
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
pub(super) enum Reshaped {
    WasAt(usize),
    Filled(Option<String>),
}

/// A value of an update.
pub(super) enum Sent {
    Value(Option<String>),
    Unchanged,
}

fn key_of(row: &TableRow) -> EtlResult<TextRow> {
    row.schema().key.iter().map(|column| Ok(row.text(usize::from(*column))?.map(Into::into))).collect()
}

fn full(row: &TableRow) -> EtlResult<TextRow> {
    (0..row.schema().columns.len()).map(|column| Ok(row.text(column)?.map(Into::into))).collect()
}

impl Write {
    /// What a change does to the current state.
    pub(super) fn of(change: &Change) -> EtlResult<Self> {
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

    /// The rows of a log that a change is; a row that moves is two (`SOURCE.md` R4).
    pub(super) fn logged(change: &Change) -> EtlResult<Vec<(Position, Self)>> {
        let add = |row: &TableRow, change_type| full(row).map(|row| Self::Add { row, change_type });
        if let Op::Update { old: Some(OldRow::Full(old)), new } = &change.op {
            let value = |column| match new.raw(column) {
                RawValue::Unchanged => old.text(column),
                _ => new.text(column),
            };
            let row = (0..new.schema().columns.len()).map(|column| Ok(value(column)?.map(Into::into)));
            let row = row.collect::<EtlResult<_>>()?;
            return Ok(vec![(change.position, Self::Add { row, change_type: "UPDATE" })]);
        }
        Ok(match &change.op {
            Op::Insert { new } => vec![(change.position, add(new, "INSERT")?)],
            Op::Delete { old } => vec![(change.position, add(old.row(), "DELETE")?)],
            Op::Update { old: Some(OldRow::Key(old)), new }
                if new.schema().has_key() && key_of(old)? != key_of(new)? =>
            {
                let next = Position::new(change.position.commit, change.position.ordinal + 1);
                vec![(change.position, add(old, "DELETE")?), (next, add(new, "UPDATE")?)]
            }
            Op::Update { new, .. } => vec![(change.position, add(new, "UPDATE")?)],
        })
    }

    /// A row that is new, or copied.
    pub(super) fn row(row: &TableRow) -> EtlResult<Self> {
        let values = full(row)?;
        Ok(if row.schema().has_key() {
            Self::Put { key: key_of(row)?, row: values }
        } else {
            Self::Add { row: values, change_type: "UPSERT" }
        })
    }

    /// A copied row of a log.
    pub(super) fn copied(row: &TableRow) -> EtlResult<Self> {
        Ok(Self::Add { row: full(row)?, change_type: "UPSERT" })
    }
}

fn no_identity(change: &Change) -> EtlError {
    EtlError::new(ErrorKind::DestinationUnsupported, "an update or delete does not say which row it is about")
        .of_table(change.table_id)
        .with("table", change.table_id)
        .hint("Give the table a primary key, or REPLICA IDENTITY FULL")
}

fn stamped(values: TextRow, change_type: &str, position: Position) -> StampedText {
    StampedText { position, change_type: change_type.to_owned(), values }
}

/// Says that the row is deleted, once.
fn mark(row: &mut StampedText, position: Position) {
    if !row.is_deleted() {
        (row.position, row.change_type) = (position, "DELETE".to_owned());
    }
}

impl Table {
    /// All rows, in no order that means anything.
    pub(super) fn rows(&self) -> impl Iterator<Item = &StampedText> {
        self.keyed.values().filter_map(|(_, row)| row.as_ref()).chain(&self.rows)
    }

    pub(super) fn write(&mut self, mode: Mode, write: Write, position: Position) {
        match write {
            Write::Put { key, row } => self.put(key, Some(stamped(row, "UPSERT", position)), position),
            Write::Update { from, key, sent } => self.update(from, key, sent, position),
            Write::Remove { key } if mode == Mode::SoftDelete => self.mark(key, position),
            Write::Remove { key } => self.put(key, None, position),
            Write::Add { row, change_type } => self.rows.push(stamped(row, change_type, position)),
            Write::TakeOne { old } => self.take_one(mode, &old, position),
            Write::Replace { old, new } => {
                self.take_one(Mode::Upsert, &old, position);
                self.rows.push(stamped(new, "UPSERT", position));
            }
            Write::Truncate => self.truncate(mode, position),
            Write::Reshape { columns } => self.reshape(&columns),
        }
    }

    fn put(&mut self, key: TextRow, row: Option<StampedText>, position: Position) {
        let known = self.keyed.entry(key).or_default();
        if known.0 <= position {
            *known = (position, row);
        }
    }

    fn mark(&mut self, key: TextRow, position: Position) {
        let (at, row) = self.keyed.entry(key).or_default();
        if *at <= position {
            *at = position;
            row.iter_mut().for_each(|row| mark(row, position));
        }
    }

    /// What was not sent is what the row before had; an older update never reads a newer row.
    fn update(&mut self, from: TextRow, key: TextRow, sent: Vec<Sent>, position: Position) {
        let before = self.keyed.get(&from).filter(|(at, _)| *at <= position).and_then(|(_, row)| row.clone());
        let mut row = TextRow::with_capacity(sent.len());
        for (column, sent) in sent.into_iter().enumerate() {
            row.push(match (sent, &before) {
                (Sent::Value(value), _) => value,
                (Sent::Unchanged, Some(before)) => before.values.get(column).cloned().flatten(),
                // The row is newer than this update, or was deleted later: there is nothing to do.
                (Sent::Unchanged, None) => return,
            });
        }
        if from != key {
            self.put(from, None, position);
        }
        self.put(key, Some(stamped(row, "UPSERT", position)), position);
    }

    /// Removes, or marks, exactly one row that equals the old image.
    fn take_one(&mut self, mode: Mode, old: &TextRow, position: Position) {
        let is_it = |row: &StampedText| row.values == *old && !row.is_deleted();
        match self.rows.iter().position(is_it) {
            Some(place) if mode == Mode::SoftDelete => mark(&mut self.rows[place], position),
            Some(place) => drop(self.rows.swap_remove(place)),
            None => {}
        }
    }

    fn truncate(&mut self, mode: Mode, position: Position) {
        for (at, row) in self.keyed.values_mut().filter(|(at, _)| *at <= position) {
            *at = position;
            match row {
                Some(row) if mode == Mode::SoftDelete => mark(row, position),
                row => *row = None,
            }
        }
        if mode == Mode::SoftDelete {
            self.rows.iter_mut().for_each(|row| mark(row, position));
        } else {
            self.rows.clear();
        }
    }

    fn reshape(&mut self, columns: &[Reshaped]) {
        let rows = self.keyed.values_mut().filter_map(|(_, row)| row.as_mut()).chain(&mut self.rows);
        for row in rows {
            let value = |column: &Reshaped| match column {
                Reshaped::WasAt(place) => row.values.get(*place).cloned().flatten(),
                Reshaped::Filled(value) => value.clone(),
            };
            row.values = columns.iter().map(value).collect();
        }
    }
}
