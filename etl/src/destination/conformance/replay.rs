//! Is a replay harmless, and do positions land with the data?

use std::sync::Arc;

use super::trial::{CaseResult, NULL, Transaction, Trial, UNCHANGED, items, promised};
use crate::data::Event;
use crate::destination::{Batch, Destination};
use crate::lsn::{Lsn, Position};
use crate::schema::TableSchema;
use crate::store::CursorId;

pub(super) async fn what_is_delivered_again_changes_nothing(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, COPIED).await?;
    let history = history(&table);
    let start = trial.at;
    for transaction in &history {
        trial.deliver(std::slice::from_ref(transaction)).await?;
    }
    trial.expect(&table, AFTERWARDS).await?;
    for from in (0..history.len()).rev() {
        trial.at = if from == 0 { start } else { Position::after(history[from - 1].commit) };
        trial.reopen().await?;
        trial.deliver(&history[from..]).await?;
        trial.expect(&table, AFTERWARDS).await?;
    }
    Ok(())
}

pub(super) async fn what_is_written_again_without_positions_changes_nothing(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, COPIED).await?;
    let history = history(&table);
    for from in (0..history.len()).rev() {
        trial.write(&history).await?;
        // Once in one piece, once one by one.
        trial.write(&history[from..]).await?;
        for transaction in &history[from..] {
            trial.write(std::slice::from_ref(transaction)).await?;
        }
        trial.expect(&table, AFTERWARDS).await?;
    }
    Ok(())
}

/// Each cut has a table, and each table a cursor of its own.
pub(super) async fn a_batch_that_is_cut_anywhere_and_replayed_changes_nothing(trial: &mut Trial<'_>) -> CaseResult {
    let mut whole = Vec::new();
    for (id, cut) in (1..).zip(0..) {
        let table = items(id);
        let events: Vec<Event> = history(&table).into_iter().flat_map(|transaction| transaction.events).collect();
        let Some((place, upto)) = events.iter().enumerate().filter_map(changed_at).nth(cut) else { break };
        trial.copy(&table, COPIED).await?;
        let (mut batch, _) = trial.batch(&history(&table));
        (batch.cursor, batch.from) = (CursorId::Table(table.id), Position::ZERO);
        let cut = Batch { upto, ..batch.clone() };
        trial.destination().write_batch(cut, events[..=place].to_vec()).await?;
        whole.push((table, batch, events));
    }
    trial.reopen().await?;
    for (_, batch, events) in &whole {
        trial.destination().write_batch(batch.clone(), events.clone()).await?;
    }
    for (table, ..) in whole {
        trial.expect(&table, AFTERWARDS).await?;
    }
    Ok(())
}

/// The place of a change, and its position.
fn changed_at((place, event): (usize, &Event)) -> Option<(usize, Position)> {
    match event {
        Event::Change(change) => Some((place, change.position)),
        _ => None,
    }
}

/// Rows are looked at alone: no position says that the events were there before.
pub(super) async fn an_older_event_changes_and_reads_nothing_newer(trial: &mut Trial<'_>) -> CaseResult {
    if trial.is_log_of_its_own() {
        return trial.is_beside();
    }
    let table = items(1);
    trial.copy(&table, &[&["1", "10", "one"], &["2", "20", "two"], &["3", "30", "three"]]).await?;
    // Before the copy's snapshot: everything of it is in the copied rows.
    let before_copy = Transaction::at(40)
        .update(&table, &["1", "0", "old"])
        .update(&table, &["2", "0", UNCHANGED])
        .rekey(&table, &["2", NULL, NULL], &["7", "0", UNCHANGED])
        .delete(&table, &["3", NULL, NULL])
        .end();
    trial.write(&[before_copy]).await?;
    trial.write(&[Transaction::at(45).truncate(&[&table]).end()]).await?;
    trial.expect(&table, &[&["1", "10", "one"], &["2", "20", "two"], &["3", "30", "three"]]).await?;

    trial
        .write(&[Transaction::at(200).update(&table, &["1", "11", "new"]).insert(&table, &["4", "40", "d"]).end()])
        .await?;
    let older = Transaction::at(150)
        .update(&table, &["1", "0", UNCHANGED])
        .rekey(&table, &["1", NULL, NULL], &["8", "0", UNCHANGED])
        .insert(&table, &["4", "0", "older"])
        .update(&table, &["2", "21", UNCHANGED])
        .delete(&table, &["4", NULL, NULL])
        .end();
    trial.write(&[older]).await?;
    trial.write(&[Transaction::at(160).truncate(&[&table]).end()]).await?;
    trial.expect(&table, &[&["1", "11", "new"], &["4", "40", "d"]]).await?;
    // Of one transaction, the later place is the newer.
    let places =
        Transaction::at(210).update(&table, &["1", "12", "first"]).update(&table, &["1", "13", "second"]).end();
    let mut first = places.clone();
    first.events.remove(2);
    trial.write(&[places]).await?;
    trial.write(&[first]).await?;
    trial.expect(&table, &[&["1", "13", "second"], &["4", "40", "d"]]).await
}

