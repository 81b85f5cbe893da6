//! What becomes of a row on its way? Left out by a filter, and its values masked; the same in copies, changes, old rows and keys.

use std::sync::Arc;

use super::filter::Filter;
use super::mask::Mask;
use crate::data::decode::DecodeError;
use crate::data::{RawValue, RowBuffer, RowBuilder, TableRow};
use crate::error::EtlResult;
use crate::postgres::pgoutput::{NotedChange, NotedOld};
use crate::schema::TableSchema;

/// How rows change between the source and everything after it.
#[derive(Debug)]
pub(crate) struct Pass {
    /// The columns that are read, as the source has them.
    pub(super) read: Arc<TableSchema>,
    /// Those of the rows that are passed on.
    pub(super) columns: Box<[Passed]>,
    pub(super) filter: Option<Filter>,
    /// The filter's text.
    pub(super) says: Option<Box<str>>,
}

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Passed {
    /// This column as it is.
    As(usize),
    /// This one, masked.
    Masked(usize, Mask),
    /// The same text in every row.
    Constant(Box<str>),
}

/// What is known of a row before its change.
enum Before {
    Passed,
    LeftOut,
    Unknown,
}

impl Pass {
    /// Whether a column of the key is masked.
    pub(super) fn masks_key(&self) -> bool {
        let is_in_key = |place: usize| self.read.key.iter().any(|key| usize::from(*key) == place);
        self.columns.iter().any(|passed| matches!(passed, Passed::Masked(place, _) if is_in_key(*place)))
    }

    /// Says the same of equal passes only, and nothing of a salt.
    pub(super) fn print(&self) -> String {
        let columns = self.columns.iter().map(|passed| match passed {
            Passed::As(_) => "as".to_owned(),
            Passed::Masked(_, mask) => mask.print(),
            Passed::Constant(text) => format!("constant {text:?}"),
        });
        format!("{} where {:?}", columns.collect::<Vec<_>>().join(", "), self.says)
    }

    /// Rows of a copy, of which some may be left out.
    pub(crate) fn rows(&self, schema: &Arc<TableSchema>, rows: &[TableRow]) -> EtlResult<Vec<TableRow>> {
        let mut builder = RowBuilder::new();
        for row in rows {
            if self.is_passed(row)? {
                self.push(schema, row, &mut builder)?;
            }
        }
        Ok(builder.finish())
    }

    /// A change whose rows are in the buffer, as it is passed on, its rows in the builder; nothing where it concerns
    /// no row that is.
    pub(crate) fn change(
        &self,
        schema: &Arc<TableSchema>,
        noted: NotedChange,
        buffer: &Arc<RowBuffer>,
        builder: &mut RowBuilder,
    ) -> EtlResult<Option<NotedChange>> {
        let row = |index: u32| TableRow::new(Arc::clone(buffer), index);
        let old_row = |old: NotedOld, builder: &mut RowBuilder| {
            Ok::<_, crate::error::EtlError>(match old {
                NotedOld::Key(old) => NotedOld::Key(self.push(schema, &row(old), builder)?),
                NotedOld::Full(old) => NotedOld::Full(self.push(schema, &row(old), builder)?),
            })
        };
        Ok(match noted {
            NotedChange::Insert { new } => match self.is_passed(&row(new))? {
                true => Some(NotedChange::Insert { new: self.push(schema, &row(new), builder)? }),
                false => None,
            },
            NotedChange::Delete { old } => match self.before(Some(&old), row)? {
                Before::LeftOut => None,
                Before::Passed | Before::Unknown => Some(NotedChange::Delete { old: old_row(old, builder)? }),
            },
            NotedChange::Update { old, new } => {
                let after = row(new);
                let is_passed = self.is_passed(&after)?;
                let before = match &old {
                    // The key is as it was, and with it all that is looked at.
                    None if self.filters_by_key() => {
                        if is_passed {
                            Before::Passed
                        } else {
                            Before::LeftOut
                        }
                    }
                    old => self.before(old.as_ref(), row)?,
                };
                match (before, is_passed) {
                    (Before::LeftOut, false) => None,
                    (Before::LeftOut, true) => {
                        Some(NotedChange::Insert { new: self.push_whole(schema, &after, builder)? })
                    }
                    (Before::Passed | Before::Unknown, false) => {
                        let old = match old {
                            Some(old) => old_row(old, builder)?,
                            None => NotedOld::Key(self.push_key(schema, &after, builder)?),
                        };
                        Some(NotedChange::Delete { old })
                    }
                    (before, true) => {
                        let old = old.map(|old| old_row(old, builder)).transpose()?;
                        // It may be new where it goes: all of it is needed.
                        let new = match before {
                            Before::Unknown => self.push_whole(schema, &after, builder)?,
                            _ => self.push(schema, &after, builder)?,
                        };
                        Some(NotedChange::Update { old, new })
                    }
                }
            }
        })
    }

