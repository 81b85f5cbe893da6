//! What does an answer of ClickHouse mean that is none? Its code says.

use etl::error::{ErrorKind, EtlError};

use crate::http::HttpAnswer;

/// The header with the code, on every answer that is an error.
const CODE: &str = "x-clickhouse-exception-code";

/// Codes (`ErrorCodes.cpp`) that waiting helps against: time, load, network, memory, parts, replicas, storage.
const PASSING: &[u32] = &[
    159, 160, 198, 202, 203, 209, 210, 225, 236, 241, 242, 252, 279, 285, 286, 289, 290, 319, 373, 394, 425, 439, 473,
    499, 517, 571, 574, 629, 668, 745, 999,
];

/// Codes about a value that cannot be read or held, whose messages may show it.
const SHOWING: &[u32] = &[6, 26, 27, 32, 33, 38, 41, 43, 53, 69, 70, 72, 117, 131, 321, 349, 376, 407, 467, 691];

/// What ClickHouse says is longer where it repeats what it was sent.
const LONGEST: usize = 600;

/// The error that the answer is.
pub(super) fn failed(doing: &'static str, answer: &HttpAnswer) -> EtlError {
    let text = String::from_utf8_lossy(&answer.body);
    let code = code_of(answer.header(CODE), &text);
    let (kind, hint) = class(answer.status, code);
    let mut said: String = text.trim().chars().take(LONGEST).collect();
    if code.is_some_and(|code| SHOWING.contains(&code)) {
        said = name_of(&text).unwrap_or_default().to_owned();
    }
    if said.is_empty() {
        said = format!("HTTP status {}", answer.status);
    }
    let failed = EtlError::new(kind, format!("ClickHouse could not {doing}")).because(said);
    let failed = match code {
        Some(code) => failed.with("code", code),
        None => failed.with("status", answer.status),
    };
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

/// Whether the user lacks a right.
pub(super) fn is_denied(error: &EtlError) -> bool {
    error.context("code") == Some("497")
}

fn code_of(header: Option<&str>, text: &str) -> Option<u32> {
    let said = || text.split_once("Code: ")?.1.split('.').next()?.trim().parse().ok();
    header.and_then(|code| code.trim().parse().ok()).or_else(said)
}

/// The name of the code, which comes after the message, in parentheses.
fn name_of(text: &str) -> Option<&str> {
    let in_parentheses = text.split('(').skip(1).filter_map(|part| part.split_once(')').map(|(name, _)| name));
    in_parentheses
        .filter(|name| name.len() > 3 && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
        .last()
}

fn class(status: u16, code: Option<u32>) -> (ErrorKind, Option<&'static str>) {
    match code {
        Some(192 | 193 | 194 | 516) => (ErrorKind::Config, Some("Check `user` and `password` of the destination")),
        Some(497) => (
            ErrorKind::DestinationRejected,
            Some("Grant the user CREATE, ALTER, DROP, SELECT, INSERT, TRUNCATE on the databases that it writes to"),
        ),
        Some(164) => (ErrorKind::Config, Some("The user, or the server, is read-only: name one that may write")),
        Some(243) => (ErrorKind::DiskFull, Some("Free some space at the server: nothing is lost")),
        Some(252) => (
            ErrorKind::DestinationUnavailable,
            Some("The server has too many parts to merge: raise `pipeline.batch.max_age`"),
        ),
        Some(241) => (ErrorKind::DestinationUnavailable, Some("The server has too little memory for the statement")),
        Some(code) if PASSING.contains(&code) => (ErrorKind::DestinationUnavailable, None),
        Some(_) => (ErrorKind::DestinationRejected, None),
        None if matches!(status, 401 | 403) => {
            (ErrorKind::Config, Some("Check `url`, `user` and `password` of the destination"))
        }
        None if matches!(status, 408 | 429 | 500..=599) => (ErrorKind::DestinationUnavailable, None),
        None => (ErrorKind::Config, Some("The `url` is not that of ClickHouse's HTTP interface")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn answer(status: u16, body: &'static str) -> HttpAnswer {
        HttpAnswer { status, headers: http::HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn codes_tell_what_helps() {
        for (status, body, expected) in [
            (500, "Code: 241. DB::Exception: Memory limit exceeded", ErrorKind::DestinationUnavailable),
            (500, "Code: 252. DB::Exception: Too many parts", ErrorKind::DestinationUnavailable),
            (500, "Code: 243. DB::Exception: Cannot reserve 1 MiB", ErrorKind::DiskFull),
            (403, "Code: 516. DB::Exception: Authentication failed", ErrorKind::Config),
            (500, "Code: 497. DB::Exception: Not enough privileges", ErrorKind::DestinationRejected),
            (404, "Code: 60. DB::Exception: Unknown table", ErrorKind::DestinationRejected),
            (503, "", ErrorKind::DestinationUnavailable),
            (404, "<html>", ErrorKind::Config),
        ] {
            let error = failed("write rows", &answer(status, body));
            assert_eq!(error.kind(), expected, "{error}");
        }
        let shows =
            "Code: 376. DB::Exception: Cannot parse uuid hunter2: while reading. (CANNOT_PARSE_UUID) (version 26.9)";
        let error = failed("write rows", &answer(400, shows)).to_string();
        assert!(error.contains("CANNOT_PARSE_UUID") && !error.contains("hunter2"), "{error}");
        assert!(is_denied(&failed("end what runs", &answer(500, "Code: 497. DB::Exception: no"))));
    }
}
