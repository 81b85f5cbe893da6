//! How is the server asked for something? Over one connection: its key checked, logged in, the file protocol begun.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use etl::error::{ErrorKind, EtlError, EtlResult};
use russh::client::{self, DisconnectReason, Handle, Handler};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelId, ChannelMsg, Disconnect, Preferred, Sig};
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::rawsession::Limits;
use russh_sftp::client::{Config as ProtocolConfig, RawSftpSession};
use russh_sftp::extensions;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::config::SftpConfig;
use super::error::{Fault, lost};
use super::file_stream::{FileStream, LONGEST_PACKET};
use super::host_key::HostKeys;
use super::login::{log_in, refused};

/// What OpenSSH calls a rename that replaces what is there.
const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// What every server takes in one write.
const SAFE_WRITE: u64 = 32 * 1024;

/// More in one write makes nothing faster.
const LONGEST_WRITE: u64 = 128 * 1024;

/// How long the server's last words are waited for, once it has ended something: what it does is over, but it may be busy.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How often a server may be silent when it is asked whether it is there.
const SILENCES: usize = 3;

/// A connection that is logged in.
pub(super) struct Session {
    pub(super) sftp: RawSftpSession,
    /// What the server can do beside the protocol.
    offers: HashMap<String, String>,
    /// How much one write may hold.
    pub(super) write_bytes: usize,
    handle: Handle<Verifier>,
    is_lost: AtomicBool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}

/// Looks at the server's key before anything is said to it.
pub(super) struct Verifier {
    known: HostKeys,
    refused: Arc<Mutex<Option<EtlError>>>,
    last: Arc<LastWords>,
}

/// What the server said last. An end of which nothing is said is a connection that was lost.
#[derive(Default)]
pub(super) struct LastWords {
    /// Why it ended the connection, where it is that the user is not let in.
    farewell: OnceLock<String>,
    /// What the program for files ended with, where it ended by itself.
    exit_status: OnceLock<u32>,
    /// What it says where the file protocol is to begin.
    pub(super) talk: OnceLock<String>,
    /// Told once nothing more is to come of that program.
    pub(super) ended: Notify,
}

impl LastWords {
    /// Waits until the server has said why the file protocol ended, or for too long.
    pub(super) async fn heard(&self) {
        let _ = tokio::time::timeout(LAST_WORDS, self.ended.notified()).await;
    }
}

impl Handler for Verifier {
    type Error = russh::Error;

    async fn check_server_key(&mut self, offered: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        match self.known.check(&offered.public_key()) {
            Ok(()) => Ok(true),
            Err(error) => {
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Ok(false)
            }
        }
    }

    async fn exit_status(&mut self, _: ChannelId, status: u32, _: &mut client::Session) -> Result<(), russh::Error> {
        let _ = self.last.exit_status.set(status); // there is one program
        self.last.ended.notify_one();
        Ok(())
    }

    async fn exit_signal(
        &mut self,
        _: ChannelId,
        _: Sig,
        _: bool,
        _: &str,
        _: &str,
        _: &mut client::Session,
    ) -> Result<(), russh::Error> {
        self.last.ended.notify_one();
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<russh::Error>) -> Result<(), russh::Error> {
        self.last.ended.notify_one();
        match reason {
            DisconnectReason::ReceivedDisconnect(said) => {
                if is_refusal(&said.reason_code) {
                    let _ = self.last.farewell.set(said.message); // the first one counts
                }
                Ok(())
            }
            DisconnectReason::Error(error) => {
                if matches!(error, russh::Error::NoAuthMethod) {
                    let _ = self.last.farewell.set("no other way to log in is left".to_owned()); // as above
                }
                Err(error)
            }
        }
    }
}

/// Whether a server that ends a connection like this, while somebody logs in, does not let him in.
fn is_refusal(code: &Disconnect) -> bool {
    use Disconnect::{
        AuthCancelledByUser, HostNotAllowedToConnect, IllegalUserName, NoMoreAuthMethodsAvailable, ProtocolError,
    };
    matches!(
        code,
        // OpenSSH says that it is an error of the protocol to try too often.
        HostNotAllowedToConnect | ProtocolError | AuthCancelledByUser | NoMoreAuthMethodsAvailable | IllegalUserName
    )
}

