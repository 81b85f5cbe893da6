//! How do the values of one column become an Arrow array? The decoder is chosen once a column.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder,
    FixedSizeBinaryBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder,
    IntervalMonthDayNanoBuilder, StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder, UInt32Builder,
};
use arrow::datatypes::{DataType, IntervalMonthDayNano, i256};
use etl::data::RawValue;
use etl::data::decode::{self, DecodeError, Decoded, Interval};
use etl::destination::is_struct;
use etl::schema::Kind;

use super::arrow_schema::{
    ArrowLimits, Calendar, DIGITS_OF_128, EPOCH_DAYS, EPOCH_MICROS, Infinities, decimal, half_float, is_spelled,
};
use super::nested::{CompositeBuilder, ListBuilder, MapBuilder, MultirangeBuilder, RangeBuilder};
use super::vectors::VectorBuilder;

/// A column that is being filled.
pub(super) enum ColumnBuilder {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Oid(UInt32Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Decimal(Decimal128Builder, u8, i8),
    /// With precision, scale, and room for digits.
    WideDecimal(Decimal256Builder, u8, i8, String),
    /// Text whose two forms are the text itself.
    Text(StringBuilder),
    Jsonb(StringBuilder),
    /// Text that the binary form has to be spelled out as.
    Spelled(StringBuilder, Kind, String),
    Bytes(BinaryBuilder, Vec<u8>),
    Date(Date32Builder, Option<Infinities>, Calendar),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder, Option<Infinities>, Calendar),
    TimestampTz(TimestampMicrosecondBuilder, Option<Infinities>, Calendar),
    Uuid(FixedSizeBinaryBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    IntervalText(StringBuilder, String),
    /// With the SRID that all have, which is left out.
    Geometry(BinaryBuilder, Option<i32>, Vec<u8>),
    List(Box<ListBuilder>),
    Composite(Box<CompositeBuilder>),
    Range(Box<RangeBuilder>),
    Multirange(Box<MultirangeBuilder>),
    Map(Box<MapBuilder>),
    Vector(VectorBuilder),
}

/// Appends every value with one decoder.
macro_rules! fill {
    ($builder:ident, $values:ident, $value:ident => $append:expr) => {
        for $value in $values {
            match $value {
                RawValue::Null => $builder.append_null(),
                $value => {
                    let appended: Decoded<()> = (|| {
                        $append;
                        Ok(())
                    })();
                    appended?;
                }
            }
        }
    };
}

impl ColumnBuilder {
    /// A column of this kind with room for so many values.
    pub(super) fn new(kind: &Kind, limits: ArrowLimits, capacity: usize) -> Self {
        match kind {
            _ if is_spelled(kind, limits) => Self::Spelled(strings(capacity), kind.clone(), String::new()),
            Kind::Bool => Self::Bool(BooleanBuilder::with_capacity(capacity)),
            Kind::Int2 => Self::Int2(Int16Builder::with_capacity(capacity)),
            Kind::Int4 => Self::Int4(Int32Builder::with_capacity(capacity)),
            Kind::Int8 => Self::Int8(Int64Builder::with_capacity(capacity)),
            Kind::Oid => Self::Oid(UInt32Builder::with_capacity(capacity)),
            Kind::Float4 => Self::Float4(Float32Builder::with_capacity(capacity)),
            Kind::Float8 => Self::Float8(Float64Builder::with_capacity(capacity)),
            Kind::Numeric(of) => match decimal(*of, limits) {
                Some((p @ ..=DIGITS_OF_128, s)) => Self::Decimal(decimals(capacity, p, s), p, s),
                Some((p, s)) => Self::WideDecimal(wide_decimals(capacity, p, s), p, s, String::new()),
                None => Self::Spelled(strings(capacity), kind.clone(), String::new()),
            },
            Kind::Text | Kind::Enum | Kind::Json => Self::Text(strings(capacity)),
            Kind::Jsonb => Self::Jsonb(strings(capacity)),
            Kind::Bytea => Self::Bytes(BinaryBuilder::with_capacity(capacity, 0), Vec::new()),
            Kind::Date => Self::Date(Date32Builder::with_capacity(capacity), limits.infinities, limits.calendar),
            Kind::Time => Self::Time(Time64MicrosecondBuilder::with_capacity(capacity)),
            Kind::Timestamp => Self::Timestamp(
                TimestampMicrosecondBuilder::with_capacity(capacity),
                limits.infinities,
                limits.calendar,
            ),
            Kind::TimestampTz => Self::TimestampTz(
                TimestampMicrosecondBuilder::with_capacity(capacity).with_timezone("UTC"),
                limits.infinities,
                limits.calendar,
            ),
            Kind::Uuid => Self::Uuid(FixedSizeBinaryBuilder::with_capacity(capacity, 16)),
            Kind::Interval if limits.intervals => Self::Interval(IntervalMonthDayNanoBuilder::with_capacity(capacity)),
            Kind::Interval => Self::IntervalText(strings(capacity), String::new()),
            Kind::Geometry(srid) => Self::Geometry(BinaryBuilder::with_capacity(capacity, 0), *srid, Vec::new()),
            Kind::Array(element) => Self::List(Box::new(ListBuilder::new(element, limits, capacity))),
            Kind::Composite(attributes) if is_struct(attributes) => {
                Self::Composite(Box::new(CompositeBuilder::new(attributes, limits, capacity)))
            }
            Kind::Range(element) => Self::Range(Box::new(RangeBuilder::new(element, limits, capacity))),
            Kind::Multirange(element) => Self::Multirange(Box::new(MultirangeBuilder::new(element, limits, capacity))),
            Kind::Hstore => Self::Map(Box::new(MapBuilder::new(capacity))),
            Kind::Vector(n) => Self::Vector(VectorBuilder::new(false, DataType::Float32, *n, capacity)),
            Kind::HalfVector(n) => Self::Vector(VectorBuilder::new(true, half_float(limits), *n, capacity)),
            _ => Self::Spelled(strings(capacity), kind.clone(), String::new()),
        }
    }

