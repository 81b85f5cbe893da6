//! How is a server started, stopped, crashed and started again?

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Builder, Error, account::Account, binaries, binaries::Binaries, builder::Password, certificate, cluster,
    guard::Guard, places,
};

const LONGEST_START: Duration = Duration::from_secs(180);
/// Even an immediate stop takes minutes where many others want the same processors and the same disk.
const LONGEST_STOP: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(20);

/// How a server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Waits for every client to leave.
    Smart,
    /// Ends every session, then writes a checkpoint; waits for walsenders to be confirmed.
    Fast,
    /// Stops at once; the next start recovers, and what asynchronous commits had not flushed is lost.
    Immediate,
}

/// A server of one's own, superuser `postgres`. Dropping it stops the server and removes its directory.
#[derive(Debug)]
pub struct LocalPostgres {
    account: Account,
    binaries: Binaries,
    root: PathBuf,
    data: PathBuf,
    port: u16,
    password: Option<Password>,
    authority: Option<PathBuf>,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    server: Option<Child>,
    guard: Guard,
}

impl LocalPostgres {
    /// Begins with every choice at its default: any version, no password, no TLS, no fsync.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The URL of the database `postgres` over TCP.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of a database over TCP. It holds the password, where one was chosen.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let secret = self.password.as_ref().map_or_else(String::new, |Password(p)| format!(":{p}"));
        format!("postgres://postgres{secret}@127.0.0.1:{}/{database}", self.port)
    }

    /// The address that the server listens on.
    #[must_use]
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The TCP port, the same after every restart; it also names the socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.root
    }

    /// The server's data directory. As root, another user owns it.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The major version, such as 15.
    #[must_use]
    pub fn major(&self) -> u16 {
        self.binaries.major
    }

    /// The directory of the server binaries.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        &self.binaries.dir
    }

    /// The certificate of the authority, in PEM, where the server has TLS.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    pub(crate) fn account(&self) -> Account {
        self.account
    }

    pub(crate) fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// A Postgres program such as `pgbench` or `pg_recvlogical`, set up by its environment to meet this server over
    /// its socket; `None` where the machine has none.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<Command> {
        let mut command = Command::new(binaries::tool(name, &self.binaries.dir)?);
        command.env("PGHOST", &self.root).env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        Some(command)
    }

    /// The process id of the server while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running().server.as_ref().map(Child::id)
    }

    /// Everything that the server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.root.join("log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Changes a setting for good, while the server runs; some need a restart to take effect.
    ///
    /// # Errors
    /// The server is down or refuses the value.
    pub async fn configure(&self, name: &str, value: &str) -> Result<(), Error> {
        self.psql(&format!("alter system set {name} = '{}'", value.replace('\'', "''"))).await?;
        self.psql("select pg_reload_conf()").await.map(drop)
    }

    /// Starts the server again and waits until it answers. Does nothing while it runs.
    ///
    /// # Errors
    /// The server ended or did not answer within three minutes; the text holds the end of its log.
    pub async fn start(&self) -> Result<(), Error> {
        if self.is_running() {
            return Ok(());
        }
        self.spawn()?;
        let answers = async {
            loop {
                match self.connect("postgres").await {
                    Ok(_) => return Ok(()),
                    Err(_) if self.is_running() => tokio::time::sleep(PAUSE).await,
                    Err(_) => return Err(Error::new("starting the local server", self.log_tail())),
                }
            }
        };
        tokio::time::timeout(LONGEST_START, answers)
            .await
            .unwrap_or_else(|_| Err(Error::new("waiting for the local server", self.log_tail())))
    }

    /// Stops the server and waits for its end.
    ///
    /// # Errors
    /// It did not stop within five minutes, as when a client holds up the shutdown.
    pub async fn stop(&self, how: Shutdown) -> Result<(), Error> {
        self.ask_to_stop(how)?;
        let ended = async {
            while self.is_running() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(LONGEST_STOP, ended).await.map_err(|_| {
            Error::new("stopping the local server", format!("it is still there\n{}", self.log_tail()))
                .hint("a client holds up the shutdown; Shutdown::Immediate does not wait for clients")
        })
    }

    /// Asks the server to stop and returns at once; a stopped server is left as it is.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn ask_to_stop(&self, how: Shutdown) -> Result<(), Error> {
        let signal = match how {
            Shutdown::Smart => Signal::TERM,
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        };
        match self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            None => Ok(()),
            Some(pid) => kill_process(pid, signal).map_err(|e| Error::io("stopping the local server", e.into())),
        }
    }

    /// Stops the server in one way and starts it again.
    ///
    /// # Errors
    /// As for [`LocalPostgres::stop`] and [`LocalPostgres::start`].
    pub async fn restart(&self, how: Shutdown) -> Result<(), Error> {
        self.stop(how).await?;
        self.start().await
    }

    /// What a crash of the server looks like to its clients, followed by its recovery.
    ///
    /// # Errors
    /// As for [`LocalPostgres::restart`].
    pub async fn restart_immediate(&self) -> Result<(), Error> {
        self.restart(Shutdown::Immediate).await
    }

    /// Whether the server's process is there.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let mut running = self.running();
        let ended = running.server.as_mut().is_some_and(|server| !matches!(server.try_wait(), Ok(None)));
        if ended {
            running.server = None;
            let _ = running.guard.watch(None); // a guard that is gone has nothing to stop
        }
        running.server.is_some()
    }

    fn spawn(&self) -> Result<(), Error> {
        let doing = "starting the local server";
        let log = fs::OpenOptions::new().create(true).append(true).open(self.root.join("log"));
        let log = log.map_err(|e| Error::io(doing, e))?;
        let errors = log.try_clone().map_err(|e| Error::io(doing, e))?;
        let mut command = self.account.process(self.binaries.dir.join("postgres"));
        command.arg("-D").arg(&self.data).current_dir(&self.root);
        for name in ["PGDATA", "PGPORT", "PGHOST", "PGOPTIONS"] {
            command.env_remove(name);
        }
        let server =
            command.stdout(Stdio::from(log)).stderr(Stdio::from(errors)).spawn().map_err(|e| Error::io(doing, e))?;
        let mut running = self.running();
        running.guard.watch(Some(server.id()))?;
        running.server = Some(server);
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LocalPostgres {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        running.guard.release();
        if let Some(mut server) = running.server.take() {
            let _ = server.wait(); // the guard stops it
        }
        running.guard.wait();
    }
}

