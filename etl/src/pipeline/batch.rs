//! Which events go to the destination together? Batches that end at a commit unless one transaction is larger.

use tokio::time::Instant;

use super::settings::BatchSettings;
use crate::clock::Timestamp;
use crate::data::Event;
use crate::lsn::Position;
use crate::schema::TableId;
use crate::source::{Assembly, Boundary};

/// A batch that is being filled.
#[derive(Debug)]
pub(super) struct Filling {
    events: Vec<Event>,
    bytes: usize,
    since: Option<Instant>,
    from: Position,
    position: Position,
    boundary: Option<(usize, Boundary)>,
    /// How many events the last batch had, as the next one will have while the stream is behind.
    usual: usize,
}

/// A batch that is ready to be written. Without events it only moves positions.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) events: Vec<Event>,
    /// What they weigh.
    pub(super) bytes: usize,
    pub(super) from: Position,
    pub(super) upto: Position,
    /// Where it ends, unless that is within a transaction.
    pub(super) boundary: Option<Boundary>,
}

impl Filling {
    /// An empty batch after this position.
    pub(super) fn new(from: Position) -> Self {
        Self { events: Vec::new(), bytes: 0, since: None, from, position: from, boundary: None, usual: 0 }
    }

    /// Adds what came out of a block.
    pub(super) fn add(&mut self, assembly: Assembly, now: Instant) {
        if let Some((events, boundary)) = assembly.boundary {
            self.boundary = Some((self.events.len() + events, boundary));
        }
        self.position = self.position.max(assembly.position.unwrap_or_default());
        self.bytes += assembly.bytes;
        if self.events.is_empty() && self.usual <= assembly.events.len() {
            self.events = assembly.events;
        } else {
            if self.events.is_empty() {
                self.events.reserve_exact(self.usual);
            }
            self.events.extend(assembly.events);
        }
        if !self.events.is_empty() {
            self.since.get_or_insert(now);
        }
    }

    /// The incomplete transaction will come again: what is held of it is dropped. A piece of it that was taken out
    /// already is not.
    pub(super) fn rewind(&mut self) {
        let (kept, position) = self.boundary.map_or((0, self.from), |(count, boundary)| (count, boundary.position));
        self.bytes = self.bytes.checked_div(self.events.len()).unwrap_or(0) * kept;
        self.events.truncate(kept);
        self.position = position.max(self.from);
        if self.events.is_empty() {
            self.since = None;
        }
    }

    /// Nothing up to here comes any more.
    pub(super) fn begin_after(&mut self, position: Position) {
        self.from = self.from.max(position);
    }

    /// Drops the events of a table, which come with another cursor.
    pub(super) fn drop_table(&mut self, table: TableId) {
        let (mut place, mut before) = (0, 0);
        let boundary = self.boundary.map_or(0, |(count, _)| count);
        self.events.retain_mut(|event| {
            let keeps = keep_of(event, table);
            before += usize::from(keeps && place < boundary);
            place += 1;
            keeps
        });
        if let Some((count, _)) = &mut self.boundary {
            *count = before;
        }
    }

    /// How many events it holds.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// What its events weigh.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest change that it holds was committed.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.events.iter().find_map(committed_at)
    }

    /// Whether it holds as much as it may.
    pub(super) fn is_full(&self, limits: &BatchSettings) -> bool {
        self.bytes >= limits.max_bytes.as_usize() || self.events.len() >= limits.max_rows
    }

    /// When it is old enough to be written, full or not.
    pub(super) fn deadline(&self, limits: &BatchSettings) -> Option<Instant> {
        self.since.map(|since| since + limits.max_age)
    }

    /// Whether anything would be written up to the last boundary.
    pub(super) fn has_events_before_boundary(&self) -> bool {
        self.boundary.is_some_and(|(count, _)| count > 0)
    }

    /// Goes on as if the last boundary, before which there is no event, had not been seen.
    pub(super) fn pass_boundary(&mut self) {
        self.boundary = None;
    }

    /// The position of the last event that was added, or where the batch begins.
    pub(super) fn position(&self) -> Position {
        self.position.max(self.from)
    }

    /// The end of the last transaction that was seen, written or not.
    pub(super) fn boundary(&self) -> Option<Boundary> {
        self.boundary.map(|(_, boundary)| boundary)
    }

    /// Takes out what may be written: everything up to the last boundary; without a boundary, the piece of a
    /// transaction that is larger than a batch, when it is full.
    pub(super) fn seal(&mut self, limits: &BatchSettings, now: Instant) -> Option<Sealed> {
        if let Some((count, boundary)) = self.boundary.take() {
            let rest = self.events.split_off(count);
            let upto = self.from.max(boundary.position);
            let events = std::mem::replace(&mut self.events, rest);
            self.usual = events.len();
            let share = self.bytes.checked_div(events.len() + self.events.len()).unwrap_or(0);
            let bytes = share * events.len();
            self.bytes = share * self.events.len();
            self.since = (!self.events.is_empty()).then_some(now);
            return Some(Sealed {
                events,
                bytes,
                from: std::mem::replace(&mut self.from, upto),
                upto,
                boundary: Some(boundary),
            });
        }
        if !self.is_full(limits) {
            return None;
        }
        Some(self.seal_piece())
    }

    /// Lets what was taken out become durable with something later only: where it ends is no boundary then.
    pub(super) fn keep_back(&mut self, sealed: Sealed) -> Sealed {
        let upto = Position::new(sealed.upto.commit, Position::WHOLE - 1);
        self.from = upto;
        Sealed { upto, boundary: None, ..sealed }
    }

    /// Takes out all of it, within a transaction.
    pub(super) fn seal_piece(&mut self) -> Sealed {
        let upto = self.position;
        let events = std::mem::take(&mut self.events);
        self.usual = events.len();
        let bytes = std::mem::take(&mut self.bytes);
        self.since = None;
        Sealed { events, bytes, from: std::mem::replace(&mut self.from, upto), upto, boundary: None }
    }
}

