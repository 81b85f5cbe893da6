//! What when a destination refuses rows of a table? Where dead letters are on, they are kept apart and the rest is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use etl::Position;
use etl::clock;
use etl::data::{CopiedRows, Event};
use etl::destination::{Batch, CopyChunk, ValueLimits};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::metrics;
use etl::schema::{TableId, TableSchema};
use etl::store::{DeadLetter, PIPELINE_FACT};

use super::rehearsed::{Refused, rows_of, without};
use super::{TableDestination, copied};
use crate::blame::Touched;
use crate::dead_rows::{DeadLetterRules, DeadRow, letters, refusal, take_out};
use crate::plan::{Planned, plan};
use crate::target_tables::Current;
use crate::writer::{BatchRows, Step, TableBatch, TableWriter, WriteUnit};

/// Whether rows may be the reason.
pub(super) fn may_be_of_rows(error: &EtlError) -> bool {
    matches!(error.kind(), ErrorKind::Value | ErrorKind::DestinationRejected)
}

/// What is left out of a unit, the longer the more.
#[derive(Debug, Default)]
struct LeftOut {
    /// Tables without the rows that cannot be held.
    tables: BTreeSet<TableId>,
    /// Tables without the rows that the place refuses by rules of its own.
    refused: BTreeMap<TableId, Refused>,
}

impl LeftOut {
    /// Takes it out of what was planned anew; returns what that is of this table.
    fn take(&self, limits: &ValueLimits, steps: &mut [Step], of: TableId) -> Vec<DeadRow> {
        let mut found = Vec::new();
        for step in &mut *steps {
            let Step::Write(batch) = step else { continue };
            if self.tables.contains(&batch.table.id) {
                let dead = take_out(&mut batch.rows, |row| refusal(limits, row));
                found.extend((batch.table.id == of).then_some(dead).into_iter().flatten());
            }
        }
        for (table, refused) in &self.refused {
            // Their letters are kept already.
            drop(without(steps, *table, refused));
        }
        found
    }
}

impl<W: TableWriter> TableDestination<W> {
    /// Applies what was planned; returns what the tables look like then. Rows that are refused are planned away, table by
    /// table, as long as there are few of them.
    pub(super) async fn apply_planned(
        &self,
        mut planned: Planned,
        batch: Option<&Batch>,
        events: &[Event],
        stored: Option<Position>,
        schemas: &HashMap<TableId, Arc<TableSchema>>,
    ) -> EtlResult<Vec<Current>> {
        let mut left_out = LeftOut::default();
        loop {
            let Planned { steps, tables } = planned;
            let touched = Touched::by(&steps);
            let unit = |steps| WriteUnit { steps, batch: batch.cloned(), stored, chunk: None };
            let Err(error) = self.writer.apply(unit(steps)).await else { return Ok(tables) };
            let error = touched.blame(error);
            let table = error.table().filter(|_| may_be_of_rows(&error));
            let (Some(rules), Some(table)) = (self.dead_letters, table) else { return Err(error) };
            planned = plan(events, stored, &self.tables(), schemas)?;
            let written = rows_of(&planned.steps, table);
            let is_first = left_out.tables.insert(table);
            let dead = left_out.take(&self.writer.value_limits(), &mut planned.steps, table);
            if is_first && !dead.is_empty() {
                if !self.keep_dead(table, ("", "value"), &planned.steps, &dead, written, rules).await? {
                    return Err(error);
                }
                continue;
            }
            if left_out.refused.contains_key(&table) {
                return Err(error);
            }
            let whole = unit(planned.steps);
            let refused = self.rehearse(&whole, table, rules).await?;
            planned.steps = whole.steps;
            let dead = without(&mut planned.steps, table, &refused);
            if !self.keep_dead(table, ("", "rejected"), &planned.steps, &dead, written, rules).await? {
                return Err(error);
            }
            left_out.refused.insert(table, refused);
        }
    }

