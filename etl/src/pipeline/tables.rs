//! Who brings the tables to the main cursor, and takes them away from it? One task, which also hears what people wish.

mod room;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use super::apply::{Leave, LeaveRequest, Left, LeftChanged, MainRequest};
use super::control::Stop;
use super::memory_budget::CopyBudget;
use super::run::Run;
use super::table::{Brought, Rest, Table};
use super::table_state::Begin;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::relay::Reader;
use crate::schema::TableId;
use crate::store::{CursorId, Phase, SnapshotFilter};

/// How often it is shown what paused tables have yet to read.
const TICK: Duration = Duration::from_secs(1);

/// What somebody wishes of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Pause,
    Resume,
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
    Order(Order),
    /// A table looks different, and leaves the main cursor.
    Changed(LeftChanged),
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
    changed: mpsc::UnboundedReceiver<LeftChanged>,
    tasks: JoinSet<(TableId, EtlResult<Brought>)>,
    /// Tells each of them to let its table rest.
    at_work: HashMap<TableId, watch::Sender<bool>>,
    /// Keeps in the relay what paused tables have yet to read.
    held: HashMap<TableId, Reader>,
}

impl Tables {
    pub(super) fn new(
        run: &Arc<Run>,
        orders: mpsc::Receiver<Order>,
        changed: mpsc::UnboundedReceiver<LeftChanged>,
    ) -> Self {
        let copy = &run.settings.copy;
        let workers = copy.tables_in_parallel * copy.connections_per_table;
        Self {
            budget: CopyBudget::new(&run.board.memory, workers),
            turns: Arc::new(Semaphore::new(copy.tables_in_parallel)),
            orders,
            changed,
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
            Begin::Wait => self.held.extend(hold.map(|hold| (id, hold))),
            Begin::Copy { .. } | Begin::Resume | Begin::CatchUp { .. } => self.spawn(id, begin, hold),
        }
    }

    fn spawn(&mut self, id: TableId, begin: Begin, hold: Option<Reader>) {
        let (told, leave) = watch::channel(false);
        let (budget, turns) = (self.budget.clone(), Arc::clone(&self.turns));
        let table = Table { run: Arc::clone(&self.run), id, budget, turns, hold, leave };
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
                    self.ended(ended)?;
                    continue;
                }
                Some(changed) = self.changed.recv() => News::Changed(changed),
                order = next_order(&mut self.orders) => News::Order(order),
                slowest = &mut stuck => News::Stuck(slowest),
                () = crate::retry::pause(TICK), if !self.held.is_empty() => News::Tick,
            };
            match news {
                News::Order(order) => {
                    let done = tokio::select! {
                        done = Box::pin(self.obey(order.table, order.wish)) => done,
                        _ = ends.wait_for(|stop| *stop != Stop::No) => Err(over()),
                    };
                    // Whoever asked may be gone.
                    let _ = order.answer.send(done);
                }
                News::Changed(changed) => {
                    tokio::select! {
                        done = Box::pin(self.copy_changed(changed)) => done?,
                        _ = ends.wait_for(|stop| *stop != Stop::No) => {}
                    }
                }
                News::Stuck(slowest) => {
                    tokio::select! {
                        done = Box::pin(self.make_room(slowest)) => done?,
                        _ = ends.wait_for(|stop| *stop != Stop::No) => {}
                    }
                    stuck.set(run.stuck());
                }
                News::Tick => {}
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
                Some(ended) => drop(self.ended(ended)?),
                None => return Ok(()),
            }
        }
        // A destination that never answers would hold them for ever.
        self.tasks.shutdown().await;
        Err(over())
    }

    fn show_held(&self) {
        for (id, hold) in &self.held {
            self.run.board.meter(CursorId::Table(*id)).show(None, 0, hold.behind());
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
        let phase = self.run.states.get(id).phase;
        match (wish, phase.clone()) {
            (Wish::Pause, Phase::Paused { .. }) => Ok(()),
            (Wish::Pause, _) => self.pause(id).await,
            (Wish::Resume, Phase::Paused { .. }) => self.resume(id, phase).await,
            (Wish::Resume, phase) => Err(EtlError::new(ErrorKind::Config, "the table is not paused")
                .with("table", self.run.name(id))
                .with("phase", phase.name())),
            (Wish::Resync, phase) => self.resync(id, phase).await,
        }
    }

    async fn pause(&mut self, id: TableId) -> EtlResult<()> {
        let hold = match self.call_back(id).await? {
            Brought::Joined => self.leave_main(id, Leave::Pause).await?.hold,
            Brought::Rests(rest) => {
                let (phase, hold) = paused(rest);
                self.run.set_phase(id, phase).await?;
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

    async fn resume(&mut self, id: TableId, paused: Phase) -> EtlResult<()> {
        let Phase::Paused { cursor, snapshot, mixed, so_far } = paused else { return Ok(()) };
        let own = self.run.store.progress().await?.cursor(CursorId::Table(id));
        let own = self.run.destination_position(CursorId::Table(id)).await?.or(own);
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
            (Phase::Paused { .. }, None) => {
                self.run.own_cursor_opened();
                None
            }
            _ => match self.call_back(id).await? {
                Brought::Joined => Some(self.leave_main(id, Leave::Resync).await?.hold),
                Brought::Rests(rest) => paused(rest).1,
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

/// What is stored of a table that rests, and what keeps its changes.
fn paused(rest: Rest) -> (Phase, Option<Reader>) {
    let paused = |cursor, snapshot, mixed, so_far| Phase::Paused { cursor, snapshot, mixed, so_far };
    match rest {
        Rest::Pending => (paused(None, None, None, None), None),
        Rest::Copying { cursor, so_far, hold } => (paused(Some(cursor), None, None, Some(so_far)), Some(hold)),
        Rest::CatchingUp { left: Left { upto, hold }, snapshot, mixed } => {
            (paused(Some(upto), Some(snapshot), mixed, None), Some(hold))
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