    /// Appends the values.
    pub(super) fn fill<'a>(&mut self, values: impl Iterator<Item = RawValue<'a>>) -> Decoded<()> {
        match self {
            Self::Bool(b) => fill!(b, values, v => b.append_value(decode::bool(v)?)),
            Self::Int2(b) => fill!(b, values, v => b.append_value(decode::int2(v)?)),
            Self::Int4(b) => fill!(b, values, v => b.append_value(decode::int4(v)?)),
            Self::Int8(b) => fill!(b, values, v => b.append_value(decode::int8(v)?)),
            Self::Oid(b) => fill!(b, values, v => b.append_value(decode::oid(v)?)),
            Self::Float4(b) => fill!(b, values, v => b.append_value(decode::float4(v)?)),
            Self::Float8(b) => fill!(b, values, v => b.append_value(decode::float8(v)?)),
            Self::Decimal(b, p, s) => fill!(b, values, v => b.append_value(decode::numeric_i128(v, *p, *s)?)),
            Self::WideDecimal(b, p, s, digits) => fill!(b, values, v => b.append_value(wide(v, *p, *s, digits)?)),
            Self::Text(b) => fill!(b, values, v => append_text(b, decode::text(v)?)?),
            Self::Jsonb(b) => fill!(b, values, v => append_text(b, decode::jsonb(v)?)?),
            Self::Spelled(b, kind, scratch) => fill!(b, values, v => {
                scratch.clear();
                decode::write_text(kind, v, scratch)?;
                append_text(b, scratch)?;
            }),
            Self::Bytes(b, scratch) => fill!(b, values, v => append_bytes(b, v, scratch)?),
            Self::Date(b, inf, calendar) => {
                fill!(b, values, v => b.append_value(unix_days(decode::date(v)?, *inf, *calendar)?));
            }
            Self::Time(b) => fill!(b, values, v => b.append_value(decode::time(v)?)),
            Self::Timestamp(b, inf, calendar) => {
                fill!(b, values, v => b.append_value(unix_micros(decode::timestamp(v)?, *inf, *calendar)?));
            }
            Self::TimestampTz(b, inf, calendar) => {
                fill!(b, values, v => b.append_value(unix_micros(decode::timestamptz(v)?, *inf, *calendar)?));
            }
            Self::Uuid(b) => fill!(b, values, v => {
                b.append_value(decode::uuid(v)?).map_err(|_| DecodeError::Binary)?;
            }),
            Self::Interval(b) => fill!(b, values, v => b.append_value(nanoseconds(decode::interval(v)?)?)),
            Self::IntervalText(b, scratch) => fill!(b, values, v => {
                scratch.clear();
                write_fields(decode::interval(v)?, scratch)?;
                append_text(b, scratch)?;
            }),
            Self::Geometry(b, srid, scratch) => fill!(b, values, v => append_geometry(b, v, *srid, scratch)?),
            Self::List(b) => fill!(b, values, v => b.append(v)?),
            Self::Multirange(b) => fill!(b, values, v => b.append(v)?),
            Self::Map(b) => fill!(b, values, v => b.append(v)?),
            Self::Composite(b) => {
                values.into_iter().try_for_each(|v| if v == RawValue::Null { b.append_null() } else { b.append(v) })?
            }
            Self::Range(b) => {
                values.into_iter().try_for_each(|v| if v == RawValue::Null { b.append_null() } else { b.append(v) })?
            }
            Self::Vector(b) => {
                values.into_iter().try_for_each(|v| if v == RawValue::Null { b.append_null() } else { b.append(v) })?
            }
        }
        Ok(())
    }

