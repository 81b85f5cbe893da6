//! Why did it end, and with which exit code?

use std::fmt;
use std::process::ExitCode;

use etl::{ErrorKind, EtlError};
use etl_config::Problems;

/// Tables are in quarantine, everything else is done.
pub(crate) const QUARANTINED: u8 = 3;

/// What a verb ends with when it does not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The words were wrong.
    Usage(String),
    /// The config is wrong.
    Config(Problems),
    /// The engine gave up.
    Engine(EtlError),
    /// Something else, said in full.
    Other(String),
    /// It was said already.
    Said(u8),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::Config(_) => ExitCode::from(2),
            Self::Engine(error) if error.kind() == ErrorKind::Config => ExitCode::from(2),
            Self::Engine(_) | Self::Other(_) => ExitCode::from(1),
            Self::Said(code) => ExitCode::from(*code),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Other(text) => write!(f, "error: {text}"),
            Self::Config(problems) => write!(f, "error: {problems}"),
            Self::Engine(error) => write!(f, "error: {error}"),
            Self::Said(_) => Ok(()),
        }
    }
}

impl From<EtlError> for Failure {
    fn from(error: EtlError) -> Self {
        Self::Engine(error)
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}
