//! How does the server write a float? The shortest decimal that reads back as the same float.
//!
//! As `extra_float_digits` above 0 does: Postgres's Ryu, which never chooses a decimal that lies exactly
//! between two floats, and the exponents below which no exponent is written.

use std::fmt::{self, Write};

/// Writes a `double precision` as the server does.
pub fn write_float8(value: f64, out: &mut String) {
    if write_special(value, out) {
        return;
    }
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52) as i32 & 0x7ff, bits & ((1 << 52) - 1));
    let binary = Binary::of(fraction, exponent, 52, 1075);
    let text = Scientific::of(format_args!("{value:e}"));
    let reads_back = |text: &str| text.parse() == Ok(value);
    let nearest = |digits: usize| Scientific::of(format_args!("{value:.*e}", digits - 1));
    chosen(&text, &binary, 15, 17, nearest, reads_back).write(15, out);
}

/// Writes a `real` as the server does.
pub fn write_float4(value: f32, out: &mut String) {
    if write_special(value.into(), out) {
        return;
    }
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 23) as i32 & 0xff, u64::from(bits & ((1 << 23) - 1)));
    let binary = Binary::of(fraction, exponent, 23, 150);
    let text = Scientific::of(format_args!("{value:e}"));
    let reads_back = |text: &str| text.parse() == Ok(value);
    let nearest = |digits: usize| Scientific::of(format_args!("{value:.*e}", digits - 1));
    chosen(&text, &binary, 6, 9, nearest, reads_back).write(6, out);
}

fn write_special(value: f64, out: &mut String) -> bool {
    out.push_str(match value {
        value if value.is_nan() => "NaN",
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        value if value == 0.0 => {
            if value.is_sign_negative() {
                "-0"
            } else {
                "0"
            }
        }
        _ => return false,
    });
    true
}

/// Of the shortest decimals the nearest one, and a longer one where the shortest lies between two floats.
///
/// Up to `unique` digits there is only one; `enough` digits always read back.
fn chosen(
    shortest: &Scientific,
    binary: &Binary,
    unique: usize,
    enough: usize,
    nearest: impl Fn(usize) -> Scientific,
    reads_back: impl Fn(&str) -> bool,
) -> Scientific {
    let count = shortest.digits().count();
    let is_between = binary.is_boundary(shortest);
    let fits = |decimal: &Scientific| !binary.is_boundary(decimal) && reads_back(decimal.text());
    if is_between {
        return (count..=enough).map(nearest).find(fits).unwrap_or(*shortest);
    }
    if count <= unique {
        return *shortest;
    }
    // Below a power of two the floats are closer, so that the nearest decimal may belong to another one.
    let nearest = nearest(count);
    if fits(&nearest) { nearest } else { *shortest }
}

/// A float as a whole number times a power of two.
struct Binary {
    mantissa: u64,
    exponent: i32,
    /// Whether the float below is only half as far away as the one above.
    is_power: bool,
}

impl Binary {
    fn of(fraction: u64, exponent: i32, bits: u32, bias: i32) -> Self {
        match exponent {
            0 => Self { mantissa: fraction, exponent: 1 - bias, is_power: false },
            _ => Self {
                mantissa: fraction | (1 << bits),
                exponent: exponent - bias,
                is_power: fraction == 0 && exponent > 1,
            },
        }
    }

    /// Whether the decimal lies exactly half way to the next float.
    fn is_boundary(&self, decimal: &Scientific) -> bool {
        let above = (2 * self.mantissa + 1, self.exponent - 1);
        let below = if self.is_power {
            (4 * self.mantissa - 1, self.exponent - 2)
        } else {
            (2 * self.mantissa - 1, self.exponent - 1)
        };
        let (whole, power) = decimal.whole();
        [above, below].iter().any(|(odd, two)| is_equal(whole, power, *odd, *two))
    }
}

/// Whether `whole` times ten to the `ten` is `odd` times two to the `two`.
fn is_equal(whole: u64, ten: i32, odd: u64, two: i32) -> bool {
    let twos = whole.trailing_zeros();
    let (Some(rest), Ok(twos)) = (whole.checked_shr(twos), i32::try_from(twos)) else { return false };
    let Some(fives) = 5u128.checked_pow(ten.unsigned_abs()) else { return false };
    let (left, right) = if ten >= 0 {
        (u128::from(rest).checked_mul(fives), Some(u128::from(odd)))
    } else {
        (Some(u128::from(rest)), u128::from(odd).checked_mul(fives))
    };
    left.is_some() && left == right && twos + ten == two
}

/// A number such as `-1.25e-7`, in a buffer that is large enough for every float.
#[derive(Clone, Copy)]
struct Scientific {
    bytes: [u8; 32],
    length: usize,
}

impl Write for Scientific {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl Scientific {
    fn of(number: fmt::Arguments<'_>) -> Self {
        let mut text = Self { bytes: [0; 32], length: 0 };
        // 17 digits, a point, a sign and an exponent of at most four characters always fit.
        let _ = text.write_fmt(number);
        text
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    /// Mantissa and exponent.
    fn parts(&self) -> (&str, i32) {
        let (mantissa, exponent) = self.text().split_once('e').unwrap_or((self.text(), "0"));
        (mantissa, exponent.parse().unwrap_or_default())
    }

    /// The digits without sign, point, and the zeros that end them.
    fn digits(&self) -> impl Iterator<Item = u8> {
        let digits = self.parts().0.trim_start_matches('-');
        let digits = if digits.contains('.') { digits.trim_end_matches('0') } else { digits };
        digits.bytes().filter(u8::is_ascii_digit)
    }

    /// The digits as a whole number, and the power of ten to multiply it with.
    fn whole(&self) -> (u64, i32) {
        let (mut whole, mut power) = (0u64, self.parts().1 + 1);
        for digit in self.digits() {
            whole = whole.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            power -= 1;
        }
        (whole, power)
    }

    /// Writes it, without an exponent from 1e-4 up to ten to the `limit`.
    fn write(&self, limit: i32, out: &mut String) {
        let (mantissa, exponent) = self.parts();
        if mantissa.starts_with('-') {
            out.push('-');
        }
        let digits = || self.digits().map(char::from);
        let zeros = |count: i32| std::iter::repeat_n('0', usize::try_from(count).unwrap_or(0));
        let count = self.digits().count() as i32;
        if exponent < -4 || exponent >= limit {
            out.extend(digits().take(1));
            if count > 1 {
                out.push('.');
                out.extend(digits().skip(1));
            }
            // Formatting into a string does not fail.
            let _ = write!(out, "e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
        } else if exponent < 0 {
            out.push_str("0.");
            out.extend(zeros(-exponent - 1));
            out.extend(digits());
        } else {
            let whole = exponent.unsigned_abs() as usize + 1;
            out.extend(digits().take(whole));
            out.extend(zeros(exponent + 1 - count));
            if count > exponent + 1 {
                out.push('.');
                out.extend(digits().skip(whole));
            }
        }
    }
}
