//! What can be set for `sftp`? The server and how it is known, who logs in, where files are and what they look like.

use std::path::{Path, PathBuf};
use std::time::Duration;

use etl::{ByteSize, Secret};
use serde::Deserialize;

use super::path_template::PathTemplate;
use crate::fault::Fault;

/// The settings of `sftp`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftpConfig {
    /// The server's name or address.
    pub host: String,
    /// Its port. Default 22.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A file with the user's private key.
    #[serde(default)]
    pub private_key: Option<PathBuf>,
    /// What the private key is encrypted with.
    #[serde(default)]
    pub passphrase: Option<Secret>,
    /// The socket of an agent that has the user's keys, such as `${SSH_AUTH_SOCK}`.
    #[serde(default)]
    pub agent: Option<PathBuf>,
    /// A file that the server's key stands in, such as `${HOME}/.ssh/known_hosts`. It or `host_keys` has to be given.
    #[serde(default)]
    pub known_hosts: Option<PathBuf>,
    /// Fingerprints of the server's keys, `SHA256:...` as `ssh-keygen -lf` shows them.
    #[serde(default)]
    pub host_keys: Vec<String>,
    /// The directory on the server below which all files are; what does not begin with `/` begins where the user logs in.
    /// Default `.`.
    #[serde(default = "default_path")]
    pub path: String,
    /// The path of a file below `path`, with `{schema}`, `{table}`, `{year}`, `{month}`, `{day}`, `{hour}`, `{pipeline}`,
    /// `{operation}`, `{part}` and `{format}`. By default `{schema}/{table}/{part}.{format}`.
    #[serde(default = "default_template")]
    pub template: String,
    /// `jsonl` (one JSON object a line), `json` (one array a file), or `csv`. Default `jsonl`.
    #[serde(default)]
    pub format: SftpFormat,
    /// What stands for null in CSV, without quotes. Default `\N`.
    #[serde(default = "default_null_marker")]
    pub null_marker: String,
    /// What separates the fields in CSV. Default `,`.
    #[serde(default = "default_delimiter")]
    pub delimiter: char,
    /// No file becomes larger. Default 128MiB.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: ByteSize,
    /// No file has more rows. Default 1000000.
    #[serde(default = "default_max_rows")]
    pub max_rows: u32,
    /// What becomes of a truncate in `upsert`, which no row tells of: `error`, or `ignore`. Default `error`.
    #[serde(default)]
    pub on_truncate: OnTruncate,
    /// How long connecting and logging in may take, each. Default 15s.
    #[serde(default = "default_connect_timeout", with = "etl::duration")]
    pub connect_timeout: Duration,
    /// How long an answer may take. Default 30s.
    #[serde(default = "default_timeout", with = "etl::duration")]
    pub timeout: Duration,
    /// After how long without a word the server is asked whether it is there; it is left when it does not answer three times.
    /// Default 15s.
    #[serde(default = "default_keepalive", with = "etl::duration")]
    pub keepalive: Duration,
    /// Whose it is.
    #[serde(skip)]
    pub home: Home,
}

/// The pipeline that writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Its id.
    pub pipeline: String,
    /// Where batches stand until they are handed over.
    pub spool: PathBuf,
}

impl Default for Home {
    fn default() -> Self {
        Self { pipeline: "etl".to_owned(), spool: PathBuf::from("etl-data/bulk") }
    }
}

/// How rows look in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SftpFormat {
    /// One JSON object a line.
    #[default]
    Jsonl,
    /// One JSON array a file.
    Json,
    /// Comma-separated values with a header.
    Csv,
}

impl SftpFormat {
    /// As the config and the names of files have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }
}

/// What becomes of a truncate that no row tells of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTruncate {
    /// An error of the table.
    #[default]
    Error,
    /// Nothing; it is logged.
    Ignore,
}

