//! Who brings the tables to the main cursor, and takes them away from it? One task, which also hears what people wish.

mod failed;
mod renamed;
mod room;
mod watched;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use self::failed::due;
use super::apply::{Leave, LeaveRequest, Left, LeftChanged, LeftFailed, MainRequest};
use super::control::Stop;
use super::memory_budget::CopyBudget;
use super::run::Run;
use super::table::{Brought, Kept, Rest, Table};
use super::table_state::Begin;
use super::watch::Told;
use crate::destination::Destination;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::relay::Reader;
use crate::schema::TableId;
use crate::store::{CursorId, Held, Phase, SnapshotFilter};

/// How often it is shown what tables that wait have yet to read.
const TICK: Duration = Duration::from_secs(1);

/// What somebody wishes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Pause,
    Resume,
    Release,
    Resync,
}

/// A wish, and who waits for it.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) table: TableId,
    pub(super) wish: Wish,
    pub(super) answer: oneshot::Sender<EtlResult<()>>,
}

/// What the task wakes up for.
enum News {
    /// The work on a table has ended.
    Brought(TableId, Brought),
    Order(Order),
    /// Something has happened to tables at the source.
    Told(Told),
    /// A table looks different, and leaves the main cursor.
    Changed(LeftChanged),
    /// A table failed, and leaves the main cursor.
    Failed(LeftFailed),
    /// A table in quarantine has waited for long enough.
    Retry(TableId),
    /// The relay is at its limit, and this cursor holds the most of it.
    Stuck(CursorId),
    Tick,
}

/// The tables that have a cursor of their own.
pub(super) struct Tables {
    run: Arc<Run>,
    budget: CopyBudget,
    /// How many tables are copied at a time.
    turns: Arc<Semaphore>,
    orders: mpsc::Receiver<Order>,
    told: mpsc::Receiver<Told>,
    changed: mpsc::UnboundedReceiver<LeftChanged>,
    failed: mpsc::UnboundedReceiver<LeftFailed>,
    tasks: JoinSet<(TableId, EtlResult<Brought>)>,
    /// Tells each of them to let its table rest.
    at_work: HashMap<TableId, watch::Sender<bool>>,
    /// Keeps in the relay what tables that wait have yet to read.
    held: HashMap<TableId, Kept>,
}

impl Tables {
    pub(super) fn new(
        run: &Arc<Run>,
        orders: mpsc::Receiver<Order>,
        told: mpsc::Receiver<Told>,
        changed: mpsc::UnboundedReceiver<LeftChanged>,
        failed: mpsc::UnboundedReceiver<LeftFailed>,
    ) -> Self {
        let copy = &run.settings.copy;
        let workers = copy.tables_in_parallel * copy.connections_per_table;
        Self {
            budget: CopyBudget::new(&run.board.memory, workers),
            turns: Arc::new(Semaphore::new(copy.tables_in_parallel)),
            orders,
            told,
            changed,
            failed,
            tasks: JoinSet::new(),
            at_work: HashMap::new(),
            held: HashMap::new(),
            run: Arc::clone(run),
        }
    }

    /// Sets a table to what was decided about it at the start.
    pub(super) fn begin(&mut self, id: TableId, begin: Begin, hold: Option<Reader>) {
        if begin.has_own_cursor() {
            self.run.own_cursor_opened();
        }
        match begin {
            Begin::Share { .. } | Begin::Rest => {}
            Begin::Wait => self.held.extend(hold.map(|hold| (id, hold.into()))),
            Begin::Copy { .. } | Begin::Resume | Begin::CatchUp { .. } => self.spawn(id, begin, hold.map(Kept::from)),
        }
    }

    fn spawn(&mut self, id: TableId, begin: Begin, kept: Option<Kept>) {
        let (told, leave) = watch::channel(false);
        let (budget, turns) = (self.budget.clone(), Arc::clone(&self.turns));
        let (hold, selection) = kept.map_or((None, None), |kept| (Some(kept.reader), kept.selection));
        let table = Table { run: Arc::clone(&self.run), id, budget, turns, hold, selection, leave };
        self.at_work.insert(id, told);
        self.tasks.spawn(Box::pin(async move { (id, table.bring(begin).await) }));
    }

