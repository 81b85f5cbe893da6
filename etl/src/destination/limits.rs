//! What can a destination hold? The limits of its columns, by kind.

use std::collections::HashSet;

use crate::data::RawValue;
use crate::data::decode::{self, DecodeError, Decoded, Element, Interval, Range};
use crate::schema::{Attribute, Kind};

/// The first and the last day of Postgres's calendar, from 2000-01-01 (`datatype/timestamp.h`).
const DAYS: (i32, i32) = (-2_451_545, 2_145_031_948);
/// Its first and last microsecond.
const MICROS: (i64, i64) = (-211_813_488_000_000_000, 9_223_371_331_199_999_999);

/// What the columns of a destination can hold. What lies beyond is an error, or what `on_value` makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueLimits {
    /// Numerics that are declared with so many digits or fewer are decimals, which have no `NaN`; `None`: nothing is lost.
    pub decimal_digits: Option<u16>,
    /// The first and the last date, in days from 2000-01-01.
    pub dates: (i32, i32),
    /// The first and the last timestamp, in microseconds from 2000-01-01.
    pub timestamps: (i64, i64),
    /// Whether dates and timestamps can be infinite.
    pub infinities: bool,
    /// Whether an array is a list: of one dimension, beginning at 1.
    pub lists: bool,
    /// Whether what is made of parts (arrays, composites, ranges) has a type of its own, whose parts have these limits;
    /// where not, it is text, which holds all.
    pub parts: bool,
    /// Which intervals.
    pub intervals: IntervalLimit,
}

/// Which intervals a destination can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntervalLimit {
    /// All.
    None,
    /// Those that are not infinite.
    Finite,
    /// Of these, those whose hours, minutes and seconds are a number of nanoseconds of 64 bits: up to 292 years.
    Nanoseconds,
}

impl Default for ValueLimits {
    fn default() -> Self {
        Self::NONE
    }
}

impl ValueLimits {
    /// All that Postgres has.
    pub const NONE: Self = Self {
        decimal_digits: None,
        dates: DAYS,
        timestamps: MICROS,
        infinities: true,
        lists: false,
        parts: true,
        intervals: IntervalLimit::None,
    };

    /// The classes of values of this kind that cannot be held; none where all can.
    pub fn cannot_hold(&self, kind: &Kind) -> Vec<String> {
        let mut classes = Vec::new();
        self.gather(kind, &mut classes);
        classes
    }

    fn gather(&self, kind: &Kind, classes: &mut Vec<String>) {
        let mut add = |class: String| {
            if !classes.contains(&class) {
                classes.push(class);
            }
        };
        match kind {
            _ if self.is_text(kind) => {}
            Kind::Numeric(of) if self.is_decimal(*of) => add("NaN".to_owned()),
            Kind::Date | Kind::Timestamp | Kind::TimestampTz => {
                if !self.infinities {
                    add("infinity".to_owned());
                }
                self.beyond(kind).into_iter().for_each(add);
            }
            Kind::Interval if self.intervals != IntervalLimit::None => {
                add("infinite intervals".to_owned());
                if self.intervals == IntervalLimit::Nanoseconds {
                    add("intervals with more than 292 years of hours".to_owned());
                }
            }
            Kind::Array(element) => {
                if self.lists {
                    add("arrays of several dimensions, or with a lower bound other than 1".to_owned());
                }
                self.gather(element, classes);
            }
            Kind::Range(element) | Kind::Multirange(element) => self.gather(element, classes),
            Kind::Composite(attributes) if is_struct(attributes) => {
                attributes.iter().for_each(|attribute| self.gather(&attribute.kind, classes));
            }
            _ => {}
        }
    }

    /// What is said of the ends of a calendar that is shorter than Postgres's.
    fn beyond(&self, kind: &Kind) -> Vec<String> {
        let (is_first, is_last) = match kind {
            Kind::Date => (self.dates.0 <= DAYS.0, self.dates.1 >= DAYS.1),
            _ => (self.timestamps.0 <= MICROS.0, self.timestamps.1 >= MICROS.1),
        };
        let day = |at: i32, micros: i64| {
            let mut text = String::new();
            match kind {
                Kind::Date => decode::write_date(at, &mut text),
                _ => decode::write_timestamp(micros, &mut text),
            }
            text
        };
        let before = (!is_first).then(|| format!("before {}", day(self.dates.0, self.timestamps.0)));
        let after = (!is_last).then(|| format!("after {}", day(self.dates.1, self.timestamps.1)));
        before.into_iter().chain(after).collect()
    }

    /// Whether a `numeric(p, s)` is a decimal here.
    fn is_decimal(&self, of: Option<(u16, i16)>) -> bool {
        let Some(((precision, scale), most)) = of.zip(self.decimal_digits) else { return false };
        precision <= most && (0..=i32::from(precision)).contains(&i32::from(scale))
    }

