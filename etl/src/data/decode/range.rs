//! How is a range read? Its bounds in either form, and a multirange as ranges one after the other.

use super::quoted::{quote_from, take_part};
use super::reader::Reader;
use super::{DecodeError, Decoded, Element, missing, text_form};
use crate::data::RawValue;
use crate::schema::Kind;

const EMPTY: u8 = 1;
const LOWER_INCLUSIVE: u8 = 2;
const UPPER_INCLUSIVE: u8 = 4;
const NO_LOWER: u8 = 8;
const NO_UPPER: u8 = 16;

/// A range, whose bounds are values of its element's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range<'a> {
    /// Whether it holds nothing; it then has no bounds.
    pub is_empty: bool,
    /// The lower bound; none where it is unbounded.
    pub lower: Option<Element<'a>>,
    /// The upper bound; none where it is unbounded.
    pub upper: Option<Element<'a>>,
    /// Whether it holds its lower bound.
    pub is_lower_inclusive: bool,
    /// Whether it holds its upper bound.
    pub is_upper_inclusive: bool,
}

impl Range<'_> {
    const EMPTY: Self =
        Range { is_empty: true, lower: None, upper: None, is_lower_inclusive: false, is_upper_inclusive: false };
}

/// Any range.
///
/// # Errors
/// When the value is missing or malformed.
pub fn range(raw: RawValue<'_>) -> Decoded<Range<'_>> {
    match raw {
        RawValue::Binary(bytes) => binary_range(bytes),
        RawValue::Text(mut text) => {
            let range = take_range(&mut text)?;
            if text.is_empty() { Ok(range) } else { Err(DecodeError::Text) }
        }
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

fn binary_range(bytes: &[u8]) -> Decoded<Range<'_>> {
    let mut reader = Reader(bytes);
    let flags = reader.u8()?;
    if flags & EMPTY != 0 {
        reader.end()?;
        return Ok(Range::EMPTY);
    }
    let mut bound = |none: u8| {
        if flags & none != 0 {
            return Ok(None);
        }
        match reader.value()? {
            RawValue::Null => Err(DecodeError::Binary),
            bound => Ok(Some(Element::Raw(bound))),
        }
    };
    let (lower, upper) = (bound(NO_LOWER)?, bound(NO_UPPER)?);
    reader.end()?;
    let (is_lower_inclusive, is_upper_inclusive) = (flags & LOWER_INCLUSIVE != 0, flags & UPPER_INCLUSIVE != 0);
    Ok(Range { is_empty: false, lower, upper, is_lower_inclusive, is_upper_inclusive })
}

fn take_range<'a>(text: &mut &'a [u8]) -> Decoded<Range<'a>> {
    if let Some(rest) = text.strip_prefix(b"empty") {
        *text = rest;
        return Ok(Range::EMPTY);
    }
    let take = |text: &mut &'a [u8]| {
        let (byte, rest) = text.split_first().ok_or(DecodeError::Text)?;
        *text = rest;
        Ok(*byte)
    };
    let is_lower_inclusive = match take(text)? {
        b'[' => true,
        b'(' => false,
        _ => return Err(DecodeError::Text),
    };
    let lower = take_part(text, b",")?;
    take(text)?;
    let upper = take_part(text, b"])")?;
    let is_upper_inclusive = take(text)? == b']';
    Ok(Range { is_empty: false, lower, upper, is_lower_inclusive, is_upper_inclusive })
}

/// The ranges of a multirange, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Ranges<'a> {
    /// `None` once there are no more.
    rest: Option<RawValue<'a>>,
    left: usize,
}

/// Any multirange.
///
/// # Errors
/// When the value is missing or malformed; a range that is not like one is an error once it is its turn.
pub fn multirange(raw: RawValue<'_>) -> Decoded<Ranges<'_>> {
    match raw {
        RawValue::Binary(bytes) => {
            let mut reader = Reader(bytes);
            let left = reader.count(4)?;
            if left == 0 {
                reader.end()?;
            }
            Ok(Ranges { rest: (left > 0).then_some(RawValue::Binary(reader.0)), left })
        }
        RawValue::Text(b"{}") => Ok(Ranges { rest: None, left: 0 }),
        RawValue::Text([b'{', rest @ ..]) => Ok(Ranges { rest: Some(RawValue::Text(rest)), left: 0 }),
        RawValue::Text(_) => Err(DecodeError::Text),
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

impl<'a> Ranges<'a> {
    fn next_binary(&mut self, bytes: &'a [u8]) -> Decoded<Range<'a>> {
        let mut reader = Reader(bytes);
        let range = range(reader.value()?).map_err(|_| DecodeError::Binary)?;
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            reader.end()?;
        } else {
            self.rest = Some(RawValue::Binary(reader.0));
        }
        Ok(range)
    }

    fn next_text(&mut self, mut text: &'a [u8]) -> Decoded<Range<'a>> {
        let range = take_range(&mut text)?;
        match text {
            b"}" => {}
            [b',', rest @ ..] => self.rest = Some(RawValue::Text(rest)),
            _ => return Err(DecodeError::Text),
        }
        Ok(range)
    }
}

impl<'a> Iterator for Ranges<'a> {
    type Item = Decoded<Range<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.rest.take()? {
            RawValue::Binary(bytes) => Some(self.next_binary(bytes)),
            RawValue::Text(text) => Some(self.next_text(text)),
            RawValue::Null | RawValue::Unchanged => None,
        }
    }
}

/// Writes a range as the server does.
pub(super) fn write_range(kind: &Kind, range: Range<'_>, out: &mut String) -> Decoded<()> {
    if range.is_empty {
        out.push_str("empty");
        return Ok(());
    }
    out.push(if range.is_lower_inclusive { '[' } else { '(' });
    write_bound(kind, range.lower, out)?;
    out.push(',');
    write_bound(kind, range.upper, out)?;
    out.push(if range.is_upper_inclusive { ']' } else { ')' });
    Ok(())
}

fn write_bound(kind: &Kind, bound: Option<Element<'_>>, out: &mut String) -> Decoded<()> {
    let Some(bound) = bound else { return Ok(()) };
    let start = out.len();
    text_form::write_text(kind, bound.resolve(&mut Vec::new()), out)?;
    quote_from(start, b"()[],", out);
    Ok(())
}

/// Writes a multirange as the server does.
pub(super) fn write_multirange(kind: &Kind, raw: RawValue<'_>, out: &mut String) -> Decoded<()> {
    out.push('{');
    for (place, range) in multirange(raw)?.enumerate() {
        if place > 0 {
            out.push(',');
        }
        write_range(kind, range?, out)?;
    }
    out.push('}');
    Ok(())
}
