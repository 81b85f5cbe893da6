//! What does a small disk look like, and a full one? A file system in memory, mounted for as long as a test needs it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::skip::skip;

/// A disk of its own. Dropping it, after a panic too, unmounts it.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    bytes: u64,
}

impl SmallDisk {
    /// Mounts so many mebibytes at the directory, which is made; `None` counts as a skip: who runs this may not mount.
    #[must_use]
    pub fn mount_or_skip(path: &Path, mebibytes: u64) -> Option<Self> {
        let bytes = mebibytes << 20;
        let mounted = fs::create_dir_all(path).and_then(|()| {
            let size = format!("size={bytes},mode=0700");
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "etl-small-disk"]).arg(path))
        });
        match mounted {
            Ok(_) => Some(Self { path: path.to_owned(), bytes }),
            Err(error) => {
                skip(&format!("a small disk cannot be mounted: {error}"));
                None
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no room at all.
    ///
    /// # Errors
    /// The size could not be changed.
    pub fn fill(&self) -> io::Result<()> {
        let mut last = Ok(());
        for _ in 0..100 {
            // What is written meanwhile makes this fail: it is never smaller than what is there.
            last = self.resize(self.used()?.max(4096));
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Makes it larger, for good.
    ///
    /// # Errors
    /// The size could not be changed.
    pub fn enlarge(&mut self, mebibytes: u64) -> io::Result<()> {
        self.bytes = mebibytes << 20;
        self.make_room()
    }

    /// Makes room again; on a disk that has room it does nothing.
    ///
    /// # Errors
    /// The size could not be changed.
    pub fn make_room(&self) -> io::Result<()> {
        self.resize(self.bytes)
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        let size = format!("remount,size={bytes}");
        run(Command::new("mount").args(["-o", &size]).arg(&self.path)).map(drop)
    }

    fn used(&self) -> io::Result<u64> {
        let output = run(Command::new("df").args(["--output=used", "-B1"]).arg(&self.path))?;
        let used = output.lines().nth(1).and_then(|line| line.trim().parse().ok());
        used.ok_or_else(|| io::Error::other(output))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = run(Command::new("umount").arg(&self.path));
        // One that somebody still uses goes when they are done.
        let unmounted = unmounted.or_else(|_| run(Command::new("umount").arg("-l").arg(&self.path)));
        if let Err(error) = unmounted {
            eprintln!("{} is still mounted: {error}", self.path.display());
        }
    }
}

fn run(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_is_full_until_there_is_room_and_gone_after_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        let Some(disk) = SmallDisk::mount_or_skip(&path, 8) else { return };
        fs::write(path.join("kept"), "before").unwrap();
        disk.fill().unwrap();
        assert_eq!(fs::write(path.join("more"), [0; 5000]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.make_room().unwrap();
        fs::write(path.join("more"), [0; 5000]).unwrap();
        let panicked = std::thread::spawn(move || {
            let _disk = disk;
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "it is unmounted");
    }
}
