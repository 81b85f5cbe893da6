//! What does a location of Parquet files hold, as DuckDB reads what its manifests count?

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::duckdb::{Reader, Row};
use crate::duckdb_text::quoted;

/// A row of a table: what its metadata columns say, the names of what was not sent, and the values that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    /// `_CHANGE_TYPE`
    pub change_type: String,
    /// `_LSN` and `_ORDINAL`
    pub position: (u64, u64),
    /// `_UNCHANGED`
    pub unchanged: Vec<String>,
    /// In the order in which they were asked for.
    pub values: Row,
}

/// Which files of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those of its log.
    Log,
    /// Those of its current state.
    Current,
}

/// The rows of the table with this oid, or this name, by expressions for the columns of these names, of which one that no
/// file has is null; `None` where there is no such table.
///
/// # Errors
/// What DuckDB says.
pub async fn read(
    reader: &Reader,
    location: &Path,
    table: &str,
    which: Which,
    columns: &[(String, String)],
) -> Result<Option<Vec<Stamped>>, String> {
    let Some(files) = counted(location, table, which) else { return Ok(None) };
    if files.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let from = source(files.iter().map(|(path, _)| path));
    let described = reader.query(Path::new(":memory:"), &format!("DESCRIBE SELECT * FROM {from}")).await?;
    let names: Vec<String> = described.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
    let unchanged = names.iter().filter(|name| name.starts_with("_UNCHANGED")).max();
    let unchanged = unchanged.map_or("NULL".to_owned(), |name| format!("to_json({})::VARCHAR", quoted(name)));
    let value = |(name, expression): &(String, String)| match names.contains(name) {
        true => expression.clone(),
        false => "NULL".to_owned(),
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let stamps = ["_CHANGE_TYPE", "_LSN", "_ORDINAL", &unchanged].into_iter().map(str::to_owned);
    let all: Vec<String> = stamps.chain(values).collect();
    let rows = reader.query(Path::new(":memory:"), &format!("SELECT {} FROM {from}", all.join(", "))).await?;
    let expected: u64 = files.iter().map(|(_, rows)| rows).sum();
    if rows.len() as u64 != expected {
        return Err(format!("{} rows, and the manifests say {expected}", rows.len()));
    }
    rows.into_iter().map(|row| stamped(row).ok_or_else(|| "no row".to_owned())).collect::<Result<_, _>>().map(Some)
}

fn source<'p>(paths: impl Iterator<Item = &'p PathBuf>) -> String {
    let paths: Vec<String> =
        paths.map(|path| format!("'{}'", path.display().to_string().replace('\'', "''"))).collect();
    format!("read_parquet([{}], hive_partitioning = false, union_by_name = true)", paths.join(", "))
}

fn stamped(row: Row) -> Option<Stamped> {
    let mut cells = row.into_iter();
    let mut next = || cells.next().flatten();
    let (change_type, lsn, ordinal, unchanged) = (next()?, next()?, next()?, next());
    let unchanged = unchanged.map_or(Some(Vec::new()), |names| serde_json::from_str(&names).ok())?;
    let position = (lsn.parse().ok()?, ordinal.parse().ok()?);
    Some(Stamped { change_type, position, unchanged, values: cells.collect() })
}

/// The generation of a table, the files of its log in their order, and those of its current state.
type Known = (Value, BTreeMap<(u64, u64), Value>, Vec<Value>);

/// How many rows the log of each of these tables has, all by the same manifests; `None` where one of those went while they
/// were read.
#[must_use]
pub fn logged_rows(location: &Path, tables: &[&str]) -> Option<Vec<u64>> {
    let entries = manifests(location).ok()?;
    let rows = |table: &&str| {
        let files = counted_in(&entries, location, table, Which::Log).unwrap_or_default();
        files.into_iter().map(|(_, rows)| rows).sum()
    };
    Some(tables.iter().map(rows).collect())
}

/// The manifests, in their order.
fn manifests(location: &Path) -> std::io::Result<Vec<Value>> {
    let files = fs::read_dir(location.join(".etl/log"))?.map(|file| file.map(|file| file.path()));
    let mut names: Vec<PathBuf> = files.collect::<Result<_, _>>()?;
    // What was being written when the process was killed is no object yet: it has a number after its name.
    names.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    names.sort();
    names.iter().map(|path| Ok(serde_json::from_slice(&fs::read(path)?).expect("JSON"))).collect()
}

