//! Whose backlog is dropped when the relay is at its limit? The one of the slowest cursor, once it moves no more.

use tokio::sync::oneshot;

use super::{TICK, Tables, over};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::failpoint;
use crate::pipeline::apply::{GiveUp, MainRequest};
use crate::pipeline::run::Run;
use crate::pipeline::settings::Ack;
use crate::relay::AtLimit;
use crate::retry::pause;
use crate::schema::TableId;
use crate::store::{CursorId, Phase};

impl Run {
    /// Returns once the relay has been at its limit for a while, with the cursor that holds the most of it. One that
    /// moves makes room by itself.
    pub(super) async fn stuck(&self) -> CursorId {
        if self.settings.relay.at_limit != AtLimit::Resync {
            return std::future::pending().await;
        }
        loop {
            self.relay.crowded().await;
            let before = self.relay.slowest();
            pause(TICK).await;
            match before {
                Some((cursor, _)) if self.relay.is_crowded() && before == self.relay.slowest() => return cursor,
                _ => {}
            }
        }
    }
}

impl Tables {
    /// Drops what waits for the cursor, where that helps: its tables are copied anew.
    pub(super) async fn make_room(&mut self, slowest: CursorId) -> EtlResult<()> {
        match slowest {
            CursorId::Table(id) if self.held.contains_key(&id) => self.drop_held(id).await,
            CursorId::Table(id) if self.at_work.contains_key(&id) => {
                self.show_dropped(id, "Its copy begins anew");
                self.resync(id, self.run.states.get(id).phase).await
            }
            // Otherwise the source keeps what the destination does not have, and dropping it would win nothing.
            CursorId::Main if self.run.settings.ack == Ack::Relay && self.at_work.is_empty() => self.drop_all().await,
            _ => Ok(()),
        }
    }

    /// The table goes on waiting.
    async fn drop_held(&mut self, id: TableId) -> EtlResult<()> {
        self.begin_anew(id).await?;
        self.show_dropped(id, "It is copied anew once it goes on");
        failpoint::visit("relay.given_up").await?;
        self.let_go(id).await
    }

    /// What waits for a waiting table is of no use. Stored first, so that a crash does not forget it.
    async fn begin_anew(&self, id: TableId) -> EtlResult<()> {
        self.run.set_phase(id, self.run.states.get(id).phase.begun_anew()).await
    }

    /// A waiting table is copied anew once it goes on.
    pub(super) async fn forget_held(&mut self, id: TableId) -> EtlResult<()> {
        self.begin_anew(id).await?;
        if self.held.contains_key(&id) { self.let_go(id).await } else { Ok(()) }
    }

    async fn let_go(&mut self, id: TableId) -> EtlResult<()> {
        let run = &self.run;
        run.store.forget_cursor(CursorId::Table(id)).await?;
        run.board.forget_meter(CursorId::Table(id));
        if let Some(hold) = self.held.remove(&id) {
            hold.leave();
        }
        self.run.own_cursor_closed();
        Ok(())
    }

    fn show_dropped(&self, id: TableId, hint: &'static str) {
        let dropped = EtlError::new(ErrorKind::Relay, "the relay was full: what waited for the table is dropped")
            .with("table", self.run.name(id))
            .hint(hint);
        let dropped = match self.run.states.get(id).phase {
            Phase::Quarantined(why) => dropped.with("failed before", why.reason),
            _ => dropped,
        };
        tracing::warn!("{dropped}");
        self.run.board.table_failed(id, &dropped);
    }

    /// The main cursor lets go of everything; its tables are copied once the destination is back.
    async fn drop_all(&mut self) -> EtlResult<()> {
        let (answer, answered) = oneshot::channel();
        self.run.requests.send(MainRequest::GiveUp(GiveUp { answer })).await.map_err(|_| over())?;
        for table in answered.await.map_err(|_| over())? {
            self.copy(table).await?;
        }
        Ok(())
    }
}
