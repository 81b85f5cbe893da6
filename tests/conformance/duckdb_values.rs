//! Is what DuckDB holds of every kind the value that the server wrote? Read by its own package, and spelled out anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use etl::data::recorded::{Recorded, recorded};
use etl::data::{RawValue, RowBuilder, TableRow, decode};
use etl::destination::{CopyChunk, Destination};
use etl::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TableSchema};
use etl::store::{MemoryStore, Phase, SharedStore, TableState};
use etl::{Lsn, Position};
use etl_destinations::columnar::{ArrowLimits, ArrowTable, Infinities};
use etl_destinations::duckdb::DuckDb;
use etl_destinations::write_mode::WriteMode;
use etl_destinations::writer::TargetTable;
use harness::duckdb::Reader;
use serde_json::Value;

use crate::small_table::COMMITTED;

/// As DuckDB's own.
const LIMITS: ArrowLimits = ArrowLimits {
    infinities: Some(Infinities { dates: (-i32::MAX, i32::MAX), timestamps: (-i64::MAX, i64::MAX) }),
    half_floats: false,
    intervals: false,
};

/// Values by their rows' ids.
type Texts = Vec<(usize, Option<String>)>;

fn schema(id: u32, name: &str, kind: &Kind) -> Arc<TableSchema> {
    let column = |(attnum, name, kind, type_name): (i16, &str, Kind, &str)| Column {
        fill: None,
        name: name.into(),
        attnum,
        type_oid: 0,
        modifier: -1,
        type_name: type_name.into(),
        kind,
        nullable: attnum > 1,
    };
    Arc::new(TableSchema {
        last_attnum: 0,
        source_name: None,
        id: TableId(id),
        name: TableName::new("public", format!("t{id}")),
        columns: [(1, "id", Kind::Int4, "integer"), (2, "v", kind.clone(), name)].map(column).into(),
        key: Box::new([0]),
        identity: ReplicaIdentity::Default,
        since: Position::ZERO,
    })
}

fn row(schema: &Arc<TableSchema>, id: usize, raw: RawValue<'_>) -> TableRow {
    let mut builder = RowBuilder::new();
    builder.push_raw(schema, [RawValue::Text(id.to_string().as_bytes()), raw].into_iter()).unwrap();
    builder.finish().remove(0)
}

/// Whether Arrow and DuckDB have room for the value; the class of the error where not.
fn refusal(schema: &Arc<TableSchema>, row: &TableRow) -> Option<String> {
    let target = Arc::new(TargetTable {
        id: schema.id,
        name: schema.name.clone(),
        columns: schema.columns.iter().map(|column| column.name.clone()).collect(),
        write_mode: WriteMode::Upsert,
        metadata: None,
        source: Arc::clone(schema),
    });
    let refused =
        ArrowTable::new(&target, LIMITS).copied(std::slice::from_ref(row), Position::ZERO, COMMITTED).err()?;
    Some(refused.context("value").unwrap_or_default().to_owned())
}

