//! How is an array read? Its shape first, then element by element, in both forms.

use super::{DecodeError, Decoded, missing};
use crate::data::RawValue;

/// The most dimensions that Postgres allows.
pub const MAX_DIMENSIONS: usize = 6;

/// An array whose shape is known.
#[derive(Debug, Clone, Copy)]
pub struct Array<'a> {
    dimensions: [(u32, i32); MAX_DIMENSIONS],
    depth: usize,
    length: usize,
    elements: Elements<'a>,
}

impl<'a> Array<'a> {
    /// Length and lower bound of each dimension; empty for `{}`.
    pub fn dimensions(&self) -> &[(u32, i32)] {
        &self.dimensions[..self.depth]
    }

    /// The number of all elements.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The elements, the last dimension varying fastest. Exactly [`Array::len`], or an error before that.
    pub fn elements(&self) -> Elements<'a> {
        self.elements
    }
}

/// One element as it lies in the array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element<'a> {
    /// A value of the element's type.
    Raw(RawValue<'a>),
    /// A text with a backslash, or a quote before a quote, before some bytes.
    Escaped(&'a [u8]),
}

impl<'a> Element<'a> {
    /// The element's value; `scratch` is overwritten where there is something to take out.
    #[inline]
    pub fn resolve<'b>(self, scratch: &'b mut Vec<u8>) -> RawValue<'b>
    where
        'a: 'b,
    {
        let text = match self {
            Self::Raw(raw) => return raw,
            Self::Escaped(text) => text,
        };
        scratch.clear();
        let mut rest = text;
        while let Some(at) = memchr::memchr2(b'\\', b'"', rest) {
            let (plain, escaped) = rest.split_at(at);
            scratch.extend_from_slice(plain);
            scratch.extend(escaped.get(1));
            rest = escaped.get(2..).unwrap_or_default();
        }
        scratch.extend_from_slice(rest);
        RawValue::Text(scratch)
    }
}

/// The elements of an array, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Elements<'a> {
    rest: &'a [u8],
    left: usize,
    is_binary: bool,
    delimiter: u8,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Decoded<Element<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let element = if self.is_binary { self.next_binary() } else { self.next_text() };
        if element.is_err() {
            self.left = 0;
        }
        Some(element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

impl<'a> Elements<'a> {
    #[inline]
    fn next_binary(&mut self) -> Decoded<Element<'a>> {
        let length = take_i32(&mut self.rest)?;
        let value = if length == -1 {
            RawValue::Null
        } else {
            let length = usize::try_from(length).map_err(|_| DecodeError::Binary)?;
            let (value, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Binary)?;
            self.rest = rest;
            RawValue::Binary(value)
        };
        if self.left == 0 && !self.rest.is_empty() {
            return Err(DecodeError::Binary);
        }
        Ok(Element::Raw(value))
    }

    fn next_text(&mut self) -> Decoded<Element<'a>> {
        loop {
            match take_token(&mut self.rest, self.delimiter)? {
                Token::Element(element) => return Ok(element),
                Token::Open | Token::Close | Token::Delimiter => {}
            }
        }
    }
}

