//! What does a text with variables say? `${name}` stands for a value; `$${` for itself.

use std::borrow::Cow;
use std::collections::BTreeMap;

use etl::error::{ErrorKind, EtlError, EtlResult};

/// The values of variables by name.
pub(super) type Values = BTreeMap<String, String>;

/// Variables whose values are JSON already, or rows: they are put in as they are.
pub(super) const WHOLE: &[&str] = &["rows", "row", "columns"];

/// A text with variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
    /// Where it stands in the profile.
    pub(super) line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
}

/// Where a value goes, and so what of it has to be written otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// Nothing has.
    Text,
    /// What would end a text of JSON.
    Json,
    /// What an address cannot hold; its slashes stay.
    Address,
}

impl Template {
    /// Reads a text.
    pub(super) fn read(text: &str, line: usize) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, variable) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                parts.push(Part::Text(format!("{before}${{")));
                rest = variable;
                continue;
            }
            let Some(end) = variable.find('}') else {
                return Err("`${` has no `}`; `$${` stands for `${` itself".to_owned());
            };
            let name = &variable[..end];
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
                return Err(format!("`${{{name}}}` names no variable; `$${{` stands for `${{` itself"));
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Variable(name.to_owned()));
            rest = &variable[end + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { parts, line })
    }

    /// The same with this before it.
    pub(super) fn after(mut self, text: &str) -> Self {
        self.parts.insert(0, Part::Text(text.to_owned()));
        self
    }

    /// The variables that it needs.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Puts the values in.
    ///
    /// # Errors
    /// `Config`, naming the variable that has none.
    pub(super) fn fill(&self, values: &Values, within: Within) -> EtlResult<String> {
        self.filled(within, |name| values.get(name).map(|value| Cow::Borrowed(value.as_str())))
    }

    /// Puts in what `value` says of a variable.
    pub(super) fn filled<'v>(&self, within: Within, value: impl Fn(&str) -> Option<Cow<'v, str>>) -> EtlResult<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Variable(name) => {
                    let value = value(name).ok_or_else(|| {
                        EtlError::new(ErrorKind::Config, "a variable of the profile has no value here")
                            .with("variable", name)
                            .with("line", self.line)
                            .hint("Give it in `settings` or `secrets` of the destination")
                    })?;
                    let within = if WHOLE.contains(&name.as_str()) { Within::Text } else { within };
                    put(&mut text, &value, within);
                }
            }
        }
        Ok(text)
    }

    /// What stands before and after a variable that it has once.
    pub(super) fn around(&self, name: &str, values: &Values, within: Within) -> EtlResult<(String, String)> {
        let place = self.parts.iter().position(|part| *part == Part::Variable(name.to_owned()));
        let place = place.unwrap_or(self.parts.len());
        let side = |parts: &[Part]| Self { parts: parts.to_vec(), line: self.line }.fill(values, within);
        Ok((side(&self.parts[..place])?, side(self.parts.get(place + 1..).unwrap_or_default())?))
    }
}

fn put(text: &mut String, value: &str, within: Within) {
    match within {
        Within::Text => text.push_str(value),
        Within::Json => {
            let quoted = serde_json::Value::from(value).to_string();
            text.push_str(&quoted[1..quoted.len() - 1]);
        }
        Within::Address => {
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || b"-_.~/:@!$&'()*+,;=".contains(&byte) {
                    text.push(byte.into());
                } else {
                    text.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_goes_where_its_name_stands_as_the_place_needs_it() {
        let values = Values::from([("a".to_owned(), "x \"y\"/?".to_owned()), ("rows".to_owned(), "[\"\"]".to_owned())]);
        let filled = |text: &str, within| Template::read(text, 1).unwrap().fill(&values, within).unwrap();
        assert_eq!(filled("<${a}|$${a}|$>", Within::Text), "<x \"y\"/?|${a}|$>");
        assert_eq!(filled(r#"{"v":"${a}","r":${rows}}"#, Within::Json), r#"{"v":"x \"y\"/?","r":[""]}"#);
        assert_eq!(filled("https://h/${a}", Within::Address), "https://h/x%20%22y%22/%3F");
        let around = Template::read("{${rows}, ${a}}", 1).unwrap().around("rows", &values, Within::Text).unwrap();
        assert_eq!(around, ("{".to_owned(), ", x \"y\"/?}".to_owned()));
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for text in ["${a", "${}", "${a b}", "x${"] {
            assert!(Template::read(text, 1).is_err(), "{text}");
        }
        let error = Template::read("${secret.key}", 7).unwrap().fill(&Values::new(), Within::Text).unwrap_err();
        assert!(error.to_string().contains("secret.key") && error.to_string().contains('7'), "{error}");
    }
}
