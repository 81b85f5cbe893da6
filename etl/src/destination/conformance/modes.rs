//! What do a table's rows look like in each write mode, with what they say about themselves?

use std::sync::Arc;

use super::UNSENT;
use super::trial::{CaseResult, NULL, Stamped, Transaction, Trial, UNCHANGED, is_clear, items, promised, table};
use crate::destination::{Destination, Mode};
use crate::error::ErrorKind;
use crate::lsn::Position;
use crate::schema::TableSchema;

const COPIED: &[&[&str]] = &[&["1", "10", "one"], &["2", "20", "two"], &["3", "30", "three"]];

/// An insert, an update, a delete, and a row that moves.
fn changes(table: &Arc<TableSchema>) -> Transaction {
    Transaction::at(100)
        .insert(table, &["4", "40", NULL])
        .update(table, &["1", "11", "one"])
        .delete(table, &["2", NULL, NULL])
        .rekey(table, &["3", NULL, NULL], &["5", "31", "three"])
        .end()
}

/// Writes the changes in a mode, and again after a crash; the rows are these.
async fn changed(trial: &mut Trial<'_>, mode: Mode, rows: &[Stamped<'_>]) -> CaseResult {
    if !trial.enter(mode).await? {
        return Ok(());
    }
    let table = items(1);
    trial.copy(&table, COPIED).await?;
    trial.deliver(&[changes(&table)]).await?;
    trial.expect_stamped(&table, rows).await?;
    if mode == Mode::Append && !trial.destination().capabilities().atomic {
        return Ok(());
    }
    trial.at = Position::ZERO;
    trial.deliver(&[changes(&table)]).await?;
    trial.expect_stamped(&table, rows).await
}

pub(super) async fn upsert_has_a_row_a_key(trial: &mut Trial<'_>) -> CaseResult {
    let rows: &[Stamped<'_>] = &[
        ("UPSERT", 100, 1, &["4", "40", NULL]),
        ("UPSERT", 100, 2, &["1", "11", "one"]),
        ("UPSERT", 100, 4, &["5", "31", "three"]),
    ];
    changed(trial, Mode::Upsert, rows).await
}

pub(super) async fn soft_delete_marks_deleted_rows(trial: &mut Trial<'_>) -> CaseResult {
    let rows: &[Stamped<'_>] = &[
        ("UPSERT", 100, 1, &["4", "40", NULL]),
        ("UPSERT", 100, 2, &["1", "11", "one"]),
        ("DELETE", 100, 3, &["2", "20", "two"]),
        ("UPSERT", 100, 4, &["5", "31", "three"]),
    ];
    changed(trial, Mode::SoftDelete, rows).await?;
    if trial.mode() != Some(Mode::SoftDelete) {
        return Ok(());
    }
    // A deleted row comes back; what is inserted and deleted at once is marked, with all its values.
    let table = items(1);
    let again = Transaction::at(110)
        .insert(&table, &["2", "22", "again"])
        .insert(&table, &["6", "60", "six"])
        .delete(&table, &["6", NULL, NULL])
        .update(&table, &["4", "41", UNCHANGED])
        .delete(&table, &["4", NULL, NULL])
        .end();
    trial.deliver(&[again]).await?;
    let rows: &[Stamped<'_>] = &[
        ("UPSERT", 100, 2, &["1", "11", "one"]),
        ("UPSERT", 100, 4, &["5", "31", "three"]),
        ("UPSERT", 110, 1, &["2", "22", "again"]),
        ("DELETE", 110, 3, &["6", "60", "six"]),
        ("DELETE", 110, 5, &["4", "41", NULL]),
    ];
    trial.expect_stamped(&table, rows).await
}

pub(super) async fn soft_delete_marks_one_row_of_several_equal_ones(trial: &mut Trial<'_>) -> CaseResult {
    if !trial.enter(Mode::SoftDelete).await? {
        return Ok(());
    }
    let log = table(1, "log", &[("what", 25, "text"), ("n", 23, "integer")], &[]);
    trial.copy(&log, &[&["a", "1"], &["a", "1"], &["a", "1"], &["b", NULL]]).await?;
    let transaction = Transaction::at(100).delete(&log, &["a", "1"]).replace(&log, &["b", NULL], &["c", "2"]).end();
    trial.deliver(&[transaction]).await?;
    trial.deliver(&[Transaction::at(110).delete(&log, &["a", "1"]).end()]).await?;
    let rows: &[Stamped<'_>] = &[
        ("UPSERT", 50, 0, &["a", "1"]),
        ("DELETE", 100, 1, &["a", "1"]),
        ("UPSERT", 100, 2, &["c", "2"]),
        ("DELETE", 110, 1, &["a", "1"]),
    ];
    trial.expect_stamped(&log, rows).await
}

