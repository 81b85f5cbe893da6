//! What did the user choose? Rules for tables; every match applies, the last one wins per key.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::column_type::ColumnType;
use super::mask::Mask;
use super::on_value::OnValue;
use crate::destination::{AnyDestination, Destination, ValueLimits};
use crate::schema::{TableName, TablePatterns};

/// Which columns are passed on, and what tables and columns are called; by default all, as at the source.
#[derive(Debug, Clone, Default)]
pub struct Transform {
    /// The rules, in their order.
    pub rules: Vec<TransformRule>,
    /// What becomes of values that the destination cannot hold, where no rule says otherwise.
    pub on_value: OnValue,
    /// What the destination can hold.
    pub(super) limits: ValueLimits,
    /// Which is asked about tables.
    pub(super) destination: Option<AnyDestination>,
    /// Whose uses of a policy are counted.
    pub(super) pipeline: Box<str>,
}

/// What holds for some tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformRule {
    /// Which tables, by their names at the source.
    pub tables: TablePatterns,
    /// Their columns.
    pub columns: ColumnChoice,
    /// Their names.
    pub rename: TableRename,
    /// Which of their rows; what is not given comes from the rules before.
    pub filter: Option<String>,
    /// What becomes of their values that the destination cannot hold; what is not given comes from the rules before.
    pub on_value: Option<OnValue>,
    /// Whether what is in them is copied, or changes alone are passed on; what is not given comes from the rules before.
    pub copy: Option<bool>,
}

/// Which columns of a table are passed on; what is not given comes from the rules before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnChoice {
    /// Only these, by name or by patterns such as `address_*`.
    pub include: Option<Vec<String>>,
    /// Not these; of those that `include` names too.
    pub exclude: Option<Vec<String>>,
    /// Other names for some, by their names at the source.
    pub rename: Option<BTreeMap<String, String>>,
    /// What stands in place of values, by the columns' names at the source: `redact`, `'null'`, `{ hash: <salt> }` or
    /// `{ truncate: <characters> }`.
    pub mask: Option<BTreeMap<String, Mask>>,
    /// Columns more, of the type text, with the same value in every row.
    pub add: Option<BTreeMap<String, String>>,
    /// Other types for some, by their names at the source, such as `text` or `numeric(38,10)`. A value that has no equal
    /// there is what `on_value` says.
    #[serde(rename = "type")]
    pub types: Option<BTreeMap<String, ColumnType>>,
    /// What becomes of values of some that the destination cannot hold, by their names at the source.
    pub on_value: Option<BTreeMap<String, OnValue>>,
}

/// What a table is called at the destination; what is not given is as at the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableRename {
    /// The schema that holds it.
    pub schema: Option<String>,
    /// Its own name.
    pub table: Option<String>,
}

/// What holds for one table.
#[derive(Debug, Default)]
pub(super) struct Chosen<'t> {
    pub(super) include: Option<&'t [String]>,
    pub(super) exclude: Option<&'t [String]>,
    pub(super) rename: Option<&'t BTreeMap<String, String>>,
    pub(super) mask: Option<&'t BTreeMap<String, Mask>>,
    pub(super) add: Option<&'t BTreeMap<String, String>>,
    pub(super) types: Option<&'t BTreeMap<String, ColumnType>>,
    pub(super) on_value_of: Option<&'t BTreeMap<String, OnValue>>,
    pub(super) on_value: OnValue,
    pub(super) filter: Option<&'t str>,
    pub(super) schema: Option<&'t str>,
    pub(super) table: Option<&'t str>,
    /// Whether a rule that names columns is for this table alone, so that a name that is none is a mistake.
    pub(super) is_meant: bool,
}

impl Transform {
    /// What these rules say.
    pub fn new(rules: Vec<TransformRule>) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The same with this for values that the destination cannot hold, where no rule says otherwise.
    #[must_use]
    pub fn with_on_value(self, on_value: OnValue) -> Self {
        Self { on_value, ..self }
    }

    /// The same for rows that go to this destination; what becomes of values is counted for the pipeline.
    #[must_use]
    pub fn toward(self, destination: &AnyDestination, pipeline: &str) -> Self {
        let (limits, destination) = (destination.value_limits(), Some(destination.clone()));
        Self { limits, destination, pipeline: pipeline.into(), ..self }
    }

    pub(super) fn of(&self, table: &TableName) -> Chosen<'_> {
        let mut chosen = Chosen { on_value: self.on_value, ..Chosen::default() };
        for rule in self.rules.iter().filter(|rule| rule.tables.matches(table)) {
            let ColumnChoice { include, exclude, rename, mask, add, types, on_value } = &rule.columns;
            chosen.include = include.as_deref().or(chosen.include);
            chosen.exclude = exclude.as_deref().or(chosen.exclude);
            chosen.rename = rename.as_ref().or(chosen.rename);
            chosen.mask = mask.as_ref().or(chosen.mask);
            chosen.add = add.as_ref().or(chosen.add);
            chosen.types = types.as_ref().or(chosen.types);
            chosen.on_value_of = on_value.as_ref().or(chosen.on_value_of);
            chosen.on_value = rule.on_value.unwrap_or(chosen.on_value);
            chosen.filter = rule.filter.as_deref().or(chosen.filter);
            chosen.schema = rule.rename.schema.as_deref().or(chosen.schema);
            chosen.table = rule.rename.table.as_deref().or(chosen.table);
            chosen.is_meant |= rule.tables.is_one();
        }
        chosen
    }

    /// Whether what is in a table is copied.
    pub(crate) fn copies(&self, table: &TableName) -> bool {
        let of = self.rules.iter().filter(|rule| rule.tables.matches(table));
        of.filter_map(|rule| rule.copy).next_back().unwrap_or(true)
    }

    /// The rules that are for none of these tables.
    pub(crate) fn idle_rules<'t>(&'t self, tables: &[&TableName]) -> impl Iterator<Item = &'t TransformRule> {
        let is_idle = |rule: &&TransformRule| !tables.iter().any(|table| rule.tables.matches(table));
        self.rules.iter().filter(is_idle).collect::<Vec<_>>().into_iter()
    }
}
