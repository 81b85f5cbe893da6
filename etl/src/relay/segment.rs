//! How do blocks get out of memory into files, and back?
//!
//! A segment is the magic and version, then records: length (u32), CRC-32 (u32), log offset (u64), bytes; all
//! big-endian. The checksum covers offset and bytes. A segment is deleted when no block is in it any more.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::error::{ErrorKind, EtlError, EtlResult};

const MAGIC: &[u8; 8] = b"ETLSEG\0\x01";
const HEADER: usize = 16;
const SEGMENT_BYTES: u64 = 64 << 20;

/// The segment to go on with, and where the block of each log offset is.
pub(super) type Written = (Option<Arc<Segment>>, Vec<(u64, Record)>);

/// The directory of the segments.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    max_bytes: u64,
    next: AtomicU64,
    bytes: AtomicU64,
}

/// One file. Dropping it deletes it.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    len: AtomicU64,
    segments: Arc<Segments>,
}

/// Where a block is.
#[derive(Debug, Clone)]
pub(super) struct Record {
    segment: Arc<Segment>,
    position: u64,
    len: usize,
}

impl Segments {
    /// Deletes what an earlier run left: its log is gone, so nothing refers to it.
    pub(super) fn open(dir: PathBuf, max_bytes: u64) -> EtlResult<Self> {
        match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read the relay's directory", &dir, error)),
            Ok(entries) => {
                for entry in entries {
                    let path = entry.map_err(|e| failed("read the relay's directory", &dir, e))?.path();
                    if path.extension().is_some_and(|e| e == "seg") {
                        fs::remove_file(&path).map_err(|e| failed("delete an old relay segment", &path, e))?;
                    }
                }
            }
        }
        Ok(Self { dir, max_bytes, next: AtomicU64::new(0), bytes: AtomicU64::new(0) })
    }

    /// What all segments occupy.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What may still be written.
    pub(super) fn room(&self) -> u64 {
        self.max_bytes.saturating_sub(self.bytes())
    }

    /// Bytes that a block of this length occupies, with a new segment's header.
    pub(super) fn cost(len: usize) -> u64 {
        (len + HEADER + MAGIC.len()) as u64
    }

    fn create(self: &Arc<Self>) -> EtlResult<Arc<Segment>> {
        fs::create_dir_all(&self.dir).map_err(|e| failed("create the relay's directory", &self.dir, e))?;
        let path = self.dir.join(format!("{:016x}.seg", self.next.fetch_add(1, Ordering::Relaxed)));
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|e| failed("create a relay segment", &path, e))?;
        let segment = Arc::new(Segment { path, file, len: AtomicU64::new(0), segments: Arc::clone(self) });
        segment.append(MAGIC)?;
        Ok(segment)
    }

    /// Writes blocks behind each other, into `current` while that has room. Blocks the thread.
    pub(super) fn write(
        self: &Arc<Self>,
        mut current: Option<Arc<Segment>>,
        blocks: &[(u64, Bytes)],
    ) -> EtlResult<Written> {
        let mut records = Vec::with_capacity(blocks.len());
        for (offset, bytes) in blocks {
            let segment = match current.take() {
                Some(segment) if segment.len.load(Ordering::Relaxed) < SEGMENT_BYTES => segment,
                _ => self.create()?,
            };
            let len = u32::try_from(bytes.len()).map_err(|_| {
                EtlError::new(ErrorKind::Relay, "a block is too large for a relay segment").with("bytes", bytes.len())
            })?;
            let mut record = Vec::with_capacity(HEADER + bytes.len());
            record.extend(len.to_be_bytes());
            record.extend(checksum(*offset, bytes).to_be_bytes());
            record.extend(offset.to_be_bytes());
            record.extend(&bytes[..]);
            let position = segment.append(&record)?;
            records.push((*offset, Record { segment: Arc::clone(&segment), position, len: bytes.len() }));
            current = Some(segment);
        }
        Ok((current, records))
    }
}

impl Segment {
    /// Whether no block is in it any more.
    pub(super) fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }

    fn append(&self, bytes: &[u8]) -> EtlResult<u64> {
        let len = bytes.len() as u64;
        // The place is taken before it is written, so that a cancelled write is never written over.
        let position = self.len.fetch_add(len, Ordering::Relaxed);
        self.segments.bytes.fetch_add(len, Ordering::Relaxed);
        self.file.write_all_at(bytes, position).map_err(|e| failed("write a relay segment", &self.path, e))?;
        Ok(position)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.segments.bytes.fetch_sub(self.len.load(Ordering::Relaxed), Ordering::Relaxed);
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "could not delete a relay segment");
        }
    }
}

impl Record {
    /// Whether both are the same place in the same file.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.segment, &other.segment) && self.position == other.position
    }

    /// Reads the block that was written for this log offset. Blocks the thread.
    pub(super) fn load(&self, offset: u64) -> EtlResult<Bytes> {
        let mut record = vec![0; HEADER + self.len];
        let read = self.segment.file.read_exact_at(&mut record, self.position);
        read.map_err(|e| failed("read a relay segment", &self.segment.path, e))?;
        let mut header = Bytes::from(record);
        let block = header.split_off(HEADER);
        let mut expected = Vec::with_capacity(HEADER);
        expected.extend(u32::try_from(self.len).unwrap_or(u32::MAX).to_be_bytes());
        expected.extend(checksum(offset, &block).to_be_bytes());
        expected.extend(offset.to_be_bytes());
        if header == expected {
            return Ok(block);
        }
        Err(EtlError::new(ErrorKind::Relay, "a relay segment is damaged")
            .with("path", self.segment.path.display())
            .with("position", self.position)
            .hint("Check the disk; the tables that needed it are copied again after a restart"))
    }
}

fn checksum(offset: u64, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&offset.to_be_bytes());
    crc.update(bytes);
    crc.finalize()
}

fn failed(doing: &str, path: &Path, error: io::Error) -> EtlError {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Free some space, or lower relay.max_bytes",
        _ => "Check the directory's owner and mode, and the disk",
    };
    EtlError::new(ErrorKind::Disk, format!("could not {doing}")).with("path", path.display()).hint(hint).because(error)
}
