//! Which transactions are prepared at the source? Their files, which survive every end of the program.
//!
//! What the source has sent of a prepared transaction it does not send again once the slot is past the PREPARE. So the
//! spool file is synced before that is said, and beside it a note, which says what is in it. Both stay until the slot is
//! past the end of the transaction: until then it may be asked for again.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, BufMut};

use super::record::{get_contents, put_contents};
use super::segment::{Segments, delete, failed, files};
use super::spool::{Contents, Spool, Spooled};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;

/// Begins a note, before the CRC-32 of the rest.
const MAGIC: &[u8; 8] = b"ETLPREP\x01";

/// The kind of a note, and of the file that says where its transaction ended.
const NOTE: &str = "prepared";
const FINISHED: &str = "finished";

/// A prepared transaction, as the source names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    /// The transaction id at the source.
    pub xid: u32,
    /// The name that the user gave it.
    pub gid: Box<str>,
    /// The LSN of its PREPARE.
    pub prepare: Lsn,
}

impl Prepare {
    fn is(&self, xid: u32, gid: &str) -> bool {
        self.xid == xid && &*self.gid == gid
    }
}

/// The prepared transactions that are here.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    held: Vec<Held>,
    /// Nothing that ended up to here is asked for again.
    passed: Lsn,
}

#[derive(Debug)]
struct Held {
    which: Prepare,
    spooled: Arc<Spooled>,
    note: PathBuf,
    /// Where it was committed, once it was.
    finished: Option<Lsn>,
}

/// What becomes of a transaction that is committed now.
#[derive(Debug)]
pub(super) enum Found {
    /// This is its file.
    Here(Arc<Spooled>),
    /// It was committed before, and everybody has it.
    Passed,
    /// It was here, or should have been.
    Lost,
}

impl Prepared {
    /// What an earlier log has left. Blocks the thread, as all do that return a result.
    pub(super) fn recover(segments: &Arc<Segments>) -> EtlResult<Self> {
        let mut held = Vec::new();
        for (_, note) in files(&segments.dir, NOTE)? {
            let bytes = match fs::read(&note) {
                // Somebody was about to delete it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.map_err(|e| failed("read what is prepared", &note, e))?,
            };
            let known = match decode(&bytes) {
                Some((which, contents)) if contents.is_whole(&segments.dir)? => Some((which, contents)),
                _ => None,
            };
            let Some((which, contents)) = known else {
                // Whether anybody needs it shows when it is committed.
                tracing::warn!(path = %note.display(), "a prepared transaction is damaged");
                delete(note, ());
                continue;
            };
            let text = fs::read_to_string(note.with_extension(FINISHED)).ok();
            let finished = text.and_then(|text| text.trim().parse().ok());
            let spooled = Arc::new(Spooled::open(segments, contents, false)?);
            held.push(Held { which, spooled, note, finished });
        }
        let prepared = Self { held, passed: Lsn::ZERO };
        for (number, path) in files(&segments.dir, FINISHED)? {
            if prepared.spooled(number).is_none() {
                delete(path, ());
            }
        }
        Ok(prepared)
    }

    /// The file of this number.
    pub(super) fn spooled(&self, number: u64) -> Option<Arc<Spooled>> {
        self.held.iter().map(|held| &held.spooled).find(|spooled| spooled.contents().number == number).cloned()
    }

    /// The numbers of all files.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.held.iter().map(|held| held.spooled.contents().number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn has(&self, which: &Prepare) -> bool {
        self.held.iter().any(|held| held.which == *which)
    }

    /// It is prepared, and on disk for good.
    pub(super) fn add(&mut self, which: Prepare, spooled: Arc<Spooled>, note: PathBuf) {
        self.forget(which.xid, &which.gid);
        self.held.push(Held { which, spooled, note, finished: None });
    }

    /// It is committed, and ends there.
    pub(super) fn find(&mut self, xid: u32, gid: &str, end: Lsn) -> EtlResult<Found> {
        if end <= self.passed {
            self.forget(xid, gid);
            return Ok(Found::Passed);
        }
        let Some(held) = self.held.iter_mut().find(|held| held.which.is(xid, gid)) else { return Ok(Found::Lost) };
        if held.finished.is_none() {
            // Lost in a power failure, it costs the room of the file.
            let path = held.note.with_extension(FINISHED);
            fs::write(&path, end.to_string())
                .map_err(|e| failed("note the end of a prepared transaction", &path, e))?;
            held.finished = Some(end);
        }
        Ok(Found::Here(Arc::clone(&held.spooled)))
    }

    /// It was rolled back.
    pub(super) fn forget(&mut self, xid: u32, gid: &str) {
        self.held.extract_if(.., |held| held.which.is(xid, gid)).for_each(Held::delete);
    }

    /// Nothing that ended up to here is asked for again.
    pub(super) fn pass(&mut self, end: Lsn) {
        self.passed = self.passed.max(end);
        let is_over = |held: &mut Held| held.finished.is_some_and(|finished| finished <= end);
        self.held.extract_if(.., is_over).for_each(Held::delete);
    }
}

impl Held {
    fn delete(self) {
        if self.finished.is_some() {
            delete(self.note.with_extension(FINISHED), ());
        }
        // The note goes first: none stands for a file that is gone.
        delete(self.note, self.spooled);
    }
}

/// Makes a transaction survive that is prepared, with what is known of it; returns where that is. Blocks the thread.
pub(super) fn keep(segments: &Segments, which: &Prepare, spool: &Spool, names_them: bool) -> EtlResult<PathBuf> {
    spool.sync()?;
    let contents = spool.contents(names_them);
    let note = segments.dir.join(format!("{:016x}.{NOTE}", contents.number));
    let failed = |error| failed("note what is prepared", &note, error);
    let bytes = encode(which, &contents).ok_or_else(|| {
        EtlError::new(ErrorKind::Relay, "a prepared transaction is too large for the relay")
            .with("gid", &which.gid)
            .hint("Set source.postgres.two_phase to false for a new slot")
    })?;
    let mut file = File::create(&note).map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    segments.sync_names()?;
    Ok(note)
}

/// Whether there is a note for this spool file; its end may be unknown.
fn encode(which: &Prepare, contents: &Contents) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    body.put_u32(which.xid);
    body.put_u64(which.prepare.0);
    body.put_u32(u32::try_from(which.gid.len()).ok()?);
    body.put_slice(which.gid.as_bytes());
    put_contents(&mut body, contents)?;
    Some([&MAGIC[..], &crc32fast::hash(&body).to_be_bytes(), &body].concat())
}

fn decode(bytes: &[u8]) -> Option<(Prepare, Contents)> {
    let mut from = bytes.strip_prefix(MAGIC)?;
    if from.try_get_u32().ok()? != crc32fast::hash(from) {
        return None;
    }
    let (xid, prepare) = (from.try_get_u32().ok()?, Lsn(from.try_get_u64().ok()?));
    let length = from.try_get_u32().ok()? as usize;
    let (gid, mut rest) = from.split_at_checked(length)?;
    let which = Prepare { xid, gid: std::str::from_utf8(gid).ok()?.into(), prepare };
    Some((which, get_contents(&mut rest)?))
}
