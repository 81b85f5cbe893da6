//! Does a row whose key changes move, with everything that was not sent?

use std::sync::Arc;

use super::trial::{CaseResult, NULL, Transaction, Trial, UNCHANGED, items, table};
use crate::schema::TableSchema;

pub(super) async fn a_key_change_moves_the_row(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, &[&["1", "10", "one"], &["2", "20", "two"], &["3", "30", "three"]]).await?;
    // Whole, partial, and partial after a partial update.
    let transaction = Transaction::at(100)
        .rekey(&table, &["1", NULL, NULL], &["11", "10", "one"])
        .rekey(&table, &["2", NULL, NULL], &["12", "21", UNCHANGED])
        .update(&table, &["3", "31", UNCHANGED])
        .rekey(&table, &["3", NULL, NULL], &["13", "32", UNCHANGED])
        .end();
    trial.deliver(&[transaction]).await?;
    trial.expect(&table, &[&["11", "10", "one"], &["12", "21", "two"], &["13", "32", "three"]]).await?;
    // With the insert in the same batch, onto a key that was just left, and on to be deleted.
    let transaction = Transaction::at(110)
        .insert(&table, &["4", "40", "four"])
        .rekey(&table, &["4", NULL, NULL], &["14", "41", UNCHANGED])
        .rekey(&table, &["11", NULL, NULL], &["15", "11", UNCHANGED])
        .rekey(&table, &["12", NULL, NULL], &["11", "22", UNCHANGED])
        .rekey(&table, &["13", NULL, NULL], &["16", "33", UNCHANGED])
        .delete(&table, &["16", NULL, NULL])
        .end();
    trial.deliver(&[transaction]).await?;
    trial.expect(&table, &[&["14", "41", "four"], &["15", "11", "one"], &["11", "22", "two"]]).await
}

pub(super) async fn keys_can_be_swapped_in_one_transaction(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, &[&["1", "10", "one"], &["2", "20", "two"]]).await?;
    let swap = |commit, big: &dyn Fn(&'static str) -> &'static str, (one, two): (&'static str, &'static str)| {
        Transaction::at(commit)
            .rekey(&table, &["1", NULL, NULL], &["-1", "10", big(one)])
            .rekey(&table, &["2", NULL, NULL], &["1", "20", big(two)])
            .rekey(&table, &["-1", NULL, NULL], &["2", "10", big(one)])
            .end()
    };
    trial.deliver(&[swap(100, &|big| big, ("one", "two"))]).await?;
    trial.expect(&table, &[&["1", "20", "two"], &["2", "10", "one"]]).await?;
    trial.deliver(&[swap(110, &|_| UNCHANGED, ("", ""))]).await?;
    trial.expect(&table, &[&["1", "20", "one"], &["2", "10", "two"]]).await
}

/// A type, and three keys of it.
const KINDS: &[(u32, &str, [&str; 3])] = &[
    (21, "smallint", ["-32768", "0", "32767"]),
    (20, "bigint", ["-9223372036854775808", "9007199254740993", "9223372036854775807"]),
    (26, "oid", ["0", "2147483648", "4294967295"]),
    (700, "real", ["-1e-45", "NaN", "Infinity"]),
    (701, "double precision", ["0.1", "NaN", "-Infinity"]),
    (1700, "numeric(18,4)", ["-99999999999999.9999", "0.0001", "99999999999999.9999"]),
    (1700, "numeric", ["0.1", "123456789012345678901234567890123456789012345.6", "NaN"]),
    (25, "text", ["", "a", "A"]),
    (17, "bytea", ["\\x", "\\x00", "\\xff00"]),
    (1082, "date", ["0001-01-01", "2024-02-29", "9999-12-31"]),
    (1083, "time without time zone", ["00:00:00", "12:34:56.789", "23:59:59.999999"]),
    (1114, "timestamp without time zone", ["0001-01-01 00:00:00", "2024-02-29 12:34:56.000001", "infinity"]),
    (1184, "timestamp with time zone", ["0001-01-01 00:00:00+00", "2024-02-29 12:34:56.000001+00", "infinity"]),
    (
        2950,
        "uuid",
        [
            "00000000-0000-0000-0000-000000000000",
            "6b1f2c3d-0000-4000-8000-00000000abcd",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ],
    ),
    (90001, "mood", ["happy", "", "a label"]),
    (869, "inet", ["10.0.0.1", "10.0.0.1/8", "::1"]),
];

pub(super) async fn rows_are_found_by_keys_of_every_kind(trial: &mut Trial<'_>) -> CaseResult {
    let tables: Vec<Arc<TableSchema>> = (1..)
        .zip(KINDS)
        .map(|(id, (oid, name, _))| table(id, &format!("by{id}"), &[("v", 25, "text"), ("k", *oid, name)], &[1]))
        .collect();
    let mut keys: Vec<[String; 3]> = Vec::new();
    for (table, (_, _, keys_of_kind)) in tables.iter().zip(KINDS) {
        let held =
            trial.held(table, keys_of_kind.each_ref().map(|key| [NULL, *key]).each_ref().map(|row| &row[..])).await?;
        keys.push(held.map(|row| row[1].clone()));
    }
    let keys: Vec<[&str; 3]> = keys.iter().map(|keys| keys.each_ref().map(String::as_str)).collect();
    let mut changes = Transaction::at(100);
    for (table, [one, two, three]) in tables.iter().zip(&keys) {
        trial.copy(table, &[&["first", one], &["second", two]]).await?;
        changes = changes
            .delete(table, &[NULL, two])
            .rekey(table, &[NULL, one], &[UNCHANGED, three])
            .insert(table, &["third", one]);
    }
    trial.deliver(&[changes.end()]).await?;
    let named = || tables.iter().zip(&keys).zip(KINDS.iter().map(|(_, name, _)| name));
    for ((table, [one, _, three]), name) in named() {
        let rows: &[&[&str]] = &[&["first", three], &["third", one]];
        trial.expect(table, rows).await.map_err(|broken| broken.within(name))?;
    }
    let update = |changes: Transaction, (table, keys): (&Arc<TableSchema>, &[&str; 3])| {
        changes.update(table, &["again", keys[2]]).delete(table, &[NULL, keys[0]])
    };
    trial.deliver(&[tables.iter().zip(&keys).fold(Transaction::at(110), update).end()]).await?;
    for ((table, [_, _, three]), name) in named() {
        trial.expect(table, &[&["again", three]]).await.map_err(|broken| broken.within(name))?;
    }
    Ok(())
}
