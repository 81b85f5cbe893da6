//! Who asks for a password in tests? A small server of `russh`, before OpenSSH's `sftp-server`: an unprivileged `sshd` can let
//! nobody in by a password.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use russh::keys::{HashAlg, PrivateKey};
use russh::server::{Auth, Config, Handler, Msg, Session, run_stream};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

/// Who is let in.
pub const USER: &str = "etl";

/// With what.
pub const PASSWORD: &str = "open sesame";

/// How the password is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// By the method that is called so.
    Password,
    /// By a question, as servers with PAM do.
    Question,
}

/// A server on a port of loopback, whose directory is `files`.
#[derive(Debug)]
pub struct PasswordServer {
    dir: tempfile::TempDir,
    /// The port that it listens on.
    pub port: u16,
    /// The fingerprint of its key.
    pub fingerprint: String,
    accepting: JoinHandle<()>,
}

impl PasswordServer {
    /// A server; where OpenSSH's `sftp-server` is not here, that counts as a skip.
    ///
    /// # Panics
    /// Where no port can be had.
    pub async fn start_or_skip(key: &Path, asks: Asks) -> Option<Self> {
        let programs = ["/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server", "/usr/lib/ssh/sftp-server"];
        let Some(program) = programs.iter().map(PathBuf::from).find(|path| path.exists()) else {
            crate::skip::skip_part("there is no sftp-server here: run `make engines`");
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("files")).expect("a directory");
        let key = PrivateKey::read_openssh_file(key).expect("a key");
        let fingerprint = key.public_key().fingerprint(HashAlg::Sha256).to_string();
        let method = if asks == Asks::Password { MethodKind::Password } else { MethodKind::KeyboardInteractive };
        // Whoever is refused has nothing left to try, and the connection ends.
        let methods = MethodSet::from([method].as_slice());
        let config = Arc::new(Config {
            keys: vec![key],
            methods,
            auth_rejection_time: std::time::Duration::ZERO,
            ..Config::default()
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let files = dir.path().join("files");
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let door = Door { program: program.clone(), files: files.clone(), channels: HashMap::new() };
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = run_stream(config, stream, door).await {
                        let _ = session.await; // whoever connected has left
                    }
                });
            }
        });
        Some(Self { dir, port, fingerprint, accepting })
    }

    /// The directory that is meant for files.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }
}

impl Drop for PasswordServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Door {
    program: PathBuf,
    files: PathBuf,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

fn answer(user: &str, password: &str) -> Auth {
    if user == USER && password == PASSWORD { Auth::Accept } else { Auth::reject() }
}

impl Handler for Door {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(answer(user, password))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<russh::server::Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Some(mut response) = response else {
            let prompts = vec![(Cow::Borrowed("Password: "), false)];
            let (name, instructions) = (Cow::Borrowed(""), Cow::Borrowed(""));
            return Ok(Auth::Partial { name, instructions, prompts: Cow::Owned(prompts) });
        };
        let password = response.next().map(|answer| String::from_utf8_lossy(&answer).into_owned());
        Ok(answer(user, &password.unwrap_or_default()))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: russh::server::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(channel) = self.channels.remove(&id).filter(|_| name == "sftp") else {
            return session.channel_failure(id);
        };
        let mut command = Command::new(&self.program);
        command.current_dir(&self.files).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn()?;
        let (Some(mut input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
            return session.channel_failure(id);
        };
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(channel.into_stream());
            let copied = tokio::select! {
                copied = tokio::io::copy(&mut from, &mut input) => copied,
                copied = tokio::io::copy(&mut output, &mut to) => copied,
            };
            drop((copied, child));
        });
        session.channel_success(id)
    }
}
