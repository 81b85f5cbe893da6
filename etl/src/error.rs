//! What failed, where, and what can the caller do about it? One error type for the whole engine.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// The result of everything in this crate that can fail.
pub type EtlResult<T> = Result<T, EtlError>;

type Source = Box<dyn StdError + Send + Sync>;

/// An error: a kind that says what the caller can do, a message, context pairs, a hint, and its source.
///
/// One word wide. `Display` prints all of it on one line, the source chain included.
pub struct EtlError(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    context: Vec<(&'static str, String)>,
    /// The table that failed, and it alone.
    table: Option<u32>,
    source: Option<Source>,
}

/// What went wrong, as far as it matters for what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong or missing.
    Config,
    /// The source does not answer, went away or is starting up.
    SourceUnavailable,
    /// The slot is held by another connection, which may be one of ours that just died.
    SlotBusy,
    /// The source refuses the user or the password.
    SourceAuthentication,
    /// The user lacks a right at the source.
    SourcePermission,
    /// The source is not set up for this: `wal_level`, publication, slot.
    SourceSetup,
    /// The source is not the one that was read before, or went back in time.
    SourceIdentity,
    /// The source keeps more WAL for the slot than it may.
    WalRetained,
    /// TLS could not be set up as configured.
    Tls,
    /// The server sent bytes that do not follow the protocol.
    Protocol,
    /// The source's server reports an error that has no kind of its own.
    SourceQuery,
    /// A value cannot be represented exactly.
    Value,
    /// A table's schema is not the one that was stored.
    SchemaChanged,
    /// The destination does not answer; trying again may help.
    DestinationUnavailable,
    /// The destination refuses what it got.
    DestinationRejected,
    /// The destination cannot do what is asked of it.
    DestinationUnsupported,
    /// The state store failed.
    Store,
    /// The state store does not answer; trying again may help.
    StoreUnavailable,
    /// Somebody else changed the stored state in the meantime.
    StoreConflict,
    /// The relay's files are damaged or at their limit.
    Relay,
    /// A disk is not writable or failing.
    Disk,
    /// A disk is full; once there is room, trying again helps.
    DiskFull,
    /// A file or directory is in use by another process.
    Locked,
    /// The work was told to stop.
    Cancelled,
    /// A promise of the engine itself was broken.
    Internal,
}

/// Whether trying again, a person, or a bug report is what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryClass {
    /// The same call may succeed later.
    Transient,
    /// Somebody has to change something first.
    NeedsUser,
    /// Neither helps: report it.
    Bug,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Config,
        Self::SourceUnavailable,
        Self::SlotBusy,
        Self::SourceAuthentication,
        Self::SourcePermission,
        Self::SourceSetup,
        Self::SourceIdentity,
        Self::WalRetained,
        Self::Tls,
        Self::Protocol,
        Self::SourceQuery,
        Self::Value,
        Self::SchemaChanged,
        Self::DestinationUnavailable,
        Self::DestinationRejected,
        Self::DestinationUnsupported,
        Self::Store,
        Self::StoreUnavailable,
        Self::StoreConflict,
        Self::Relay,
        Self::Disk,
        Self::DiskFull,
        Self::Locked,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The kind's name in logs, metrics and status pages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::SourceUnavailable => "source_unavailable",
            Self::SlotBusy => "slot_busy",
            Self::SourceAuthentication => "source_authentication",
            Self::SourcePermission => "source_permission",
            Self::SourceSetup => "source_setup",
            Self::SourceIdentity => "source_identity",
            Self::WalRetained => "wal_retained",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::SourceQuery => "source_query",
            Self::Value => "value",
            Self::SchemaChanged => "schema_changed",
            Self::DestinationUnavailable => "destination_unavailable",
            Self::DestinationRejected => "destination_rejected",
            Self::DestinationUnsupported => "destination_unsupported",
            Self::Store => "store",
            Self::StoreUnavailable => "store_unavailable",
            Self::StoreConflict => "store_conflict",
            Self::Relay => "relay",
            Self::Disk => "disk",
            Self::DiskFull => "disk_full",
            Self::Locked => "locked",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// The kind of an error of the file system.
    pub fn of_disk(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Disk,
        }
    }

    /// What helps against an error of this kind.
    pub const fn retry_class(self) -> RetryClass {
        match self {
            Self::SourceUnavailable
            | Self::SlotBusy
            | Self::StoreUnavailable
            | Self::DestinationUnavailable
            | Self::DiskFull => RetryClass::Transient,
            Self::Config
            | Self::SourceAuthentication
            | Self::SourcePermission
            | Self::SourceSetup
            | Self::SourceIdentity
            | Self::WalRetained
            | Self::Tls
            | Self::SourceQuery
            | Self::Value
            | Self::SchemaChanged
            | Self::DestinationRejected
            | Self::DestinationUnsupported
            | Self::Store
            | Self::Relay
            | Self::Disk
            | Self::Locked
            | Self::Cancelled => RetryClass::NeedsUser,
            Self::Protocol | Self::StoreConflict | Self::Internal => RetryClass::Bug,
        }
    }
}

impl EtlError {
    /// An error of this kind; the message says what failed, without a final period.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            context: Vec::new(),
            table: None,
            source: None,
        }))
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds where it happened: a table, a position, a file. Never a secret.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Adds the error that caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Notes the oid of the table that failed, and it alone.
    #[must_use]
    pub(crate) fn with_oid(mut self, oid: u32) -> Self {
        self.0.table = Some(oid);
        self
    }

    /// The oid of the table that failed, and it alone: its own, or its cause's.
    pub(crate) fn oid(&self) -> Option<u32> {
        let cause = || self.0.source.as_ref()?.downcast_ref::<Self>()?.oid();
        self.0.table.or_else(cause)
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying again helps.
    pub fn retry_class(&self) -> RetryClass {
        self.0.kind.retry_class()
    }

    /// What failed, without context, hint and source.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the user can do, where that is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The value of a context pair.
    pub fn context(&self, key: &str) -> Option<&str> {
        self.0.context.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str())
    }
}

impl fmt::Display for EtlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (i, (key, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { " (" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            // An error of ours prints its own sources.
            source = if cause.is::<EtlError>() { None } else { cause.source() };
        }
        match &self.0.hint {
            Some(hint) => write!(f, ". {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for EtlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl StdError for EtlError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

/// The one door through which foreign errors come in.
pub trait ResultExt<T> {
    /// Names the kind, and what was being done ("open the state store").
    ///
    /// # Errors
    /// The error, with `doing` as its message and the original as its source.
    fn or_etl(self, kind: ErrorKind, doing: &'static str) -> EtlResult<T>;
}

impl<T, E: Into<Source>> ResultExt<T> for Result<T, E> {
    fn or_etl(self, kind: ErrorKind, doing: &'static str) -> EtlResult<T> {
        self.map_err(|e| EtlError::new(kind, format!("could not {doing}")).because(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_says_what_where_why_and_what_to_do() {
        let io = std::io::Error::other("No space left on device");
        let error = Err::<(), _>(io)
            .or_etl(ErrorKind::Disk, "write the relay segment")
            .map_err(|e| e.with("file", "7.seg").with("bytes", 42).hint("Free some space"))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not write the relay segment (file=7.seg, bytes=42): No space left on device. Free some space"
        );
        assert_eq!(error.kind(), ErrorKind::Disk);
        assert_eq!(error.context("file"), Some("7.seg"));
    }

    #[test]
    fn an_error_is_one_word_wide() {
        assert_eq!(size_of::<EtlError>(), size_of::<usize>());
    }
}
