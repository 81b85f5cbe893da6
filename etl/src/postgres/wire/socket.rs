//! What carries the bytes? TCP, a unix socket, or TLS over TCP.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::tls;
use crate::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use crate::postgres::options::{ConnectOptions, Host, KeepaliveOptions, TlsMode};

/// A connection to the server, encrypted or not.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Connects to a host, and encrypts as configured.
    pub(crate) async fn connect(options: &ConnectOptions, host: &Host) -> EtlResult<Self> {
        let connecting = tokio::time::timeout(options.connect_timeout, Box::pin(Self::connect_now(options, host)));
        connecting.await.unwrap_or_else(|_| {
            let after = crate::duration::format(options.connect_timeout);
            Err(unreachable(host, io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {after}"))))
        })
    }

    async fn connect_now(options: &ConnectOptions, host: &Host) -> EtlResult<Self> {
        if host.is_unix() {
            let path = format!("{}/.s.PGSQL.{}", host.name, host.port);
            let stream = UnixStream::connect(&path).await.map_err(|e| unreachable(host, e))?;
            return Ok(Self::Unix(stream));
        }
        let address = (host.name.as_str(), host.port);
        let mut stream = TcpStream::connect(address).await.map_err(|e| unreachable(host, e))?;
        stream.set_nodelay(true).map_err(|e| unreachable(host, e))?;
        keep_alive(&stream, options.keepalive).map_err(|e| unreachable(host, e))?;
        let mode = options.tls_mode(host);
        if mode == TlsMode::Disable || !offers_tls(&mut stream, mode, host).await? {
            return Ok(Self::Tcp(stream));
        }
        tls::encrypt(stream, &options.tls, mode, host).await.map(|stream| Self::Tls(Box::new(stream)))
    }

    /// Whether nobody can listen.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The TCP connection below.
    pub(super) fn tcp(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(stream) => Some(stream.as_fd()),
            Self::Tls(stream) => Some(stream.get_ref().0.as_fd()),
            Self::Unix(_) => None,
        }
    }

    /// What binds a login to this connection, where it is encrypted.
    pub(crate) fn server_end_point(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => tls::server_end_point(stream),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }
}

/// Asks the system to notice a peer that vanished.
fn keep_alive(stream: &TcpStream, keepalive: KeepaliveOptions) -> io::Result<()> {
    let KeepaliveOptions { idle, interval, retries, unanswered } = keepalive;
    let asked = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries.max(1));
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&asked)?;
    // What was sent and not received keeps the system from asking; it has a limit of its own.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout((!unanswered.is_zero()).then_some(unanswered))?;
    Ok(())
}

/// The server answers `S` when it encrypts, `N` when it does not (protocol, SSL session encryption).
async fn offers_tls(stream: &mut TcpStream, mode: TlsMode, host: &Host) -> EtlResult<bool> {
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    stream.write_all(&request).await.or_etl(ErrorKind::SourceUnavailable, "ask for TLS")?;
    match stream.read_u8().await.or_etl(ErrorKind::SourceUnavailable, "ask for TLS")? {
        b'S' => Ok(true),
        _ if mode == TlsMode::Prefer => Ok(false),
        _ => Err(EtlError::new(ErrorKind::Tls, "the server does not offer TLS")
            .with("server", host)
            .hint("Set up TLS at the server (ssl = on), or set tls.mode to disable on a network that you trust")),
    }
}

fn unreachable(host: &Host, error: io::Error) -> EtlError {
    EtlError::new(ErrorKind::SourceUnavailable, "the server cannot be reached")
        .with("server", host)
        .because(error)
        .hint("Check host and port, that the server runs, and that it listens there")
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
