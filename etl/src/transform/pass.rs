//! What becomes of a row on its way? Left out by a filter, and its values masked; the same in copies, changes, old rows and keys.

use std::sync::Arc;

use super::filter::Filter;
use super::mask::Mask;
use super::on_value::{Cast, Held, Limited, is_there};
use crate::data::decode::DecodeError;
use crate::data::{RawValue, RowBuffer, RowBuilder, TableRow};
use crate::error::EtlResult;
use crate::memory::Claim;
use crate::metrics::ValuePolicyCounter;
use crate::postgres::pgoutput::{NotedChange, NotedOld};
use crate::schema::TableSchema;

/// How rows change between the source and everything after it.
#[derive(Debug)]
pub(crate) struct Pass {
    /// The columns that are read, as the source has them.
    pub(super) read: Arc<TableSchema>,
    /// Those of the rows that are passed on.
    pub(super) columns: Box<[Passed]>,
    /// Those of them that are null where they were not sent, as many as `columns`.
    pub(super) unsent: Box<[Option<ValuePolicyCounter>]>,
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
    /// This one with another type.
    Cast(usize, Cast),
    /// This one, where the destination can hold it.
    Limited(usize, Limited),
    /// The same text in every row.
    Constant(Box<str>),
}

impl Passed {
    /// The column that it comes from.
    fn place(&self) -> Option<usize> {
        match self {
            Self::As(place) | Self::Masked(place, _) | Self::Cast(place, _) | Self::Limited(place, _) => Some(*place),
            Self::Constant(_) => None,
        }
    }

    /// The value that something is made of, where there is one.
    fn made_of<'r>(
        &self,
        value: &impl Fn(usize) -> (RawValue<'r>, Option<&'r TableRow>),
    ) -> Option<(usize, &'r TableRow)> {
        if matches!(self, Self::As(_)) {
            return None;
        }
        let place = self.place()?;
        let (raw, row) = value(place);
        row.filter(|_| is_there(raw)).map(|row| (place, row))
    }

    fn make(&self, row: &TableRow, place: usize) -> EtlResult<Held> {
        Ok(match self {
            Self::Masked(_, mask) => {
                mask.apply(row.text(place)?.as_deref().unwrap_or_default()).map_or(Held::Null, Held::Text)
            }
            Self::Cast(_, cast) => cast.apply(row, place)?,
            Self::Limited(_, limited) => limited.apply(row, place),
            Self::As(_) | Self::Constant(_) => Held::Same,
        })
    }
}

/// What is known of a row before its change.
enum Before {
    Passed,
    LeftOut,
    Unknown,
}

impl Pass {
    /// Whether the values of the column at this place are those that are read.
    pub(super) fn passes_as_it_is(&self, place: usize) -> bool {
        matches!(self.columns.get(place), Some(Passed::As(_)))
    }

    /// Whether a column of the key is masked, or has another type.
    pub(super) fn masks_key(&self) -> bool {
        let is_in_key = |place: usize| self.read.key.iter().any(|key| usize::from(*key) == place);
        self.columns.iter().any(|passed| match passed {
            Passed::Masked(place, _) | Passed::Cast(place, _) => is_in_key(*place),
            Passed::As(_) | Passed::Limited(..) | Passed::Constant(_) => false,
        })
    }

    /// Says the same of equal passes only, and nothing of a salt; nothing of one that leaves what fits as it is.
    pub(super) fn print(&self) -> Option<String> {
        let is_plain = |passed: &Passed| matches!(passed, Passed::As(_) | Passed::Limited(..));
        if self.says.is_none() && self.columns.iter().all(is_plain) {
            return None;
        }
        let columns = self.columns.iter().map(|passed| match passed {
            Passed::As(_) | Passed::Limited(..) => "as".to_owned(),
            Passed::Masked(_, mask) => mask.print(),
            Passed::Cast(_, cast) => format!("as {}", cast.to.name()),
            Passed::Constant(text) => format!("constant {text:?}"),
        });
        Some(format!("{} where {:?}", columns.collect::<Vec<_>>().join(", "), self.says))
    }

    /// Rows of a copy, of which some may be left out; what they take is counted.
    pub(crate) fn rows(
        &self,
        schema: &Arc<TableSchema>,
        rows: &[TableRow],
        count: impl FnOnce(usize) -> Option<Claim>,
    ) -> EtlResult<Vec<TableRow>> {
        let mut builder = RowBuilder::new();
        for row in rows {
            if self.is_passed(row)? {
                self.push(schema, row, &mut builder)?;
            }
        }
        Ok(builder.finish_counted(count))
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
        // What is made of values has to be somewhere until the row is put together.
        let mut made: Vec<Held> = Vec::new();
        for passed in &self.columns {
            if let Some((place, row)) = passed.made_of(&value) {
                made.push(passed.make(row, place)?);
            }
        }
        let mut made = made.iter();
        let mut raw = Vec::with_capacity(self.columns.len());
        for (passed, unsent) in self.columns.iter().zip(&self.unsent) {
            let as_is = |place: usize| match (value(place).0, unsent) {
                (RawValue::Unchanged, Some(counter)) => {
                    counter.used();
                    RawValue::Null
                }
                (raw, _) => raw,
            };
            raw.push(match (passed, passed.made_of(&value).and_then(|_| made.next())) {
                (Passed::Constant(text), _) => RawValue::Text(text.as_bytes()),
                (_, Some(Held::Text(text))) => RawValue::Text(text.as_bytes()),
                (_, Some(Held::Null)) => RawValue::Null,
                (passed, Some(Held::Same) | None) => passed.place().map_or(RawValue::Null, as_is),
            });
        }
        builder.push_raw(schema, raw.into_iter())
    }
}

#[cfg(test)]
mod tests;
