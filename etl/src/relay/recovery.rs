//! What did an earlier log leave on disk, and how far is it whole?

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::Content;
use super::log::Log;
use super::prepared::Prepared;
use super::record::{Description, HEADER, Header, Synced};
use super::segment::{MAGIC, Segment, Segments, damaged, failed, files};
use super::spill::Pen;
use super::spool::{Contents, Spooled, sweep};
use crate::error::{ErrorKind, EtlError, EtlResult};

/// Reads all segments, cuts off what was torn, and drops the incomplete last transaction.
///
/// # Errors
/// `Relay` when what was synced is damaged, or of another version; `Disk`.
pub(super) fn recover(segments: &Arc<Segments>) -> EtlResult<(Log, Pen, Prepared)> {
    let mut log = Log::default();
    let recovered = recover_into(&mut log, segments);
    if recovered.is_err() {
        // What was read so far is for another attempt.
        segments.end();
    }
    recovered.map(|(pen, prepared)| (log, pen, prepared))
}

fn recover_into(log: &mut Log, segments: &Arc<Segments>) -> EtlResult<(Pen, Prepared)> {
    let prepared = Prepared::recover(segments)?;
    let (mut last, mut spools) = (None, prepared.numbers().collect());
    let mut found = files(&segments.dir, "seg")?.into_iter();
    for (number, path) in found.by_ref() {
        let scan = Scan::open(number, path)?;
        let (segment, is_whole) = take(scan, segments, log, (&prepared, &mut spools))?;
        last = segment.or(last);
        if !is_whole {
            break;
        }
    }
    for (number, path) in found {
        // Written after what was torn, and never synced: else that would have been too.
        drop(Scan::open(number, path)?.into_segment(segments, 0)?);
    }
    log.rewind_unread();
    sweep(&segments.dir, &spools)?;
    if last.is_some() {
        segments.sync_names()?;
    }
    Ok((Pen::behind(last, log.head().end), prepared))
}

/// Reads one segment from its beginning.
struct Scan {
    number: u64,
    path: PathBuf,
    file: File,
    len: u64,
    position: u64,
}

enum Next {
    /// A record that is whole, and where it begins.
    Record {
        position: u64,
        header: Header,
        description: Box<Description>,
    },
    /// No record, but perhaps another behind it.
    Damaged,
    End,
}

impl Scan {
    fn open(number: u64, path: PathBuf) -> EtlResult<Self> {
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(|e| failed("open a relay segment", &path, e))?;
        let len = file.metadata().map_err(|e| failed("open a relay segment", &path, e))?.len();
        Ok(Self { number, path, file, len, position: 0 })
    }

    fn contents(&self) -> EtlResult<BufReader<File>> {
        let file = self.file.try_clone().map_err(|e| failed("read a relay segment", &self.path, e))?;
        Ok(BufReader::with_capacity(1 << 20, file))
    }

    /// False when the file ends before its magic does.
    fn magic(&mut self, from: &mut impl io::Read) -> EtlResult<bool> {
        if self.len < MAGIC.len() as u64 {
            return Ok(false);
        }
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic).map_err(|e| failed("read a relay segment", &self.path, e))?;
        self.position = MAGIC.len() as u64;
        if magic != *MAGIC && magic != [0; MAGIC.len()] {
            return Err(EtlError::new(ErrorKind::Relay, "a relay segment is of another version, or damaged")
                .with("path", self.path.display())
                .hint("Remove the relay's directory, and the tables that need it are copied again"));
        }
        Ok(magic == *MAGIC)
    }

    fn next(&mut self, from: &mut impl io::Read, body: &mut Vec<u8>) -> EtlResult<Next> {
        let left = self.len - self.position;
        if left < HEADER as u64 {
            self.position = self.len;
            return Ok(if left == 0 { Next::End } else { Next::Damaged });
        }
        let position = self.position;
        let mut header = [0; HEADER];
        from.read_exact(&mut header).map_err(|e| failed("read a relay segment", &self.path, e))?;
        let header = Header::decode(&header).filter(|header| header.body() <= left - HEADER as u64);
        let Some((header, length)) = header.and_then(|h| Some((h, usize::try_from(h.body()).ok()?))) else {
            self.position = self.len;
            return Ok(Next::Damaged);
        };
        body.resize(length, 0);
        from.read_exact(body).map_err(|e| failed("read a relay segment", &self.path, e))?;
        self.position += (HEADER + length) as u64;
        let description = body.get(..header.description).filter(|_| header.fits(body)).and_then(Description::decode);
        Ok(match description {
            Some(description) => Next::Record { position, header, description: Box::new(description) },
            None => Next::Damaged,
        })
    }

    /// The segment, without what is behind `len`. It is deleted when it is dropped.
    fn into_segment(self, segments: &Arc<Segments>, len: u64) -> EtlResult<Segment> {
        if len < self.len {
            self.file.set_len(len).map_err(|e| failed("cut off what was torn of a relay segment", &self.path, e))?;
        }
        // What another process has written may not be on disk yet.
        self.file.sync_all().map_err(|e| failed("sync a relay segment", &self.path, e))?;
        Ok(segments.adopt(self.number, self.path, self.file, len))
    }
}