    /// Whether it is made of parts, and text for that.
    fn is_text(&self, kind: &Kind) -> bool {
        let is_made_of_parts =
            matches!(kind, Kind::Array(_) | Kind::Range(_) | Kind::Multirange(_) | Kind::Composite(_));
        is_made_of_parts && !self.parts
    }

    /// Whether the value can be held.
    ///
    /// # Errors
    /// The class of values that it belongs to, which cannot; and whatever makes it unreadable.
    pub fn check(&self, kind: &Kind, raw: RawValue<'_>) -> Decoded<()> {
        if matches!(raw, RawValue::Null | RawValue::Unchanged) {
            return Ok(());
        }
        match kind {
            _ if self.is_text(kind) => Ok(()),
            Kind::Numeric(of) if self.is_decimal(*of) => finite_numeric(raw),
            Kind::Date => self.check_date(decode::date(raw)?),
            Kind::Timestamp => self.check_timestamp(decode::timestamp(raw)?),
            Kind::TimestampTz => self.check_timestamp(decode::timestamptz(raw)?),
            Kind::Interval => self.check_interval(decode::interval(raw)?),
            Kind::Array(element) => self.check_array(element, raw),
            Kind::Range(element) => self.check_range(element, decode::range(raw)?),
            Kind::Multirange(element) => {
                decode::multirange(raw)?.try_for_each(|range| self.check_range(element, range?))
            }
            Kind::Composite(attributes) if is_struct(attributes) => {
                let mut scratch = Vec::new();
                decode::composite(attributes, raw)?.try_for_each(|field| {
                    let (attribute, field) = field?;
                    self.check(&attribute.kind, field.resolve(&mut scratch))
                })
            }
            _ => Ok(()),
        }
    }

    fn check_date(&self, days: i32) -> Decoded<()> {
        match days {
            i32::MIN | i32::MAX if self.infinities => Ok(()),
            i32::MIN | i32::MAX => Err(DecodeError::Infinite),
            days if (self.dates.0..=self.dates.1).contains(&days) => Ok(()),
            _ => Err(DecodeError::OutOfRange),
        }
    }

    fn check_timestamp(&self, micros: i64) -> Decoded<()> {
        match micros {
            i64::MIN | i64::MAX if self.infinities => Ok(()),
            i64::MIN | i64::MAX => Err(DecodeError::Infinite),
            micros if (self.timestamps.0..=self.timestamps.1).contains(&micros) => Ok(()),
            _ => Err(DecodeError::OutOfRange),
        }
    }

    fn check_interval(&self, interval: Interval) -> Decoded<()> {
        match self.intervals {
            IntervalLimit::None => Ok(()),
            _ if matches!(interval, Interval::INFINITY | Interval::MINUS_INFINITY) => Err(DecodeError::Infinite),
            IntervalLimit::Finite => Ok(()),
            IntervalLimit::Nanoseconds => interval.micros.checked_mul(1000).map(drop).ok_or(DecodeError::OutOfRange),
        }
    }

    fn check_array(&self, element: &Kind, raw: RawValue<'_>) -> Decoded<()> {
        let array = decode::array_of(element.delimiter(), raw)?;
        if self.lists && !matches!(array.dimensions(), [] | [(_, 1)]) {
            return Err(DecodeError::ArrayShape);
        }
        let mut scratch = Vec::new();
        array.elements().try_for_each(|value| {
            let raw = match value? {
                Element::Raw(raw) => raw,
                escaped => escaped.resolve(&mut scratch),
            };
            self.check(element, raw)
        })
    }

    fn check_range(&self, element: &Kind, range: Range<'_>) -> Decoded<()> {
        let mut scratch = Vec::new();
        [range.lower, range.upper]
            .into_iter()
            .flatten()
            .try_for_each(|bound| self.check(element, bound.resolve(&mut scratch)))
    }

    /// The text of the nearest value that can be held, of one that cannot; nothing where none is near. Of an array that
    /// does not begin at 1, the same elements from 1 on.
    pub fn nearest(&self, kind: &Kind, raw: RawValue<'_>) -> Option<String> {
        let mut text = String::new();
        match kind {
            Kind::Date => decode::write_date(decode::date(raw).ok()?.clamp(self.dates.0, self.dates.1), &mut text),
            Kind::Timestamp => {
                let micros = decode::timestamp(raw).ok()?.clamp(self.timestamps.0, self.timestamps.1);
                decode::write_timestamp(micros, &mut text);
            }
            Kind::TimestampTz => {
                let micros = decode::timestamptz(raw).ok()?.clamp(self.timestamps.0, self.timestamps.1);
                decode::write_timestamptz(micros, &mut text);
            }
            Kind::Array(element) => {
                let [_] = decode::array_of(element.delimiter(), raw).ok()?.dimensions() else { return None };
                decode::write_text(kind, raw, &mut text).ok()?;
                text = text.split_once('=')?.1.to_owned();
            }
            _ => return None,
        }
        self.check(kind, RawValue::Text(text.as_bytes())).ok().map(|()| text)
    }
}

