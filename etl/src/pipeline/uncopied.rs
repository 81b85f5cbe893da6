//! How does a table begin whose rows are not copied? Under a snapshot of which nothing is read: what it sees is taken to
//! be in the destination.

use super::run::Run;
use super::table::{CatchUp, Table};
use super::table_copy::{CopyOrder, Uncopied};
use crate::destination::{Batch, Destination};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::schema::TableId;
use crate::store::{CursorId, Phase, TableState};

impl Run {
    /// Whether what is in the table is copied.
    pub(super) fn copies(&self, id: TableId) -> EtlResult<bool> {
        Ok(self.source.transform.copies(&self.table(id)?.schema.name))
    }
}

impl Table {
    /// Nothing when the table is to rest. Until the end nothing is stored that another attempt would not do again.
    ///
    /// # Errors
    /// `SchemaChanged` where the table has begun before, and nobody wished that it begins anew.
    pub(super) async fn begin_uncopied(&mut self) -> EtlResult<Option<CatchUp>> {
        let (id, generation) = (self.id, self.run.states.get(self.id).generation + 1);
        if generation > 1 && !self.run.wished.has(id).await {
            return Err(refused());
        }
        loop {
            let cursor = self.fix_cursor().await?;
            let run = &self.run;
            run.set_phase(id, Phase::Copying { cursor, so_far: None }).await?;
            let (budget, leave) = (&self.budget, &self.leave);
            let snapshot =
                match (CopyOrder { run, id, generation, cursor, so_far: None, budget, leave }).pass_over().await? {
                    Uncopied::Seen(snapshot) => snapshot,
                    Uncopied::Rests => return Ok(None),
                    Uncopied::Changed => continue,
                };
            run.store.forget_cursor(CursorId::Table(id)).await?;
            run.store.forget_copy(id).await?;
            if run.destination.capabilities().atomic {
                let batch = Batch {
                    cursor: CursorId::Table(id),
                    from: cursor,
                    upto: cursor,
                    moves: Vec::new(),
                    is_piece: false,
                };
                run.destination.write_batch(batch, Vec::new()).await?;
            }
            let phase = Phase::CatchingUp { cursor, snapshot: snapshot.clone(), mixed: None };
            run.set_state(id, TableState { revision: 0, generation, phase }).await?;
            run.wished.remove(&run.store, id).await?;
            tracing::info!(table = %run.name(id), until = %snapshot.until, "the table is not copied: what is committed from here on is sent");
            return Ok(Some(CatchUp { from: cursor, cursor, snapshot, mixed: None, hold: self.hold.take() }));
        }
    }
}

fn refused() -> EtlError {
    EtlError::new(ErrorKind::SchemaChanged, "the table would have to be copied again, and is not to be copied (`copy: false`)")
        .hint(
            "Changes since it stopped are not sent. Make both sides equal, then `etl tables release` lets it go on with what is \
             committed from then on",
        )
}
