//! How is a unit handed over? Its tables side by side, each in the order of its own steps.

use std::collections::BTreeMap;

use etl::error::EtlResult;
use etl::schema::TableId;
use futures_util::future::join_all;
use tokio::sync::OwnedMutexGuard;

use super::BulkDestination;
use super::lane::{Lane, Source};
use super::writer::{Bulk, OnUnsupported, unsupported};
use crate::writer::{Step, TableBatch, Truncated, WriteUnit};

/// What a unit has for one table.
enum Work<'u> {
    Truncate(&'u Truncated),
    Write(&'u TableBatch),
}

impl<B: BulkDestination> Bulk<B> {
    /// Hands a unit over, to wait in a run where there is one. Tables wait for their own jobs alone.
    pub(super) async fn hand_over(&self, unit: &WriteUnit, run: Option<&str>) -> EtlResult<()> {
        let mut lanes: BTreeMap<TableId, Vec<Work<'_>>> = BTreeMap::new();
        for step in &unit.steps {
            match step {
                // The system has no tables of its own.
                Step::Ensure(_) | Step::Alter(..) | Step::Fill(..) => {}
                Step::Truncate(tables) => {
                    for truncated in tables {
                        lanes.entry(truncated.table.id).or_default().push(Work::Truncate(truncated));
                    }
                }
                Step::Write(batch) => lanes.entry(batch.table.id).or_default().push(Work::Write(batch)),
            }
        }
        let lanes = lanes.into_iter().map(|(table, work)| async move {
            for work in work {
                let mut lane = self.lane_of(table, run).await?;
                match work {
                    Work::Truncate(truncated) => self.truncate(&mut lane, unit, truncated).await?,
                    Work::Write(batch) => self.write(&mut lane, Source::of(unit), batch).await?,
                }
            }
            Ok(())
        });
        // None is cut short by the failure of another: its request may be under way.
        join_all(lanes).await.into_iter().collect()
    }

    /// The lane of the table in a run whose changes wait, which goes on from what its own has settled; or its own.
    async fn lane_of(&self, table: TableId, run: Option<&str>) -> EtlResult<OwnedMutexGuard<Lane>> {
        let mut own = self.lane(table).await?;
        let Some(run) = run else { return Ok(own) };
        let mut staged = self.staged_lane(run, table).await?;
        if staged.settled < own.settled || own.is_writing || own.is_replaying || !own.live.is_empty() {
            self.begin(self.spool().await?, &mut own, table).await?;
            own.is_writing = false;
            staged.settled = staged.settled.max(own.settled);
        }
        Ok(staged)
    }

    /// The source emptied the table: after all that came before, and once.
    async fn truncate(
        &self,
        lane: &mut Lane,
        unit: &WriteUnit,
        Truncated { table, position, .. }: &Truncated,
    ) -> EtlResult<()> {
        let spool = self.spool().await?;
        self.begin(spool, lane, table.id).await?;
        // What is settled beyond it was handed over after it.
        let was_done = unit.batch.is_some() && *position <= lane.settled;
        let is_done = was_done || self.bulk.truncate(table).await?;
        lane.is_writing = false;
        if is_done {
            return Ok(());
        }
        match self.settings.on_truncate {
            OnUnsupported::Ignore => {
                self.census.met(table);
                self.census.metrics().ignored(&self.census.name(table.id), "truncate", 1);
                tracing::warn!(table = %table.name, "the source emptied the table, and the system keeps its rows");
                Ok(())
            }
            OnUnsupported::Error | OnUnsupported::Deliver => Err(unsupported(table, "a truncate")
                .hint("Set `on_truncate: ignore` where its rows may stay there, or `write_mode: append`")),
        }
    }
}
