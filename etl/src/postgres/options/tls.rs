//! How is a connection encrypted, and who proves what to whom?

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// How a connection is encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsOptions {
    /// `disable`, `prefer`, `require`, `verify-ca` or `verify-full`. Default `disable` on a unix socket and on loopback,
    /// else `require`; `verify-ca` where `ca` is given, as libpq has it.
    pub mode: Option<TlsMode>,
    /// The certificates (PEM) that are trusted, or `system`; the system's where it is left out.
    pub ca: Option<PathBuf>,
    /// The certificate (PEM, with what leads to its authority) by which the server knows us.
    pub certificate: Option<PathBuf>,
    /// The key of `certificate`; only its owner may be able to read it.
    pub key: Option<PathBuf>,
}

/// How much a connection's encryption is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TlsMode {
    /// No encryption.
    Disable,
    /// Encrypted where the server offers it; nobody who listens in between is kept from taking the offer out.
    Prefer,
    /// Encrypted, whoever it is.
    Require,
    /// Encrypted, and the certificate is trusted.
    VerifyCa,
    /// Encrypted, and the certificate is trusted and names the host.
    VerifyFull,
}

impl TlsMode {
    /// The value as a URL has it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }

    /// Whether the server's certificate is looked at.
    pub const fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

impl TlsOptions {
    /// The file of trusted certificates; `None`: the system's.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.ca.as_deref().filter(|ca| *ca != Path::new("system"))
    }

    /// The mode for a host, with the defaults.
    pub(crate) fn mode_for(&self, is_unix: bool, is_local: bool) -> TlsMode {
        match (self.mode, &self.ca) {
            _ if is_unix => TlsMode::Disable,
            // Anybody can have a certificate of the system's authorities: only the name tells.
            (None | Some(TlsMode::Require), Some(ca)) if ca == Path::new("system") => TlsMode::VerifyFull,
            (None | Some(TlsMode::Require), Some(_)) => TlsMode::VerifyCa,
            (Some(mode), _) => mode,
            (None, None) if is_local => TlsMode::Disable,
            (None, None) => TlsMode::Require,
        }
    }
}