/// Takes over what is whole, with the spool files that it stands for; says whether that is all there is.
fn take(
    mut scan: Scan,
    segments: &Arc<Segments>,
    log: &mut Log,
    (prepared, spools): (&Prepared, &mut Vec<u64>),
) -> EtlResult<(Option<Arc<Segment>>, bool)> {
    let mut from = scan.contents()?;
    let mut body = Vec::new();
    let mut whole = Vec::new();
    let mut torn = if scan.magic(&mut from)? { None } else { Some(0) };
    while torn != Some(0) {
        let begin = scan.position;
        match scan.next(&mut from, &mut body)? {
            Next::End => break,
            Next::Damaged => torn = torn.or(Some(begin)),
            Next::Record { description, position, header } => match torn {
                // The file that it stands for was written before it, and synced after it.
                None if !is_there(&description, &segments.dir)? => torn = Some(begin),
                None => whole.push((description, position, header)),
                Some(torn) => not_synced(&scan.path, scan.number, torn, description.synced)?,
            },
        }
    }
    let end = torn.unwrap_or(scan.len);
    let (path, number) = (scan.path.clone(), scan.number);
    if torn.is_some() {
        later(segments, number, |synced| not_synced(&path, number, end, synced))?;
    }
    let segment = Arc::new(scan.into_segment(segments, end)?);
    for (description, position, header) in whole {
        let record = segment.record(position, header.description, header.block);
        let open = |contents: Contents| match prepared.spooled(contents.number) {
            Some(spooled) => Ok(spooled),
            None => Spooled::open(segments, contents, true).map(Arc::new),
        };
        let spooled = description.spooled.clone().map(open).transpose()?;
        if let Some(spooled) = &spooled {
            spooled.is_adopted();
            spools.push(spooled.contents().number);
            record.keeps(Arc::clone(spooled));
        }
        let content = Content { disk: Some(record), spooled, memory: None };
        log.recover(*description, content).ok_or_else(|| damaged(&path, position))?;
    }
    Ok(((end > MAGIC.len() as u64).then_some(segment), torn.is_none()))
}

/// Whether the file is whole that has the record's block, where there is one.
fn is_there(description: &Description, dir: &Path) -> EtlResult<bool> {
    description.spooled.as_ref().map_or(Ok(true), |contents| contents.is_whole(dir))
}

/// What the segments after this one say was synced.
fn later(segments: &Segments, number: u64, check: impl Fn(Synced) -> EtlResult<()>) -> EtlResult<()> {
    for (later, path) in files(&segments.dir, "seg")? {
        if later <= number {
            continue;
        }
        let mut scan = Scan::open(later, path)?;
        let mut from = scan.contents()?;
        let mut body = Vec::new();
        if !scan.magic(&mut from)? {
            continue;
        }
        loop {
            match scan.next(&mut from, &mut body)? {
                Next::End => break,
                Next::Damaged => {}
                Next::Record { description, .. } => check(description.synced)?,
            }
        }
    }
    Ok(())
}

/// What was synced cannot be torn.
fn not_synced(path: &Path, segment: u64, position: u64, synced: Synced) -> EtlResult<()> {
    if synced > (Synced { segment, position }) {
        return Err(damaged(path, position));
    }
    Ok(())
}
