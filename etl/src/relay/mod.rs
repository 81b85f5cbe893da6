//! Where do changes wait? The ordered log of committed changes between the receiver and the appliers.
//!
//! One writer appends blocks of received frames; each reader takes them in order and releases what is durable
//! for it. What every reader has released is dropped. Beyond the tail, the oldest blocks wait in files. What was
//! synced is there again after a crash, as far as a reader still needed it; the rest the source sends again.
//!
//! What the source streams of a transaction in progress goes to a spool file of its own, and nobody sees it. When the
//! transaction commits, the file becomes one block of the log as it is, between two small blocks that begin and end the
//! transaction: no byte is copied. Its readers get it in pieces, each with the subtransactions that are void. Like any
//! block that is not in memory it gets a record, which names the file with the length and checksum of each piece, where
//! it has to survive; the file is synced with the record and deleted with the block. Spool files for which no record
//! stands are deleted when a log is opened.
//!
//! What is prepared at the source waits in spool files too, each with a note beside it that makes it survive, until its
//! fate is known.

mod block;
mod log;
#[cfg(test)]
mod model;
mod prepared;
mod reader;
mod record;
mod recovery;
mod segment;
mod settings;
mod spill;
mod spool;
mod streams;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, futures::Notified};

use self::log::Log;
pub use self::prepared::Prepare;
use self::prepared::Prepared;
pub use self::reader::Reader;
use self::segment::Segments;
pub use self::settings::{AtLimit, RelaySettings};
use self::spill::{Pen, Recorded};
pub use self::spool::Aborted;
pub use self::writer::RelayWriter;
use crate::clock::Timestamp;
use crate::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use crate::failpoint;
use crate::lsn::Lsn;
use crate::store::CursorId;

/// The log as its readers' owners see it. Clones share one log.
#[derive(Debug, Clone)]
pub struct Relay(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    log: Mutex<Log>,
    /// Wakes readers: something was appended or rewound.
    grown: Notify,
    /// Wakes the writer: something was read or released.
    freed: Notify,
    /// How many wait for room, and who wants to hear of it.
    waiting: AtomicUsize,
    crowded: Notify,
    segments: Arc<Segments>,
    /// Locked before the log, and only where blocking is allowed.
    pen: Mutex<Pen>,
    /// Locked before the log, too.
    prepared: Mutex<Prepared>,
    is_durable: AtomicBool,
    tail_bytes: u64,
    at_limit: AtLimit,
}

impl Inner {
    /// Blocks the thread.
    fn open(dir: PathBuf, settings: &RelaySettings, tail_bytes: u64) -> EtlResult<Self> {
        let segments = Arc::new(Segments::new(dir, settings.max_bytes.0));
        let (log, pen, prepared) = recovery::recover(&segments)?;
        let (log, pen, prepared) = (Mutex::new(log), Mutex::new(pen), Mutex::new(prepared));
        let is_durable = AtomicBool::new(false);
        let (grown, freed, at_limit) = (Notify::new(), Notify::new(), settings.at_limit);
        let (waiting, crowded) = (AtomicUsize::new(0), Notify::new());
        Ok(Self { log, grown, freed, waiting, crowded, segments, pen, prepared, is_durable, tail_bytes, at_limit })
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // No method of the log leaves it half changed, so a panic elsewhere does not matter to it.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pen(&self) -> MutexGuard<'_, Pen> {
        self.pen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prepared(&self) -> MutexGuard<'_, Prepared> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At the limit, until something is read or released.
    async fn room(&self, freed: Pin<&mut Notified<'_>>) {
        let _waiting = Waiting::new(self);
        freed.await;
    }

    fn is_full(&self) -> EtlError {
        EtlError::new(ErrorKind::Relay, "the relay is full")
            .with("disk_bytes", self.segments.bytes())
            .hint("Find out why the destination is slow, raise relay.max_bytes, or let relay.at_limit wait")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The files are for the next log.
        self.segments.end();
    }
}

/// Somebody who waits for room.
struct Waiting<'i>(&'i Inner);

