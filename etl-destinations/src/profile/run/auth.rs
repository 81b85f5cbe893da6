//! Who asks? A header with a secret, or with a token that is fetched and ends.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use etl::Secret;
use etl::clock::{self, Timestamp};
use etl::error::{ErrorKind, EtlError, EtlResult};
use serde_json::Value;
use tokio::sync::Mutex;

use super::super::shape::{Auth, ClientCredentials};
use super::account::Account;
use super::verdict::text_at;
use crate::bulk::{CallError, ErrorClass};
use crate::http::{HttpClient, HttpRequest};

/// A token is not used in its last seconds.
const BEFORE_ITS_END: Duration = Duration::from_secs(30);

/// The longest answer with a token.
const MOST_BYTES: usize = 1 << 20;

/// The token that is used, and until when.
#[derive(Default)]
pub(super) struct Tokens(Mutex<Option<(Secret, Option<Timestamp>)>>);

impl Tokens {
    /// The header that says who asks.
    pub(super) async fn header(
        &self,
        http: &HttpClient,
        auth: &Auth,
        account: &Account,
    ) -> Result<Option<(String, Secret)>, CallError> {
        match auth {
            Auth::None => Ok(None),
            Auth::Header { name, value } => {
                let value = account.secret(value).map_err(refused)?;
                Ok(Some((name.clone(), value)))
            }
            Auth::Basic { user, password } => {
                let value = basic(account, user, password).map_err(refused)?;
                Ok(Some(("authorization".to_owned(), value)))
            }
            Auth::Client(client) => {
                let mut token = self.0.lock().await;
                let is_over = |until: &Option<Timestamp>| until.is_some_and(|until| clock::now() >= until);
                if token.as_ref().is_none_or(|(_, until)| is_over(until)) {
                    *token = Some(fetch(http, client, account).await?);
                }
                let bearer = token.as_ref().map(|(token, _)| Secret::new(format!("Bearer {}", token.expose())));
                Ok(bearer.map(|bearer| ("authorization".to_owned(), bearer)))
            }
        }
    }

    /// Whether a refused request may be tried with a token that is new.
    pub(super) async fn renew(&self, auth: &Auth) -> bool {
        matches!(auth, Auth::Client(_)) && self.0.lock().await.take().is_some()
    }
}

fn basic(
    account: &Account,
    user: &super::super::template::Template,
    password: &super::super::template::Template,
) -> EtlResult<Secret> {
    let (user, password) = (account.secret(user)?, account.secret(password)?);
    let pair = format!("{}:{}", user.expose(), password.expose());
    Ok(Secret::new(format!("Basic {}", STANDARD.encode(pair))))
}

fn refused(error: EtlError) -> CallError {
    CallError { class: ErrorClass::Reauth, in_doubt: false, error }
}

/// Asks for a token.
async fn fetch(
    http: &HttpClient,
    client: &ClientCredentials,
    account: &Account,
) -> Result<(Secret, Option<Timestamp>), CallError> {
    let request = asked(client, account).map_err(refused)?;
    let answer = http.ask(request).await.map_err(|unanswered| CallError {
        class: ErrorClass::Retry,
        in_doubt: false,
        error: unanswered.error,
    })?;
    // What is in the answer is never shown.
    let failed = |class, kind, what: &str| {
        let error = EtlError::new(kind, what.to_owned()).with("status", answer.status);
        let error = error.hint("Check the client's id and secret, and that it may use the API");
        CallError { class, in_doubt: false, error }
    };
    if answer.status == 429 || answer.status >= 500 {
        let kind = ErrorKind::DestinationUnavailable;
        return Err(failed(ErrorClass::Retry, kind, "a token cannot be had at the moment"));
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let Some(token) = text_at(&body, &client.token).filter(|token| answer.is_good() && !token.is_empty()) else {
        return Err(failed(ErrorClass::Reauth, ErrorKind::Config, "no token is given to this client"));
    };
    let lasts = text_at(&body, &client.lasts).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    let until = lasts.map(|lasts| {
        let lasts = i64::try_from(lasts.saturating_sub(BEFORE_ITS_END).as_micros()).unwrap_or(i64::MAX);
        Timestamp(clock::now().0.saturating_add(lasts))
    });
    Ok((Secret::new(token), until))
}

fn asked(client: &ClientCredentials, account: &Account) -> EtlResult<HttpRequest> {
    let mut form = vec![("grant_type".to_owned(), Secret::new("client_credentials"))];
    let mut headers = Vec::new();
    if client.is_in_header {
        headers.push(("authorization".to_owned(), basic(account, &client.id, &client.secret)?));
    } else {
        form.push(("client_id".to_owned(), account.secret(&client.id)?));
        form.push(("client_secret".to_owned(), account.secret(&client.secret)?));
    }
    for (name, value) in &client.fields {
        form.push((name.clone(), account.secret(value)?));
    }
    let form: Vec<(String, String)> = form.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect();
    Ok(HttpRequest {
        to: Some(account.secret(&client.url)?.expose().to_owned()),
        headers,
        most_bytes: MOST_BYTES,
        content_type: Some("application/x-www-form-urlencoded".to_owned()),
        body: [Bytes::from(crate::http::encoded(&form)), Bytes::new(), Bytes::new()],
        ..HttpRequest::default()
    })
}
