//! Does a table follow its source's shape, in order with the rows around the change?

use std::sync::Arc;

use super::trial::{CaseResult, NULL, Transaction, Trial, items, table};
use crate::lsn::{Lsn, Position};
use crate::schema::{Column, Kind, TableSchema};

/// `items` with a column dropped, one renamed, one of another type, one that is new, and one that older rows have, too.
pub(super) fn reshaped(before: &TableSchema) -> Arc<TableSchema> {
    let mut columns = before.columns.to_vec();
    columns[0].type_oid = 20;
    columns[0].kind = Kind::Int8;
    columns[0].type_name = "bigint".into();
    columns[2].name = "label".into();
    columns.remove(1);
    columns.push(Column { name: "n".into(), attnum: 4, ..columns[1].clone() });
    columns.push(Column { name: "f".into(), attnum: 5, fill: Some("it's old".into()), ..columns[1].clone() });
    let since = Position::new(Lsn(100), 3);
    Arc::new(TableSchema { columns: columns.into(), since, ..before.clone() })
}

/// What older rows have in a column that was added with a default.
const OLD: &str = "it's old";

pub(super) async fn schema_changes_are_followed_within_a_batch(trial: &mut Trial<'_>) -> CaseResult {
    let (before, other) = (items(1), table(2, "other", &[("id", 23, "integer")], &[0]));
    let after = reshaped(&before);
    trial.copy(&before, &[&["1", "10", "a"], &["2", "20", "b"]]).await?;
    trial.copy(&other, &[]).await?;
    trial.declare(&after).await?;
    let transaction = Transaction::at(100)
        .insert(&before, &["3", "30", "c"])
        .update(&before, &["1", "11", "before"])
        .relation(&after)
        .insert(&after, &["5000000000", "d", "new", "f"])
        .insert(&other, &["1"])
        .update(&after, &["2", "after", "x", "y"])
        .end();
    let delivered = trial.deliver(&[transaction]).await;
    if !trial.abilities().schema_changes {
        return trial.is_refused(delivered, &before);
    }
    delivered?;
    if trial.abilities().log {
        return trial.expect(&other, &[&["1"]]).await;
    }
    let expected: &[&[&str]] = &[
        &["1", "before", NULL, OLD],
        &["2", "after", "x", "y"],
        &["3", "c", NULL, OLD],
        &["5000000000", "d", "new", "f"],
    ];
    trial.expect(&after, expected).await?;
    trial.deliver(&[Transaction::at(110).update(&after, &["3", "c", "later", "f"]).end()]).await?;
    trial.expect(&other, &[&["1"]]).await?;
    let expected: &[&[&str]] = &[
        &["1", "before", NULL, OLD],
        &["2", "after", "x", "y"],
        &["3", "c", "later", "f"],
        &["5000000000", "d", "new", "f"],
    ];
    trial.expect(&after, expected).await?;
    // Emptied and changed at once.
    let fewer = after.columns.iter().filter(|column| &*column.name != "f").cloned().collect();
    let last =
        Arc::new(TableSchema { columns: fewer, since: Position::new(Lsn(120), 2), ..TableSchema::clone(&after) });
    trial.declare(&last).await?;
    let transaction = Transaction::at(120).truncate(&[&after]).relation(&last).insert(&last, &["7", "e", "n"]).end();
    trial.deliver(&[transaction]).await?;
    trial.expect(&last, &[&["7", "e", "n"]]).await
}

pub(super) async fn a_column_is_added_in_the_middle_of_a_batch(trial: &mut Trial<'_>) -> CaseResult {
    let text = items(1).columns[2].clone();
    let added = |columns: &mut Vec<Column>| columns.push(Column { name: "added".into(), attnum: 4, ..text });
    let expected: &[&[&str]] = &[&["1", "11", "a", NULL], &["2", "20", "b", NULL], &["3", "30", "c", "d"]];
    altered(trial, added, &["3", "30", "c", "d"], expected).await
}

pub(super) async fn columns_with_defaults_are_added_beside_others(trial: &mut Trial<'_>) -> CaseResult {
    let [_, number, text] = [0, 1, 2].map(|place| items(1).columns[place].clone());
    let column = |of: &Column, name: &str, attnum, fill: &str| Column {
        name: name.into(),
        attnum,
        fill: Some(fill.into()),
        ..of.clone()
    };
    let altered_at_once = |columns: &mut Vec<Column>| {
        columns.remove(1);
        columns.push(column(&number, "seven", 4, "7"));
        columns.push(column(&text, "old", 5, OLD));
        columns.push(column(&number, "eight", 6, "8"));
    };
    let expected: &[&[&str]] =
        &[&["1", "a", "7", OLD, "8"], &["2", "b", "7", OLD, "8"], &["3", "c", "30", "new", "31"]];
    altered(trial, altered_at_once, &["3", "c", "30", "new", "31"], expected).await
}

pub(super) async fn a_column_is_dropped_in_the_middle_of_a_batch(trial: &mut Trial<'_>) -> CaseResult {
    let dropped = |columns: &mut Vec<Column>| drop(columns.remove(1));
    altered(trial, dropped, &["3", "c"], &[&["1", "a"], &["2", "b"], &["3", "c"]]).await
}

pub(super) async fn a_column_is_renamed_in_the_middle_of_a_batch(trial: &mut Trial<'_>) -> CaseResult {
    let renamed = |columns: &mut Vec<Column>| columns[2].name = "label".into();
    let expected: &[&[&str]] = &[&["1", "11", "a"], &["2", "20", "b"], &["3", "30", "c"]];
    altered(trial, renamed, &["3", "30", "c"], expected).await
}

pub(super) async fn a_column_gets_another_type_in_the_middle_of_a_batch(trial: &mut Trial<'_>) -> CaseResult {
    let retyped = |columns: &mut Vec<Column>| {
        columns[1].type_oid = 25;
        columns[1].kind = Kind::Text;
        columns[1].type_name = "text".into();
    };
    let expected: &[&[&str]] = &[&["1", "11", "a"], &["2", "20", "b"], &["3", "thirty", "c"]];
    altered(trial, retyped, &["3", "thirty", "c"], expected).await
}

/// One change of the table between two rows of a batch; what was written before it is what it was.
async fn altered(
    trial: &mut Trial<'_>,
    alter: impl FnOnce(&mut Vec<Column>) + Send,
    inserted: &[&str],
    expected: &[&[&str]],
) -> CaseResult {
    let before = items(1);
    let mut columns = before.columns.to_vec();
    alter(&mut columns);
    let since = Position::new(Lsn(100), 3);
    let after = Arc::new(TableSchema { columns: columns.into(), since, ..TableSchema::clone(&before) });
    trial.copy(&before, &[&["1", "10", "a"]]).await?;
    trial.declare(&after).await?;
    let transaction = Transaction::at(100)
        .insert(&before, &["2", "20", "b"])
        .update(&before, &["1", "11", "a"])
        .relation(&after)
        .insert(&after, inserted)
        .end();
    let delivered = trial.deliver(std::slice::from_ref(&transaction)).await;
    if !trial.abilities().schema_changes {
        return trial.is_refused(delivered, &before);
    }
    delivered?;
    if trial.abilities().log {
        // Its rows keep the shape that they were written in.
        let last = Transaction::at(110).truncate(&[&after]).insert(&after, inserted).end();
        trial.deliver(&[last]).await?;
        return trial.expect(&after, &[inserted]).await;
    }
    // As after a crash: the change is there already.
    trial.reopen().await?;
    trial.at = Position::ZERO;
    trial.deliver(&[transaction]).await?;
    trial.expect(&after, expected).await
}
