//! How do units reach the location? Encoded and uploaded side by side, counted one after the other.

use std::fmt;
use std::sync::Arc;

use etl::destination::{Capabilities, ValueLimits};
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::schema::Kind;
use etl::store::SharedStore;
use etl::{CursorId, Position};
use tokio::sync::OnceCell;

use super::config::ParquetConfig;
use super::encoding::Encoding;
use super::lake::Lake;
use super::manifest::Manifests;
use super::upkeep::Upkeep;
use crate::compacted::Compacted;
use crate::storage::Location;
use crate::table_destination::TableDestination;
use crate::table_name::{Case, NameRules};
use crate::table_rules::TableRules;
use crate::write_mode::WriteMode;
use crate::writer::{Replacement, Step, TableWriter, TargetTable, WriteUnit};

/// The fact of the store by which a location knows whose positions it holds.
const OWNER: &str = "destination.parquet";

/// Writes a log of all changes into Parquet files, exactly once, and makes current states of logs.
pub struct Parquet {
    config: ParquetConfig,
    encoding: Encoding,
    store: SharedStore,
    /// As they were given: what is written is a log whatever they say.
    rules: TableRules,
    open: OnceCell<Open>,
}

struct Open {
    lake: Arc<Lake>,
    upkeep: Arc<Upkeep>,
}

impl fmt::Debug for Parquet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parquet").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Parquet {
    /// A destination that writes every table below the location: a directory, which is made if it is missing, or a
    /// part of a bucket.
    ///
    /// # Errors
    /// As of [`with_config`](Self::with_config), and what the store says.
    pub async fn open(location: impl Into<String>, store: SharedStore) -> EtlResult<TableDestination<Self>> {
        let destination = Self::with_config(ParquetConfig::new(location), store, TableRules::default())?;
        destination.writer().opened().await?;
        Ok(destination)
    }

    /// A destination with these settings; the location is opened when it is first needed.
    ///
    /// # Errors
    /// `Config` for a size or a level that there is not.
    pub fn with_config(
        config: ParquetConfig,
        store: SharedStore,
        rules: TableRules,
    ) -> EtlResult<TableDestination<Self>> {
        let encoding = Encoding::new(&config)?;
        let (rules, logs) = (with_append_by_default(rules.clone()), as_logs(rules));
        let writer = Self { config, encoding, store: Arc::clone(&store), rules, open: OnceCell::new() };
        Ok(TableDestination::new(writer, store, logs))
    }

    /// Brings the current states of all tables in `upsert` and `soft_delete` up to date, now.
    ///
    /// # Errors
    /// What the store says, and `SchemaChanged` where values of before have no place in a table's new shape.
    pub async fn compact(&self) -> EtlResult<Vec<Compacted>> {
        let upkeep = Arc::clone(&self.opened().await?.upkeep);
        self.run(async move { upkeep.compact().await }).await
    }

    /// As [`compact`](Self::compact), beside a pipeline that may be writing there at the same time: nothing is taken over,
    /// and neither undoes what the other one does.
    ///
    /// # Errors
    /// `Config` where nothing has been written; `Locked` where a pipeline has started meanwhile; else as there.
    pub async fn compact_beside(config: ParquetConfig, rules: TableRules) -> EtlResult<Vec<Compacted>> {
        let encoding = Encoding::new(&config)?;
        let Some(lake) = Lake::visit(&config, encoding).await? else {
            return Err(EtlError::new(ErrorKind::Config, "no pipeline has written there yet")
                .with("location", &config.location)
                .hint("Look at `location`, or begin with `etl run`"));
        };
        Upkeep::on_request(Arc::new(lake), with_append_by_default(rules), &config).compact().await
    }

    /// Merges small files of the logs, now; says how many.
    ///
    /// # Errors
    /// What the store says.
    pub async fn merge(&self) -> EtlResult<usize> {
        let upkeep = Arc::clone(&self.opened().await?.upkeep);
        self.run(async move { upkeep.merge().await }).await
    }

    async fn opened(&self) -> EtlResult<&Open> {
        self.open.get_or_try_init(|| self.open_lake()).await
    }

    async fn lake(&self) -> EtlResult<Arc<Lake>> {
        Ok(Arc::clone(&self.opened().await?.lake))
    }

    /// That a table can have what its write mode asks for.
    fn expect_foldable(&self, table: &TargetTable) -> EtlResult<()> {
        let name = table.source.source_name();
        let failed = |kind, message| {
            Err(EtlError::new(kind, message).of_table(table.id).with("table", name).hint("Write it as `append`"))
        };
        let is_compared = || table.source.columns.iter().all(|column| is_comparable(&column.kind));
        match self.rules.of(name).write_mode {
            WriteMode::Append => Ok(()),
            _ if table.metadata.is_none() => {
                failed(ErrorKind::Config, "a log without metadata columns has no current state")
            }
            _ if !table.source.has_key() && !is_compared() => failed(
                ErrorKind::DestinationUnsupported,
                "rows without a key are not compared by an hstore within a value",
            ),
            _ => Ok(()),
        }
    }

    fn expect_all_foldable(&self, unit: &WriteUnit) -> EtlResult<()> {
        unit.steps.iter().try_for_each(|step| match step {
            Step::Ensure(table) | Step::Alter(table, _) => self.expect_foldable(table),
            _ => Ok(()),
        })
    }

    async fn open_lake(&self) -> EtlResult<Open> {
        let known = self.store.fact(OWNER).await?;
        let is_known = known.is_some();
        let lake = Lake::open(&self.config, self.encoding.clone(), known).await?;
        if !is_known {
            self.store.set_fact(OWNER, lake.owner().to_owned()).await?;
        }
        let lake = Arc::new(lake);
        let upkeep = Upkeep::new(Arc::clone(&lake), self.rules.clone(), &self.config);
        Ok(Open { lake, upkeep })
    }

    /// Does the work to its end even where nobody waits for it any more: what it has begun would be in the way.
    async fn run<T: Send + 'static>(&self, work: impl Future<Output = EtlResult<T>> + Send + 'static) -> EtlResult<T> {
        tokio::spawn(work).await.or_etl(ErrorKind::Internal, "wait for the store")?
    }
}

