//! Are rows without a key neither lost nor doubled?

use std::sync::Arc;

use super::trial::{CaseResult, NULL, Transaction, Trial, chunk, table};
use crate::destination::Destination;
use crate::schema::TableSchema;

fn log() -> Arc<TableSchema> {
    table(1, "log", &[("what", 25, "text"), ("n", 23, "integer")], &[])
}

pub(super) async fn rows_without_a_key_are_kept_as_they_are(trial: &mut Trial<'_>) -> CaseResult {
    let log = log();
    trial.copy(&log, &[&["copied", "1"], &["copied", "1"]]).await?;
    trial.deliver(&[Transaction::at(100).insert(&log, &["new", NULL]).insert(&log, &["copied", "1"]).end()]).await?;
    let before = trial.at;
    trial.deliver(&[Transaction::at(110).insert(&log, &["new", NULL]).end()]).await?;
    if trial.destination().capabilities().atomic {
        trial.reopen().await?;
        trial.chunk(&log, chunk(1, 1), &[&["copied", "1"], &["copied", "1"]]).await?;
        trial.at = before;
        trial.deliver(&[Transaction::at(110).insert(&log, &["new", NULL]).end()]).await?;
    }
    trial.expect(&log, &[&["copied", "1"], &["copied", "1"], &["copied", "1"], &["new", NULL], &["new", NULL]]).await
}

pub(super) async fn an_old_row_hits_exactly_one_equal_row(trial: &mut Trial<'_>) -> CaseResult {
    let log = log();
    trial.copy(&log, &[&["a", "1"], &["a", "1"], &["a", "1"], &[NULL, "2"], &[NULL, "2"], &["b", NULL]]).await?;
    let is_log = trial.abilities().log;
    let replace = |transaction: Transaction, old: &[&str], new: &[&str]| match is_log {
        true => transaction.delete(&log, old).insert(&log, new),
        false => transaction.replace(&log, old, new),
    };
    let transaction = Transaction::at(100).delete(&log, &["a", "1"]).delete(&log, &["a", "1"]);
    let transaction = replace(transaction, &[NULL, "2"], &["was null", "2"]);
    let transaction = replace(transaction, &["b", NULL], &["b", "3"]);
    trial.deliver(&[transaction.insert(&log, &["c", "4"]).delete(&log, &["c", "4"]).end()]).await?;
    trial.expect(&log, &[&["a", "1"], &[NULL, "2"], &["was null", "2"], &["b", "3"]]).await?;
    trial.deliver(&[Transaction::at(110).insert(&log, &["a", "1"]).delete(&log, &["a", "1"]).end()]).await?;
    trial.expect(&log, &[&["a", "1"], &[NULL, "2"], &["was null", "2"], &["b", "3"]]).await
}
