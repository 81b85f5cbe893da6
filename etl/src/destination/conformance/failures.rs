//! Does a write that fails leave nothing behind, neither rows nor the belief that they were written?

use super::trial::{Broken, CaseResult, NULL, Transaction, Trial, UNCHANGED, chunk, items, promised, table};
use crate::destination::Destination;
use crate::error::{ErrorKind, EtlResult};
use crate::schema::TableSchema;

pub(super) async fn a_failed_write_leaves_nothing_behind(trial: &mut Trial<'_>) -> CaseResult {
    let (table, log) = (items(1), table(2, "log", &[("what", 25, "text"), ("n", 23, "integer")], &[]));
    trial.copy(&table, &[&["1", "10", "one"]]).await?;
    trial.copy(&log, &[]).await?;
    // A new row has all its values: where one was not sent, there is nothing that could be written.
    let failed = trial.chunk(&table, chunk(1, 2), &[&["2", "20", "two"], &["3", "30", UNCHANGED]]).await;
    names_the_value(failed, &table, "big")?;
    let bad = Transaction::at(100)
        .insert(&log, &["once", NULL])
        .update(&table, &["1", "11", UNCHANGED])
        .insert(&table, &["4", "40", UNCHANGED])
        .end();
    names_the_value(trial.deliver(&[bad]).await, &table, "big")?;

    if trial.destination().capabilities().atomic {
        trial.expect(&table, &[&["1", "10", "one"]]).await?;
        trial.expect(&log, &[]).await?;
    }
    trial.chunk(&table, chunk(1, 2), &[&["2", "20", "two"], &["3", "30", "three"]]).await?;
    let good = Transaction::at(100)
        .insert(&log, &["once", NULL])
        .update(&table, &["1", "11", UNCHANGED])
        .insert(&table, &["4", "40", "four"])
        .end();
    trial.deliver(&[good]).await?;
    if trial.destination().capabilities().atomic {
        trial.expect(&log, &[&["once", NULL]]).await?;
    }
    trial.expect(&table, &[&["1", "11", "one"], &["2", "20", "two"], &["3", "30", "three"], &["4", "40", "four"]]).await
}

fn names_the_value(written: EtlResult<()>, table: &TableSchema, column: &str) -> CaseResult {
    let Err(error) = written else {
        return Err(Broken("a row was written of which a value was never sent".to_owned()));
    };
    promised(error.kind() == ErrorKind::Value, || format!("an error of kind `Value` was expected: {error:?}"))?;
    let text = error.to_string();
    promised(text.contains(&*table.name.name) && text.contains(column), || {
        format!("the error names neither table nor column: {text}")
    })
}
