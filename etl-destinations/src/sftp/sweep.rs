//! What goes from the server? What dead attempts have left, and the files of a table that is copied anew.

use etl::error::EtlResult;
use russh_sftp::protocol::StatusCode;

use super::error::Fault;
use super::path_template::Segment;
use super::session::Session;

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
    let Some((name, directories)) = paths.split_last() else { return Ok(()) };
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
    for directory in found {
        for name in names(session, &directory).await?.into_iter().filter(|found| name.matches(found)) {
            remove(session, &below(&directory, &name)).await?;
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

async fn remove(session: &Session, path: &str) -> EtlResult<()> {
    match session.ask(session.sftp.remove(path)).await {
        // Somebody else has taken it.
        Err(fault) if !fault.is_missing() => Err(fault.error("remove a file", path)),
        _ => Ok(()),
    }
}

/// The names in a directory; none where there is no such directory.
async fn names(session: &Session, directory: &str) -> EtlResult<Vec<String>> {
    let opened = match session.ask(session.sftp.opendir(directory)).await {
        Ok(opened) => opened,
        Err(fault) if fault.is_missing() => return Ok(Vec::new()),
        Err(fault) => return Err(fault.error("list a directory", directory)),
    };
    let mut names = Vec::new();
    let listed = loop {
        match session.ask(session.sftp.readdir(&opened.handle)).await {
            Ok(some) => names.extend(some.files.into_iter().map(|file| file.filename)),
            Err(Fault::No(StatusCode::Eof, _)) => break Ok(names),
            Err(fault) => break Err(fault.error("list a directory", directory)),
        }
    };
    let closed = session.ask(session.sftp.close(&opened.handle)).await;
    let names = listed?;
    closed.map_err(|fault| fault.error("list a directory", directory))?;
    Ok(names)
}