/// An array whose elements have commas between them: reads its shape, and in text form checks all of it.
///
/// # Errors
/// When the value is missing or malformed.
pub fn array(raw: RawValue<'_>) -> Decoded<Array<'_>> {
    array_of(b',', raw)
}

/// An array whose elements have this [delimiter](crate::schema::Kind::delimiter) between them.
///
/// # Errors
/// When the value is missing or malformed.
pub fn array_of(delimiter: u8, raw: RawValue<'_>) -> Decoded<Array<'_>> {
    match raw {
        RawValue::Binary(bytes) => binary_array(bytes),
        RawValue::Text(text) => text_array(text, delimiter),
        RawValue::Null | RawValue::Unchanged => missing(raw),
    }
}

fn binary_array(bytes: &[u8]) -> Decoded<Array<'_>> {
    let mut rest = bytes;
    let depth = usize::try_from(take_i32(&mut rest)?).map_err(|_| DecodeError::Binary)?;
    let has_nulls = take_i32(&mut rest)?;
    let _element_oid = take_i32(&mut rest)?;
    if depth > MAX_DIMENSIONS || !matches!(has_nulls, 0 | 1) {
        return Err(DecodeError::Binary);
    }
    let mut dimensions = [(0, 1); MAX_DIMENSIONS];
    let mut count = usize::from(depth > 0);
    for dimension in dimensions.iter_mut().take(depth) {
        let length = u32::try_from(take_i32(&mut rest)?).map_err(|_| DecodeError::Binary)?;
        *dimension = (length, take_i32(&mut rest)?);
        count = count.checked_mul(length as usize).ok_or(DecodeError::Binary)?;
    }
    // Each element has at least its length.
    if count > rest.len() / 4 || (count == 0 && !rest.is_empty()) {
        return Err(DecodeError::Binary);
    }
    let depth = if count == 0 { 0 } else { depth };
    let elements = Elements { rest, left: count, is_binary: true, delimiter: b',' };
    Ok(Array { dimensions, depth, length: count, elements })
}

#[inline]
fn take_i32(bytes: &mut &[u8]) -> Decoded<i32> {
    let (number, rest) = bytes.split_first_chunk().ok_or(DecodeError::Binary)?;
    *bytes = rest;
    Ok(i32::from_be_bytes(*number))
}

fn text_array(text: &[u8], delimiter: u8) -> Decoded<Array<'_>> {
    let mut rest = text;
    let mut dimensions = [(0, 1); MAX_DIMENSIONS];
    let bounds = take_bounds(&mut rest, &mut dimensions)?;
    let elements = |rest, left| Elements { rest, left, is_binary: false, delimiter };
    if rest == b"{}" && bounds == 0 {
        return Ok(Array { dimensions, depth: 0, length: 0, elements: elements(b"", 0) });
    }
    let (lengths, depth, count) = shape(rest, delimiter)?;
    if bounds != 0 && bounds != depth {
        return Err(DecodeError::Text);
    }
    for (dimension, length) in dimensions.iter_mut().zip(lengths).take(depth) {
        if bounds != 0 && dimension.0 != length {
            return Err(DecodeError::Text);
        }
        dimension.0 = length;
    }
    Ok(Array { dimensions, depth, length: count, elements: elements(rest, count) })
}

/// Reads `[1:3][0:1]=`, which stands before the braces where a lower bound is not 1. Returns the number of
/// dimensions, 0 where it is not there.
fn take_bounds(text: &mut &[u8], dimensions: &mut [(u32, i32); MAX_DIMENSIONS]) -> Decoded<usize> {
    let mut depth = 0;
    while let Some((b'[', rest)) = text.split_first() {
        let end = memchr::memchr(b']', rest).ok_or(DecodeError::Text)?;
        let (bounds, after) = rest.split_at(end);
        let bounds = super::utf8(bounds)?.split_once(':').ok_or(DecodeError::Text)?;
        let number = |text: &str| text.parse::<i32>().map_err(|_| DecodeError::Text);
        let (lower, upper) = (number(bounds.0)?, number(bounds.1)?);
        let length = i64::from(upper) - i64::from(lower) + 1;
        let length = u32::try_from(length).map_err(|_| DecodeError::Text)?;
        *dimensions.get_mut(depth).ok_or(DecodeError::Text)? = (length, lower);
        depth += 1;
        *text = after.get(1..).unwrap_or_default();
    }
    if depth > 0 {
        *text = text.strip_prefix(b"=").ok_or(DecodeError::Text)?;
    }
    Ok(depth)
}

enum Token<'a> {
    Open,
    Close,
    Delimiter,
    Element(Element<'a>),
}

fn take_token<'a>(text: &mut &'a [u8], delimiter: u8) -> Decoded<Token<'a>> {
    let (first, after) = text.split_first().ok_or(DecodeError::Text)?;
    let token = match first {
        b'{' => Token::Open,
        b'}' => Token::Close,
        byte if *byte == delimiter => Token::Delimiter,
        b'"' => return Ok(Token::Element(take_quoted(after, text)?)),
        _ => {
            let is_end = |byte: &u8| *byte == delimiter || matches!(byte, b'{' | b'}' | b'"' | b'\\');
            let end = text.iter().position(is_end);
            let (element, rest) = text.split_at(end.ok_or(DecodeError::Text)?);
            *text = rest;
            let raw = if element == b"NULL" { RawValue::Null } else { RawValue::Text(element) };
            return Ok(Token::Element(Element::Raw(raw)));
        }
    };
    *text = after;
    Ok(token)
}

