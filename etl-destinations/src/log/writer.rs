//! How does a change become a line? Table, change type and position, and the values that may be shown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use etl::data::decode::DecodeError;
use etl::data::{RawValue, TableRow};
use etl::destination::Capabilities;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::schema::TableId;
use etl::store::SharedStore;
use serde_json::{Map, Value};

use super::config::{LogConfig, Shown};
use crate::metadata_columns::ChangeType;
use crate::rowwise::{Stamp, stamped_rows};
use crate::table_destination::TableDestination;
use crate::table_rules::TableRules;
use crate::writer::{Step, TableBatch, TableWriter, TargetTable, WriteUnit};

/// Writes a line a change at the level `info`, under the target `etl::changes`.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    /// How many changes of each table there were.
    seen: Mutex<HashMap<TableId, u64>>,
}

impl Log {
    /// A destination that logs every change.
    ///
    /// # Errors
    /// `Config` for a write mode other than `append`, and for a line in none.
    pub fn open(config: LogConfig, store: SharedStore, rules: TableRules) -> EtlResult<TableDestination<Self>> {
        if config.one_in == 0 {
            return Err(
                EtlError::new(ErrorKind::Config, "`one_in` is 0").hint("1 logs every change, 100 one of a hundred")
            );
        }
        let rules = rules.only_append("log")?;
        Ok(TableDestination::new(Self { config, seen: Mutex::default() }, store, rules))
    }

    fn write(&self, TableBatch { table, rows }: &TableBatch) -> EtlResult<()> {
        for (row, stamp) in stamped_rows(rows)? {
            if self.is_due(table.id) {
                let values = self.values(table, row, stamp.change_type)?;
                let (table, change) = (&table.source.name, stamp.change_type.as_str());
                let Stamp { position, .. } = stamp;
                tracing::info!(
                    target: "etl::changes", %table, change, lsn = %position.commit, ordinal = position.ordinal,
                    at = stamp.time(), row = values, "change"
                );
            }
        }
        Ok(())
    }

    fn is_due(&self, table: TableId) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.entry(table).or_default();
        *seen += 1;
        (*seen - 1).is_multiple_of(self.config.one_in)
    }

    /// The row as JSON. What is not shown reads `***`; what an update did not send is left out.
    fn values(&self, table: &TargetTable, row: &TableRow, change: ChangeType) -> EtlResult<String> {
        let mut object = Map::new();
        for (place, name) in table.columns.iter().enumerate() {
            let value = match row.raw(place) {
                RawValue::Unchanged if change == ChangeType::Update => continue,
                RawValue::Unchanged => return Err(row.schema().value_error(place, DecodeError::Unchanged)),
                _ if !self.may_show(table, place) => Value::from("***"),
                RawValue::Null => Value::Null,
                _ => Value::from(row.text(place)?.map(String::from)),
            };
            object.insert(name.to_string(), value);
        }
        serde_json::to_string(&object).or_etl(ErrorKind::Internal, "write JSON")
    }

    fn may_show(&self, table: &TargetTable, place: usize) -> bool {
        let is_key = || table.source.key.iter().any(|column| usize::from(*column) == place);
        let shown = match self.config.show {
            Shown::None => false,
            Shown::Keys => is_key(),
            Shown::All => true,
        };
        let column = &table.source.columns[place].name;
        let is_secret = |patterns: &crate::table_rules::TablePatterns| {
            patterns.matches_text(&format!("{}.{column}", table.source.source_name()))
        };
        shown && !self.config.redact.as_ref().is_some_and(is_secret)
    }
}

impl TableWriter for Log {
    fn name(&self) -> &str {
        "log"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_schema_changes()
    }

    fn needs_all_values(&self) -> bool {
        false
    }

    async fn apply(&self, unit: WriteUnit) -> EtlResult<()> {
        for step in &unit.steps {
            match step {
                Step::Write(batch) => self.write(batch)?,
                Step::Alter(table, change) => {
                    let table = &table.source.name;
                    tracing::info!(target: "etl::changes", %table, %change, "the table's shape changed");
                }
                Step::Ensure(_) | Step::Fill(..) | Step::Truncate(_) => {}
            }
        }
        Ok(())
    }

    async fn reset(&self, table: &Arc<TargetTable>) -> EtlResult<()> {
        tracing::info!(target: "etl::changes", table = %table.source.name, "the table is copied anew");
        Ok(())
    }

    async fn check_connection(&self) -> EtlResult<()> {
        Ok(())
    }
}
