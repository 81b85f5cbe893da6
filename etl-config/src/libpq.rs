//! What does the config leave to libpq's places? `PG*` variables and the password file.

use std::fmt;
use std::path::{Path, PathBuf};

use etl::Secret;
use etl::postgres::{ConnectOptions, TargetSession, TlsMode};

use crate::environment::Environment;

/// What the environment says of connections, for what neither the URL nor a key says.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Libpq {
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) user: Option<String>,
    pub(crate) database: Option<String>,
    password: Option<String>,
    passfile: Option<PathBuf>,
    mode: Option<TlsMode>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    target: Option<TargetSession>,
}

impl fmt::Debug for Libpq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "***");
        f.debug_struct("Libpq").field("host", &self.host).field("password", &password).finish_non_exhaustive()
    }
}

impl Libpq {
    /// What these variables say; what cannot be read in them counts as not given, as an empty one does.
    pub(crate) fn of(environment: &Environment) -> Self {
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
        let path = |name: &str| get(name).map(PathBuf::from);
        // The words are those of a URL.
        let as_url = |key: &str, name: &str| {
            get(name).and_then(|value| ConnectOptions::from_url(&format!("postgres://u@h/d?{key}={value}")).ok())
        };
        let home = path("HOME").map(|home| home.join(".pgpass"));
        Self {
            host: get("PGHOST"),
            port: get("PGPORT").and_then(|port| port.parse().ok()),
            user: get("PGUSER"),
            database: get("PGDATABASE"),
            password: get("PGPASSWORD"),
            passfile: path("PGPASSFILE").or(home),
            mode: as_url("sslmode", "PGSSLMODE").and_then(|options| options.tls.mode),
            ca: path("PGSSLROOTCERT"),
            certificate: path("PGSSLCERT"),
            key: path("PGSSLKEY"),
            target: as_url("target_session_attrs", "PGTARGETSESSIONATTRS").and_then(|o| o.target_session_attrs),
        }
    }

    /// Fills in what is not said.
    pub(crate) fn complete(&self, connect: &mut ConnectOptions) {
        // A URL or a config that says anything of encryption says all of it.
        let tls = &mut connect.tls;
        if tls.mode.is_none() && tls.ca.is_none() && tls.certificate.is_none() {
            tls.mode = self.mode;
            tls.ca.clone_from(&self.ca);
            tls.certificate.clone_from(&self.certificate);
            tls.key.clone_from(&self.key);
        }
        connect.target_session_attrs = connect.target_session_attrs.or(self.target);
        if connect.password.is_none() {
            let found =
                self.password.clone().or_else(|| self.passfile.as_deref().and_then(|file| look_up(file, connect)));
            connect.password = found.map(Secret::new);
        }
    }
}

/// The password of the first line that matches; a file that others can read is passed over, with a warning.
fn look_up(file: &Path, connect: &ConnectOptions) -> Option<String> {
    let metadata = std::fs::metadata(file).ok()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if metadata.permissions().mode() & 0o077 != 0 {
            let file = file.display();
            tracing::warn!(%file, "the password file is passed over: others can read it (chmod 600)");
            return None;
        }
    }
    if !metadata.is_file() {
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    let host = connect.first_host();
    let name = if host.is_unix() { "localhost" } else { &host.name };
    find(&text, [name, &host.port.to_string(), &connect.database, &connect.user])
}

/// The manual, "The Password File": `host:port:database:user:password`, with `*` for anything, and `\` before a colon or
/// a backslash that is meant.
fn find(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for wanted in wanted {
            let (field, after) = field(rest);
            if field != "*" && field != wanted {
                return None;
            }
            rest = after?;
        }
        Some(field(rest).0)
    })
}

/// The first field, unescaped, and what follows its colon.
fn field(line: &str) -> (String, Option<&str>) {
    let mut found = String::new();
    let mut characters = line.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            ':' => return (found, Some(&line[at + 1..])),
            '\\' => found.extend(characters.next().map(|(_, escaped)| escaped)),
            other => found.push(other),
        }
    }
    (found, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\nother:*:*:*:no\ndb\\:1:5432:shop:me:with\\:colon\\\\\n*:*:shop:*:last\n";

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_first_line_that_matches_has_the_password() {
        assert_eq!(find(FILE, ["db:1", "5432", "shop", "me"]).as_deref(), Some("with:colon\\"));
        assert_eq!(find(FILE, ["db", "1", "shop", "you"]).as_deref(), Some("last"));
        assert_eq!(find(FILE, ["db", "1", "store", "you"]), None);
    }

    #[test]
    fn what_is_said_wins_over_the_environment() {
        let libpq = Libpq::of(&environment(&[
            ("PGPASSWORD", "hunter2"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/ca.pem"),
            ("PGTARGETSESSIONATTRS", "primary"),
        ]));
        let mut connect = ConnectOptions::from_url("postgres://u@h/d").unwrap();
        libpq.complete(&mut connect);
        assert_eq!(connect.password.as_ref().unwrap().expose(), "hunter2");
        assert_eq!((connect.tls.mode, connect.tls.ca), (Some(TlsMode::VerifyFull), Some("/ca.pem".into())));
        assert_eq!(connect.target_session_attrs, Some(TargetSession::Primary));
        let mut connect =
            ConnectOptions::from_url("postgres://u:own@h/d?sslmode=require&target_session_attrs=any").unwrap();
        libpq.complete(&mut connect);
        assert_eq!(connect.password.as_ref().unwrap().expose(), "own");
        assert_eq!((connect.tls.mode, connect.tls.ca), (Some(TlsMode::Require), None));
        assert_eq!(connect.target_session_attrs, Some(TargetSession::Any));
        assert!(!format!("{libpq:?}").contains("hunter2"));
    }

    #[test]
    fn a_password_file_is_read_unless_others_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pass");
        std::fs::write(&file, "localhost:5432:d:u:hunter2\n").unwrap();
        let libpq = Libpq::of(&environment(&[("PGPASSFILE", file.to_str().unwrap())]));
        for (mode, host, expected) in [(0o600, "localhost", true), (0o600, "db", false), (0o644, "localhost", false)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let mut connect = ConnectOptions::new(host, "d", "u");
            libpq.complete(&mut connect);
            assert_eq!(connect.password.is_some(), expected, "{mode:o} {host}");
        }
    }
}