impl Session {
    /// Connects, looks at the server's key, logs in, and begins the file protocol.
    ///
    /// # Errors
    /// `DestinationUnavailable` where the server cannot be reached; `Config` where its key or the user is not accepted, or it
    /// does not take files. Each names the step that failed.
    pub(super) async fn open(config: &SftpConfig) -> EtlResult<Self> {
        let last = Arc::new(LastWords::default());
        let connecting = Box::pin(connect(config, Arc::clone(&last)));
        let mut handle = in_time(config.connect_timeout, "connect", connecting).await?;
        let login = in_time(config.connect_timeout, "log in", Box::pin(log_in(&mut handle, config))).await;
        if let Err(error) = login {
            if error.kind() == ErrorKind::DestinationUnavailable {
                // What it said last is known once it has ended.
                let _ = tokio::time::timeout(LAST_WORDS, &mut handle).await;
            }
            return Err(match last.farewell.get() {
                Some(said) => refused(config).because(said.clone()),
                None => error,
            });
        }
        let beginning = Box::pin(begin(&handle, config, &last));
        let begun = in_time(config.connect_timeout, "begin the file protocol", beginning).await;
        let (mut sftp, offers) = begun?;
        let mut write_bytes = SAFE_WRITE;
        if offers.contains_key(extensions::LIMITS)
            && let Ok(limits) = sftp.limits().await
        {
            let limits = Limits::from(limits);
            write_bytes = limits.write_len.unwrap_or(SAFE_WRITE).clamp(1, LONGEST_WRITE);
            sftp.set_limits(limits);
        }
        let write_bytes = usize::try_from(write_bytes).unwrap_or(SAFE_WRITE as usize);
        Ok(Self { sftp, offers, write_bytes, handle, is_lost: AtomicBool::new(false) })
    }

    /// Whether something can be asked for.
    pub(super) fn is_open(&self) -> bool {
        !self.is_lost.load(Ordering::Relaxed) && !self.handle.is_closed()
    }

