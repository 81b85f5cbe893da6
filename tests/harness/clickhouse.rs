//! What does ClickHouse hold, as ClickHouse itself reads it? One embedded server for all tests of a binary.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::duckdb::Row;

/// The version that `make engines` fetches.
const VERSION: &str = "4.4.0";

/// A place of one's own on the server: databases whose names begin alike.
#[derive(Debug, Clone)]
pub struct ClickHouse {
    port: u16,
    prefix: String,
}

/// A server that ends with what started it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is gone already, or is gone now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

static SERVER: OnceLock<Option<Server>> = OnceLock::new();
static PLACES: AtomicU64 = AtomicU64::new(0);

/// A fresh place on the server that all tests of this binary have in common; its absence counts as a skip.
pub async fn clickhouse() -> Option<ClickHouse> {
    let started = tokio::task::spawn_blocking(|| SERVER.get_or_init(|| start(&[])).as_ref().map(|server| server.port));
    let Some(port) = started.await.expect("starting ClickHouse") else {
        crate::skip::skip_part("ClickHouse is not here: run `make engines`");
        return None;
    };
    Some(ClickHouse { port, prefix: format!("p{}_", PLACES.fetch_add(1, Relaxed)) })
}

/// Starts a server with these arguments, where the package is that `make engines` fetches, or that `ETL_CHDB` names.
#[must_use]
pub fn start(arguments: &[&str]) -> Option<Server> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let packages = env::var_os("ETL_CHDB")
        .map(PathBuf::from)
        .or_else(|| cache.map(|cache| cache.join("etl/chdb").join(VERSION)))
        .filter(|packages| packages.is_dir())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/clickhouse_server.py");
    let mut command = Command::new("python3");
    command.arg(script).args(arguments).env("PYTHONPATH", packages).env("PYTHONUTF8", "1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
    let port = line.trim().parse().unwrap_or_else(|_| panic!("ClickHouse did not start: {line:?}"));
    Some(Server { child, port })
}

impl ClickHouse {
    /// A place on a server of one's own.
    #[must_use]
    pub fn on(server: &Server) -> Self {
        Self { port: server.port, prefix: String::new() }
    }

    /// Where its HTTP interface is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// What the names of its databases begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The rows of a query, whose columns are texts.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn query(&self, sql: &str) -> Result<Vec<Row>, String> {
        let answer = self.ask(&format!("{sql} FORMAT JSONCompactEachRow")).await?;
        let lines = answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).map_err(|error| error.to_string())).collect()
    }

    /// Runs a statement.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn run(&self, sql: &str) -> Result<(), String> {
        self.ask(sql).await.map(drop)
    }

    /// How many statements were under way at most.
    pub async fn most_at_a_time(&self) -> usize {
        let answer = self.exchange("GET /most_at_a_time", "").await.expect("an answer");
        String::from_utf8_lossy(&answer).trim().parse().expect("a number")
    }

    async fn ask(&self, sql: &str) -> Result<Vec<u8>, String> {
        let settings = "output_format_json_quote_64bit_integers=1";
        self.exchange(&format!("POST /?{settings}"), sql).await
    }

    async fn exchange(&self, what: &str, sql: &str) -> Result<Vec<u8>, String> {
        let said = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.map_err(said)?;
        let length = sql.len();
        let head =
            format!("{what} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.map_err(said)?;
        stream.write_all(sql.as_bytes()).await.map_err(said)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map_err(said)?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no answer")? + 4;
        let body = answer.split_off(end);
        if answer.starts_with(b"HTTP/1.1 200") {
            return Ok(body);
        }
        Err(format!("{}\nin {sql}", String::from_utf8_lossy(&body)))
    }
}

