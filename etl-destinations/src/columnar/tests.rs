//! Are values the same in Arrow, whichever of the server's forms they came in?

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use etl::clock::Timestamp;
use etl::data::recorded::{Recorded, recorded};
use etl::data::{Cell, CopiedRows, RawValue, RowBuilder, TableRow};
use etl::schema::{Column, Kind, ReplicaIdentity, TableId, TableName, TableSchema};
use etl::{EtlResult, Lsn, Position};

use super::{ArrowLimits, ArrowTable, Infinities, POSTGRES_TYPE};
use crate::metadata_columns::MetadataColumns;
use crate::write_mode::WriteMode;
use crate::writer::TargetTable;

const FINITE: ArrowLimits = ArrowLimits::ARROW;

fn target(kinds: &[(Kind, &str)], metadata: bool) -> Arc<TargetTable> {
    let column = |(place, (kind, type_name)): (usize, &(Kind, &str))| Column {
        fill: None,
        name: format!("c{place}").into(),
        attnum: place as i16 + 1,
        type_oid: 0,
        modifier: -1,
        type_name: (*type_name).into(),
        kind: kind.clone(),
        nullable: true,
    };
    let source = Arc::new(TableSchema {
        last_attnum: 0,
        source_name: None,
        id: TableId(1),
        name: TableName::new("public", "t"),
        columns: kinds.iter().enumerate().map(column).collect(),
        key: Box::default(),
        identity: ReplicaIdentity::Full,
        since: Position::ZERO,
    });
    Arc::new(TargetTable {
        id: source.id,
        name: source.name.clone(),
        columns: source.columns.iter().map(|column| column.name.clone()).collect(),
        write_mode: WriteMode::Upsert,
        metadata: metadata.then(|| Arc::new(MetadataColumns::default())),
        is_adopted: false,
        source,
    })
}

fn text(target: &TargetTable, values: &[Option<&str>]) -> TableRow {
    let mut builder = RowBuilder::new();
    let raw = values.iter().map(|value| value.map_or(RawValue::Null, |text| RawValue::Text(text.as_bytes())));
    builder.push_raw(&target.source, raw).unwrap();
    builder.finish().remove(0)
}

/// The row by way of its cells, which are written in the binary form where there is one.
fn binary(row: &TableRow) -> TableRow {
    let cells: Vec<Cell<'_>> = (0..row.schema().columns.len()).map(|place| row.get(place).unwrap()).collect();
    TableRow::from_cells(Arc::clone(row.schema()), &cells).unwrap()
}

fn copied(target: &Arc<TargetTable>, limits: ArrowLimits, rows: &[TableRow]) -> EtlResult<RecordBatch> {
    let rows = CopiedRows::from(rows.to_vec());
    ArrowTable::new(target, limits).copied(rows.runs(), Position::new(Lsn(7), 0), Timestamp(9))
}

#[test]
fn both_forms_of_every_kind_become_the_same_columns() {
    let list = |kind| Kind::Array(Arc::new(kind));
    let kinds: &[(Kind, &str, &str)] = &[
        (Kind::Bool, "boolean", "t"),
        (Kind::Int2, "smallint", "-32768"),
        (Kind::Int4, "integer", "2147483647"),
        (Kind::Int8, "bigint", "-9223372036854775808"),
        (Kind::Oid, "oid", "4294967295"),
        (Kind::Float4, "real", "1.5"),
        (Kind::Float8, "double precision", "-2.25"),
        (Kind::Numeric(Some((38, 10))), "numeric(38,10)", "-9999999999999999999999999999.9999999999"),
        (Kind::Numeric(None), "numeric", "0.100"),
        (Kind::Text, "text", "ünïcödé"),
        (Kind::Enum, "mood", "happy"),
        (Kind::Bytea, "bytea", "\\x00ff"),
        (Kind::Date, "date", "1999-12-31"),
        (Kind::Time, "time", "24:00:00"),
        (Kind::Timestamp, "timestamp", "1970-01-01 00:00:00.000001"),
        (Kind::TimestampTz, "timestamptz", "2000-01-01 00:00:00+00"),
        (Kind::Uuid, "uuid", "6b1f2c3d-0000-4000-8000-00000000abcd"),
        (Kind::Json, "json", "{ \"a\" :1}"),
        (Kind::Jsonb, "jsonb", "{\"a\": 1}"),
        (Kind::Other, "inet", "10.0.0.1/8"),
        (list(Kind::Int4), "integer[]", "{1,NULL,-3}"),
        (list(Kind::Text), "text[]", "{a,\"b \\\"c\\\"\",NULL}"),
        (list(Kind::Uuid), "uuid[]", "{}"),
    ];
    let columns: Vec<(Kind, &str)> = kinds.iter().map(|(kind, name, _)| (kind.clone(), *name)).collect();
    let target = target(&columns, false);
    let values: Vec<Option<&str>> = kinds.iter().map(|(_, _, value)| Some(*value)).collect();
    let (row, nulls) = (text(&target, &values), text(&target, &vec![None; kinds.len()]));
    let from_text = copied(&target, FINITE, &[row.clone(), nulls.clone()]).unwrap();
    let from_binary = copied(&target, FINITE, &[binary(&row), nulls]).unwrap();
    assert_eq!(from_text, from_binary);
    for (field, column) in from_text.schema().fields().iter().zip(from_text.columns()) {
        assert!(column.is_valid(0) && column.is_null(1), "{}", field.metadata()[POSTGRES_TYPE]);
    }
    let column = |name: &str| {
        let place = kinds.iter().position(|(_, known, _)| *known == name).unwrap();
        from_text.column(place)
    };
    assert_eq!(column("numeric(38,10)").as_primitive::<Decimal128Type>().value(0), -(10_i128.pow(38) - 1));
    assert_eq!(column("date").as_primitive::<Date32Type>().value(0), 10_956);
    assert_eq!(column("timestamp").as_primitive::<TimestampMicrosecondType>().value(0), 1);
    assert_eq!(column("timestamptz").as_primitive::<TimestampMicrosecondType>().value(0), 946_684_800_000_000);
    assert_eq!(column("numeric").as_string::<i32>().value(0), "0.100");
    let numbers = column("integer[]").as_list::<i32>().value(0);
    let numbers: Vec<Option<i32>> = numbers.as_primitive::<Int32Type>().iter().collect();
    assert_eq!(numbers, [Some(1), None, Some(-3)]);
    assert_eq!(column("text[]").as_list::<i32>().value(0).as_string::<i32>().value(1), "b \"c\"");
    assert_eq!(column("uuid").data_type(), &DataType::FixedSizeBinary(16));
}

