//! How are the vectors of pgvector read? Number by number, in either form.

use std::fmt::Write as _;

use super::reader::Reader;
use super::{DecodeError, Decoded, float4, missing, write_float4};
use crate::data::RawValue;

/// The numbers of a `vector` or `halfvec`, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Numbers<'a> {
    /// `None` once there are no more.
    rest: Option<RawValue<'a>>,
    is_half: bool,
}

/// `vector`
///
/// # Errors
/// When the value is missing or malformed; a number that is not like one is an error once it is its turn.
pub fn vector(raw: RawValue<'_>) -> Decoded<Numbers<'_>> {
    numbers(raw, false)
}

/// `halfvec`; each number is one of 16 bits.
///
/// # Errors
/// When the value is missing or malformed; a number that is not like one is an error once it is its turn.
pub fn half_vector(raw: RawValue<'_>) -> Decoded<Numbers<'_>> {
    numbers(raw, true)
}

fn numbers(raw: RawValue<'_>, is_half: bool) -> Decoded<Numbers<'_>> {
    let rest = match raw {
        RawValue::Binary(bytes) => {
            let mut reader = Reader(bytes);
            let (count, _unused) = (reader.u16()?, reader.u16()?);
            if usize::from(count) * if is_half { 2 } else { 4 } != reader.0.len() {
                return Err(DecodeError::Binary);
            }
            (count > 0).then_some(RawValue::Binary(reader.0))
        }
        RawValue::Text([b'[', numbers @ .., b']']) => (!numbers.is_empty()).then_some(RawValue::Text(numbers)),
        RawValue::Text(_) => return Err(DecodeError::Text),
        RawValue::Null | RawValue::Unchanged => return missing(raw),
    };
    Ok(Numbers { rest, is_half })
}

impl<'a> Numbers<'a> {
    fn next_binary(&mut self, bytes: &'a [u8]) -> Decoded<f32> {
        let mut reader = Reader(bytes);
        let number = if self.is_half { of_half(reader.u16()?) } else { reader.f32()? };
        self.rest = (!reader.0.is_empty()).then_some(RawValue::Binary(reader.0));
        Ok(number)
    }

    fn next_text(&mut self, text: &'a [u8]) -> Decoded<f32> {
        let number = match memchr::memchr(b',', text) {
            Some(end) => {
                self.rest = Some(RawValue::Text(text.get(end + 1..).unwrap_or_default()));
                text.get(..end).unwrap_or_default()
            }
            None => text,
        };
        float4(RawValue::Text(number))
    }
}

impl Iterator for Numbers<'_> {
    type Item = Decoded<f32>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.rest.take()? {
            RawValue::Binary(bytes) => Some(self.next_binary(bytes)),
            RawValue::Text(text) => Some(self.next_text(text)),
            RawValue::Null | RawValue::Unchanged => None,
        }
    }
}

/// The number that 16 bits of IEEE 754 hold: one of sign, five of exponent, ten of fraction.
fn of_half(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    match exponent {
        // Too small to have a leading one: a multiple of two to the power of -24.
        0 => {
            let size = fraction as f32 * (-24f32).exp2();
            f32::from_bits(size.to_bits() | sign)
        }
        0x1f => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// Writes a `vector` or `halfvec` as the server does.
pub(super) fn write_numbers(numbers: Numbers<'_>, out: &mut String) -> Decoded<()> {
    out.push('[');
    for (place, number) in numbers.enumerate() {
        if place > 0 {
            out.push(',');
        }
        write_float4(number?, out);
    }
    out.push(']');
    Ok(())
}

/// Writes a `sparsevec` as the server does: in binary the dimensions, the count of what is not zero, nothing, the places
/// from 0 on, the numbers; in text the places count from 1.
pub(super) fn write_sparse_vector(bytes: &[u8], out: &mut String) -> Decoded<()> {
    let mut reader = Reader(bytes);
    let (dimensions, count, _unused) = (reader.i32()?, reader.u32()? as usize, reader.i32()?);
    if reader.0.len() % 8 != 0 || reader.0.len() / 8 != count {
        return Err(DecodeError::Binary);
    }
    let mut places = Reader(reader.bytes(count * 4)?);
    out.push('{');
    for nth in 0..count {
        let comma = if nth > 0 { "," } else { "" };
        let place = places.i32()?.checked_add(1).ok_or(DecodeError::Binary)?;
        // Formatting into a string does not fail.
        let _ = write!(out, "{comma}{place}:");
        write_float4(reader.f32()?, out);
    }
    let _ = write!(out, "}}/{dimensions}");
    Ok(())
}