    /// Works until the pipeline ends; then lets every table rest.
    ///
    /// # Errors
    /// The first one of a table.
    pub(super) async fn work(mut self) -> EtlResult<()> {
        let run = Arc::clone(&self.run);
        let (mut stop, mut ends) = (run.stop.subscribe(), run.stop.subscribe());
        let mut stuck = Box::pin(run.stuck());
        loop {
            let news = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop != Stop::No) => break,
                Some(ended) = self.tasks.join_next() => {
                    let (id, brought) = self.ended(ended)?;
                    News::Brought(id, brought)
                }
                Some(failed) = self.failed.recv() => News::Failed(failed),
                Some(changed) = self.changed.recv() => News::Changed(changed),
                Some(told) = self.told.recv() => News::Told(told),
                order = next_order(&mut self.orders) => News::Order(order),
                slowest = &mut stuck => News::Stuck(slowest),
                due = due(run.states.next_retry()) => News::Retry(due),
                () = crate::retry::pause(TICK), if !self.held.is_empty() => News::Tick,
            };
            let was_stuck = matches!(news, News::Stuck(_));
            tokio::select! {
                done = Box::pin(self.attend(news)) => done?,
                _ = ends.wait_for(|stop| *stop != Stop::No) => {}
            }
            if was_stuck {
                stuck.set(run.stuck());
            }
            self.show_held();
        }
        for told in self.at_work.values() {
            told.send_replace(true);
        }
        loop {
            let ended = tokio::select! {
                ended = self.tasks.join_next() => ended,
                _ = ends.wait_for(|stop| *stop == Stop::Abort) => break,
            };
            match ended {
                Some(ended) => {
                    let (id, brought) = self.ended(ended)?;
                    self.brought(id, brought).await?;
                }
                None => return Ok(()),
            }
        }
        // A destination that never answers would hold them for ever.
        self.tasks.shutdown().await;
        Err(over())
    }

    async fn attend(&mut self, news: News) -> EtlResult<()> {
        match news {
            News::Brought(id, brought) => self.brought(id, brought).await,
            News::Order(order) => {
                let done = self.obey(order.table, order.wish).await;
                // Whoever asked may be gone.
                let _ = order.answer.send(done);
                Ok(())
            }
            News::Told(Told { finding, answer }) => {
                let done = self.heed(finding).await;
                // Nobody waits any more when the pipeline ends.
                let _ = answer.send(done);
                Ok(())
            }
            News::Changed(changed) => self.copy_changed(changed).await,
            News::Failed(failed) => {
                self.keep_failed(failed).await;
                Ok(())
            }
            News::Retry(id) => self.release(id).await,
            News::Stuck(slowest) => self.make_room(slowest).await,
            News::Tick => Ok(()),
        }
    }

    fn show_held(&self) {
        for (id, kept) in &self.held {
            self.run.board.meter(CursorId::Table(*id)).show(None, 0, kept.reader.behind());
        }
    }

    fn ended(&mut self, ended: Result<(TableId, EtlResult<Brought>), JoinError>) -> EtlResult<(TableId, Brought)> {
        let (id, brought) =
            ended.map_err(|e| EtlError::new(ErrorKind::Internal, "the work on a table was cut short").because(e))?;
        self.at_work.remove(&id);
        brought.map(|brought| (id, brought))
    }

    async fn obey(&mut self, id: TableId, wish: Wish) -> EtlResult<()> {
        self.run.table(id).map_err(|_| {
            EtlError::new(ErrorKind::Config, "no such table is published")
                .with("table", id)
                .hint("See `etl tables list`")
        })?;
        match (wish, self.run.states.get(id).phase) {
            (Wish::Pause, Phase::Paused(_)) => Ok(()),
            (Wish::Pause, Phase::Quarantined(why)) => self.run.set_phase(id, Phase::Paused(why.held)).await,
            (Wish::Pause, _) => self.pause(id).await,
            (Wish::Resume, Phase::Paused(held)) => self.go_on(id, held).await,
            (Wish::Resume, phase) => Err(self.refused(id, &phase, "the table is not paused")),
            (Wish::Release, Phase::Quarantined(why)) => {
                if why.kind == ErrorKind::SchemaChanged.name() {
                    self.run.wished.add(&self.run.store, id).await?;
                }
                self.release(id).await
            }
            (Wish::Release, phase) => Err(self.refused(id, &phase, "the table is not in quarantine")),
            (Wish::Resync, phase) => {
                self.run.wished.add(&self.run.store, id).await?;
                self.resync(id, phase).await
            }
        }
    }

    fn refused(&self, id: TableId, phase: &Phase, why: &'static str) -> EtlError {
        EtlError::new(ErrorKind::Config, why).with("table", self.run.name(id)).with("phase", phase.name())
    }

    async fn pause(&mut self, id: TableId) -> EtlResult<()> {
        let hold = match self.call_back(id).await? {
            Brought::Joined => self.leave_main(id, Leave::Pause).await?.into(),
            Brought::Rests(rest) | Brought::Failed(_, rest) => {
                let (held, hold) = held(rest);
                self.run.set_phase(id, Phase::Paused(held)).await?;
                let Some(hold) = hold else {
                    self.run.own_cursor_closed();
                    return Ok(());
                };
                hold
            }
            Brought::Ended => return Err(over()),
        };
        self.held.insert(id, hold);
        tracing::info!(table = %self.run.name(id), "the table is paused: its changes wait in the relay");
        Ok(())
    }

    /// Lets a table that waits go on with what is held for it.
    async fn go_on(&mut self, id: TableId, held: Held) -> EtlResult<()> {
        let Held { cursor, snapshot, mixed, so_far } = held;
        let own = self.run.store.progress().await?.cursor(CursorId::Table(id));
        let own = self.run.destination_position(CursorId::Table(id)).await?.or(own);
        // One that stores positions has at least the one that the copy began with.
        let own = own.or(cursor.filter(|_| !self.run.destination.capabilities().atomic));
        match (cursor, so_far, own, self.held.remove(&id)) {
            (Some(cursor), Some(so_far), _, Some(hold)) => {
                self.run.set_phase(id, Phase::Copying { cursor, so_far: Some(so_far) }).await?;
                self.spawn(id, Begin::Resume, Some(hold));
            }
            (Some(_), None, Some(from), Some(hold)) => {
                let snapshot = snapshot.unwrap_or_else(SnapshotFilter::nothing);
                let phase = Phase::CatchingUp { cursor: from, snapshot: snapshot.clone(), mixed };
                self.run.set_phase(id, phase).await?;
                tracing::info!(table = %self.run.name(id), %from, "the table goes on");
                self.spawn(id, Begin::CatchUp { from, cursor: from, snapshot, mixed }, Some(hold));
            }
            (_, _, _, hold) => {
                if let Some(hold) = hold {
                    hold.leave();
                } else {
                    self.run.own_cursor_opened();
                }
                self.copy(id).await?;
            }
        }
        Ok(())
    }

    async fn resync(&mut self, id: TableId, phase: Phase) -> EtlResult<()> {
        let hold = match (phase, self.held.remove(&id)) {
            (_, Some(hold)) => Some(hold),
            (Phase::Paused(_) | Phase::Quarantined(_), None) => {
                self.run.own_cursor_opened();
                None
            }
            _ => match self.call_back(id).await? {
                Brought::Joined => Some(self.leave_main(id, Leave::Resync).await?.into()),
                Brought::Rests(rest) | Brought::Failed(_, rest) => held(rest).1,
                Brought::Ended => return Err(over()),
            },
        };
        self.copy(id).await?;
        // Stored first: what is dropped here, nobody needs any more.
        if let Some(hold) = hold {
            hold.leave();
        }
        Ok(())
    }

    /// Copies a table as it is now, once it has left the main cursor.
    async fn copy_changed(&mut self, LeftChanged { changed, left }: LeftChanged) -> EtlResult<()> {
        // Nothing is said where the relay was given up meanwhile: the table is copied then too.
        let Ok(Ok(left)) = left.await else { return Ok(()) };
        self.run.show_changed(&changed);
        self.copy(changed.table).await?;
        left.hold.leave();
        Ok(())
    }

    /// The table has a cursor of its own, and is copied.
    async fn copy(&mut self, id: TableId) -> EtlResult<()> {
        // From here on a restart copies it too.
        self.run.set_phase(id, Phase::Pending).await?;
        self.run.board.forget_meter(CursorId::Table(id));
        tracing::info!(table = %self.run.name(id), "the table is copied anew");
        self.spawn(id, Begin::Copy { generation: self.run.states.get(id).generation + 1 }, None);
        Ok(())
    }

    /// Stops the work on a table; one without shares the main cursor.
    async fn call_back(&mut self, id: TableId) -> EtlResult<Brought> {
        let Some(told) = self.at_work.get(&id) else { return Ok(Brought::Joined) };
        told.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            let (ended, brought) = self.ended(ended)?;
            if ended == id {
                return Ok(brought);
            }
            self.brought(ended, brought).await?;
        }
        Err(over())
    }

    async fn leave_main(&self, table: TableId, why: Leave) -> EtlResult<Left> {
        let (answer, answered) = oneshot::channel();
        let request = MainRequest::Leave(LeaveRequest { table, why, answer });
        self.run.requests.send(request).await.map_err(|_| over())?;
        answered.await.map_err(|_| over())?
    }
}

/// What is stored of a table that waits, and what keeps its changes.
fn held(rest: Rest) -> (Held, Option<Kept>) {
    match rest {
        Rest::Pending => (Held::default(), None),
        Rest::Copying { cursor, so_far, hold } => {
            (Held { cursor: Some(cursor), so_far: Some(so_far), ..Held::default() }, Some(hold.into()))
        }
        Rest::CatchingUp { left, snapshot, mixed } => {
            (Held { cursor: Some(left.upto), snapshot: Some(snapshot), mixed, so_far: None }, Some(left.into()))
        }
    }
}

/// Waits for ever once nobody can wish anything.
async fn next_order(orders: &mut mpsc::Receiver<Order>) -> Order {
    match orders.recv().await {
        Some(order) => order,
        None => std::future::pending().await,
    }
}

fn over() -> EtlError {
    EtlError::new(ErrorKind::Cancelled, "the pipeline ended")
}
