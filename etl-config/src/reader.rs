//! What do the texts mean? Reads a part of the tree into its struct and collects every problem on the way.

use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use crate::problems::Problem;
use crate::spelling;
use crate::tree::{Content, Node, Scalar, Step, path_text};

/// Keys whose values are never shown.
const SECRET_KEYS: &[&str] = &["url", "password", "passphrase", "secret", "token", "key", "hash"];

/// Keys and values that are designed and not built yet.
const PLANNED: &[&str] = &[];

/// Reads what stands under `path`; `None` when too little of it is right.
///
/// A problem takes its value out of the tree, and the rest is read again, so that every problem is found.
pub(crate) fn read<T: DeserializeOwned>(node: &mut Node, path: &[Step], problems: &mut Vec<Problem>) -> Option<T> {
    loop {
        let error = match T::deserialize(NodeReader { node }) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let steps: Vec<Step> = error.path.iter().rev().cloned().collect();
        let whole: Vec<Step> = path.iter().chain(&steps).cloned().collect();
        let (missing, place) = match error.missing {
            Some(field) => (Some([steps.as_slice(), &[Step::Key(field.to_owned())]].concat()), steps),
            None => (None, steps),
        };
        let is_removed = |node: &mut Node| matches!(node.content, Content::Removed);
        let is_known = error.is_known || missing.is_some_and(|path| node.at_mut(&path).is_some_and(is_removed));
        let culprit = node.at_mut(&place).filter(|node| !matches!(node.content, Content::Removed))?;
        if !is_known {
            problems.push(problem(&error, &whole, culprit));
        }
        if place.is_empty() {
            return None;
        }
        culprit.content = Content::Removed;
    }
}

fn problem(error: &ReadError, path: &[Step], node: &Node) -> Problem {
    let key = match path.last() {
        Some(Step::Key(key)) => key.as_str(),
        _ => "",
    };
    let mut shown = path_text(path);
    if let Some(field) = error.missing {
        shown.extend([if path.is_empty() { "" } else { "." }, field]);
    }
    let mut problem = Problem::new(&shown, error.message(key)).at(&node.origin);
    if let Content::Scalar(scalar) = &node.content
        && !error.unknown_key
    {
        problem = without_secrets(problem, key, scalar);
    }
    if let Some(hint) = error.hint(path, node) {
        problem = problem.hint(hint);
    }
    problem
}

/// Adds the value where it may be shown, and takes it out of the message where not.
fn without_secrets(mut problem: Problem, key: &str, scalar: &Scalar) -> Problem {
    let secret = SECRET_KEYS.iter().any(|name| key == *name || key.ends_with(&format!("_{name}")));
    let shown = if secret { None } else { Some(scalar.written.as_ref().unwrap_or(&scalar.text)) };
    if shown != Some(&scalar.text) && !scalar.text.is_empty() {
        problem.message = problem.message.replace(&scalar.text, "***");
    }
    problem.value = shown.cloned();
    problem
}

/// Whether a key or a value is designed and not built yet.
fn is_planned(path: &[Step], value: Option<&str>) -> bool {
    let keys = path.iter().filter_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Item(_) => None,
    });
    let written = keys.chain(value).collect::<Vec<_>>().join(".");
    PLANNED.contains(&written.as_str())
}

/// What serde has to say, and where in the tree, innermost step first.
#[derive(Debug, Default)]
struct ReadError {
    path: Vec<Step>,
    text: String,
    unknown_key: bool,
    missing: Option<&'static str>,
    /// It follows from a problem that was found before.
    is_known: bool,
    expected: &'static [&'static str],
}

impl ReadError {
    fn under(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    fn message(&self, key: &str) -> String {
        if self.unknown_key { format!("unknown key `{key}`") } else { self.text.clone() }
    }

    fn hint(&self, path: &[Step], node: &Node) -> Option<String> {
        let (written, value) = match (&node.content, self.unknown_key, path.last()) {
            (_, true, Some(Step::Key(key))) => (key.as_str(), None),
            (Content::Scalar(scalar), ..) => (scalar.text.as_str(), Some(scalar.text.as_str())),
            _ => return None,
        };
        if is_planned(path, value) {
            return Some("It is not available in this version".to_owned());
        }
        let names = self.expected.iter().copied();
        match spelling::nearest(written, names.clone()) {
            Some(near) => Some(format!("Did you mean `{near}`?")),
            None if self.expected.is_empty() => None,
            None => Some(format!("Possible here: {}", names.collect::<Vec<_>>().join(", "))),
        }
    }
}

impl Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: Display>(text: T) -> Self {
        Self { text: text.to_string(), ..Self::default() }
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("here belongs {expected}"))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("here belongs {expected}"))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let path = vec![Step::Key(field.to_owned())];
        Self { path, unknown_key: true, expected, ..Self::default() }
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self { text: "unknown value".to_owned(), expected, ..Self::default() }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { text: "this key is missing".to_owned(), missing: Some(field), ..Self::default() }
    }
}

/// Reads one value.
struct NodeReader<'t> {
    node: &'t Node,
}

impl<'t> NodeReader<'t> {
    fn scalar(&self, expected: &dyn de::Expected) -> Result<&'t Scalar, ReadError> {
        match &self.node.content {
            Content::Scalar(scalar) => Ok(scalar),
            _ => Err(wrong_shape(expected)),
        }
    }

    fn plain(&self, expected: &dyn de::Expected) -> Result<&'t str, ReadError> {
        self.scalar(expected).map(|scalar| scalar.text.as_str())
    }
}

fn wrong_shape(expected: &dyn de::Expected) -> ReadError {
    de::Error::invalid_type(de::Unexpected::Other(""), expected)
}

