//! How is the server reached? Addresses, user, TLS; from parts or from a URL.

mod host;
mod tls;
mod url;

use std::time::Duration;

use serde::Deserialize;

pub(crate) use self::host::ServerRole;
pub use self::host::{Host, TargetSession};
pub use self::tls::{TlsMode, TlsOptions};
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
    /// What is tried after that, in this order.
    #[serde(skip)]
    pub other_hosts: Vec<Host>,
    /// Which of several servers is used. Default: the first, or of several the first that takes writes.
    #[serde(default)]
    pub target_session_attrs: Option<TargetSession>,
    /// The database that is read.
    pub database: String,
    /// The role that reads.
    pub user: String,
    /// Its password, where the server asks for one.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Whether the login is bound to the encrypted connection. Default `prefer`.
    #[serde(default)]
    pub channel_binding: ChannelBinding,
    /// How the connection is encrypted.
    #[serde(default)]
    pub tls: TlsOptions,
    /// How long connecting to one server may take. Default 10s.
    #[serde(default = "default_timeout", with = "crate::duration")]
    pub connect_timeout: Duration,
    /// How a peer that vanished is noticed.
    #[serde(default)]
    pub keepalive: KeepaliveOptions,
    /// What `pg_stat_activity` shows, before what each connection is for. Default `etl`.
    #[serde(default = "default_name")]
    pub application_name: String,
    /// Whether bytes of the stream and of copies pile up before they are read while they come in many little pieces less than
    /// 4 ms apart: for 1 ms at most, or 4 ms while the server is ahead. Default true.
    #[serde(default = "default_coalesced_reads")]
    pub coalesced_reads: bool,
}

/// Whether a login by password is bound to the encrypted connection, so that nobody in between can pass it on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ChannelBinding {
    /// It is not.
    Disable,
    /// It is where the server offers it.
    #[default]
    Prefer,
    /// It is, or the login ends.
    Require,
}

/// How a peer is noticed that vanished without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepaliveOptions {
    /// After this much silence the peer is asked. Default 30s.
    #[serde(with = "crate::duration")]
    pub idle: Duration,
    /// It is asked again after this long. Default 10s.
    #[serde(with = "crate::duration")]
    pub interval: Duration,
    /// After this many questions without an answer it is gone. Default 3.
    pub retries: u32,
    /// What was sent and not received for this long means the same; 0s leaves that to the system. Default 60s.
    #[serde(with = "crate::duration")]
    pub unanswered: Duration,
}

impl Default for KeepaliveOptions {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { idle: seconds(30), interval: seconds(10), retries: 3, unanswered: seconds(60) }
    }
}

impl ChannelBinding {
    /// The value as a URL has it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            _ => return None,
        })
    }
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

fn default_coalesced_reads() -> bool {
    true
}

