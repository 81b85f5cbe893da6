//! How does a row look to a system? As an object with a place for each column, or as a record.

use etl::data::RawValue;
use etl::error::{ErrorKind, EtlError, EtlResult};
use serde_json::{Map, Value};

use super::super::shape::{Encode, FieldKind, Format};
use super::super::template::{Template, Values, Within};
use super::account::Account;
use crate::bulk::{BulkRow, Frame};
use crate::metadata_columns::ChangeType;
use crate::rowwise::{CsvFormat, json_value};
use crate::writer::TargetTable;

/// What stands around the rows of a table, and what is known of it later.
pub(super) fn frame(encode: &Encode, account: &Account, table: &TargetTable) -> Frame {
    let mut known = account.of_table(&table.source.name);
    known.insert("table.schema".to_owned(), table.name.schema.to_string());
    known.insert("table.name".to_owned(), table.name.name.to_string());
    known.insert("table.key".to_owned(), table.key_names().collect::<Vec<_>>().join(","));
    let mut values = account.for_table(&table.source.name);
    values.extend(known.clone());
    if let Some(column) = &encode.column {
        known.insert("columns".to_owned(), columns(column, &values, table));
    }
    let text = str::to_owned;
    match encode.format {
        Format::Json => {
            // Every variable of an envelope is a setting, which was there when it was opened, or one of these.
            let around = encode.envelope.as_ref().and_then(|of| of.around("rows", &values, Within::Json).ok());
            let (before, after) = around.unwrap_or_default();
            Frame { head: before + "[", separator: text(","), tail: text("]") + &after, known }
        }
        Format::JsonLines => Frame { separator: text("\n"), tail: text("\n"), known, ..Frame::default() },
        Format::Separated(delimiter) => {
            let mut head = records(encode, delimiter).map(|of| of.names(table)).unwrap_or_default();
            for name in metadata_names(encode, table) {
                head.extend(format!("{delimiter}{name}").into_bytes());
            }
            head.push(b'\n');
            Frame { head: String::from_utf8(head).unwrap_or_default(), known, ..Frame::default() }
        }
    }
}

fn metadata_names<'t>(encode: &Encode, table: &'t TargetTable) -> impl Iterator<Item = &'t str> {
    let metadata = table.metadata.as_ref().filter(|_| encode.has_metadata);
    metadata.into_iter().flat_map(|metadata| metadata.names())
}

/// What a request says of every column, one after the other.
fn columns(template: &Template, values: &Values, table: &TargetTable) -> String {
    let mut values = values.clone();
    let one = |name: &str| {
        values.insert("column".to_owned(), name.to_owned());
        template.fill(&values, Within::Json).unwrap_or_default()
    };
    table.columns.iter().map(|name| &**name).map(one).collect::<Vec<_>>().join(",")
}

/// The setting that a text needs which stands around the rows.
fn lacking<'e>(encode: &'e Encode, settings: &Values) -> Option<&'e str> {
    let templates = encode.envelope.iter().chain(&encode.column);
    let mut settings_of = templates.flat_map(Template::variables).filter(|name| name.starts_with("setting."));
    settings_of.find(|name| !settings.contains_key(*name))
}

fn records(encode: &Encode, delimiter: char) -> EtlResult<CsvFormat> {
    CsvFormat::new(delimiter, &encode.null)
}

/// Appends a row.
pub(super) fn write(encode: &Encode, account: &Account, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
    let settings = account.for_table(&row.table.source.name);
    if let Some(name) = lacking(encode, &settings) {
        return Err(EtlError::new(ErrorKind::Config, "the profile asks for what is not given for this table")
            .with("variable", name)
            .hint("Set it in the destination's `settings`, or in those of its `tables`"));
    }
    let delimiter = match encode.format {
        Format::Separated(delimiter) => delimiter,
        Format::Json | Format::JsonLines => return object(encode, settings, row, out),
    };
    let unsent = (0..row.table.columns.len()).find(|place| row.row.raw(*place) == RawValue::Unchanged);
    if let Some(place) = unsent {
        return Err(EtlError::new(ErrorKind::Value, "a value was not sent, and a record has no place for that")
            .with("column", &row.table.columns[place])
            .hint("Set REPLICA IDENTITY FULL on the table"));
    }
    let records = records(encode, delimiter)?;
    records.values(out, row.table, row.row)?;
    if encode.has_metadata && row.table.metadata.is_some() {
        let (lsn, ordinal) = (row.stamp.position.commit.0, row.stamp.position.ordinal);
        let (change, time) = (row.stamp.change_type.as_str(), row.stamp.time());
        let d = delimiter;
        out.extend(format!("{d}{change}{d}{lsn}{d}{ordinal}{d}{time}").into_bytes());
    }
    out.push(b'\n');
    Ok(())
}

