//! How is ClickHouse asked? SQL and rows in the body of a POST, rows as ArrowStream, and answers as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use etl::Secret;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use serde_json::Value;

use super::config::ClickHouseConfig;
use super::error::failed;
use crate::http::{HttpAnswer, HttpClient, HttpOptions, HttpRequest};
use crate::made_up;

/// What every statement is run with: a null is never taken for a default, and an answer comes once all is done.
const SETTINGS: &[(&str, &str)] = &[
    ("wait_end_of_query", "1"),
    ("async_insert", "0"),
    ("input_format_null_as_default", "0"),
    ("mutations_sync", "2"),
    ("alter_sync", "2"),
    ("join_use_nulls", "0"),
    ("database_atomic_wait_for_drop_and_detach_synchronously", "1"),
    ("session_timezone", "UTC"),
    // A statement that names all columns of a wide table is longer than what is usual.
    ("max_query_size", "4194304"),
];

/// The longest field of a form that is sent. A server takes no longer one than 128 KiB, and several of one name for one.
const FIELD: usize = 64 << 10;

/// Sets the rows that are sent apart from the rest of a request. No value can hold it: nobody knows it before.
fn boundary() -> String {
    let [one, other] = [(); 2].map(|()| made_up::number());
    format!("etl-{one:016x}{other:016x}")
}

/// The server.
pub(super) struct Server {
    http: HttpClient,
    settings: BTreeMap<String, String>,
    /// Counts statements.
    asked: AtomicU64,
}

/// Rows that go with a statement, as a table of its own.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    /// The table's name.
    pub(super) name: &'a str,
    /// Its columns with their types, as SQL takes them.
    pub(super) columns: String,
    /// The rows, as ArrowStream.
    pub(super) rows: Vec<u8>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Server {
    /// The server of the config; nothing is connected yet.
    pub(super) fn new(config: &ClickHouseConfig) -> EtlResult<Self> {
        let mut headers = vec![("x-clickhouse-user", Secret::new(config.user.as_str()))];
        if let Some(password) = &config.password {
            headers.push(("x-clickhouse-key", password.clone()));
        }
        let http = HttpClient::new(HttpOptions {
            url: Some(&config.url),
            ca: config.ca.clone(),
            timeout: config.timeout,
            connections: config.connections,
            headers,
        })?;
        let mut settings: BTreeMap<String, String> =
            SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        settings.extend(config.settings.clone());
        Ok(Self { http, settings, asked: AtomicU64::new(0) })
    }

    /// Host and port.
    pub(super) fn address(&self) -> String {
        self.http.address()
    }

    /// Runs a statement.
    pub(super) async fn run(&self, sql: &str, doing: &'static str) -> EtlResult<()> {
        self.ask(Vec::new(), None, alone(sql.to_owned()), doing).await.map(drop)
    }

    /// Runs a query whose columns are texts or small numbers.
    pub(super) async fn rows(&self, sql: &str, doing: &'static str) -> EtlResult<Vec<Vec<Value>>> {
        let sql = format!("{sql} FORMAT JSONCompactEachRow");
        let answer = self.ask(Vec::new(), None, alone(sql), doing).await?;
        let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let row = |line| {
            serde_json::from_slice(line).or_etl(ErrorKind::DestinationUnavailable, "read an answer of ClickHouse")
        };
        lines.map(row).collect()
    }

    /// Runs an `INSERT` with its rows as ArrowStream. All of them are one block and one part, which is there whole or not at
    /// all. Of two with the same token, the second does nothing. The statement comes first in the body: a URL has limits.
    pub(super) async fn insert(&self, sql: &str, token: Option<String>, rows: Vec<u8>, run_by: &str) -> EtlResult<()> {
        let mut query = vec![
            ("query_id".to_owned(), self.query_id(run_by)),
            ("min_insert_block_size_rows".to_owned(), "1000000000000".to_owned()),
            ("min_insert_block_size_bytes".to_owned(), "0".to_owned()),
            ("insert_deduplicate".to_owned(), u8::from(token.is_some()).to_string()),
        ];
        query.extend(token.map(|token| ("insert_deduplication_token".to_owned(), token)));
        let body = [Bytes::from(format!("{sql} FORMAT ArrowStream\n")), Bytes::from(rows), Bytes::new()];
        self.ask(query, None, body, "write rows").await.map(drop)
    }

    /// Runs a statement that reads the rows of the stage.
    pub(super) async fn run_with(
        &self,
        sql: &str,
        stage: Stage<'_>,
        run_by: &str,
        doing: &'static str,
    ) -> EtlResult<()> {
        let Stage { name, columns, rows } = stage;
        let boundary = boundary();
        let mut before = String::new();
        let (format, structure) = (format!("{name}_format"), format!("{name}_structure"));
        let described = [(&*format, "ArrowStream"), (&*structure, &*columns)];
        for (name, value) in pieces(sql).map(|piece| ("query", piece)).chain(described) {
            before += &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        }
        before += &format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let body = [Bytes::from(before), Bytes::from(rows), Bytes::from(format!("\r\n--{boundary}--\r\n"))];
        let query = vec![("query_id".to_owned(), self.query_id(run_by))];
        let content_type = format!("multipart/form-data; boundary={boundary}");
        self.ask(query, Some(content_type), body, doing).await.map(drop)
    }

    /// Ends what still runs for somebody, and waits for it. A user that may not see what runs cannot end it either: then
    /// tokens are what keeps a statement that is sent again from being done twice.
    pub(super) async fn end_what_runs(&self, run_by: &str) -> EtlResult<()> {
        let sql = format!("KILL QUERY WHERE startsWith(query_id, {}) SYNC", super::sql::literal(run_by));
        match self.run(&sql, "end what still runs").await {
            Err(error) if super::error::is_denied(&error) => {
                tracing::debug!(%error, "what an earlier process began may still be running");
                Ok(())
            }
            done => done,
        }
    }

    fn query_id(&self, run_by: &str) -> String {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        format!("{run_by}{}-{number}", std::process::id())
    }

    async fn ask(
        &self,
        mut query: Vec<(String, String)>,
        content_type: Option<String>,
        body: [Bytes; 3],
        doing: &'static str,
    ) -> EtlResult<HttpAnswer> {
        query.extend(self.settings.iter().map(|(name, value)| (name.clone(), value.clone())));
        let answer = self.http.send(HttpRequest { query, content_type, body, ..HttpRequest::default() }).await?;
        if answer.is_good() { Ok(answer) } else { Err(failed(doing, &answer)) }
    }
}

/// A statement and nothing else.
fn alone(sql: String) -> [Bytes; 3] {
    [Bytes::from(sql), Bytes::new(), Bytes::new()]
}

/// The text in parts that a field of a form can hold.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(FIELD));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// A text of an answer.
pub(super) fn text(row: &[Value], place: usize) -> EtlResult<&str> {
    row.get(place).and_then(Value::as_str).ok_or_else(|| {
        EtlError::new(ErrorKind::Internal, "ClickHouse answered with something else than a text").with("column", place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_statement_goes_in_fields_that_a_server_takes() {
        let text = format!("x{}", "ä".repeat(FIELD));
        let found: Vec<&str> = pieces(&text).collect();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|piece| piece.len() <= FIELD));
        assert_eq!(found.concat(), text);
        assert_eq!(pieces("").count(), 0);
    }
}
