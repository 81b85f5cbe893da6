//! What becomes of a value that the destination cannot hold? An error, null, the nearest one, or text from the start.

use serde::{Deserialize, Serialize};

use super::column_type::ColumnType;
use crate::data::decode::{DecodeError, Decoded};
use crate::data::{RawValue, TableRow, converted, nearest_number};
use crate::destination::ValueLimits;
use crate::error::EtlResult;
use crate::metrics::ValuePolicyCounter;

/// What becomes of a value that the destination cannot hold exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnValue {
    /// The table stops; the error names table, column, type and value class.
    #[default]
    Error,
    /// It is null.
    Null,
    /// It is the nearest one that the destination can hold; an error where none is near.
    Clamp,
    /// The column is text there, whatever its type, if some of its values could not be held: nothing is lost.
    Text,
}

impl OnValue {
    /// As configs write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Null => "null",
            Self::Clamp => "clamp",
            Self::Text => "text",
        }
    }
}

/// A value once its policy was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Held {
    /// As it is.
    Same,
    /// This text.
    Text(String),
    /// Null.
    Null,
}

/// Whether an error says that a value, well understood, does not fit.
fn is_misfit(error: DecodeError) -> bool {
    use DecodeError::{ArrayShape, Infinite, NotANumber, OutOfRange, TooFine, TooManyDigits};
    matches!(error, ArrayShape | Infinite | NotANumber | OutOfRange | TooFine | TooManyDigits)
}

/// A column some of whose values the destination cannot hold.
#[derive(Debug, Clone)]
pub(super) struct Limited {
    pub(super) limits: ValueLimits,
    /// `null` or `clamp`.
    pub(super) policy: OnValue,
    pub(super) counter: ValuePolicyCounter,
}

impl Limited {
    /// The value as its policy has it. What no policy has an answer to goes on as it is: whoever cannot hold it says so.
    pub(super) fn apply(&self, row: &TableRow, place: usize) -> Held {
        let (kind, raw) = (&row.schema().columns[place].kind, row.raw(place));
        match self.limits.check(kind, raw) {
            Err(error) if is_misfit(error) => {}
            _ => return Held::Same,
        }
        let held = match self.policy {
            OnValue::Null => Held::Null,
            OnValue::Clamp => match self.limits.nearest(kind, raw) {
                Some(text) => Held::Text(text),
                None => return Held::Same,
            },
            OnValue::Error | OnValue::Text => return Held::Same,
        };
        self.counter.used();
        held
    }
}

/// A column that arrives with another type.
#[derive(Debug, Clone)]
pub(super) struct Cast {
    pub(super) to: ColumnType,
    pub(super) limits: ValueLimits,
    pub(super) policy: OnValue,
    pub(super) counter: ValuePolicyCounter,
}

impl Cast {
    pub(super) fn apply(&self, row: &TableRow, place: usize) -> EtlResult<Held> {
        let text = row.text(place)?.unwrap_or_default();
        let schema = row.schema();
        self.of(&text, row, place).map_err(|error| schema.value_error(place, error))
    }

    fn of(&self, text: &str, row: &TableRow, place: usize) -> Decoded<Held> {
        let (from, to) = (&row.schema().columns[place].kind, &self.to.kind);
        let text = converted(text, from, to).ok_or_else(|| nearest_number(text, to));
        let misfit = match &text {
            Ok(text) => match self.limits.check(to, RawValue::Text(text.as_bytes())) {
                Ok(()) => return Ok(Held::Text(text.clone())),
                Err(error) => error,
            },
            Err(_) => DecodeError::OutOfRange,
        };
        let held = match self.policy {
            OnValue::Null => Held::Null,
            OnValue::Clamp => {
                let nearest = match text {
                    Ok(text) => self.limits.nearest(to, RawValue::Text(text.as_bytes())),
                    Err(nearest) => nearest,
                };
                Held::Text(nearest.ok_or(misfit)?)
            }
            OnValue::Error | OnValue::Text => return Err(misfit),
        };
        self.counter.used();
        Ok(held)
    }
}

/// Whether a value was sent, so that something can become of it.
pub(super) fn is_there(raw: RawValue<'_>) -> bool {
    matches!(raw, RawValue::Text(_) | RawValue::Binary(_))
}
