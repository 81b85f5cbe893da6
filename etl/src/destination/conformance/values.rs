//! Does every kind of value arrive exactly, copied and changed, in both of the server's forms?

use std::sync::Arc;

use super::trial::{CaseResult, NULL, Transaction, Trial, chunk, row, table};
use crate::data::{Cell, RowBuilder};
use crate::destination::Destination;
use crate::schema::TableSchema;

const COLUMNS: &[(&str, u32, &str)] = &[
    ("id", 23, "integer"),
    ("flag", 16, "boolean"),
    ("small", 21, "smallint"),
    ("large", 20, "bigint"),
    ("o", 26, "oid"),
    ("real4", 700, "real"),
    ("real8", 701, "double precision"),
    ("money", 1700, "numeric(18,4)"),
    ("any_number", 1700, "numeric"),
    ("words", 25, "text"),
    ("bytes", 17, "bytea"),
    ("day", 1082, "date"),
    ("hour", 1083, "time without time zone"),
    ("local", 1114, "timestamp without time zone"),
    ("moment", 1184, "timestamp with time zone"),
    ("u", 2950, "uuid"),
    ("j", 114, "json"),
    ("jb", 3802, "jsonb"),
    ("numbers", 1007, "integer[]"),
    ("texts", 1009, "text[]"),
    ("mood", 90001, "mood"),
    ("net", 869, "inet"),
];

const USUAL: &[&str] = &[
    "1",
    "t",
    "-1",
    "42",
    "7",
    "1.5",
    "-2.25",
    "12.3400",
    "0.10",
    "plain",
    "\\x00ff41",
    "2024-02-29",
    "12:34:56.789",
    "2024-02-29 12:34:56.789",
    "2024-02-29 12:34:56.789012+00",
    "6b1f2c3d-0000-4000-8000-00000000abcd",
    "{ \"a\" :1}",
    "{\"a\": 1}",
    "{1,NULL,-3}",
    "{a,b}",
    "happy",
    "10.0.0.1/8",
];

const GREATEST: &[&str] = &[
    "2",
    "f",
    "32767",
    "9223372036854775807",
    "4294967295",
    "3.4028235e+38",
    "1.7976931348623157e+308",
    "99999999999999.9999",
    "123456789012345678901234567890123456789012345678901234567890.5",
    "ünïcödé \u{1f980}\n\t\u{1}",
    "\\x",
    "9999-12-31",
    "23:59:59.999999",
    "9999-12-31 23:59:59.999999",
    "infinity",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "1e999",
    "[]",
    "{}",
    "{}",
    "a label with spaces",
    "::1",
];

const LEAST: &[&str] = &[
    "-3",
    "f",
    "-32768",
    "-9223372036854775808",
    "0",
    "-1e-45",
    "5e-324",
    "-99999999999999.9999",
    "NaN",
    "",
    "\\x5c5c",
    "0001-01-01",
    "00:00:00",
    "0001-01-01 00:00:00",
    "-infinity",
    "00000000-0000-0000-0000-000000000000",
    "\"\\ud83e\\udd80\"",
    "\"\"",
    "{NULL}",
    "{x}",
    "",
    "0.0.0.0/0",
];

pub(super) async fn every_kind_of_value_arrives_exactly(trial: &mut Trial<'_>) -> CaseResult {
    let values = table(1, "values", COLUMNS, &[0]);
    let mut nulls = vec![NULL; COLUMNS.len()];
    nulls[0] = "4";
    trial.copy(&values, &[USUAL, GREATEST, LEAST, &nulls]).await?;
    let expected = [USUAL, GREATEST, LEAST, &nulls];
    trial.expect(&values, &expected).await?;

    // The same rows as changes, by way of cells, which are written in the binary form where there is one.
    let rows = [USUAL, GREATEST, LEAST, &nulls].map(|values_of_row| again(&values, values_of_row));
    trial.destination().truncate_table(values.id).await?;
    trial.chunk(&values, chunk(2, 0), &[]).await?;
    trial.destination().write_copy_chunk(values.id, chunk(2, 1), rows.to_vec()).await?;
    trial.expect(&values, &expected).await?;
    let mut changed = USUAL.to_vec();
    changed[0] = "-3";
    trial.deliver(&[Transaction::at(100).update(&values, &changed).end()]).await?;
    trial.expect(&values, &[USUAL, GREATEST, &changed, &nulls]).await
}

/// The row, decoded into cells and encoded again.
fn again(schema: &Arc<TableSchema>, values: &[&str]) -> crate::data::TableRow {
    let text = row(schema, values);
    let cells: Vec<Cell<'_>> =
        (0..schema.columns.len()).map(|place| text.get(place).expect("a value that can be decoded")).collect();
    let mut builder = RowBuilder::new();
    builder.push(schema, &cells).expect("cells of the right types");
    builder.finish().remove(0)
}
