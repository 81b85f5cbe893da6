//! What does a log of changes in files come to? Read by Python and DuckDB, and folded into the rows that are left.

use std::collections::BTreeMap;
use std::path::Path;

use crate::duckdb::{Reader, Row};

/// Values by name; `None` is null.
pub type Values = BTreeMap<String, Option<String>>;

/// One row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Values by name; what is not there was not sent.
    pub values: Values,
    /// `_CHANGE_TYPE`
    pub change_type: String,
    /// `_LSN` and `_ORDINAL`
    pub position: (u64, u64),
}

/// The complete files of a table, in the order of their names; `None` where there is no such table.
///
/// # Errors
/// What the readers say.
pub async fn read(reader: &Reader, directory: &Path, null_marker: &str) -> Result<Option<Vec<Logged>>, String> {
    if !directory.is_dir() {
        return Ok(None);
    }
    let mut command = reader.python();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/change_log_reader.py");
    let output = command.arg(script).arg(directory).arg(null_marker).output().await.map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("{}: {}", directory.display(), String::from_utf8_lossy(&output.stderr)));
    }
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(logged).collect::<Result<Vec<_>, _>>().map(Some)
}

fn logged(line: &[u8]) -> Result<Logged, String> {
    let mut values: Values = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let mut metadata = |name: &str| values.remove(name).flatten().ok_or_else(|| format!("no {name}"));
    let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
    let change_type = metadata("_CHANGE_TYPE")?;
    let position = (number(metadata("_LSN")?)?, number(metadata("_ORDINAL")?)?);
    metadata("_TIMESTAMP")?;
    Ok(Logged { values, change_type, position })
}

/// The rows that are left when everything is done in order, with these columns. A log that has a change twice has it
/// at the same position; what is older than the copy is in it already.
#[must_use]
pub fn fold(mut log: Vec<Logged>, key: &[&str], columns: &[&str]) -> Vec<Row> {
    log.sort_by_key(|logged| logged.position);
    let copy = log.iter().filter(|logged| logged.change_type == "UPSERT").map(|logged| logged.position.0).max();
    log.retain(|logged| logged.change_type == "UPSERT" || copy.is_none_or(|copy| logged.position.0 >= copy));
    log.dedup_by(|later, before| {
        later.position == before.position && (later.position.1 > 0 || (later == before && !key.is_empty()))
    });
    let mut rows: Vec<Values> = Vec::new();
    let mut gone: Option<((u64, u64), Values)> = None;
    for Logged { values, change_type, position } in log {
        let is_same = |row: &Values| match key {
            [] => *row == values,
            key => key.iter().all(|name| row.get(*name) == values.get(*name)),
        };
        let place = rows.iter().position(is_same);
        match change_type.as_str() {
            "TRUNCATE" => rows.clear(),
            "DELETE" => gone = place.map(|place| (position, rows.remove(place))),
            _ if key.is_empty() => rows.push(values),
            _ => {
                // A row that moves is deleted and updated at two places in a row; what was not sent moves along.
                let moved = gone.take().filter(|(before, _)| *before == (position.0, position.1.wrapping_sub(1)));
                let base = match place {
                    Some(place) => Some(rows.remove(place)),
                    None if change_type == "UPDATE" => moved.map(|(_, row)| row),
                    None => None,
                };
                let mut row = base.unwrap_or_default();
                row.extend(values);
                rows.push(row);
            }
        }
    }
    let value = |row: &Values, column: &str| row.get(column).cloned().flatten();
    rows.iter().map(|row| columns.iter().map(|column| value(row, column)).collect()).collect()
}
