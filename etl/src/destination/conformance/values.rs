//! Does every kind of value arrive exactly, copied and changed, in both of the server's forms?

use std::sync::Arc;

use super::trial::{CaseResult, NULL, Transaction, Trial, UNCHANGED, chunk, row, table, texts};
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
    let held = trial.held(&values, [USUAL, GREATEST, LEAST, &nulls]).await?;
    let [usual, greatest, least, nulls] = held.each_ref().map(|row| texts(row));
    let expected: [&[&str]; 4] = [&usual, &greatest, &least, &nulls];
    trial.copy(&values, &expected).await?;
    trial.expect(&values, &expected).await?;

    // The same rows as changes, by way of cells, which are written in the binary form where there is one.
    let rows = expected.map(|values_of_row| again(&values, values_of_row));
    trial.destination().truncate_table(values.id).await?;
    trial.chunk(&values, chunk(2, 0), &[]).await?;
    trial.destination().write_copy_chunk(values.id, chunk(2, 1), rows.to_vec().into()).await?;
    trial.expect(&values, &expected).await?;
    let mut changed = usual.clone();
    changed[0] = "-3";
    trial.deliver(&[Transaction::at(100).update(&values, &changed).end()]).await?;
    trial.expect(&values, &[&usual, &greatest, &changed, &nulls]).await
}

/// Changes often go another way than copies: staged, merged, with some columns and without others.
pub(super) async fn every_kind_of_value_arrives_exactly_in_changes(trial: &mut Trial<'_>) -> CaseResult {
    let values = table(1, "values", COLUMNS, &[0]);
    let mut nulls = vec![NULL; COLUMNS.len()];
    nulls[0] = "4";
    let held = trial.held(&values, [USUAL, GREATEST, LEAST, &nulls]).await?;
    let held = held.each_ref().map(|row| texts(row));
    let rows: [&[&str]; 4] = held.each_ref().map(|row| &row[..]);
    trial.copy(&values, &[]).await?;
    let inserts = rows.iter().fold(Transaction::at(100), |transaction, row| transaction.insert(&values, row));
    trial.deliver(&[inserts.end()]).await?;
    trial.expect(&values, &rows).await?;

    // Every second value becomes the one of the row after; the others are not sent.
    for (round, commit) in [(1, 110), (2, 120)] {
        let is_sent = |column: usize| column == 0 || column % 2 == round % 2;
        let next = |row: usize| rows[(row + 1) % rows.len()];
        let value = |row: usize, column: usize| if column == 0 { rows[row][0] } else { next(row)[column] };
        let update = |transaction: Transaction, row: usize| {
            let sent = |column| if is_sent(column) { value(row, column) } else { UNCHANGED };
            transaction.update(&values, &(0..COLUMNS.len()).map(sent).collect::<Vec<_>>())
        };
        trial.deliver(&[(0..rows.len()).fold(Transaction::at(commit), update).end()]).await?;
        let after = |row: usize| {
            let is_new = |column| is_sent(column) || round == 2;
            (0..COLUMNS.len())
                .map(|column| if is_new(column) { value(row, column) } else { rows[row][column] })
                .collect()
        };
        let after: Vec<Vec<&str>> = (0..rows.len()).map(after).collect();
        trial.expect(&values, &after.iter().map(|row| &row[..]).collect::<Vec<_>>()).await?;
    }

    // Once more in the binary form, with the deletes in one batch.
    let deletes = rows.iter().fold(Transaction::at(130), |transaction, row| {
        let mut key = vec![NULL; COLUMNS.len()];
        key[0] = row[0];
        transaction.delete(&values, &key)
    });
    let inserts =
        rows.iter().fold(Transaction::at(140), |transaction, row| transaction.insert_row(again(&values, row)));
    trial.deliver(&[deletes.end(), inserts.end()]).await?;
    trial.expect(&values, &rows).await
}

/// No byte and no character means anything on the way.
pub(super) async fn every_byte_and_odd_text_arrives_exactly(trial: &mut Trial<'_>) -> CaseResult {
    let texts = table(1, "texts", &[("id", 23, "integer"), ("words", 25, "text"), ("bytes", 17, "bytea")], &[0]);
    let bytes: String = (0..=255u8).map(|byte| format!("{byte:02x}")).collect();
    let bytes = format!("\\x{bytes}");
    let ascii: String = (1..=127u8).map(char::from).collect();
    // Everything outside the first plane, both ends of the second, and marks that join, turn or have no width.
    let wide = "\u{80}\u{7ff}\u{800}\u{fffd}\u{ffff}\u{10000}\u{10ffff}\u{202e}\u{200d}\u{feff}e\u{301}\u{e9}";
    let long = "long ".repeat(20_000);
    let odd = ["NULL", "null", "\\N", "\\.", "''; DROP TABLE texts; --", "\r\n", " ", "\"", "$$", "%s", "{}", "\\x41"];
    let ids: Vec<String> = (0..odd.len() + 3).map(|id| id.to_string()).collect();
    let words = [&*ascii, wide, &long].into_iter().chain(odd);
    let rows: Vec<[&str; 3]> = ids.iter().zip(words).map(|(id, words)| [&**id, words, &*bytes]).collect();
    let rows: Vec<&[&str]> = rows.iter().map(|row| &row[..]).collect();
    trial.copy(&texts, &rows).await?;
    trial.expect(&texts, &rows).await?;
    trial.deliver(&[Transaction::at(100).truncate(&[&texts]).end()]).await?;
    let inserts = rows.iter().fold(Transaction::at(110), |transaction, row| transaction.insert(&texts, row));
    let updates = rows
        .iter()
        .fold(Transaction::at(120), |transaction, row| transaction.update(&texts, &[row[0], row[1], UNCHANGED]));
    trial.deliver(&[inserts.end()]).await?;
    trial.deliver(&[updates.end()]).await?;
    trial.expect(&texts, &rows).await
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