#[test]
fn both_forms_of_every_recorded_value_become_the_same_column() {
    let mut refused = BTreeMap::new();
    for Recorded { name, kind, text, binary } in recorded() {
        let target = target(&[(kind, name)], false);
        let [of_text, of_binary] = [RawValue::Text(text.as_bytes()), RawValue::Binary(&binary)].map(|raw| {
            let mut builder = RowBuilder::new();
            builder.push_raw(&target.source, [raw].into_iter()).unwrap();
            builder.push_raw(&target.source, [RawValue::Null].into_iter()).unwrap();
            copied(&target, FINITE, &builder.finish())
        });
        match (of_text, of_binary) {
            (Ok(of_text), Ok(of_binary)) => {
                // NaN is not equal to itself.
                let shown = |batch: &RecordBatch| format!("{:?}", batch.column(0));
                assert_eq!(shown(&of_text), shown(&of_binary), "{text} as {name}");
                assert!(of_text.column(0).is_valid(0) && of_text.column(0).is_null(1), "{text} as {name}");
            }
            (Err(of_text), Err(of_binary)) => {
                assert_eq!(of_text.context("value"), of_binary.context("value"), "{text} as {name}");
                *refused.entry(of_text.context("value").unwrap_or_default().to_owned()).or_default() += 1;
            }
            (of_text, of_binary) => panic!("{text} as {name}: {of_text:?} and {of_binary:?}"),
        }
    }
    let refused: Vec<(&str, usize)> = refused.iter().map(|(class, count)| (&**class, *count)).collect();
    let shape = "array of several dimensions, or with a lower bound other than 1";
    assert_eq!(refused, [(shape, 9), ("infinity", 12), ("out of range", 4)]);
}

#[test]
fn a_value_that_does_not_fit_names_table_column_type_and_class() {
    let list = Kind::Array(Arc::new(Kind::Int4));
    let infinities = Infinities { dates: (-1, 1), timestamps: (-2, 2) };
    for (kind, name, value, class) in [
        (Kind::Date, "date", "infinity", "infinity"),
        (Kind::TimestampTz, "timestamptz", "-infinity", "infinity"),
        (Kind::Timestamp, "timestamp", "294276-12-31 00:00:00", "out of range"),
        (Kind::Numeric(Some((5, 2))), "numeric(5,2)", "NaN", "NaN"),
        (list.clone(), "integer[]", "{{1,2},{3,4}}", "array of several dimensions"),
        (list, "integer[]", "[0:0]={5}", "lower bound other than 1"),
        (Kind::Int4, "integer", "seven", "malformed text"),
    ] {
        let target = target(&[(kind, name)], false);
        let row = text(&target, &[Some(value)]);
        let error = copied(&target, FINITE, std::slice::from_ref(&row)).unwrap_err();
        let context = ["table", "column", "type"].map(|key| error.context(key).unwrap_or_default());
        assert_eq!(context, ["public.t", "c0", name]);
        assert!(error.context("value").is_some_and(|found| found.contains(class)), "{error}");
        let limits = ArrowLimits { infinities: Some(infinities), ..ArrowLimits::ARROW };
        assert_eq!(copied(&target, limits, &[row]).is_ok(), class == "infinity", "{value}");
    }
}

#[test]
fn copied_rows_carry_what_all_of_them_have_in_common() {
    let target = target(&[(Kind::Int4, "integer")], true);
    let rows = [text(&target, &[Some("1")]), text(&target, &[Some("2")])];
    let batch = copied(&target, FINITE, &rows).unwrap();
    let names: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["c0", "_CHANGE_TYPE", "_LSN", "_ORDINAL", "_TIMESTAMP"]);
    assert_eq!(batch.column(1).as_string::<i32>().value(1), "UPSERT");
    assert_eq!(batch.column(2).as_primitive::<Int64Type>().value(1), 7);
    assert_eq!(batch.column(3).as_primitive::<Int64Type>().value(1), 0);
    assert_eq!(batch.column(4).as_primitive::<TimestampMicrosecondType>().value(1), 9);
}
