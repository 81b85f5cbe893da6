//! Is a run that stages shown whole and once, or not at all?

use std::sync::Arc;

use super::trial::{CaseResult, NULL, Transaction, Trial, chunk, items, promised};
use crate::data::Event;
use crate::destination::{Batch, Destination, StagedRun};
use crate::error::EtlResult;
use crate::lsn::{Lsn, Position};
use crate::schema::TableSchema;
use crate::store::CursorId;

const OLD: &[&[&str]] = &[&["1", "10", "old"], &["2", "20", "old"]];
const NEW: &[&[&str]] = &[&["2", "21", "new"], &["3", "30", "new"]];

fn run(id: &str, tables: &[&Arc<TableSchema>]) -> StagedRun {
    StagedRun { id: id.into(), tables: tables.iter().map(|table| table.id).collect() }
}

/// Begins a run over a table with old rows; `false` where the destination stages nothing, and says so.
async fn begins(trial: &mut Trial<'_>, run: &StagedRun, table: &Arc<TableSchema>) -> Result<bool, super::Broken> {
    trial.copy(table, OLD).await?;
    if trial.destination().capabilities().staged_runs {
        trial.destination().begin_run(run.clone()).await?;
        return Ok(true);
    }
    let begun = trial.destination().begin_run(run.clone()).await;
    trial.is_refused_altogether(begun)?;
    trial.expect(table, OLD).await?;
    Ok(false)
}

/// As the engine does: a chunk without rows, then those with some.
async fn stage(trial: &Trial<'_>, table: &Arc<TableSchema>, rows: &[&[&str]]) -> EtlResult<()> {
    trial.chunk(table, chunk(1, 0), &[]).await?;
    for (index, row) in rows.iter().enumerate() {
        trial.chunk(table, chunk(1, 1 + index as u64), &[row]).await?;
    }
    Ok(())
}

pub(super) async fn a_run_is_shown_once_it_is_finalized_and_not_before(trial: &mut Trial<'_>) -> CaseResult {
    let (table, other) = (items(1), items(2));
    let run = run("0000000a", &[&table, &other]);
    trial.declare(&other).await?;
    if !begins(trial, &run, &table).await? {
        return Ok(());
    }
    stage(trial, &table, NEW).await?;
    stage(trial, &other, OLD).await?;
    // Everything is there; that it is shown may be left to another process.
    trial.expect(&table, OLD).await?;
    trial.destination().finalize_run(run.clone()).await?;
    trial.expect(&table, NEW).await?;
    trial.expect(&other, OLD).await?;
    // Nobody heard of it.
    trial.destination().finalize_run(run).await?;
    trial.expect(&table, NEW).await?;
    trial.expect(&other, OLD).await
}

pub(super) async fn a_run_without_rows_leaves_the_table_empty(trial: &mut Trial<'_>) -> CaseResult {
    let (table, other) = (items(1), items(2));
    let run = run("0000000b", &[&table, &other]);
    trial.declare(&other).await?;
    if !begins(trial, &run, &table).await? {
        return Ok(());
    }
    stage(trial, &table, &[]).await?;
    stage(trial, &other, &[]).await?;
    trial.destination().finalize_run(run).await?;
    trial.expect(&table, &[]).await?;
    trial.expect(&other, &[]).await
}

pub(super) async fn a_chunk_of_a_run_that_comes_again_is_staged_once(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    let run = run("0000000c", &[&table]);
    if !begins(trial, &run, &table).await? {
        return Ok(());
    }
    // Without a position of its own, nobody would know it again.
    let times = if trial.destination().capabilities().atomic { 2 } else { 1 };
    for _ in 0..times {
        stage(trial, &table, NEW).await?;
    }
    trial.destination().finalize_run(run).await?;
    trial.expect(&table, NEW).await
}

pub(super) async fn a_run_that_is_given_up_leaves_the_tables_as_they_are(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    let run = run("0000000d", &[&table]);
    if !begins(trial, &run, &table).await? {
        return Ok(());
    }
    stage(trial, &table, NEW).await?;
    for _ in 0..2 {
        trial.destination().abandon_run(run.clone()).await?;
    }
    trial.expect(&table, OLD).await?;
    let shown = trial.destination().finalize_run(run).await;
    promised(shown.is_err(), || "a run that was given up was shown in silence".to_owned())?;
    // What comes now is staged no more.
    trial.deliver(&[Transaction::at(100).insert(&table, &["4", "40", "later"]).end()]).await?;
    trial.expect(&table, &[OLD[0], OLD[1], &["4", "40", "later"]]).await
}

pub(super) async fn what_a_dead_run_has_staged_is_never_shown(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    let (dead, next) = (run("0000000e", &[&table]), run("0000000f", &[&table]));
    if !begins(trial, &dead, &table).await? {
        return Ok(());
    }
    stage(trial, &table, &[&["8", "80", "dead"], &["9", "90", "dead"]]).await?;
    trial.reopen().await?;
    trial.destination().begin_run(next.clone()).await?;
    stage(trial, &table, NEW).await?;
    let shown = trial.destination().finalize_run(dead).await;
    promised(shown.is_err(), || "a run was shown after another one had begun".to_owned())?;
    trial.destination().finalize_run(next).await?;
    trial.expect(&table, NEW).await
}

