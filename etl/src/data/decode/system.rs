//! What is the text of the server's own identifiers? Of `"char"`, `pg_lsn`, `tid`, `xid8`, snapshots, and lists of numbers.

use std::fmt::Write as _;

use super::reader::Reader;
use super::{Decoded, array, fixed, text_form};
use crate::data::RawValue;
use crate::schema::Kind;

/// Writes a `"char"`, whose zero is the empty text; beyond ASCII in octal, as servers from version 16 on do.
pub(super) fn write_char(bytes: &[u8], out: &mut String) -> Decoded<()> {
    match fixed(bytes)? {
        [0] => {}
        [byte @ ..0x80] => out.push(char::from(byte)),
        // Formatting into a string does not fail.
        [byte] => drop(write!(out, "\\{byte:03o}")),
    }
    Ok(())
}

/// Writes a `pg_lsn`.
pub(super) fn write_lsn(bytes: &[u8], out: &mut String) -> Decoded<()> {
    let lsn = u64::from_be_bytes(fixed(bytes)?);
    let _ = write!(out, "{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff);
    Ok(())
}

/// Writes a `tid`: block and place in it.
pub(super) fn write_tid(bytes: &[u8], out: &mut String) -> Decoded<()> {
    let mut reader = Reader(bytes);
    let (block, place) = (reader.u32()?, reader.u16()?);
    reader.end()?;
    let _ = write!(out, "({block},{place})");
    Ok(())
}

/// Writes an `xid8`.
pub(super) fn write_xid8(bytes: &[u8], out: &mut String) -> Decoded<()> {
    let _ = write!(out, "{}", u64::from_be_bytes(fixed(bytes)?));
    Ok(())
}

/// Writes a `pg_snapshot`: the first and the next transaction, and those that run.
pub(super) fn write_snapshot(bytes: &[u8], out: &mut String) -> Decoded<()> {
    let mut reader = Reader(bytes);
    let count = reader.count(8)?;
    let _ = write!(out, "{}:{}:", reader.i64()?, reader.i64()?);
    for place in 0..count {
        let comma = if place > 0 { "," } else { "" };
        let _ = write!(out, "{comma}{}", reader.i64()?);
    }
    reader.end()
}

/// Writes an `int2vector` or `oidvector`: in binary an array, in text numbers with spaces between.
pub(super) fn write_spaced(kind: &Kind, raw: RawValue<'_>, out: &mut String) -> Decoded<()> {
    for (place, element) in array(raw)?.elements().enumerate() {
        if place > 0 {
            out.push(' ');
        }
        text_form::write_text(kind, element?.resolve(&mut Vec::new()), out)?;
    }
    Ok(())
}
