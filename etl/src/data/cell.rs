//! What is the value? The decoded value of one column, borrowed from its row where possible.

use std::borrow::Cow;

use super::RawValue;
use super::decode::{self, DecodeError, Decoded, Element};
use crate::schema::Kind;

/// A value. Dates and times are Postgres's own numbers, so that infinities and any year are exact.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Cell<'a> {
    /// Null.
    Null,
    /// An unchanged TOAST value that was not sent: neither null nor empty, but unknown.
    Unchanged,
    /// `boolean`
    Bool(bool),
    /// `smallint`, `integer`, `bigint`, `oid`
    I64(i64),
    /// `real`
    F32(f32),
    /// `double precision`
    F64(f64),
    /// `numeric` as Postgres writes it: any length, `NaN`, `Infinity`, `-Infinity`.
    Numeric(Cow<'a, str>),
    /// `text` and its kin, an enum's label, or the text form of any type that has no cell of its own
    Text(Cow<'a, str>),
    /// `bytea`
    Bytes(Cow<'a, [u8]>),
    /// `date`: days since 2000-01-01; `i32::MIN` and `i32::MAX` are the infinities.
    Date(i32),
    /// `time`: microseconds since midnight, up to 24:00:00.
    Time(i64),
    /// `timestamp`: microseconds since 2000-01-01; `i64::MIN` and `i64::MAX` are the infinities.
    Timestamp(i64),
    /// `timestamptz`: microseconds since 2000-01-01 UTC; `i64::MIN` and `i64::MAX` are the infinities.
    TimestampTz(i64),
    /// `uuid`
    Uuid([u8; 16]),
    /// `json`, `jsonb`: the text, untouched
    Json(Cow<'a, str>),
    /// An array
    Array(ArrayCell<'a>),
}

/// An array: its dimensions as (length, lower bound), and its elements, the last dimension varying fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct ArrayCell<'a> {
    /// Length and lower bound of each dimension; empty for `{}`.
    pub dimensions: Box<[(u32, i32)]>,
    /// The elements; [`Cell::Null`] where one is null.
    pub elements: Box<[Cell<'a>]>,
}

impl<'a> Cell<'a> {
    /// The cell of a value of this kind, borrowed where it can be.
    ///
    /// # Errors
    /// When the value is malformed, or in the binary form of a kind that has none.
    pub fn decode(kind: &Kind, raw: RawValue<'a>) -> Decoded<Self> {
        let bytes = match raw {
            RawValue::Null => return Ok(Self::Null),
            RawValue::Unchanged => return Ok(Self::Unchanged),
            RawValue::Text(bytes) | RawValue::Binary(bytes) => bytes,
        };
        Ok(match kind {
            Kind::Bool => Self::Bool(decode::bool(raw)?),
            Kind::Int2 => Self::I64(decode::int2(raw)?.into()),
            Kind::Int4 => Self::I64(decode::int4(raw)?.into()),
            Kind::Int8 => Self::I64(decode::int8(raw)?),
            Kind::Oid => Self::I64(decode::oid(raw)?.into()),
            Kind::Float4 => Self::F32(decode::float4(raw)?),
            Kind::Float8 => Self::F64(decode::float8(raw)?),
            Kind::Numeric(_) => Self::Numeric(numeric(raw)?),
            Kind::Text | Kind::Enum => Self::Text(decode::text(raw)?.into()),
            Kind::Bytea if matches!(raw, RawValue::Binary(_)) => Self::Bytes(bytes.into()),
            Kind::Bytea => {
                let mut unpacked = Vec::with_capacity(bytes.len() / 2);
                decode::bytea(raw, &mut unpacked)?;
                Self::Bytes(unpacked.into())
            }
            Kind::Date => Self::Date(decode::date(raw)?),
            Kind::Time => Self::Time(decode::time(raw)?),
            Kind::Timestamp => Self::Timestamp(decode::timestamp(raw)?),
            Kind::TimestampTz => Self::TimestampTz(decode::timestamptz(raw)?),
            Kind::Uuid => Self::Uuid(decode::uuid(raw)?),
            Kind::Json => Self::Json(decode::json(raw)?.into()),
            Kind::Jsonb => Self::Json(decode::jsonb(raw)?.into()),
            Kind::Array(element) if element.delimiter() == b',' => Self::Array(array(element, raw)?),
            _ if matches!(raw, RawValue::Text(_)) => Self::Text(decode::text(raw)?.into()),
            _ => {
                let mut text = String::new();
                decode::write_text(kind, raw, &mut text)?;
                Self::Text(text.into())
            }
        })
    }

    /// The same cell, without borrowing.
    pub fn into_owned(self) -> Cell<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Null => Cell::Null,
            Self::Unchanged => Cell::Unchanged,
            Self::Bool(value) => Cell::Bool(value),
            Self::I64(value) => Cell::I64(value),
            Self::F32(value) => Cell::F32(value),
            Self::F64(value) => Cell::F64(value),
            Self::Numeric(value) => Cell::Numeric(owned(value)),
            Self::Text(value) => Cell::Text(owned(value)),
            Self::Bytes(value) => Cell::Bytes(Cow::Owned(value.into_owned())),
            Self::Date(value) => Cell::Date(value),
            Self::Time(value) => Cell::Time(value),
            Self::Timestamp(value) => Cell::Timestamp(value),
            Self::TimestampTz(value) => Cell::TimestampTz(value),
            Self::Uuid(value) => Cell::Uuid(value),
            Self::Json(value) => Cell::Json(owned(value)),
            Self::Array(value) => Cell::Array(ArrayCell {
                dimensions: value.dimensions,
                elements: value.elements.into_iter().map(Cell::into_owned).collect(),
            }),
        }
    }

    /// Writes the cell as the server would write its value.
    ///
    /// # Errors
    /// When there is no value (null, unchanged), or an array's dimensions do not fit its elements.
    pub fn write_text(&self, out: &mut String) -> Decoded<()> {
        match self {
            Self::Null => return Err(DecodeError::Null),
            Self::Unchanged => return Err(DecodeError::Unchanged),
            Self::Bool(value) => out.push(if *value { 't' } else { 'f' }),
            Self::I64(value) => out.push_str(&value.to_string()),
            Self::F32(value) => decode::write_float4(*value, out),
            Self::F64(value) => decode::write_float8(*value, out),
            Self::Numeric(value) | Self::Text(value) | Self::Json(value) => out.push_str(value),
            Self::Bytes(value) => decode::write_bytea(value, out),
            Self::Date(value) => decode::write_date(*value, out),
            Self::Time(value) => decode::write_time(*value, out),
            Self::Timestamp(value) => decode::write_timestamp(*value, out),
            Self::TimestampTz(value) => decode::write_timestamptz(*value, out),
            Self::Uuid(value) => decode::write_uuid(value, out),
            Self::Array(array) => {
                array.check_shape()?;
                let mut elements = array.elements.iter();
                decode::write_array(&array.dimensions, b',', out, |out| match elements.next() {
                    Some(Self::Null) => Ok(false),
                    Some(element) => element.write_text(out).map(|()| true),
                    None => Err(DecodeError::OutOfRange),
                })?;
            }
        }
        Ok(())
    }
}

impl ArrayCell<'_> {
    /// That there are as many elements as the dimensions say, and that the bounds are what Postgres allows.
    fn check_shape(&self) -> Decoded<()> {
        let lengths = self.dimensions.iter().map(|(length, _)| *length as usize);
        let count = lengths.into_iter().try_fold(1usize, |count, length| count.checked_mul(length));
        let count = if self.dimensions.is_empty() { Some(0) } else { count };
        let is_bounded = |(length, lower): &(u32, i32)| i64::from(*lower) + i64::from(*length) <= i64::from(i32::MAX);
        let fits = self.dimensions.len() <= decode::MAX_DIMENSIONS && self.dimensions.iter().all(is_bounded);
        if fits && count == Some(self.elements.len()) { Ok(()) } else { Err(DecodeError::OutOfRange) }
    }
}

fn numeric(raw: RawValue<'_>) -> Decoded<Cow<'_, str>> {
    if matches!(raw, RawValue::Text(_)) {
        let text = decode::text(raw)?;
        decode::check_numeric_text(text)?;
        return Ok(text.into());
    }
    let mut text = String::new();
    decode::write_numeric(raw, &mut text)?;
    Ok(text.into())
}

fn array<'a>(kind: &Kind, raw: RawValue<'a>) -> Decoded<ArrayCell<'a>> {
    let array = decode::array(raw)?;
    let elements = array.elements().map(|element| match element? {
        Element::Raw(raw) => Cell::decode(kind, raw),
        escaped => Ok(Cell::decode(kind, escaped.resolve(&mut Vec::new()))?.into_owned()),
    });
    let elements = elements.collect::<Decoded<_>>()?;
    Ok(ArrayCell { dimensions: array.dimensions().into(), elements })
}
