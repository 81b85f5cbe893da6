//! What is done beside writing? Small files are merged, and current states made, on a schedule or when asked.

use std::sync::{Arc, Weak};
use std::time::Duration;

use etl::error::EtlResult;
use etl::retry::pause;
use etl::schema::{TableId, TableName};
use tokio::sync::Mutex;

use super::compact::Outcome;
use super::config::{ParquetConfig, RetainConfig};
use super::lake::Lake;
use crate::compacted::Compacted;
use crate::table_rules::TableRules;
use crate::write_mode::WriteMode;
use crate::writer::Replacement;

/// Looks after a location.
#[derive(Debug)]
pub(super) struct Upkeep {
    lake: Arc<Lake>,
    /// Which tables have a current state, and of which kind.
    rules: TableRules,
    memory: u64,
    /// One thing after the other.
    working: Mutex<()>,
}

/// How often a current state is begun anew because others rearrange the files too.
const MOST_RACES: usize = 3;

/// How often it is looked for files whose time has come.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// What comes by itself.
#[derive(Debug, Clone, Copy)]
enum Work {
    Compact,
    Merge,
    Sweep,
}

impl Upkeep {
    /// One that does what it is asked for.
    pub(super) fn on_request(lake: Arc<Lake>, rules: TableRules, config: &ParquetConfig) -> Self {
        Self { lake, rules, memory: config.compact.memory.0, working: Mutex::default() }
    }

    /// One that works by itself too.
    pub(super) fn new(lake: Arc<Lake>, rules: TableRules, config: &ParquetConfig) -> Arc<Self> {
        let upkeep = Arc::new(Self::on_request(lake, rules, config));
        let weak = || Arc::downgrade(&upkeep);
        if !config.compact.every.is_zero() {
            tokio::spawn(every(weak(), config.compact.every, Work::Compact));
        }
        if !config.merge_every.is_zero() {
            tokio::spawn(every(weak(), config.merge_every, Work::Merge));
        }
        let RetainConfig { states, merged, folded } = config.retain;
        if let Some(shortest) = [states, merged, folded].into_iter().filter(|stay| !stay.is_zero()).min() {
            tokio::spawn(every(weak(), shortest.clamp(Duration::from_secs(1), SWEEP_EVERY), Work::Sweep));
        }
        upkeep
    }

    /// Brings all current states up to date.
    pub(super) async fn compact(&self) -> EtlResult<Vec<Compacted>> {
        let _alone = self.working.lock().await;
        let mut made = Vec::new();
        for (id, source) in self.tables().await? {
            let mode = self.rules.of(&source).write_mode;
            if mode != WriteMode::Append {
                made.extend(self.compact_one(id, mode, &source).await?);
            }
        }
        self.lake.sweep().await?;
        Ok(made)
    }

    async fn compact_one(&self, id: TableId, mode: WriteMode, source: &TableName) -> EtlResult<Option<Compacted>> {
        for _ in 0..MOST_RACES {
            match self.lake.compact(id, mode, self.memory).await? {
                Outcome::Made(compacted) => return Ok(Some(compacted)),
                Outcome::Nothing => return Ok(None),
                Outcome::Overtaken => tracing::debug!(table = %source, "others rearrange the files too; once more"),
            }
        }
        tracing::info!(table = %source, "others rearrange the files; its current state is left to them");
        Ok(None)
    }

    /// Merges small files; says how many.
    pub(super) async fn merge(&self) -> EtlResult<usize> {
        let _alone = self.working.lock().await;
        let mut taken = 0;
        for (id, _) in self.tables().await? {
            taken += self.lake.merge(id).await?;
        }
        self.lake.sweep().await?;
        Ok(taken)
    }

    /// Shows what a run has staged, with the current states of tables that have one.
    pub(super) async fn publish(&self, run: &str, tables: &[Replacement]) -> EtlResult<()> {
        let _alone = self.working.lock().await;
        let shown =
            |Replacement { to, .. }: &Replacement| (Arc::clone(to), self.rules.of(to.source.source_name()).write_mode);
        let tables: Vec<_> = tables.iter().map(shown).collect();
        self.lake.publish_run(run, &tables, self.memory).await
    }

    /// Removes files whose time has come.
    async fn sweep(&self) -> EtlResult<()> {
        let _alone = self.working.lock().await;
        self.lake.sweep().await
    }

    async fn tables(&self) -> EtlResult<Vec<(TableId, TableName)>> {
        let mut manifests = self.lake.manifests().await;
        manifests.refresh().await?;
        let tables = manifests.state().tables.iter();
        Ok(tables.filter_map(|(id, table)| Some((*id, table.shape()?.source.source_name().clone()))).collect())
    }
}

/// Does it again and again, until there is nothing to look after any more.
async fn every(upkeep: Weak<Upkeep>, interval: Duration, work: Work) {
    loop {
        pause(interval).await;
        let Some(upkeep) = upkeep.upgrade() else { return };
        let done = match work {
            Work::Compact => upkeep.compact().await.map(drop),
            Work::Merge => upkeep.merge().await.map(drop),
            Work::Sweep => upkeep.sweep().await,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "files could not be rearranged; it is tried again");
        }
    }
}
