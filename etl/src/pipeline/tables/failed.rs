//! What becomes of a table that fails alone? It waits in quarantine, until its time or somebody's word.

use super::{Tables, held};
use crate::clock::{self, Timestamp};
use crate::error::EtlResult;
use crate::pipeline::apply::LeftFailed;
use crate::pipeline::table::Brought;
use crate::retry::pause;
use crate::schema::TableId;
use crate::store::Phase;

impl Tables {
    /// Takes over what keeps the changes of a table with which the main cursor parts.
    pub(super) async fn keep_failed(&mut self, LeftFailed { table, left }: LeftFailed) {
        // Nothing is said where the relay was given up meanwhile: the table is copied then.
        if let Ok(Ok(left)) = left.await {
            self.held.insert(table, left.into());
        }
    }

    /// The work on a table has ended by itself.
    pub(super) async fn brought(&mut self, id: TableId, brought: Brought) -> EtlResult<()> {
        let Brought::Failed(error, rest) = brought else { return Ok(()) };
        let (held, hold) = held(rest);
        self.run.quarantine(id, &error, held).await?;
        match hold {
            Some(hold) => drop(self.held.insert(id, hold)),
            None => self.run.own_cursor_closed(),
        }
        Ok(())
    }

    /// Tries a table in quarantine again.
    pub(super) async fn release(&mut self, id: TableId) -> EtlResult<()> {
        let Phase::Quarantined(why) = self.run.states.get(id).phase else { return Ok(()) };
        tracing::info!(table = %self.run.name(id), failures = why.failures, "the table is tried again");
        self.go_on(id, why.held).await
    }
}

/// Waits until the next table is to be tried again.
pub(super) async fn due(next: Option<(TableId, Timestamp)>) -> TableId {
    match next {
        Some((table, at)) => {
            pause(at.since(clock::now())).await;
            table
        }
        None => std::future::pending().await,
    }
}
