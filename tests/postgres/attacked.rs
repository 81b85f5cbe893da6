//! Do bytes do harm that no server sends? What the fuzz targets attack, for some seconds with seeded noise.

use std::time::{Duration, Instant};

use harness::seed::{numbers, seed};
use rand::RngExt;
use rand::rngs::StdRng;

#[path = "../../fuzz/parsers.rs"]
#[allow(unreachable_pub, reason = "a crate of its own where it is fuzzed")]
mod parsers;

/// How long each parser is attacked.
const LASTING: Duration = Duration::from_secs(6);

/// What messages and values are made of: lengths and counts, digits, and all that separates or escapes.
const WORDS: &[&[u8]] = &[
    b"I",
    b"U",
    b"D",
    b"R",
    b"T",
    b"B",
    b"C",
    b"K",
    b"O",
    b"N",
    b"n",
    b"t",
    b"u",
    b"b",
    b"0",
    b"1",
    b"9",
    b"-",
    b"+",
    b".",
    b",",
    b":",
    b";",
    b"/",
    b"{",
    b"}",
    b"(",
    b")",
    b"[",
    b"]",
    b"<",
    b">",
    b"\"",
    b"\\",
    b"\t",
    b"\n",
    b" ",
    b"e",
    b"NaN",
    b"infinity",
    b"empty",
    b"NULL",
    b"BC",
    b"=>",
    b"\0",
    b"\0\0\0\0",
    b"\0\0\0\x01",
    b"\0\0\0\x04",
    b"\0\x01",
    b"\0\x02",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80",
    b"PGCOPY\n\xff\r\n\0",
    "ü".as_bytes(),
];

/// Words, noise, and what came before with a few bytes changed.
fn next(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() || rng.random_ratio(1, 2) {
        bytes.clear();
        for _ in 0..rng.random_range(0..40) {
            match rng.random_range(0..6_u8) {
                0 => bytes.push(rng.random()),
                _ => bytes.extend_from_slice(WORDS[rng.random_range(0..WORDS.len())]),
            }
        }
        return;
    }
    for _ in 0..rng.random_range(1..4) {
        let place = rng.random_range(0..bytes.len());
        match rng.random_range(0..3_u8) {
            0 => bytes[place] = rng.random(),
            1 => drop(bytes.splice(place..place, WORDS[rng.random_range(0..WORDS.len())].iter().copied())),
            _ => bytes.truncate(place.max(1)),
        }
    }
}

fn attacked(place: u64, attack: impl Fn(&[u8])) {
    let seed = seed(7);
    let mut rng = numbers(seed, place);
    let (began, mut bytes, mut times) = (Instant::now(), Vec::new(), 0_u64);
    while began.elapsed() < LASTING {
        for _ in 0..100 {
            next(&mut rng, &mut bytes);
            attack(&bytes);
            times += 1;
        }
    }
    println!("{times} times from seed {seed}");
    assert!(times > 1000, "{times}");
}

#[test]
fn no_message_of_pgoutput_does_harm() {
    attacked(1, parsers::pgoutput::attack);
}

#[test]
fn no_binary_copy_does_harm() {
    attacked(2, parsers::copy_binary::attack);
}

#[test]
fn no_copy_in_text_does_harm() {
    attacked(3, parsers::copy_text::attack);
}

#[test]
fn no_value_does_harm_and_what_is_accepted_survives_a_round_trip() {
    attacked(4, parsers::values::attack);
}

#[test]
fn what_stands_in_place_of_a_value_fits() {
    attacked(5, parsers::limits::attack);
}