fn object(encode: &Encode, settings: Values, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
    let mut object = Value::Object(Map::new());
    let is_gone = row.stamp.change_type == ChangeType::Delete;
    for (place, name) in row.table.columns.iter().enumerate() {
        let is_of_key = row.table.source.key.iter().any(|key| usize::from(*key) == place);
        let is_unsent = row.row.raw(place) == RawValue::Unchanged && row.is_partial;
        if is_unsent || (is_gone && !is_of_key) {
            continue;
        }
        let field = encode.fields.iter().find(|field| *field.column == **name);
        let kind = field.map_or(FieldKind::Value, |field| field.kind);
        let value = value(row, place, kind)?;
        if value.is_null() && !encode.keeps_null {
            continue;
        }
        match (field, &encode.rest) {
            (Some(field), _) => put(&mut object, &field.at, None, value),
            (None, Some(rest)) => put(&mut object, rest, Some(name), value),
            (None, None) => {
                return Err(EtlError::new(ErrorKind::DestinationUnsupported, "the system has no place for a column")
                    .with("column", name)
                    .hint("Leave it out by `columns.exclude`, or name it as one that the profile has a place for"));
            }
        }
    }
    if let Some(deleted) = encode.deleted.as_ref().filter(|_| is_gone) {
        put(&mut object, deleted, None, Value::Bool(true));
    }
    if encode.has_metadata {
        metadata(row, encode.rest.as_deref().unwrap_or_default(), &mut object);
    }
    let object = object.to_string();
    match &encode.row {
        None => out.extend_from_slice(object.as_bytes()),
        Some(template) => {
            let mut values = settings;
            values.insert("row".to_owned(), object);
            out.extend_from_slice(template.fill(&values, Within::Json)?.as_bytes());
        }
    }
    Ok(())
}

fn value(row: &BulkRow<'_>, place: usize, kind: FieldKind) -> EtlResult<Value> {
    let unreadable = |error| EtlError::new(ErrorKind::Value, "a value is no JSON").because(error);
    match kind {
        FieldKind::Text => Ok(row.row.text(place)?.map_or(Value::Null, |text| text.into_owned().into())),
        FieldKind::Json => match row.row.text(place)? {
            Some(text) => serde_json::from_str(&text).map_err(unreadable),
            None => Ok(Value::Null),
        },
        FieldKind::Value => {
            let mut bytes = Vec::new();
            json_value(&mut bytes, row.row, place)?;
            serde_json::from_slice(&bytes).map_err(unreadable)
        }
    }
}

fn metadata(row: &BulkRow<'_>, rest: &str, object: &mut Value) {
    let Some(metadata) = &row.table.metadata else { return };
    let stamp = &row.stamp;
    put(object, rest, Some(&metadata.change_type), stamp.change_type.as_str().into());
    put(object, rest, Some(&metadata.lsn), stamp.position.commit.0.into());
    put(object, rest, Some(&metadata.ordinal), stamp.position.ordinal.into());
    put(object, rest, Some(&metadata.timestamp), stamp.time().into());
}

/// Puts a value at a place, and objects where there are none on the way.
fn put(object: &mut Value, at: &str, name: Option<&str>, value: Value) {
    let mut here = object;
    let steps = at.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
    for step in steps.chain(name.map(str::to_owned)) {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        here = match here {
            Value::Object(map) => map.entry(step).or_insert(Value::Null),
            other => other,
        };
    }
    *here = value;
}
