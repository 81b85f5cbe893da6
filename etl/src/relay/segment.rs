//! How do records get into files, and back?
//!
//! A segment is the magic, then records (see `record`). It is deleted when nothing in it is needed any more; what
//! is needed stays when the process ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use super::record::{DESCRIPTION, Description, HEADER, Header, MARK};
use super::spool::Spooled;
use crate::error::{ErrorKind, EtlError, EtlResult};

pub(super) const MAGIC: &[u8; 8] = b"ETLSEG\0\x01";
/// The last segment is kept whatever is in it, so it is a small part of the whole.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=64 << 20;

/// The directory of the segments.
#[derive(Debug)]
pub(super) struct Segments {
    pub(super) dir: PathBuf,
    max_bytes: u64,
    next: AtomicU64,
    bytes: AtomicU64,
    /// Of transactions in progress: what the source streams does not wait for the limit.
    spooling: AtomicU64,
    /// The log has ended: what is there now stays for the next one.
    ended: AtomicBool,
}

/// One file. Dropping it deletes it, as long as the log goes on.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its place among the segments.
    pub(super) number: u64,
    pub(super) path: PathBuf,
    file: File,
    len: AtomicU64,
    /// The files that records of it stand for: they are deleted after it, so that none stands for a file that is gone.
    spools: Mutex<Vec<Arc<Spooled>>>,
    segments: Arc<Segments>,
}

/// Where a block is.
#[derive(Debug, Clone)]
pub(super) struct Record {
    segment: Arc<Segment>,
    position: u64,
    description: usize,
    block: usize,
}

impl Segments {
    pub(super) fn new(dir: PathBuf, max_bytes: u64) -> Self {
        let number = || AtomicU64::new(0);
        let (next, bytes, spooling, ended) = (number(), number(), number(), AtomicBool::new(false));
        Self { dir, max_bytes, next, bytes, spooling, ended }
    }

    /// What all files occupy.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) + self.spooling.load(Ordering::Relaxed)
    }

    /// What may still be written where files of so many bytes do not count.
    pub(super) fn room(&self, idle: u64) -> u64 {
        self.max_bytes.saturating_sub(self.bytes.load(Ordering::Relaxed).saturating_sub(idle))
    }

    /// So much was written; what is not the log's counts against no limit.
    pub(super) fn grew(&self, by: u64, is_logs: bool) {
        self.counter(is_logs).fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn shrank(&self, by: u64, is_logs: bool) {
        self.counter(is_logs).fetch_sub(by, Ordering::Relaxed);
    }

    fn counter(&self, is_logs: bool) -> &AtomicU64 {
        if is_logs { &self.bytes } else { &self.spooling }
    }

    /// Bytes that a block of this length occupies, with a new segment's magic.
    pub(super) fn cost(block: usize, marks: usize) -> u64 {
        (block + marks * MARK + DESCRIPTION + HEADER + MAGIC.len()) as u64
    }

    /// From now on nothing is deleted.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The number of the next file, whose directory is there.
    pub(super) fn number(&self) -> EtlResult<u64> {
        fs::create_dir_all(&self.dir).map_err(|e| failed("create the relay's directory", &self.dir, e))?;
        Ok(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// An earlier log has a file of this number.
    pub(super) fn knows(&self, number: u64) {
        self.next.fetch_max(number.saturating_add(1), Ordering::Relaxed);
    }

    /// A new file, which begins with the magic.
    pub(super) fn create(self: &Arc<Self>) -> EtlResult<Arc<Segment>> {
        let number = self.number()?;
        let path = self.dir.join(format!("{number:016x}.seg"));
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|e| failed("create a relay segment", &path, e))?;
        let (len, spools) = (AtomicU64::new(0), Mutex::default());
        let segment = Segment { number, path, file, len, spools, segments: Arc::clone(self) };
        segment.append(&[MAGIC])?;
        Ok(Arc::new(segment))
    }

    /// A file that an earlier log left, as long as it is now.
    pub(super) fn adopt(self: &Arc<Self>, number: u64, path: PathBuf, file: File, len: u64) -> Segment {
        self.knows(number);
        self.grew(len, true);
        let (len, spools) = (AtomicU64::new(len), Mutex::default());
        Segment { number, path, file, len, spools, segments: Arc::clone(self) }
    }

    /// Makes the names of the files survive a power failure.
    pub(super) fn sync_names(&self) -> EtlResult<()> {
        for dir in [Some(self.dir.as_path()), self.dir.parent()].into_iter().flatten() {
            let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(|e| failed("sync the relay's directory", dir, e))?;
        }
        Ok(())
    }
}

impl Segment {
    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether the next record goes into another file.
    pub(super) fn is_full(&self) -> bool {
        let limit = (self.segments.max_bytes / 16).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        // What stands for a file is the last record, so that the file goes when its block does.
        self.len() >= limit || !self.spools().is_empty()
    }

    /// What goes with it when it is dropped.
    pub(super) fn goes_with(&self) -> u64 {
        let spools = self.spools();
        let alone = spools.iter().filter(|spooled| Arc::strong_count(spooled) == 1);
        self.len() + alone.map(|spooled| spooled.len() as u64).sum::<u64>()
    }

    fn spools(&self) -> MutexGuard<'_, Vec<Arc<Spooled>>> {
        self.spools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a record behind the others.
    pub(super) fn write(self: &Arc<Self>, description: &Description, block: &Bytes) -> EtlResult<Record> {
        let head = description.encode(block).ok_or_else(|| {
            EtlError::new(ErrorKind::Relay, "a block is too large for a relay segment").with("bytes", block.len())
        })?;
        let position = self.append(&[&head, block])?;
        Ok(self.record(position, head.len() - HEADER, block.len()))
    }

    pub(super) fn record(self: &Arc<Self>, position: u64, description: usize, block: usize) -> Record {
        Record { segment: Arc::clone(self), position, description, block }
    }

    /// Makes what was written survive a power failure.
    pub(super) fn sync(&self) -> EtlResult<()> {
        self.file.sync_data().map_err(|e| failed("sync a relay segment", &self.path, e))
    }

    fn append(&self, parts: &[&[u8]]) -> EtlResult<u64> {
        let position = self.len();
        let mut end = position;
        for part in parts {
            if let Err(error) = self.file.write_all_at(part, end) {
                // Half a record is no harm at the end of a file; without it the space is free again.
                let _ = self.file.set_len(position);
                return Err(failed("write a relay segment", &self.path, error));
            }
            end += part.len() as u64;
        }
        self.len.store(end, Ordering::Relaxed);
        self.segments.grew(end - position, true);
        Ok(position)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.segments.shrank(self.len(), true);
        if !self.segments.has_ended() {
            delete(std::mem::take(&mut self.path), std::mem::take(&mut *self.spools()));
        }
    }
}

/// Deletes a file outside of the async threads, and what must be there as long as it is.
pub(super) fn delete<T: Send + 'static>(path: PathBuf, needed: T) {
    let delete = move || {
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "could not delete a file of the relay");
        }
        drop(needed);
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(delete)),
        Err(_) => delete(),
    }
}

