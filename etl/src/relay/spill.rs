//! How do blocks get to disk: the oldest when memory is full, and those that must survive before they are confirmed?

use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::Inner;
use super::block::Picked;
use super::record::{Description, Synced};
use super::segment::{Record, Segment, Segments};
use super::spool::Spooled;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;

/// What writes the segments, one call at a time and never on an async thread.
#[derive(Debug, Default)]
pub(super) struct Pen {
    /// The segment that was written to last.
    current: Option<Arc<Segment>>,
    /// The next record begins another one: a write to it has failed.
    is_spoilt: bool,
    /// What was written to since the last sync.
    unsynced: Vec<Weak<Segment>>,
    /// Files of streamed transactions for which a record was written since.
    unsynced_spools: Vec<Weak<Spooled>>,
    has_new_names: bool,
    /// A log that is recovered from disk reaches up to here.
    recorded: Lsn,
    /// The same, after a power failure.
    synced: Lsn,
    /// The end of what is synced, in files.
    synced_place: Synced,
    /// The file in which that is: until another one is synced, it alone says how far the log reached.
    synced_in: Option<Arc<Segment>>,
    /// A sync failed: what was written before may be lost without another error.
    is_unsafe: bool,
}

/// What became of an attempt to record a part of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    /// It is synced already.
    Synced,
    /// It is written.
    Written,
    /// There is no room for all of it.
    NoRoom,
}

impl Pen {
    /// Goes on behind what was recovered, all of which is synced.
    pub(super) fn behind(last: Option<Arc<Segment>>, end: Lsn) -> Self {
        let synced_place = last.as_deref().map(place).unwrap_or_default();
        let end = if last.is_some() { end } else { Lsn::ZERO };
        Self { synced_in: last.clone(), current: last, recorded: end, synced: end, synced_place, ..Self::default() }
    }

    #[cfg(test)]
    pub(super) fn synced_place(&self) -> Synced {
        self.synced_place
    }

    /// As if the disk had been full.
    #[cfg(test)]
    pub(super) fn next_file(&mut self) {
        self.is_spoilt = true;
    }

    #[cfg(test)]
    pub(super) fn unsynced_spools(&self) -> Vec<u64> {
        self.unsynced_spools.iter().filter_map(Weak::upgrade).map(|spooled| spooled.contents().number).collect()
    }

    /// Lets go of a segment in which nothing is needed.
    pub(super) fn let_go(&mut self) {
        if self.current.as_ref().is_none_or(|current| self.is_idle(current)) {
            (self.current, self.synced_in) = (None, None);
            (self.recorded, self.synced) = (Lsn::ZERO, Lsn::ZERO);
        }
    }

    /// Whether nobody else needs anything in this segment.
    fn is_idle(&self, segment: &Arc<Segment>) -> bool {
        let ours = [&self.current, &self.synced_in].into_iter().flatten();
        Arc::strong_count(segment) == ours.filter(|ours| Arc::ptr_eq(ours, segment)).count()
    }

    /// What may be written. Full segments in which nothing is needed go with the next sync: waiting would not free them.
    fn room(&self, segments: &Segments) -> u64 {
        let full = self.current.as_ref().filter(|_| self.open().is_none());
        let other = self
            .synced_in
            .as_ref()
            .filter(|synced_in| self.current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, synced_in)));
        let idle = full.into_iter().chain(other).filter(|segment| self.is_idle(segment));
        segments.room(idle.map(|segment| segment.goes_with()).sum())
    }

    /// Moves the oldest blocks out of memory until at most `keep` bytes stay; false when nothing could be moved.
    pub(super) fn spill(&mut self, inner: &Inner, keep: u64, is_unlimited: bool) -> EtlResult<bool> {
        let room = if is_unlimited { u64::MAX } else { self.room(&inner.segments) };
        let (was_freed, picked) = inner.log().spill(keep, room);
        if picked.is_empty() {
            return Ok(was_freed);
        }
        self.write(inner, picked)?;
        inner.log().spill(keep, 0);
        Ok(true)
    }

    /// Writes what a reader still needs of all that committed before `end`.
    pub(super) fn record(&mut self, inner: &Inner, end: Lsn) -> EtlResult<Recorded> {
        if self.is_unsafe {
            return Err(EtlError::new(ErrorKind::Disk, "the relay could not be synced before")
                .with("path", inner.segments.dir.display())
                .hint("Check the disk, and start again"));
        }
        if self.synced >= end {
            return Ok(Recorded::Synced);
        }
        while self.recorded < end {
            let room = self.room(&inner.segments);
            let (fits, picked) = inner.log().unrecorded(end, room);
            self.write(inner, picked)?;
            if !fits {
                return Ok(Recorded::NoRoom);
            }
            // Without one, blocks came in the meantime.
            let note = if self.recorded < end { inner.log().note() } else { None };
            if let Some(note) = note {
                let end_lsn = note.before.end_lsn;
                self.put(&inner.segments, note, &Bytes::new())?;
                self.recorded = self.recorded.max(end_lsn);
                break;
            }
        }
        Ok(Recorded::Written)
    }

    /// Syncs all that is written.
    pub(super) fn sync(&mut self, segments: &Segments) -> EtlResult<()> {
        self.is_unsafe = true;
        for segment in self.unsynced.drain(..).filter_map(|segment| segment.upgrade()) {
            segment.sync()?;
        }
        for spooled in self.unsynced_spools.drain(..).filter_map(|spooled| spooled.upgrade()) {
            spooled.sync()?;
        }
        if std::mem::take(&mut self.has_new_names) {
            segments.sync_names()?;
        }
        self.is_unsafe = false;
        self.synced = self.recorded;
        if let Some(current) = &self.current {
            self.synced_place = place(current);
            self.synced_in = Some(Arc::clone(current));
        }
        Ok(())
    }

    fn write(&mut self, inner: &Inner, picked: Vec<Picked>) -> EtlResult<()> {
        for Picked { id, description, bytes, spooled, end_lsn } in picked {
            let record = self.put(&inner.segments, description, &bytes)?;
            if let Some(spooled) = spooled {
                self.unsynced_spools.push(Arc::downgrade(&spooled));
                self.has_new_names = true;
                record.keeps(spooled);
            }
            inner.log().recorded(id, record);
            self.recorded = self.recorded.max(end_lsn);
        }
        Ok(())
    }

    /// The segment to go on with.
    fn open(&self) -> Option<&Arc<Segment>> {
        self.current.as_ref().filter(|current| !self.is_spoilt && !current.is_full())
    }

    fn put(&mut self, segments: &Arc<Segments>, description: Description, block: &Bytes) -> EtlResult<Record> {
        // Until another one is written to, what says how far the log reaches stays.
        let current = match self.open() {
            Some(current) => Arc::clone(current),
            None => {
                let created = segments.create()?;
                self.has_new_names = true;
                created
            }
        };
        let description = Description { synced: self.synced_place, ..description };
        self.is_spoilt = true;
        let record = current.write(&description, block)?;
        self.is_spoilt = false;
        let weak = Arc::downgrade(&current);
        if !self.unsynced.iter().any(|segment| segment.ptr_eq(&weak)) {
            self.unsynced.retain(|segment| segment.strong_count() > 0);
            self.unsynced.push(weak);
        }
        self.current = Some(current);
        Ok(record)
    }
}

fn place(segment: &Segment) -> Synced {
    Synced { segment: segment.number, position: segment.len() }
}
