//! How long? Durations as a person writes them: `1s`, `50ms`, `30m`. For `#[serde(with = "etl::duration")]`.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};

const UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a whole number with its unit: `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// What is wrong with the text, for a person to read.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = text[digits.len()..].trim();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let millis = digits.parse::<u64>().ok().zip(factor).and_then(|(n, factor)| n.checked_mul(factor));
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a duration; write a whole number and a unit, such as 500ms, 1s or 30m"))
}

/// Writes it with the largest unit that leaves a whole number.
pub fn format(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = UNITS.iter().find(|(_, factor)| millis >= *factor && millis.is_multiple_of(*factor));
    let (name, factor) = unit.unwrap_or(&("ms", 1));
    format!("{}{name}", millis / factor)
}

/// For serde.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    format(*duration).serialize(serializer)
}

/// For serde.
///
/// # Errors
/// Where the text is not a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(D::Error::custom)
}

/// The same for a value that may be left out.
pub mod optional {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    /// Reads a duration.
    ///
    /// # Errors
    /// When the text is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Written(#[serde(with = "super")] Duration);
        Ok(Option::<Written>::deserialize(deserializer)?.map(|written| written.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_survives_its_text() {
        for (text, millis) in [("50ms", 50), ("1s", 1_000), ("30m", 1_800_000), ("2 h", 7_200_000), ("0s", 0)] {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis), "{text}");
            assert_eq!(parse(&format(Duration::from_millis(millis))).unwrap(), Duration::from_millis(millis));
        }
        for bad in ["", "1", "s", "-1s", "1.5s", "1 year", "99999999999999999d"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