/// Copied rows, and then the changes one by one.
const LOG: &[Stamped<'_>] = &[
    ("UPSERT", 50, 0, COPIED[0]),
    ("UPSERT", 50, 0, COPIED[1]),
    ("UPSERT", 50, 0, COPIED[2]),
    ("INSERT", 100, 1, &["4", "40", NULL]),
    ("UPDATE", 100, 2, &["1", "11", "one"]),
    ("DELETE", 100, 3, &["2", NULL, NULL]),
    ("DELETE", 100, 4, &["3", NULL, NULL]),
    ("UPDATE", 100, 5, &["5", "31", "three"]),
];

pub(super) async fn append_has_a_row_a_change(trial: &mut Trial<'_>) -> CaseResult {
    changed(trial, Mode::Append, LOG).await
}

pub(super) async fn append_has_a_change_once_however_often_it_comes(trial: &mut Trial<'_>) -> CaseResult {
    if !trial.enter(Mode::Append).await? {
        return Ok(());
    }
    if !trial.destination().capabilities().atomic {
        return trial.is_beside();
    }
    let table = items(1);
    trial.copy(&table, COPIED).await?;
    let more = Transaction::at(110).insert(&table, &["6", "60", "six"]).end();
    for again in 0..3 {
        trial.chunk(&table, super::trial::chunk(1, 1), COPIED).await?;
        trial.at = Position::ZERO;
        trial.deliver(&[changes(&table)]).await?;
        if again > 0 {
            trial.at = Position::ZERO;
            trial.deliver(&[changes(&table), more.clone()]).await?;
        }
        trial.reopen().await?;
    }
    let rows: Vec<Stamped<'_>> = LOG.iter().copied().chain([("INSERT", 110, 1, &["6", "60", "six"][..])]).collect();
    trial.expect_stamped(&table, &rows).await
}

pub(super) async fn append_leaves_out_or_refuses_what_was_not_sent(trial: &mut Trial<'_>) -> CaseResult {
    if !trial.enter(Mode::Append).await? {
        return Ok(());
    }
    let table = items(1);
    trial.copy(&table, &[&["1", "10", "one"]]).await?;
    let (batch, events) = trial.batch(&[Transaction::at(100).update(&table, &["1", "11", UNCHANGED]).end()]);
    trial.looks_at_refusals();
    let copied: Stamped<'_> = ("UPSERT", 50, 0, &["1", "10", "one"]);
    let Err(error) = trial.destination().write_batch(batch, events).await else {
        return trial.expect_stamped(&table, &[copied, ("UPDATE", 100, 1, &["1", "11", UNSENT])]).await;
    };
    is_clear(&error, Some(&table))?;
    promised(error.kind() == ErrorKind::Value && error.to_string().contains("REPLICA IDENTITY FULL"), || {
        format!("an error of the kind `Value` would name REPLICA IDENTITY FULL: {error:?}")
    })?;
    trial.expect_stamped(&table, &[copied]).await
}

/// Rows before it in the batch, rows after it, and another table with it.
async fn truncated(trial: &mut Trial<'_>, mode: Mode, rows: &[Stamped<'_>], other_rows: &[Stamped<'_>]) -> CaseResult {
    if !trial.enter(mode).await? {
        return Ok(());
    }
    let (table, other) = (items(1), items(2));
    trial.copy(&table, &[&["1", "10", "one"]]).await?;
    trial.copy(&other, &[&["1", "10", "other"]]).await?;
    let transaction = Transaction::at(100)
        .insert(&table, &["2", "20", "before"])
        .truncate(&[&table, &other])
        .insert(&table, &["2", "21", "after"])
        .end();
    trial.deliver(&[transaction]).await?;
    trial.expect_stamped(&table, rows).await?;
    trial.expect_stamped(&other, other_rows).await
}

pub(super) async fn a_truncate_in_upsert_removes_older_rows(trial: &mut Trial<'_>) -> CaseResult {
    truncated(trial, Mode::Upsert, &[("UPSERT", 100, 4, &["2", "21", "after"])], &[]).await
}

pub(super) async fn a_truncate_in_soft_delete_marks_older_rows(trial: &mut Trial<'_>) -> CaseResult {
    let rows: &[Stamped<'_>] = &[("DELETE", 100, 2, &["1", "10", "one"]), ("UPSERT", 100, 4, &["2", "21", "after"])];
    truncated(trial, Mode::SoftDelete, rows, &[("DELETE", 100, 3, &["1", "10", "other"])]).await
}

pub(super) async fn a_truncate_in_append_is_a_row(trial: &mut Trial<'_>) -> CaseResult {
    let rows: &[Stamped<'_>] = &[
        ("UPSERT", 50, 0, &["1", "10", "one"]),
        ("INSERT", 100, 1, &["2", "20", "before"]),
        ("TRUNCATE", 100, 2, &[NULL, NULL, NULL]),
        ("INSERT", 100, 4, &["2", "21", "after"]),
    ];
    let other: &[Stamped<'_>] = &[("UPSERT", 50, 0, &["1", "10", "other"]), ("TRUNCATE", 100, 3, &[NULL, NULL, NULL])];
    truncated(trial, Mode::Append, rows, other).await
}
