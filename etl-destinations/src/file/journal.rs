//! What is durable? Lines with a checksum, of which only the last can be half there.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};

use super::error::FileResult;
use super::state::{Entry, State};

/// Beyond this the journal is written anew, as one entry.
const LONGEST: u64 = 16 << 20;

/// The journal of a directory.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// How much of the file is whole entries.
    length: u64,
}

impl Journal {
    /// Whether what is there can be read.
    pub(super) fn look(path: &Path) -> EtlResult<()> {
        Self::read(path).map(drop)
    }

    /// Reads what is there, and writes it anew as one entry.
    pub(super) fn open(path: &Path) -> EtlResult<(Self, State)> {
        let state = Self::read(path)?;
        let journal = Self::begin(path, &state)?;
        Ok((journal, state))
    }

    fn read(path: &Path) -> EtlResult<State> {
        let content = match fs::read(path) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).or_file("read the journal", path),
        };
        read(&content).map_err(|line| {
            EtlError::new(ErrorKind::Disk, "the journal of the files is damaged")
                .with("path", path.display())
                .with("line", line)
                .hint("Bring back a copy, or begin in an empty directory with a new state of the pipeline")
        })
    }

    fn begin(path: &Path, state: &State) -> EtlResult<Self> {
        let fresh = path.with_extension("new");
        let line = line(&state.entry())?;
        let mut file = File::create(&fresh).or_file("write the journal", &fresh)?;
        file.write_all(&line).and_then(|()| file.sync_all()).or_file("write the journal", &fresh)?;
        fs::rename(&fresh, path).or_file("put the journal in place", path)?;
        sync_directory(path.parent().unwrap_or(path))?;
        let mut file = OpenOptions::new().write(true).open(path).or_file("open the journal", path)?;
        let length = file.seek(SeekFrom::End(0)).or_file("open the journal", path)?;
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Makes the entry durable; `state` is what holds before it.
    pub(super) fn append(&mut self, entry: &Entry, state: &State) -> EtlResult<()> {
        if self.length > LONGEST {
            *self = Self::begin(&self.path, state)?;
        }
        let line = line(entry)?;
        // What a failed attempt left behind is written over.
        let written = self
            .file
            .seek(SeekFrom::Start(self.length))
            .and_then(|_| self.file.set_len(self.length))
            .and_then(|()| self.file.write_all(&line))
            .and_then(|()| self.file.sync_data());
        written.or_file("write the journal", &self.path)?;
        self.length += line.len() as u64;
        Ok(())
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> EtlResult<()> {
    File::open(path).and_then(|directory| directory.sync_all()).or_file("make a directory durable", path)
}

fn line(entry: &Entry) -> EtlResult<Vec<u8>> {
    let body = serde_json::to_vec(entry).or_etl(ErrorKind::Internal, "write an entry of the journal")?;
    let mut line = format!("{:08x} ", crc32fast::hash(&body)).into_bytes();
    line.extend(body);
    line.push(b'\n');
    Ok(line)
}

/// The sum of the entries; a last one that is not whole was never acknowledged. The error is the line that is wrong.
fn read(content: &[u8]) -> Result<State, usize> {
    let mut state = State::default();
    let lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
    for (place, line) in lines.iter().enumerate() {
        match parse(line) {
            Some(entry) => state.apply(entry),
            None if place + 1 == lines.len() && place > 0 => {}
            None => return Err(place + 1),
        }
    }
    Ok(state)
}

fn parse(line: &[u8]) -> Option<Entry> {
    let (sum, body) = line.strip_suffix(b"\n")?.split_at_checked(9)?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?.strip_suffix(' ')?, 16).ok()?;
    if crc32fast::hash(body) == sum { serde_json::from_slice(body).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl::{CursorId, Lsn, Position};

    fn at(lsn: u64) -> Entry {
        Entry { cursors: vec![(CursorId::Main, Some(Position::new(Lsn(lsn), 1)))], ..Entry::default() }
    }

    #[test]
    fn every_cut_of_the_last_entry_leaves_the_ones_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, mut state) = Journal::open(&path).unwrap();
        for lsn in [1, 2] {
            journal.append(&at(lsn), &state).unwrap();
            state.apply(at(lsn));
        }
        let whole = fs::read(&path).unwrap();
        let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        for cut in last..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, state) = Journal::open(&path).unwrap();
            let expected = if cut == whole.len() { 2 } else { 1 };
            assert_eq!(state.position(CursorId::Main), Some(Position::new(Lsn(expected), 1)), "{cut}");
            journal.append(&at(3), &state).unwrap();
            assert_eq!(Journal::open(&path).unwrap().1.position(CursorId::Main), Some(Position::new(Lsn(3), 1)));
        }
    }

    #[test]
    fn damage_before_the_end_is_an_error_that_names_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, state) = Journal::open(&path).unwrap();
        journal.append(&at(1), &state).unwrap();
        journal.append(&at(2), &state).unwrap();
        let mut content = fs::read(&path).unwrap();
        content[9] ^= 1;
        fs::write(&path, content).unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert_eq!((error.kind(), error.context("line")), (ErrorKind::Disk, Some("1")), "{error}");
    }
}
