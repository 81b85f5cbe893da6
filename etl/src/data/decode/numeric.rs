//! How is a `numeric` read? As a scaled integer, or as its exact text.
//!
//! Binary form (`numeric_send`): four 16-bit numbers, namely the count of digits, the weight of the first
//! one, the sign, and the number of decimals to show; then the digits, to the base 10000.

use super::{DecodeError, Decoded, missing, utf8};
use crate::data::RawValue;

/// Powers of ten that 128 bits hold.
const POWERS: [u128; 39] = {
    let mut powers = [1; 39];
    let mut i = 1;
    while i < 39 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// The value times ten to the power of `scale`, exactly, with at most `precision` digits (up to 38).
///
/// # Errors
/// When the value is missing, malformed, `NaN`, infinite, or does not fit.
#[inline]
pub fn numeric_i128(raw: RawValue<'_>, precision: u8, scale: i8) -> Decoded<i128> {
    let (is_negative, size) = match raw {
        RawValue::Binary(bytes) => {
            let number = Binary::read(bytes)?;
            (number.finite()?, number.scaled(i32::from(scale))?)
        }
        RawValue::Text(text) => scaled_text(text, i32::from(scale))?,
        RawValue::Null | RawValue::Unchanged => return missing(raw),
    };
    let limit = POWERS.get(usize::from(precision)).ok_or(DecodeError::TooManyDigits)?;
    if size >= *limit {
        return Err(DecodeError::TooManyDigits);
    }
    // Below ten to the power of 38, so that the sign fits too.
    let size = size.cast_signed();
    Ok(if is_negative { -size } else { size })
}

/// Writes the server's text of the value: all digits, with the decimals that it declares, or `NaN`,
/// `Infinity`, `-Infinity`.
///
/// # Errors
/// When the value is missing or malformed.
pub fn write_numeric(raw: RawValue<'_>, out: &mut String) -> Decoded<()> {
    match raw {
        RawValue::Binary(bytes) => Binary::read(bytes)?.write(out),
        RawValue::Text(text) => {
            let text = utf8(text)?;
            check_numeric_text(text)?;
            out.push_str(text);
            Ok(())
        }
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

/// That the text is one that the server writes for a numeric.
pub(crate) fn check_numeric_text(text: &str) -> Decoded<()> {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return Ok(());
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, decimals) = unsigned.split_once('.').map_or((unsigned, None), |(a, b)| (a, Some(b)));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
    if is_digits(whole) && decimals.is_none_or(is_digits) { Ok(()) } else { Err(DecodeError::Text) }
}

const TOO_MANY: DecodeError = DecodeError::TooManyDigits;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const MINUS_INFINITY: u16 = 0xf000;

struct Binary<'a> {
    weight: i32,
    sign: u16,
    decimals: usize,
    digits: &'a [[u8; 2]],
}

impl<'a> Binary<'a> {
    #[inline]
    fn read(bytes: &'a [u8]) -> Decoded<Self> {
        let (header, rest) = bytes.split_first_chunk::<8>().ok_or(DecodeError::Binary)?;
        let [c0, c1, w0, w1, s0, s1, d0, d1] = *header;
        let (digits, odd) = rest.as_chunks::<2>();
        if !odd.is_empty() || digits.len() != usize::from(u16::from_be_bytes([c0, c1])) {
            return Err(DecodeError::Binary);
        }
        Ok(Self {
            weight: i32::from(i16::from_be_bytes([w0, w1])),
            sign: u16::from_be_bytes([s0, s1]),
            decimals: usize::from(u16::from_be_bytes([d0, d1])),
            digits,
        })
    }

    /// Whether it is negative.
    #[inline]
    fn finite(&self) -> Decoded<bool> {
        match self.sign {
            POSITIVE => Ok(false),
            NEGATIVE => Ok(true),
            NAN => Err(DecodeError::NotANumber),
            INFINITY | MINUS_INFINITY => Err(DecodeError::Infinite),
            _ => Err(DecodeError::Binary),
        }
    }

    /// Its size times ten to the power of `scale`.
    #[inline]
    fn scaled(&self, scale: i32) -> Decoded<u128> {
        let mut sum = 0u128;
        // The power of ten of the digit at hand, once scaled.
        let mut power = self.weight * 4 + scale;
        for digit in self.digits {
            let digit = base_10000(*digit)?;
            if power >= 0 {
                sum = sum.checked_mul(10_000).and_then(|sum| sum.checked_add(digit.into())).ok_or(TOO_MANY)?;
            } else if power > -4 {
                let cut = POWERS[power.unsigned_abs() as usize] as u16;
                if digit % cut != 0 {
                    return Err(DecodeError::TooFine);
                }
                let kept = POWERS[(4 + power) as usize];
                sum = sum.checked_mul(kept).and_then(|sum| sum.checked_add((digit / cut).into())).ok_or(TOO_MANY)?;
            } else if digit != 0 {
                return Err(DecodeError::TooFine);
            }
            power -= 4;
        }
        // `power + 4` is that of the last digit: what is left are zeros that the server does not send.
        let zeros = power + 4;
        if zeros <= 0 || sum == 0 {
            return Ok(sum);
        }
        POWERS.get(zeros as usize).and_then(|power| sum.checked_mul(*power)).ok_or(TOO_MANY)
    }

    fn write(&self, out: &mut String) -> Decoded<()> {
        match self.sign {
            NAN => out.push_str("NaN"),
            INFINITY => out.push_str("Infinity"),
            MINUS_INFINITY => out.push_str("-Infinity"),
            POSITIVE | NEGATIVE => {
                let before = out.len();
                if self.sign == NEGATIVE {
                    out.push('-');
                }
                return self.write_digits(out).inspect_err(|_| out.truncate(before));
            }
            _ => return Err(DecodeError::Binary),
        }
        Ok(())
    }

    fn write_digits(&self, out: &mut String) -> Decoded<()> {
        if self.decimals > 0x3fff {
            return Err(DecodeError::Binary);
        }
        if self.weight < 0 {
            out.push('0');
        }
        for place in 0..=self.weight {
            let text = four_digits(self.digit(place)?);
            let leading = if place > 0 { 0 } else { text.iter().take(3).take_while(|digit| **digit == b'0').count() };
            out.extend(text.iter().skip(leading).copied().map(char::from));
        }
        if self.decimals > 0 {
            out.push('.');
        }
        let mut left = self.decimals;
        // The digit of weight 0 is `weight` places after the first; decimals begin with the next one.
        let mut place = self.weight + 1;
        while left > 0 {
            let text = four_digits(self.digit(place)?);
            out.extend(text.iter().take(left).copied().map(char::from));
            left = left.saturating_sub(4);
            place += 1;
        }
        Ok(())
    }

    /// The digit this many places after the first; zero where the server sent none.
    fn digit(&self, place: i32) -> Decoded<u16> {
        match usize::try_from(place).ok().and_then(|place| self.digits.get(place)) {
            Some(digit) => base_10000(*digit),
            None => Ok(0),
        }
    }
}

#[inline]
fn base_10000(digit: [u8; 2]) -> Decoded<u16> {
    let digit = u16::from_be_bytes(digit);
    if digit < 10_000 { Ok(digit) } else { Err(DecodeError::Binary) }
}

fn four_digits(digit: u16) -> [u8; 4] {
    [digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|digit| b'0' + digit as u8)
}

/// Whether the text is negative, and its size times ten to the power of `scale`.
fn scaled_text(text: &[u8], scale: i32) -> Decoded<(bool, u128)> {
    let (is_negative, unsigned) = match text {
        b"NaN" => return Err(DecodeError::NotANumber),
        b"Infinity" | b"-Infinity" => return Err(DecodeError::Infinite),
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (whole, decimals) = match memchr::memchr(b'.', unsigned) {
        Some(at) => (&unsigned[..at], &unsigned[at + 1..]),
        None => (unsigned, &unsigned[unsigned.len()..]),
    };
    if whole.is_empty() || (decimals.is_empty() && whole.len() < unsigned.len()) {
        return Err(DecodeError::Text);
    }
    let kept = decimals.len().min(usize::try_from(scale).unwrap_or(0));
    let (kept, cut) = decimals.split_at(kept);
    let sum = append_digits(append_digits(0, whole)?, kept)?;
    if append_digits(0, cut)? != 0 {
        return Err(DecodeError::TooFine);
    }
    let zeros = scale - kept.len() as i32;
    let power = POWERS.get(zeros.unsigned_abs() as usize).copied();
    let sum = match (sum, power) {
        (0, _) => 0,
        (sum, Some(power)) if zeros >= 0 => sum.checked_mul(power).ok_or(TOO_MANY)?,
        (sum, Some(power)) if sum % power == 0 => sum / power,
        _ if zeros >= 0 => return Err(TOO_MANY),
        _ => return Err(DecodeError::TooFine),
    };
    Ok((is_negative, sum))
}

/// The number with more decimal digits after it.
#[inline]
fn append_digits(number: u128, digits: &[u8]) -> Decoded<u128> {
    let mut number = number;
    // Up to nineteen digits are added in 64 bits.
    for part in digits.chunks(19) {
        let mut sum = 0u64;
        for digit in part {
            let digit = digit.wrapping_sub(b'0');
            if digit > 9 {
                return Err(DecodeError::Text);
            }
            sum = sum * 10 + u64::from(digit);
        }
        number = number.checked_mul(POWERS[part.len()]).and_then(|n| n.checked_add(sum.into())).ok_or(TOO_MANY)?;
    }
    Ok(number)
}
