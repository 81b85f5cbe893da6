//! How do the bytes of one value become a primitive? For cells and Arrow alike.
//!
//! Each function takes a value in the server's text or binary form (ISO dates, UTC, hex bytea, as
//! `SOURCE.md` R13 sets them) and allocates nothing. [`write_text`] gives back the server's exact text.

mod array;
mod bits;
mod float_text;
mod geometric;
mod geometry;
mod hstore;
mod interval;
mod network;
mod numeric;
mod quoted;
mod range;
mod reader;
mod record;
mod scalar;
mod system;
mod temporal;
#[cfg(test)]
mod tests;
mod text_form;
mod text_search;
mod uuid;
mod vector;

use std::fmt;

pub(crate) use array::write_array;
pub use array::{Array, Element, Elements, MAX_DIMENSIONS, array, array_of};
pub use float_text::{write_float4, write_float8};
pub use geometry::{geometry, well_known};
pub use hstore::{Pairs, hstore};
pub use interval::{Interval, interval, write_interval};
pub(crate) use numeric::check_numeric_text;
pub use numeric::{numeric_i128, write_numeric};
pub use range::{Range, Ranges, multirange, range};
pub use record::{Fields, composite};
use scalar::bytea_digits;
pub use scalar::{bool, bytea, float4, float8, int2, int4, int8, json, jsonb, oid, text, write_bytea};
pub use temporal::{
    date, rfc3339, time, timestamp, timestamptz, write_date, write_time, write_timestamp, write_timestamptz,
};
pub use text_form::write_text;
pub use uuid::{uuid, write_uuid};
pub use vector::{Numbers, half_vector, vector};

/// Why a value could not be decoded: the class that it belongs to, never the value itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is null.
    Null,
    /// It was not sent, because it did not change.
    Unchanged,
    /// Its binary form has another length or structure.
    Binary,
    /// Its text is not what the server writes for the type.
    Text,
    /// It is not UTF-8.
    Utf8,
    /// It is outside of what the target can hold.
    OutOfRange,
    /// It is `NaN`.
    NotANumber,
    /// It is infinite.
    Infinite,
    /// It has more digits than the declared precision.
    TooManyDigits,
    /// It has more digits after the point than the declared scale.
    TooFine,
    /// It is an array of several dimensions, or one that does not begin at 1.
    ArrayShape,
    /// Its composite type has other attributes than when it was looked at.
    Altered,
    /// Its type has no known binary form.
    NoBinaryForm,
    /// It is a cell of another type.
    WrongType,
}

/// What decoding gives.
pub type Decoded<T> = Result<T, DecodeError>;

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Unchanged => "unchanged and not sent",
            Self::Binary => "malformed binary form",
            Self::Text => "malformed text form",
            Self::Utf8 => "text that is not UTF-8",
            Self::OutOfRange => "out of range",
            Self::NotANumber => "NaN",
            Self::Infinite => "infinity",
            Self::TooManyDigits => "more digits than its precision",
            Self::TooFine => "more digits after the point than its scale",
            Self::ArrayShape => "array of several dimensions, or with a lower bound other than 1",
            Self::Altered => "composite whose type was altered",
            Self::NoBinaryForm => "binary form of a type that is read as text",
            Self::WrongType => "cell of another type",
        })
    }
}

impl std::error::Error for DecodeError {}

use super::RawValue;

/// The binary form of a value of fixed length.
#[inline]
fn fixed<const N: usize>(bytes: &[u8]) -> Decoded<[u8; N]> {
    bytes.try_into().map_err(|_| DecodeError::Binary)
}

/// The error for a value that is not there.
#[cold]
fn missing<T>(raw: RawValue<'_>) -> Decoded<T> {
    Err(if raw == RawValue::Unchanged { DecodeError::Unchanged } else { DecodeError::Null })
}

fn utf8(bytes: &[u8]) -> Decoded<&str> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)
}
