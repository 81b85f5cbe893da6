//! How is a `geometry` or `geography` of PostGIS read? As its bytes, which are EWKB in both forms.

use super::{DecodeError, Decoded, bytea_digits, missing};
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

const HAS_Z: u32 = 0x8000_0000;
const HAS_M: u32 = 0x4000_0000;
const HAS_SRID: u32 = 0x2000_0000;

/// ISO's well-known binary of an EWKB value that has this SRID: without it, and with 1000 and 2000 for a third and a
/// fourth coordinate.
///
/// # Errors
/// When the value is malformed, or has another SRID.
pub fn well_known(bytes: &[u8], srid: i32) -> Decoded<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = Endian { rest: bytes, is_little: false };
    // What a geometry is made of follows it, so that all lie one behind the other.
    let mut left = 1u64;
    while left > 0 {
        left -= 1;
        let order = rest.bytes(1)?;
        rest.is_little = order == [1];
        out.extend_from_slice(order);
        let flagged = rest.u32()?;
        let kind = flagged & 0x1fff_ffff;
        if flagged & HAS_SRID != 0 && rest.u32()?.cast_signed() != srid {
            return Err(DecodeError::OutOfRange);
        }
        let (has_z, has_m) = (flagged & HAS_Z != 0, flagged & HAS_M != 0);
        let number = kind + 1000 * u32::from(has_z) + 2000 * u32::from(has_m);
        out.extend(if rest.is_little { number.to_le_bytes() } else { number.to_be_bytes() });
        let point = 16 + 8 * usize::from(has_z) + 8 * usize::from(has_m);
        match kind {
            1 => out.extend_from_slice(rest.bytes(point)?),
            2 | 8 => rest.points(point, &mut out)?,
            3 | 17 => {
                for _ in 0..rest.count(&mut out)? {
                    rest.points(point, &mut out)?;
                }
            }
            4..=7 | 9..=12 | 15 | 16 => left += u64::from(rest.count(&mut out)?),
            _ => return Err(DecodeError::Binary),
        }
    }
    if rest.rest.is_empty() { Ok(out) } else { Err(DecodeError::Binary) }
}

/// What is left of bytes whose numbers are in either order.
struct Endian<'a> {
    rest: &'a [u8],
    is_little: bool,
}

impl<'a> Endian<'a> {
    fn bytes(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Binary)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn u32(&mut self) -> Decoded<u32> {
        let bytes = super::fixed(self.bytes(4)?)?;
        Ok(if self.is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// A count, which is written as it is.
    fn count(&mut self, out: &mut Vec<u8>) -> Decoded<u32> {
        let start = self.rest;
        let count = self.u32()?;
        out.extend_from_slice(start.get(..4).unwrap_or_default());
        Ok(count)
    }

    fn points(&mut self, point: usize, out: &mut Vec<u8>) -> Decoded<()> {
        let count = self.count(out)? as usize;
        out.extend_from_slice(self.bytes(count.checked_mul(point).ok_or(DecodeError::Binary)?)?);
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(digits: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytea_digits(digits.as_bytes(), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_declared_srid_is_left_out() {
        let point = "000000000000F03F0000000000000040";
        for (extended, plain) in [
            (format!("0101000020E6100000{point}"), format!("0101000000{point}")),
            (format!("01010000A0E6100000{point}0000000000000840"), format!("01E9030000{point}0000000000000840")),
            // A collection of a point and a line of two points.
            (
                format!("0107000020E6100000020000000101000000{point}010200000002000000{point}{point}"),
                format!("0107000000020000000101000000{point}010200000002000000{point}{point}"),
            ),
            // The other order of bytes; a polygon of one ring of one point.
            (format!("0020000003000010E60000000100000001{point}"), format!("00000000030000000100000001{point}")),
        ] {
            assert_eq!(well_known(&bytes(&extended), 4326), Ok(bytes(&plain)), "{extended}");
            assert!(well_known(&bytes(&extended), 3857).is_err(), "another SRID");
            assert!(well_known(&bytes(&extended[..extended.len() - 2]), 4326).is_err(), "cut");
        }
        assert!(well_known(&bytes("010700000000ffffffff"), 4326).is_err());
    }
}
