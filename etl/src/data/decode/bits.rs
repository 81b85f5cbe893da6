//! What is the text of a `bit` or a `varbit`?

use super::reader::Reader;
use super::{DecodeError, Decoded};

/// Writes a string of bits: their number, then the bits, the last byte filled up.
pub(super) fn write_bits(bytes: &[u8], out: &mut String) -> Decoded<()> {
    let mut reader = Reader(bytes);
    let length = usize::try_from(reader.i32()?).map_err(|_| DecodeError::Binary)?;
    if length.div_ceil(8) != reader.0.len() {
        return Err(DecodeError::Binary);
    }
    out.reserve(length);
    let bits = reader.0.iter().flat_map(|byte| (0..8).rev().map(move |place| byte >> place & 1));
    out.extend(bits.take(length).map(|bit| if bit == 1 { '1' } else { '0' }));
    Ok(())
}