    fn is_passed(&self, row: &TableRow) -> EtlResult<bool> {
        let Some(filter) = &self.filter else { return Ok(true) };
        let passes = filter.passes(&self.read, |place| row.raw(place));
        passes.map_err(|(place, error)| self.read.value_error(place, error))
    }

    /// Whether the filter looks at nothing but the key.
    fn filters_by_key(&self) -> bool {
        let is_in_key = |place: &usize| self.read.key.iter().any(|key| usize::from(*key) == *place);
        self.filter.as_ref().is_none_or(|filter| filter.places.iter().all(is_in_key))
    }

    /// Whether the row was passed on as it was before its change.
    fn before(&self, old: Option<&NotedOld>, row: impl Fn(u32) -> TableRow) -> EtlResult<Before> {
        let known = match old {
            _ if self.filter.is_none() => return Ok(Before::Passed),
            Some(NotedOld::Full(old)) => Some(*old),
            Some(NotedOld::Key(old)) if self.filters_by_key() => Some(*old),
            Some(NotedOld::Key(_)) | None => None,
        };
        Ok(match known.map(|old| self.is_passed(&row(old))).transpose()? {
            Some(true) => Before::Passed,
            Some(false) => Before::LeftOut,
            None => Before::Unknown,
        })
    }

    /// The same, where all values must be there.
    fn push_whole(&self, schema: &Arc<TableSchema>, row: &TableRow, builder: &mut RowBuilder) -> EtlResult<u32> {
        let missing = (0..self.read.columns.len()).find(|place| row.raw(*place) == RawValue::Unchanged);
        if let Some(place) = missing {
            return Err(self.read.value_error(place, DecodeError::Unchanged));
        }
        self.push(schema, row, builder)
    }

    /// The key of a row, and nothing else of it.
    fn push_key(&self, schema: &Arc<TableSchema>, row: &TableRow, builder: &mut RowBuilder) -> EtlResult<u32> {
        let is_in_key = |place: usize| self.read.key.iter().any(|key| usize::from(*key) == place);
        self.put(
            schema,
            builder,
            |place| if is_in_key(place) { (row.raw(place), Some(row)) } else { (RawValue::Null, None) },
        )
    }

    fn push(&self, schema: &Arc<TableSchema>, row: &TableRow, builder: &mut RowBuilder) -> EtlResult<u32> {
        self.put(schema, builder, |place| (row.raw(place), Some(row)))
    }

    fn put<'r>(
        &self,
        schema: &Arc<TableSchema>,
        builder: &mut RowBuilder,
        value: impl Fn(usize) -> (RawValue<'r>, Option<&'r TableRow>),
    ) -> EtlResult<u32> {
        // What a mask makes has to be somewhere until the row is put together.
        let mut made: Vec<Option<String>> = Vec::new();
        for passed in &self.columns {
            if let Passed::Masked(place, mask) = passed
                && let (RawValue::Text(_) | RawValue::Binary(_), Some(row)) = value(*place)
            {
                made.push(mask.apply(row.text(*place)?.as_deref().unwrap_or_default()));
            }
        }
        let mut made = made.iter();
        let mut raw = Vec::with_capacity(self.columns.len());
        for passed in &self.columns {
            raw.push(match passed {
                Passed::As(place) => value(*place).0,
                Passed::Constant(text) => RawValue::Text(text.as_bytes()),
                Passed::Masked(place, _) => match value(*place).0 {
                    RawValue::Text(_) | RawValue::Binary(_) => match made.next() {
                        Some(Some(text)) => RawValue::Text(text.as_bytes()),
                        _ => RawValue::Null,
                    },
                    other => other,
                },
            });
        }
        builder.push_raw(schema, raw.into_iter())
    }
}

#[cfg(test)]
mod tests;
