//! What have tables in the destination that do not follow every change of their source? Kept in the store, and asked there.

use std::collections::HashMap;
use std::sync::Arc;

use etl::destination::TableChange;
use etl::error::{ErrorKind, EtlResult, ResultExt};
use etl::schema::{SchemaChange, TableId, TableSchema, changes};

use super::TableDestination;
use crate::plan::refused;
use crate::write_mode::OnSchemaChange;
use crate::writer::TableWriter;

/// The fact of the store that holds their shapes.
const SHAPES: &str = "destination.shapes";

impl<W: TableWriter> TableDestination<W> {
    /// Reads what is kept, once.
    pub(super) async fn recall_kept(&self) -> EtlResult<()> {
        let _alone = self.keeping.lock().await;
        if self.tables().kept().is_some() {
            return Ok(());
        }
        let kept: HashMap<TableId, Arc<TableSchema>> = match self.store.fact(SHAPES).await? {
            None => HashMap::new(),
            Some(text) => {
                let shapes: Vec<TableSchema> =
                    serde_json::from_str(&text).or_etl(ErrorKind::Store, "read what tables keep")?;
                shapes.into_iter().map(|shape| (shape.id, Arc::new(shape))).collect()
            }
        };
        self.tables().keep(kept);
        Ok(())
    }

    /// The table has this shape from now on whatever its source's is; without one it has its source's.
    pub(super) async fn keep(&self, table: TableId, shape: Option<Arc<TableSchema>>) -> EtlResult<()> {
        let _alone = self.keeping.lock().await;
        let mut kept = self.tables().kept().cloned().unwrap_or_default();
        match shape {
            Some(shape) => drop(kept.insert(table, shape)),
            None => drop(kept.remove(&table)),
        }
        let shapes: Vec<&TableSchema> = kept.values().map(|shape| &**shape).collect();
        let text = serde_json::to_string(&shapes).or_etl(ErrorKind::Internal, "write what tables keep")?;
        self.store.set_fact(SHAPES, text).await?;
        self.tables().keep(kept);
        Ok(())
    }

    /// Whether the table's policy lets the change happen.
    pub(super) async fn allow(&self, change: &TableChange) -> EtlResult<()> {
        let TableChange { before, after, is_copied, what } = change;
        self.recall_kept().await?;
        let policy = self.tables().on_change(after);
        match policy {
            OnSchemaChange::Apply => return Ok(()),
            OnSchemaChange::Stop => {
                let mut found: Vec<String> = self.told(before, after).iter().map(ToString::to_string).collect();
                if found.is_empty() && *is_copied {
                    found.push(what.clone());
                }
                return if found.is_empty() { Ok(()) } else { Err(refused(after, policy, found.iter())) };
            }
            OnSchemaChange::Widen | OnSchemaChange::Ignore => {}
        }
        // From here on the table may differ from its source.
        if self.tables().kept_of(after.id).is_none() && !changes(before, after).is_empty() {
            self.keep(after.id, Some(Arc::clone(before))).await?;
        }
        let refusals = self.tables().kept_with(None, after).map(|kept| kept.refused).unwrap_or_default();
        if refusals.is_empty() { Ok(()) } else { Err(refused(after, policy, refusals.iter())) }
    }

    /// The changes that the destination's table would show.
    fn told(&self, before: &TableSchema, after: &TableSchema) -> Vec<SchemaChange> {
        let is_shown = |change: &SchemaChange| match change {
            SchemaChange::RenameTable { from, to } => {
                let names = self.writer.name_rules();
                names.map(&from.schema) != names.map(&to.schema) || names.map(&from.name) != names.map(&to.name)
            }
            _ => true,
        };
        changes(before, after).into_iter().filter(is_shown).collect()
    }
}
