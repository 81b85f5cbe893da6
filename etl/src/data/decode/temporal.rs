//! How are dates and times read? As Postgres's own numbers, so that infinities and any year are exact.
//!
//! Text forms are those of `datestyle ISO`.

use super::reader::Reader;
use super::{DecodeError, Decoded, fixed, missing};
use crate::clock::Timestamp;
use crate::data::RawValue;

const DAY: i64 = 86_400_000_000;
/// Days from 0000-03-01, where the calendar's cycle begins, to 2000-01-01.
const EPOCH: i64 = 730_425;
/// Days in the calendar's cycle of 400 years.
const CYCLE: i64 = 146_097;

/// `date`: days since 2000-01-01; `i32::MIN` and `i32::MAX` are the infinities.
///
/// # Errors
/// When the value is missing, malformed or out of range.
#[inline]
pub fn date(raw: RawValue<'_>) -> Decoded<i32> {
    match raw {
        RawValue::Binary(bytes) => Ok(i32::from_be_bytes(fixed(bytes)?)),
        RawValue::Text(b"infinity") => Ok(i32::MAX),
        RawValue::Text(b"-infinity") => Ok(i32::MIN),
        RawValue::Text(text) => {
            let (text, is_bc) = without_era(text);
            let mut text = Text(text);
            let days = text.days(is_bc)?;
            text.end()?;
            i32::try_from(days).ok().filter(|days| !matches!(*days, i32::MIN | i32::MAX)).ok_or(DecodeError::OutOfRange)
        }
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

/// `time`: microseconds since midnight, up to 24:00:00.
///
/// # Errors
/// When the value is missing, malformed or out of range.
#[inline]
pub fn time(raw: RawValue<'_>) -> Decoded<i64> {
    let time = match raw {
        RawValue::Binary(bytes) => i64::from_be_bytes(fixed(bytes)?),
        RawValue::Text(text) => {
            let mut text = Text(text);
            let time = text.time()?;
            text.end()?;
            time
        }
        RawValue::Null | RawValue::Unchanged => return missing(raw),
    };
    if (0..=DAY).contains(&time) { Ok(time) } else { Err(DecodeError::OutOfRange) }
}

/// `timestamp`: microseconds since 2000-01-01; `i64::MIN` and `i64::MAX` are the infinities.
///
/// # Errors
/// When the value is missing, malformed or out of range.
#[inline]
pub fn timestamp(raw: RawValue<'_>) -> Decoded<i64> {
    moment(raw, false)
}

/// `timestamptz`: microseconds since 2000-01-01 UTC; `i64::MIN` and `i64::MAX` are the infinities.
///
/// # Errors
/// When the value is missing, malformed, without an offset, or out of range.
#[inline]
pub fn timestamptz(raw: RawValue<'_>) -> Decoded<i64> {
    moment(raw, true)
}

#[inline]
fn moment(raw: RawValue<'_>, has_offset: bool) -> Decoded<i64> {
    match raw {
        RawValue::Binary(bytes) => Ok(i64::from_be_bytes(fixed(bytes)?)),
        RawValue::Text(b"infinity") => Ok(i64::MAX),
        RawValue::Text(b"-infinity") => Ok(i64::MIN),
        RawValue::Text(text) => {
            let (text, is_bc) = without_era(text);
            let mut text = Text(text);
            let days = text.days(is_bc)?;
            text.skip(b' ')?;
            let time = text.time()?;
            let offset = if has_offset { text.offset()? } else { 0 };
            text.end()?;
            // In 128 bits nothing overflows: the years have at most seven digits.
            let micros = i128::from(days) * i128::from(DAY) + i128::from(time) - i128::from(offset);
            i64::try_from(micros)
                .ok()
                .filter(|micros| !matches!(*micros, i64::MIN | i64::MAX))
                .ok_or(DecodeError::OutOfRange)
        }
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

#[inline]
fn without_era(text: &[u8]) -> (&[u8], bool) {
    text.strip_suffix(b" BC").map_or((text, false), |text| (text, true))
}

/// What is left of the text.
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn end(&self) -> Decoded<()> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Text) }
    }

    #[inline]
    fn skip(&mut self, byte: u8) -> Decoded<()> {
        let (first, rest) = self.0.split_first().ok_or(DecodeError::Text)?;
        self.0 = rest;
        if *first == byte { Ok(()) } else { Err(DecodeError::Text) }
    }

    #[inline]
    fn two_digits(&mut self) -> Decoded<i64> {
        let ([tens, ones], rest) = self.0.split_first_chunk().ok_or(DecodeError::Text)?;
        self.0 = rest;
        let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
        if tens > 9 || ones > 9 { Err(DecodeError::Text) } else { Ok(i64::from(tens * 10 + ones)) }
    }

    /// `YYYY-MM-DD`, with more digits of the year where it needs them, as days since 2000-01-01.
    #[inline]
    fn days(&mut self, is_bc: bool) -> Decoded<i64> {
        let (high, low) = (self.two_digits()?, self.two_digits()?);
        let mut year = high * 100 + low;
        for _ in 0..3 {
            let Some((digit @ b'0'..=b'9', rest)) = self.0.split_first() else { break };
            year = year * 10 + i64::from(digit - b'0');
            self.0 = rest;
        }
        self.skip(b'-')?;
        let month = self.two_digits()?;
        self.skip(b'-')?;
        let day = self.two_digits()?;
        if year == 0 {
            return Err(DecodeError::Text);
        }
        let year = if is_bc { 1 - year } else { year };
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return Err(DecodeError::Text);
        }
        Ok(days_of(year, month, day))
    }

    /// `HH:MM:SS`, with up to six decimals, in microseconds.
    #[inline]
    fn time(&mut self) -> Decoded<i64> {
        let hours = self.two_digits()?;
        self.skip(b':')?;
        let minutes = self.two_digits()?;
        self.skip(b':')?;
        let seconds = self.two_digits()?;
        if hours > 24 || minutes > 59 || seconds > 59 {
            return Err(DecodeError::Text);
        }
        let mut micros = (hours * 3600 + minutes * 60 + seconds) * 1_000_000;
        if let Some((b'.', rest)) = self.0.split_first() {
            let mut unit = 1_000_000;
            self.0 = rest;
            while let Some((digit @ b'0'..=b'9', rest)) = self.0.split_first() {
                unit /= 10;
                if unit == 0 {
                    return Err(DecodeError::Text);
                }
                micros += i64::from(digit - b'0') * unit;
                self.0 = rest;
            }
        }
        Ok(micros)
    }

    /// `+HH`, `-HH:MM` or `+HH:MM:SS` east of UTC, in microseconds.
    #[inline]
    fn offset(&mut self) -> Decoded<i64> {
        let (sign, rest) = self.0.split_first().ok_or(DecodeError::Text)?;
        self.0 = rest;
        let mut seconds = self.two_digits()? * 3600;
        for unit in [60, 1] {
            if self.0.first() == Some(&b':') {
                self.skip(b':')?;
                seconds += self.two_digits()? * unit;
            }
        }
        match sign {
            b'+' => Ok(seconds * 1_000_000),
            b'-' => Ok(seconds * -1_000_000),
            _ => Err(DecodeError::Text),
        }
    }
}

