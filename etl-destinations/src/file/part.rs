//! How is a file written that is not complete yet?

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use etl::error::EtlResult;

use super::error::FileResult;
use super::state::Part;

/// An open part file.
#[derive(Debug)]
pub(super) struct PartFile {
    file: File,
    path: PathBuf,
    is_synced: bool,
}

impl PartFile {
    /// Opens the part, or makes it, and cuts off what was not made durable.
    pub(super) fn open(root: &Path, part: &Part) -> EtlResult<Self> {
        let path = root.join(&part.name.directory).join(part.name.partial());
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let mut file = file.or_file("open a file", &path)?;
        file.set_len(part.bytes).or_file("cut a file", &path)?;
        file.seek(SeekFrom::Start(part.bytes)).or_file("open a file", &path)?;
        Ok(Self { file, path, is_synced: false })
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> EtlResult<()> {
        self.is_synced = false;
        self.file.write_all(bytes).or_file("write a file", &self.path)
    }

    pub(super) fn sync(&mut self) -> EtlResult<()> {
        if !self.is_synced {
            self.file.sync_data().or_file("make a file durable", &self.path)?;
            self.is_synced = true;
        }
        Ok(())
    }
}
