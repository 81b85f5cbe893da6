//! How does a session begin? The startup packet and the login.

use bytes::{Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding as Binding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;

use super::connection::Connection;
use super::settings::SESSION;
use crate::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use crate::postgres::options::{ChannelBinding, ConnectOptions};

/// Whether the session reads the stream; those of the stream take a setting more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Query,
    Replication,
}

/// How long the walsender waits for a word from us; feedback comes several times in that, whatever the server's
/// own setting is.
const PATIENCE: &str = "60s";

/// Sends the startup packet.
pub(super) async fn begin(connection: &mut Connection, options: &ConnectOptions, purpose: Purpose) -> EtlResult<()> {
    let mut parameters: Vec<(&str, &str)> =
        vec![("user", &options.user), ("database", &options.database), ("application_name", &options.application_name)];
    parameters.extend_from_slice(SESSION);
    if purpose == Purpose::Replication {
        parameters.push(("replication", "database"));
        parameters.push(("wal_sender_timeout", PATIENCE));
    }
    let mut packet = BytesMut::new();
    frontend::startup_message(parameters, &mut packet).or_etl(ErrorKind::Config, "write the startup packet")?;
    connection.send(&packet).await?;
    log_in(connection, options).await
}

/// Answers the server's questions until it is ready (protocol, start-up).
async fn log_in(connection: &mut Connection, options: &ConnectOptions) -> EtlResult<()> {
    loop {
        let (tag, body) = connection.message().await?;
        match tag {
            b'R' => match body.get(..4).and_then(|kind| kind.try_into().ok()).map(u32::from_be_bytes) {
                Some(0) => {}
                Some(3) => clear_text(connection, options).await?,
                Some(5) => md5(connection, options, &body.slice(4..)).await?,
                Some(10) => scram(connection, options, &body.slice(4..)).await?,
                Some(kind) => return Err(unsupported(kind)),
                None => return Err(EtlError::new(ErrorKind::Protocol, "an authentication message is too short")),
            },
            b'S' => connection.note_parameter(&body),
            b'Z' => return Ok(()),
            // The key for cancelling, notices and protocol negotiation are not needed.
            _ => {}
        }
    }
}

fn unsupported(kind: u32) -> EtlError {
    let method = match kind {
        7..=9 => "GSSAPI or SSPI",
        _ => "an unknown method",
    };
    EtlError::new(ErrorKind::SourceAuthentication, format!("the server asks for {method}, which is not supported"))
        .hint("Use scram-sha-256 in pg_hba.conf, and set the password again with password_encryption = 'scram-sha-256'")
}

fn password(options: &ConnectOptions) -> EtlResult<&[u8]> {
    let password = options.password.as_ref().ok_or_else(|| {
        EtlError::new(ErrorKind::SourceAuthentication, "the server asks for a password, and none is configured")
            .with("user", &options.user)
            .hint("Set `password`, PGPASSWORD, or a line in ~/.pgpass")
    })?;
    Ok(password.expose().as_bytes())
}

/// A login that cannot be bound to the connection.
fn expect_unbound(options: &ConnectOptions) -> EtlResult<()> {
    if options.channel_binding != ChannelBinding::Require {
        return Ok(());
    }
    Err(EtlError::new(
        ErrorKind::SourceAuthentication,
        "the server asks for a login that is not bound to the connection",
    )
    .hint("Use scram-sha-256 over TLS at the server, or set channel_binding to prefer"))
}

async fn clear_text(connection: &mut Connection, options: &ConnectOptions) -> EtlResult<()> {
    expect_unbound(options)?;
    send_password(connection, password(options)?).await
}

/// The hash of the password and the user, hashed again with the salt (protocol, AuthenticationMD5Password).
async fn md5(connection: &mut Connection, options: &ConnectOptions, salt: &[u8]) -> EtlResult<()> {
    expect_unbound(options)?;
    let salt = salt.try_into().or_etl(ErrorKind::Protocol, "read the salt of the login")?;
    let hash = md5_hash(options.user.as_bytes(), password(options)?, salt);
    send_password(connection, hash.as_bytes()).await
}

async fn send_password(connection: &mut Connection, password: &[u8]) -> EtlResult<()> {
    let mut packet = BytesMut::new();
    frontend::password_message(password, &mut packet).or_etl(ErrorKind::Config, "write the password")?;
    connection.send(&packet).await
}

/// SCRAM-SHA-256, bound to the connection where it is encrypted (RFC 5802, RFC 7677).
async fn scram(connection: &mut Connection, options: &ConnectOptions, offered: &Bytes) -> EtlResult<()> {
    let password = password(options)?;
    let offers = |name: &str| offered.split(|byte| *byte == 0).any(|offer| offer == name.as_bytes());
    let is_wanted = options.channel_binding != ChannelBinding::Disable;
    let binding = connection.server_end_point().filter(|_| is_wanted);
    let (mechanism, binding) = match binding {
        Some(hash) if offers(SCRAM_SHA_256_PLUS) => (SCRAM_SHA_256_PLUS, Binding::tls_server_end_point(hash)),
        _ if options.channel_binding == ChannelBinding::Require => return expect_unbound(options),
        // The server must learn that it was asked, so that nobody in between can take the offer out.
        Some(_) => (SCRAM_SHA_256, Binding::unrequested()),
        None => (SCRAM_SHA_256, Binding::unsupported()),
    };
    if !offers(mechanism) {
        return Err(unsupported(10));
    }
    let mut scram = ScramSha256::new(password, binding);
    let mut packet = BytesMut::new();
    let malformed = "read the server's part of the login";
    frontend::sasl_initial_response(mechanism, scram.message(), &mut packet).or_etl(ErrorKind::Protocol, malformed)?;
    connection.send(&packet).await?;
    scram.update(&sasl(connection, 11).await?).or_etl(ErrorKind::Protocol, malformed)?;
    packet.clear();
    frontend::sasl_response(scram.message(), &mut packet).or_etl(ErrorKind::Protocol, malformed)?;
    connection.send(&packet).await?;
    let last = sasl(connection, 12).await?;
    scram.finish(&last).map_err(|error| {
        EtlError::new(ErrorKind::SourceAuthentication, "the server does not know the password either: another server?")
            .because(error)
    })
}

async fn sasl(connection: &mut Connection, expected: u32) -> EtlResult<Bytes> {
    let (tag, body) = connection.message().await?;
    let kind = body.get(..4).and_then(|kind| kind.try_into().ok()).map(u32::from_be_bytes);
    if (tag, kind) == (b'R', Some(expected)) {
        return Ok(body.slice(4..));
    }
    Err(EtlError::new(ErrorKind::Protocol, "the server left the login's order").with("expected", expected))
}

impl Connection {
    /// Writes a packet.
    pub(super) async fn send(&mut self, packet: &[u8]) -> EtlResult<()> {
        let doing = "write to the source";
        self.socket.write_all(packet).await.or_etl(ErrorKind::SourceUnavailable, doing)?;
        self.socket.flush().await.or_etl(ErrorKind::SourceUnavailable, doing)
    }
}
