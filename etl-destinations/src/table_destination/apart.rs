//! What when a destination refuses rows of a table? Where dead letters are on, they are kept apart and the rest is written.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use etl::Position;
use etl::clock;
use etl::data::{Event, TableRow};
use etl::destination::{Batch, CopyChunk};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::metrics;
use etl::schema::{TableId, TableSchema};
use etl::store::{DeadLetter, PIPELINE_FACT};

use super::{TableDestination, copied};
use crate::blame::Touched;
use crate::dead_rows::{DeadLetterRules, letters, refusal, take_out, written};
use crate::plan::{Planned, plan};
use crate::target_tables::Current;
use crate::writer::{BatchRows, Step, TableWriter, WriteUnit};

/// Whether rows may be the reason.
fn may_be_of_rows(error: &EtlError) -> bool {
    matches!(error.kind(), ErrorKind::Value | ErrorKind::DestinationRejected)
}

impl<W: TableWriter> TableDestination<W> {
    /// Applies what was planned; returns what the tables look like then. Rows that cannot be held are planned away, table by
    /// table, as long as there are few of them.
    pub(super) async fn apply_planned(
        &self,
        mut planned: Planned,
        batch: Option<&Batch>,
        events: &[Event],
        stored: Option<Position>,
        schemas: &HashMap<TableId, Arc<TableSchema>>,
    ) -> EtlResult<Vec<Current>> {
        let mut refusing = BTreeSet::new();
        loop {
            let Planned { steps, tables } = planned;
            let touched = Touched::by(&steps);
            let unit = WriteUnit { steps, batch: batch.cloned(), stored, chunk: None };
            let Err(error) = self.writer.apply(unit).await else { return Ok(tables) };
            let error = touched.blame(error);
            let table = error.table().filter(|_| may_be_of_rows(&error));
            let (Some(rules), Some(table)) = (self.dead_letters, table) else { return Err(error) };
            planned = plan(events, stored, &self.tables(), schemas)?;
            if !refusing.insert(table) || !self.plan_away(&mut planned.steps, &refusing, table, rules).await? {
                return Err(error);
            }
        }
    }

    /// Takes the rows that cannot be held out of what is written of these tables, and keeps them; `false` where there are
    /// none of the last table, or too many.
    async fn plan_away(
        &self,
        steps: &mut [Step],
        tables: &BTreeSet<TableId>,
        last: TableId,
        rules: DeadLetterRules,
    ) -> EtlResult<bool> {
        let (limits, now) = (self.writer.value_limits(), clock::now());
        let (mut found, mut rows) = (Vec::new(), 0);
        for step in steps {
            let Step::Write(batch) = step else { continue };
            if !tables.contains(&batch.table.id) {
                continue;
            }
            let all = written(batch);
            let dead = take_out(&mut batch.rows, |row| refusal(&limits, row));
            if batch.table.id == last {
                rows += all;
                found.extend(letters(&batch.table, "", &dead, now)?);
            }
        }
        self.keep_letters(found, rows, rules).await
    }

    /// Keeps the letters, if there are any and not too many.
    async fn keep_letters(&self, found: Vec<DeadLetter>, rows: u64, rules: DeadLetterRules) -> EtlResult<bool> {
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
        metrics::dead_letters(&pipeline, &name, "value", count);
        Ok(true)
    }

    /// Applies copied rows, without those that cannot be held.
    pub(super) async fn apply_copied(
        &self,
        table: TableId,
        chunk: Option<CopyChunk>,
        current: &Current,
        is_new: bool,
        mut rows: Vec<TableRow>,
    ) -> EtlResult<()> {
        let unit = |rows| {
            let made = is_new.then(|| Step::Ensure(Arc::clone(&current.table)));
            let steps = made.into_iter().chain(copied(&current.table, chunk, rows)).collect();
            WriteUnit { steps, batch: None, stored: None, chunk: chunk.map(|chunk| (table, chunk)) }
        };
        let (Some(rules), Some(chunk)) = (self.dead_letters, chunk) else {
            return self.writer.apply(unit(rows)).await;
        };
        let Err(error) = self.writer.apply(unit(rows.clone())).await else { return Ok(()) };
        if !may_be_of_rows(&error) {
            return Err(error);
        }
        let (limits, all) = (self.writer.value_limits(), rows.len() as u64);
        let position = Position::new(chunk.position.commit, 0);
        let mut apart = BatchRows::Copied { rows, position, at: chunk.read_at };
        let dead = take_out(&mut apart, |row| refusal(&limits, row));
        let of = format!("{}-{}", chunk.generation, chunk.index);
        let found = letters(&current.table, &of, &dead, clock::now())?;
        if !self.keep_letters(found, all, rules).await? {
            return Err(error);
        }
        rows = match apart {
            BatchRows::Copied { rows, .. } => rows,
            _ => Vec::new(),
        };
        self.writer.apply(unit(rows)).await
    }
}
