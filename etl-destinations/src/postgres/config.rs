//! What can be set for `postgres`? The server, and how many sessions write to it.

use etl::Secret;
use etl::postgres::TlsOptions;
use serde::Deserialize;

/// The settings of `postgres`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresTargetConfig {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`. The user needs CREATE on the database.
    pub url: Secret,
    /// How the connection is encrypted; before what the URL says.
    #[serde(default)]
    pub tls: Option<TlsOptions>,
    /// How many sessions write at most. Default 4.
    #[serde(default = "default_connections")]
    pub connections: u16,
}

impl PostgresTargetConfig {
    /// The defaults for a server.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: Secret::new(url), tls: None, connections: default_connections() }
    }
}

const fn default_connections() -> u16 {
    4
}
