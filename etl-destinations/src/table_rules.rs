//! How is each table written? Defaults, then every rule that matches; the last one wins per setting.

use std::fmt;
use std::sync::Arc;

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::TableName;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::metadata_columns::MetadataColumns;
use crate::value_policy::OnValue;
use crate::write_mode::{OnSchemaChange, WriteMode};

/// How tables are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableRules {
    /// What holds where no rule says otherwise.
    pub defaults: RuleSettings,
    /// The rules, in their order.
    pub rules: Vec<TableRule>,
}

/// What a rule can set; what is not given comes from the rules before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleSettings {
    /// What a change does with the rows that are there. Default `upsert`.
    pub write_mode: Option<WriteMode>,
    /// What a changed column does with the destination's table. Default `apply`.
    pub on_schema_change: Option<OnSchemaChange>,
    /// What becomes of a value that the destination cannot hold. Default `error`.
    pub on_value: Option<OnValue>,
    /// The metadata columns: `on`, `off`, or their names. Default `on`.
    pub metadata: Option<Metadata>,
}

/// How some tables are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRule {
    /// Which tables.
    #[serde(rename = "match")]
    pub tables: TablePatterns,
    /// What a change does with the rows that are there.
    #[serde(default)]
    pub write_mode: Option<WriteMode>,
    /// What a changed column does with the destination's table.
    #[serde(default)]
    pub on_schema_change: Option<OnSchemaChange>,
    /// What becomes of a value that the destination cannot hold.
    #[serde(default)]
    pub on_value: Option<OnValue>,
    /// The metadata columns.
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

/// Whether tables have metadata columns, and what they are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    /// None; such a table is copied under one snapshot, and repeated events are not recognised in it.
    Off,
    /// All four, with these names.
    On(Arc<MetadataColumns>),
}

/// What holds for one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSettings {
    /// How changes are written.
    pub write_mode: WriteMode,
    /// What follows a schema change.
    pub on_schema_change: OnSchemaChange,
    /// What becomes of a value that the destination cannot hold.
    pub on_value: OnValue,
    /// The metadata columns; `None` where they are off.
    pub metadata: Option<Arc<MetadataColumns>>,
}

impl TableRules {
    /// The rules for a place that holds only logs, where `append` is the default.
    ///
    /// # Errors
    /// `Config`, where a rule asks for another write mode.
    pub fn only_append(mut self, destination: &'static str) -> EtlResult<Self> {
        let modes = self.rules.iter().map(|rule| rule.write_mode).chain([self.defaults.write_mode]);
        if modes.flatten().any(|mode| mode != WriteMode::Append) {
            return Err(EtlError::new(ErrorKind::Config, "the destination holds logs of changes, not current states")
                .with("destination", destination)
                .hint("Set `write_mode: append`, or leave it out"));
        }
        self.defaults.write_mode = Some(WriteMode::Append);
        Ok(self)
    }

    /// What holds for a table, by its name at the source.
    pub fn of(&self, table: &TableName) -> TableSettings {
        let defaults = &self.defaults;
        let mut write_mode = defaults.write_mode;
        let mut on_schema_change = defaults.on_schema_change;
        let mut on_value = defaults.on_value;
        let mut metadata = defaults.metadata.as_ref();
        for rule in self.rules.iter().filter(|rule| rule.tables.matches(table)) {
            write_mode = rule.write_mode.or(write_mode);
            on_schema_change = rule.on_schema_change.or(on_schema_change);
            on_value = rule.on_value.or(on_value);
            metadata = rule.metadata.as_ref().or(metadata);
        }
        TableSettings {
            write_mode: write_mode.unwrap_or_default(),
            on_schema_change: on_schema_change.unwrap_or_default(),
            on_value: on_value.unwrap_or_default(),
            metadata: match metadata {
                Some(Metadata::Off) => None,
                Some(Metadata::On(names)) => Some(Arc::clone(names)),
                None => Some(Arc::default()),
            },
        }
    }
}

/// Which tables: patterns such as `public.*`, and `!public.audit_*` for those that are not meant after all.
///
/// `*` stands for any characters, `?` for one, in `schema.table`. The last pattern that matches decides; where the first begins with `!`, all others are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePatterns(Vec<String>);

impl TablePatterns {
    /// Of one or more patterns.
    pub fn new(patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(patterns.into_iter().map(Into::into).collect())
    }

    /// Whether a pattern has no characters.
    pub fn is_blank(&self) -> bool {
        self.0.iter().any(|pattern| pattern.is_empty())
    }

    /// Whether the table is meant.
    pub fn matches(&self, table: &TableName) -> bool {
        self.matches_text(&table.to_string())
    }

    /// Whether a name of any kind is meant.
    pub fn matches_text(&self, name: &str) -> bool {
        let mut meant = self.0.first().is_some_and(|first| first.starts_with('!'));
        for pattern in &self.0 {
            let (pattern, includes) = pattern.strip_prefix('!').map_or((&**pattern, true), |rest| (rest, false));
            if like(pattern.as_bytes(), name.as_bytes()) {
                meant = includes;
            }
        }
        meant
    }
}

/// Whether the text follows the pattern of `*` and `?`. A `?` is one character, not one byte.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on with the last `*` taking one byte more.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let length = text[t..].iter().skip(1).take_while(|byte| **byte & 0xc0 == 0x80).count() + 1;
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => (p, t) = (p + 1, t + length),
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl Serialize for TablePatterns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            more => more.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TablePatterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = TablePatterns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pattern such as public.*, or a list of them")
            }
            fn visit_str<E: de::Error>(self, pattern: &str) -> Result<TablePatterns, E> {
                Ok(TablePatterns::new([pattern]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TablePatterns, A::Error> {
                let mut patterns = Vec::new();
                while let Some(pattern) = list.next_element()? {
                    patterns.push(pattern);
                }
                if patterns.is_empty() {
                    return Err(de::Error::invalid_length(0, &self));
                }
                Ok(TablePatterns(patterns))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SwitchOrNames;
        impl<'de> Visitor<'de> for SwitchOrNames {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("on, off, or the names of the columns")
            }
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Metadata, E> {
                Ok(if on { Metadata::On(Arc::default()) } else { Metadata::Off })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Metadata, E> {
                match text {
                    "on" | "true" => self.visit_bool(true),
                    "off" | "false" => self.visit_bool(false),
                    other => Err(de::Error::unknown_variant(other, &["on", "off"])),
                }
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Metadata, A::Error> {
                let names = MetadataColumns::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Metadata::On(Arc::new(names)))
            }
        }
        deserializer.deserialize_any(SwitchOrNames)
    }
}
