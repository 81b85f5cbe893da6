//! How is a composite read? Attribute by attribute, in either form.

use super::quoted::{quote_from, take_part};
use super::reader::Reader;
use super::{DecodeError, Decoded, Element, missing, text_form};
use crate::data::RawValue;
use crate::schema::{Attribute, Kind};

/// The attributes of a composite, one after the other: exactly as many as its type has, or an error before that.
#[derive(Debug, Clone)]
pub struct Fields<'a, 'k> {
    attributes: std::slice::Iter<'k, Attribute>,
    rest: RawValue<'a>,
}

/// Any composite, whose type has these attributes.
///
/// # Errors
/// When the value is missing or malformed, or has other attributes.
pub fn composite<'a, 'k>(attributes: &'k [Attribute], raw: RawValue<'a>) -> Decoded<Fields<'a, 'k>> {
    let rest = match raw {
        RawValue::Binary(bytes) => {
            let mut reader = Reader(bytes);
            // Each has at least its type and its length.
            if reader.count(8)? != attributes.len() {
                return Err(DecodeError::Altered);
            }
            if attributes.is_empty() {
                reader.end()?;
            }
            RawValue::Binary(reader.0)
        }
        RawValue::Text(b"()") if attributes.is_empty() => RawValue::Text(b""),
        RawValue::Text([b'(', rest @ ..]) => RawValue::Text(rest),
        RawValue::Text(_) => return Err(DecodeError::Text),
        RawValue::Null | RawValue::Unchanged => return missing(raw),
    };
    Ok(Fields { attributes: attributes.iter(), rest })
}

impl<'a> Fields<'a, '_> {
    fn next_binary(&mut self, attribute: &Attribute, bytes: &'a [u8]) -> Decoded<Element<'a>> {
        let mut reader = Reader(bytes);
        if reader.u32()? != attribute.type_oid {
            return Err(DecodeError::Altered);
        }
        let value = reader.value()?;
        if self.attributes.len() == 0 {
            reader.end()?;
        }
        self.rest = RawValue::Binary(reader.0);
        Ok(Element::Raw(value))
    }

    fn next_text(&mut self, mut text: &'a [u8]) -> Decoded<Element<'a>> {
        let field = take_part(&mut text, b",)")?.unwrap_or(Element::Raw(RawValue::Null));
        let (end, rest) = text.split_first().ok_or(DecodeError::Text)?;
        let is_last = self.attributes.len() == 0;
        if (*end == b')') != is_last || (is_last && !rest.is_empty()) {
            return Err(DecodeError::Altered);
        }
        self.rest = RawValue::Text(rest);
        Ok(field)
    }
}

impl<'a, 'k> Iterator for Fields<'a, 'k> {
    type Item = Decoded<(&'k Attribute, Element<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let attribute = self.attributes.next()?;
        let field = match self.rest {
            RawValue::Binary(bytes) => self.next_binary(attribute, bytes),
            RawValue::Text(text) => self.next_text(text),
            RawValue::Null | RawValue::Unchanged => missing(self.rest),
        };
        Some(field.map(|field| (attribute, field)))
    }
}

/// Writes a composite as the server does. Each value says which type it has, so that a type that was altered since does
/// no harm unless it has got an attribute of a type that is not known.
pub(super) fn write_composite(attributes: &[Attribute], bytes: &[u8], out: &mut String) -> Decoded<()> {
    let mut reader = Reader(bytes);
    out.push('(');
    for place in 0..reader.count(8)? {
        if place > 0 {
            out.push(',');
        }
        let (type_oid, value) = (reader.u32()?, reader.value()?);
        if value == RawValue::Null {
            continue;
        }
        let start = out.len();
        match attributes.get(place).filter(|attribute| attribute.type_oid == type_oid) {
            Some(attribute) => text_form::write_text(&attribute.kind, value, out)?,
            None => text_form::write_text(&kind_of(attributes, type_oid)?, value, out)?,
        }
        quote_from(start, b"(),", out);
    }
    out.push(')');
    reader.end()
}

#[cold]
fn kind_of(attributes: &[Attribute], type_oid: u32) -> Decoded<Kind> {
    let known = attributes.iter().find(|attribute| attribute.type_oid == type_oid).map(|known| known.kind.clone());
    known.or_else(|| Kind::of_builtin(type_oid, -1)).ok_or(DecodeError::Altered)
}
