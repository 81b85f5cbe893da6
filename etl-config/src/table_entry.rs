//! What can be said of some tables? One entry of the section `tables`: what is passed on, and how it is written.

use etl::schema::TablePatterns;
use etl::transform::{ColumnChoice, OnValue, TableRename, Transform, TransformRule};
use etl_destinations::table_rules::{Metadata, RuleSettings, TableRule, TableRules};
use etl_destinations::write_mode::{OnSchemaChange, WriteMode};
use serde::Deserialize;

/// What holds where no entry says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// What a change does with the rows that are there. Default `upsert`.
    pub write_mode: Option<WriteMode>,
    /// What a change of shape does with the destination's table (operating guide). Default `apply`.
    pub on_schema_change: Option<OnSchemaChange>,
    /// What becomes of a value that the destination cannot hold: `error`, `null`, `clamp` or `text`.
    pub on_value: OnValue,
    /// The metadata columns: `on`, `off`, or their names. Default `on`.
    pub metadata: Option<Metadata>,
}

/// What holds for some tables; every entry that matches applies, the last one wins per key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableEntry {
    /// `public.users`, a pattern such as `public.*`, or a list with exceptions: `["public.*", "!public.audit"]`.
    #[serde(rename = "match")]
    pub tables: TablePatterns,
    /// Which columns are passed on, and what they are called.
    #[serde(default)]
    pub columns: ColumnChoice,
    /// What the tables are called at the destination.
    #[serde(default)]
    pub rename: TableRename,
    /// Which rows are passed on: a condition such as `country = 'DE' AND age >= 18`.
    #[serde(default)]
    pub filter: Option<String>,
    /// What a change does with the rows that are there.
    #[serde(default)]
    pub write_mode: Option<WriteMode>,
    /// What a change of shape does with the destination's table (operating guide).
    #[serde(default)]
    pub on_schema_change: Option<OnSchemaChange>,
    /// What becomes of a value that the destination cannot hold.
    #[serde(default)]
    pub on_value: Option<OnValue>,
    /// The metadata columns.
    #[serde(default)]
    pub metadata: Option<Metadata>,
    /// Whether the rows that are there are copied first. Without, changes are sent from the moment on at which the table is
    /// begun, and the destination's table is taken as it is. Default true.
    #[serde(default)]
    pub copy: Option<bool>,
}

/// What the source passes on, by these entries.
pub(crate) fn transform(defaults: &Defaults, entries: &[TableEntry]) -> Transform {
    let has_choice = |entry: &&TableEntry| {
        entry.columns != ColumnChoice::default()
            || entry.rename != TableRename::default()
            || entry.filter.is_some()
            || entry.on_value.is_some()
            || entry.copy.is_some()
    };
    let rule = |entry: &TableEntry| TransformRule {
        tables: entry.tables.clone(),
        columns: entry.columns.clone(),
        rename: entry.rename.clone(),
        filter: entry.filter.clone(),
        on_value: entry.on_value,
        copy: entry.copy,
    };
    let rules = entries.iter().filter(has_choice).map(rule).collect();
    Transform::new(rules).with_on_value(defaults.on_value)
}

/// How the destination writes, by these entries.
pub(crate) fn rules(defaults: &Defaults, entries: &[TableEntry]) -> TableRules {
    let has_rule = |entry: &&TableEntry| {
        entry.write_mode.is_some()
            || entry.on_schema_change.is_some()
            || entry.metadata.is_some()
            || entry.copy.is_some()
    };
    let rule = |entry: &TableEntry| TableRule {
        tables: entry.tables.clone(),
        write_mode: entry.write_mode,
        on_schema_change: entry.on_schema_change,
        metadata: entry.metadata.clone(),
        copy: entry.copy,
    };
    let Defaults { write_mode, on_schema_change, metadata, on_value: _ } = defaults.clone();
    let defaults = RuleSettings { write_mode, on_schema_change, metadata, dead_letters: None };
    TableRules { defaults, rules: entries.iter().filter(has_rule).map(rule).collect() }
}
