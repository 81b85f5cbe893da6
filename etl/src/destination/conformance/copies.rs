//! Do copied rows arrive once, and do new copies replace old ones?

use super::shapes::reshaped;
use super::trial::{CaseResult, NULL, Transaction, Trial, UNCHANGED, chunk, items, promised};
use crate::destination::{CopyChunk, Destination};
use crate::lsn::{Lsn, Position};
use crate::store::CursorId;

pub(super) async fn an_empty_copy_makes_an_empty_table(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    trial.copy(&table, &[]).await?;
    trial.expect(&table, &[]).await
}

pub(super) async fn a_copy_arrives_whole_and_a_repeated_chunk_changes_nothing(trial: &mut Trial<'_>) -> CaseResult {
    let (table, other) = (items(1), items(2));
    trial.copy(&table, &[&["1", "10", "a"], &["2", "20", "b"]]).await?;
    trial.copy(&other, &[&["1", "-1", "other"]]).await?;
    trial.chunk(&table, chunk(1, 2), &[&["3", "30", "c"]]).await?;
    trial.reopen().await?;
    for index in [2, 1] {
        let rows: &[&[&str]] = if index == 1 { &[&["1", "10", "a"], &["2", "20", "b"]] } else { &[&["3", "30", "c"]] };
        if trial.destination().capabilities().atomic {
            trial.chunk(&table, chunk(1, index), rows).await?;
        }
    }
    trial.expect(&table, &[&["1", "10", "a"], &["2", "20", "b"], &["3", "30", "c"]]).await?;
    trial.expect(&other, &[&["1", "-1", "other"]]).await
}

pub(super) async fn a_new_copy_forgets_the_old_one(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    // Nothing to forget is no error.
    trial.declare(&table).await?;
    trial.destination().truncate_table(table.id).await?;
    trial.copy(&table, &[&["1", "10", "a"], &["2", "20", "b"]]).await?;
    let (mut batch, events) = trial.batch(&[Transaction::at(100).insert(&table, &["3", "30", "c"]).end()]);
    batch.cursor = CursorId::Table(table.id);
    trial.destination().write_batch(batch, events).await?;

    trial.reopen().await?;
    trial.destination().truncate_table(table.id).await?;
    let stored = trial.destination().durable_position(CursorId::Table(table.id)).await?;
    promised(stored.is_none(), || format!("a new copy ends every position of the table, but {stored:?} is stored"))?;
    trial.chunk(&table, chunk(2, 0), &[]).await?;
    trial.chunk(&table, chunk(2, 1), &[&["4", "40", "d"]]).await?;
    trial.expect(&table, &[&["4", "40", "d"]]).await?;
    // The tokens are forgotten too: this one was written before, and now means other rows.
    trial.destination().truncate_table(table.id).await?;
    trial.chunk(&table, chunk(2, 1), &[&["5", "50", "e"]]).await?;
    trial.expect(&table, &[&["5", "50", "e"]]).await?;
    // A table that changed is copied as it is by then.
    let after = reshaped(&table);
    trial.declare(&after).await?;
    trial.destination().truncate_table(table.id).await?;
    trial.chunk(&after, chunk(3, 0), &[]).await?;
    trial.chunk(&after, chunk(3, 1), &[&["6", "f", "new", "g"]]).await?;
    trial.expect(&after, &[&["6", "f", "new", "g"]]).await
}

/// As the engine goes on with a copy under a second snapshot: some rows come again, newer, and the events before them
/// come after them.
pub(super) async fn a_newer_copy_takes_the_place_of_rows_and_older_events_leave_it_alone(
    trial: &mut Trial<'_>,
) -> CaseResult {
    let table = items(1);
    if !trial.destination().replaces_copied_rows(&table) {
        return trial.is_beside();
    }
    trial.copy(&table, &[&["1", "10", "a"], &["2", "20", "b"], &["3", "30", "c"], &["4", "40", "d"]]).await?;
    let second = |index| CopyChunk { position: Position::new(Lsn(200), 0), replaces: true, ..chunk(1, index) };
    trial.chunk(&table, second(7), &[&["2", "21", "newer"], &["5", "50", "e"], &["6", "60", "f"]]).await?;
    trial.reopen().await?;
    if trial.destination().capabilities().atomic {
        trial.chunk(&table, second(7), &[&["2", "21", "newer"], &["5", "50", "e"], &["6", "60", "f"]]).await?;
    }
    trial
        .deliver(&[
            Transaction::at(100)
                .update(&table, &["1", "11", UNCHANGED])
                .update(&table, &["2", "0", "older"])
                .update(&table, &["9", "0", UNCHANGED])
                .insert(&table, &["8", "80", "h"])
                .end(),
            Transaction::at(105).update(&table, &["2", "21", "newer"]).end(),
            Transaction::at(110)
                .delete(&table, &["5", NULL, NULL])
                .rekey(&table, &["4", NULL, NULL], &["6", "0", UNCHANGED])
                .end(),
            Transaction::at(300).update(&table, &["2", "22", UNCHANGED]).end(),
            Transaction::at(310).delete(&table, &["3", NULL, NULL]).end(),
        ])
        .await?;
    let expected: &[&[&str]] =
        &[&["1", "11", "a"], &["2", "22", "newer"], &["5", "50", "e"], &["6", "60", "f"], &["8", "80", "h"]];
    trial.expect(&table, expected).await
}