    /// Appends one value, of a part of another.
    pub(super) fn append(&mut self, value: RawValue<'_>) -> Decoded<()> {
        self.fill(std::iter::once(value))
    }

    /// The array of what was appended.
    pub(super) fn finish(self) -> ArrayRef {
        match self {
            Self::Bool(mut b) => Arc::new(b.finish()),
            Self::Int2(mut b) => Arc::new(b.finish()),
            Self::Int4(mut b) => Arc::new(b.finish()),
            Self::Int8(mut b) => Arc::new(b.finish()),
            Self::Oid(mut b) => Arc::new(b.finish()),
            Self::Float4(mut b) => Arc::new(b.finish()),
            Self::Float8(mut b) => Arc::new(b.finish()),
            Self::Decimal(mut b, ..) => Arc::new(b.finish()),
            Self::WideDecimal(mut b, ..) => Arc::new(b.finish()),
            Self::Text(mut b) | Self::Jsonb(mut b) | Self::Spelled(mut b, ..) | Self::IntervalText(mut b, _) => {
                Arc::new(b.finish())
            }
            Self::Bytes(mut b, _) => Arc::new(b.finish()),
            Self::Date(mut b, ..) => Arc::new(b.finish()),
            Self::Time(mut b) => Arc::new(b.finish()),
            Self::Timestamp(mut b, ..) | Self::TimestampTz(mut b, ..) => Arc::new(b.finish()),
            Self::Uuid(mut b) => Arc::new(b.finish()),
            Self::Interval(mut b) => Arc::new(b.finish()),
            Self::Geometry(mut b, ..) => Arc::new(b.finish()),
            Self::List(b) => b.finish(),
            Self::Composite(b) => b.finish(),
            Self::Range(b) => b.finish(),
            Self::Multirange(b) => b.finish(),
            Self::Map(b) => b.finish(),
            Self::Vector(b) => b.finish(),
        }
    }
}

fn strings(capacity: usize) -> StringBuilder {
    StringBuilder::with_capacity(capacity, 0)
}

/// Precision and scale were checked when the type was chosen.
fn decimals(capacity: usize, precision: u8, scale: i8) -> Decimal128Builder {
    let data_type = DataType::Decimal128(precision, scale);
    Decimal128Builder::with_capacity(capacity).with_data_type(data_type)
}

fn wide_decimals(capacity: usize, precision: u8, scale: i8) -> Decimal256Builder {
    let data_type = DataType::Decimal256(precision, scale);
    Decimal256Builder::with_capacity(capacity).with_data_type(data_type)
}

/// The value times ten to the power of `scale`, exactly, with at most `precision` digits.
fn wide(raw: RawValue<'_>, precision: u8, scale: i8, digits: &mut String) -> Decoded<i256> {
    digits.clear();
    decode::write_numeric(raw, digits)?;
    match digits.as_str() {
        "NaN" => return Err(DecodeError::NotANumber),
        "Infinity" | "-Infinity" => return Err(DecodeError::Infinite),
        _ => {}
    }
    let scale = usize::from(scale.unsigned_abs());
    let point = digits.find('.');
    let decimals = point.map_or(0, |point| digits.len() - point - 1);
    if let Some(point) = point {
        digits.remove(point);
    }
    if decimals > scale {
        let beyond = digits.split_off(digits.len() - (decimals - scale));
        if beyond.bytes().any(|digit| digit != b'0') {
            return Err(DecodeError::TooFine);
        }
    }
    digits.extend(std::iter::repeat_n('0', scale.saturating_sub(decimals)));
    let size = digits.trim_start_matches('-').trim_start_matches('0');
    if size.len() > precision.into() {
        return Err(DecodeError::TooManyDigits);
    }
    i256::from_string(digits).ok_or(DecodeError::TooManyDigits)
}

