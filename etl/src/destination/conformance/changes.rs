//! Do changes end in the state that the source has?

use std::sync::Arc;

use super::trial::{CaseResult, NULL, Transaction, Trial, UNCHANGED, items, table};
use crate::schema::{TableName, TableSchema};

pub(super) async fn inserts_updates_and_deletes_end_in_the_current_state(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, &[&["1", "10", "a"], &["2", "20", "b"], &["3", NULL, NULL]]).await?;
    let first = Transaction::at(100).insert(&table, &["4", "40", "d"]).update(&table, &["1", "11", NULL]).end();
    let second = Transaction::at(110).delete(&table, &["2", NULL, NULL]).update(&table, &["4", "41", "d"]).end();
    let third = Transaction::at(120).insert(&table, &["2", "22", ""]).delete(&table, &["3", NULL, NULL]).end();
    trial.deliver(&[first, second]).await?;
    trial.expect(&table, &[&["1", "11", NULL], &["3", NULL, NULL], &["4", "41", "d"]]).await?;
    trial.deliver(&[third]).await?;
    let fourth = Transaction::at(130).insert(&table, &["5", "1", "x"]).delete(&table, &["5", NULL, NULL]).end();
    trial.deliver(&[fourth]).await?;
    trial.expect(&table, &[&["1", "11", NULL], &["2", "22", ""], &["4", "41", "d"]]).await
}

pub(super) async fn a_partial_update_keeps_what_was_not_sent(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, &[&["1", "10", "copied"], &["2", "20", NULL]]).await?;
    let alone = Transaction::at(100).update(&table, &["1", "11", UNCHANGED]).end();
    trial.deliver(&[alone]).await?;
    let with_insert =
        Transaction::at(110).insert(&table, &["3", "30", "sent"]).update(&table, &["3", "31", UNCHANGED]).end();
    let twice = Transaction::at(120)
        .update(&table, &["2", UNCHANGED, "now"])
        .update(&table, &["2", "22", UNCHANGED])
        .update(&table, &["1", "12", UNCHANGED])
        .end();
    trial.deliver(&[with_insert, twice]).await?;
    trial.expect(&table, &[&["1", "12", "copied"], &["2", "22", "now"], &["3", "31", "sent"]]).await
}

/// As while a table catches up: the row is newer than the update, or was deleted by then.
pub(super) async fn a_partial_update_of_a_missing_row_invents_nothing(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, &[&["1", "10", "one"]]).await?;
    let alone = Transaction::at(100).update(&table, &["7", "70", UNCHANGED]).end();
    trial.deliver(&[alone]).await?;
    let among_others = Transaction::at(110)
        .update(&table, &["8", "80", UNCHANGED])
        .update(&table, &["1", "11", UNCHANGED])
        .update(&table, &["8", "81", UNCHANGED])
        .end();
    trial.deliver(&[among_others]).await?;
    trial.expect(&table, &[&["1", "11", "one"]]).await
}

/// A row that has a key and whose old values all come (REPLICA IDENTITY FULL).
pub(super) async fn whole_old_rows_say_what_was_not_sent(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, &[&["1", "10", "one"], &["2", "20", "two"]]).await?;
    let transaction = Transaction::at(100)
        .replace(&table, &["1", "10", "one"], &["1", "11", UNCHANGED])
        .replace(&table, &["2", "20", "two"], &["2", "21", UNCHANGED])
        .end();
    trial.deliver(&[transaction]).await?;
    trial.expect(&table, &[&["1", "11", "one"], &["2", "21", "two"]]).await
}

pub(super) async fn a_truncate_removes_what_came_before_it(trial: &mut Trial<'_>) -> CaseResult {
    let (one, two) = (items(1), items(2));
    trial.copy(&one, &[&["1", "10", "a"]]).await?;
    trial.copy(&two, &[&["1", "10", "a"], &["2", "20", "b"]]).await?;
    let transaction = Transaction::at(100)
        .insert(&one, &["2", "20", "before"])
        .update(&two, &["1", "11", UNCHANGED])
        .truncate(&[&one, &two])
        .insert(&one, &["3", "30", "after"])
        .end();
    trial.deliver(&[transaction]).await?;
    trial.expect(&one, &[&["3", "30", "after"]]).await?;
    trial.expect(&two, &[]).await?;
    trial.deliver(&[Transaction::at(110).truncate(&[&one]).end()]).await?;
    trial.expect(&one, &[]).await
}

pub(super) async fn odd_names_and_keys_are_kept(trial: &mut Trial<'_>) -> CaseResult {
    let columns =
        [("select", 25, "text"), ("Größe \"x\"", 23, "integer"), ("a'b;--", 25, "text"), ("Key", 23, "integer")];
    let odd = table(1, "table", &columns, &[3, 0]);
    let odd = Arc::new(TableSchema { name: TableName::new("Odd \"schema\"", "Order; drop"), ..(*odd).clone() });
    // Keys that are told apart by case, a space at the end, or how a letter is put together.
    let copied: &[&[&str]] = &[
        &["it's", "1", "x", "7"],
        &["IT'S", "2", "y", "7"],
        &["it's ", "3", "z", "7"],
        &["\u{e9}", "4", "one", "7"],
        &["e\u{301}", "5", "two", "7"],
        &["\"q\"", "6", "\\", "7"],
        &["it's", "7", "other", "8"],
    ];
    trial.copy(&odd, copied).await?;
    trial.expect(&odd, copied).await?;
    let transaction = Transaction::at(100)
        .update(&odd, &["it's", "11", UNCHANGED, "7"])
        .update(&odd, &["e\u{301}", "15", UNCHANGED, "7"])
        .insert(&odd, &["", "8", NULL, "-1"])
        .delete(&odd, &["\"q\"", NULL, NULL, "7"])
        // One half of the key at a time.
        .rekey(&odd, &["it's ", NULL, NULL, "7"], &["it's ", "3", UNCHANGED, "9"])
        .rekey(&odd, &["it's", NULL, NULL, "8"], &["IT'S", "17", UNCHANGED, "8"])
        .end();
    trial.deliver(&[transaction]).await?;
    let expected: &[&[&str]] = &[
        &["it's", "11", "x", "7"],
        &["IT'S", "2", "y", "7"],
        &["it's ", "3", "z", "9"],
        &["\u{e9}", "4", "one", "7"],
        &["e\u{301}", "15", "two", "7"],
        &["IT'S", "17", "other", "8"],
        &["", "8", NULL, "-1"],
    ];
    trial.expect(&odd, expected).await
}