/// The kinds whose form in DuckDB is not the text itself.
fn is_structured(kind: &Kind) -> bool {
    match kind {
        Kind::Array(element) => is_structured(element) || matches!(**element, Kind::Int4 | Kind::Text),
        Kind::Interval | Kind::Range(_) | Kind::Multirange(_) | Kind::Composite(_) | Kind::Hstore => true,
        Kind::Vector(_) | Kind::HalfVector(_) | Kind::Geometry(_) => true,
        Kind::Network | Kind::Bits | Kind::TsVector | Kind::TsQuery | Kind::Geometric(_) | Kind::TimeTz => true,
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_what_the_server_wrote() {
    let Some(reader) = Reader::find_or_skip().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("values.duckdb");
    let mut kinds: BTreeMap<&str, Vec<Recorded>> = BTreeMap::new();
    for value in recorded().filter(|value| is_structured(&value.kind)) {
        kinds.entry(value.name).or_default().push(value);
    }
    let store: SharedStore = Arc::new(MemoryStore::new());
    let destination = DuckDb::open(&file, Arc::clone(&store)).await.unwrap();
    destination.startup().await.unwrap();
    let mut expected: Vec<(Arc<TableSchema>, Texts)> = Vec::new();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for (id, (name, values)) in (1..).zip(&kinds) {
        let schema = schema(id, name, &values[0].kind);
        store.put_schema(Arc::clone(&schema)).await.unwrap();
        let ready = TableState { phase: Phase::Ready, ..TableState::PENDING };
        store.set_table_state(schema.id, None, ready).await.unwrap();
        let (mut rows, mut texts) = (vec![row(&schema, 0, RawValue::Null)], vec![(0, None)]);
        for (place, value) in (1..).step_by(2).zip(values) {
            for (id, raw) in
                [(place, RawValue::Text(value.text.as_bytes())), (place + 1, RawValue::Binary(&value.binary))]
            {
                let row = row(&schema, id, raw);
                match refusal(&schema, &row) {
                    None => {
                        rows.push(row);
                        texts.push((id, Some(value.text.clone())));
                    }
                    Some(class) => *refused.entry(class).or_default() += 1,
                }
            }
        }
        let chunk = |index| CopyChunk {
            generation: 1,
            index,
            position: Position::new(Lsn(50), 0),
            read_at: COMMITTED,
            replaces: false,
        };
        destination.truncate_table(schema.id).await.unwrap();
        destination.write_copy_chunk(schema.id, chunk(0), Vec::new()).await.unwrap();
        destination.write_copy_chunk(schema.id, chunk(1), rows).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        expected.push((schema, texts));
    }
    destination.shutdown().await.unwrap();
    drop(destination);
    let select = |(schema, _): &(Arc<TableSchema>, _)| {
        let value = if matches!(schema.columns[1].kind, Kind::Geometry(_)) { "hex(v)" } else { "v" };
        format!("SELECT {} AS t, id, to_json({value})::VARCHAR FROM public.{}", schema.id.0, schema.name.name)
    };
    let query = expected.iter().map(select).collect::<Vec<_>>().join(" UNION ALL ") + " ORDER BY t, id";
    let found = reader.query(&file, &query).await.unwrap();
    for (schema, texts) in expected {
        let Column { kind, type_name, .. } = &schema.columns[1];
        let of_table = found.iter().filter(|row| row[0].as_deref() == Some(&schema.id.0.to_string()));
        let found: Texts = of_table
            .map(|row| {
                let json: Value = serde_json::from_str(row[2].as_deref().unwrap_or("null")).unwrap();
                (row[1].as_deref().unwrap().parse().unwrap(), spelled(kind, &json))
            })
            .collect();
        assert_eq!(found, texts, "{type_name}");
    }
    let refused: Vec<(&str, usize)> = refused.iter().map(|(class, count)| (&**class, *count)).collect();
    let shape = "array of several dimensions, or with a lower bound other than 1";
    assert_eq!(refused, [(shape, 18), ("infinity", 4)]);
}

/// The text that Postgres writes, from what DuckDB says in JSON; none for a null.
fn spelled(kind: &Kind, json: &Value) -> Option<String> {
    let flag = |name: &str| json[name].as_bool().unwrap();
    Some(match (kind, json) {
        (_, Value::Null) => return None,
        (Kind::Array(element), Value::Array(values)) => {
            let values = values.iter().map(|value| match spelled(element, value) {
                Some(text) => quoted(text, |c| " \t\n\"\\{}".contains(c) || c == char::from(element.delimiter()), true),
                None => "NULL".to_owned(),
            });
            let delimiter = char::from(element.delimiter()).to_string();
            format!("{{{}}}", values.collect::<Vec<_>>().join(&delimiter))
        }
        (Kind::Multirange(element), Value::Array(ranges)) => {
            let kind = Kind::Range(Arc::clone(element));
            let ranges: Vec<String> = ranges.iter().map(|range| spelled(&kind, range).unwrap()).collect();
            format!("{{{}}}", ranges.join(","))
        }
        (Kind::Range(_), _) if flag("empty") => "empty".to_owned(),
        (Kind::Range(element), _) => {
            let bound = |name: &str| {
                let text = spelled(element, &json[name]);
                text.map_or(String::new(), |text| quoted(text, |c| " \t\n\"\\()[],".contains(c), false))
            };
            let open = if flag("lower_inclusive") { '[' } else { '(' };
            let close = if flag("upper_inclusive") { ']' } else { ')' };
            format!("{open}{},{}{close}", bound("lower"), bound("upper"))
        }
        (Kind::Composite(attributes), _) => {
            let field = |name: &str, kind: &Kind| {
                let text = spelled(kind, &json[name]);
                text.map_or(String::new(), |text| quoted(text, |c| " \t\n\"\\(),".contains(c), false))
            };
            let fields: Vec<String> = attributes.iter().map(|of| field(&of.name, &of.kind)).collect();
            format!("({})", fields.join(","))
        }
        (Kind::Hstore, Value::Object(pairs)) => {
            let mut pairs: Vec<(&String, &Value)> = pairs.iter().collect();
            pairs.sort_by_key(|(key, _)| (key.len(), *key));
            let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let pair = |(key, value): (&String, &Value)| {
                format!("{}=>{}", quoted(key), value.as_str().map_or("NULL".to_owned(), quoted))
            };
            pairs.into_iter().map(pair).collect::<Vec<_>>().join(", ")
        }
        (Kind::Vector(_) | Kind::HalfVector(_), Value::Array(numbers)) => {
            let mut texts = Vec::new();
            for number in numbers {
                let mut text = String::new();
                decode::write_float4(number.as_f64().unwrap() as f32, &mut text);
                texts.push(text);
            }
            format!("[{}]", texts.join(","))
        }
        (Kind::Interval, Value::String(text)) => interval(text),
        (Kind::Date | Kind::Timestamp | Kind::TimestampTz, Value::String(text)) => match text.split_once(" (BC)") {
            Some((before, after)) => format!("{before}{after} BC"),
            None => text.clone(),
        },
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    })
}

/// In quotes where it must be; quotes and backslashes have a backslash before, or are doubled.
fn quoted(text: String, is_special: impl Fn(char) -> bool, with_backslash: bool) -> String {
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
    let mut text = String::new();
    decode::write_interval(interval, &mut text);
    text
}
