//! How does a request of a profile get its answer? No faster than the account may ask, with who asks, read up to a limit.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use etl::clock;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::retry::pause;
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;

use super::super::ProfileConfig;
use super::super::shape::{Discover, Extract, From, Profile, Request, Sends};
use super::super::template::{Values, Within};
use super::account::Account;
use super::auth::Tokens;
use super::pack;
use super::verdict::{failure, holds, text_at};
use crate::bulk::{Bucket, CallError, ErrorClass};
use crate::http::{HttpAnswer, HttpClient, HttpOptions, HttpRequest};

/// The way to a system.
pub(super) struct Wire {
    http: HttpClient,
    tokens: Tokens,
    bucket: Mutex<Option<Bucket>>,
    discovered: AsyncMutex<Option<Values>>,
}

/// An answer that is good, and what it says.
#[derive(Debug)]
pub(super) struct Good {
    pub(super) answer: HttpAnswer,
    pub(super) body: Value,
}

/// An answer that is not, or none.
#[derive(Debug)]
pub(super) struct Bad {
    /// Its status, where there is one.
    pub(super) status: Option<u16>,
    pub(super) call: CallError,
}

impl std::convert::From<CallError> for Bad {
    fn from(call: CallError) -> Self {
        Self { status: None, call }
    }
}

/// What is handed over with a request.
pub(super) struct Content<'c> {
    /// The batch's body, where the request sends it.
    pub(super) body: &'c [u8],
    /// Whether the system has the batch for good once the request has arrived.
    pub(super) commits: bool,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(profile: &Profile, config: &ProfileConfig) -> EtlResult<Self> {
        let http = HttpClient::new(HttpOptions {
            url: None,
            ca: config.ca.clone(),
            timeout: config.timeout,
            connections: config.connections,
            headers: Vec::new(),
        })?;
        let bucket = Mutex::new(profile.limits.rate.map(Bucket::new));
        Ok(Self { http, tokens: Tokens::default(), bucket, discovered: AsyncMutex::default() })
    }

    /// What is asked once, for all requests.
    pub(super) async fn discovered(
        &self,
        profile: &Profile,
        account: &Account,
        discover: &Discover,
    ) -> Result<Values, CallError> {
        // Not held while it is asked for: what is refused is forgotten.
        if let Some(values) = self.discovered.lock().await.clone() {
            return Ok(values);
        }
        let found = self.call(profile, account, &discover.request, account.settings(), None).await;
        let found = extracted(&discover.extract, &found.map_err(|bad| bad.call)?, false)?;
        // Who asks is not told to anybody who listens on the way, where that was not so before.
        let asked = discover.request.url.fill(account.settings(), Within::Address).unwrap_or_default();
        if asked.starts_with("https:") && found.values().any(|value| value.starts_with("http:")) {
            let error = EtlError::new(ErrorKind::Config, "the system names an address without encryption");
            return Err(CallError { class: ErrorClass::Config, in_doubt: false, error });
        }
        *self.discovered.lock().await = Some(found.clone());
        Ok(found)
    }

    /// Asks, and takes what the profile calls good.
    pub(super) async fn call(
        &self,
        profile: &Profile,
        account: &Account,
        request: &Request,
        values: &Values,
        content: Option<Content<'_>>,
    ) -> Result<Good, Bad> {
        let commits = content.as_ref().is_some_and(|content| content.commits);
        let body = content.map(|content| content.body).unwrap_or_default();
        let wrong = |error| CallError { class: ErrorClass::Config, in_doubt: false, error };
        let mut may_renew = true;
        loop {
            let mut asked = asked(request, values, body).map_err(wrong)?;
            asked.most_bytes = profile.answer_bytes;
            asked.headers.extend(self.tokens.header(&self.http, &profile.auth, account).await?);
            self.admitted().await;
            let answer = self.http.ask(asked).await.map_err(|unanswered| {
                let in_doubt = commits && unanswered.was_sent;
                CallError { class: ErrorClass::Retry, in_doubt, error: unanswered.error.with("system", &profile.name) }
            })?;
            if answer.status == 401 && may_renew && self.tokens.renew(&profile.auth).await {
                may_renew = false;
                continue;
            }
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let is_good = request.expect.contains(&answer.status)
                && request.good_when.as_ref().is_none_or(|condition| holds(condition, &body));
            if is_good {
                return Ok(Good { answer, body });
            }
            if answer.status == 401 {
                // It may have moved as well.
                *self.discovered.lock().await = None;
            }
            let call = failure(profile, &answer, &body, commits);
            return Err(Bad { status: Some(answer.status), call });
        }
    }

    /// Waits until the account may make a request.
    async fn admitted(&self) {
        let wait = {
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.as_mut().map_or(Duration::ZERO, |bucket| bucket.take(clock::now()))
        };
        if !wait.is_zero() {
            pause(wait).await;
        }
    }
}

fn asked(request: &Request, values: &Values, batch: &[u8]) -> EtlResult<HttpRequest> {
    let mut asked = HttpRequest {
        method: request.method.clone(),
        to: Some(request.url.fill(values, Within::Address)?),
        query: pairs(&request.query, values)?,
        ..HttpRequest::default()
    };
    for (name, value) in pairs(&request.headers, values)? {
        asked.headers.push((name, etl::Secret::new(value)));
    }
    match &request.sends {
        Sends::Nothing => {}
        Sends::Json { body, content_type } => {
            asked.content_type = Some(content_type.clone());
            asked.body[0] = Bytes::from(body.fill(values, Within::Json)?);
        }
        Sends::Form(fields) => {
            asked.content_type = Some("application/x-www-form-urlencoded".to_owned());
            asked.body[0] = Bytes::from(crate::http::encoded(&pairs(fields, values)?));
        }
        Sends::Batch(pack) => pack::put(&mut asked, pack, values, batch)?,
    }
    Ok(asked)
}

pub(super) fn pairs(
    templates: &[(String, super::super::template::Template)],
    values: &Values,
) -> EtlResult<Vec<(String, String)>> {
    templates.iter().map(|(name, value)| Ok((name.clone(), value.fill(values, Within::Text)?))).collect()
}

/// What is taken from an answer; each is there and not empty.
pub(super) fn extracted(extracts: &[Extract], good: &Good, commits: bool) -> Result<Values, CallError> {
    let mut values = Values::new();
    for extract in extracts {
        let value = match &extract.from {
            From::Body(at) => text_at(&good.body, at),
            From::Header(name) => good.answer.header(name).map(str::to_owned),
        };
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            let error = EtlError::new(ErrorKind::DestinationUnavailable, "an answer lacks what the next request needs")
                .with("variable", &extract.name)
                .with("status", good.answer.status)
                .hint("Where every answer does, the profile looks for it in the wrong place");
            return Err(CallError { class: ErrorClass::Retry, in_doubt: commits, error });
        };
        values.insert(extract.name.clone(), value.trim_end_matches('/').to_owned());
    }
    Ok(values)
}
