//! What does the server complain about? SQLSTATEs and what they mean for the caller.

use std::fmt;

use crate::error::{ErrorKind, EtlError};

/// SQLSTATEs, or the classes that are their first two letters (the manual's appendix A), with what they mean.
/// The first match decides.
const KINDS: &[(&str, ErrorKind)] = &[
    ("28", ErrorKind::SourceAuthentication),
    ("42501", ErrorKind::SourcePermission),
    ("55006", ErrorKind::SlotBusy),
    // What the server did not expect itself, such as a catalog that changed under it: the next attempt sees it whole.
    ("XX000", ErrorKind::SourceUnavailable),
    ("57P01", ErrorKind::SourceUnavailable),
    ("57P02", ErrorKind::SourceUnavailable),
    ("57P03", ErrorKind::SourceUnavailable),
    ("57P05", ErrorKind::SourceUnavailable),
    ("53300", ErrorKind::SourceUnavailable),
    ("08", ErrorKind::SourceUnavailable),
    ("40", ErrorKind::SourceUnavailable),
    ("55P03", ErrorKind::SourceUnavailable),
    ("58P01", ErrorKind::SourceUnavailable),
    ("3D000", ErrorKind::SourceSetup),
    ("42704", ErrorKind::SourceSetup),
    ("55000", ErrorKind::SourceSetup),
    ("53400", ErrorKind::SourceSetup),
];

/// The kind of an error with this SQLSTATE.
pub(crate) fn kind_of(sqlstate: &str) -> ErrorKind {
    let known = KINDS.iter().find(|(prefix, _)| sqlstate.starts_with(prefix));
    known.map_or(ErrorKind::SourceQuery, |(_, kind)| *kind)
}

/// What the server said.
#[derive(Debug, Default)]
struct ServerMessage {
    sqlstate: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, " ({detail})"))
    }
}

impl std::error::Error for ServerMessage {}

/// The error that an `ErrorResponse` holds (protocol section 55.8, error and notice message fields).
pub(super) fn parse(body: &[u8]) -> EtlError {
    let mut said = ServerMessage::default();
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else { continue };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'C' => said.sqlstate = text,
            b'M' => said.message = text,
            b'D' => said.detail = Some(text),
            b'H' => said.hint = Some(text),
            _ => {}
        }
    }
    let hint = said.hint.take();
    explain(said.sqlstate.clone(), said, hint)
}

/// The error of a query through `tokio-postgres`.
pub fn query_error(doing: &'static str, error: tokio_postgres::Error) -> EtlError {
    let Some(database) = error.as_db_error() else {
        let source = std::error::Error::source(&error);
        let is_lost = error.is_closed() || source.is_some_and(|source| source.is::<std::io::Error>());
        let kind = if is_lost { ErrorKind::SourceUnavailable } else { ErrorKind::SourceQuery };
        return EtlError::new(kind, format!("could not {doing}")).because(error);
    };
    let said = ServerMessage {
        sqlstate: database.code().code().to_owned(),
        message: database.message().to_owned(),
        detail: database.detail().map(str::to_owned),
        hint: None,
    };
    let hint = database.hint().map(str::to_owned);
    explain(said.sqlstate.clone(), said, hint).with("doing", doing)
}

/// Of data that was refused, the detail is a row or a key.
fn shows_values(sqlstate: &str) -> bool {
    ["22", "23"].iter().any(|class| sqlstate.starts_with(class))
}

fn explain(sqlstate: String, mut said: ServerMessage, hint: Option<String>) -> EtlError {
    if shows_values(&sqlstate) {
        said.detail = None;
    }
    let kind = kind_of(&sqlstate);
    let message = match kind {
        ErrorKind::SourceAuthentication => "the server refuses the login",
        ErrorKind::SourcePermission => "the user lacks a right at the server",
        ErrorKind::SlotBusy => "the replication slot is in use",
        ErrorKind::SourceUnavailable => "the server is not available",
        _ => "the server reports an error",
    };
    let hint = hint.or_else(|| known_hint(&sqlstate).map(str::to_owned));
    let error = EtlError::new(kind, message).with("sqlstate", sqlstate).because(said);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn known_hint(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        "28P01" => "Check user and password",
        "28000" => "Check pg_hba.conf and that the role may log in; replication needs ALTER ROLE ... REPLICATION",
        "3D000" => "Check the database's name",
        "42501" => "Grant what is missing: SELECT on the tables, REPLICATION for the role",
        "53300" => "Raise max_connections or max_wal_senders, or lower copy.connections_per_table",
        "55006" => "Another process holds it: stop that one, or give this pipeline another id",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detail_of_a_refused_row_is_not_told() {
        let refused = parse(b"SERROR\0C23505\0Mduplicate key\0DKey (email)=(hunter2) already exists.\0\0");
        assert!(!format!("{refused} {refused:?}").contains("hunter2"));
        let other = parse(b"SERROR\0C42P01\0Mno such table\0Dtold\0\0");
        assert!(other.to_string().contains("told"), "{other}");
    }

    #[test]
    fn an_error_response_becomes_a_kind_with_message_and_hint() {
        let body = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"x\"\0Fauth.c\0\0";
        let error = parse(body);
        assert_eq!(error.kind(), ErrorKind::SourceAuthentication);
        assert_eq!(error.context("sqlstate"), Some("28P01"));
        assert!(error.to_string().contains("password authentication failed"));
        assert_eq!(error.hint_text(), Some("Check user and password"));
    }

    #[test]
    fn sqlstates_say_whether_trying_again_helps() {
        for (state, kind) in [
            ("57P03", ErrorKind::SourceUnavailable),
            ("08006", ErrorKind::SourceUnavailable),
            ("55006", ErrorKind::SlotBusy),
            ("42501", ErrorKind::SourcePermission),
            ("42601", ErrorKind::SourceQuery),
        ] {
            assert_eq!(kind_of(state), kind, "{state}");
        }
    }
}
