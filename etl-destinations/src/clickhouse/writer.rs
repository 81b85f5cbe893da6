//! How is ClickHouse written to? Unit by unit, by work that goes on when nobody waits for it any more.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use etl::destination::{Capabilities, ValueLimits};
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::schema::{TableId, TableName};
use etl::store::{Phase, SharedStore};
use tokio::sync::OnceCell;

use super::arrow_rows::LIMITS;
use super::config::ClickHouseConfig;
use super::gates::Gates;
use super::places::Places;
use super::server::{Server, text};
use super::unit;
use crate::table_destination::TableDestination;
use crate::table_name::NameRules;
use crate::table_rules::{Metadata, TableRules};
use crate::write_mode::WriteMode;
use crate::writer::{Step, TableBatch, TableWriter, TargetTable, Truncated, WriteUnit};

/// The fact of the store by which a server knows whose tables it holds.
const OWNER: &str = "destination.clickhouse";

/// The oldest version that has all that is used.
const OLDEST: (u32, u32) = (23, 8);

/// Writes tables into a ClickHouse server.
pub struct ClickHouse(Arc<Inner>);

struct Inner {
    server: Server,
    gates: Gates,
    database_prefix: String,
    view_suffix: String,
    store: SharedStore,
    /// Known once the server was reached.
    owner: OnceCell<String>,
}

impl fmt::Debug for ClickHouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClickHouse").field("server", &self.0.server.address()).finish_non_exhaustive()
    }
}

impl ClickHouse {
    /// A destination that writes every table as `upsert` to the server at the URL.
    ///
    /// # Errors
    /// `Config` when the URL is none; `DestinationUnavailable` when the server does not answer.
    pub async fn open(url: &str, store: SharedStore) -> EtlResult<TableDestination<Self>> {
        let destination = Self::with_config(ClickHouseConfig::new(url), store, TableRules::default())?;
        destination.writer().0.owner().await?;
        Ok(destination)
    }

    /// A destination with these settings; the server is called when it is first needed.
    ///
    /// # Errors
    /// `Config` when the URL is none, and where a current state is to be written without metadata columns.
    pub fn with_config(
        config: ClickHouseConfig,
        store: SharedStore,
        rules: TableRules,
    ) -> EtlResult<TableDestination<Self>> {
        expect_metadata(&rules)?;
        let inner = Inner {
            server: Server::new(&config)?,
            gates: Gates::default(),
            database_prefix: config.database_prefix,
            view_suffix: config.view_suffix,
            store: Arc::clone(&store),
            owner: OnceCell::new(),
        };
        Ok(TableDestination::new(Self(Arc::new(inner)), store, rules))
    }

    /// Does the work to its end, even if nobody waits for it: whoever comes next finds what it has written.
    async fn to_the_end<F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> EtlResult<()>
    where
        F: Future<Output = EtlResult<()>> + Send + 'static,
    {
        let done = tokio::spawn(work(Arc::clone(&self.0))).await.or_etl(ErrorKind::Internal, "wait for ClickHouse")?;
        done.map_err(|error| self.0.at(error))
    }
}

/// That every rule that leaves the metadata columns out is about a log. A table's own settings are looked at again once it
/// is made.
fn expect_metadata(rules: &TableRules) -> EtlResult<()> {
    let default = rules.defaults.write_mode.unwrap_or_default();
    let settings = std::iter::once((&rules.defaults.metadata, default))
        .chain(rules.rules.iter().map(|rule| (&rule.metadata, rule.write_mode.unwrap_or(default))));
    for (metadata, mode) in settings {
        let is_log =
            mode == WriteMode::Append || rules.rules.iter().any(|rule| rule.write_mode == Some(WriteMode::Append));
        if *metadata == Some(Metadata::Off) && !is_log {
            return Err(EtlError::new(
                ErrorKind::Config,
                "ClickHouse needs the metadata columns to tell which of two rows is the newer",
            )
            .with("write_mode", "upsert or soft_delete")
            .hint("Leave `metadata` on, or write such tables as logs (`write_mode: append`)"));
        }
    }
    Ok(())
}

impl Inner {
    /// The name by which this pipeline's tables are known.
    async fn owner(&self) -> EtlResult<&str> {
        let made = self.owner.get_or_try_init(async || {
            if let Some(known) = self.store.fact(OWNER).await? {
                return Ok(known);
            }
            let rows = self.server.rows("SELECT toString(generateUUIDv4())", "make a name").await?;
            let first = rows.first().ok_or_else(|| EtlError::new(ErrorKind::Internal, "ClickHouse made no name"))?;
            let owner = text(first, 0)?.to_owned();
            self.store.set_fact(OWNER, owner.clone()).await?;
            Ok::<_, EtlError>(owner)
        });
        Ok(made.await?)
    }

    /// Tables that are gone at the source, or not published any more.
    async fn gone(&self) -> EtlResult<HashSet<TableId>> {
        let states = self.store.table_states().await?;
        Ok(states.into_iter().filter(|(_, state)| state.phase == Phase::Removed).map(|(id, _)| id).collect())
    }

