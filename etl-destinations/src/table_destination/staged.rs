//! Where do the rows of a run wait until it is whole? In tables of their own, whose names hold the run's id.

use std::collections::HashSet;
use std::sync::Arc;

use etl::CursorId;
use etl::data::CopiedRows;
use etl::destination::{CopyChunk, StagedRun};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{TableId, TableName};

use super::{END, TableDestination, copied, fitted};
use crate::table_name::NameRules;
use crate::writer::{Replacement, Step, TableWriter, TargetTable, WriteUnit};

/// The run whose rows come now.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    run: Arc<str>,
    /// Tables that are there already.
    made: HashSet<TableId>,
}

impl<W: TableWriter> TableDestination<W> {
    /// The run that stages, if one does.
    pub(super) fn staging_run(&self) -> Option<Arc<str>> {
        self.staging().as_ref().map(|staging| Arc::clone(&staging.run))
    }

    /// Begins a run: what comes from here on is staged.
    pub(super) async fn begin_staging(&self, run: &StagedRun) -> EtlResult<()> {
        let replaced = self.replacements(run, false).await?;
        if let Some(adopted) = replaced.iter().find(|replaced| replaced.to.is_adopted) {
            return Err(EtlError::new(ErrorKind::Config, "a table that is taken as it is cannot be shown anew")
                .with("table", &adopted.to.name)
                .hint("Leave out `copy: false` for it"));
        }
        self.writer.begin_run(&run.id, &replaced).await?;
        *self.staging() = Some(Staging { run: Arc::from(&*run.id), made: HashSet::new() });
        Ok(())
    }

    /// Shows what the run has staged.
    pub(super) async fn publish(&self, run: &StagedRun) -> EtlResult<()> {
        let replaced = self.replacements(run, true).await?;
        self.writer.publish(&run.id, &replaced).await?;
        self.end_staging();
        for table in &run.tables {
            self.tables().forget(*table);
            self.stored().remove(&CursorId::Table(*table));
        }
        Ok(())
    }

    /// Removes what the run has staged.
    pub(super) async fn abandon(&self, run: &StagedRun) -> EtlResult<()> {
        let replaced = self.replacements(run, false).await?;
        self.writer.abandon_run(&run.id, &replaced).await?;
        self.end_staging();
        Ok(())
    }

    fn end_staging(&self) {
        *self.staging() = None;
    }

    /// The tables of a run, and what they take the place of. One of which no shape is known was never staged.
    async fn replacements(&self, run: &StagedRun, is_shown: bool) -> EtlResult<Vec<Replacement>> {
        let mut replaced = Vec::with_capacity(run.tables.len());
        for table in &run.tables {
            let Some(schema) = self.store.schema_at(*table, END).await? else { continue };
            self.meet(std::iter::once((*table, Some(&schema.name)))).await?;
            let to = if is_shown { self.anew(&schema).await? } else { self.tables().make(&schema).table };
            replaced.push(Replacement { from: self.staged(&to, &run.id), to });
        }
        Ok(replaced)
    }

    /// The table in which the run's rows of another one wait.
    fn staged(&self, table: &Arc<TargetTable>, run: &str) -> Arc<TargetTable> {
        let name = staged_name(&self.writer.name_rules(), table.id, &table.name, run);
        Arc::new(TargetTable { name, ..TargetTable::clone(table) })
    }

    /// Writes copied rows where nobody reads them.
    pub(super) async fn stage(
        &self,
        run: &str,
        table: TableId,
        chunk: Option<CopyChunk>,
        rows: Arc<CopiedRows>,
    ) -> EtlResult<()> {
        self.meet(std::iter::once((table, None))).await?;
        let schema = match rows.schema() {
            Some(schema) => Arc::clone(schema),
            None => self.schema(table, END).await?,
        };
        let current = self.tables().make(&schema);
        let staged = self.staged(&current.table, run);
        let is_made = self.staging().as_ref().is_some_and(|staging| staging.made.contains(&table));
        let mut steps = Vec::with_capacity(2);
        if !is_made {
            steps.push(Step::Ensure(Arc::clone(&staged)));
        }
        steps.extend(copied(&staged, chunk, fitted(&current, rows)?));
        let unit = WriteUnit { steps, batch: None, stored: None, chunk: chunk.map(|chunk| (table, chunk)) };
        self.writer.stage(run, unit).await?;
        if let Some(staging) = self.staging().as_mut() {
            staging.made.insert(table);
        }
        Ok(())
    }
}

/// What the table is called in which rows wait; unlike every name of before and after, since it holds the run.
fn staged_name(rules: &NameRules, id: TableId, name: &TableName, run: &str) -> TableName {
    let suffix = format!("_stg_{run}");
    let plain = rules.with_suffix(&name.name, &suffix);
    // Of one that had to be cut, the oid tells it from others that begin alike.
    let is_cut = !plain.starts_with(&*name.name);
    let called = if is_cut { rules.with_suffix(&name.name, &format!("{id}_{suffix}")) } else { plain };
    TableName { schema: name.schema.clone(), name: called }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_table_is_called_like_its_own_and_the_run_and_never_like_another() {
        let rules = NameRules { longest: 63, ..NameRules::default() };
        let called = |id, name: &str| staged_name(&rules, TableId(id), &TableName::new("s", name), "00c0ffee").name;
        assert_eq!(&*called(1, "orders"), "orders__stg_00c0ffee");
        let (long, longer) = ("x".repeat(60), "x".repeat(63));
        assert_ne!(called(1, &long), called(2, &longer));
        assert!(called(1, &longer).len() <= 63 && called(1, &longer).ends_with("__stg_00c0ffee"));
        assert_eq!(&*staged_name(&rules, TableId(1), &TableName::new("s", "t"), "a").schema, "s");
    }
}