const COPIED: &[&[&str]] = &[&["1", "10", "one"], &["2", "20", "two"], &["9", "90", "nine"]];
const AFTERWARDS: &[&[&str]] = &[&["1", "11", "one"], &["2", "24", "again"], &["3", "23", "two"]];

/// Leads from the one to the other.
fn history(table: &Arc<TableSchema>) -> [Transaction; 5] {
    [
        Transaction::at(100).insert(table, &["3", "30", "three"]).update(table, &["1", "11", UNCHANGED]).end(),
        Transaction::at(110).rekey(table, &["2", NULL, NULL], &["4", "21", UNCHANGED]).end(),
        Transaction::at(120).delete(table, &["3", NULL, NULL]).insert(table, &["2", "22", "again"]).end(),
        Transaction::at(130).rekey(table, &["4", NULL, NULL], &["3", "23", UNCHANGED]).end(),
        Transaction::at(140).update(table, &["2", "24", UNCHANGED]).delete(table, &["9", NULL, NULL]).end(),
    ]
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

    // It leaves where there is nothing to write, and comes back.
    let stands = |moves| Batch { cursor: CursorId::Main, from: trial.at, upto: trial.at, moves, is_piece: false };
    trial.destination().write_batch(stands(vec![(own.id, CursorId::Table(own.id))]), Vec::new()).await?;
    let stayed = trial.at;
    trial.deliver(&[Transaction::at(133).update(&main, &["5", "5", UNCHANGED]).end()]).await?;
    expect_position(trial, CursorId::Table(own.id), Some(stayed)).await?;
    let stands = |moves| Batch { cursor: CursorId::Main, from: trial.at, upto: trial.at, moves, is_piece: false };
    trial.destination().write_batch(stands(vec![(own.id, CursorId::Main)]), Vec::new()).await?;
    expect_position(trial, CursorId::Table(own.id), Some(trial.at)).await?;

    // It leaves again: its own position is the one of the batch that it left with, and no later one.
    let (mut batch, events) = trial.batch(&[Transaction::at(140).update(&main, &["5", "6", UNCHANGED]).end()]);
    batch.moves = vec![(own.id, CursorId::Table(own.id))];
    trial.destination().write_batch(batch.clone(), events).await?;
    let left = batch.upto;
    trial.at = left;
    trial.deliver(&[Transaction::at(150).insert(&main, &["7", "7", "g"]).end()]).await?;
    trial.reopen().await?;
    expect_position(trial, CursorId::Main, Some(trial.at)).await?;
    expect_position(trial, CursorId::Table(own.id), Some(left)).await?;
    let (mut batch, events) = trial.batch(&[Transaction::at(145).insert(&own, &["3", "3", "own again"]).end()]);
    (batch.cursor, batch.from) = (CursorId::Table(own.id), left);
    trial.destination().write_batch(batch, events).await?;

    // The source has another history since, in which other changes have these positions.
    trial.at = Position::new(Lsn(135), 0);
    trial.destination().go_back(trial.at).await?;
    trial.reopen().await?;
    expect_position(trial, CursorId::Main, Some(trial.at)).await?;
    expect_position(trial, CursorId::Table(own.id), Some(trial.at)).await?;
    trial.deliver(&[Transaction::at(136).insert(&main, &["8", "8", "h"]).end()]).await?;
    trial.expect(&main, &[&["1", "2", "a"], &["5", "6", "e"], &["7", "7", "g"], &["8", "8", "h"]]).await?;
    trial.expect(&own, &[&["1", "1", "own"], &["2", "2", "main"], &["3", "3", "own again"]]).await
}

async fn expect_position(trial: &Trial<'_>, cursor: CursorId, expected: Option<Position>) -> CaseResult {
    let found = trial.destination().durable_position(cursor).await?;
    promised(found == expected, || format!("position of {cursor}: expected {expected:?}, found {found:?}"))
}
