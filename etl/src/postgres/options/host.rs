//! Which servers, and which of them is meant? Hosts in the order in which they are tried.

use std::fmt;

use serde::Deserialize;

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// A name, an address, or the directory of a unix socket.
    pub name: String,
    /// The port.
    pub port: u16,
}

impl Host {
    /// Whether it is the directory of a unix socket.
    pub fn is_unix(&self) -> bool {
        self.name.starts_with('/')
    }

    /// Whether nobody but this machine is on the way to it.
    pub fn is_local(&self) -> bool {
        self.is_unix() || matches!(self.name.as_str(), "localhost" | "127.0.0.1" | "::1")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// Which of several servers is used: the first one that is like this (libpq's `target_session_attrs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TargetSession {
    /// Whatever it is.
    Any,
    /// It takes writes.
    ReadWrite,
    /// It takes none.
    ReadOnly,
    /// It is no standby.
    Primary,
    /// It is a standby.
    Standby,
    /// It is a standby, or whatever is there where none is.
    PreferStandby,
}

/// What a server says of itself at the login; every version from 14 on does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ServerRole {
    /// `in_hot_standby`
    pub(crate) is_standby: bool,
    /// `default_transaction_read_only`
    pub(crate) is_read_only: bool,
}

impl TargetSession {
    /// Whether a server of this role is one that is meant.
    pub(crate) const fn takes(self, role: ServerRole) -> bool {
        let ServerRole { is_standby, is_read_only } = role;
        match self {
            Self::Any => true,
            Self::ReadWrite => !is_standby && !is_read_only,
            Self::ReadOnly => is_standby || is_read_only,
            Self::Primary => !is_standby,
            Self::Standby | Self::PreferStandby => is_standby,
        }
    }

    /// The value as a URL has it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "any" => Self::Any,
            "read-write" => Self::ReadWrite,
            "read-only" => Self::ReadOnly,
            "primary" => Self::Primary,
            "standby" => Self::Standby,
            "prefer-standby" => Self::PreferStandby,
            _ => return None,
        })
    }
}
