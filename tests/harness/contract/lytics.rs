//! What does Lytics say that its bulk upload of CSV does?
//!
//! From its documents as of 2026; each rule names its page:
//! - `[upload]` <https://docs.lytics.com/reference/bulkcsvupload>
//! - `[learn]` <https://learn.lytics.com/developing/api-docs/data-upload>
//!
//! Where they are silent, this is taken instead: an answer is `message`, `message_count` and `rejected`; what is wrong with a
//! file is answered with 400, and the row that it is in; a record with another number of fields than the header is wrong; so
//! is a `timestamp_field` that the header does not have.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use super::{Answer, Asked, Vendor, csv};

/// What one row said.
pub type Row = BTreeMap<String, String>;

/// The vendor.
#[derive(Debug, Clone)]
pub struct Lytics {
    key: String,
    is_key_good: bool,
    streams: BTreeMap<String, Vec<Row>>,
    dry_runs: u64,
}

impl Lytics {
    /// An account with this key.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self { key: key.to_owned(), is_key_good: true, streams: BTreeMap::new(), dry_runs: 0 }
    }

    /// All rows that a stream was sent, in order; what was sent twice is there twice.
    #[must_use]
    pub fn rows(&self, stream: &str) -> &[Row] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }

    /// How many files were only looked at.
    #[must_use]
    pub fn dry_runs(&self) -> u64 {
        self.dry_runs
    }

    fn upload(&mut self, asked: &Asked, stream: &str) -> Result<Answer, Answer> {
        // [upload] The key as a header, or as `access_token`.
        let key = asked.header("authorization").or_else(|| asked.parameter("access_token"));
        if !self.is_key_good || key != Some(self.key.as_str()) {
            return Err(self.failure(401));
        }
        // [upload] `Content-type: application/csv`.
        if asked.content_type() != "application/csv" {
            return Err(self.failure(415));
        }
        let text = text(&asked.body).ok_or_else(|| wrong("the file is no text in UTF-8", 0))?;
        let is_set = |name: &str| asked.parameter(name) == Some("true");
        let (is_dry, drops) = (is_set("dryrun"), is_set("droperrors"));
        let File { header, records, is_whole } = File::read(asked, &text)?;
        let appended = appended(asked)?;
        let mut rows: Vec<Row> = Vec::new();
        let mut rejected = 0;
        let mut error = None;
        for (place, record) in records.iter().enumerate() {
            if record.len() == header.len() {
                let fields = header.iter().cloned().zip(record.iter().cloned());
                rows.push(fields.chain(appended.clone()).collect());
            } else if drops {
                rejected += 1;
            } else {
                error = Some(wrong("wrong number of fields", place + 1));
                break;
            }
        }
        if error.is_none() && !is_whole {
            error = Some(wrong("a quote where none may be", records.len() + 1));
        }
        let count = rows.len();
        if is_dry {
            self.dry_runs += 1;
        } else {
            // [learn] "Upon error, it will stop processing and return": what came before it has been taken.
            self.streams.entry(stream.to_owned()).or_default().extend(rows);
        }
        let said = json!({ "status": 200, "message": "success", "message_count": count, "rejected": rejected });
        error.map_or_else(|| Ok(Answer::json(200, &said)), Err)
    }
}

struct File {
    header: Vec<String>,
    records: Vec<Vec<String>>,
    is_whole: bool,
}

impl File {
    /// \[upload\] "They MUST contain headers: either in first row (by default) OR in headers querystring field".
    fn read(asked: &Asked, text: &str) -> Result<Self, Answer> {
        let delimiter = asked.parameter("delimiter").and_then(|text| text.chars().next()).unwrap_or(',');
        let (mut records, is_whole) = csv::records(text, delimiter);
        let header = match asked.parameter("headers") {
            Some(names) => names.split(',').map(str::to_owned).collect(),
            None if records.is_empty() => return Err(wrong("there is no header", 0)),
            None => records.remove(0),
        };
        if header.iter().any(String::is_empty) {
            return Err(wrong("the header has a field without a name", 0));
        }
        // [upload] "If the file contains a timestamp field you want us to use see timestamp_field".
        if asked.parameter("timestamp_field").is_some_and(|name| !header.iter().any(|field| field == name)) {
            return Err(wrong("the header has no such timestamp_field", 0));
        }
        Ok(Self { header, records, is_whole })
    }
}

/// \[upload\] "append fields to each row": an object of JSON.
fn appended(asked: &Asked) -> Result<Row, Answer> {
    let Some(text) = asked.parameter("append") else { return Ok(Row::new()) };
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return Err(wrong("append is no object", 0)) };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(fields.iter().map(|(name, value)| (name.clone(), text(value))).collect())
}

/// \[upload\] "CSV files (may be gzipped)", by what they begin with.
fn text(body: &[u8]) -> Option<String> {
    if !body.starts_with(&[0x1f, 0x8b]) {
        return String::from_utf8(body.to_vec()).ok();
    }
    let mut text = String::new();
    MultiGzDecoder::new(body).read_to_string(&mut text).ok()?;
    Some(text)
}

fn wrong(what: &str, row: usize) -> Answer {
    Answer::json(
        400,
        &json!({ "status": 400, "message": format!("{what}, row {row}"), "message_count": row.saturating_sub(1) }),
    )
}

impl Vendor for Lytics {
    fn answer(&mut self, asked: &Asked) -> Answer {
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("POST", ["collect", "bulk", stream]) => self.upload(asked, stream).unwrap_or_else(|refused| refused),
            (_, ["collect", "bulk", _]) => self.failure(405),
            _ => self.failure(404),
        }
    }

    fn failure(&self, status: u16) -> Answer {
        let message = match status {
            401 => "no valid access token",
            404 => "not found",
            405 => "method not allowed",
            415 => "content type not supported",
            429 => "too many requests",
            _ => "could not process the request",
        };
        Answer::json(status, &json!({ "status": status, "message": message }))
    }

    fn credentials(&mut self, secret: &str, are_good: bool) {
        if secret == self.key {
            self.is_key_good = are_good;
        }
    }
}
