//! Which values does the workload write? Ordinary ones, and those that break quoting, escaping and widths.

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

const AWKWARD: &[&str] = &[
    "",
    " ",
    "it''s",
    "back\\slash",
    "tab\there",
    "line\nbreak",
    "carriage\r\nreturn",
    "\\N",
    "NULL",
    "\"quoted\",comma",
    "grüße, 世界 🦆",
    "{braces}",
    "\u{1}control",
];

/// A quoted literal or `null`.
pub(super) fn text(rng: &mut StdRng) -> String {
    match rng.random_range(0..10) {
        0 => "null".to_owned(),
        1 | 2 => format!("'{}'", AWKWARD.choose(rng).copied().unwrap_or_default()),
        _ => format!("'note {:x}'", rng.random::<u32>()),
    }
}

/// A text that Postgres keeps out of line.
pub(super) fn big(rng: &mut StdRng) -> String {
    format!("repeat('{:016x}', {})", rng.random::<u64>(), rng.random_range(180..800))
}

/// Bytes that Postgres keeps out of line, sometimes null.
pub(super) fn huge(rng: &mut StdRng) -> String {
    if rng.random_bool(0.2) {
        return "null".to_owned();
    }
    format!("decode(repeat('{:016x}', {}), 'hex')", rng.random::<u64>(), rng.random_range(400..1500))
}

pub(super) fn integer(rng: &mut StdRng) -> String {
    match rng.random_range(0..12) {
        0 => "null".to_owned(),
        1 => i32::MIN.to_string(),
        2 => i32::MAX.to_string(),
        _ => rng.random_range(-1000..1000).to_string(),
    }
}

pub(super) fn numeric(rng: &mut StdRng) -> String {
    if rng.random_bool(0.1) {
        return "null".to_owned();
    }
    let cents: i64 = rng.random_range(-999_999_999_999..1_000_000_000_000);
    format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100)
}

pub(super) fn time(rng: &mut StdRng) -> String {
    if rng.random_bool(0.1) {
        return "null".to_owned();
    }
    let micros: i64 = rng.random_range(0..4_000_000_000_000_000);
    // Version 14 reads no more seconds or microseconds than an int holds.
    let (days, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let (seconds, rest) = (rest / 1_000_000, rest % 1_000_000);
    format!("timestamptz '1970-01-01 00:00:00+00' + interval '{days} days {seconds}.{rest:06} seconds'")
}

pub(super) fn float(rng: &mut StdRng) -> String {
    match rng.random_range(0..10) {
        0 => "null".to_owned(),
        1 => "'NaN'".to_owned(),
        2 => "'-Infinity'".to_owned(),
        3 => "1e300".to_owned(),
        _ => format!("{:?}", rng.random_range(-1e6..1e6_f64)),
    }
}