    /// Waits for what the server was asked; whoever does not answer is not asked again.
    pub(super) async fn ask<T>(&self, asked: impl Future<Output = Result<T, SftpError>>) -> Result<T, Fault> {
        if self.is_lost.load(Ordering::Relaxed) {
            return Err(Fault::Lost("it was given up before".to_owned()));
        }
        let answer = asked.await.map_err(Fault::from);
        if answer.as_ref().is_err_and(Fault::is_lost) {
            self.is_lost.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Whether the server makes files durable when it is asked to.
    pub(super) fn can_sync(&self) -> bool {
        self.offers.contains_key(extensions::FSYNC)
    }

    /// Whether a rename can replace what is there, in one step.
    pub(super) fn can_replace(&self) -> bool {
        self.offers.contains_key(POSIX_RENAME)
    }

    /// Whether the server says how full its disk is.
    pub(super) fn tells_space(&self) -> bool {
        self.offers.contains_key(extensions::STATVFS)
    }

    /// Gives a file another name, in the place of what has it.
    pub(super) async fn replace(&self, from: &str, to: &str) -> Result<(), Fault> {
        let mut data = Vec::with_capacity(from.len() + to.len() + 8);
        for path in [from, to] {
            data.extend_from_slice(&u32::try_from(path.len()).unwrap_or(u32::MAX).to_be_bytes());
            data.extend_from_slice(path.as_bytes());
        }
        let renamed = async {
            match self.sftp.extended(POSIX_RENAME, data).await? {
                russh_sftp::protocol::Packet::Status(status)
                    if status.status_code == russh_sftp::protocol::StatusCode::Ok =>
                {
                    Ok(())
                }
                russh_sftp::protocol::Packet::Status(status) => Err(SftpError::Status(status)),
                _ => Err(SftpError::UnexpectedPacket),
            }
        };
        self.ask(renamed).await
    }
}

async fn in_time<T>(longest: Duration, doing: &str, work: impl Future<Output = EtlResult<T>>) -> EtlResult<T> {
    tokio::time::timeout(longest, work).await.unwrap_or_else(|_| {
        Err(EtlError::new(ErrorKind::DestinationUnavailable, format!("the SFTP server took too long to {doing}"))
            .with("step", if doing == "log in" { "login" } else { "address" })
            .with("connect_timeout", format!("{longest:?}"))
            .hint("Check that the server runs and can be reached; raise `connect_timeout` if it is slow"))
    })
}

async fn connect(config: &SftpConfig, last: Arc<LastWords>) -> EtlResult<Handle<Verifier>> {
    let known = HostKeys::read(config)?;
    let unreachable = |error: String| {
        EtlError::new(ErrorKind::DestinationUnavailable, "the SFTP server cannot be reached")
            .with("server", format!("{}:{}", config.host, config.port))
            .with("step", "address")
            .because(error)
            .hint("Check `host` and `port`, and that a server for SSH listens there")
    };
    let stream = TcpStream::connect((config.host.as_str(), config.port)).await;
    let stream = stream.map_err(|error| unreachable(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
    let preferred = Preferred::default();
    let key = Cow::Owned(known.preferred(&preferred.key));
    let settings = client::Config {
        preferred: Preferred { key, ..preferred },
        keepalive_interval: Some(config.keepalive),
        keepalive_max: SILENCES,
        nodelay: true,
        ..client::Config::default()
    };
    let refused = Arc::new(Mutex::new(None));
    let verifier = Verifier { known, refused: Arc::clone(&refused), last };
    let connected = client::connect_stream(Arc::new(settings), stream, verifier).await;
    let refused = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (refused, connected) {
        (Some(error), _) => Err(error),
        (None, Ok(handle)) => Ok(handle),
        (None, Err(error)) => Err(unreachable(error.to_string())),
    }
}

type Begun = (RawSftpSession, HashMap<String, String>);

/// Begins the file protocol. Only what the server says is its refusal: a connection that ends is lost, however it shows.
async fn begin(handle: &Handle<Verifier>, config: &SftpConfig, last: &Arc<LastWords>) -> EtlResult<Begun> {
    let refused = |error: String| {
        EtlError::new(ErrorKind::Config, "the server lets the user in, but takes no files over SFTP")
            .with("server", format!("{}:{}", config.host, config.port))
            .with("step", "login")
            .because(error)
            .hint("Let its owner turn on the subsystem `sftp` for the user, and let nothing be printed when the user logs in")
    };
    let gone = |error: russh::Error| lost(&error.to_string());
    let mut channel = match handle.channel_open_session().await {
        Err(error @ russh::Error::ChannelOpenFailure(_)) => return Err(refused(error.to_string())),
        opened => opened.map_err(gone)?,
    };
    channel.request_subsystem(true, "sftp").await.map_err(gone)?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => break,
            Some(ChannelMsg::Failure) => return Err(refused("it has no such subsystem".to_owned())),
            Some(_) => {}
            None => return Err(lost("the server ended the connection")),
        }
    }
    let stream = FileStream::new(channel.into_stream(), Arc::clone(last));
    let protocol = ProtocolConfig {
        max_packet_len: LONGEST_PACKET,
        request_timeout_secs: config.timeout.as_secs().max(1),
        ..ProtocolConfig::default()
    };
    let sftp = RawSftpSession::new_with_config(stream, protocol);
    match sftp.init().await {
        Ok(version) => Ok((sftp, version.extensions)),
        Err(error @ (SftpError::Status(_) | SftpError::UnexpectedPacket)) => Err(refused(error.to_string())),
        // A program that cannot be run, or is another one, ends by itself, and perhaps says why.
        Err(error) => Err(match (last.talk.get(), last.exit_status.get()) {
            (None, None) => lost(&error.to_string()),
            (None, Some(status)) => refused(format!("its program for files ended with status {status}")),
            (Some(talk), None) => refused(format!("its program for files says {talk:?}")),
            (Some(talk), Some(status)) => {
                refused(format!("its program for files says {talk:?} and ended with status {status}"))
            }
        }),
    }
}
