//! Which of two numbers of any length is greater? By the texts that the server writes.

use std::cmp::Ordering;

/// A number: its sign, and its digits without zeros that say nothing.
struct Number<'a> {
    is_negative: bool,
    whole: &'a str,
    fraction: &'a str,
}

impl<'a> Number<'a> {
    fn of(text: &'a str) -> Self {
        let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let number =
            Self { is_negative, whole: whole.trim_start_matches('0'), fraction: fraction.trim_end_matches('0') };
        let is_zero = number.whole.is_empty() && number.fraction.is_empty();
        Self { is_negative: is_negative && !is_zero, ..number }
    }

    fn size(&self, other: &Self) -> Ordering {
        let longer = self.whole.len().cmp(&other.whole.len());
        longer.then_with(|| self.whole.cmp(other.whole)).then_with(|| self.fraction.cmp(other.fraction))
    }
}

/// Where a value that is no finite number stands among the others; `NaN` is the greatest.
fn rank(text: &str) -> i8 {
    match text {
        "-Infinity" => -1,
        "Infinity" => 1,
        "NaN" => 2,
        _ => 0,
    }
}

/// Compares two numbers as Postgres does.
pub(super) fn compare(one: &str, other: &str) -> Ordering {
    let ranks = rank(one).cmp(&rank(other));
    if ranks.is_ne() || rank(one) != 0 {
        return ranks;
    }
    let (one, other) = (Number::of(one), Number::of(other));
    match (one.is_negative, other.is_negative) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (false, false) => one.size(&other),
        (true, true) => other.size(&one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_the_order_of_the_server() {
        let ordered = [
            "-Infinity",
            "-1000",
            "-99.5",
            "-99.05",
            "-0.1",
            "0",
            "0.05",
            "0.5",
            "1",
            "1.0000000000000000001",
            "9.99",
            "10",
            "123456789012345678901234567890",
            "Infinity",
            "NaN",
        ];
        for (place, one) in ordered.iter().enumerate() {
            for (other_place, other) in ordered.iter().enumerate() {
                assert_eq!(compare(one, other), place.cmp(&other_place), "{one} and {other}");
            }
        }
        for (one, other) in [("1.0", "1.00"), ("-0", "0.00"), ("007", "7"), (".5", "0.5")] {
            assert_eq!(compare(one, other), Ordering::Equal, "{one} and {other}");
        }
    }
}