/// A name as ClickHouse's SQL takes it.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// What writes a column's value as Postgres writes one of its type there, but for floats.
#[must_use]
pub fn as_postgres(column: &str, of: &str) -> String {
    // Without the zeros at its end.
    let moment = format!("replaceRegexpOne(replaceRegexpOne(toString({column}), '0+$', ''), '[.]$', '')");
    // Declared precisions of times are of no consequence to how they are written.
    let of = match of.split_once('(') {
        Some((base, rest)) if base.starts_with("timestamp") => {
            format!("{base}{}", rest.trim_start_matches(|c| c != ')').trim_start_matches(')'))
        }
        _ => of.to_owned(),
    };
    match of.as_str() {
        "boolean" => format!("substring(toString({column}), 1, 1)"),
        "bytea" => format!("concat('\\\\x', lower(hex({column})))"),
        "public.geometry" => format!("hex({column})"),
        "timestamp without time zone" => moment,
        "timestamp with time zone" => format!("concat({moment}, '+00')"),
        _ => match of.strip_prefix("numeric(").and_then(|of| of.trim_end_matches(')').rsplit_once(',')) {
            Some((_, scale)) => format!("toDecimalString({column}, {scale})"),
            None => format!("toString({column})"),
        },
    }
}

/// A number that both write differently, written once more; Postgres's own text of other values.
#[must_use]
pub fn canonical(text: String, of: &str) -> String {
    match of {
        "real" | "double precision" => text.parse::<f64>().map_or(text, |number| format!("{number:?}")),
        _ => text,
    }
}

/// How many rows both sides hold, by the texts of all their columns; `table` is in the schema `public`.
///
/// # Errors
/// The first rows that one side alone has, or what a side says.
pub async fn equal(source: &Client, place: &ClickHouse, table: &str) -> Result<usize, String> {
    source
        .batch_execute("SET timezone = 'UTC'; SET extra_float_digits = 3")
        .await
        .map_err(|error| error.to_string())?;
    let texts = async |sql: String| {
        let messages = source.simple_query(&sql).await.map_err(|error| format!("{error:?}\nin {sql}"))?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|n| row.get(n).map(str::to_owned)).collect::<Row>())
            }
            _ => None,
        };
        Ok::<Vec<Row>, String>(messages.into_iter().filter_map(row).collect())
    };
    let columns = texts(format!(
        "SELECT attname, format_type(atttypid, atttypmod), quote_ident(attname) FROM pg_attribute WHERE attrelid = \
         'public.{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
    ))
    .await?;
    let at = |row: &Row, place: usize| row.get(place).cloned().flatten().unwrap_or_default();
    let here: Vec<String> = columns
        .iter()
        .map(|column| format!("CASE WHEN num_nonnulls({0}) > 0 THEN format('%s', {0}) END", at(column, 2)))
        .collect();
    let there: Vec<String> =
        columns.iter().map(|column| as_postgres(&quoted(&at(column, 0)), &at(column, 1))).collect();
    let sent = texts(format!("SELECT {} FROM public.{table}", here.join(", "))).await?;
    let view = format!("{}.{}", quoted(&format!("{}public", place.prefix)), quoted(&format!("{table}_current")));
    let found = place.query(&format!("SELECT {} FROM {view}", there.join(", "))).await?;
    let sorted = |rows: Vec<Row>| {
        let spelled = |row: Row| {
            row.into_iter()
                .zip(&columns)
                .map(|(value, column)| value.map(|text| canonical(text, &at(column, 1))))
                .collect()
        };
        let mut rows: Vec<Row> = rows.into_iter().map(spelled).collect();
        rows.sort();
        rows
    };
    let (sent, found) = (sorted(sent), sorted(found));
    if sent == found {
        return Ok(sent.len());
    }
    let lacks = |these: &[Row], those: &[Row]| -> Vec<Row> {
        these.iter().filter(|row| those.binary_search(row).is_err()).take(5).cloned().collect()
    };
    Err(format!(
        "{table}: {} rows in Postgres, {} in ClickHouse\nonly in Postgres: {:?}\nonly in ClickHouse: {:?}",
        sent.len(),
        found.len(),
        lacks(&sent, &found),
        lacks(&found, &sent)
    ))
}
