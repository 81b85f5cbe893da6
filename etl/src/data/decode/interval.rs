//! How is an `interval` read? As Postgres's own three numbers, which do not add up to one.
//!
//! Text forms are those of `intervalstyle postgres`.

use std::fmt::Write as _;

use super::reader::Reader;
use super::temporal::write_time;
use super::{DecodeError, Decoded, missing, utf8};
use crate::data::RawValue;

const HOUR: i64 = 3_600_000_000;

/// An interval; since version 17 it is infinite where all three are the largest, or the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Months; twelve are a year.
    pub months: i32,
    /// Days, of whatever length.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

impl Interval {
    /// `infinity`
    pub const INFINITY: Self = Self { months: i32::MAX, days: i32::MAX, micros: i64::MAX };
    /// `-infinity`
    pub const MINUS_INFINITY: Self = Self { months: i32::MIN, days: i32::MIN, micros: i64::MIN };
}

/// `interval`
///
/// # Errors
/// When the value is missing, malformed or out of range.
pub fn interval(raw: RawValue<'_>) -> Decoded<Interval> {
    match raw {
        RawValue::Binary(bytes) => {
            let mut reader = Reader(bytes);
            let (micros, days, months) = (reader.i64()?, reader.i32()?, reader.i32()?);
            reader.end()?;
            Ok(Interval { months, days, micros })
        }
        RawValue::Text(b"infinity") => Ok(Interval::INFINITY),
        RawValue::Text(b"-infinity") => Ok(Interval::MINUS_INFINITY),
        RawValue::Text(text) => of_text(utf8(text)?),
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

fn of_text(text: &str) -> Decoded<Interval> {
    let (mut months, mut days, mut micros) = (0i64, 0i64, 0);
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        if word.contains(':') {
            micros = clock(word)?;
            if words.next().is_some() {
                return Err(DecodeError::Text);
            }
            break;
        }
        let number = i64::from(word.parse::<i32>().map_err(|_| DecodeError::Text)?);
        match words.next() {
            Some("year" | "years") => months += number * 12,
            Some("mon" | "mons") => months += number,
            Some("day" | "days") => days += number,
            _ => return Err(DecodeError::Text),
        }
    }
    let small = |number: i64| i32::try_from(number).map_err(|_| DecodeError::OutOfRange);
    Ok(Interval { months: small(months)?, days: small(days)?, micros })
}

/// `-HH:MM:SS.ffffff`, with as many digits of the hours as they need, in microseconds.
fn clock(text: &str) -> Decoded<i64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (hours, rest) = unsigned.split_once(':').ok_or(DecodeError::Text)?;
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number(hours) || hours.len() < 2 {
        return Err(DecodeError::Text);
    }
    let hours: u32 = hours.parse().map_err(|_| DecodeError::OutOfRange)?;
    let below_an_hour = super::time(RawValue::Text(format!("00:{rest}").as_bytes()))?;
    let micros = i128::from(hours) * i128::from(HOUR) + i128::from(below_an_hour);
    i64::try_from(if text.starts_with('-') { -micros } else { micros }).map_err(|_| DecodeError::OutOfRange)
}

/// Writes an interval as the server does, from version 17 on where it is infinite.
pub fn write_interval(interval: Interval, out: &mut String) {
    match interval {
        Interval::INFINITY => return out.push_str("infinity"),
        Interval::MINUS_INFINITY => return out.push_str("-infinity"),
        _ => {}
    }
    let Interval { months, days, micros } = interval;
    let start = out.len();
    // Whether the field before was negative; a positive one then has a sign.
    let mut is_after_negative = false;
    for (number, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if number == 0 {
            continue;
        }
        let space = if out.len() > start { " " } else { "" };
        let sign = if is_after_negative && number > 0 { "+" } else { "" };
        let plural = if number == 1 { "" } else { "s" };
        // Formatting into a string does not fail.
        let _ = write!(out, "{space}{sign}{number} {unit}{plural}");
        is_after_negative = number < 0;
    }
    if micros == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.push(' ');
    }
    if micros < 0 {
        out.push('-');
    } else if is_after_negative {
        out.push('+');
    }
    let size = micros.unsigned_abs();
    let hour = HOUR.unsigned_abs();
    let _ = write!(out, "{:02}", size / hour);
    // What is left is below an hour, and is written as `00:MM:SS`.
    let mut rest = String::with_capacity(16);
    write_time((size % hour).cast_signed(), &mut rest);
    out.push_str(rest.get(2..).unwrap_or_default());
}