/// Numbers are what their texts say.
macro_rules! read_numbers {
    ($($call:ident $visit:ident $type:ty, $name:literal;)*) => {
        $(fn $call<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            match self.plain(&visitor)?.parse::<$type>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(de::Error::custom($name)),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for NodeReader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.content {
            Content::Null | Content::Removed => visitor.visit_unit(),
            Content::List(_) => self.deserialize_seq(visitor),
            Content::Map(_) => self.deserialize_map(visitor),
            Content::Scalar(scalar) if scalar.quoted => visitor.visit_str(&scalar.text),
            Content::Scalar(scalar) => match (scalar.text.parse::<i64>(), scalar.text.parse::<bool>()) {
                (Ok(number), _) => visitor.visit_i64(number),
                (_, Ok(truth)) => visitor.visit_bool(truth),
                _ => visitor.visit_str(&scalar.text),
            },
        }
    }

    read_numbers! {
        deserialize_i8 visit_i8 i8, "here belongs a whole number from -128 to 127";
        deserialize_i16 visit_i16 i16, "here belongs a whole number from -32768 to 32767";
        deserialize_i32 visit_i32 i32, "here belongs a whole number";
        deserialize_i64 visit_i64 i64, "here belongs a whole number";
        deserialize_u8 visit_u8 u8, "here belongs a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "here belongs a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "here belongs a whole number, not negative";
        deserialize_u64 visit_u64 u64, "here belongs a whole number, not negative";
        deserialize_f32 visit_f32 f32, "here belongs a number";
        deserialize_f64 visit_f64 f64, "here belongs a number";
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.plain(&visitor)? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(de::Error::custom("here belongs true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_str(self.plain(&"a text")?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.content {
            Content::Null | Content::Removed => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.content {
            Content::Null => visitor.visit_seq(Items { items: [].iter().enumerate() }),
            Content::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            _ => Err(de::Error::custom("here belongs a list, such as [a, b]")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.content {
            Content::Null => visitor.visit_map(Entries { entries: [].iter(), value: None }),
            Content::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
            _ => Err(de::Error::custom("here belong keys with values, each as `key: value`")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if let Content::Map(entries) = &self.node.content {
            let present = entries.iter().filter(|(_, value)| !matches!(value.content, Content::Removed));
            if let Some((key, _)) = present.into_iter().find(|(key, _)| !fields.contains(&key.as_str())) {
                return Err(de::Error::unknown_field(key, fields));
            }
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let choice = match &self.node.content {
            Content::Scalar(scalar) => Choice { name: &scalar.text, content: None },
            Content::Map(entries) => {
                let present = |(_, value): &&(String, Node)| !matches!(value.content, Content::Removed);
                let mut chosen = entries.iter().filter(present);
                match (chosen.next(), chosen.next()) {
                    (Some((name, _)), None) if !variants.contains(&name.as_str()) => {
                        return Err(de::Error::unknown_field(name, variants));
                    }
                    (Some((name, content)), None) => Choice { name, content: Some(content) },
                    (Some((first, _)), Some((second, _))) => {
                        let both = format_args!("`{first}` and `{second}` exclude each other: keep one");
                        return Err(de::Error::custom(both));
                    }
                    (None, _) => return Err(ReadError { is_known: !entries.is_empty(), ..one_of(variants) }),
                }
            }
            _ => return Err(one_of(variants)),
        };
        visitor.visit_enum(choice)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }
}

fn one_of(variants: &[&str]) -> ReadError {
    de::Error::custom(format_args!("here belongs one of: {}", variants.join(", ")))
}

struct Items<'t> {
    items: std::iter::Enumerate<std::slice::Iter<'t, Node>>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        match self.items.find(|(_, item)| !matches!(item.content, Content::Removed)) {
            Some((place, node)) => {
                seed.deserialize(NodeReader { node }).map(Some).map_err(|error| error.under(Step::Item(place)))
            }
            None => Ok(None),
        }
    }
}

struct Entries<'t> {
    entries: std::slice::Iter<'t, (String, Node)>,
    value: Option<&'t (String, Node)>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        // A key with nothing behind it has its default.
        self.value = self.entries.find(|(_, value)| !matches!(value.content, Content::Removed | Content::Null));
        let Some((key, _)) = self.value else { return Ok(None) };
        let key: StrDeserializer<'_, ReadError> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some((key, node)) = self.value.take() else { return Err(de::Error::custom("a value without its key")) };
        seed.deserialize(NodeReader { node }).map_err(|error| error.under(Step::Key(key.clone())))
    }
}

/// `name`, or `name: {...}`.
struct Choice<'t> {
    name: &'t str,
    content: Option<&'t Node>,
}

impl<'de, 't> de::EnumAccess<'de> for Choice<'t> {
    type Error = ReadError;
    type Variant = Chosen<'t>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Chosen<'t>), ReadError> {
        let name: StrDeserializer<'_, ReadError> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Chosen { name: self.name, content: self.content }))
    }
}

struct Chosen<'t> {
    name: &'t str,
    content: Option<&'t Node>,
}

impl Chosen<'_> {
    fn read<T>(self, read: impl FnOnce(NodeReader<'_>) -> Result<T, ReadError>) -> Result<T, ReadError> {
        match self.content {
            Some(node) => read(NodeReader { node }).map_err(|error| error.under(Step::Key(self.name.to_owned()))),
            None => read(NodeReader { node: &Node::null(crate::tree::Origin::Line(1)) }),
        }
    }
}

impl<'de> de::VariantAccess<'de> for Chosen<'_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        self.read(|node| seed.deserialize(node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.read(|node| node.deserialize_seq(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.read(|node| node.deserialize_struct("", fields, visitor))
    }
}
