//! Where do the files of a run wait until all are there? In a directory whose name begins with a point, at the paths that they
//! get below `path` when the run is shown.

use std::sync::Arc;

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::failpoint;
use russh_sftp::protocol::{FileAttributes, OpenFlags};

use super::session::Session;
use super::sweep::{below, find_all, names, remove, remove_tree, tree};
use super::upload::{make_directories, move_to, size, sync_directory};
use super::writer::Sftp;
use crate::writer::TargetTable;

/// The file of a run that names the files which it takes the place of, a line each.
const REPLACED: &str = ".replaced";

impl Sftp {
    fn run_prefix(&self) -> String {
        format!(".etl-{}-run-", self.config().home.pipeline)
    }

    pub(super) fn run_directory(&self, run: &str) -> String {
        below(&self.config().path, &format!("{}{run}", self.run_prefix()))
    }

    /// Makes the directory of the run, and removes those of others.
    pub(super) async fn begin_staging(&self, run: &str) -> EtlResult<()> {
        let session = self.client().session().await?;
        let (root, prefix, own) = (&self.config().path, self.run_prefix(), self.run_directory(run));
        for name in names(&session, root).await?.into_iter().filter(|name| name.starts_with(&prefix)) {
            let directory = below(root, &name);
            if directory != own {
                remove_tree(&session, &directory).await?;
            }
        }
        make_directories(&session, &[own]).await
    }

    /// Gives the run's files their names, in the order of these, then removes the files of before that are of these tables.
    /// Nothing is missing meanwhile: a reader may find files of both.
    pub(super) async fn publish_staged(&self, run: &str, tables: &[Arc<TargetTable>]) -> EtlResult<()> {
        let session = self.client().session().await?;
        let staged = self.run_directory(run);
        if size(&session, &staged).await?.is_none() {
            return Err(gone(run, &staged));
        }
        self.show_all(&session, &staged, tables).await
    }

    /// As of a run that takes the place of nothing; whether there was something to show.
    pub(super) async fn append_staged(&self, run: &str) -> EtlResult<bool> {
        let session = self.client().session().await?;
        let staged = self.run_directory(run);
        if size(&session, &staged).await?.is_none() {
            return Ok(false);
        }
        self.show_all(&session, &staged, &[]).await.map(|()| true)
    }

    async fn show_all(&self, session: &Session, staged: &str, tables: &[Arc<TargetTable>]) -> EtlResult<()> {
        let replaced = self.replaced(session, staged, tables).await?;
        let (mut files, _) = tree(session, staged).await?;
        files.sort_unstable();
        let mut ready = Vec::new();
        for file in files {
            let path = file.strip_prefix(staged).unwrap_or(&file).trim_start_matches('/');
            // What begins with a point is not whole, or not a file of rows.
            if !path.rsplit('/').next().is_some_and(|name| name.starts_with('.')) {
                self.show(session, &file, path, &mut ready).await?;
            }
        }
        for directory in &ready {
            sync_directory(session, directory).await;
        }
        failpoint::visit("sftp.run_shown").await?;
        for path in replaced {
            remove(session, &path).await?;
        }
        Ok(())
    }

    /// Gives a file the path that it waits for; `ready` has the directories that are there.
    async fn show(&self, session: &Session, file: &str, path: &str, ready: &mut Vec<String>) -> EtlResult<()> {
        let mut directory = self.config().path.clone();
        let mut directories = Vec::new();
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        for segment in above.split('/').filter(|segment| !segment.is_empty()) {
            directory = below(&directory, segment);
            directories.push(directory.clone());
        }
        if !ready.contains(&directory) {
            make_directories(session, &directories).await?;
            ready.push(directory.clone());
        }
        let path = below(&directory, name);
        move_to(session, file, &path).await.map_err(|fault| fault.error("give a file its name", &path))?;
        failpoint::visit("sftp.file_shown").await
    }

    /// The files that the run takes the place of: those that were there when it was shown for the first time.
    async fn replaced(&self, session: &Session, staged: &str, tables: &[Arc<TargetTable>]) -> EtlResult<Vec<String>> {
        let noted = below(staged, REPLACED);
        if size(session, &noted).await?.is_some() {
            return Ok(read(session, &noted).await?.lines().map(str::to_owned).collect());
        }
        let mut found = Vec::new();
        for table in tables {
            match self.paths_of(&table.name) {
                Some(paths) => found.extend(find_all(session, &self.config().path, &paths).await?),
                None => {
                    tracing::warn!(table = %table.name, "the template does not tell the table's files from others: those of before stay");
                }
            }
        }
        let part = format!("{noted}.part");
        write(session, &part, &found.join("\n")).await?;
        move_to(session, &part, &noted).await.map_err(|fault| fault.error("give a file its name", &noted))?;
        Ok(found)
    }

    /// Removes what is left of the run.
    pub(super) async fn remove_staged(&self, run: &str) -> EtlResult<()> {
        let session = self.client().session().await?;
        remove_tree(&session, &self.run_directory(run)).await
    }
}

/// Writes a small file, and makes it durable where the server can.
async fn write(session: &Session, path: &str, text: &str) -> EtlResult<()> {
    let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
    let opened = session.ask(session.sftp.open(path, flags, FileAttributes::empty())).await;
    let handle = opened.map_err(|fault| fault.error("make a file", path))?.handle;
    let mut written = Ok(());
    for (count, piece) in text.as_bytes().chunks(session.write_bytes).enumerate() {
        let offset = (count * session.write_bytes) as u64;
        written = session.ask(session.sftp.write(&handle, offset, piece.to_vec())).await.map(drop);
        if written.is_err() {
            break;
        }
    }
    if written.is_ok() && session.can_sync() {
        written = session.ask(session.sftp.fsync(&handle)).await.map(drop);
    }
    let closed = session.ask(session.sftp.close(&handle)).await.map(drop);
    written.and(closed).map_err(|fault| fault.error("write a file", path))
}

async fn read(session: &Session, path: &str) -> EtlResult<String> {
    let opened = session.ask(session.sftp.open(path, OpenFlags::READ, FileAttributes::empty())).await;
    let handle = opened.map_err(|fault| fault.error("open a file", path))?.handle;
    let mut bytes = Vec::new();
    let done = loop {
        let offset = bytes.len() as u64;
        match session.ask(session.sftp.read(&handle, offset, READ_BYTES)).await {
            Ok(piece) if piece.data.is_empty() => break Ok(()),
            Ok(piece) => bytes.extend(piece.data),
            Err(fault) if fault.is_end() => break Ok(()),
            Err(fault) => break Err(fault),
        }
    };
    let closed = session.ask(session.sftp.close(&handle)).await.map(drop);
    done.and(closed).map_err(|fault| fault.error("read a file", path))?;
    // Names of files have to be UTF-8.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What every server gives in one read.
const READ_BYTES: u32 = 32 * 1024;

fn gone(run: &str, directory: &str) -> EtlError {
    EtlError::new(ErrorKind::DestinationRejected, "what the run has staged is gone")
        .with("run", run)
        .with("path", directory)
        .hint("Somebody removed it: run again")
}
