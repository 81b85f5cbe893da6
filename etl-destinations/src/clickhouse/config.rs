//! What can be set for `clickhouse`? The server, who logs in, and what tables and views are called.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use etl::Secret;
use serde::Deserialize;

/// The settings of `clickhouse`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouseConfig {
    /// Where the server's HTTP interface is: `https://host:8443`, `http://host:8123`.
    pub url: String,
    /// Who logs in. Default `default`.
    #[serde(default = "default_user")]
    pub user: String,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// The authority that signed the server's certificate, in PEM form, where the system does not know it.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// What comes before a schema's name in the name of its database.
    #[serde(default)]
    pub database_prefix: String,
    /// What comes after a table's name in the name of the view of its current state. Default `_current`.
    #[serde(default = "default_view_suffix")]
    pub view_suffix: String,
    /// How many statements are under way at most. Default 4.
    #[serde(default = "default_connections")]
    pub connections: u16,
    /// How long a statement may take. Default 5m.
    #[serde(default = "default_timeout", with = "etl::duration")]
    pub timeout: Duration,
    /// Settings of ClickHouse that every statement carries.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl ClickHouseConfig {
    /// The defaults for a server.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            user: default_user(),
            password: None,
            ca: None,
            database_prefix: String::new(),
            view_suffix: default_view_suffix(),
            connections: default_connections(),
            timeout: default_timeout(),
            settings: BTreeMap::new(),
        }
    }
}

fn default_user() -> String {
    "default".to_owned()
}

fn default_view_suffix() -> String {
    "_current".to_owned()
}

const fn default_connections() -> u16 {
    4
}

const fn default_timeout() -> Duration {
    Duration::from_secs(300)
}
