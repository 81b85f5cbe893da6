//! Does a write that fails leave nothing behind, neither rows nor the belief that they were written, whatever goes wrong?

use std::time::Duration;

use tokio::time::timeout;

use super::trial::{Broken, CaseResult, NULL, Transaction, Trial, UNCHANGED, chunk, items, promised, row, table};
use super::{Fault, Faulty};
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
        return Err(Broken::new("a row was written of which a value was never sent"));
    };
    promised(error.kind() == ErrorKind::Value, || format!("an error of kind `Value` was expected: {error:?}"))?;
    let text = error.to_string();
    promised(text.contains(&*table.name.name) && text.contains(column), || {
        format!("the error names neither table nor column: {text}")
    })
}

/// A table that cannot be made fails alone, and is there once it can.
pub(super) async fn a_table_that_could_not_be_made_is_made_later(trial: &mut Trial<'_>) -> CaseResult {
    let (table, other) = (items(1), items(2));
    trial.declare(&table).await?;
    trial.copy(&other, &[&["1", "10", "other"]]).await?;
    trial.close().await?;
    let is_obstructed = trial.subject().obstruct(&table, true).await?;
    trial.reopen().await?;
    if !is_obstructed {
        return trial.is_beside();
    }
    for index in [0, 1] {
        let rows: &[&[&str]] = if index == 0 { &[] } else { &[&["1", "10", "a"]] };
        let Err(error) = trial.chunk(&table, chunk(1, index), rows).await else {
            return Err(Broken::new("a table that could not be made was written"));
        };
        let text = error.to_string();
        promised(text.contains(&*table.name.name), || format!("the error does not name the table: {text}"))?;
        let goes_on = Transaction::at(100 + index).update(&other, &["1", &index.to_string(), "goes on"]).end();
        trial.deliver(&[goes_on]).await?;
    }
    trial.close().await?;
    trial.subject().obstruct(&table, false).await?;
    trial.reopen().await?;
    trial.copy(&table, &[&["1", "10", "a"]]).await?;
    trial.deliver(&[Transaction::at(110).insert(&table, &["2", "20", "b"]).end()]).await?;
    trial.expect(&table, &[&["1", "10", "a"], &["2", "20", "b"]]).await?;
    trial.expect(&other, &[&["1", "1", "goes on"]]).await
}

pub(super) async fn a_refused_write_goes_through_afterwards(trial: &mut Trial<'_>) -> CaseResult {
    endured(trial, Fault::Reject).await
}

pub(super) async fn a_write_that_nobody_heard_of_is_not_done_twice(trial: &mut Trial<'_>) -> CaseResult {
    endured(trial, Fault::LoseAnswers).await
}

pub(super) async fn a_write_that_hangs_can_be_made_again(trial: &mut Trial<'_>) -> CaseResult {
    endured(trial, Fault::Hang).await
}

pub(super) async fn a_slow_place_gets_everything(trial: &mut Trial<'_>) -> CaseResult {
    endured(trial, Fault::Slow).await
}

/// How long a write may go wrong before it is given up.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same where nothing happens after its first steps.
const AT_THE_DOOR: Duration = Duration::from_millis(50);
/// How long a slow one may take.
const LONGEST: Duration = Duration::from_secs(120);

/// What happens under the fault is given up after a while, and made again: at once, and after a crash.
async fn endured(trial: &mut Trial<'_>, fault: Fault) -> CaseResult {
    let (table, log) = (items(1), table(2, "log", &[("what", 25, "text")], &[]));
    trial.copy(&table, &[&["1", "10", "copied"]]).await?;
    trial.copy(&log, &[]).await?;
    let atomic = trial.destination().capabilities().atomic;
    let is_within = trial.subject().suffer(Some(fault)).await?;
    let faulty = Faulty::new(trial.destination().clone());
    faulty.suffer((!is_within).then_some(fault));
    let rows = vec![row(&table, &["2", "20", "chunk"])];
    let transaction = Transaction::at(100).insert(&table, &["3", "30", "new"]).update(&table, &["1", "11", "now"]);
    let transaction = if atomic { transaction.insert(&log, &["once"]) } else { transaction }.end();
    let (batch, events) = trial.batch(std::slice::from_ref(&transaction));

    let patience = match fault {
        Fault::Slow => LONGEST,
        _ if is_within => PATIENCE,
        // What is refused or lost there is so at once; a write that is to happen before may take its time.
        Fault::Hang => AT_THE_DOOR,
        _ => LONGEST,
    };
    let chunk_written = timeout(patience, faulty.write_copy_chunk(table.id, chunk(1, 2), rows.clone().into())).await;
    let batch_written = timeout(patience, faulty.write_batch(batch.clone(), events.clone())).await;
    trial.subject().suffer(None).await?;
    if fault == Fault::Slow {
        chunk_written.map_err(|_| Broken::new("a slow chunk was never written"))??;
        batch_written.map_err(|_| Broken::new("a slow batch was never written"))??;
    } else {
        let said_ok = matches!(chunk_written, Ok(Ok(()))) || matches!(batch_written, Ok(Ok(())));
        promised(!said_ok, || format!("a write was said to be durable under {fault:?}"))?;
    }
    drop(faulty);
    trial.destination().write_copy_chunk(table.id, chunk(1, 2), rows.clone().into()).await?;
    trial.deliver(std::slice::from_ref(&transaction)).await?;
    trial.reopen().await?;
    if atomic {
        trial.destination().write_copy_chunk(table.id, chunk(1, 2), rows.into()).await?;
        trial.destination().write_batch(batch, events).await?;
        trial.expect(&log, &[&["once"]]).await?;
    }
    trial.expect(&table, &[&["1", "11", "now"], &["2", "20", "chunk"], &["3", "30", "new"]]).await
}