/// Whether rows can be compared by such a value: a map is compared as a list, but not within another value.
fn is_comparable(kind: &Kind) -> bool {
    let has_no_map = |kind: &Kind| *kind != Kind::Hstore && is_comparable(kind);
    match kind {
        Kind::Array(element) | Kind::Range(element) | Kind::Multirange(element) => has_no_map(element),
        Kind::Composite(attributes) => attributes.iter().all(|attribute| has_no_map(&attribute.kind)),
        _ => true,
    }
}

/// Whatever is asked for begins as a log.
fn as_logs(mut rules: TableRules) -> TableRules {
    rules.defaults.write_mode = Some(WriteMode::Append);
    rules.rules.iter_mut().for_each(|rule| rule.write_mode = rule.write_mode.map(|_| WriteMode::Append));
    rules
}

fn with_append_by_default(mut rules: TableRules) -> TableRules {
    rules.defaults.write_mode.get_or_insert(WriteMode::Append);
    rules
}

impl TableWriter for Parquet {
    fn name(&self) -> &str {
        "parquet"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_atomic().with_schema_changes().with_staged_runs().with_whole_runs()
    }

    fn name_rules(&self) -> NameRules {
        // Some file systems and most readers do not tell upper from lower case, and 255 bytes are what most can hold.
        NameRules { case: Case::Ignored, longest: 80, ..NameRules::default() }
    }

    fn value_limits(&self) -> ValueLimits {
        self.encoding.limits().values()
    }

    /// `_UNCHANGED` names what was not sent.
    fn needs_all_values(&self) -> bool {
        false
    }

    async fn apply(&self, unit: WriteUnit) -> EtlResult<()> {
        self.expect_all_foldable(&unit)?;
        let lake = self.lake().await?;
        let begun = unit.chunk.map(|(table, _)| lake.times_emptied(table));
        self.run(lake.apply(unit, begun)).await
    }

    async fn reset(&self, table: &Arc<TargetTable>) -> EtlResult<()> {
        let lake = self.lake().await?;
        self.run(lake.reset(table.id)).await
    }

    async fn begin_run(&self, run: &str, _tables: &[Replacement]) -> EtlResult<()> {
        let (lake, run) = (self.lake().await?, run.to_owned());
        self.run(async move { lake.begin_run(&run).await }).await
    }

    async fn stage(&self, run: &str, unit: WriteUnit) -> EtlResult<()> {
        self.expect_all_foldable(&unit)?;
        let (lake, run) = (self.lake().await?, run.to_owned());
        self.run(async move { lake.stage(&run, unit).await }).await
    }

    async fn publish(&self, run: &str, tables: &[Replacement]) -> EtlResult<()> {
        let upkeep = Arc::clone(&self.opened().await?.upkeep);
        let (run, tables) = (run.to_owned(), tables.to_vec());
        self.run(async move { upkeep.publish(&run, &tables).await }).await
    }

    async fn abandon_run(&self, run: &str, _tables: &[Replacement]) -> EtlResult<()> {
        let (lake, run) = (self.lake().await?, run.to_owned());
        self.run(async move { lake.abandon_run(&run).await }).await
    }

    async fn check_connection(&self) -> EtlResult<()> {
        if self.open.get().is_some() {
            return Ok(());
        }
        if let Some(directory) = Location::directory_of(&self.config.location).filter(|path| !path.exists()) {
            let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
            return match parent {
                Some(parent) if !parent.is_dir() => {
                    Err(EtlError::new(ErrorKind::Config, "the directory that is to hold the files has no place")
                        .with("missing", parent.display())
                        .hint("Make it, or give another `location`"))
                }
                _ => Ok(()),
            };
        }
        let location = Location::look(&self.config.location, &self.config.options)?;
        Manifests::look(&location).await?;
        location.try_write().await
    }

    async fn startup(&self) -> EtlResult<()> {
        self.opened().await.map(drop)
    }

    async fn shutdown(&self) -> EtlResult<()> {
        if let Some(open) = self.open.get() {
            open.lake.take_back().await;
        }
        if self.config.compact.at_end {
            self.compact().await?;
        }
        Ok(())
    }

    async fn go_back(&self, to: Position) -> EtlResult<()> {
        self.lake().await?.go_back(to).await
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        Ok(self.lake().await?.position(cursor).await)
    }
}
