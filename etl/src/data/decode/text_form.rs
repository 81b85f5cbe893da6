//! What would the server have written? The exact text of a value in either form.

use std::fmt::Write as _;

use super::{
    DecodeError, Decoded, array, bool, date, float4, float8, int2, int4, int8, json, jsonb, missing, oid, text, time,
    timestamp, timestamptz, utf8, uuid, write_array, write_bytea, write_date, write_float4, write_float8,
    write_numeric, write_time, write_timestamp, write_timestamptz, write_uuid,
};
use crate::data::RawValue;
use crate::schema::Kind;

/// Writes the text that the server writes for a value of this kind; a text as it is.
///
/// # Errors
/// When the value is missing, malformed, or has no known binary form; what `out` then holds is of no use.
pub fn write_text(kind: &Kind, raw: RawValue<'_>, out: &mut String) -> Decoded<()> {
    let bytes = match raw {
        RawValue::Text(bytes) => {
            out.push_str(utf8(bytes)?);
            return Ok(());
        }
        RawValue::Binary(bytes) => bytes,
        RawValue::Null | RawValue::Unchanged => return missing(raw),
    };
    match kind {
        Kind::Bool => out.push(if bool(raw)? { 't' } else { 'f' }),
        Kind::Int2 => integer(int2(raw)?, out),
        Kind::Int4 => integer(int4(raw)?, out),
        Kind::Int8 => integer(int8(raw)?, out),
        Kind::Oid => integer(oid(raw)?, out),
        Kind::Float4 => write_float4(float4(raw)?, out),
        Kind::Float8 => write_float8(float8(raw)?, out),
        Kind::Numeric(_) => write_numeric(raw, out)?,
        Kind::Text | Kind::Enum => out.push_str(text(raw)?),
        Kind::Bytea => write_bytea(bytes, out),
        Kind::Date => write_date(date(raw)?, out),
        Kind::Time => write_time(time(raw)?, out),
        Kind::Timestamp => write_timestamp(timestamp(raw)?, out),
        Kind::TimestampTz => write_timestamptz(timestamptz(raw)?, out),
        Kind::Uuid => write_uuid(&uuid(raw)?, out),
        Kind::Json => out.push_str(json(raw)?),
        Kind::Jsonb => out.push_str(jsonb(raw)?),
        Kind::Array(element) => write_elements(element, raw, out)?,
        Kind::Other => return Err(DecodeError::NoBinaryForm),
    }
    Ok(())
}

fn integer(number: impl Into<i64>, out: &mut String) {
    // Formatting into a string does not fail.
    let _ = write!(out, "{}", number.into());
}

fn write_elements(kind: &Kind, raw: RawValue<'_>, out: &mut String) -> Decoded<()> {
    let array = array(raw)?;
    let mut elements = array.elements();
    let mut scratch = Vec::new();
    write_array(array.dimensions(), out, |out| {
        let element = elements.next().ok_or(DecodeError::Binary)??;
        match element.resolve(&mut scratch) {
            RawValue::Null => Ok(false),
            raw => write_text(kind, raw, out).map(|()| true),
        }
    })
}
