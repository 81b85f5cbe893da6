//! Where is a server for SFTP in tests? OpenSSH's own, one process a connection, which no port, key or user outlives.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the encrypted one of the user's keys is encrypted with.
pub const PASSPHRASE: &str = "correct horse";

/// As root, who runs the server: OpenSSH lets in only the user that it runs as, where that is not root.
const ACCOUNT: &str = "nobody";

/// OpenSSH's `sshd`, unprivileged, on a port of loopback. Its directory is `files`. Dropping it kills what it has started.
#[derive(Debug)]
pub struct Sshd {
    dir: tempfile::TempDir,
    port: u16,
    user: String,
    ids: Option<(u32, u32)>,
    connections: Arc<Connections>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Connections {
    children: Mutex<Vec<Child>>,
    is_down: AtomicBool,
}

/// An agent with the user's key. Dropping it ends it.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    /// Its socket.
    pub socket: PathBuf,
}

impl Sshd {
    /// A server with a directory of its own; where it cannot be had, that counts as a skip.
    pub async fn start_or_skip() -> Option<Self> {
        let Some(program) = program() else {
            crate::skip::skip_part("there is no sshd here: run `make engines`");
            return None;
        };
        Some(Self::start(program).await.expect("a server for SFTP"))
    }

    async fn start(program: PathBuf) -> std::io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("sshd").permissions(fs::Permissions::from_mode(0o755)).tempdir()?;
        let (user, ids) = account()?;
        fs::create_dir(dir.path().join("files"))?;
        for (name, passphrase) in [("host", ""), ("other_host", ""), ("user", ""), ("locked", PASSPHRASE)] {
            keygen(&dir.path().join(name), passphrase)?;
        }
        let public = |name: &str| fs::read_to_string(dir.path().join(name));
        fs::write(dir.path().join("authorized"), public("user.pub")? + &public("locked.pub")?)?;
        fs::write(dir.path().join("config"), config(dir.path()))?;
        for name in ["files", "host", "other_host"] {
            if let Some((uid, gid)) = ids {
                chown(dir.path().join(name), Some(uid), Some(gid))?;
            }
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let connections = Arc::new(Connections::default());
        let started = (program, dir.path().to_owned(), ids);
        let accepting = tokio::spawn(accept(listener, started, Arc::clone(&connections)));
        let server = Self { dir, port, user, ids, connections, accepting };
        server.know("host")?;
        Ok(server)
    }

    /// Writes down the key by which the server is known.
    fn know(&self, key: &str) -> std::io::Result<()> {
        let key = fs::read_to_string(self.dir.path().join(key).with_extension("pub"))?;
        fs::write(self.known_hosts(), format!("[127.0.0.1]:{} {key}", self.port))
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Who may log in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The directory that is meant for files, which the user may write to.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    /// The user's private key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("user")
    }

    /// Another one, encrypted with [`PASSPHRASE`].
    #[must_use]
    pub fn locked_key(&self) -> PathBuf {
        self.dir.path().join("locked")
    }

