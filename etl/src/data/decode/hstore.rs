//! How is an `hstore` read? Pair by pair, in either form.

use super::reader::Reader;
use super::{DecodeError, Decoded, Element, missing, utf8};
use crate::data::RawValue;

/// The pairs of an `hstore`, one after the other; a value may be null.
#[derive(Debug, Clone, Copy)]
pub struct Pairs<'a> {
    rest: RawValue<'a>,
    left: usize,
}

/// `hstore`
///
/// # Errors
/// When the value is missing or malformed; a pair that is not like one is an error once it is its turn.
pub fn hstore(raw: RawValue<'_>) -> Decoded<Pairs<'_>> {
    match raw {
        RawValue::Binary(bytes) => {
            let mut reader = Reader(bytes);
            let left = reader.count(8)?;
            if left == 0 {
                reader.end()?;
            }
            Ok(Pairs { rest: RawValue::Binary(reader.0), left })
        }
        RawValue::Text(text) => Ok(Pairs { rest: raw, left: usize::from(!text.is_empty()) }),
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

impl<'a> Pairs<'a> {
    fn next_binary(&mut self, bytes: &'a [u8]) -> Decoded<(Element<'a>, Element<'a>)> {
        let mut reader = Reader(bytes);
        let (key, value) = (reader.value()?, reader.value()?);
        if key == RawValue::Null {
            return Err(DecodeError::Binary);
        }
        self.left -= 1;
        if self.left == 0 {
            reader.end()?;
        }
        self.rest = RawValue::Binary(reader.0);
        Ok((Element::Raw(key), Element::Raw(value)))
    }

    fn next_text(&mut self, mut text: &'a [u8]) -> Decoded<(Element<'a>, Element<'a>)> {
        let key = take_quoted(&mut text)?;
        text = text.strip_prefix(b"=>").ok_or(DecodeError::Text)?;
        let value = match text.strip_prefix(b"NULL") {
            Some(rest) => {
                text = rest;
                Element::Raw(RawValue::Null)
            }
            None => take_quoted(&mut text)?,
        };
        if text.is_empty() {
            self.left = 0;
        } else {
            text = text.strip_prefix(b", ").ok_or(DecodeError::Text)?;
        }
        self.rest = RawValue::Text(text);
        Ok((key, value))
    }
}

fn take_quoted<'a>(text: &mut &'a [u8]) -> Decoded<Element<'a>> {
    let quoted = text.strip_prefix(b"\"").ok_or(DecodeError::Text)?;
    super::array::take_quoted(quoted, text)
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Decoded<(Element<'a>, Element<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let pair = match self.rest {
            RawValue::Binary(bytes) => self.next_binary(bytes),
            RawValue::Text(text) => self.next_text(text),
            RawValue::Null | RawValue::Unchanged => missing(self.rest),
        };
        if pair.is_err() {
            self.left = 0;
        }
        Some(pair)
    }
}

/// Writes an `hstore` as the server does.
pub(super) fn write_hstore(raw: RawValue<'_>, out: &mut String) -> Decoded<()> {
    let mut scratch = Vec::new();
    for (place, pair) in hstore(raw)?.enumerate() {
        let (key, value) = pair?;
        if place > 0 {
            out.push_str(", ");
        }
        write_quoted(key.resolve(&mut scratch), out)?;
        out.push_str("=>");
        match value.resolve(&mut scratch) {
            RawValue::Null => out.push_str("NULL"),
            value => write_quoted(value, out)?,
        }
    }
    Ok(())
}

fn write_quoted(raw: RawValue<'_>, out: &mut String) -> Decoded<()> {
    let text = match raw {
        RawValue::Text(bytes) | RawValue::Binary(bytes) => utf8(bytes)?,
        RawValue::Null | RawValue::Unchanged => return missing(raw),
    };
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
    Ok(())
}