/// Offsets have 31 bits; the builder would panic beyond.
fn fits(held: usize, more: usize) -> Decoded<()> {
    if held.saturating_add(more) > i32::MAX as usize { Err(DecodeError::OutOfRange) } else { Ok(()) }
}

pub(super) fn append_text(builder: &mut StringBuilder, text: &str) -> Decoded<()> {
    fits(builder.values_slice().len(), text.len())?;
    builder.append_value(text);
    Ok(())
}

fn append_bytes(builder: &mut BinaryBuilder, raw: RawValue<'_>, scratch: &mut Vec<u8>) -> Decoded<()> {
    let bytes = if let RawValue::Binary(bytes) = raw {
        bytes
    } else {
        scratch.clear();
        decode::bytea(raw, scratch)?;
        scratch
    };
    fits(builder.values_slice().len(), bytes.len())?;
    builder.append_value(bytes);
    Ok(())
}

fn append_geometry(
    builder: &mut BinaryBuilder,
    raw: RawValue<'_>,
    srid: Option<i32>,
    scratch: &mut Vec<u8>,
) -> Decoded<()> {
    scratch.clear();
    decode::geometry(raw, scratch)?;
    let bytes = match srid {
        Some(srid) => decode::well_known(scratch, srid)?,
        None => std::mem::take(scratch),
    };
    fits(builder.values_slice().len(), bytes.len())?;
    builder.append_value(&bytes);
    *scratch = bytes;
    Ok(())
}

fn finite(interval: Interval) -> Decoded<()> {
    match interval {
        Interval::INFINITY | Interval::MINUS_INFINITY => Err(DecodeError::Infinite),
        _ => Ok(()),
    }
}

/// An interval as anybody's parser takes it.
fn write_fields(interval: Interval, out: &mut String) -> Decoded<()> {
    finite(interval)?;
    let Interval { months, days, micros } = interval;
    // Formatting into a string does not fail.
    let _ = write!(out, "{months} months {days} days {micros} microseconds");
    Ok(())
}

/// Arrow counts nanoseconds, of which it has room for 292 years.
fn nanoseconds(interval: Interval) -> Decoded<IntervalMonthDayNano> {
    finite(interval)?;
    let nanos = interval.micros.checked_mul(1000).ok_or(DecodeError::OutOfRange)?;
    Ok(IntervalMonthDayNano::new(interval.months, interval.days, nanos))
}

fn unix_days(days: i32, infinities: Option<Infinities>, calendar: Calendar) -> Decoded<i32> {
    match (days, infinities) {
        (i32::MIN, Some(infinities)) => Ok(infinities.dates.0),
        (i32::MAX, Some(infinities)) => Ok(infinities.dates.1),
        (i32::MIN | i32::MAX, None) => Err(DecodeError::Infinite),
        (days, _) => days
            .checked_add(EPOCH_DAYS)
            .filter(|days| (calendar.dates.0..=calendar.dates.1).contains(days))
            .ok_or(DecodeError::OutOfRange),
    }
}

fn unix_micros(micros: i64, infinities: Option<Infinities>, calendar: Calendar) -> Decoded<i64> {
    match (micros, infinities) {
        (i64::MIN, Some(infinities)) => Ok(infinities.timestamps.0),
        (i64::MAX, Some(infinities)) => Ok(infinities.timestamps.1),
        (i64::MIN | i64::MAX, None) => Err(DecodeError::Infinite),
        (micros, infinities) => micros
            .checked_add(EPOCH_MICROS)
            .filter(|micros| (calendar.timestamps.0..=calendar.timestamps.1).contains(micros))
            .filter(|micros| infinities.is_none_or(|infinities| *micros != infinities.timestamps.1))
            .ok_or(DecodeError::OutOfRange),
    }
}
