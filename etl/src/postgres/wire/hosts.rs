//! Which of several servers answers and is the one that is meant?

use std::future::Future;

use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::postgres::options::{ConnectOptions, Host, ServerRole, TargetSession};

/// Tries the hosts in their order until one is as meant. What does not answer is passed over; a refusal is not.
pub(crate) async fn first_fit<T, F>(options: &ConnectOptions, attempt: impl Fn(Host) -> F) -> EtlResult<T>
where
    F: Future<Output = EtlResult<(T, ServerRole)>>,
{
    let passes = match options.target() {
        TargetSession::PreferStandby => &[TargetSession::PreferStandby, TargetSession::Any][..],
        TargetSession::Any => &[TargetSession::Any],
        TargetSession::ReadWrite => &[TargetSession::ReadWrite],
        TargetSession::ReadOnly => &[TargetSession::ReadOnly],
        TargetSession::Primary => &[TargetSession::Primary],
        TargetSession::Standby => &[TargetSession::Standby],
    };
    let mut failed = None;
    for pass in passes {
        for host in options.hosts() {
            failed = Some(match attempt(host.clone()).await {
                Ok((session, role)) if pass.takes(role) => return Ok(session),
                Ok((_, role)) => unfit(&host, role),
                Err(error) if error.kind() == ErrorKind::SourceUnavailable => error,
                Err(error) => return Err(error),
            });
        }
    }
    let failed = failed.unwrap_or_else(|| EtlError::new(ErrorKind::Internal, "there is no host to connect to"));
    if options.other_hosts.is_empty() {
        return Err(failed);
    }
    Err(EtlError::new(ErrorKind::SourceUnavailable, "none of the servers can be used")
        .with("servers", options.address())
        .because(failed))
}

fn unfit(host: &Host, role: ServerRole) -> EtlError {
    let is = match (role.is_standby, role.is_read_only) {
        (true, _) => "a standby",
        (false, true) => "read-only",
        (false, false) => "a primary that takes writes",
    };
    EtlError::new(ErrorKind::SourceUnavailable, "the server is not what target_session_attrs asks for")
        .with("server", host)
        .with("it is", is)
        .hint("Name the server that is meant, or set target_session_attrs to `any`")
}
