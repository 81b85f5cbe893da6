//! How are the parts of a record and of a range quoted? In quotes where they need it, quotes and backslashes doubled.

use super::{DecodeError, Decoded, Element};
use crate::data::RawValue;

/// Takes a part that stands before one of these bytes; `None` where it is empty and not in quotes.
pub(super) fn take_part<'a>(text: &mut &'a [u8], ends: &[u8]) -> Decoded<Option<Element<'a>>> {
    let part = match text.split_first() {
        Some((b'"', quoted)) => Some(take_quoted(quoted, text)?),
        _ => {
            let end = text.iter().position(|byte| ends.contains(byte)).ok_or(DecodeError::Text)?;
            let (part, rest) = text.split_at(end);
            *text = rest;
            if memchr::memchr2(b'"', b'\\', part).is_some() {
                return Err(DecodeError::Text);
            }
            (!part.is_empty()).then_some(Element::Raw(RawValue::Text(part)))
        }
    };
    if text.first().is_some_and(|byte| ends.contains(byte)) { Ok(part) } else { Err(DecodeError::Text) }
}

fn take_quoted<'a>(quoted: &'a [u8], text: &mut &'a [u8]) -> Decoded<Element<'a>> {
    let (mut end, mut is_escaped) = (0, false);
    loop {
        let from = quoted.get(end..).ok_or(DecodeError::Text)?;
        end += memchr::memchr2(b'"', b'\\', from).ok_or(DecodeError::Text)?;
        if quoted.get(end) == Some(&b'"') && quoted.get(end + 1) != Some(&b'"') {
            break;
        }
        is_escaped = true;
        end += 2;
    }
    let (part, rest) = quoted.split_at(end);
    *text = rest.get(1..).unwrap_or_default();
    Ok(if is_escaped { Element::Escaped(part) } else { Element::Raw(RawValue::Text(part)) })
}

/// Puts what was written from `start` on in quotes, where it is empty or has a space, a quote, a backslash, or one of
/// `special`.
pub(super) fn quote_from(start: usize, special: &[u8], out: &mut String) {
    let text = &out[start..];
    let is_special = |byte| matches!(byte, b'"' | b'\\' | b' ' | b'\t'..=b'\r') || special.contains(&byte);
    if !text.is_empty() && !text.bytes().any(is_special) {
        return;
    }
    let text = out.split_off(start);
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push(character);
        }
        out.push(character);
    }
    out.push('"');
}
