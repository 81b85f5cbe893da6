//! How is the server reached? Address, user, TLS; from parts or from a URL.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::secret::Secret;

/// How to reach a server and who to be there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectOptions {
    /// A name, an address, or the directory of a unix socket.
    pub host: String,
    /// Default 5432.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The database that is read.
    pub database: String,
    /// The role that reads.
    pub user: String,
    /// Its password, where the server asks for one.
    #[serde(default)]
    pub password: Option<Secret>,
    /// How the connection is encrypted.
    #[serde(default)]
    pub tls: TlsOptions,
    /// How long connecting may take. Default 10s.
    #[serde(default = "default_timeout", with = "crate::duration")]
    pub connect_timeout: Duration,
    /// What `pg_stat_activity` shows. Default `etl`.
    #[serde(default = "default_name")]
    pub application_name: String,
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsOptions {
    /// Default `disable` on a unix socket and on loopback, else `require`.
    #[serde(default)]
    pub mode: Option<TlsMode>,
    /// The certificates (PEM) that are trusted; the system's where it is left out.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// How much a connection's encryption is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TlsMode {
    /// No encryption.
    Disable,
    /// Encrypted, whoever it is.
    Require,
    /// Encrypted, and the certificate is trusted and names the host.
    VerifyFull,
}

fn default_port() -> u16 {
    5432
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_name() -> String {
    "etl".to_owned()
}

impl ConnectOptions {
    /// A server by its parts, with the defaults for the rest.
    pub fn new(host: impl Into<String>, database: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: default_port(),
            database: database.into(),
            user: user.into(),
            password: None,
            tls: TlsOptions::default(),
            connect_timeout: default_timeout(),
            application_name: default_name(),
        }
    }

    /// Reads `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=ca.pem`; `host` may
    /// also be given as a parameter, for the directory of a unix socket.
    ///
    /// # Errors
    /// Says which part is wrong; neither the URL nor the password is shown.
    pub fn from_url(url: &str) -> EtlResult<Self> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| wrong("it does not begin with postgres://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(Secret::new(decode(password)?))),
            None => (login, None),
        };
        let (host, port) = split_address(address)?;
        let mut options = Self::new(decode(host)?, decode(path)?, decode(user)?);
        options.password = password;
        options.port = port.unwrap_or(default_port());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            options.set(key, decode(value)?)?;
        }
        if options.host.is_empty() {
            "localhost".clone_into(&mut options.host);
        }
        if options.user.is_empty() {
            return Err(wrong("it names no user"));
        }
        if options.database.is_empty() {
            options.database.clone_from(&options.user);
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: String) -> EtlResult<()> {
        match key {
            "host" => self.host = value,
            "port" => self.port = value.parse().map_err(|_| wrong("its port is not a number"))?,
            "user" => self.user = value,
            "password" => self.password = Some(Secret::new(value)),
            "dbname" => self.database = value,
            "application_name" => self.application_name = value,
            "sslrootcert" => self.tls.ca = Some(value.into()),
            "connect_timeout" => {
                let seconds = value.parse().map_err(|_| wrong("its connect_timeout is not a number of seconds"))?;
                self.connect_timeout = Duration::from_secs(seconds);
            }
            "sslmode" => {
                self.tls.mode = Some(match value.as_str() {
                    "disable" => TlsMode::Disable,
                    "require" => TlsMode::Require,
                    "verify-full" => TlsMode::VerifyFull,
                    _ => return Err(wrong("its sslmode is none of disable, require, verify-full")),
                });
            }
            _ => return Err(wrong("it has an unknown parameter").with("parameter", key)),
        }
        Ok(())
    }

    /// Whether the host is the directory of a unix socket.
    pub fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }

    /// How the connection is encrypted, the default included.
    pub fn tls_mode(&self) -> TlsMode {
        let is_local = self.is_unix() || matches!(self.host.as_str(), "localhost" | "127.0.0.1" | "::1");
        let default = if is_local { TlsMode::Disable } else { TlsMode::Require };
        if self.is_unix() { TlsMode::Disable } else { self.tls.mode.unwrap_or(default) }
    }

    /// Where the server is, for messages.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn split_address(address: &str) -> EtlResult<(&str, Option<u16>)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(|| wrong("its address has no closing bracket"))?;
            (host, after.strip_prefix(':'))
        }
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map(|port| port.parse().map_err(|_| wrong("its port is not a number"))).transpose()?;
    Ok((host, port))
}

fn decode(text: &str) -> EtlResult<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit(), digit());
        let byte = high.zip(low).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        bytes.push(byte.ok_or_else(|| wrong("a % in it is not followed by two hexadecimal digits"))?);
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8 once decoded"))
}

fn wrong(what: &str) -> EtlError {
    EtlError::new(ErrorKind::Config, format!("the url is wrong: {what}"))
        .hint("Write postgres://user:password@host:5432/database; encode special characters as %XX")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_all_parts() {
        let options = ConnectOptions::from_url(
            "postgres://me:p%40ss@db.example:6432/shop?sslmode=verify-full&sslrootcert=%2Fca.pem",
        )
        .unwrap();
        assert_eq!((options.host.as_str(), options.port, options.database.as_str()), ("db.example", 6432, "shop"));
        assert_eq!(options.password.as_ref().unwrap().expose(), "p@ss");
        assert_eq!((options.tls_mode(), options.tls.ca), (TlsMode::VerifyFull, Some("/ca.pem".into())));
        let options = ConnectOptions::from_url("postgresql://me@[::1]:7/").unwrap();
        assert_eq!((options.host.as_str(), options.port, options.database.as_str()), ("::1", 7, "me"));
        let options = ConnectOptions::from_url("postgres://me@/x?host=/run/pg&port=8").unwrap();
        assert!(options.is_unix() && options.tls_mode() == TlsMode::Disable);
    }

    #[test]
    fn p8_a_wrong_url_is_explained_without_its_password() {
        for bad in [
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@h:x/d",
            "postgres://u:hunter2@h/d?sslmode=maybe",
            "postgres://u:hunter2@h/d?nonsense=1",
            "postgres://u:hunter2%zz@h/d",
            "postgres://:hunter2@h/d",
        ] {
            let error = ConnectOptions::from_url(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{bad}");
        }
        let debug = format!("{:?}", ConnectOptions::from_url("postgres://u:hunter2@h/d").unwrap());
        assert!(!debug.contains("hunter2"));
    }
}
