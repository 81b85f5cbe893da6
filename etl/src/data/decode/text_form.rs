//! What would the server have written? The exact text of a value in either form.

use std::fmt::Write as _;

use super::{
    DecodeError, Decoded, array_of, bits, bool, date, float4, float8, geometric, geometry, half_vector, hstore, int2,
    int4, int8, interval, json, jsonb, missing, network, oid, range, record, system, temporal, text, text_search, time,
    timestamp, timestamptz, utf8, uuid, vector, write_array, write_bytea, write_date, write_float4, write_float8,
    write_interval, write_numeric, write_time, write_timestamp, write_timestamptz, write_uuid,
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
        Kind::Jsonb | Kind::VersionedText => out.push_str(jsonb(raw)?),
        Kind::Array(element) => write_elements(element, raw, out)?,
        _ => write_rarer(kind, bytes, out)?,
    }
    Ok(())
}

/// Of the kinds that are not in every table.
fn write_rarer(kind: &Kind, bytes: &[u8], out: &mut String) -> Decoded<()> {
    let raw = RawValue::Binary(bytes);
    match kind {
        Kind::Char => system::write_char(bytes, out)?,
        Kind::TimeTz => temporal::write_timetz(bytes, out)?,
        Kind::Interval => write_interval(interval(raw)?, out),
        Kind::Network => network::write_network(bytes, out)?,
        Kind::MacAddress => network::write_mac_address(bytes, out)?,
        Kind::Bits => bits::write_bits(bytes, out)?,
        Kind::Lsn => system::write_lsn(bytes, out)?,
        Kind::Tid => system::write_tid(bytes, out)?,
        Kind::Xid8 => system::write_xid8(bytes, out)?,
        Kind::Snapshot => system::write_snapshot(bytes, out)?,
        Kind::Geometric(shape) => geometric::write_geometric(*shape, bytes, out)?,
        Kind::Spaced(element) => system::write_spaced(element, raw, out)?,
        Kind::TsVector => text_search::write_ts_vector(bytes, out)?,
        Kind::TsQuery => text_search::write_ts_query(bytes, out)?,
        Kind::Range(element) => range::write_range(element, range::range(raw)?, out)?,
        Kind::Multirange(element) => range::write_multirange(element, raw, out)?,
        Kind::Composite(attributes) => record::write_composite(attributes, bytes, out)?,
        Kind::Hstore => hstore::write_hstore(raw, out)?,
        Kind::Vector(_) => vector::write_numbers(vector::vector(raw)?, out)?,
        Kind::HalfVector(_) => vector::write_numbers(half_vector(raw)?, out)?,
        Kind::SparseVector => vector::write_sparse_vector(bytes, out)?,
        Kind::Geometry(_) => geometry::write_geometry(bytes, out),
        _ => return Err(DecodeError::NoBinaryForm),
    }
    Ok(())
}

fn integer(number: impl Into<i64>, out: &mut String) {
    // Formatting into a string does not fail.
    let _ = write!(out, "{}", number.into());
}

fn write_elements(kind: &Kind, raw: RawValue<'_>, out: &mut String) -> Decoded<()> {
    let array = array_of(kind.delimiter(), raw)?;
    let mut elements = array.elements();
    let mut scratch = Vec::new();
    write_array(array.dimensions(), kind.delimiter(), out, |out| {
        let element = elements.next().ok_or(DecodeError::Binary)??;
        match element.resolve(&mut scratch) {
            RawValue::Null => Ok(false),
            raw => write_text(kind, raw, out).map(|()| true),
        }
    })
}
