//! Whose directory is this? A pipeline's files, locked while it runs.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind as Io, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, EtlError, EtlResult};

/// Whether a pipeline with this id could run on the directory; creates and marks one that is missing.
///
/// # Errors
/// [`Disk`](ErrorKind::Disk) when it cannot be written, [`Locked`](ErrorKind::Locked) when a pipeline runs on it,
/// [`Config`](ErrorKind::Config) when it is another pipeline's.
pub fn check_data_dir(path: &Path, pipeline: &str) -> EtlResult<()> {
    DataDir::lock(path, pipeline).map(drop)
}

/// A pipeline's directory: while this is there, nobody else runs on it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory where it is missing, locks it, and makes sure that it is this pipeline's.
    ///
    /// # Errors
    /// [`Disk`](ErrorKind::Disk) when it cannot be written, [`Locked`](ErrorKind::Locked) when a pipeline runs
    /// on it, [`Config`](ErrorKind::Config) when it is another pipeline's.
    pub fn lock(path: &Path, pipeline: &str) -> EtlResult<Self> {
        let failed = |doing: &str, error: std::io::Error| {
            let hint = match error.kind() {
                Io::StorageFull => "Free some space on the disk",
                _ => "Let the user that runs this write to data_dir, or choose another one",
            };
            EtlError::new(ErrorKind::Disk, format!("could not {doing}"))
                .with("data_dir", path.display())
                .because(error)
                .hint(hint)
        };
        std::fs::create_dir_all(path).map_err(|e| failed("create the data directory", e))?;
        let file = path.join("pipeline");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut lock = options.open(&file).map_err(|e| failed("write to the data directory", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(EtlError::new(ErrorKind::Locked, "another process is running on this data directory")
                    .with("data_dir", path.display())
                    .hint("Stop it, or give this pipeline its own data_dir"));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock the data directory", error)),
        }
        let mut owner = String::new();
        lock.read_to_string(&mut owner).map_err(|e| failed("read the data directory", e))?;
        match owner.trim() {
            "" => {
                lock.seek(SeekFrom::Start(0)).map_err(|e| failed("write to the data directory", e))?;
                writeln!(lock, "{pipeline}").map_err(|e| failed("write to the data directory", e))?;
                lock.sync_all().map_err(|e| failed("write to the data directory", e))?;
            }
            owner if owner == pipeline => {}
            owner => {
                return Err(EtlError::new(ErrorKind::Config, "the data directory belongs to another pipeline")
                    .with("data_dir", path.display())
                    .with("belongs to", owner)
                    .with("pipeline", pipeline)
                    .hint("Give each pipeline its own data_dir"));
            }
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where the relay keeps its segments.
    pub(super) fn relay(&self) -> PathBuf {
        self.path.join("relay")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_running_pipelines_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let held = DataDir::lock(&path, "shop").unwrap();
        assert_eq!(DataDir::lock(&path, "shop").unwrap_err().kind(), ErrorKind::Locked);
        drop(held);
        assert_eq!(DataDir::lock(&path, "other").unwrap_err().kind(), ErrorKind::Config);
        DataDir::lock(&path, "shop").unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let error = DataDir::lock(&file.join("sub"), "shop").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disk);
        assert!(error.to_string().contains("sub"));
    }
}
