//! Does a table follow its source's shape, in order with the rows around the change?

use std::sync::Arc;

use super::trial::{CaseResult, NULL, Transaction, Trial, items, promised, table};
use crate::error::{ErrorKind, EtlResult};
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

/// What cannot be done ends in an error that says so, names the table, and says what to do.
fn refused(delivered: EtlResult<()>, table: &TableSchema) -> CaseResult {
    let Err(error) = delivered else {
        return promised(false, || "a schema change that is not followed must be an error".to_owned());
    };
    let kinds = [ErrorKind::DestinationUnsupported, ErrorKind::SchemaChanged];
    promised(kinds.contains(&error.kind()), || format!("{kinds:?} would say what the matter is: {error:?}"))?;
    let text = error.to_string();
    promised(text.contains(&*table.name.name), || format!("the error does not name the table: {text}"))?;
    promised(error.hint_text().is_some(), || format!("the error does not say what to do: {text}"))
}

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
        return refused(delivered, &before);
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