/// As after a full refresh of a pipeline that goes on with a stream.
pub(super) async fn a_table_that_a_run_has_shown_is_copied_and_followed_anew(trial: &mut Trial<'_>) -> CaseResult {
    let table = items(1);
    let run = run("00000010", &[&table]);
    if !begins(trial, &run, &table).await? {
        return Ok(());
    }
    stage(trial, &table, NEW).await?;
    trial.destination().finalize_run(run).await?;
    trial.reopen().await?;
    // With the tokens of before, which mean other rows now.
    trial.copy(&table, &[&["5", "50", "copied"]]).await?;
    trial.deliver(&[Transaction::at(200).insert(&table, &["6", "60", "followed"]).end()]).await?;
    trial.expect(&table, &[&["5", "50", "copied"], &["6", "60", "followed"]]).await
}

/// What a run of `incremental` brings, as the engine hands it over: a batch a transaction, the last one without rows.
struct Brought(Vec<(Batch, Vec<Event>)>);

impl Brought {
    fn of(trial: &Trial<'_>, transactions: &[Transaction]) -> Self {
        let (mut from, mut batches) = (trial.at, Vec::new());
        for transaction in transactions {
            let (batch, events) = trial.batch(std::slice::from_ref(transaction));
            let upto = Position::new(batch.upto.commit, Position::WHOLE - 1);
            batches.push((Batch { from, upto, is_piece: true, ..batch }, events));
            from = upto;
        }
        let upto = Position::after(Lsn(from.commit.0 + 10));
        let last = Batch { cursor: CursorId::Main, from, upto, moves: Vec::new(), is_piece: false };
        batches.push((last, Vec::new()));
        Self(batches)
    }

    async fn deliver(&self, trial: &Trial<'_>, places: std::ops::Range<usize>) -> EtlResult<()> {
        for (batch, events) in &self.0[places] {
            trial.destination().write_batch(batch.clone(), events.clone()).await?;
        }
        Ok(())
    }

    fn upto(&self) -> Position {
        self.0.last().map_or(Position::ZERO, |(batch, _)| batch.upto)
    }
}

pub(super) async fn what_comes_in_pieces_is_shown_with_the_last_or_not_at_all(trial: &mut Trial<'_>) -> CaseResult {
    let (table, other) = (items(1), items(2));
    trial.copy(&table, OLD).await?;
    trial.copy(&other, &[]).await?;
    if !trial.destination().capabilities().whole_runs {
        return trial.is_beside();
    }
    let before = Transaction::at(90).insert(&other, &["1", "1", "before"]).end();
    trial.deliver(&[before]).await?;
    let transactions = [
        Transaction::at(100).insert(&table, &["3", "30", "new"]).insert(&other, &["2", "2", "new"]).end(),
        Transaction::at(110).delete(&table, &["1", NULL, NULL]).update(&table, &["3", "31", "newer"]).end(),
        Transaction::at(120).insert(&other, &["3", "3", "newest"]).end(),
    ];
    let run = Brought::of(trial, &transactions);
    let pieces = transactions.len();
    // It dies, or is told to stop, before its last batch.
    for count in 1..=pieces {
        run.deliver(trial, 0..count).await?;
        trial.reopen().await?;
        run.deliver(trial, 0..count).await?;
        trial.expect(&table, OLD).await?;
        trial.expect(&other, &[&["1", "1", "before"]]).await?;
    }
    // Something fails, and all of it comes again.
    run.deliver(trial, 0..pieces).await?;
    run.deliver(trial, 0..2).await?;
    // A table that has nothing to do with it is copied meanwhile: the rest goes on from there, or fails.
    let third = items(3);
    trial.copy(&third, OLD).await?;
    if run.deliver(trial, 2..pieces + 1).await.is_err() {
        run.deliver(trial, 0..pieces + 1).await?;
    }
    let stored = trial.destination().durable_position(CursorId::Main).await?;
    let is_stored = stored == Some(run.upto()) || !trial.destination().capabilities().atomic;
    promised(is_stored, || format!("the position after the run is {stored:?}"))?;
    trial.at = run.upto();
    trial.reopen().await?;
    trial.expect(&table, &[OLD[1], &["3", "31", "newer"]]).await?;
    trial.expect(&other, &[&["1", "1", "before"], &["2", "2", "new"], &["3", "3", "newest"]]).await?;
    trial.expect(&third, OLD).await?;
    // Another run brings nothing, and a stream goes on after it.
    let run = Brought::of(trial, &[]);
    run.deliver(trial, 0..1).await?;
    trial.at = run.upto();
    trial.deliver(&[Transaction::at(200).insert(&table, &["4", "40", "followed"]).end()]).await?;
    trial.expect(&table, &[OLD[1], &["3", "31", "newer"], &["4", "40", "followed"]]).await
}
