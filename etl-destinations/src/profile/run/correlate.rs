//! Which row is meant? By its key, its number, or by what it looked like: all of it from the sealed batch, so that another
//! process finds the same.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::shape::{Correlate, Format};
use super::verdict::{text, text_at};
use crate::bulk::Manifest;

/// The rows of a batch, as errors name them.
pub(super) struct Correlation<'c> {
    by: &'c Correlate,
    manifest: &'c Manifest,
    /// Which rows have a value in a column, for each column that is asked for.
    keys: Vec<HashMap<String, Vec<u32>>>,
    /// Which rows look like this; equal ones are taken one after the other.
    looks: HashMap<[u8; 32], VecDeque<u32>>,
    header: Vec<String>,
    rows: (u32, u32),
}

impl<'c> Correlation<'c> {
    pub(super) fn new(
        by: &'c Correlate,
        manifest: &'c Manifest,
        body: &[u8],
        format: Format,
        rows: (u32, u32),
    ) -> Self {
        let mut all = Self { by, manifest, keys: Vec::new(), looks: HashMap::new(), header: Vec::new(), rows };
        match by {
            Correlate::Key(columns) => {
                all.keys = columns.iter().map(|(column, _)| all.by_column(column.as_deref())).collect();
            }
            Correlate::Row { .. } => all.by_looks(body, format),
            Correlate::Index { .. } | Correlate::None => {}
        }
        all
    }

    /// The rows that an error is about; none where it is not known.
    pub(super) fn find(&mut self, item: &Value) -> Vec<u32> {
        match self.by {
            Correlate::None => Vec::new(),
            Correlate::Index { at, first } => {
                let number = text_at(item, at).and_then(|number| number.parse::<u32>().ok());
                let ordinal = number.and_then(|number| number.checked_sub(*first)?.checked_add(self.rows.0));
                ordinal.into_iter().filter(|ordinal| *ordinal < self.rows.1).collect()
            }
            Correlate::Key(columns) => {
                let found = columns.iter().zip(&self.keys).find_map(|((_, at), keys)| keys.get(&text_at(item, at)?));
                found.cloned().unwrap_or_default()
            }
            Correlate::Row { at } => {
                let Some(echoed) = item.pointer(at) else { return Vec::new() };
                let look = if self.header.is_empty() {
                    digest([echoed.to_string().as_str()])
                } else {
                    let cell = |name: &String| echoed.get(name).and_then(text).unwrap_or_default();
                    digest(self.header.iter().map(cell).collect::<Vec<_>>().iter().map(String::as_str))
                };
                self.looks.get_mut(&look).and_then(VecDeque::pop_front).into_iter().collect()
            }
        }
    }

    fn by_column(&self, column: Option<&str>) -> HashMap<String, Vec<u32>> {
        let mut found: HashMap<String, Vec<u32>> = HashMap::new();
        for (ordinal, row) in (0..).zip(&self.manifest.rows) {
            let value = match column {
                Some(column) => row.row.get(column).and_then(text),
                None => row.key.as_ref().map(|key| key.join(",")),
            };
            if let Some(value) = value {
                found.entry(value).or_default().push(ordinal);
            }
        }
        found
    }

    fn by_looks(&mut self, body: &[u8], format: Format) {
        let frame = &self.manifest.frame;
        if let Format::Separated(delimiter) = format {
            self.header = fields(&frame.head, delimiter).into_iter().next().unwrap_or_default();
        }
        let mut at = frame.head.len();
        for (ordinal, row) in (0..).zip(&self.manifest.rows) {
            let bytes = body.get(at..at + row.bytes as usize).unwrap_or_default();
            at += row.bytes as usize + frame.separator.len();
            let look = match format {
                Format::Separated(delimiter) => {
                    let record = fields(&String::from_utf8_lossy(bytes), delimiter).into_iter().next();
                    digest(record.unwrap_or_default().iter().map(String::as_str))
                }
                Format::Json | Format::JsonLines => {
                    // Read and written again, so that spaces and the order of fields do not matter.
                    let row: Value = serde_json::from_slice(bytes).unwrap_or_default();
                    digest([row.to_string().as_str()])
                }
            };
            self.looks.entry(look).or_default().push_back(ordinal);
        }
    }
}

fn digest<'p>(parts: impl IntoIterator<Item = &'p str>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().into()
}

/// The records of a text in CSV or TSV.
pub(super) fn fields(text: &str, delimiter: char) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut is_quoted, mut has_any) = (false, false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        has_any |= !matches!(c, '\r' | '\n') || is_quoted;
        match c {
            '"' if is_quoted && rest.peek() == Some(&'"') => {
                rest.next();
                field.push('"');
            }
            '"' => is_quoted = !is_quoted,
            c if c == delimiter && !is_quoted => record.push(std::mem::take(&mut field)),
            '\r' if !is_quoted => {}
            '\n' if !is_quoted => {
                if std::mem::take(&mut has_any) {
                    record.push(std::mem::take(&mut field));
                    records.push(std::mem::take(&mut record));
                }
            }
            c => field.push(c),
        }
    }
    if has_any {
        record.push(field);
        records.push(record);
    }
    records
}
