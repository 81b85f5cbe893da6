//! What goes from the server? What dead attempts have left, and the files of a table that is copied anew.

use etl::error::EtlResult;
use russh_sftp::protocol::StatusCode;

use super::error::Fault;
use super::path_template::Segment;
use super::session::Session;
use super::upload::size;

/// Removes the files of a directory whose names are those of dead attempts.
///
/// # Errors
/// What the server says.
pub(super) async fn remove_dead(session: &Session, directory: &str, is_dead: impl Fn(&str) -> bool) -> EtlResult<()> {
    for name in names(session, directory).await?.into_iter().filter(|name| is_dead(name)) {
        let path = below(directory, &name);
        tracing::info!(path, "what an attempt has left that is dead is removed");
        remove(session, &path).await?;
    }
    Ok(())
}

/// Removes all files below a directory whose paths look like this.
///
/// # Errors
/// What the server says.
pub(super) async fn remove_all(session: &Session, root: &str, paths: &[Segment]) -> EtlResult<()> {
    for path in find_all(session, root, paths).await? {
        remove(session, &path).await?;
    }
    Ok(())
}

/// All files below a directory whose paths look like this.
///
/// # Errors
/// What the server says.
pub(super) async fn find_all(session: &Session, root: &str, paths: &[Segment]) -> EtlResult<Vec<String>> {
    let Some((name, directories)) = paths.split_last() else { return Ok(Vec::new()) };
    let mut found = vec![root.to_owned()];
    for segment in directories {
        let mut deeper = Vec::new();
        for directory in found {
            match segment.text() {
                Some(text) => deeper.push(below(&directory, &text)),
                None => {
                    let names = names(session, &directory).await?.into_iter();
                    deeper.extend(names.filter(|name| segment.matches(name)).map(|name| below(&directory, &name)));
                }
            }
        }
        found = deeper;
    }
    let mut files = Vec::new();
    for directory in found {
        let names = names(session, &directory).await?.into_iter().filter(|found| name.matches(found));
        files.extend(names.map(|name| below(&directory, &name)));
    }
    Ok(files)
}

/// The paths of all files below a directory, and of the directories themselves, each after what is in it.
///
/// # Errors
/// What the server says.
pub(super) async fn tree(session: &Session, root: &str) -> EtlResult<(Vec<String>, Vec<String>)> {
    let (mut files, mut directories, mut unread) = (Vec::new(), Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = unread.pop() {
        for (name, is_directory) in entries(session, &directory).await? {
            let path = below(&directory, &name);
            if is_directory { unread.push(path) } else { files.push(path) }
        }
        directories.push(directory);
    }
    directories.reverse();
    Ok((files, directories))
}

/// Removes a directory with all that is in it; there may be none.
///
/// # Errors
/// What the server says.
pub(super) async fn remove_tree(session: &Session, root: &str) -> EtlResult<()> {
    if size(session, root).await?.is_none() {
        return Ok(());
    }
    let (files, directories) = tree(session, root).await?;
    for file in files {
        remove(session, &file).await?;
    }
    for directory in directories {
        match session.ask(session.sftp.rmdir(&directory)).await {
            Err(fault) if !fault.is_missing() => return Err(fault.error("remove a directory", &directory)),
            _ => {}
        }
    }
    Ok(())
}

/// A path below a directory.
pub(super) fn below(directory: &str, name: &str) -> String {
    match directory {
        "." => name.to_owned(),
        directory => format!("{}/{name}", directory.trim_end_matches('/')),
    }
}

pub(super) async fn remove(session: &Session, path: &str) -> EtlResult<()> {
    match session.ask(session.sftp.remove(path)).await {
        // Somebody else has taken it.
        Err(fault) if !fault.is_missing() => Err(fault.error("remove a file", path)),
        _ => Ok(()),
    }
}

/// The names in a directory; none where there is no such directory.
pub(super) async fn names(session: &Session, directory: &str) -> EtlResult<Vec<String>> {
    Ok(entries(session, directory).await?.into_iter().map(|(name, _)| name).collect())
}

/// The names in a directory, and whether each is one of a directory; without its own and the one above.
async fn entries(session: &Session, directory: &str) -> EtlResult<Vec<(String, bool)>> {
    let opened = match session.ask(session.sftp.opendir(directory)).await {
        Ok(opened) => opened,
        Err(fault) if fault.is_missing() => return Ok(Vec::new()),
        Err(fault) => return Err(fault.error("list a directory", directory)),
    };
    let mut names = Vec::new();
    let listed = loop {
        match session.ask(session.sftp.readdir(&opened.handle)).await {
            Ok(some) => names.extend(some.files.into_iter().map(|file| (file.filename, file.attrs.is_dir()))),
            Err(Fault::No(StatusCode::Eof, _)) => break Ok(names),
            Err(fault) => break Err(fault.error("list a directory", directory)),
        }
    };
    let closed = session.ask(session.sftp.close(&opened.handle)).await;
    let mut names: Vec<(String, bool)> = listed?;
    closed.map_err(|fault| fault.error("list a directory", directory))?;
    names.retain(|(name, _)| name != "." && name != "..");
    Ok(names)
}