/// Takes an element whose opening quote is taken already.
pub(super) fn take_quoted<'a>(quoted: &'a [u8], text: &mut &'a [u8]) -> Decoded<Element<'a>> {
    let (mut end, mut is_escaped) = (0, false);
    loop {
        let from = quoted.get(end..).ok_or(DecodeError::Text)?;
        end += memchr::memchr2(b'"', b'\\', from).ok_or(DecodeError::Text)?;
        if quoted.get(end) == Some(&b'"') {
            break;
        }
        is_escaped = true;
        end += 2;
    }
    let (element, rest) = quoted.split_at(end);
    *text = rest.get(1..).unwrap_or_default();
    Ok(if is_escaped { Element::Escaped(element) } else { Element::Raw(RawValue::Text(element)) })
}

/// Walks over all of an array that is not empty: the length of each dimension, their number, and the number
/// of elements.
fn shape(text: &[u8], delimiter: u8) -> Decoded<([u32; MAX_DIMENSIONS], usize, usize)> {
    let mut rest = text;
    let mut lengths = [None; MAX_DIMENSIONS];
    let mut counts = [0u32; MAX_DIMENSIONS];
    let (mut open, mut depth, mut total) = (0, None, 0);
    // Whether an element or a sub-array has just ended, so that a comma or brace must follow.
    let mut is_after_item = false;
    loop {
        match take_token(&mut rest, delimiter)? {
            Token::Open if !is_after_item && open < depth.unwrap_or(MAX_DIMENSIONS) => {
                counts[open] = 0;
                open += 1;
                continue;
            }
            Token::Delimiter if is_after_item => {
                is_after_item = false;
                continue;
            }
            Token::Element(_) if !is_after_item && open > 0 && *depth.get_or_insert(open) == open => total += 1,
            Token::Close if is_after_item => {
                open -= 1;
                if *lengths[open].get_or_insert(counts[open]) != counts[open] {
                    return Err(DecodeError::Text);
                }
                if open == 0 {
                    break;
                }
            }
            _ => return Err(DecodeError::Text),
        }
        counts[open - 1] += 1;
        is_after_item = true;
    }
    if !rest.is_empty() {
        return Err(DecodeError::Text);
    }
    Ok((lengths.map(Option::unwrap_or_default), depth.unwrap_or_default(), total))
}

/// Writes an array as the server does; `element` writes the text of the next element and returns true, or
/// returns false for a null.
pub(crate) fn write_array(
    dimensions: &[(u32, i32)],
    delimiter: u8,
    out: &mut String,
    mut element: impl FnMut(&mut String) -> Decoded<bool>,
) -> Decoded<()> {
    use std::fmt::Write as _;
    if dimensions.is_empty() || dimensions.iter().any(|(length, _)| *length == 0) {
        out.push_str("{}");
        return Ok(());
    }
    if dimensions.iter().any(|(_, lower)| *lower != 1) {
        for (length, lower) in dimensions {
            // Formatting into a string does not fail.
            let _ = write!(out, "[{lower}:{}]", i64::from(*lower) + i64::from(*length) - 1);
        }
        out.push('=');
    }
    let mut done = vec![0; dimensions.len()];
    let mut place = 0;
    out.push('{');
    loop {
        // Down to the elements, then up to the first dimension that goes on.
        while place + 1 < dimensions.len() {
            out.push('{');
            place += 1;
        }
        let start = out.len();
        if element(out)? {
            quote_from(start, delimiter, out);
        } else {
            out.push_str("NULL");
        }
        loop {
            done[place] += 1;
            if done[place] < dimensions[place].0 {
                out.push(char::from(delimiter));
                break;
            }
            done[place] = 0;
            out.push('}');
            if place == 0 {
                return Ok(());
            }
            place -= 1;
        }
    }
}

/// Puts what was written from `start` on in quotes, where the server would.
fn quote_from(start: usize, delimiter: u8, out: &mut String) {
    let text = &out[start..];
    let is_special = |byte| byte == delimiter || matches!(byte, b'"' | b'\\' | b'{' | b'}' | b' ' | b'\t'..=b'\r');
    if !text.is_empty() && !text.eq_ignore_ascii_case("NULL") && !text.bytes().any(is_special) {
        return;
    }
    let text = out.split_off(start);
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}
