//! How do tables go on beside others that wait for hours? Each in a lane of its own, in which its changes stand in the order
//! in which they came.
//!
//! A batch takes its place in the lane of each of its tables when it is handed over, before anything waits. Whoever comes to
//! its turn writes everything that has gathered in the lane meanwhile: what waits for a long job is one job afterwards, and
//! not as many as there were batches. Where something fails or is given up, what stands behind it in the lane is not written
//! until the failed changes have come again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etl::Position;
use etl::data::Event;
use etl::destination::Batch;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::retry::retry;
use etl::schema::TableId;
use futures_util::future::join_all;
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use super::TableDestination;
use crate::writer::TableWriter;

/// As many changes are written together at most, unless one batch has more: what is written is acknowledged only as a whole.
const MOST_TOGETHER: usize = 100_000;

/// The lanes of a destination's tables.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<HashMap<TableId, Arc<Lane>>>);

#[derive(Debug, Default)]
struct Lane {
    line: Mutex<Line>,
    /// Held by whoever writes.
    turn: AsyncMutex<()>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    /// The first change that was to be written and was not. Nothing after it is written before it comes again.
    broken_at: Option<Position>,
}

/// What a batch has for a table.
#[derive(Debug)]
struct Waiting {
    /// The first of its changes.
    first: Position,
    batch: Batch,
    events: Vec<Event>,
    done: oneshot::Sender<EtlResult<()>>,
}

/// The place of a batch in a lane.
struct Place {
    table: TableId,
    first: Position,
    lane: Arc<Lane>,
    told: oneshot::Receiver<EtlResult<()>>,
}

/// What is written together.
struct Together {
    lane: Arc<Lane>,
    first: Position,
    done: Vec<oneshot::Sender<EtlResult<()>>>,
}

impl Lanes {
    /// The table begins anew, whatever has failed before.
    pub(super) fn forget(&self, table: TableId) {
        self.lanes().remove(&table);
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<TableId, Arc<Lane>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The batch is written beside the lanes: what was not written of its tables has come again with it.
    pub(super) fn mend(&self, batch: &Batch, events: &[Event]) {
        let lanes = self.lanes();
        for lane in events.iter().flat_map(Event::table_ids).filter_map(|table| lanes.get(table)) {
            lane.line().mend(batch);
        }
    }

    fn enter(&self, table: TableId, batch: &Batch, (first, events): (Position, Vec<Event>)) -> Place {
        let lane = Arc::clone(self.lanes().entry(table).or_default());
        let (done, told) = oneshot::channel();
        let mut line = lane.line();
        line.mend(batch);
        if line.broken_at.is_none() {
            line.waiting.push_back(Waiting { first, batch: batch.clone(), events, done });
        }
        drop(line);
        Place { table, first, lane, told }
    }
}

impl Lane {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out what is written next.
    fn together(self: &Arc<Self>) -> Option<(Together, Batch, Vec<Event>)> {
        let mut line = self.line();
        let Waiting { first, mut batch, mut events, done } = line.waiting.pop_front()?;
        let mut together = Together { lane: Arc::clone(self), first, done: vec![done] };
        while let Some(next) = line.waiting.pop_front_if(|next| events.len() + next.events.len() <= MOST_TOGETHER) {
            batch.upto = next.batch.upto;
            batch.moves.extend(next.batch.moves);
            events.extend(next.events);
            together.done.push(next.done);
        }
        Some((together, batch, events))
    }
}

impl Line {
    /// What was not written comes again with this batch, or with those after it.
    fn mend(&mut self, batch: &Batch) {
        self.broken_at = self.broken_at.filter(|at| batch.from >= *at);
    }

    /// What begins here is not written, nor is anything after it. Whoever waits for that hears of it.
    fn break_at(&mut self, first: Position) {
        self.broken_at = Some(self.broken_at.map_or(first, |at| at.min(first)));
        self.waiting.retain(|waiting| waiting.first < first);
    }
}

impl Together {
    /// It is written, or it has failed: the first who listens hears why.
    fn end(mut self, written: EtlResult<()>) {
        let waiting = std::mem::take(&mut self.done);
        let Err(error) = written else {
            // Whoever was to hear it may be gone.
            waiting.into_iter().for_each(|done| drop(done.send(Ok(()))));
            return;
        };
        self.lane.line().break_at(self.first);
        let mut unheard = Err(error);
        for done in waiting {
            match done.send(unheard) {
                Ok(()) => return,
                Err(back) => unheard = back,
            }
        }
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        if !self.done.is_empty() {
            self.lane.line().break_at(self.first);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.told.close();
        let mut line = self.lane.line();
        if line.waiting.iter().any(|waiting| waiting.done.is_closed()) {
            line.break_at(self.first);
        }
    }
}

impl<W: TableWriter> TableDestination<W> {
    /// Writes what is new in the events, each table's as soon as its lane is free.
    pub(super) async fn write_in_lanes(&self, batch: &Batch, events: Vec<Event>) -> EtlResult<()> {
        let tables = by_table(events).into_iter();
        let places: Vec<Place> = tables.map(|(table, events)| self.lanes.enter(table, batch, events)).collect();
        // None is cut short by the failure of another: its request may be under way.
        join_all(places.into_iter().map(|place| self.write_in_turn(place))).await.into_iter().collect()
    }

    /// Waits until the changes of the place are written, by whoever has the turn.
    async fn write_in_turn(&self, mut place: Place) -> EtlResult<()> {
        let lane = Arc::clone(&place.lane);
        loop {
            tokio::select! {
                biased;
                told = &mut place.told => return told.unwrap_or_else(|_| Err(waits_for_another(place.table))),
                _turn = lane.turn.lock() => {
                    if let Some((together, batch, events)) = lane.together() {
                        together.end(retry(self.retry, || self.try_to_write(&batch, &events)).await.flatten());
                    }
                }
            }
        }
    }
}

/// The changes of each table with the position of the first, in their order.
fn by_table(events: Vec<Event>) -> BTreeMap<TableId, (Position, Vec<Event>)> {
    let mut tables: BTreeMap<TableId, (Position, Vec<Event>)> = BTreeMap::new();
    let mut add = |table, position: Position, event| {
        let (first, events) = tables.entry(table).or_insert((position, Vec::new()));
        *first = position.min(*first);
        events.push(event);
    };
    for event in events {
        match event {
            Event::Change(change) => add(change.table_id, change.position, Event::Change(change)),
            Event::Relation { new, position } => add(new.id, position, Event::Relation { new, position }),
            Event::Truncate { tables, positions, at } => {
                for (table, position) in tables.iter().zip(&positions) {
                    let (tables, positions) = (Box::new([*table]), Box::new([*position]));
                    add(*table, *position, Event::Truncate { tables, positions, at });
                }
            }
            // They are of no table.
            _ => {}
        }
    }
    tables
}

fn waits_for_another(table: TableId) -> EtlError {
    EtlError::new(ErrorKind::DestinationUnavailable, "changes of the table that come before these were not written")
        .with("table", table)
}
