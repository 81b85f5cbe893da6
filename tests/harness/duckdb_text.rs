//! What would Postgres write of a value that DuckDB holds? An expression of DuckDB's, and what becomes of its text.

use std::sync::Arc;

use etl::data::{RawValue, decode};
use etl::schema::Kind;
use serde_json::Value;

/// A name as DuckDB's SQL takes it.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The text of a value, which [`spelled`] turns into that of Postgres; `value` is a column or another expression.
#[must_use]
pub fn expression(kind: &Kind, value: &str) -> String {
    at_depth(kind, value, 0)
}

fn at_depth(kind: &Kind, value: &str, depth: usize) -> String {
    let list = |element: &Kind| {
        let name = format!("x{depth}");
        let element = at_depth(element, &name, depth + 1);
        format!("to_json(list_transform({value}, lambda {name}: {element}))::VARCHAR")
    };
    let object = |fields: Vec<String>| {
        format!("CASE WHEN {value} IS NOT NULL THEN to_json(struct_pack({}))::VARCHAR END", fields.join(", "))
    };
    match kind {
        Kind::Bool => format!("CASE {value} WHEN true THEN 't' WHEN false THEN 'f' END"),
        Kind::Bytea => format!("'\\x' || lower(hex({value}))"),
        Kind::Geometry(_) => format!("hex({value})"),
        // In Parquet it is text that DuckDB reads.
        Kind::Interval => format!("{value}::INTERVAL::VARCHAR"),
        Kind::TimestampTz => format!(
            "CASE WHEN isinf({value}) THEN {value}::VARCHAR ELSE ({value} AT TIME ZONE 'UTC')::VARCHAR || '+00' END"
        ),
        Kind::Array(element) => list(element),
        Kind::Multirange(element) => list(&Kind::Range(Arc::clone(element))),
        Kind::Range(element) => {
            let bound = |name: &str| format!("{name} := {}", at_depth(element, &field(value, name), depth));
            let flag = |name: &str| format!("{} := {}", quoted(name), field(value, name));
            object(
                [bound("lower"), bound("upper"), flag("lower_inclusive"), flag("upper_inclusive"), flag("empty")]
                    .into(),
            )
        }
        Kind::Composite(attributes) => {
            let attribute =
                |name: &str, kind: &Kind| format!("{} := {}", quoted(name), at_depth(kind, &field(value, name), depth));
            object(attributes.iter().map(|of| attribute(&of.name, &of.kind)).collect())
        }
        Kind::Hstore | Kind::Vector(_) | Kind::HalfVector(_) => format!("to_json({value})::VARCHAR"),
        _ => format!("{value}::VARCHAR"),
    }
}

fn field(value: &str, name: &str) -> String {
    format!("struct_extract({value}, '{}')", name.replace('\'', "''"))
}

/// The text that Postgres writes, from what the expression gave.
///
/// # Panics
/// When it is not what DuckDB writes of the kind.
#[must_use]
pub fn spelled(kind: &Kind, text: &str) -> String {
    let json = || serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    match kind {
        Kind::Array(element) => {
            let delimiter = char::from(element.delimiter());
            let value = |value: &Value| match value.as_str() {
                Some(text) => {
                    escaped(spelled(element, text), |c| " \t\n\u{b}\u{c}\r\"\\{}".contains(c) || c == delimiter, true)
                }
                None => "NULL".to_owned(),
            };
            let values: Vec<String> = json().as_array().into_iter().flatten().map(value).collect();
            format!("{{{}}}", values.join(&delimiter.to_string()))
        }
        Kind::Multirange(element) => {
            let kind = Kind::Range(Arc::clone(element));
            let ranges: Vec<String> = json()
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(|text| spelled(&kind, text))
                .collect();
            format!("{{{}}}", ranges.join(","))
        }
        Kind::Range(element) => range(element, &json()),
        Kind::Composite(attributes) => {
            let json = json();
            let field = |name: &str, kind: &Kind| {
                let text = json[name].as_str().map(|text| spelled(kind, text));
                text.map_or(String::new(), |text| escaped(text, |c| " \t\n\"\\(),".contains(c), false))
            };
            let fields: Vec<String> = attributes.iter().map(|of| field(&of.name, &of.kind)).collect();
            format!("({})", fields.join(","))
        }
        Kind::Hstore => {
            let json = json();
            let mut pairs: Vec<(&String, &Value)> = json.as_object().into_iter().flatten().collect();
            pairs.sort_by_key(|(key, _)| (key.len(), *key));
            let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let pair = |(key, value): (&String, &Value)| {
                format!("{}=>{}", quoted(key), value.as_str().map_or("NULL".to_owned(), quoted))
            };
            pairs.into_iter().map(pair).collect::<Vec<_>>().join(", ")
        }
        Kind::Vector(_) | Kind::HalfVector(_) => {
            let json = json();
            let numbers = json.as_array().into_iter().flatten().filter_map(Value::as_f64);
            let numbers: Vec<String> =
                numbers.map(|number| written(|out| decode::write_float4(number as f32, out))).collect();
            format!("[{}]", numbers.join(","))
        }
        Kind::Interval => interval(text),
        Kind::Float4 => text.parse().map_or(text.to_owned(), |number| written(|out| decode::write_float4(number, out))),
        Kind::Float8 => text.parse().map_or(text.to_owned(), |number| written(|out| decode::write_float8(number, out))),
        Kind::Date | Kind::Timestamp | Kind::TimestampTz => match text.split_once(" (BC)") {
            Some((before, after)) => format!("{before}{after} BC"),
            None => text.to_owned(),
        },
        _ => text.to_owned(),
    }
}

fn range(element: &Kind, json: &Value) -> String {
    let flag = |name: &str| json[name].as_bool() == Some(true);
    if flag("empty") {
        return "empty".to_owned();
    }
    let bound = |name: &str| {
        let text = json[name].as_str().map(|text| spelled(element, text));
        text.map_or(String::new(), |text| escaped(text, |c| " \t\n\"\\()[],".contains(c), false))
    };
    let open = if flag("lower_inclusive") { '[' } else { '(' };
    let close = if flag("upper_inclusive") { ']' } else { ')' };
    format!("{open}{},{}{close}", bound("lower"), bound("upper"))
}

fn written(write: impl FnOnce(&mut String)) -> String {
    let mut text = String::new();
    write(&mut text);
    text
}

/// In quotes where it must be; quotes and backslashes have a backslash before, or are doubled.
fn escaped(text: String, is_special: impl Fn(char) -> bool, with_backslash: bool) -> String {
    let is_null = with_backslash && text.eq_ignore_ascii_case("null");
    if !(text.is_empty() || is_null || text.contains(is_special)) {
        return text;
    }
    let quote = if with_backslash { "\\\"" } else { "\"\"" };
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', quote))
}

/// `1 year 2 months -3 days -04:05:06.7`, read and written as Postgres does.
fn interval(text: &str) -> String {
    let postgres = text.replace("months", "mons").replace("month", "mon");
    let interval =
        decode::interval(RawValue::Text(postgres.as_bytes())).unwrap_or_else(|error| panic!("{text}: {error}"));
    written(|out| decode::write_interval(interval, out))
}