#[inline]
fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 2000-01-01 of a day in the proleptic Gregorian calendar, in which there is a year 0.
#[inline]
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have the leap day at their end.
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, year_of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    cycle * CYCLE + year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year - EPOCH
}

/// Year, month and day of a number of days since 2000-01-01.
fn civil_of(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let (cycle, day_of_cycle) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (cycle * 400 + year_of_cycle + i64::from(month <= 2), month, day)
}

/// Writes a date as the server does.
pub fn write_date(days: i32, out: &mut String) {
    match days {
        i32::MAX => out.push_str("infinity"),
        i32::MIN => out.push_str("-infinity"),
        days => {
            if write_days(i64::from(days), out) {
                out.push_str(" BC");
            }
        }
    }
}

/// Writes a time of day as the server does. Times outside of a day are written as the nearest within.
pub fn write_time(micros: i64, out: &mut String) {
    let micros = micros.clamp(0, DAY).cast_unsigned();
    let seconds = micros / 1_000_000;
    write_padded(seconds / 3600, 2, out);
    out.push(':');
    write_padded(seconds / 60 % 60, 2, out);
    out.push(':');
    write_padded(seconds % 60, 2, out);
    let mut decimals = micros % 1_000_000;
    if decimals > 0 {
        let mut width = 6;
        while decimals.is_multiple_of(10) {
            decimals /= 10;
            width -= 1;
        }
        out.push('.');
        write_padded(decimals, width, out);
    }
}

/// Writes a timestamp as the server does.
pub fn write_timestamp(micros: i64, out: &mut String) {
    write_moment(micros, "", out);
}

/// Writes a timestamp in UTC as the server does.
pub fn write_timestamptz(micros: i64, out: &mut String) {
    write_moment(micros, "+00", out);
}

/// A moment as RFC 3339 has it.
pub fn rfc3339(at: Timestamp) -> String {
    let mut text = String::new();
    write_timestamptz(at.to_postgres(), &mut text);
    text.replacen(' ', "T", 1).replace("+00", "Z")
}

/// Writes a `timetz`: in binary the time of day, then the seconds west of UTC.
pub(super) fn write_timetz(bytes: &[u8], out: &mut String) -> Decoded<()> {
    let mut reader = Reader(bytes);
    write_time(time(RawValue::Binary(reader.bytes(8)?))?, out);
    let west = reader.i32()?;
    reader.end()?;
    out.push(if west <= 0 { '+' } else { '-' });
    let seconds = u64::from(west.unsigned_abs());
    write_padded(seconds / 3600, 2, out);
    for part in [seconds / 60 % 60, seconds % 60].iter().take(match (seconds / 60 % 60, seconds % 60) {
        (0, 0) => 0,
        (_, 0) => 1,
        _ => 2,
    }) {
        out.push(':');
        write_padded(*part, 2, out);
    }
    Ok(())
}

fn write_moment(micros: i64, offset: &str, out: &mut String) {
    match micros {
        i64::MAX => out.push_str("infinity"),
        i64::MIN => out.push_str("-infinity"),
        micros => {
            let is_bc = write_days(micros.div_euclid(DAY), out);
            out.push(' ');
            write_time(micros.rem_euclid(DAY), out);
            out.push_str(offset);
            if is_bc {
                out.push_str(" BC");
            }
        }
    }
}

/// Writes a day; returns whether it is before the year 1.
fn write_days(days: i64, out: &mut String) -> bool {
    let (year, month, day) = civil_of(days);
    let is_bc = year <= 0;
    write_padded((if is_bc { 1 - year } else { year }).unsigned_abs(), 4, out);
    out.push('-');
    write_padded(month.unsigned_abs(), 2, out);
    out.push('-');
    write_padded(day.unsigned_abs(), 2, out);
    is_bc
}

fn write_padded(number: u64, width: usize, out: &mut String) {
    let mut digits = [b'0'; 20];
    let (mut rest, mut first) = (number, digits.len());
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        if rest == 0 {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        first = place;
    }
    let first = first.min(digits.len() - width);
    out.extend(digits.iter().skip(first).copied().map(char::from));
}