    /// A file that the server's key stands in.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.path().join("known_hosts")
    }

    /// The fingerprint of the server's key, as `ssh-keygen` shows it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let output = Command::new("ssh-keygen").arg("-lf").arg(self.dir.path().join("host.pub")).output();
        let output = String::from_utf8(output.expect("ssh-keygen").stdout).expect("text");
        output.split(' ').nth(1).expect("a fingerprint").to_owned()
    }

    /// From the next connection on the server has another key, which nobody knows.
    pub fn change_host_key(&self) {
        let path = |name: &str| self.dir.path().join(name);
        fs::rename(path("other_host"), path("host")).expect("another key");
    }

    /// Gives a directory to the user that may log in.
    pub fn own(&self, path: &Path) {
        if let Some((uid, gid)) = self.ids {
            chown(path, Some(uid), Some(gid)).expect("another owner");
        }
    }

    /// Kills what serves connections, as `kill -9` does, and takes no new ones until it is up again.
    pub fn kill(&self) {
        self.connections.is_down.store(true, SeqCst);
        self.connections.kill();
    }

    /// Takes connections again.
    pub fn up(&self) {
        self.connections.is_down.store(false, SeqCst);
    }

    /// Waits until nothing is done any more for connections whose other side is gone.
    pub async fn rest(&self) {
        while self.connections.children().iter_mut().any(|child| matches!(child.try_wait(), Ok(None))) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// From the next connection on files are served by another program, or by none.
    pub fn serve_files_by(&self, program: Option<&str>) {
        let path = self.dir.path().join("config");
        let config = fs::read_to_string(&path).expect("a config");
        let other: Vec<&str> = config.lines().filter(|line| !line.starts_with("Subsystem")).collect();
        let line = program.map(|program| format!("Subsystem sftp {program}\n")).unwrap_or_default();
        fs::write(path, other.join("\n") + "\n" + &line).expect("a config");
    }

    /// An agent with the user's key.
    ///
    /// # Panics
    /// Where there is none on this machine.
    pub async fn agent(&self) -> Agent {
        let socket = self.dir.path().join("agent");
        let mut command = Command::new("ssh-agent");
        command.args(["-D", "-a"]).arg(&socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let agent = Agent { child: command.spawn().expect("ssh-agent"), socket };
        loop {
            let added = Command::new("ssh-add").arg("-q").arg(self.key()).env("SSH_AUTH_SOCK", &agent.socket).output();
            if added.expect("ssh-add").status.success() {
                return agent;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.accepting.abort();
        self.connections.kill();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It is gone already, or is gone now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Connections {
    fn children(&self) -> MutexGuard<'_, Vec<Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each has children of its own, which do the work.
    fn kill(&self) {
        let parents = parents();
        for child in self.children().iter_mut() {
            if !matches!(child.try_wait(), Ok(None)) {
                continue;
            }
            for pid in parents.iter().filter(|(pid, _)| descends(**pid, child.id(), &parents)).map(|(pid, _)| *pid) {
                if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                    let _ = kill_process(pid, Signal::KILL); // one that has ended needs none
                }
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The parent of each process.
fn parents() -> HashMap<u32, u32> {
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| parent(pid).map(|parent| (pid, parent)))
        .collect()
}

fn descends(mut pid: u32, from: u32, parents: &HashMap<u32, u32>) -> bool {
    while let Some(parent) = parents.get(&pid) {
        if *parent == from {
            return true;
        }
        pid = *parent;
    }
    false
}

/// Serves each connection by a process of its own, as inetd does.
async fn accept(
    listener: TcpListener,
    (program, dir, ids): (PathBuf, PathBuf, Option<(u32, u32)>),
    to: Arc<Connections>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        if to.is_down.load(SeqCst) {
            continue;
        }
        if let Err(error) = serve(stream, &program, &dir, ids).map(|child| to.children().push(child)) {
            eprintln!("no sshd for a connection: {error}");
        }
    }
}

fn serve(stream: TcpStream, program: &Path, dir: &Path, ids: Option<(u32, u32)>) -> std::io::Result<Child> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let stream = OwnedFd::from(stream);
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log"))?;
    let mut command = Command::new(program);
    command.args(["-i", "-e", "-f"]).arg(dir.join("config"));
    command.stdin(stream.try_clone()?).stdout(stream).stderr(log).current_dir("/");
    if let Some((uid, gid)) = ids {
        command.uid(uid).gid(gid);
    }
    command.spawn()
}

fn config(dir: &Path) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    format!(
        "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM yes\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nLogLevel VERBOSE\nSubsystem sftp internal-sftp\n",
        path("host"),
        path("authorized"),
    )
}

fn keygen(path: &Path, passphrase: &str) -> std::io::Result<()> {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-C", "etl", "-N", passphrase, "-f"]).arg(path);
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// Who runs the server, with the numbers where that is somebody else.
fn account() -> std::io::Result<(String, Option<(u32, u32)>)> {
    let is_root = rustix::process::geteuid().is_root();
    let passwd = fs::read_to_string("/etc/passwd")?;
    let own = rustix::process::geteuid().as_raw().to_string();
    let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() > 3);
    for fields in fields {
        let (name, uid, gid) = (fields[0], fields[2], fields[3]);
        match is_root {
            true if name == ACCOUNT => {
                return Ok((name.to_owned(), uid.parse().ok().zip(gid.parse().ok())));
            }
            false if uid == own => return Ok((name.to_owned(), None)),
            _ => {}
        }
    }
    Err(std::io::Error::other("no user for the server in /etc/passwd"))
}

/// OpenSSH's server, which has to be named by its whole path.
fn program() -> Option<PathBuf> {
    let has_tools =
        Command::new("ssh-keygen").arg("-?").output().is_ok() && Command::new("ssh-add").arg("-h").output().is_ok();
    ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd"]
        .iter()
        .map(PathBuf::from)
        .find(|path| has_tools && path.exists())
}
