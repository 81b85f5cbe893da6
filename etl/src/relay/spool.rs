//! Where do the changes of a transaction wait that has not committed? In a file of its own, which the log takes over.
//!
//! The file is nothing but frames, one after the other. Where it can be cut, and the CRC-32 of each piece, stays in
//! memory until the log takes the file over; then it is in the record that stands for the file.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};

use super::segment::{Segments, damaged, delete, failed};
use crate::error::EtlResult;

/// A reader loads so much at a time at most, unless what was written at once is larger.
pub(super) const PIECE_BYTES: u64 = 256 << 10;

/// The subtransactions of a streamed transaction that were rolled back: what names them is void.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aborted(Box<[u32]>);

impl Aborted {
    /// These.
    pub(crate) fn new(mut xids: Vec<u32>) -> Self {
        xids.sort_unstable();
        xids.dedup();
        Self(xids.into())
    }

    /// Whether the subtransaction was rolled back.
    pub fn contains(&self, xid: u32) -> bool {
        self.0.binary_search(&xid).is_ok()
    }

    /// All of them, in order.
    pub(super) fn xids(&self) -> &[u32] {
        &self.0
    }
}

/// Whole frames that are loaded together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it ends in the file.
    pub(super) end: u64,
    pub(super) checksum: u32,
}

/// What a file holds, and which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) number: u64,
    pub(super) pieces: Arc<[Piece]>,
    /// Present where the messages name their (sub)transactions.
    pub(super) aborted: Option<Arc<Aborted>>,
}

/// A file of frames. Dropping it deletes it, unless the log has ended and a record or a note stands for it.
/// A segment with such a record keeps it.
#[derive(Debug)]
struct SpoolFile {
    number: u64,
    path: PathBuf,
    file: File,
    len: u64,
    segments: Arc<Segments>,
    /// It belongs to the log, and counts against the log's limit.
    is_adopted: AtomicBool,
    is_recorded: AtomicBool,
}

/// A transaction in progress.
#[derive(Debug)]
pub(super) struct Spool {
    file: SpoolFile,
    piece_bytes: u64,
    pieces: Vec<Piece>,
    /// Of the last piece, while it may grow.
    growing: Option<crc32fast::Hasher>,
    aborted: Vec<u32>,
}

/// A file that the log has taken over.
#[derive(Debug)]
pub(super) struct Spooled {
    file: SpoolFile,
    contents: Contents,
}

impl SpoolFile {
    fn name(dir: &Path, number: u64) -> PathBuf {
        dir.join(format!("{number:016x}.spool"))
    }

    fn sync(&self) -> EtlResult<()> {
        self.file.sync_data().map_err(|e| failed("sync a spool file", &self.path, e))
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.segments.shrank(self.len, self.is_adopted.load(Ordering::Relaxed));
        if !(self.segments.has_ended() && self.is_recorded.load(Ordering::Relaxed)) {
            delete(std::mem::take(&mut self.path), ());
        }
    }
}

impl Spool {
    /// An empty file, to be read in pieces of this size at most, unless more is written at once. Blocks the thread, as the
    /// other methods do.
    pub(super) fn create(segments: &Arc<Segments>, piece_bytes: u64) -> EtlResult<Self> {
        let number = segments.number()?;
        let path = SpoolFile::name(&segments.dir, number);
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|e| failed("create a spool file", &path, e))?;
        let segments = Arc::clone(segments);
        let (is_adopted, is_recorded) = (AtomicBool::new(false), AtomicBool::new(false));
        let file = SpoolFile { number, path, file, len: 0, segments, is_adopted, is_recorded };
        Ok(Self { file, piece_bytes, pieces: Vec::new(), growing: None, aborted: Vec::new() })
    }

    /// Appends whole frames.
    pub(super) fn write(&mut self, frames: &[u8]) -> EtlResult<()> {
        let begin = self.file.len;
        if self.last_piece() + frames.len() as u64 > self.piece_bytes {
            self.growing = None;
        }
        let written = self.file.file.write_all_at(frames, begin);
        written.map_err(|e| failed("write a spool file", &self.file.path, e))?;
        self.file.len += frames.len() as u64;
        self.file.segments.grew(frames.len() as u64, false);
        let mut hasher = self.growing.take().unwrap_or_else(|| {
            self.pieces.push(Piece { end: begin, checksum: 0 });
            crc32fast::Hasher::new()
        });
        hasher.update(frames);
        let checksum = hasher.clone().finalize();
        if let Some(piece) = self.pieces.last_mut() {
            *piece = Piece { end: self.file.len, checksum };
        }
        self.growing = Some(hasher);
        Ok(())
    }

    /// How long the last piece is.
    fn last_piece(&self) -> u64 {
        let before = self.pieces.len().checked_sub(2).and_then(|before| self.pieces.get(before));
        self.file.len - before.map_or(0, |piece| piece.end)
    }

    /// What a subtransaction did is void.
    pub(super) fn abort(&mut self, subxid: u32) {
        self.aborted.push(subxid);
    }

    /// What is in it, whose messages name their (sub)transactions or not.
    pub(super) fn contents(&self, names_them: bool) -> Contents {
        let aborted = names_them.then(|| Arc::new(Aborted::new(self.aborted.clone())));
        Contents { number: self.file.number, pieces: self.pieces.as_slice().into(), aborted }
    }

    /// Nothing is added any more.
    pub(super) fn finish(self, names_them: bool) -> Spooled {
        let contents = self.contents(names_them);
        Spooled { file: self.file, contents }
    }

    /// Makes it survive a power failure.
    pub(super) fn sync(&self) -> EtlResult<()> {
        self.file.sync()
    }
}

