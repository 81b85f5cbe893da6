//! Who are we to the server? A key, an agent's keys, a password: what the config has, in this order.

use std::path::Path;
use std::sync::Arc;

use etl::Secret;
use etl::error::{ErrorKind, EtlError, EtlResult};
use russh::AgentAuthError;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, load_secret_key};

use super::config::SftpConfig;
use super::error::lost;
use super::session::Verifier;

/// What is known of a login that is under way.
struct Login<'l> {
    handle: &'l mut Handle<Verifier>,
    user: &'l str,
    /// What was tried, for the error.
    tried: Vec<&'static str>,
    /// What the server would take, as it says.
    takes: String,
}

/// Logs in.
///
/// # Errors
/// `Config` where the server does not let the user in, or a key cannot be used; `DestinationUnavailable` where the connection
/// ends.
pub(super) async fn log_in(handle: &mut Handle<Verifier>, config: &SftpConfig) -> EtlResult<()> {
    let mut login = Login { handle, user: &config.user, tried: Vec::new(), takes: String::new() };
    if let Some(path) = &config.private_key
        && login.by_key(path, config.passphrase.as_ref()).await?
    {
        return Ok(());
    }
    if let Some(socket) = &config.agent
        && login.by_agent(socket).await?
    {
        return Ok(());
    }
    if let Some(password) = &config.password
        && login.by_password(password).await?
    {
        return Ok(());
    }
    Err(refused(config).with("tried", login.tried.join(", ")).with("server_takes", login.takes))
}

impl Login<'_> {
    async fn by_key(&mut self, path: &Path, passphrase: Option<&Secret>) -> EtlResult<bool> {
        self.tried.push("private_key");
        let key = load_secret_key(path, passphrase.map(Secret::expose)).map_err(|error| unusable_key(path, &error))?;
        let hash = if key.algorithm().is_rsa() { self.rsa_hash().await } else { None };
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
        let answer = self.handle.authenticate_publickey(self.user, key).await;
        self.answer(answer)
    }

    async fn by_agent(&mut self, socket: &Path) -> EtlResult<bool> {
        self.tried.push("agent");
        let unusable = |error: russh::keys::Error| {
            EtlError::new(ErrorKind::Config, "the agent with the user's keys does not answer")
                .with("agent", socket.display())
                .with("step", "login")
                .because(error)
                .hint("Start `ssh-agent`, add the key with `ssh-add`, and give its socket: `agent: ${SSH_AUTH_SOCK}`")
        };
        let mut agent = AgentClient::connect_uds(socket).await.map_err(unusable)?;
        for identity in agent.request_identities().await.map_err(unusable)? {
            let AgentIdentity::PublicKey { key, .. } = identity else { continue };
            let hash = if key.algorithm().is_rsa() { self.rsa_hash().await } else { None };
            match self.handle.authenticate_publickey_with(self.user, key, hash, &mut agent).await {
                Ok(answer) => {
                    if self.answer(Ok(answer))? {
                        return Ok(true);
                    }
                }
                Err(error) if matches!(error, AgentAuthError::Send(_)) || self.handle.is_closed() => {
                    return Err(lost(&error.to_string()));
                }
                // A key that the agent does not sign with is none that we have.
                Err(_) => {}
            }
        }
        Ok(false)
    }

    /// By the method `password`, and where the server does not have it, by its questions: many ask for the password there.
    async fn by_password(&mut self, password: &Secret) -> EtlResult<bool> {
        self.tried.push("password");
        let answer = self.handle.authenticate_password(self.user, password.expose()).await;
        if self.answer(answer)? {
            return Ok(true);
        }
        if !self.takes.contains("keyboard-interactive") {
            return Ok(false);
        }
        let failed = |error: russh::Error| lost(&error.to_string());
        let mut asked = self.handle.authenticate_keyboard_interactive_start(self.user, None).await.map_err(failed)?;
        for _ in 0..MOST_QUESTIONS {
            let answers = match asked {
                KeyboardInteractiveAuthResponse::Success => return Ok(true),
                KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                    prompts.iter().map(|_| password.expose().to_owned()).collect()
                }
            };
            asked = self.handle.authenticate_keyboard_interactive_respond(answers).await.map_err(failed)?;
        }
        Ok(false)
    }

    async fn rsa_hash(&self) -> Option<HashAlg> {
        self.handle.best_supported_rsa_hash().await.ok().flatten().flatten().or(Some(HashAlg::Sha512))
    }

    fn answer(&mut self, answer: Result<AuthResult, russh::Error>) -> EtlResult<bool> {
        match answer {
            Ok(AuthResult::Success) => Ok(true),
            // So the crate says that the connection has ended, and so a server that there is no way in: what it said last tells.
            Ok(AuthResult::Failure { remaining_methods, .. }) if remaining_methods.is_empty() => {
                Err(lost("the server ended the login"))
            }
            Ok(AuthResult::Failure { remaining_methods, .. }) => {
                let takes: Vec<&str> = remaining_methods.iter().map(Into::into).collect();
                self.takes = takes.join(", ");
                Ok(false)
            }
            Err(error) => Err(lost(&error.to_string())),
        }
    }
}

/// The user is not let in.
pub(super) fn refused(config: &SftpConfig) -> EtlError {
    EtlError::new(ErrorKind::Config, "the SFTP server does not let the user in")
        .with("server", format!("{}:{}", config.host, config.port))
        .with("step", "login")
        .with("user", &config.user)
        .hint("Check `user` and the password or key; a key has to be in the user's `authorized_keys` at the server")
}

/// No server asks more often.
const MOST_QUESTIONS: usize = 5;

fn unusable_key(path: &Path, error: &russh::keys::Error) -> EtlError {
    let hint = match error {
        russh::keys::Error::KeyIsEncrypted => "Give its `passphrase`",
        russh::keys::Error::IO(_) => "Let the user that runs this read it, or give another `private_key`",
        _ => "Check its `passphrase`; it has to be a private key as `ssh-keygen` makes them",
    };
    EtlError::new(ErrorKind::Config, "the private key cannot be used")
        .with("private_key", path.display())
        .with("step", "login")
        .because(error.to_string())
        .hint(hint)
}
