//! What does an answer that is not good mean? As the profile's rules say; the first that fits counts.

use std::time::Duration;

use etl::clock;
use etl::error::{ErrorKind, EtlError};
use serde_json::Value;

use super::super::shape::{Condition, ErrorRule, Profile, RowErrors, Then};
use crate::bulk::{CallError, ErrorClass};
use crate::http::{self, HttpAnswer};

/// No more of what a system said is shown.
const SHOWN: usize = 300;

/// A text or number at a place.
pub(super) fn text_at(body: &Value, at: &str) -> Option<String> {
    text(body.pointer(at)?)
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

pub(super) fn holds(condition: &Condition, body: &Value) -> bool {
    text_at(body, &condition.at).is_some_and(|found| condition.is.contains(&found))
}

/// The first of these places where something is said.
pub(super) fn said(body: &Value, places: &[String]) -> Option<String> {
    let mut said = places.iter().find_map(|place| text_at(body, place).filter(|text| !text.is_empty()))?;
    if said.len() > SHOWN {
        said.truncate(said.floor_char_boundary(SHOWN));
        said.push('…');
    }
    Some(said)
}

/// How long a system asks to be left alone.
pub(super) fn retry_after(answer: &HttpAnswer) -> Option<Duration> {
    http::retry_after(answer.header("retry-after")?, answer.header("date"), clock::now())
}

/// What is to be done about an answer.
pub(super) fn class(rules: &[ErrorRule], answer: &HttpAnswer, body: &Value) -> Option<ErrorClass> {
    let fits = |rule: &&ErrorRule| {
        rule.statuses.iter().any(|(from, to)| (*from..=*to).contains(&answer.status))
            && rule.when.as_ref().is_none_or(|when| holds(when, body))
    };
    rules.iter().find(fits).map(|rule| of(&rule.then, answer, body))
}

fn of(then: &Then, answer: &HttpAnswer, body: &Value) -> ErrorClass {
    match then {
        Then::Retry => ErrorClass::Retry,
        Then::Throttle => ErrorClass::Throttle(retry_after(answer)),
        Then::Reauth => ErrorClass::Reauth,
        Then::Split => ErrorClass::Split,
        Then::Refuse => ErrorClass::RefuseBatch,
        Then::Config => ErrorClass::Config,
        Then::RejectRows(rows) => match wrong_rows(rows, body) {
            Some(rows) => ErrorClass::RejectRows(rows),
            None => of(&rows.otherwise, answer, body),
        },
    }
}

/// The rows that the answer names; `None` where one of its errors is of no row, or there is none.
fn wrong_rows(rows: &RowErrors, body: &Value) -> Option<Vec<(u32, String)>> {
    let items = body.pointer(&rows.items)?.as_array().filter(|items| !items.is_empty())?;
    let row = |item: &Value| {
        let place = text_at(item, &rows.at)?;
        let place = place.strip_prefix(&rows.after)?;
        let digits = place.len() - place.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let ordinal = place[..digits].parse::<u32>().ok()?.checked_sub(rows.first)?;
        let reason = said(item, std::slice::from_ref(&rows.reason));
        Some((ordinal, reason.unwrap_or_else(|| "the system does not say why".to_owned())))
    };
    items.iter().map(row).collect()
}

/// The error of an answer that is not good.
pub(super) fn failure(profile: &Profile, answer: &HttpAnswer, body: &Value, commits: bool) -> CallError {
    let class = class(&profile.errors, answer, body);
    let (kind, what, hint) = match &class {
        Some(ErrorClass::Retry | ErrorClass::Throttle(_)) => {
            (ErrorKind::DestinationUnavailable, "the system cannot take it at the moment", None)
        }
        Some(ErrorClass::Reauth) => (
            ErrorKind::Config,
            "the system refuses who asks",
            Some("Check the destination's `secrets`, and what they allow"),
        ),
        Some(ErrorClass::Config) => (
            ErrorKind::Config,
            "the system refuses what it is configured for",
            Some("Check the destination's `settings`"),
        ),
        Some(_) => (ErrorKind::DestinationRejected, "the system refuses what it got", None),
        None => (
            ErrorKind::DestinationRejected,
            "the system gave an answer that the profile does not know",
            Some("Add the status to the profile: to `expect`, or to `[[errors]]`"),
        ),
    };
    let mut error = EtlError::new(kind, what).with("system", &profile.name).with("status", answer.status);
    if let Some(said) = said(body, &profile.messages) {
        error = error.with("said", said);
    }
    if let Some(hint) = hint {
        error = error.hint(hint);
    }
    // What broke within the system may have been done all the same; what is good but unknown was.
    let may_be_done = match &class {
        Some(ErrorClass::Retry) => answer.status >= 500 || answer.status == 408,
        Some(_) => false,
        None => answer.status < 400,
    };
    CallError { class: class.unwrap_or(ErrorClass::Retry), in_doubt: commits && may_be_done, error }
}
