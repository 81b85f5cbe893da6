//! How does a table that nobody writes to get its new name in the destination?

use std::sync::Arc;

use super::{Leave, Tables};
use crate::data::Event;
use crate::destination::{Batch, Destination, TableChange};
use crate::error::{ErrorKind, EtlError, EtlResult, RetryClass};
use crate::lsn::{Lsn, Position};
use crate::pipeline::quarantine::is_of_one_table;
use crate::pipeline::run::Run;
use crate::pipeline::table_state::Begin;
use crate::retry::RetryPolicy;
use crate::schema::{TableId, TableName, TableSchema};
use crate::source::PublishedTable;
use crate::store::{CursorId, Held, Phase, SnapshotFilter};

impl Tables {
    /// The table leaves the main cursor, is told its name by a cursor of its own, and comes back. Everything that was
    /// written under the old name is durable.
    pub(super) async fn rename(&mut self, id: TableId, name: TableName) -> EtlResult<()> {
        let known = self.run.published.get(id)?;
        let renamed = known.table.called(&name);
        let (old, new) = (&known.selection.schema, self.run.source.transform.select(&renamed.schema));
        let is_alike = new.is_ok_and(|new| new.schema.columns == old.columns && new.schema.key == old.key);
        if !is_alike || !self.run.destination.capabilities().schema_changes {
            // Rules that name the table choose otherwise now, and whoever copies it says so where they do not fit.
            tracing::warn!(table = %self.run.name(id), %name, "the table has another name: it is copied again");
            return match self.run.expect_copy_allowed(id, "it has another name").await {
                Ok(()) => self.copy_stale(id).await,
                Err(error) => self.stop_stale(id, error).await,
            };
        }
        let (before, what) = (Arc::clone(old), format!("it is called {name} now"));
        let after = self.run.source.transform.select(&renamed.schema)?.schema;
        if let Err(error) = self.run.allow(TableChange { before, after, is_copied: false, what }).await {
            return self.stop_stale(id, error).await;
        }
        let left = self.leave_main(id, Leave::Rename).await?;
        match self.run.tell_name(id, renamed, left.upto).await {
            Ok(from) => {
                tracing::info!(table = %name, before = %known.table.schema.name, "the table has another name");
                let snapshot = self.run.snapshot_of(id);
                self.spawn(id, Begin::CatchUp { from, cursor: from, snapshot, mixed: None }, Some(left.hold.into()));
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) if is_of_one_table(&error) => {
                let snapshot = self.run.snapshot_of(id);
                let held = Held { cursor: Some(left.upto), snapshot: Some(snapshot), ..Held::default() };
                self.run.quarantine(id, &error, held).await?;
                self.held.insert(id, left.into());
                Ok(())
            }
            Err(error) => {
                tracing::warn!(table = %name, %error, "the table cannot get its name: it is copied again");
                self.copy(id).await?;
                left.hold.leave();
                Ok(())
            }
        }
    }
}

impl Run {
    /// What the copy of a table that catches up has seen.
    fn snapshot_of(&self, id: TableId) -> SnapshotFilter {
        match self.states.get(id).phase {
            Phase::CatchingUp { snapshot, .. } => snapshot,
            _ => SnapshotFilter::nothing(),
        }
    }

    /// Makes it durable that the table has this name, after everything up to here and before anything later; returns the
    /// position of that.
    async fn tell_name(&self, id: TableId, renamed: PublishedTable, upto: Position) -> EtlResult<Position> {
        if upto.ordinal != Position::WHOLE {
            return Err(EtlError::new(ErrorKind::Internal, "a table left the main cursor within a transaction"));
        }
        // No later transaction commits where an earlier one did.
        let position = Position::new(Lsn(upto.commit.0 + 1), 0);
        let selection = self.source.transform.select(&renamed.schema)?;
        let new = Arc::new(TableSchema { since: upto, ..TableSchema::clone(&selection.schema) });
        let batch =
            Batch { cursor: CursorId::Table(id), from: upto, upto: position, moves: Vec::new(), is_piece: false };
        let mut waits = RetryPolicy::default().waits();
        loop {
            let event = Event::Relation { new: Arc::clone(&new), position };
            match self.destination.write_batch(batch.clone(), vec![event]).await {
                Ok(()) => break,
                Err(error) if error.retry_class() == RetryClass::Transient => waits.after(error).await?,
                Err(error) => return Err(error),
            }
        }
        // A run that ends in between copies the table: nobody knows then what the destination has been told.
        self.describe(renamed, Some(upto)).await?;
        self.store.advance(CursorId::Table(id), position).await?;
        self.store.prune_schemas(id, position).await?;
        Ok(position)
    }
}