/// Whether a composite type can be a struct: it has attributes, and nobody can take one for another. It is text where not.
pub fn is_struct(attributes: &[Attribute]) -> bool {
    let names: HashSet<String> = attributes.iter().map(|of| of.name.to_lowercase()).collect();
    !attributes.is_empty() && names.len() == attributes.len()
}

/// The sign of the binary form (`numeric.c`) says what is no number.
fn finite_numeric(raw: RawValue<'_>) -> Decoded<()> {
    match raw {
        RawValue::Text(b"NaN") => Err(DecodeError::NotANumber),
        RawValue::Text(b"Infinity" | b"-Infinity") => Err(DecodeError::Infinite),
        RawValue::Binary(bytes) => match bytes.get(4..6) {
            Some([0xC0, 0x00]) => Err(DecodeError::NotANumber),
            Some([0xD0 | 0xF0, 0x00]) => Err(DecodeError::Infinite),
            Some(_) => Ok(()),
            None => Err(DecodeError::Binary),
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const NARROW: ValueLimits = ValueLimits {
        decimal_digits: Some(38),
        dates: (0, 365),
        timestamps: (0, 86_400_000_000),
        infinities: false,
        lists: true,
        parts: true,
        intervals: IntervalLimit::Nanoseconds,
    };

    #[test]
    fn what_cannot_be_held_is_known_and_has_a_nearest_value_or_none() {
        let list = Kind::Array(Arc::new(Kind::Date));
        for (kind, value, found, nearest) in [
            (Kind::Date, "2000-12-31", Ok(()), None),
            (Kind::Date, "infinity", Err(DecodeError::Infinite), Some("2000-12-31")),
            (Kind::Date, "1999-12-31", Err(DecodeError::OutOfRange), Some("2000-01-01")),
            (Kind::Timestamp, "-infinity", Err(DecodeError::Infinite), Some("2000-01-01 00:00:00")),
            (Kind::TimestampTz, "2001-01-01 00:00:00+00", Err(DecodeError::OutOfRange), Some("2000-01-02 00:00:00+00")),
            (Kind::Numeric(Some((5, 2))), "NaN", Err(DecodeError::NotANumber), None),
            (Kind::Numeric(Some((39, 2))), "NaN", Ok(()), None),
            (Kind::Numeric(None), "Infinity", Ok(()), None),
            (Kind::Interval, "infinity", Err(DecodeError::Infinite), None),
            (list.clone(), "{2000-01-01,NULL}", Ok(()), None),
            (list.clone(), "[0:0]={2000-01-01}", Err(DecodeError::ArrayShape), Some("{2000-01-01}")),
            (list.clone(), "{{2000-01-01}}", Err(DecodeError::ArrayShape), None),
            (list, "{infinity}", Err(DecodeError::Infinite), None),
            (Kind::Range(Arc::new(Kind::Date)), "[2000-01-01,infinity]", Err(DecodeError::Infinite), None),
        ] {
            let raw = RawValue::Text(value.as_bytes());
            assert_eq!(NARROW.check(&kind, raw), found, "{value}");
            if found.is_err() {
                assert_eq!(NARROW.nearest(&kind, raw).as_deref(), nearest, "{value}");
                assert!(!NARROW.cannot_hold(&kind).is_empty(), "{value}");
            }
            let is_made_of_parts = matches!(kind, Kind::Array(_) | Kind::Range(_));
            let text = ValueLimits { parts: false, ..NARROW };
            assert_eq!(text.check(&kind, raw), if is_made_of_parts { Ok(()) } else { found }, "{value}");
            assert_eq!(text.cannot_hold(&kind).is_empty(), is_made_of_parts || NARROW.cannot_hold(&kind).is_empty());
            assert_eq!(ValueLimits::NONE.check(&kind, raw), Ok(()), "{value}");
            assert!(ValueLimits::NONE.cannot_hold(&kind).is_empty(), "{value}");
        }
    }

    #[test]
    fn limits_say_what_lies_beyond_them() {
        assert_eq!(NARROW.cannot_hold(&Kind::Date), ["infinity", "before 2000-01-01", "after 2000-12-31"]);
        let mut binary = [0, 0, 0, 0, 0xC0, 0, 0, 0];
        assert_eq!(finite_numeric(RawValue::Binary(&binary)), Err(DecodeError::NotANumber));
        binary[4] = 0x40;
        assert_eq!(finite_numeric(RawValue::Binary(&binary)), Ok(()));
    }
}
