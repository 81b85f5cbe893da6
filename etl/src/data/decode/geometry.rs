//! How is a `geometry` or `geography` of PostGIS read? As its bytes, which are EWKB in both forms.

use super::{Decoded, bytea_digits, missing};
use crate::data::RawValue;

/// `geometry` or `geography` as EWKB, appended to `out`; its text is that in hexadecimal digits.
///
/// # Errors
/// When the value is missing or malformed; `out` is then as before.
pub fn geometry(raw: RawValue<'_>, out: &mut Vec<u8>) -> Decoded<()> {
    match raw {
        RawValue::Binary(bytes) => out.extend_from_slice(bytes),
        RawValue::Text(digits) => bytea_digits(digits, out)?,
        RawValue::Null | RawValue::Unchanged => return missing(raw),
    }
    Ok(())
}

/// Writes EWKB as the server does, in capital digits.
pub(super) fn write_geometry(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(2 * bytes.len());
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}
