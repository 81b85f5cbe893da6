//! How fast is everything else? A destination that drops what it gets, for measuring the source's side.

use etl::data::{Event, TableRow};
use etl::destination::Destination;
use etl::error::EtlResult;
use etl::schema::TableId;

mod config;

pub use config::NullConfig;

/// Drops rows and events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Null;

impl Destination for Null {
    async fn truncate_table(&self, _table_id: TableId) -> EtlResult<()> {
        Ok(())
    }

    async fn write_table_rows(&self, _table_id: TableId, table_rows: Vec<TableRow>) -> EtlResult<()> {
        drop(table_rows);
        Ok(())
    }

    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        drop(events);
        Ok(())
    }

    fn name(&self) -> &'static str {
        "null"
    }
}