impl SftpConfig {
    /// The defaults for a server; who logs in how, and how the server is known, is still to be said.
    pub fn new(host: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: default_port(),
            user: user.into(),
            password: None,
            private_key: None,
            passphrase: None,
            agent: None,
            known_hosts: None,
            host_keys: Vec::new(),
            path: default_path(),
            template: default_template(),
            format: SftpFormat::default(),
            null_marker: default_null_marker(),
            delimiter: default_delimiter(),
            max_bytes: default_max_bytes(),
            max_rows: default_max_rows(),
            on_truncate: OnTruncate::default(),
            connect_timeout: default_connect_timeout(),
            timeout: default_timeout(),
            keepalive: default_keepalive(),
            home: Home::default(),
        }
    }

    /// The pipeline that writes, and the directory in which its batches stand until they are handed over.
    #[must_use]
    pub fn of_pipeline(mut self, id: &str, spool: &Path) -> Self {
        self.home = Home { pipeline: id.to_owned(), spool: spool.to_owned() };
        self
    }

    /// What is wrong with the settings, as far as they show it.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut found = |key: &'static str, what: String, hint: &'static str| faults.push(Fault { key, what, hint });
        if self.password.is_none() && self.private_key.is_none() && self.agent.is_none() {
            let hint = "Give `password`, `private_key` (with `passphrase`), or `agent`";
            found("user", "nothing says how the user logs in".to_owned(), hint);
        }
        if self.known_hosts.is_none() && self.host_keys.is_empty() {
            let hint = "Give `known_hosts`, or in `host_keys` what `ssh-keyscan HOST | ssh-keygen -lf -` shows, once you \
                        have compared it with what the server's owner says";
            found("host_keys", "nothing says how the server is known".to_owned(), hint);
        }
        for key in self.host_keys.iter().filter(|key| !is_fingerprint(key)) {
            let hint = "It looks like `SHA256:` and 43 characters, as `ssh-keygen -lf` shows it";
            found("host_keys", format!("`{key}` is no fingerprint"), hint);
        }
        if let Err(what) = PathTemplate::parse(&self.template) {
            let hint = "Such as `{schema}/{table}/{year}-{month}-{day}/{part}.{format}`";
            found("template", what, hint);
        }
        if self.max_rows == 0 || self.max_bytes.0 == 0 {
            found("max_rows", "a file has to hold something".to_owned(), "Leave `max_rows` and `max_bytes` out");
        }
        if self.keepalive.is_zero() || self.timeout.as_secs() == 0 || self.connect_timeout.is_zero() {
            let hint = "Leave `timeout`, `connect_timeout` and `keepalive` out, or give some seconds";
            found("timeout", "no server answers in no time".to_owned(), hint);
        }
        faults
    }
}

fn is_fingerprint(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    text.strip_prefix("SHA256:").is_some_and(|hash| hash.len() == 43 && hash.bytes().all(is_base64))
}

const fn default_port() -> u16 {
    22
}

fn default_path() -> String {
    ".".to_owned()
}

fn default_template() -> String {
    "{schema}/{table}/{part}.{format}".to_owned()
}

fn default_null_marker() -> String {
    "\\N".to_owned()
}

const fn default_delimiter() -> char {
    ','
}

const fn default_max_bytes() -> ByteSize {
    ByteSize(128 << 20)
}

const fn default_max_rows() -> u32 {
    1_000_000
}

const fn default_connect_timeout() -> Duration {
    Duration::from_secs(15)
}

const fn default_timeout() -> Duration {
    Duration::from_secs(30)
}

const fn default_keepalive() -> Duration {
    Duration::from_secs(15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(config: &SftpConfig) -> Vec<&'static str> {
        config.faults().into_iter().map(|fault| fault.key).collect()
    }

    #[test]
    fn a_config_says_all_that_is_wrong_with_it() {
        let good = SftpConfig {
            agent: Some("agent".into()),
            host_keys: vec![format!("SHA256:{}", "a+/".repeat(15)[..43].to_owned())],
            ..SftpConfig::new("h", "u")
        };
        assert_eq!(keys(&good), [""; 0]);
        assert_eq!(keys(&SftpConfig::new("h", "u")), ["user", "host_keys"]);
        let bad = SftpConfig {
            host_keys: vec!["MD5:aa".to_owned(), "SHA256:short".to_owned()],
            template: "../{table}".to_owned(),
            max_rows: 0,
            timeout: Duration::ZERO,
            ..good
        };
        assert_eq!(keys(&bad), ["host_keys", "host_keys", "template", "max_rows", "timeout"]);
    }
}