    async fn apply(&self, unit: WriteUnit, begun: Option<u64>) -> EtlResult<()> {
        let owner = self.owner().await?;
        let unit = self.placed(unit);
        let mut held = self.gates.hold(&unit).await;
        if unit.chunk.map(|(table, _)| self.gates.of(table).times_emptied()) != begun {
            let message = "the table is copied anew: this chunk belongs to the copy before";
            return Err(EtlError::new(ErrorKind::Cancelled, message));
        }
        let shapes = unit.steps.iter().any(|step| matches!(step, Step::Ensure(_) | Step::Alter(..)));
        let gone = if shapes { self.gone().await? } else { HashSet::new() };
        let done = unit::apply(&self.places(owner, &gone), &unit, &mut held).await;
        if done.is_err() {
            held.forget();
        }
        done
    }

    async fn reset(&self, table: &Arc<TargetTable>) -> EtlResult<()> {
        let (owner, gone) = (self.owner().await?, self.gone().await?);
        let gate = self.gates.of(table.id);
        gate.is_emptied();
        let mut known = gate.alone().await;
        known.reached = None;
        unit::reset(&self.places(owner, &gone), &self.in_database(table)).await
    }

    fn places<'a>(&'a self, owner: &'a str, gone: &'a HashSet<TableId>) -> Places<'a> {
        Places { server: &self.server, gates: &self.gates, owner, view_suffix: &self.view_suffix, gone }
    }

    /// The table in the database that it belongs into.
    fn in_database(&self, table: &Arc<TargetTable>) -> Arc<TargetTable> {
        if self.database_prefix.is_empty() {
            return Arc::clone(table);
        }
        let schema = format!("{}{}", self.database_prefix, table.name.schema);
        let name = TableName::new(schema, table.name.name.clone());
        Arc::new(TargetTable { name, ..TargetTable::clone(table) })
    }

    /// The unit, with its tables in their databases.
    fn placed(&self, mut unit: WriteUnit) -> WriteUnit {
        let step = |step: Step| match step {
            Step::Ensure(table) => Step::Ensure(self.in_database(&table)),
            Step::Alter(table, change) => Step::Alter(self.in_database(&table), change),
            Step::Fill(table, columns) => Step::Fill(self.in_database(&table), columns),
            Step::Truncate(tables) => {
                let placed =
                    |truncated: Truncated| Truncated { table: self.in_database(&truncated.table), ..truncated };
                Step::Truncate(tables.into_iter().map(placed).collect())
            }
            Step::Write(TableBatch { table, rows }) => {
                Step::Write(TableBatch { table: self.in_database(&table), rows })
            }
        };
        unit.steps = unit.steps.into_iter().map(step).collect();
        unit
    }

    fn at(&self, error: EtlError) -> EtlError {
        match error.context("server") {
            Some(_) => error,
            None => error.with("server", self.server.address()),
        }
    }

    async fn check(&self) -> EtlResult<()> {
        let rows = self.server.rows("SELECT version()", "be reached").await?;
        let version = rows.first().map_or(Ok(""), |row| text(row, 0))?;
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
        let found = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        if found < OLDEST {
            return Err(EtlError::new(ErrorKind::DestinationUnsupported, "the server is too old")
                .with("version", version)
                .hint(format!("ClickHouse {}.{} or newer is needed", OLDEST.0, OLDEST.1)));
        }
        Ok(())
    }
}

/// What a character takes in the names of ClickHouse's files, of which a database and a table with an id make one.
fn width(character: char) -> usize {
    if character.is_ascii_alphanumeric() || character == '_' { 1 } else { 3 * character.len_utf8() }
}

impl TableWriter for ClickHouse {
    fn name(&self) -> &str {
        "clickhouse"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_schema_changes()
    }

    fn name_rules(&self) -> NameRules {
        NameRules { longest: 90, width, ..NameRules::default() }
    }

    fn value_limits(&self) -> ValueLimits {
        LIMITS.values()
    }

    /// A row that comes is a row, and one that goes is another: what is there already is told by their positions.
    fn keeps_every_change(&self) -> bool {
        true
    }

    async fn apply(&self, unit: WriteUnit) -> EtlResult<()> {
        let begun = unit.chunk.map(|(table, _)| self.0.gates.of(table).times_emptied());
        self.to_the_end(|inner| async move { inner.apply(unit, begun).await }).await
    }

    async fn reset(&self, table: &Arc<TargetTable>) -> EtlResult<()> {
        let table = Arc::clone(table);
        self.to_the_end(|inner| async move { inner.reset(&table).await }).await
    }

    async fn check_connection(&self) -> EtlResult<()> {
        self.0.check().await.map_err(|error| self.0.at(error))
    }

    async fn startup(&self) -> EtlResult<()> {
        self.0.owner().await.map(drop).map_err(|error| self.0.at(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table_rules::RuleSettings;

    #[test]
    fn a_current_state_without_metadata_columns_is_refused_before_anything_is_written() {
        let rules = |write_mode| TableRules {
            defaults: RuleSettings { metadata: Some(Metadata::Off), write_mode, ..RuleSettings::default() },
            rules: Vec::new(),
        };
        for (mode, is_taken) in [
            (None, false),
            (Some(WriteMode::Upsert), false),
            (Some(WriteMode::SoftDelete), false),
            (Some(WriteMode::Append), true),
        ] {
            assert_eq!(expect_metadata(&rules(mode)).is_ok(), is_taken, "{mode:?}");
        }
    }

    #[test]
    fn long_names_are_cut_by_what_files_are_called() {
        let rules = NameRules { longest: 90, width, ..NameRules::default() };
        let ascii = "x".repeat(63);
        assert_eq!(&*rules.map(&ascii), ascii);
        assert_eq!(rules.map(&"ü".repeat(31)).chars().count(), 15);
    }
}