impl Contents {
    pub(super) fn len(&self) -> u64 {
        self.pieces.last().map_or(0, |piece| piece.end)
    }

    /// Whether the file is there and is what was written.
    pub(super) fn is_whole(&self, dir: &Path) -> EtlResult<bool> {
        let path = SpoolFile::name(dir, self.number);
        let failed = |error| failed("read a spool file", &path, error);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file.map_err(failed)?,
        };
        if file.metadata().map_err(failed)?.len() < self.len() {
            return Ok(false);
        }
        let (mut start, mut bytes) = (0, Vec::new());
        for piece in &*self.pieces {
            let Some(len) = piece.end.checked_sub(start).and_then(|len| usize::try_from(len).ok()) else {
                return Ok(false);
            };
            bytes.resize(len, 0);
            file.read_exact(&mut bytes).map_err(failed)?;
            if crc32fast::hash(&bytes) != piece.checksum {
                return Ok(false);
            }
            start = piece.end;
        }
        Ok(true)
    }
}

impl Spooled {
    /// The file that an earlier log left, or that it left beside it.
    pub(super) fn open(segments: &Arc<Segments>, contents: Contents, is_logs: bool) -> EtlResult<Self> {
        let path = SpoolFile::name(&segments.dir, contents.number);
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(|e| failed("open a spool file", &path, e))?;
        // What another process has written may not be on disk yet.
        file.sync_all().map_err(|e| failed("sync a spool file", &path, e))?;
        segments.knows(contents.number);
        segments.grew(contents.len(), is_logs);
        let (number, len, segments) = (contents.number, contents.len(), Arc::clone(segments));
        let (is_adopted, is_recorded) = (AtomicBool::new(is_logs), AtomicBool::new(true));
        Ok(Self { file: SpoolFile { number, path, file, len, segments, is_adopted, is_recorded }, contents })
    }

    /// It has committed: it belongs to the log from now on, and counts against its limit.
    pub(super) fn is_adopted(&self) {
        if !self.file.is_adopted.swap(true, Ordering::Relaxed) {
            self.file.segments.shrank(self.file.len, false);
            self.file.segments.grew(self.file.len, true);
        }
    }

    pub(super) fn contents(&self) -> &Contents {
        &self.contents
    }

    pub(super) fn len(&self) -> usize {
        usize::try_from(self.contents.len()).unwrap_or(usize::MAX)
    }

    /// Bytes that its record occupies, beside those of any block.
    pub(super) fn cost(&self) -> u64 {
        let aborted = self.contents.aborted.as_ref().map_or(0, |aborted| aborted.xids().len());
        (32 + self.contents.pieces.len() * 8 + aborted * 4) as u64
    }

    /// A record or a note stands for it: from now on it survives the log.
    pub(super) fn is_recorded(&self) {
        self.file.is_recorded.store(true, Ordering::Relaxed);
    }

    /// Makes it survive a power failure.
    pub(super) fn sync(&self) -> EtlResult<()> {
        self.file.sync()
    }

    /// Which piece has the byte at this place.
    pub(super) fn piece_at(&self, place: u64) -> usize {
        self.contents.pieces.partition_point(|piece| piece.end <= place)
    }

    /// Where a piece lies.
    pub(super) fn place(&self, piece: usize) -> Option<Range<u64>> {
        let start = match piece.checked_sub(1) {
            Some(before) => self.contents.pieces.get(before)?.end,
            None => 0,
        };
        Some(start..self.contents.pieces.get(piece)?.end)
    }

    /// How long a piece is.
    pub(super) fn piece_len(&self, piece: usize) -> usize {
        let place = self.place(piece).unwrap_or_default();
        usize::try_from(place.end.saturating_sub(place.start)).unwrap_or_default()
    }

    /// Reads a piece into an empty buffer, of which it keeps a part. Blocks the thread.
    pub(super) fn load_into(&self, piece: usize, buffer: &mut BytesMut) -> EtlResult<Bytes> {
        let path = &self.file.path;
        let place = self.place(piece).unwrap_or_default();
        buffer.resize(self.piece_len(piece), 0);
        self.file.file.read_exact_at(buffer, place.start).map_err(|e| failed("read a spool file", path, e))?;
        let checksum = self.contents.pieces.get(piece).map(|piece| piece.checksum);
        if buffer.is_empty() || checksum != Some(crc32fast::hash(buffer)) {
            return Err(damaged(path, place.start));
        }
        Ok(buffer.split().freeze())
    }
}

/// Deletes the spool files but these: those of transactions that were in progress.
pub(super) fn sweep(dir: &Path, known: &[u64]) -> EtlResult<()> {
    for (number, path) in super::segment::files(dir, "spool")? {
        if !known.contains(&number) {
            match fs::remove_file(&path) {
                // Somebody was about to delete it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                deleted => deleted.map_err(|e| failed("delete a spool file", &path, e))?,
            }
        }
    }
    Ok(())
}
