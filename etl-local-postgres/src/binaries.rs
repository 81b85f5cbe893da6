//! Which server binaries are on this machine? A directory counts only once its `postgres` has told its version.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use crate::account::Account;

/// A directory with `postgres` and `initdb` that the server's user can run.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    pub(crate) dir: PathBuf,
    pub(crate) major: u16,
    pub(crate) version: String,
}

impl Binaries {
    /// Looks at one directory: `None` unless a server starts there and tells its version.
    pub(crate) async fn probe(dir: &Path, account: Account) -> Option<Self> {
        // A link in PATH is followed: a server finds its share directory beside its real place.
        let dir = fs::canonicalize(dir.join("postgres")).ok()?.parent()?.to_owned();
        if !dir.join("initdb").is_file() {
            return None;
        }
        let output = account.command(dir.join("postgres")).arg("--version").output().await.ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = version_in(&text).filter(|_| output.status.success())?;
        Some(Self { major: major_of(version)?, version: version.to_owned(), dir })
    }

    /// Whether this is what was asked for; anything from 14 where nothing was.
    pub(crate) fn serves(&self, wanted: Option<u16>) -> bool {
        wanted.map_or(self.major >= 14, |major| self.major == major)
    }
}

/// The newest local server of the wanted major version.
pub(crate) async fn local(wanted: Option<u16>, account: Account) -> Option<Binaries> {
    let mut best: Option<Binaries> = None;
    for dir in candidates().await {
        let Some(found) = Binaries::probe(&dir, account).await else { continue };
        if found.serves(wanted) && best.as_ref().is_none_or(|b| b.major < found.major) {
            best = Some(found);
        }
    }
    best
}

/// A client or server program by name: beside the server first, then wherever Postgres is installed.
pub(crate) fn tool(name: &str, server: &Path) -> Option<PathBuf> {
    std::iter::once(server.to_owned())
        .chain(installed())
        .chain(path_dirs())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

async fn candidates() -> Vec<PathBuf> {
    let mut dirs = installed();
    dirs.extend(path_dirs());
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await
        && let Ok(text) = String::from_utf8(output.stdout)
    {
        dirs.push(PathBuf::from(text.trim()));
    }
    dirs.dedup();
    dirs.retain(|dir| dir.join("postgres").exists());
    dirs
}

fn path_dirs() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

/// The places of Debian, Red Hat, Alpine and Homebrew.
fn installed() -> Vec<PathBuf> {
    let below = |parent: &str, prefix: &str, bin: &str| -> Vec<PathBuf> {
        fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path().join(bin))
            .collect()
    };
    let mut dirs = below("/usr/lib/postgresql", "", "bin");
    dirs.extend(below("/usr", "pgsql-", "bin"));
    dirs.extend(below("/usr/libexec", "postgresql", ""));
    dirs.extend(below("/opt/homebrew/opt", "postgresql", "bin"));
    dirs
}

/// `postgres (PostgreSQL) 15.18 (Debian ...)` holds `15.18`.
fn version_in(text: &str) -> Option<&str> {
    text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()
}

fn major_of(version: &str) -> Option<u16> {
    let digits = version.find(|c: char| !c.is_ascii_digit()).map_or(version, |end| &version[..end]);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_server_prints_them() {
        assert_eq!(version_in("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some("15.18"));
        assert_eq!(version_in("You must install at least one postgresql-client package"), None);
        assert_eq!(major_of("18.4"), Some(18));
        assert_eq!(major_of("19beta1"), Some(19));
        assert_eq!(major_of("devel"), None);
    }

    #[tokio::test]
    async fn a_stub_that_is_not_a_server_does_not_count() {
        use std::os::unix::fs::PermissionsExt;

        let account = Account::choose().expect("an account");
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("open");
        for name in ["postgres", "initdb"] {
            let path = dir.path().join(name);
            fs::write(&path, "#!/bin/sh\necho 'no cluster here' >&2\nexit 1\n").expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        }
        assert!(Binaries::probe(dir.path(), account).await.is_none());
    }
}
