//! Which user runs the server? This one, unless this one is root, whom Postgres refuses.

use std::{fs, path::Path, process::Stdio};

use tokio::process::Command;

use crate::Error;

/// The unprivileged user that runs the server; `None` where this process is unprivileged already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    ids: Option<(u32, u32)>,
}

impl Account {
    /// As root: `postgres`, else `nobody`; otherwise the present user.
    pub(crate) fn choose() -> Result<Self, Error> {
        if !is_root() {
            return Ok(Self { ids: None });
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(|e| Error::io("reading /etc/passwd", e))?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| ids_of(&passwd, name))
            .map(|ids| Self { ids: Some(ids) })
            .ok_or_else(|| {
                Error::new("choosing a user for the server", "Postgres does not run as root")
                    .hint("add a user `postgres` or `nobody`, or run as an unprivileged user")
            })
    }

    /// A command of this user, without input, with its output captured.
    pub(crate) fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).kill_on_drop(true).current_dir("/");
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// A process that outlives the call, in its own process group, so that Ctrl-C at the terminal is not its own.
    pub(crate) fn process(self, program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
        use std::os::unix::process::CommandExt;

        let mut command = std::process::Command::new(program);
        command.stdin(Stdio::null()).process_group(0);
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives a file or directory to this user.
    pub(crate) fn own(self, path: &Path) -> Result<(), Error> {
        match self.ids {
            None => Ok(()),
            Some((uid, gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .map_err(|e| Error::io(format!("giving {} to the server's user", path.display()), e)),
        }
    }

    /// Whether the directory belongs to this user and to nobody else.
    pub(crate) fn owns_alone(self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;

        let uid = self.ids.map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid);
        fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid && meta.mode() & 0o077 == 0)
    }

    /// Whether this user can reach what lies below the directory.
    pub(crate) fn can_enter(self, path: &Path) -> bool {
        use std::os::unix::fs::PermissionsExt;

        self.ids.is_none()
            || path.ancestors().all(|a| match fs::metadata(a) {
                Ok(meta) => meta.permissions().mode() & 0o001 != 0,
                Err(_) => true, // not there yet: it will be made with the usual rights
            })
    }

    /// A short mark for names of things that belong to this user.
    pub(crate) fn mark(self) -> u32 {
        self.ids.map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid)
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn ids_of(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "postgresx:x:7:8::/:/bin/sh\npostgres:x:101:104:admin:/var/lib:/bin/sh\n";
        assert_eq!(ids_of(passwd, "postgres"), Some((101, 104)));
        assert_eq!(ids_of(passwd, "nobody"), None);
    }
}
