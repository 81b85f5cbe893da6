//! How is the catalog asked? Through `tokio-postgres`, over the same sockets, with the same settings.

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, config::SslMode};

use super::options::ConnectOptions;
use super::wire::{Socket, TRANSACTION_TIMEOUT, as_options, parse_version, query_error};
use crate::error::EtlResult;

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
        let socket = Socket::connect(options).await?;
        let mut config = Config::new();
        config
            .user(&options.user)
            .dbname(&options.database)
            .application_name(&options.application_name)
            .options(as_options())
            // The socket is encrypted already, where it is to be.
            .ssl_mode(SslMode::Disable);
        if let Some(password) = &options.password {
            config.password(password.expose());
        }
        let (client, connection) = config.connect_raw(socket, NoTls).await.map_err(|e| query_error("log in", e))?;
        let server_version = connection.parameter("server_version").and_then(parse_version).unwrap_or(0);
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
        Ok(session)
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
