//! Can files be written there? Each step is tried, and the one that fails is named.

use etl::error::{ErrorKind, EtlError, EtlResult};
use russh_sftp::protocol::{FileAttributes, OpenFlags};

use super::error::Fault;
use super::session::Session;
use super::sweep::below;

/// Makes a file in the directory, gives it another name, and removes it.
///
/// # Errors
/// Which step failed, and what to do.
pub(super) async fn probe(session: &Session, directory: &str, pipeline: &str) -> EtlResult<()> {
    let found = session.ask(session.sftp.stat(directory)).await.map_err(|fault| {
        let is_missing = fault.is_missing();
        let error = fault.error("show the directory of the files", directory).with("step", "directory");
        if is_missing { error.hint("Make it at the server, or give another `path`") } else { error }
    })?;
    if !found.attrs.is_dir() {
        return Err(EtlError::new(ErrorKind::Config, "the `path` at the SFTP server is no directory")
            .with("path", directory)
            .with("step", "directory")
            .hint("Give the path of a directory"));
    }
    let name = |ending: &str| below(directory, &format!(".etl-{pipeline}-probe-{}{ending}", std::process::id()));
    let (part, path) = (name(".part"), name(""));
    let denied = |doing: &'static str, path: &str, fault: Fault| fault.error(doing, path).with("step", "permission");
    let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
    let opened = session.ask(session.sftp.open(&part, flags, FileAttributes::empty())).await;
    let handle = opened.map_err(|fault| denied("make a file", &part, fault))?.handle;
    let written = session.ask(session.sftp.write(&handle, 0, b"probe\n".to_vec())).await;
    let closed = session.ask(session.sftp.close(&handle)).await;
    let mut done = written.and(closed).map(drop).map_err(|fault| denied("write a file", &part, fault));
    let mut left = part.as_str();
    if done.is_ok() {
        let renamed = match session.can_replace() {
            true => session.replace(&part, &path).await,
            false => session.ask(session.sftp.rename(&part, &path)).await.map(drop),
        };
        done = renamed.map_err(|fault| denied("give a file its name", &path, fault));
        if done.is_ok() {
            left = &path;
        }
    }
    let removed = session.ask(session.sftp.remove(left)).await;
    done.and(removed.map(drop).map_err(|fault| denied("remove a file", left, fault)))
}
