//! What when the relay is full of what waits for the main cursor? All of it is dropped, and its tables are copied anew.

use tokio::sync::oneshot;

use super::Applier;
use crate::error::EtlResult;
use crate::failpoint;
use crate::lsn::{Lsn, Position};
use crate::relay::StartAt;
use crate::schema::TableId;

/// Asks the main cursor to give up what it has yet to read. No table may be on its way to join it.
#[derive(Debug)]
pub(in crate::pipeline) struct GiveUp {
    /// Answers with the tables that are to be copied, once no earlier write to them can come any more.
    pub(in crate::pipeline) answer: oneshot::Sender<Vec<TableId>>,
}

/// What was given up, until the destination knows it.
#[derive(Debug)]
pub(super) struct GivenUp {
    pub(super) tables: Vec<TableId>,
    /// Everything before is dropped.
    pub(super) end: Lsn,
    answer: oneshot::Sender<Vec<TableId>>,
}

impl Applier {
    /// Notes of each table that it is to be copied, then lets go of the relay. The destination is told as soon as it
    /// takes writes again: a write that it may still be busy with is refused from then on, because the main cursor
    /// has moved.
    pub(super) async fn give_up(&mut self, GiveUp { answer }: GiveUp) -> EtlResult<()> {
        let tables: Vec<TableId> = self.assembler.followed().collect();
        if tables.is_empty() || self.given_up.is_some() {
            // Whoever asked may be gone.
            let _ = answer.send(Vec::new());
            return Ok(());
        }
        for table in &tables {
            self.run.table_given_up(*table).await?;
            let table = self.run.name(*table);
            tracing::warn!(%table, "the relay is full: what waits for the table is dropped, and it is copied again");
        }
        failpoint::visit("relay.given_up").await?;
        for table in &tables {
            self.assembler.unfollow(*table);
        }
        if self.state.is_open() {
            // What the destination has of a transaction goes with the rest of it.
            self.recall_writes().await;
            self.state.restart(self.durable);
            self.pieces = 0;
        }
        let end = self.run.relay.head().end;
        self.stopped = None;
        self.reshaped.clear();
        self.reader.let_go();
        self.state.give_up(&tables, end);
        self.given_up = Some(GivenUp { tables, end, answer });
        Ok(())
    }

    /// The destination knows, and the cursor reads what comes from now on.
    pub(super) fn has_given_up(&mut self) -> EtlResult<()> {
        let last = self.run.relay.head().last.map_or(Lsn::ZERO, |last| last.commit);
        self.read_from(StartAt::Head)?;
        // Nobody wants what lies between: for the tables that will join, the cursor has passed it.
        self.durable = self.durable.max(Position::after(last));
        self.assembler.restart(self.durable);
        self.state.restart(self.durable);
        if let Some(GivenUp { tables, answer, .. }) = self.given_up.take() {
            // Whoever asked may be gone; the tables are copied by the next run then.
            let _ = answer.send(tables);
        }
        Ok(())
    }
}
