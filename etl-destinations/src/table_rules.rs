//! How is each table written? Defaults, then every rule that matches; the last one wins per setting.

use std::fmt;
use std::sync::Arc;

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::TableName;
pub use etl::schema::TablePatterns;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::dead_rows::DeadLetterRules;
use crate::metadata_columns::MetadataColumns;
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
    /// What a change of shape does with the destination's table (operating guide). Default `apply`.
    pub on_schema_change: Option<OnSchemaChange>,
    /// The metadata columns: `on`, `off`, or their names. Default `on`.
    pub metadata: Option<Metadata>,
    /// Whether rows that the destination refuses are kept as dead letters, of all tables alike.
    #[serde(skip)]
    pub dead_letters: Option<DeadLetterRules>,
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
    /// What a change of shape does with the destination's table (operating guide).
    #[serde(default)]
    pub on_schema_change: Option<OnSchemaChange>,
    /// The metadata columns.
    #[serde(default)]
    pub metadata: Option<Metadata>,
    /// Whether what is in the tables is copied; where not, the destination's tables are taken as they are.
    #[serde(default)]
    pub copy: Option<bool>,
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
    /// The metadata columns; `None` where they are off.
    pub metadata: Option<Arc<MetadataColumns>>,
    /// Whether what is in the table is copied.
    pub copy: bool,
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
        let mut metadata = defaults.metadata.as_ref();
        let mut copy = true;
        for rule in self.rules.iter().filter(|rule| rule.tables.matches(table)) {
            write_mode = rule.write_mode.or(write_mode);
            on_schema_change = rule.on_schema_change.or(on_schema_change);
            metadata = rule.metadata.as_ref().or(metadata);
            copy = rule.copy.unwrap_or(copy);
        }
        TableSettings {
            write_mode: write_mode.unwrap_or_default(),
            on_schema_change: on_schema_change.unwrap_or_default(),
            metadata: match metadata {
                Some(Metadata::Off) => None,
                Some(Metadata::On(names)) => Some(Arc::clone(names)),
                None => Some(Arc::default()),
            },
            copy,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str) -> TableRule {
        let tables = TablePatterns::new([pattern]);
        TableRule { tables, write_mode: None, on_schema_change: None, metadata: None, copy: None }
    }

    #[test]
    fn every_match_applies_and_the_last_one_wins_per_key() {
        let stop = Some(OnSchemaChange::Stop);
        let rules = TableRules {
            defaults: RuleSettings { write_mode: Some(WriteMode::SoftDelete), ..RuleSettings::default() },
            rules: vec![
                TableRule { write_mode: Some(WriteMode::Append), on_schema_change: stop, ..rule("public.*") },
                TableRule { metadata: Some(Metadata::Off), copy: Some(false), ..rule("public.users") },
                TableRule { write_mode: Some(WriteMode::Upsert), ..rule("*.users") },
            ],
        };
        let of = |name| rules.of(&TableName::new("public", name));
        let users = of("users");
        assert_eq!((users.write_mode, users.on_schema_change), (WriteMode::Upsert, OnSchemaChange::Stop));
        assert_eq!((users.metadata, users.copy, of("orders").copy), (None, false, true));
        assert_eq!((of("orders").write_mode, of("orders").metadata), (WriteMode::Append, Some(Arc::default())));
        assert_eq!(rules.of(&TableName::new("other", "orders")).write_mode, WriteMode::SoftDelete);
        assert!(rules.clone().only_append("log").is_err());
        assert_eq!(
            TableRules::default().only_append("log").unwrap().of(&TableName::new("a", "b")).write_mode,
            WriteMode::Append
        );
    }
}
