//! What stands under a key of a profile? Keys are taken one by one; what nobody takes is unknown.

use std::cell::RefCell;
use std::time::Duration;

use etl::ByteSize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::Problem;
use crate::profile::template::Template;

/// The text of a profile, and what was found to be wrong with it.
pub(super) struct Text<'t> {
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Text<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, problems: RefCell::default() }
    }

    pub(super) fn problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    pub(super) fn wrong(&self, line: usize, what: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { line, what: what.into() });
    }

    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }

    /// The whole of it.
    pub(super) fn root(&self) -> Option<Section<'_, 't>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let line = error.span().map_or(1, |span| self.line(span.start));
            self.wrong(line, format!("this is no TOML: {}", error.message()));
        }
        errors.is_empty().then(|| self.section("", 1, root.into_inner()))
    }

    fn section(&self, name: &str, line: usize, table: DeTable<'t>) -> Section<'_, 't> {
        let key = |(key, value): (Spanned<_>, Spanned<DeValue<'t>>)| {
            let line = self.line(key.span().start);
            Entry { line, key: std::borrow::Cow::into_owned(key.into_inner()), value: value.into_inner() }
        };
        Section { of: self, name: name.to_owned(), line, entries: table.into_iter().map(key).collect(), known: vec![] }
    }
}

struct Entry<'t> {
    line: usize,
    key: String,
    value: DeValue<'t>,
}

/// A table of a profile.
pub(super) struct Section<'s, 't> {
    of: &'s Text<'t>,
    name: String,
    pub(super) line: usize,
    entries: Vec<Entry<'t>>,
    known: Vec<&'static str>,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) line: usize,
    pub(super) is: T,
}

impl<'s, 't> Section<'s, 't> {
    pub(super) fn wrong(&self, line: usize, what: impl Into<String>) {
        self.of.wrong(line, what);
    }

    /// The key with the name of its section.
    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn take(&mut self, key: &'static str) -> Option<Entry<'t>> {
        self.known.push(key);
        let place = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(place))
    }

    fn mistaken<T>(&self, entry: &Entry<'_>, wanted: &str) -> Option<T> {
        let found = entry.value.type_str();
        self.wrong(entry.line, format!("`{}` is {wanted}, and not a {found}", self.full(&entry.key)));
        None
    }

    /// Says that a key is missing where it is.
    pub(super) fn required<T>(&self, key: &str, found: Option<T>) -> Option<T> {
        if found.is_none()
            && !self.of.problems.borrow().iter().any(|known| known.what.contains(&format!("`{}`", self.full(key))))
        {
            self.wrong(self.line, format!("`{}` is missing", self.full(key)));
        }
        found
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<At<String>> {
        let entry = self.take(key)?;
        match entry.value.as_str() {
            Some(text) => Some(At { line: entry.line, is: text.to_owned() }),
            None => self.mistaken(&entry, "a text"),
        }
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let entry = self.take(key)?;
        entry.value.as_bool().or_else(|| self.mistaken(&entry, "`true` or `false`"))
    }

    pub(super) fn number(&mut self, key: &'static str) -> Option<u32> {
        let entry = self.take(key)?;
        match entry.value.as_integer().and_then(|number| number.as_str().parse().ok()) {
            Some(number) => Some(number),
            None => self.mistaken(&entry, "a whole number"),
        }
    }

    /// A text that is read as something.
    fn parsed<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let At { line, is } = self.text(key)?;
        let parsed = parse(&is);
        parsed.map_err(|why| self.wrong(line, format!("`{}`: {why}", self.full(key)))).ok()
    }

    pub(super) fn size(&mut self, key: &'static str) -> Option<u64> {
        self.parsed(key, |text| text.parse::<ByteSize>().map(|size| size.0))
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.parsed(key, etl::duration::parse)
    }

