//! Is a replay harmless, and do positions land with the data?

use super::trial::{CaseResult, NULL, Transaction, Trial, UNCHANGED, items, promised};
use crate::destination::Destination;
use crate::lsn::Position;
use crate::store::CursorId;

pub(super) async fn what_is_delivered_again_changes_nothing(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, &[&["1", "10", "one"], &["2", "20", "two"], &["9", "90", "nine"]]).await?;
    let history = [
        Transaction::at(100).insert(&table, &["3", "30", "three"]).update(&table, &["1", "11", UNCHANGED]).end(),
        Transaction::at(110).rekey(&table, &["2", NULL, NULL], &["4", "21", UNCHANGED]).end(),
        Transaction::at(120).delete(&table, &["3", NULL, NULL]).insert(&table, &["2", "22", "again"]).end(),
        Transaction::at(130).rekey(&table, &["4", NULL, NULL], &["3", "23", UNCHANGED]).end(),
        Transaction::at(140).update(&table, &["2", "24", UNCHANGED]).delete(&table, &["9", NULL, NULL]).end(),
    ];
    let start = trial.at;
    let expected: &[&[&str]] = &[&["1", "11", "one"], &["2", "24", "again"], &["3", "23", "two"]];
    for transaction in &history {
        trial.deliver(std::slice::from_ref(transaction)).await?;
    }
    trial.expect(&table, expected).await?;
    for from in (0..history.len()).rev() {
        trial.at = if from == 0 { start } else { Position::after(history[from - 1].commit) };
        trial.reopen().await?;
        trial.deliver(&history[from..]).await?;
        trial.expect(&table, expected).await?;
    }
    Ok(())
}

pub(super) async fn positions_and_moves_are_stored_with_the_data(trial: &mut Trial<'_>) -> CaseResult {
    let (main, own) = (items(1), items(2));
    trial.copy(&main, &[]).await?;
    trial.copy(&own, &[]).await?;
    if !trial.destination().capabilities().atomic {
        let stored = trial.destination().durable_position(CursorId::Main).await?;
        return promised(stored.is_none(), || format!("a place that is not atomic stores {stored:?}"));
    }
    trial.deliver(&[Transaction::at(100).insert(&main, &["1", "1", "a"]).end()]).await?;
    let (mut batch, events) = trial.batch(&[Transaction::at(90).insert(&own, &["1", "1", "own"]).end()]);
    (batch.cursor, batch.from) = (CursorId::Table(own.id), Position::ZERO);
    trial.destination().write_batch(batch.clone(), events).await?;
    trial.reopen().await?;
    expect_position(trial, CursorId::Main, Some(trial.at)).await?;
    expect_position(trial, CursorId::Table(own.id), Some(batch.upto)).await?;

    // The table joins the main cursor: from here on the main position is its own.
    let joined = Transaction::at(120).insert(&own, &["2", "2", "main"]).update(&main, &["1", "2", UNCHANGED]).end();
    let (mut batch, events) = trial.batch(&[joined]);
    batch.moves = vec![(own.id, CursorId::Main)];
    // Dropped half-way, then delivered again.
    let destination = trial.destination().clone();
    let half = destination.write_batch(batch.clone(), events.clone());
    let dropped = tokio::time::timeout(std::time::Duration::ZERO, half).await;
    drop(dropped);
    drop(destination);
    trial.destination().write_batch(batch.clone(), events).await?;
    trial.at = batch.upto;
    trial.reopen().await?;
    expect_position(trial, CursorId::Table(own.id), Some(batch.upto)).await?;
    trial.deliver(&[Transaction::at(130).insert(&main, &["5", "5", "e"]).end()]).await?;
    expect_position(trial, CursorId::Table(own.id), Some(trial.at)).await?;
    trial.expect(&main, &[&["1", "2", "a"], &["5", "5", "e"]]).await?;
    trial.expect(&own, &[&["1", "1", "own"], &["2", "2", "main"]]).await
}

async fn expect_position(trial: &Trial<'_>, cursor: CursorId, expected: Option<Position>) -> CaseResult {
    let found = trial.destination().durable_position(cursor).await?;
    promised(found == expected, || format!("position of {cursor}: expected {expected:?}, found {found:?}"))
}