/// The files of a kind by number.
pub(super) fn files(dir: &Path, kind: &str) -> EtlResult<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| failed("read the relay's directory", dir, e))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| failed("read the relay's directory", dir, e))?.path();
        let is_meant = path.extension().is_some_and(|extension| extension == kind);
        let number = path.file_stem().and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok());
        if let Some(number) = number.filter(|_| is_meant) {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

impl Record {
    /// Whether both are the same place in the same file.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.segment, &other.segment) && self.position == other.position
    }

    /// It stands for this file.
    pub(super) fn keeps(&self, spooled: Arc<Spooled>) {
        spooled.is_recorded();
        self.segment.spools().push(spooled);
    }

    pub(super) fn block_len(&self) -> usize {
        self.block
    }

    /// How large a buffer it is read into.
    pub(super) fn len(&self) -> usize {
        HEADER + self.description + self.block
    }

    /// Reads the block, and what is said of it, into an empty buffer, of which the block keeps a part. Blocks the thread.
    pub(super) fn load_into(&self, buffer: &mut BytesMut) -> EtlResult<(Description, Bytes)> {
        buffer.resize(self.len(), 0);
        let read = self.segment.file.read_exact_at(buffer, self.position);
        read.map_err(|e| failed("read a relay segment", &self.segment.path, e))?;
        let mut body = buffer.split().freeze();
        let header = Header::decode(&body.split_to(HEADER));
        if header.is_some_and(|header| header.fits(&body) && header.block == self.block) {
            let block = body.split_off(self.description);
            if let Some(description) = Description::decode(&body) {
                return Ok((description, block));
            }
        }
        Err(damaged(&self.segment.path, self.position))
    }
}

pub(super) fn damaged(path: &Path, position: u64) -> EtlError {
    EtlError::new(ErrorKind::Relay, "a relay segment is damaged")
        .with("path", path.display())
        .with("position", position)
        .hint("Check the disk; remove the relay's directory, and the tables that need it are copied again")
}

pub(super) fn failed(doing: &str, path: &Path, error: io::Error) -> EtlError {
    let kind = ErrorKind::of_disk(&error);
    let hint = match kind {
        ErrorKind::DiskFull => "Free some space, or lower relay.max_bytes",
        _ => "Check the directory's owner and mode, and the disk",
    };
    EtlError::new(kind, format!("could not {doing}")).with("path", path.display()).hint(hint).because(error)
}
