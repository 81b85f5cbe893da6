//! How does a file appear as a whole? Under another name first, made durable, then by its own.

use std::path::Path;

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::failpoint;
use futures_util::stream::{FuturesUnordered, StreamExt};
use russh_sftp::protocol::{FileAttributes, OpenFlags};
use tokio::io::AsyncReadExt;

use super::error::Fault;
use super::session::Session;

/// How many writes are under way at a time.
const WRITES: usize = 16;

/// Where a file is to be, and what it is called until it is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The directories on the way to it, each with those before it.
    pub(super) directories: Vec<String>,
    /// The directory that it is in.
    pub(super) directory: String,
    /// What it is called while it is written, in the same directory.
    pub(super) part: String,
    /// Its path.
    pub(super) path: String,
}

/// Why a file is not there.
pub(super) struct Failed {
    pub(super) error: EtlError,
    /// Whether it may be there all the same.
    pub(super) in_doubt: bool,
}

impl From<EtlError> for Failed {
    fn from(error: EtlError) -> Self {
        Self { error, in_doubt: false }
    }
}

/// Puts the file there. One that is there already, whole, stays as it is.
///
/// # Errors
/// Why it is not; where the answer to the rename is lost, it may be.
pub(super) async fn put(session: &Session, body: &Path, place: &Place) -> Result<(), Failed> {
    let bytes = tokio::fs::metadata(body).await.map_err(|error| unreadable(body, error))?.len();
    if let Some(there) = size(session, &place.path).await? {
        return if there == bytes { Ok(()) } else { Err(taken(place, there, bytes).into()) };
    }
    make_directories(session, &place.directories).await?;
    write(session, body, bytes, place).await?;
    if let Some(written) = size(session, &place.part).await?
        && written != bytes
    {
        return Err(other_size(&place.part, written, bytes).into());
    }
    failpoint::visit("sftp.before_rename").await?;
    rename(session, place).await.map_err(|fault| Failed {
        in_doubt: fault.is_lost(),
        error: if fault.is_missing() { vanished(place) } else { fault.error("give a file its name", &place.path) },
    })?;
    sync_directory(session, &place.directory).await;
    failpoint::visit("sftp.after_rename").await?;
    // A file that is not there any more was taken already.
    match size(session, &place.path).await.map_err(|error| Failed { error, in_doubt: true })? {
        Some(there) if there != bytes => Err(other_size(&place.path, there, bytes).into()),
        _ => Ok(()),
    }
}

/// How large a file is; `None` where there is none.
pub(super) async fn size(session: &Session, path: &str) -> EtlResult<Option<u64>> {
    match session.ask(session.sftp.stat(path)).await {
        Ok(found) => Ok(Some(found.attrs.size.unwrap_or_default())),
        Err(fault) if fault.is_missing() => Ok(None),
        Err(fault) => Err(fault.error("look at a file", path)),
    }
}

/// Makes the directories that are missing.
///
/// # Errors
/// What the server says.
pub(super) async fn make_directories(session: &Session, directories: &[String]) -> EtlResult<()> {
    let mut missing = Vec::new();
    for directory in directories.iter().rev() {
        if size(session, directory).await?.is_some() {
            break;
        }
        missing.push(directory);
    }
    for directory in missing.into_iter().rev() {
        let made = session.ask(session.sftp.mkdir(directory, FileAttributes::empty())).await;
        // Somebody else may have made it meanwhile.
        if let Err(fault) = made
            && (fault.is_lost() || size(session, directory).await?.is_none())
        {
            return Err(fault.error("make a directory", directory).with("step", "directory"));
        }
    }
    Ok(())
}

async fn write(session: &Session, body: &Path, bytes: u64, place: &Place) -> EtlResult<()> {
    let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
    let opened = session.ask(session.sftp.open(&place.part, flags, FileAttributes::empty())).await;
    let handle = opened.map_err(|fault| fault.error("make a file", &place.part))?.handle;
    let written = match write_all(session, body, &handle, &place.part).await {
        Ok(()) if session.can_sync() => {
            let synced = session.ask(session.sftp.fsync(&handle)).await;
            synced.map(drop).map_err(|fault| fault.error("make a file durable", &place.part))
        }
        other => other,
    };
    // Some servers say only now that there was no room.
    let closed = session.ask(session.sftp.close(&handle)).await;
    let written = written.and(closed.map(drop).map_err(|fault| fault.error("close a file", &place.part)));
    match written {
        Err(error) if session.is_open() => {
            let error = full(session, place, bytes).await.unwrap_or(error);
            // What is there of it is of no use, and takes room.
            let removed = session.ask(session.sftp.remove(&place.part)).await;
            Err(error.with("is_removed", removed.is_ok()))
        }
        other => other,
    }
}