    /// Keeps the rows of a table as letters, if there are any and not too many.
    async fn keep_dead(
        &self,
        table: TableId,
        (of, code): (&str, &'static str),
        steps: &[Step],
        dead: &[DeadRow],
        written: u64,
        rules: DeadLetterRules,
    ) -> EtlResult<bool> {
        let target = steps.iter().find_map(|step| match step {
            Step::Write(batch) if batch.table.id == table => Some(&batch.table),
            _ => None,
        });
        let Some(target) = target else { return Ok(false) };
        self.keep_letters(letters(target, (of, code), dead, clock::now())?, code, written, rules).await
    }

    /// Keeps the letters, if there are any and not too many.
    async fn keep_letters(
        &self,
        found: Vec<DeadLetter>,
        code: &'static str,
        rows: u64,
        rules: DeadLetterRules,
    ) -> EtlResult<bool> {
        let Some(first) = found.first() else { return Ok(false) };
        let count = found.len() as u64;
        if !rules.allows(count, rows) {
            let percent = rules.max_percent;
            tracing::warn!(table = %first.table, refused = count, rows, percent, "too many rows are refused for dead letters");
            return Ok(false);
        }
        let name = self.store.schema_at(first.table, super::END).await?;
        let name = name.map_or_else(|| first.table.to_string(), |schema| schema.source_name().to_string());
        tracing::warn!(table = name, rows = count, reason = first.reason, "rows that are refused become dead letters");
        self.store.put_dead_letters(found).await?;
        let pipeline = self.store.fact(PIPELINE_FACT).await?.unwrap_or_default();
        metrics::dead_letters(&pipeline, &name, code, count);
        Ok(true)
    }

    /// Applies copied rows, without those that cannot be held.
    pub(super) async fn apply_copied(
        &self,
        table: TableId,
        chunk: Option<CopyChunk>,
        current: &Current,
        is_new: bool,
        mut rows: Arc<CopiedRows>,
    ) -> EtlResult<()> {
        let unit = |rows| {
            let made = is_new.then(|| Step::Ensure(Arc::clone(&current.table)));
            let steps = made.into_iter().chain(copied(&current.table, chunk, rows)).collect();
            WriteUnit { steps, batch: None, stored: None, chunk: chunk.map(|chunk| (table, chunk)) }
        };
        let (Some(rules), Some(chunk)) = (self.dead_letters, chunk) else {
            return self.writer.apply(unit(rows)).await;
        };
        let Err(mut error) = self.writer.apply(unit(Arc::clone(&rows))).await else { return Ok(()) };
        let limits = self.writer.value_limits();
        let all = rows.len() as u64;
        for code in ["value", "rejected"] {
            if !may_be_of_rows(&error) {
                return Err(error);
            }
            let mut whole = unit(Arc::clone(&rows));
            let dead = if code == "value" {
                let mut left_out = LeftOut::default();
                left_out.tables.insert(table);
                left_out.take(&limits, &mut whole.steps, table)
            } else {
                let refused = self.rehearse(&whole, table, rules).await?;
                without(&mut whole.steps, table, &refused)
            };
            rows = copied_rows(&whole.steps);
            if dead.is_empty() {
                continue;
            }
            let of = format!("{}-{}{}", chunk.generation, chunk.index, if code == "value" { "" } else { "-r" });
            if !self.keep_dead(table, (&of, code), &whole.steps, &dead, all, rules).await? {
                return Err(error);
            }
            error = match self.writer.apply(whole).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
        }
        Err(error)
    }
}

/// The copied rows that the steps write.
fn copied_rows(steps: &[Step]) -> Arc<CopiedRows> {
    let rows = |step: &Step| match step {
        Step::Write(TableBatch { rows: BatchRows::Copied { rows, .. }, .. }) => Some(Arc::clone(rows)),
        Step::Write(TableBatch { rows: BatchRows::Keyed(set), .. }) => {
            Some(Arc::new(set.upserts.iter().map(|stamped| stamped.row.clone()).collect()))
        }
        _ => None,
    };
    steps.iter().find_map(rows).unwrap_or_default()
}