/// When the event was committed, if it says so.
pub(super) fn committed_at(event: &Event) -> Option<Timestamp> {
    match event {
        Event::Change(change) => Some(change.committed_at),
        Event::Truncate { at, .. } | Event::Commit { at, .. } => Some(*at),
        _ => None,
    }
}

/// Takes out of the event what is about the table; whether anything is left.
fn keep_of(event: &mut Event, table: TableId) -> bool {
    let Event::Truncate { tables, positions, .. } = event else {
        return !event.table_ids().contains(&table);
    };
    let kept = |(id, _): &(&TableId, &Position)| **id != table;
    let (ids, places): (Vec<TableId>, Vec<Position>) = tables.iter().zip(&**positions).filter(kept).unzip();
    (*tables, *positions) = (ids.into(), places.into());
    !tables.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::byte_size::ByteSize;
    use crate::clock;
    use crate::lsn::Lsn;
    use std::time::Duration;

    fn limits() -> BatchSettings {
        BatchSettings { max_bytes: ByteSize(1_000), max_rows: 4, max_age: Duration::from_secs(1) }
    }

    fn events(count: u32) -> Vec<Event> {
        (0..count).map(|xid| Event::Begin { xid, commit: Lsn(1) }).collect()
    }

    fn boundary(commit: u64) -> Boundary {
        Boundary { position: Position::after(Lsn(commit)), end: Lsn(commit + 8), offset: commit }
    }

    fn assembly(count: u32, end: Option<(usize, u64)>, position: Position) -> Assembly {
        let end = end.map(|(events, commit)| (events, boundary(commit)));
        Assembly {
            made: 0,
            events: events(count),
            bytes: 10 * count as usize,
            boundary: end,
            position: Some(position),
            stopped: None,
        }
    }

    #[test]
    fn p2_a_batch_ends_at_the_last_commit_and_keeps_the_rest() {
        let now = clock::monotonic();
        let mut batch = Filling::new(Position::ZERO);
        batch.add(assembly(3, Some((2, 10)), Position::new(Lsn(20), 1)), now);
        let sealed = batch.seal(&limits(), now).unwrap();
        assert_eq!((sealed.events.len(), sealed.upto), (2, Position::after(Lsn(10))));
        assert_eq!(sealed.boundary, Some(boundary(10)));
        assert!(
            batch.deadline(&limits()).is_some() && batch.seal(&limits(), now).is_none(),
            "the cut transaction waits"
        );
        batch.add(assembly(1, Some((1, 20)), Position::after(Lsn(20))), now);
        let sealed = batch.seal(&limits(), now).unwrap();
        assert_eq!(
            (sealed.events.len(), sealed.from, sealed.upto),
            (2, Position::after(Lsn(10)), Position::after(Lsn(20)))
        );
        assert!(batch.deadline(&limits()).is_none());
    }

    #[test]
    fn p2_a_transaction_larger_than_a_batch_is_cut_between_changes() {
        let now = clock::monotonic();
        let mut batch = Filling::new(Position::after(Lsn(5)));
        batch.add(assembly(5, None, Position::new(Lsn(20), 5)), now);
        let sealed = batch.seal(&limits(), now).unwrap();
        assert_eq!((sealed.events.len(), sealed.upto, sealed.boundary), (5, Position::new(Lsn(20), 5), None));
        batch.add(assembly(1, Some((1, 20)), Position::after(Lsn(20))), now);
        assert_eq!(batch.seal(&limits(), now).unwrap().from, Position::new(Lsn(20), 5));
    }

    #[test]
    fn transactions_of_other_tables_move_the_position_without_events() {
        let now = clock::monotonic();
        let mut batch = Filling::new(Position::ZERO);
        batch.add(Assembly { boundary: Some((0, boundary(30))), ..Assembly::default() }, now);
        assert!(batch.deadline(&limits()).is_none());
        let sealed = batch.seal(&limits(), now).unwrap();
        assert_eq!((sealed.events.len(), sealed.boundary), (0, Some(boundary(30))));
    }

    #[test]
    fn p1_a_transaction_that_was_cut_off_leaves_nothing_behind_that_a_keepalive_would_cover() {
        let now = clock::monotonic();
        let mut filling = Filling::new(Position::after(Lsn(5)));
        filling.add(assembly(3, Some((1, 10)), Position::new(Lsn(20), 2)), now);
        filling.rewind();
        assert_eq!(filling.position(), Position::after(Lsn(10)));
        filling.add(Assembly { boundary: Some((0, boundary(10))), ..Assembly::default() }, now);
        let sealed = filling.seal(&limits(), now).unwrap();
        assert_eq!((sealed.events.len(), sealed.upto), (1, Position::after(Lsn(10))));
        // A piece that was written stays written.
        filling.add(assembly(4, None, Position::new(Lsn(20), 4)), now);
        assert_eq!(filling.seal(&limits(), now).unwrap().upto, Position::new(Lsn(20), 4));
        filling.add(assembly(1, None, Position::new(Lsn(20), 5)), now);
        filling.rewind();
        assert_eq!(filling.position(), Position::new(Lsn(20), 4));
    }
}