impl<'i> Waiting<'i> {
    fn new(inner: &'i Inner) -> Self {
        inner.waiting.fetch_add(1, Ordering::SeqCst);
        inner.crowded.notify_waiters();
        Self(inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A transaction that is complete in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// The LSN of its commit record.
    pub commit: Lsn,
    /// The LSN after its commit record.
    pub end: Lsn,
    /// The transaction id at the source.
    pub xid: u32,
    /// When it committed, by the source's clock.
    pub at: Timestamp,
}

/// How far the log reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The last complete transaction that was appended, even when its bytes are gone.
    pub last: Option<Transaction>,
    /// The end of the last complete transaction or of a keepalive outside of one, whichever is later.
    pub end: Lsn,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The end of the last transaction that is complete now.
    Head,
    /// The first transaction whose commit LSN is greater, present or to come.
    ///
    /// With nothing of it here: the end of the last complete transaction.
    After(Lsn),
}

/// What a block says about transactions. Offsets count bytes within the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A transaction begins.
    Begin {
        /// Of its first byte.
        offset: usize,
        /// The LSN of its commit record.
        commit: Lsn,
        /// The transaction id at the source.
        xid: u32,
        /// When it committed.
        at: Timestamp,
    },
    /// The transaction that began last is complete.
    Commit {
        /// Behind its last byte.
        after: usize,
        /// The LSN after its commit record.
        end: Lsn,
    },
    /// The source has nothing before this LSN that was not sent. Within a transaction it counts for nothing.
    KeepAlive {
        /// Behind what was sent before it.
        after: usize,
        /// The LSN.
        end: Lsn,
    },
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Whole frames.
    Block {
        /// The frames.
        bytes: Bytes,
        /// The log offset of the first byte: bytes since the log began.
        offset: u64,
        /// Where the source streamed them, each message names its (sub)transaction; these are void.
        in_stream: Option<Arc<Aborted>>,
    },
    /// The incomplete transaction that this reader began to read is void; it comes again from its beginning.
    ///
    /// Its log offsets are given out again.
    Rewound,
}

/// What the log occupies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayStatus {
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Bytes on disk, those of transactions in progress among them.
    pub disk_bytes: u64,
}

impl Relay {
    /// The log with what an earlier one left in `dir`: at most `tail_bytes` in memory, which one block may exceed,
    /// and `max_bytes` on disk, which one transaction may exceed.
    ///
    /// What was left stays until readers exist, and counts as held once the writer knows where the stream begins.
    ///
    /// # Errors
    /// `Disk` when the directory cannot be read or written; `Relay` when what was synced is damaged.
    pub async fn open(dir: PathBuf, settings: RelaySettings, tail_bytes: usize) -> EtlResult<(Self, RelayWriter)> {
        let inner = blocking(move || Inner::open(dir, &settings, tail_bytes as u64)).await?;
        let relay = Self(Arc::new(inner));
        let writer = RelayWriter::new(relay.clone());
        Ok((relay, writer))
    }

