//! When does a destination make what would have slowed a table's copy? Once the table has all rows, before it joins.

use super::run::Run;
use super::table::{Table, told};
use crate::destination::Destination;
use crate::error::{EtlResult, RetryClass};
use crate::postgres::Session;
use crate::retry::RetryPolicy;
use crate::source::table_extras;

impl Table {
    /// Whether the table has what the source's has besides its rows; not where it is to rest, or something failed that
    /// passes.
    ///
    /// # Errors
    /// What trying again does not help against.
    pub(super) async fn complete(&self) -> EtlResult<bool> {
        let made = tokio::select! {
            made = self.run.complete(self) => made,
            () = told(self.leave.clone()) => return Ok(false),
        };
        match made {
            Ok(()) => Ok(true),
            Err(error) if error.retry_class() == RetryClass::Transient => {
                RetryPolicy::default().waits().after(error.with("table", self.run.name(self.id))).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl Run {
    async fn complete(&self, table: &Table) -> EtlResult<()> {
        let selection = self.selection(table.id)?;
        let session = Session::connect(&self.source.connect.for_purpose("tables")).await?;
        let extras = table_extras(session.client(), table.id, &selection).await?;
        self.destination.complete_table(table.id, extras).await
    }
}
