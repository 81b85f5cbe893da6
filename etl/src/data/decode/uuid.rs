//! How is a UUID read?

use super::scalar::nibble;
use super::{DecodeError, Decoded, fixed, missing};
use crate::data::RawValue;

/// Where each byte's digits are in `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
/// Where the hyphens are.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// `uuid`
///
/// # Errors
/// When the value is missing or malformed.
#[inline]
pub fn uuid(raw: RawValue<'_>) -> Decoded<[u8; 16]> {
    match raw {
        RawValue::Binary(bytes) => fixed(bytes),
        RawValue::Text(text) => {
            let text: &[u8; 36] = text.try_into().map_err(|_| DecodeError::Text)?;
            let mut uuid = [0; 16];
            let mut invalid = u8::from(HYPHENS.iter().any(|place| text[*place] != b'-')) << 7;
            for (byte, place) in uuid.iter_mut().zip(PLACES) {
                let (high, low) = (nibble(text[place]), nibble(text[place + 1]));
                invalid |= high | low;
                *byte = (high << 4) | (low & 15);
            }
            if invalid > 15 { Err(DecodeError::Text) } else { Ok(uuid) }
        }
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

/// Writes a UUID as the server does.
pub fn write_uuid(uuid: &[u8; 16], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (i, byte) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}