/// The files of the last whole manifest and of those after it, with how many rows they have.
fn counted(location: &Path, table: &str, which: Which) -> Option<Vec<(PathBuf, u64)>> {
    if !location.join(".etl/log").is_dir() {
        return None;
    }
    counted_in(&manifests(location).expect("the manifests"), location, table, which)
}

fn counted_in(entries: &[Value], location: &Path, table: &str, which: Which) -> Option<Vec<(PathBuf, u64)>> {
    let whole = entries.iter().rposition(|entry| entry["whole"] == true)?;
    let mut known: Option<Known> = None;
    let id = table.parse::<u64>().ok();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for part in entries[whole..].iter().flat_map(|entry| list(&entry["tables"])) {
        if part["id"].as_u64() != id && part["name"] != table {
            continue;
        }
        let begins = known.as_ref().is_none_or(|(generation, ..)| *generation != part["generation"]);
        if begins {
            known = Some((part["generation"].clone(), BTreeMap::new(), Vec::new()));
        }
        let Some((_, log, current)) = &mut known else { continue };
        let gone = list(&part["remove"]);
        log.retain(|_, file| !gone.contains(&file["number"]));
        let order = |file: &Value| (file["order"].as_u64().unwrap_or(0), file["number"].as_u64().unwrap_or(0));
        log.extend(list(&part["add"]).into_iter().map(|file| (order(&file), file)));
        if part["current"].is_object() {
            *current = list(&part["current"]["files"]);
        }
    }
    let (_, log, current) = known?;
    let files = if which == Which::Log { log.into_values().collect() } else { current };
    let file = |file: Value| Some((location.join(file["path"].as_str()?), file["rows"].as_u64()?));
    files.into_iter().map(file).collect()
}

/// The rows of a query over files.
///
/// # Panics
/// With what DuckDB says.
pub async fn query(reader: &Reader, sql: &str) -> Vec<Row> {
    reader.query(Path::new(":memory:"), sql).await.unwrap_or_else(|error| panic!("{error}"))
}

/// SQL for the files of a table's current state, as `current.json` names them.
#[must_use]
pub fn current(location: &Path, schema: &str, table: &str) -> String {
    source(current_files(location, schema, table).iter())
}

/// The files of a table's current state, as `current.json` names them.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn current_files(location: &Path, schema: &str, table: &str) -> Vec<PathBuf> {
    let pointer = location.join(schema).join(table).join("current.json");
    let pointer: Value = match fs::read(&pointer) {
        Ok(content) => serde_json::from_slice(&content).expect("a whole pointer"),
        Err(error) => panic!("{}: {error}", pointer.display()),
    };
    let path = |file: &Value| location.join(file.as_str().expect("a path"));
    pointer["files"].as_array().expect("a list").iter().map(path).collect()
}

/// The rows of a folder as pyarrow reads them, these columns as text; its absence counts as a skip.
///
/// # Panics
/// With what pyarrow says.
pub async fn pyarrow_or_skip(folder: &Path, columns: &[&str]) -> Option<Vec<Row>> {
    let Some(mut python) = crate::s3::python().await else {
        crate::skip::skip_part("pyarrow is not here: run `make setup`");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/pyarrow_reader.py");
    let output = python.arg(script).arg(folder).args(columns).output().await.expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Some(lines.map(|line| serde_json::from_slice(line).expect("a row")).collect())
}

/// What pyarrow finds in files of some tables, by ways to values: of each table the rows by their column `id`, which comes
/// first; its absence counts as a skip.
///
/// # Panics
/// With what pyarrow says.
pub async fn pyarrow_values_or_skip(tables: &[(Vec<PathBuf>, Vec<Vec<Value>>)]) -> Option<Vec<Vec<Row>>> {
    let Some(mut python) = crate::s3::python().await else {
        crate::skip::skip_part("pyarrow is not here: run `make setup`");
        return None;
    };
    let requests: Vec<String> = tables.iter().map(|table| serde_json::to_string(table).expect("paths")).collect();
    let input = tempfile::NamedTempFile::new().expect("a file");
    fs::write(input.path(), requests.join("\n")).expect("a file");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/pyarrow_values.py");
    let python = python.arg(script).stdin(fs::File::open(input.path()).expect("a file"));
    let output = python.output().await.expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found = vec![Vec::new()];
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Option<Row>>(line).expect("a row") {
            Some(row) => found.last_mut().expect("a table").push(row),
            None => found.push(Vec::new()),
        }
    }
    found.truncate(tables.len());
    Some(found)
}
