//! How is the catalog asked? Through `tokio-postgres`, over the same sockets, with the same settings.

use tokio::task::JoinHandle;
use tokio_postgres::tls::{self, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, config};

use super::options::{ChannelBinding, ConnectOptions, Host, ServerRole};
use super::wire::{Socket, TRANSACTION_TIMEOUT, as_options, explained, first_fit, parse_version, query_error};
use crate::error::{ErrorKind, EtlError, EtlResult};

/// A session for catalog queries; dropping it closes the connection.
#[derive(Debug)]
pub struct Session {
    client: Client,
    driver: JoinHandle<()>,
    server_version: u32,
}

impl Session {
    /// Connects, logs in, and sets what every session needs (`SOURCE.md` R13).
    ///
    /// # Errors
    /// Where the server cannot be reached, refuses the login or the encryption.
    pub async fn connect(options: &ConnectOptions) -> EtlResult<Self> {
        first_fit(options, async |host: Host| {
            let (session, role) = Self::connect_to(options, &host).await?;
            Ok((session, role))
        })
        .await
    }

    async fn connect_to(options: &ConnectOptions, host: &Host) -> EtlResult<(Self, ServerRole)> {
        let socket = Socket::connect(options, host).await?;
        let mut config = Config::new();
        config
            .user(&options.user)
            .dbname(&options.database)
            .application_name(&options.application_name)
            .options(as_options())
            .channel_binding(match options.channel_binding {
                ChannelBinding::Disable => config::ChannelBinding::Disable,
                ChannelBinding::Prefer => config::ChannelBinding::Prefer,
                ChannelBinding::Require => config::ChannelBinding::Require,
            })
            // The socket is encrypted already, where it is to be.
            .ssl_negotiation(config::SslNegotiation::Direct)
            .ssl_mode(if socket.is_encrypted() { config::SslMode::Require } else { config::SslMode::Disable });
        if let Some(password) = &options.password {
            config.password(password.expose());
        }
        let logging_in = tokio::time::timeout(options.connect_timeout, config.connect_raw(socket, AsItIs));
        let logged_in = logging_in.await.map_err(|_| {
            EtlError::new(ErrorKind::SourceUnavailable, "the server did not answer the login in time")
                .with("server", host)
        })?;
        let (client, connection) = logged_in.map_err(|e| explained(login_error(e, options)).with("server", host))?;
        let server_version = connection.parameter("server_version").and_then(parse_version).unwrap_or(0);
        let role = {
            let is_on = |name: &str| connection.parameter(name) == Some("on");
            ServerRole { is_standby: is_on("in_hot_standby"), is_read_only: is_on("default_transaction_read_only") }
        };
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a catalog session was lost");
            }
        });
        let session = Self { client, driver, server_version };
        let (since, set) = TRANSACTION_TIMEOUT;
        if server_version >= since {
            session.client.batch_execute(set).await.map_err(|e| query_error("set up the session", e))?;
        }
        Ok((session, role))
    }

    /// For queries.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The server's version, such as 150018.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The error of a login.
fn login_error(error: tokio_postgres::Error, options: &ConnectOptions) -> EtlError {
    let text = error.to_string();
    let is_login = error.as_db_error().is_none()
        && ["invalid configuration", "authentication error"].iter().any(|what| text.contains(what));
    if !is_login {
        return query_error("log in", error);
    }
    EtlError::new(ErrorKind::SourceAuthentication, "the server asks for a login that is not possible")
        .with("user", &options.user)
        .because(error)
        .hint("Set `password`, PGPASSWORD or a line in ~/.pgpass; `channel_binding: require` needs SCRAM over TLS")
}

/// Takes a socket as it is, encrypted or not.
struct AsItIs;

impl TlsConnect<Socket> for AsItIs {
    type Stream = Socket;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Socket, Self::Error>>;

    fn connect(self, socket: Socket) -> Self::Future {
        std::future::ready(Ok(socket))
    }
}

impl TlsStream for Socket {
    fn channel_binding(&self) -> tls::ChannelBinding {
        self.server_end_point().map_or_else(tls::ChannelBinding::none, tls::ChannelBinding::tls_server_end_point)
    }
}
