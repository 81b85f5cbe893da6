//! What is the text of a network's address? Of `inet`, `cidr`, `macaddr` and `macaddr8`.

use std::fmt::Write as _;

use super::reader::Reader;
use super::{DecodeError, Decoded};

const IP4: u8 = 2;
const IP6: u8 = 3;

/// Writes an `inet` or a `cidr`, which says so itself: family, bits, whether it is a `cidr`, length, address.
pub(super) fn write_network(bytes: &[u8], out: &mut String) -> Decoded<()> {
    let mut reader = Reader(bytes);
    let (family, bits, is_cidr, length) = (reader.u8()?, reader.u8()?, reader.u8()? != 0, reader.u8()?);
    let address = reader.bytes(length.into())?;
    reader.end()?;
    let most = match family {
        IP4 => {
            let [a, b, c, d] = super::fixed(address)?;
            // Formatting into a string does not fail.
            let _ = write!(out, "{a}.{b}.{c}.{d}");
            32
        }
        IP6 => {
            write_ip6(super::fixed(address)?, out);
            128
        }
        _ => return Err(DecodeError::Binary),
    };
    if bits > most {
        return Err(DecodeError::Binary);
    }
    if is_cidr || bits != most {
        let _ = write!(out, "/{bits}");
    }
    Ok(())
}

/// As `inet_net_ntop.c` of the server does: the first of the longest runs of zeros is `::`, and what holds an address of
/// version 4 shows it.
fn write_ip6(address: [u8; 16], out: &mut String) {
    let mut words = [0u16; 8];
    for (word, pair) in words.iter_mut().zip(address.as_chunks::<2>().0) {
        *word = u16::from_be_bytes(*pair);
    }
    let (start, length) = longest_zeros(&words);
    let holds_ip4 = match length {
        6 => true,
        7 => words[7] != 1,
        5 => words[5] == 0xffff,
        _ => false,
    } && start == 0;
    for (place, word) in words.iter().enumerate() {
        if (start..start + length).contains(&place) {
            if place == start {
                out.push(':');
            }
            continue;
        }
        if place != 0 {
            out.push(':');
        }
        if place == 6 && holds_ip4 {
            let [.., a, b, c, d] = address;
            let _ = write!(out, "{a}.{b}.{c}.{d}");
            return;
        }
        let _ = write!(out, "{word:x}");
    }
    if length > 0 && start + length == words.len() {
        out.push(':');
    }
}

/// Where the first of the longest runs of zeros is, and its length; 0 where none has two.
fn longest_zeros(words: &[u16; 8]) -> (usize, usize) {
    let (mut best, mut run) = ((0, 0), 0);
    for (place, word) in words.iter().enumerate() {
        run = if *word == 0 { run + 1 } else { 0 };
        if run > best.1 {
            best = (place + 1 - run, run);
        }
    }
    if best.1 < 2 { (0, 0) } else { best }
}

/// Writes a `macaddr` or `macaddr8`.
pub(super) fn write_mac_address(bytes: &[u8], out: &mut String) -> Decoded<()> {
    if !matches!(bytes.len(), 6 | 8) {
        return Err(DecodeError::Binary);
    }
    for (place, byte) in bytes.iter().enumerate() {
        let colon = if place > 0 { ":" } else { "" };
        let _ = write!(out, "{colon}{byte:02x}");
    }
    Ok(())
}
