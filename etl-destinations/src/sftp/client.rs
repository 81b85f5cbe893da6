//! Which connection is used? The one that is there, and a new one where it is gone.

use std::fmt;
use std::sync::Arc;

use etl::error::EtlResult;
use tokio::sync::Mutex;

use super::config::SftpConfig;
use super::session::Session;

/// Connects when something is to be done, and again when the connection is gone.
pub(super) struct Client {
    config: SftpConfig,
    session: Mutex<Option<Arc<Session>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("host", &self.config.host).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(config: SftpConfig) -> Self {
        Self { config, session: Mutex::new(None) }
    }

    /// An open connection.
    ///
    /// # Errors
    /// As of [`Session::open`].
    pub(super) async fn session(&self) -> EtlResult<Arc<Session>> {
        let mut kept = self.session.lock().await;
        if let Some(session) = kept.as_ref().filter(|session| session.is_open()) {
            return Ok(Arc::clone(session));
        }
        *kept = None;
        let session = Arc::new(Box::pin(Session::open(&self.config)).await?);
        *kept = Some(Arc::clone(&session));
        Ok(session)
    }
}
