//! How are booleans, integers, floats, texts and bytes read?

use super::{DecodeError, Decoded, fixed, missing, utf8};
use crate::data::RawValue;

/// `boolean`
///
/// # Errors
/// When the value is missing or malformed.
#[inline]
pub fn bool(raw: RawValue<'_>) -> Decoded<bool> {
    match raw {
        RawValue::Text(b"t") | RawValue::Binary([1]) => Ok(true),
        RawValue::Text(b"f") | RawValue::Binary([0]) => Ok(false),
        RawValue::Text(_) => Err(DecodeError::Text),
        RawValue::Binary(_) => Err(DecodeError::Binary),
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

/// `smallint`
///
/// # Errors
/// When the value is missing, malformed or out of range.
#[inline]
pub fn int2(raw: RawValue<'_>) -> Decoded<i16> {
    match raw {
        RawValue::Text(text) => i16::try_from(integer(text)?).map_err(|_| DecodeError::OutOfRange),
        RawValue::Binary(bytes) => Ok(i16::from_be_bytes(fixed(bytes)?)),
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

/// `integer`
///
/// # Errors
/// When the value is missing, malformed or out of range.
#[inline]
pub fn int4(raw: RawValue<'_>) -> Decoded<i32> {
    match raw {
        RawValue::Text(text) => i32::try_from(integer(text)?).map_err(|_| DecodeError::OutOfRange),
        RawValue::Binary(bytes) => Ok(i32::from_be_bytes(fixed(bytes)?)),
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

/// `bigint`
///
/// # Errors
/// When the value is missing, malformed or out of range.
#[inline]
pub fn int8(raw: RawValue<'_>) -> Decoded<i64> {
    match raw {
        RawValue::Text(text) => integer(text),
        RawValue::Binary(bytes) => Ok(i64::from_be_bytes(fixed(bytes)?)),
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

/// `oid`
///
/// # Errors
/// When the value is missing, malformed or out of range.
#[inline]
pub fn oid(raw: RawValue<'_>) -> Decoded<u32> {
    match raw {
        RawValue::Text(text) => u32::try_from(integer(text)?).map_err(|_| DecodeError::OutOfRange),
        RawValue::Binary(bytes) => Ok(u32::from_be_bytes(fixed(bytes)?)),
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

#[inline]
fn integer(text: &[u8]) -> Decoded<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // Nineteen digits do not overflow an unsigned 64-bit number.
    match digits.len() {
        0 => return Err(DecodeError::Text),
        1..=19 => {}
        _ => return Err(DecodeError::OutOfRange),
    }
    let mut sum = 0u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(DecodeError::Text);
        }
        sum = sum * 10 + u64::from(digit);
    }
    if is_negative { 0i64.checked_sub_unsigned(sum) } else { i64::try_from(sum).ok() }.ok_or(DecodeError::OutOfRange)
}

/// `real`; `NaN` and the infinities included.
///
/// # Errors
/// When the value is missing or malformed.
#[inline]
pub fn float4(raw: RawValue<'_>) -> Decoded<f32> {
    match raw {
        RawValue::Text(text) => utf8(text)?.parse().map_err(|_| DecodeError::Text),
        RawValue::Binary(bytes) => Ok(f32::from_be_bytes(fixed(bytes)?)),
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

/// `double precision`; `NaN` and the infinities included.
///
/// # Errors
/// When the value is missing or malformed.
#[inline]
pub fn float8(raw: RawValue<'_>) -> Decoded<f64> {
    match raw {
        RawValue::Text(text) => utf8(text)?.parse().map_err(|_| DecodeError::Text),
        RawValue::Binary(bytes) => Ok(f64::from_be_bytes(fixed(bytes)?)),
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

/// `text` and its kin, and the label of an enum: both forms are the text itself.
///
/// # Errors
/// When the value is missing or not UTF-8.
#[inline]
pub fn text(raw: RawValue<'_>) -> Decoded<&str> {
    match raw {
        RawValue::Text(bytes) | RawValue::Binary(bytes) => utf8(bytes),
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

/// `json`: the text, untouched.
///
/// # Errors
/// When the value is missing or not UTF-8.
#[inline]
pub fn json(raw: RawValue<'_>) -> Decoded<&str> {
    text(raw)
}

/// `jsonb`: the server's text; its binary form has a version before it.
///
/// # Errors
/// When the value is missing, not UTF-8, or of another version than 1.
#[inline]
pub fn jsonb(raw: RawValue<'_>) -> Decoded<&str> {
    match raw {
        RawValue::Binary([1, text @ ..]) => utf8(text),
        RawValue::Binary(_) => Err(DecodeError::Binary),
        other => text(other),
    }
}

/// `bytea`, appended to `out`.
///
/// # Errors
/// When the value is missing or its text is not in hex; `out` is then as before.
pub fn bytea(raw: RawValue<'_>, out: &mut Vec<u8>) -> Decoded<()> {
    match raw {
        RawValue::Binary(bytes) => out.extend_from_slice(bytes),
        RawValue::Text([b'\\', b'x', digits @ ..]) => bytea_digits(digits, out)?,
        RawValue::Text(_) => return Err(DecodeError::Text),
        RawValue::Null | RawValue::Unchanged => return missing(raw),
    }
    Ok(())
}

/// The bytes that hexadecimal digits stand for, appended to `out`; it is as before when they are not digits.
pub(super) fn bytea_digits(digits: &[u8], out: &mut Vec<u8>) -> Decoded<()> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(DecodeError::Text);
    }
    let before = out.len();
    let mut invalid = 0;
    out.extend(pairs.iter().map(|[high, low]| {
        let (high, low) = (nibble(*high), nibble(*low));
        invalid |= high | low;
        (high << 4) | (low & 15)
    }));
    if invalid > 15 {
        out.truncate(before);
        return Err(DecodeError::Text);
    }
    Ok(())
}

/// Writes bytes as the server writes `bytea` in hex.
pub fn write_bytea(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 + 2 * bytes.len());
    out.push_str("\\x");
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// The value of a hexadecimal digit; more than 15 for anything else.
#[inline]
pub(super) fn nibble(digit: u8) -> u8 {
    const VALUES: [u8; 256] = {
        let mut values = [0xff; 256];
        let mut value = 0;
        while value < 16 {
            values[b"0123456789abcdef"[value] as usize] = value as u8;
            values[b"0123456789ABCDEF"[value] as usize] = value as u8;
            value += 1;
        }
        values
    };
    VALUES[usize::from(digit)]
}