/// Makes a cluster and starts a server on it.
pub(crate) async fn launch(choice: Builder, binaries: Binaries, account: Account) -> Result<LocalPostgres, Error> {
    let place = Place::make(account, choice.keep)?;
    cluster::make(&place.root, &binaries, account, choice.own_identity).await?;
    let fsync = if choice.fsync { "on" } else { "off" };
    let socket_dir = place.root.display().to_string();
    let own = [("fsync", fsync), ("unix_socket_directories", &socket_dir)];
    cluster::configure(&place.data(), account, cluster::settings().chain(own))?;
    let method = if choice.password.is_some() { "scram-sha-256" } else { "trust" };
    cluster::authenticate(&place.data(), account, method)?;
    start_at(choice, binaries, account, place).await
}

/// The directory of a server, and who removes it in the end.
pub(crate) struct Place {
    root: PathBuf,
    guard: Guard,
}

impl Place {
    pub(crate) fn make(account: Account, keep: bool) -> Result<Self, Error> {
        let root = places::server_root(account)?;
        let guard = Guard::over(&root, account, keep)?;
        Ok(Self { root, guard })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }
}

/// Starts a server on a cluster that is there.
pub(crate) async fn start_at(
    choice: Builder,
    binaries: Binaries,
    account: Account,
    place: Place,
) -> Result<LocalPostgres, Error> {
    let mut server = LocalPostgres {
        account,
        data: place.data(),
        root: place.root,
        port: 0,
        password: choice.password.clone(),
        authority: None,
        running: Mutex::new(Running { server: None, guard: place.guard }),
        binaries,
    };
    if choice.tls {
        let authority = certificate::make(&server.root, account).await?;
        let [certificate, key] = ["server.crt", "server.key"].map(|name| server.root.join(name).display().to_string());
        let tls = [("ssl", "on"), ("ssl_cert_file", &certificate), ("ssl_key_file", &key)];
        cluster::configure(&server.data, account, tls)?;
        server.authority = Some(authority);
    }
    cluster::configure(&server.data, account, choice.settings.iter().map(|(n, v)| (n.as_str(), v.as_str())))?;
    start_on_a_free_port(&mut server).await?;
    if let Some(Password(password)) = &choice.password {
        let literal = password.replace('\'', "''");
        server
            .psql(&format!("set password_encryption = 'scram-sha-256'; alter user postgres password '{literal}'"))
            .await?;
    }
    choice.notice.say(&format!("Postgres {} answers on 127.0.0.1:{}", server.binaries.version, server.port));
    Ok(server)
}

/// Another process may take a port between its choice and the start: then the next one is tried.
async fn start_on_a_free_port(server: &mut LocalPostgres) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        server.port = free_port()?;
        cluster::configure(&server.data, server.account, [("port", server.port.to_string().as_str())])?;
        match server.start().await {
            Err(_) if tries < 5 && server.log_tail().contains("could not create any TCP/IP sockets") => {}
            result => return result,
        }
    }
}

/// Below the range from which the system takes the ports of outgoing connections, so that a restart finds it free.
fn free_port() -> Result<u16, Error> {
    (0..200)
        .map(|_| rand::random_range(20_000..32_000))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| Error::new("looking for a free port", "none of 200 tries between 20000 and 32000 was free"))
}

#[cfg(test)]
mod tests;
