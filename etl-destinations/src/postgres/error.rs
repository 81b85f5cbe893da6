//! What does an error of the target's server mean? Its SQLSTATE says.

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::postgres::query_error;

/// SQLSTATEs, or the classes that are their first two letters, that waiting helps against.
const PASSING: &[&str] = &["08", "40", "53", "55P03", "55006", "57P", "58030", "XX000"];

/// Turns the errors of the target's server into ours.
pub(super) trait PostgresResult<T> {
    /// Says what was being done.
    fn or_postgres(self, doing: &'static str) -> EtlResult<T>;
}

impl<T> PostgresResult<T> for Result<T, tokio_postgres::Error> {
    fn or_postgres(self, doing: &'static str) -> EtlResult<T> {
        self.map_err(|error| failed(doing, query_error(doing, error)))
    }
}

/// An error of a source's server as one of a destination's.
pub(super) fn failed(doing: &'static str, error: EtlError) -> EtlError {
    let (kind, hint) = class(error.kind(), error.context("sqlstate"));
    let failed = EtlError::new(kind, format!("the target could not {doing}")).because(error);
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

fn class(kind: ErrorKind, sqlstate: Option<&str>) -> (ErrorKind, Option<&'static str>) {
    let is = |prefix: &str| sqlstate.is_some_and(|sqlstate| sqlstate.starts_with(prefix));
    match kind {
        ErrorKind::SourceAuthentication => {
            (ErrorKind::Config, Some("Check user and password in the destination's `url`"))
        }
        ErrorKind::Tls | ErrorKind::Config => (kind, None),
        _ if is("53100") => (ErrorKind::DiskFull, Some("Free some space at the target's server: nothing is lost")),
        _ if is("25006") => {
            (ErrorKind::Config, Some("Name a server that can be written, not a standby, in the destination's `url`"))
        }
        _ if is("3D000") => (ErrorKind::Config, Some("Create the database, or name another one in the `url`")),
        _ if is("42501") => (
            ErrorKind::DestinationRejected,
            Some("Grant the user CREATE on the database, and ALL on what it writes to"),
        ),
        _ if is("2BP01") => {
            (ErrorKind::DestinationRejected, Some("Drop the views that need it first, then make them again"))
        }
        _ if PASSING.iter().any(|prefix| is(prefix)) => (ErrorKind::DestinationUnavailable, None),
        ErrorKind::SourceUnavailable => {
            (ErrorKind::DestinationUnavailable, Some("Check that the target's server runs"))
        }
        _ => (ErrorKind::DestinationRejected, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_tell_what_helps() {
        for (kind, sqlstate, expected) in [
            (ErrorKind::SourceQuery, Some("40P01"), ErrorKind::DestinationUnavailable),
            (ErrorKind::SourceQuery, Some("53100"), ErrorKind::DiskFull),
            (ErrorKind::SourceQuery, Some("23514"), ErrorKind::DestinationRejected),
            (ErrorKind::SourceQuery, Some("25006"), ErrorKind::Config),
            (ErrorKind::SourceAuthentication, Some("28P01"), ErrorKind::Config),
            (ErrorKind::SourcePermission, Some("42501"), ErrorKind::DestinationRejected),
            (ErrorKind::SourceUnavailable, Some("57P01"), ErrorKind::DestinationUnavailable),
            (ErrorKind::SourceUnavailable, None, ErrorKind::DestinationUnavailable),
        ] {
            assert_eq!(class(kind, sqlstate).0, expected, "{kind:?} {sqlstate:?}");
        }
    }
}
