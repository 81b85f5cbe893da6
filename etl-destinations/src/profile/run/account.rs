//! What was a profile given? Its settings, those of some tables, and its secrets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use etl::Secret;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::TableName;

use super::super::shape::{Profile, Wanted};
use super::super::template::{Template, Values, Within};
use super::super::{ProfileConfig, ProfileTable};

/// What a profile was given.
pub(super) struct Account {
    settings: Values,
    tables: Vec<ProfileTable>,
    secrets: BTreeMap<String, Secret>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Account {
    /// All that the profile asks for, and nothing else.
    pub(super) fn new(profile: &Profile, config: &ProfileConfig) -> EtlResult<Self> {
        known(profile, "settings", &profile.settings, config.settings.keys())?;
        known(profile, "secrets", &profile.secrets, config.secrets.keys())?;
        for table in &config.tables {
            known(profile, "tables[].settings", &profile.settings, table.settings.keys())?;
        }
        let mut settings = Values::new();
        for Wanted { name, default, .. } in &profile.settings {
            match config.settings.get(name).or(default.as_ref()) {
                Some(value) => drop(settings.insert(variable(name), value.trim_end_matches('/').to_owned())),
                // Some tables have it for themselves; those that do not are refused once they have rows.
                None if config.tables.iter().any(|table| table.settings.contains_key(name)) => {}
                None => return Err(missing(profile, "settings", name)),
            }
        }
        if let Some(wanted) = profile.secrets.iter().find(|secret| !config.secrets.contains_key(&secret.name)) {
            return Err(missing(profile, "secrets", &wanted.name));
        }
        Ok(Self { settings, tables: config.tables.clone(), secrets: config.secrets.clone() })
    }

    /// The settings, as variables.
    pub(super) fn settings(&self) -> &Values {
        &self.settings
    }

    /// The settings that a table has for itself, as variables.
    pub(super) fn of_table(&self, table: &TableName) -> Values {
        let matching = self.tables.iter().filter(|entry| entry.tables.matches(table));
        let settings = matching.flat_map(|entry| &entry.settings);
        settings.map(|(name, value)| (variable(name), value.clone())).collect()
    }

    /// The settings that hold for a table.
    pub(super) fn for_table(&self, table: &TableName) -> Values {
        let mut settings = self.settings.clone();
        settings.extend(self.of_table(table));
        settings
    }

    /// A text with secrets in it.
    pub(super) fn secret(&self, template: &Template) -> EtlResult<Secret> {
        let value = |name: &str| match name.strip_prefix("secret.") {
            Some(name) => self.secrets.get(name).map(|secret| Cow::Borrowed(secret.expose())),
            None => self.settings.get(name).map(|value| Cow::Borrowed(value.as_str())),
        };
        template.filled(Within::Text, value).map(Secret::new)
    }
}

fn variable(setting: &str) -> String {
    format!("setting.{setting}")
}

fn known<'k>(
    profile: &Profile,
    section: &'static str,
    wanted: &[Wanted],
    given: impl Iterator<Item = &'k String>,
) -> EtlResult<()> {
    for name in given {
        if !wanted.iter().any(|wanted| wanted.name == *name) {
            let names: Vec<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
            return Err(EtlError::new(ErrorKind::Config, "the profile does not ask for this")
                .with("profile", &profile.name)
                .with("key", format!("{section}.{name}"))
                .hint(format!("It asks for: {}", names.join(", "))));
        }
    }
    Ok(())
}

fn missing(profile: &Profile, section: &'static str, name: &str) -> EtlError {
    EtlError::new(ErrorKind::Config, "the profile asks for what is not given")
        .with("profile", &profile.name)
        .with("key", format!("{section}.{name}"))
        .hint(format!("Set it in the destination's `{section}`; `etl profiles show NAME` says what it is"))
}