async fn write_all(session: &Session, body: &Path, handle: &str, path: &str) -> EtlResult<()> {
    let mut file = tokio::fs::File::open(body).await.map_err(|error| unreadable(body, error))?;
    let mut under_way = FuturesUnordered::new();
    let mut offset = 0;
    loop {
        let mut chunk = Vec::with_capacity(session.write_bytes);
        let mut limited = (&mut file).take(session.write_bytes as u64);
        limited.read_to_end(&mut chunk).await.map_err(|error| unreadable(body, error))?;
        let length = chunk.len() as u64;
        if length > 0 {
            failpoint::visit("sftp.write").await?;
            under_way.push(session.ask(session.sftp.write(handle, offset, chunk)));
            offset += length;
        }
        while under_way.len() >= WRITES || (length == 0 && !under_way.is_empty()) {
            if let Some(Err(fault)) = under_way.next().await {
                return Err(fault.error("write a file", path));
            }
        }
        if length == 0 {
            return Ok(());
        }
    }
}

async fn rename(session: &Session, place: &Place) -> Result<(), Fault> {
    move_to(session, &place.part, &place.path).await
}

/// Gives the file its name. Nothing has that name, as far as is known; where the server can, it is one step even so.
pub(super) async fn move_to(session: &Session, from: &str, to: &str) -> Result<(), Fault> {
    if session.can_replace() {
        return session.replace(from, to).await;
    }
    session.ask(session.sftp.rename(from, to)).await.map(drop)
}

/// Makes the name durable, where the server lets us: most that are not OpenSSH do not open a directory.
pub(super) async fn sync_directory(session: &Session, directory: &str) {
    if !session.can_sync() {
        return;
    }
    let opened = session.ask(session.sftp.open(directory, OpenFlags::READ, FileAttributes::empty())).await;
    if let Ok(opened) = opened {
        let synced = session.ask(session.sftp.fsync(&opened.handle)).await;
        let closed = session.ask(session.sftp.close(&opened.handle)).await;
        tracing::trace!(directory, synced = synced.is_ok(), closed = closed.is_ok(), "a directory was made durable");
    }
}

/// The error that a write is where the disk is full.
async fn full(session: &Session, place: &Place, bytes: u64) -> Option<EtlError> {
    if !session.tells_space() {
        return None;
    }
    let space = session.ask(session.sftp.statvfs(&place.directory)).await.ok()?;
    let room = space.blocks_avail.saturating_mul(space.fragment_size.max(1));
    // What was written of it is there.
    let written = size(session, &place.part).await.ok().flatten().unwrap_or_default();
    (room.saturating_add(written) < bytes || room == 0).then(|| {
        EtlError::new(ErrorKind::DiskFull, "the disk of the SFTP server is full")
            .with("path", &place.directory)
            .with("room", room)
            .with("needed", bytes)
            .hint("Free some space at the server: nothing is lost, and it is tried again")
    })
}

fn taken(place: &Place, there: u64, bytes: u64) -> EtlError {
    EtlError::new(ErrorKind::DestinationRejected, "another file has the name of a file that is to be written")
        .with("path", &place.path)
        .with("its_bytes", there)
        .with("bytes", bytes)
        .hint("Move it away, or give another `path` or `template`: it is not replaced")
}

fn other_size(path: &str, there: u64, bytes: u64) -> EtlError {
    EtlError::new(ErrorKind::DestinationUnavailable, "a file at the SFTP server is not as large as what was written")
        .with("path", path)
        .with("its_bytes", there)
        .with("bytes", bytes)
        .hint("It is written again; look at the server's disk if this comes back")
}

/// Somebody has removed it, or its directory: it is written again.
fn vanished(place: &Place) -> EtlError {
    EtlError::new(ErrorKind::DestinationUnavailable, "a file at the SFTP server is gone before it got its name")
        .with("path", &place.part)
        .hint("It is written again; leave files alone whose names begin with a point")
}

fn unreadable(body: &Path, error: std::io::Error) -> EtlError {
    EtlError::new(ErrorKind::Disk, "could not read a sealed batch")
        .with("path", body.display())
        .because(error)
        .hint("Look at the disk of `data_dir`")
}
