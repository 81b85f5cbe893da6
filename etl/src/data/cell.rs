//! What is the value? The decoded value of one column, borrowed from its row where possible.

use std::borrow::Cow;

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
    /// `text` and its kin, an enum's label, or the text form of a type without a kind of its own
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
