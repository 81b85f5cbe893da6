//! What can be set for `profile`? Which one, what it asks for, and what becomes of what the system cannot do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etl::Secret;
use etl::schema::TablePatterns;
use serde::Deserialize;

/// The settings of `profile`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileConfig {
    /// A profile that comes with `etl`, as `etl profiles list` shows them.
    #[serde(default)]
    pub name: Option<String>,
    /// The file of a profile of one's own, instead of a name.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// The settings that the profile asks for, as `etl profiles show` lists them.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// The secrets that it asks for.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// Settings of some tables: a list of `match` and `settings`. Every match applies, the last one wins.
    #[serde(default)]
    pub tables: Vec<ProfileTable>,
    /// What becomes of a deleted row. Default `error`.
    #[serde(default)]
    pub on_delete: WhereUnsupported,
    /// What becomes of a truncated table. Default `error`.
    #[serde(default)]
    pub on_truncate: WhereUnsupported,
    /// The directory for batches that are under way. Where it is not given it is `bulk` in the pipeline's `data_dir`.
    #[serde(default)]
    pub spool: Option<PathBuf>,
    /// The authority that signed the server's certificate, in PEM form, where the system does not know it.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// How many requests are under way at most. Default 4.
    #[serde(default = "default_connections")]
    pub connections: u16,
    /// How long an answer may take. Default 2m.
    #[serde(default = "default_timeout", with = "etl::duration")]
    pub timeout: Duration,
}

/// Settings of some tables.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileTable {
    /// Which tables, by their names at the source.
    #[serde(rename = "match")]
    pub tables: TablePatterns,
    /// The settings.
    pub settings: BTreeMap<String, String>,
}

/// What becomes of what a system cannot do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhereUnsupported {
    /// The table fails and says so.
    #[default]
    Error,
    /// Nothing; it is counted.
    Ignore,
    /// A deleted row is handed over with the mark that the profile has for it.
    Deliver,
}

impl ProfileConfig {
    /// The defaults for a profile that comes with `etl`.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            path: None,
            settings: BTreeMap::new(),
            secrets: BTreeMap::new(),
            tables: Vec::new(),
            on_delete: WhereUnsupported::default(),
            on_truncate: WhereUnsupported::default(),
            spool: None,
            ca: None,
            connections: default_connections(),
            timeout: default_timeout(),
        }
    }

    /// The directory in which the batches of a pipeline stand, where none is configured.
    #[must_use]
    pub fn of_pipeline(mut self, spool: &Path) -> Self {
        self.spool.get_or_insert_with(|| spool.to_owned());
        self
    }
}

const fn default_connections() -> u16 {
    4
}

const fn default_timeout() -> Duration {
    Duration::from_secs(120)
}
