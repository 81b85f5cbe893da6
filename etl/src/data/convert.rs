//! What is a value as one of another kind? The same value, or nothing.

use super::RawValue;
use super::decode;
use crate::schema::Kind;

/// The text of the same value as one of another kind, where there is one.
pub fn converted(text: &str, from: &Kind, to: &Kind) -> Option<String> {
    use Kind::{Bytea, Date, Float4, Float8, Int2, Int4, Int8, Json, Jsonb, Numeric, Oid, Text, Timestamp};
    let text = match (from, to) {
        (_, Text) | (Jsonb, Json) => text.to_owned(),
        (Bytea, _) | (_, Bytea) => return None,
        (Json, Jsonb) => serde_json::from_str::<serde_json::Value>(text).ok().map(|_| text.to_owned())?,
        (_, Json | Jsonb) => return None,
        (Date, Timestamp) => match text.strip_suffix(" BC") {
            Some(date) => format!("{date} 00:00:00 BC"),
            None if text.ends_with("infinity") => text.to_owned(),
            None => format!("{text} 00:00:00"),
        },
        (Timestamp, Date) => text.replacen(" 00:00:00", "", 1),
        (Numeric(_), Int2 | Int4 | Int8 | Oid | Numeric(Some(_))) if text.contains('.') => {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        (Int2 | Int4 | Int8 | Oid | Float4 | Float8, Float4 | Float8) => exact_float(text, from, to)?,
        (_, Float4 | Float8) => return None,
        _ => text.to_owned(),
    };
    is_one(&text, to).then_some(text)
}

/// The text, where the float that is nearest to it is the same number.
fn exact_float(text: &str, from: &Kind, to: &Kind) -> Option<String> {
    let double: f64 = text.parse().ok()?;
    let is_whole = !matches!(from, Kind::Float4 | Kind::Float8);
    let found = if *to == Kind::Float4 { f64::from(double as f32) } else { double };
    let is_same = found == double || found.is_nan();
    let is_exact = is_same && (!is_whole || text.parse::<i128>().is_ok_and(|whole| found as i128 == whole));
    is_exact.then(|| text.to_owned())
}

/// Whether a text is one of a value of this kind.
fn is_one(text: &str, kind: &Kind) -> bool {
    let raw = RawValue::Text(text.as_bytes());
    match kind {
        Kind::Bool => decode::bool(raw).is_ok(),
        Kind::Int2 => decode::int2(raw).is_ok(),
        Kind::Int4 => decode::int4(raw).is_ok(),
        Kind::Int8 => decode::int8(raw).is_ok(),
        Kind::Oid => decode::oid(raw).is_ok(),
        Kind::Float4 => decode::float4(raw).is_ok(),
        Kind::Float8 => decode::float8(raw).is_ok(),
        Kind::Numeric(Some((precision, scale))) => match (u8::try_from(*precision), i8::try_from(*scale)) {
            (Ok(precision @ ..=38), Ok(scale @ 0..)) => decode::numeric_i128(raw, precision, scale).is_ok(),
            // The place that holds it as text has no limit.
            _ => decode::write_text(kind, raw, &mut String::new()).is_ok(),
        },
        Kind::Date => decode::date(raw).is_ok(),
        Kind::Time => decode::time(raw).is_ok(),
        Kind::Timestamp => decode::timestamp(raw).is_ok(),
        Kind::TimestampTz => decode::timestamptz(raw).is_ok(),
        Kind::Uuid => decode::uuid(raw).is_ok(),
        // Whoever makes a list of it reads its elements.
        _ => decode::write_text(kind, raw, &mut String::new()).is_ok(),
    }
}

/// The text of the number of a kind that is nearest to the one in the text: rounded half away from zero, and the largest
/// or smallest where it lies beyond. Nothing for what is no number, and for kinds that are none or take all.
pub fn nearest_number(text: &str, to: &Kind) -> Option<String> {
    let (digits, scale) = match to {
        Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid => (20, 0),
        Kind::Numeric(Some((precision, scale @ 0..))) => (usize::from(*precision), usize::try_from(*scale).ok()?),
        _ => return None,
    };
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let room = digits.checked_sub(scale)?;
    let magnitude = match unsigned {
        "Infinity" => "9".repeat(digits),
        _ => rounded(&plain(unsigned)?, room, scale),
    };
    let (whole, fraction) = magnitude.split_at(magnitude.len() - scale);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if is_negative && magnitude.bytes().any(|digit| digit != b'0') { "-" } else { "" };
    let number = match fraction {
        "" => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{fraction}"),
    };
    Some(within(&number, to))
}

/// The digits of a number that is not negative, without an exponent.
fn plain(text: &str) -> Option<String> {
    let plain = if text.contains(['e', 'E']) { text.parse::<f64>().ok()?.to_string() } else { text.to_owned() };
    let is_number = plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && !plain.is_empty();
    is_number.then_some(plain)
}

/// So many digits after the point, which is left out; all nines where there are more than `room` before it.
fn rounded(plain: &str, room: usize, scale: usize) -> String {
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let rounds_up = fraction.as_bytes().get(scale).is_some_and(|digit| *digit >= b'5');
    let mut digits: Vec<u8> = std::iter::once(b'0').chain(whole.bytes()).chain(fraction.bytes().take(scale)).collect();
    digits.resize(1 + whole.len() + scale, b'0');
    if rounds_up {
        for digit in digits.iter_mut().rev() {
            *digit = if *digit == b'9' { b'0' } else { *digit + 1 };
            if *digit != b'0' {
                break;
            }
        }
    }
    let text: String = digits.into_iter().map(char::from).collect();
    let significant = text[..text.len() - scale].trim_start_matches('0').len();
    if significant > room { "9".repeat(room + scale) } else { text }
}

/// The number, or the end of the kind's range that it lies beyond.
fn within(number: &str, kind: &Kind) -> String {
    let range: Option<(i128, i128)> = match kind {
        Kind::Int2 => Some((i16::MIN.into(), i16::MAX.into())),
        Kind::Int4 => Some((i32::MIN.into(), i32::MAX.into())),
        Kind::Int8 => Some((i64::MIN.into(), i64::MAX.into())),
        Kind::Oid => Some((0, u32::MAX.into())),
        _ => None,
    };
    match (range, number.parse::<i128>()) {
        (Some((least, most)), Ok(number)) => number.clamp(least, most).to_string(),
        _ => number.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_number_is_rounded_and_kept_in_range() {
        let price = Kind::Numeric(Some((5, 2)));
        for (text, to, expected) in [
            ("1.005", &price, Some("1.01")),
            ("-1.005", &price, Some("-1.01")),
            ("0.004", &price, Some("0.00")),
            ("-0.004", &price, Some("0.00")),
            ("999.995", &price, Some("999.99")),
            ("-12345", &price, Some("-999.99")),
            ("7", &price, Some("7.00")),
            ("Infinity", &price, Some("999.99")),
            ("-Infinity", &Kind::Int2, Some("-32768")),
            ("NaN", &price, None),
            ("2.5", &Kind::Int4, Some("3")),
            ("99999999999999999999999", &Kind::Int8, Some("9223372036854775807")),
            ("-1", &Kind::Oid, Some("0")),
            ("1e3", &Kind::Int4, Some("1000")),
            (".5", &Kind::Int4, Some("1")),
            ("x", &Kind::Int4, None),
            ("1", &Kind::Text, None),
        ] {
            assert_eq!(nearest_number(text, to).as_deref(), expected, "{text} as {to:?}");
        }
    }

    #[test]
    fn only_the_same_value_is_converted() {
        for (text, from, to, expected) in [
            ("1.50", Kind::Numeric(None), Kind::Numeric(Some((5, 2))), Some("1.5")),
            ("1.505", Kind::Numeric(None), Kind::Numeric(Some((5, 2))), None),
            ("NaN", Kind::Numeric(None), Kind::Numeric(Some((5, 2))), None),
            ("70000", Kind::Int4, Kind::Int2, None),
            ("16777217", Kind::Int4, Kind::Float4, None),
            ("2024-01-02", Kind::Date, Kind::Timestamp, Some("2024-01-02 00:00:00")),
            ("{1,2}", Kind::Array(std::sync::Arc::new(Kind::Int4)), Kind::Text, Some("{1,2}")),
            ("yes", Kind::Text, Kind::Bool, None),
            ("5.00", Kind::Numeric(None), Kind::Int4, Some("5")),
            ("5.10", Kind::Numeric(None), Kind::Int4, None),
            ("0044-03-15 BC", Kind::Date, Kind::Timestamp, Some("0044-03-15 00:00:00 BC")),
            ("infinity", Kind::Date, Kind::Timestamp, Some("infinity")),
            ("2024-02-29 00:00:00", Kind::Timestamp, Kind::Date, Some("2024-02-29")),
            ("2024-02-29 00:00:01", Kind::Timestamp, Kind::Date, None),
        ] {
            assert_eq!(converted(text, &from, &to).as_deref(), expected, "{text}");
        }
    }
}