    /// One of these words.
    pub(super) fn choice<T: Clone>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let list = || words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        self.parsed(key, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, meaning)| meaning.clone()).ok_or_else(|| format!("`{text}` is none of {}", list()))
        })
    }

    pub(super) fn template(&mut self, key: &'static str) -> Option<Template> {
        let At { line, is } = self.text(key)?;
        self.read_template(line, &is)
    }

    fn read_template(&self, line: usize, text: &str) -> Option<Template> {
        Template::read(text, line).map_err(|why| self.wrong(line, why)).ok()
    }

    /// Where something is in JSON.
    pub(super) fn pointer(&mut self, key: &'static str) -> Option<String> {
        let at = self.text(key)?;
        self.is_pointer(&at.is, at.line).then_some(at.is)
    }

    pub(super) fn is_pointer(&self, text: &str, line: usize) -> bool {
        let is_pointer = text.is_empty() || text.starts_with('/');
        if !is_pointer {
            self.wrong(line, format!("`{text}` is no JSON pointer, which begins with `/`"));
        }
        is_pointer
    }

    /// A text, or a list of texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<At<String>>> {
        let entry = self.take(key)?;
        let line = entry.line;
        let words = match &entry.value {
            DeValue::Array(list) => list.iter().map(|value| word(value.get_ref())).collect::<Option<Vec<_>>>(),
            value => word(value).map(|word| vec![word]),
        };
        match words {
            Some(words) => Some(words.into_iter().map(|is| At { line, is }).collect()),
            None => self.mistaken(&entry, "a text or a list of texts"),
        }
    }

    /// Names and texts.
    pub(super) fn pairs(&mut self, key: &'static str) -> Vec<(String, At<String>)> {
        let Some(entry) = self.take(key) else { return Vec::new() };
        let DeValue::Table(table) = &entry.value else {
            let _: Option<()> = self.mistaken(&entry, "a table of names and texts");
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in table {
            let line = self.of.line(name.span().start);
            match word(value.get_ref()) {
                Some(is) => pairs.push((name.get_ref().clone().into_owned(), At { line, is })),
                None => self.wrong(line, format!("`{}.{}` is a text", self.full(key), name.get_ref())),
            }
        }
        pairs
    }

    pub(super) fn templates(&mut self, key: &'static str) -> Vec<(String, Template)> {
        let pairs = self.pairs(key);
        pairs.into_iter().filter_map(|(name, at)| Some((name, self.read_template(at.line, &at.is)?))).collect()
    }

    pub(super) fn table(&mut self, key: &'static str) -> Option<Section<'s, 't>> {
        let entry = self.take(key)?;
        let (line, name) = (entry.line, self.full(key));
        match entry.value {
            DeValue::Table(table) => Some(self.of.section(&name, line, table)),
            value => self.mistaken(&Entry { value, ..entry }, "a table"),
        }
    }

    /// The tables of a list, and those below names of one's own.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Section<'s, 't>> {
        let Some(entry) = self.take(key) else { return Vec::new() };
        let (line, name) = (entry.line, self.full(key));
        let list: DeArray<'t> = match entry.value {
            DeValue::Array(list) => list,
            value => {
                let _: Option<()> = self.mistaken(&Entry { value, ..entry }, "a list of tables");
                return Vec::new();
            }
        };
        let mut tables = Vec::new();
        for item in list {
            let at = self.of.line(item.span().start).max(line);
            match item.into_inner() {
                DeValue::Table(table) => tables.push(self.of.section(&name, at, table)),
                _ => self.wrong(at, format!("`{name}` is a list of tables")),
            }
        }
        tables
    }

    /// The tables or texts under names that the profile chooses.
    pub(super) fn named(&mut self, key: &'static str) -> Vec<(String, Named<'s, 't>)> {
        let Some(section) = self.table(key) else { return Vec::new() };
        let (of, full) = (section.of, section.name);
        let entries = section.entries.into_iter();
        let named = entries.filter_map(|entry| match entry.value {
            DeValue::String(text) => Some((entry.key, Named::Text(At { line: entry.line, is: text.into_owned() }))),
            DeValue::Table(table) => {
                let name = format!("{full}.{}", entry.key);
                Some((entry.key, Named::Section(of.section(&name, entry.line, table))))
            }
            _ => {
                of.wrong(entry.line, format!("`{full}.{}` is a text or a table", entry.key));
                None
            }
        });
        named.collect()
    }

    /// Says which keys nobody knows.
    pub(super) fn end(self) {
        for entry in &self.entries {
            let known = self.known.join(", ");
            self.wrong(entry.line, format!("unknown key `{}`; possible here: {known}", self.full(&entry.key)));
        }
    }
}

/// What stands under a name that the profile chose.
pub(super) enum Named<'s, 't> {
    Text(At<String>),
    Section(Section<'s, 't>),
}

/// A text, or what reads as one.
fn word(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}
