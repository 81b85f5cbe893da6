//! What is done about tables that came, went, or went wrong without a word in the stream?

use super::{Leave, Tables, held, over};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::pipeline::run::Run;
use crate::pipeline::status::TableStatus;
use crate::pipeline::table::Brought;
use crate::pipeline::table_state::Begin;
use crate::pipeline::watch::{Finding, is_of_partitions};
use crate::schema::TableId;
use crate::source::PublishedTable;
use crate::store::{CursorId, Phase};

impl Tables {
    pub(super) async fn heed(&mut self, finding: Finding) -> EtlResult<()> {
        match finding {
            Finding::Added(table) => self.add(*table).await,
            Finding::Gone(table) => self.remove(table).await,
            Finding::Stale { table, why, since, generation } => {
                if !self.run.published.knows(table) {
                    return Ok(());
                }
                let allowed = match is_of_partitions(why) {
                    true => Ok(()),
                    false => self.run.expect_copy_allowed(table, why).await,
                };
                // A copy that has begun since sees what was seen, and was allowed.
                if self.run.states.get(table).generation != generation {
                    return Ok(());
                }
                if let Err(error) = allowed {
                    return self.stop_stale(table, error).await;
                }
                tracing::warn!(table = %self.run.name(table), why, %since, "the table may be stale: it is copied again");
                self.run.board.table(table, |status| status.stale_since = Some(since));
                self.copy_stale(table).await
            }
            Finding::Renamed { table, name } => self.rename(table, name).await,
        }
    }

    /// A table is copied beside the stream, as at the start.
    async fn add(&mut self, table: PublishedTable) -> EtlResult<()> {
        let (run, id) = (&self.run, table.schema.id);
        if run.published.contains(id) {
            return Ok(());
        }
        run.expect_own_name(&table)?;
        run.recall(id).await?;
        let status = TableStatus::of(&table, Phase::Pending.name());
        run.describe(table, None).await?;
        run.board.table_added(status);
        run.own_cursor_opened();
        run.set_phase(id, Phase::Pending).await?;
        tracing::info!(table = %run.name(id), "the table is new: it is copied");
        self.spawn(id, Begin::Copy { generation: self.run.states.get(id).generation + 1 }, None);
        Ok(())
    }

    /// Nothing waits for the table any more. Its rows stay in the destination as they are.
    async fn remove(&mut self, id: TableId) -> EtlResult<()> {
        if !self.run.published.contains(id) {
            return Ok(());
        }
        let (has_own_cursor, hold) = match (self.held.remove(&id), self.run.states.get(id).phase) {
            (Some(hold), _) => (true, Some(hold)),
            (None, Phase::Paused(_) | Phase::Quarantined(_)) => (false, None),
            (None, _) => match self.call_back(id).await? {
                Brought::Joined => (true, Some(self.leave_main(id, Leave::Resync).await?.into())),
                Brought::Rests(rest) | Brought::Failed(_, rest) => (true, held(rest).1),
                Brought::Ended => return Err(over()),
            },
        };
        let run = &self.run;
        run.set_phase(id, Phase::Removed).await?;
        if let Some(hold) = hold {
            hold.leave();
        }
        run.store.forget_cursor(CursorId::Table(id)).await?;
        run.store.forget_copy(id).await?;
        if has_own_cursor {
            run.own_cursor_closed();
        }
        tracing::warn!(table = %run.name(id), "the table left the publication; its rows stay in the destination");
        run.board.forget_meter(CursorId::Table(id));
        run.board.table_removed(id);
        run.copied_files.forget(id);
        run.published.remove(id);
        Ok(())
    }

    /// The table is not to be copied again by itself: it waits until somebody says so.
    pub(super) async fn stop_stale(&mut self, id: TableId, error: EtlError) -> EtlResult<()> {
        if error.kind() != ErrorKind::SchemaChanged {
            return Err(error);
        }
        match self.run.states.get(id).phase {
            Phase::Pending if self.at_work.contains_key(&id) => return Ok(()),
            Phase::Paused(_) | Phase::Quarantined(_) => return self.forget_held(id).await,
            Phase::Removed => return Ok(()),
            _ => {}
        }
        match self.call_back(id).await? {
            Brought::Joined => {
                let left = self.leave_main(id, Leave::Quarantine(error)).await?;
                self.held.insert(id, left.into());
            }
            Brought::Rests(rest) | Brought::Failed(_, rest) => self.brought(id, Brought::Failed(error, rest)).await?,
            Brought::Ended => return Err(over()),
        }
        self.forget_held(id).await
    }

    pub(super) async fn copy_stale(&mut self, id: TableId) -> EtlResult<()> {
        match self.run.states.get(id).phase {
            // Its copy is yet to begin.
            Phase::Pending if self.at_work.contains_key(&id) => Ok(()),
            Phase::Paused(_) | Phase::Quarantined(_) => self.forget_held(id).await,
            Phase::Removed => Ok(()),
            phase => self.resync(id, phase).await,
        }
    }
}

impl Run {
    /// What is stored of a table that was not published before.
    async fn recall(&self, id: TableId) -> EtlResult<()> {
        let stored = self.store.table_states().await?.into_iter().find(|(stored, _)| *stored == id);
        if let Some((_, state)) = stored {
            self.states.put(id, state);
        }
        Ok(())
    }

    /// A rule that renames gives no new table the name of another one.
    fn expect_own_name(&self, table: &PublishedTable) -> EtlResult<()> {
        let selection = self.source.transform.select(&table.schema)?;
        let is_renamed = selection.schema.source_name.is_some();
        let has_name = |other: &&crate::pipeline::published::Published| {
            let schema = &other.selection.schema;
            schema.name == selection.schema.name && (is_renamed || schema.source_name.is_some())
        };
        match self.published.all().iter().find(has_name) {
            None => Ok(()),
            Some(other) => Err(EtlError::new(ErrorKind::Config, "two tables get one name")
                .with("table", &table.schema.name)
                .with("other table", other.selection.schema.source_name())
                .with("name", &selection.schema.name)
                .hint("Give each another one in `rename`")),
        }
    }
}
