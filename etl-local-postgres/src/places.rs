//! Where do servers, templates and fetched binaries live on this machine?

use std::{env, fs, path::PathBuf};

use crate::{Error, account::Account};

/// A fresh directory for one server, reachable by the server's user. The path is short: sockets live in it.
pub(crate) fn server_root(account: Account) -> Result<PathBuf, Error> {
    use std::os::unix::fs::PermissionsExt;

    let root = tempfile::Builder::new()
        .prefix("etl-pg-")
        .tempdir_in(temp_dir(account))
        .map_err(|e| Error::io("making a directory for the server", e))?
        .keep();
    account.own(&root)?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))
        .map_err(|e| Error::io("opening the server's directory", e))?;
    Ok(root)
}

/// The directory for temporary files; `/tmp` where the server's user cannot reach the usual one.
pub(crate) fn temp_dir(account: Account) -> PathBuf {
    let usual = env::temp_dir();
    if account.can_enter(&usual) && usual.as_os_str().len() < 60 { usual } else { PathBuf::from("/tmp") }
}

/// Where fetched server binaries stay from run to run.
pub(crate) fn cache_dir(account: Account) -> PathBuf {
    let usual = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("etl/postgres");
    if account.can_enter(&usual) { usual } else { PathBuf::from("/var/cache/etl/postgres") }
}