    /// Deletes the directory of a relay and all in it; one that is absent is no error.
    ///
    /// # Errors
    /// `Disk` when it cannot be deleted.
    pub async fn remove(dir: PathBuf) -> EtlResult<()> {
        match tokio::fs::remove_dir_all(&dir).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result
                .or_etl(ErrorKind::Disk, "delete the relay")
                .map_err(|e| e.with("path", dir.display()).hint("Check the directory's owner and mode")),
        }
    }

    /// How far the log reaches.
    pub fn head(&self) -> Head {
        self.0.log().head()
    }

    /// Whether every transaction after that is still here or to come, as far as is known.
    pub fn holds(&self, from: StartAt) -> bool {
        self.0.log().holds(from)
    }

    /// A reader that begins there. From now on the log keeps what it has not released.
    ///
    /// # Errors
    /// None at present.
    pub fn reader(&self, from: StartAt) -> EtlResult<Reader> {
        let id = self.0.log().add_reader(None, from);
        Ok(Reader::new(self.clone(), id))
    }

    /// The same, for a cursor: what it holds counts as the cursor's.
    ///
    /// # Errors
    /// As [`reader`](Self::reader).
    pub fn reader_of(&self, owner: CursorId, from: StartAt) -> EtlResult<Reader> {
        let id = self.0.log().add_reader(Some(owner), from);
        Ok(Reader::new(self.clone(), id))
    }

    /// The cursor that holds the most, and the log offset from which on it does; nobody where nothing is held.
    pub fn slowest(&self) -> Option<(CursorId, u64)> {
        self.0.log().slowest()
    }

    /// Whether somebody waits for room at the limit.
    pub fn is_crowded(&self) -> bool {
        self.0.waiting.load(Ordering::SeqCst) > 0
    }

    /// Returns once somebody waits for room at the limit.
    pub async fn crowded(&self) {
        loop {
            let mut crowded = pin!(self.0.crowded.notified());
            crowded.as_mut().enable();
            if self.is_crowded() {
                return;
            }
            crowded.await;
        }
    }

    /// While on, what was synced stays on disk even where no reader needs it: it says how far the log reached.
    pub fn require_durable(&self, on: bool) {
        self.0.is_durable.store(on, Ordering::Relaxed);
    }

    /// Returns once all that committed before `end`, and that a reader has not released, survives a crash.
    ///
    /// With a durable log (see [`Relay::require_durable`]), one that is opened later reaches at least to `end`,
    /// unless that was never received. At the limit it waits for the slowest reader, or fails, as configured.
    ///
    /// # Errors
    /// `Disk` when it cannot be written; `Relay` at the limit with [`AtLimit::Stop`].
    pub async fn sync_upto(&self, end: Lsn) -> EtlResult<()> {
        loop {
            let mut freed = pin!(self.0.freed.notified());
            freed.as_mut().enable();
            match self.with_pen(move |pen, inner| pen.record(inner, end)).await? {
                Recorded::Synced => return Ok(()),
                Recorded::Written => break,
                Recorded::NoRoom if self.0.at_limit == AtLimit::Stop => return Err(self.0.is_full()),
                Recorded::NoRoom => self.0.room(freed).await,
            }
        }
        // What has a record needs no memory.
        self.0.freed.notify_waiters();
        failpoint::visit("relay.before_sync").await?;
        self.with_pen(|pen, inner| pen.sync(&inner.segments)).await?;
        // Nor does what was synced before need its file.
        self.0.freed.notify_waiters();
        Ok(())
    }

    async fn with_pen<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Pen, &Inner) -> EtlResult<T> + Send + 'static,
    ) -> EtlResult<T> {
        let inner = Arc::clone(&self.0);
        blocking(move || work(&mut inner.pen(), &inner)).await
    }

    /// Moves blocks out of memory to disk until at most `keep` bytes stay. At the limit of that, it waits for the
    /// slowest reader or fails, as configured.
    ///
    /// # Errors
    /// `Relay` at the limit with [`AtLimit::Stop`]; `Disk` when a segment cannot be written.
    pub async fn shed(&self, keep: u64) -> EtlResult<()> {
        let inner = &self.0;
        let mut freed = pin!(inner.freed.notified());
        freed.as_mut().enable();
        let is_unlimited = {
            let log = inner.log();
            if log.memory_bytes() <= keep {
                return Ok(());
            }
            inner.at_limit != AtLimit::Stop && !log.somebody_is_behind()
        };
        if self.with_pen(move |pen, inner| pen.spill(inner, keep, is_unlimited)).await? {
            inner.freed.notify_waiters();
            return Ok(());
        }
        if inner.at_limit == AtLimit::Stop {
            return Err(inner.is_full());
        }
        inner.room(freed).await;
        Ok(())
    }

    /// Whether it has prepared transactions, which the source sends no more.
    pub fn has_prepared(&self) -> bool {
        !self.0.prepared().is_empty()
    }

    /// What ended before is durable for everybody or in the log for good, and not asked for again: prepared
    /// transactions that were committed before are forgotten.
    pub fn confirmed(&self, end: Lsn) {
        self.0.prepared().pass(end);
    }

    /// What the log occupies.
    pub fn status(&self) -> RelayStatus {
        RelayStatus { memory_bytes: self.0.log().memory_bytes(), disk_bytes: self.0.segments.bytes() }
    }
}

/// Runs what blocks on files outside of the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> EtlResult<T> + Send + 'static) -> EtlResult<T> {
    tokio::task::spawn_blocking(work).await.or_etl(ErrorKind::Internal, "work on the relay's files")?
}
