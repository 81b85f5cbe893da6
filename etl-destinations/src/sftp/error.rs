//! What does it mean that the server did not do it, and what helps?

use etl::error::{ErrorKind, EtlError};
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::StatusCode;

use crate::bulk::{CallError, ErrorClass};

/// Why a request was not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server said no.
    No(StatusCode, String),
    /// Nobody knows: there was no answer.
    Lost(String),
}

impl From<SftpError> for Fault {
    fn from(error: SftpError) -> Self {
        match error {
            SftpError::Status(status)
                if !matches!(status.status_code, StatusCode::NoConnection | StatusCode::ConnectionLost) =>
            {
                Self::No(status.status_code, status.error_message)
            }
            other => Self::Lost(other.to_string()),
        }
    }
}

impl Fault {
    /// Whether what was asked for is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::No(StatusCode::NoSuchFile, _))
    }

    /// Whether there is no more to read.
    pub(super) fn is_end(&self) -> bool {
        matches!(self, Self::No(StatusCode::Eof, _))
    }

    /// Whether the connection is of no use any more.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// The error that it is.
    pub(super) fn error(self, doing: &str, path: &str) -> EtlError {
        let (code, said) = match self {
            Self::Lost(said) => return lost(&said).with("doing", doing).with("path", path),
            Self::No(code, said) => (code, said),
        };
        let (kind, hint) = match code {
            StatusCode::PermissionDenied => (
                ErrorKind::DestinationRejected,
                "Let the user write there at the server (`ls -ld` shows who may), or give another `path`",
            ),
            StatusCode::NoSuchFile => {
                (ErrorKind::DestinationRejected, "Make the directory at the server, or give another `path`")
            }
            StatusCode::OpUnsupported | StatusCode::BadMessage => {
                (ErrorKind::DestinationUnsupported, "The server is too old or too limited for this: report what it is")
            }
            _ => (
                ErrorKind::DestinationUnavailable,
                "The server does not say why: look at its log, and at the space and quota of its disk; it is tried again",
            ),
        };
        EtlError::new(kind, format!("the SFTP server would not {doing}"))
            .with("path", path)
            .with("status", code)
            .because(said)
            .hint(hint)
    }
}

/// The connection is gone.
pub(super) fn lost(said: &str) -> EtlError {
    EtlError::new(ErrorKind::DestinationUnavailable, "the connection to the SFTP server was lost")
        .because(said.to_owned())
        .hint("It is tried again, on a new connection")
}

/// What is to be done about a batch that was not handed over.
pub(super) fn call(error: EtlError, in_doubt: bool) -> CallError {
    let class = match error.kind() {
        ErrorKind::DestinationUnavailable | ErrorKind::DiskFull => ErrorClass::Retry,
        // No row is to blame for what is not set up.
        _ => ErrorClass::Config,
    };
    CallError { class, in_doubt, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_tried_again_and_a_refusal_waits_for_somebody() {
        let no = |code| Fault::No(code, "said".to_owned()).error("write a file", "in/a");
        for (error, class) in [
            (no(StatusCode::PermissionDenied), ErrorClass::Config),
            (no(StatusCode::NoSuchFile), ErrorClass::Config),
            (no(StatusCode::Failure), ErrorClass::Retry),
            (Fault::from(SftpError::Timeout).error("write a file", "in/a"), ErrorClass::Retry),
            (lost("gone"), ErrorClass::Retry),
        ] {
            assert!(error.hint_text().is_some(), "{error}");
            assert_eq!(call(error, false).class, class);
        }
    }
}