impl ConnectOptions {
    /// A server by its parts, with the defaults for the rest.
    pub fn new(host: impl Into<String>, database: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: default_port(),
            other_hosts: Vec::new(),
            target_session_attrs: None,
            database: database.into(),
            user: user.into(),
            password: None,
            channel_binding: ChannelBinding::default(),
            tls: TlsOptions::default(),
            connect_timeout: default_timeout(),
            keepalive: KeepaliveOptions::default(),
            application_name: default_name(),
            coalesced_reads: default_coalesced_reads(),
        }
    }

    /// All servers, in the order in which they are tried.
    pub fn hosts(&self) -> impl Iterator<Item = Host> {
        let first = Host { name: self.host.clone(), port: self.port };
        std::iter::once(first).chain(self.other_hosts.iter().cloned())
    }

    /// The first server that is tried.
    pub fn first_host(&self) -> Host {
        Host { name: self.host.clone(), port: self.port }
    }

    /// The same for a connection with a purpose of its own, which `pg_stat_activity` shows after the name.
    #[must_use]
    pub fn for_purpose(&self, purpose: &str) -> Self {
        Self { application_name: format!("{} {purpose}", self.application_name), ..self.clone() }
    }

    /// Which server is meant, the default included.
    pub(crate) fn target(&self) -> TargetSession {
        let default = if self.other_hosts.is_empty() { TargetSession::Any } else { TargetSession::ReadWrite };
        self.target_session_attrs.unwrap_or(default)
    }

    /// How the connection to a host is encrypted, the default included.
    pub fn tls_mode(&self, host: &Host) -> TlsMode {
        self.tls.mode_for(host.is_unix(), host.is_local())
    }

    /// Where the servers are, for messages.
    pub fn address(&self) -> String {
        self.hosts().map(|host| host.to_string()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_url_gives_all_parts() {
        let options = ConnectOptions::from_url(
            "postgres://me:p%40ss@db.example:6432/shop?sslmode=verify-full&sslrootcert=%2Fca.pem",
        )
        .unwrap();
        assert_eq!((options.host.as_str(), options.port, options.database.as_str()), ("db.example", 6432, "shop"));
        assert_eq!(options.password.as_ref().unwrap().expose(), "p@ss");
        assert_eq!(
            (options.tls_mode(&options.first_host()), options.tls.ca),
            (TlsMode::VerifyFull, Some("/ca.pem".into()))
        );
        let options = ConnectOptions::from_url("postgresql://me@[::1]:7/").unwrap();
        assert_eq!((options.host.as_str(), options.port, options.database.as_str()), ("::1", 7, "me"));
        let options = ConnectOptions::from_url("postgres://me@/x?host=/run/pg&port=8").unwrap();
        assert!(options.first_host().is_unix() && options.tls_mode(&options.first_host()) == TlsMode::Disable);
    }

    #[test]
    fn several_hosts_have_their_ports_and_the_first_that_takes_writes_is_meant() {
        let text = |options: &ConnectOptions| options.address();
        let options = ConnectOptions::from_url("postgres://u@a:1,b,[::1]:3/d?keepalives_idle=5").unwrap();
        assert_eq!(text(&options), "a:1, b:5432, [::1]:3");
        assert_eq!((options.target(), options.keepalive.idle), (TargetSession::ReadWrite, Duration::from_secs(5)));
        let options = ConnectOptions::from_url("postgres://u@/d?host=/run/a,b&port=7,8&target_session_attrs=standby");
        let options = options.unwrap();
        assert_eq!((text(&options), options.target()), ("/run/a:7, b:8".to_owned(), TargetSession::Standby));
        let options = ConnectOptions::new("", "d", "u").with_hosts("a, b:9", 6).unwrap();
        assert_eq!(text(&options), "a:6, b:9");
        assert_eq!(ConnectOptions::from_url("postgres://u@h").unwrap().target(), TargetSession::Any);
        let role = |is_standby, is_read_only| ServerRole { is_standby, is_read_only };
        for (target, takes) in [
            (TargetSession::Any, [true, true, true]),
            (TargetSession::ReadWrite, [true, false, false]),
            (TargetSession::ReadOnly, [false, true, true]),
            (TargetSession::Primary, [true, true, false]),
            (TargetSession::Standby, [false, false, true]),
        ] {
            assert_eq!([role(false, false), role(false, true), role(true, true)].map(|role| target.takes(role)), takes);
        }
    }

    #[test]
    fn certificates_to_trust_are_used_where_encryption_is_asked_for() {
        for (query, mode) in [
            ("", TlsMode::Require),
            ("sslmode=prefer", TlsMode::Prefer),
            ("sslmode=require&sslrootcert=x", TlsMode::VerifyCa),
            ("sslrootcert=system", TlsMode::VerifyFull),
            ("sslmode=verify-ca", TlsMode::VerifyCa),
            ("sslmode=disable&sslrootcert=x", TlsMode::Disable),
        ] {
            let options = ConnectOptions::from_url(&format!("postgres://u@db/d?{query}")).unwrap();
            assert_eq!(options.tls_mode(&options.first_host()), mode, "{query}");
        }
        let tls = TlsOptions { ca: Some("system".into()), ..TlsOptions::default() };
        assert_eq!(tls.ca_file(), None);
    }

    #[test]
    fn p8_a_wrong_url_is_explained_without_its_password() {
        for bad in [
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@h:x/d",
            "postgres://u:hunter2@h/d?sslmode=maybe",
            "postgres://u:hunter2@h/d?nonsense=1",
            "postgres://u:hunter2@h/d?channel_binding=perhaps",
            "postgres://u:hunter2@h/d?target_session_attrs=best",
            "postgres://u:hunter2@h,i/d?port=1,2,3",
            "postgres://u:hunter2@h/d?keepalives_idle=soon",
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
