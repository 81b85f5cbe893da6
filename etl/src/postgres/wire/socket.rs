//! What carries the bytes? TCP, a unix socket, or TLS over TCP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::tls;
use crate::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use crate::postgres::options::{ConnectOptions, TlsMode};

/// A dead peer is noticed after about this long.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection to the server, encrypted or not.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Connects, and encrypts as configured.
    pub(crate) async fn connect(options: &ConnectOptions) -> EtlResult<Self> {
        let connecting = tokio::time::timeout(options.connect_timeout, Box::pin(Self::connect_now(options)));
        connecting.await.unwrap_or_else(|_| {
            let after = crate::duration::format(options.connect_timeout);
            Err(unreachable(options, io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {after}"))))
        })
    }

    async fn connect_now(options: &ConnectOptions) -> EtlResult<Self> {
        if options.is_unix() {
            let path = format!("{}/.s.PGSQL.{}", options.host, options.port);
            let stream = UnixStream::connect(&path).await.map_err(|e| unreachable(options, e))?;
            return Ok(Self::Unix(stream));
        }
        let address = (options.host.as_str(), options.port);
        let mut stream = TcpStream::connect(address).await.map_err(|e| unreachable(options, e))?;
        stream.set_nodelay(true).map_err(|e| unreachable(options, e))?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(|e| unreachable(options, e))?;
        if options.tls_mode() == TlsMode::Disable {
            return Ok(Self::Tcp(stream));
        }
        request_tls(&mut stream, options).await?;
        tls::encrypt(stream, options).await.map(|stream| Self::Tls(Box::new(stream)))
    }

    /// What binds a login to this connection, where it is encrypted.
    pub(super) fn server_end_point(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => tls::server_end_point(stream),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }
}

/// The server answers `S` when it encrypts, `N` when it does not (protocol, SSL session encryption).
async fn request_tls(stream: &mut TcpStream, options: &ConnectOptions) -> EtlResult<()> {
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    stream.write_all(&request).await.or_etl(ErrorKind::SourceUnavailable, "ask for TLS")?;
    let answer = stream.read_u8().await.or_etl(ErrorKind::SourceUnavailable, "ask for TLS")?;
    if answer == b'S' {
        return Ok(());
    }
    Err(EtlError::new(ErrorKind::Tls, "the server does not offer TLS")
        .with("server", options.address())
        .hint("Set up TLS at the server (ssl = on), or set tls.mode to disable on a network that you trust"))
}

fn unreachable(options: &ConnectOptions, error: io::Error) -> EtlError {
    EtlError::new(ErrorKind::SourceUnavailable, "the server cannot be reached")
        .with("server", options.address())
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
