//! Which rows did a system not take? Asked for page by page, and found again in the batch.

use std::collections::BTreeSet;

use etl::error::{ErrorKind, EtlError};
use etl::store::OperationContext;
use serde_json::{Map, Value};

use super::super::shape::{Format, Pages, RejectThen, Rejects, Request};
use super::super::template::{Template, Values, Within};
use super::System;
use super::correlate::{Correlation, fields};
use super::verdict::{said, text_at};
use super::wire::Good;
use crate::bulk::{CallError, ErrorClass, PollState, Rest, RowOutcome, SealedBatch, UploadStats};

/// No system has more pages of errors for a batch: it sends the same ones again.
const MOST_PAGES: usize = 10_000;

impl System {
    /// What became of the rows of a batch's jobs that are done.
    pub(super) async fn outcomes(
        &self,
        batch: &SealedBatch,
        contexts: &[OperationContext],
        states: &[PollState],
    ) -> Result<UploadStats, CallError> {
        let (mut rows, mut unknown) = (Vec::new(), 0_u32);
        for (context, _) in contexts.iter().zip(states).filter(|(_, state)| **state == PollState::Completed) {
            let values = self.values_by(context).await?;
            let counts = self.counts(&values).await?;
            let mut spoken = Spoken::default();
            let has_failed = counts.failed.is_none_or(|failed| failed > 0);
            for rejects in &self.profile.rejects {
                if has_failed || rejects.then == RejectThen::Warned {
                    self.rejected(batch, context, rejects, &values, &mut spoken).await?;
                }
            }
            let (first, end) = context.rows;
            // What the system counts and does not show, and what it never had.
            let silent = counts.failed.map_or(0, |failed| failed.saturating_sub(spoken.items));
            let lost = counts.total.map_or(0, |total| end.saturating_sub(first).saturating_sub(total));
            unknown = unknown.saturating_add(spoken.unknown.max(silent)).saturating_add(lost);
            rows.append(&mut spoken.rows);
        }
        let of_batch = u32::try_from(batch.manifest.rows.len()).unwrap_or(u32::MAX);
        let named = rows.iter().map(|(ordinal, _)| *ordinal).collect::<BTreeSet<_>>().len();
        let unnamed = of_batch.saturating_sub(u32::try_from(named).unwrap_or(u32::MAX));
        let rest = match unknown.min(unnamed) {
            0 => Rest::Succeeded,
            unknown => Rest::Unattributed(unknown),
        };
        Ok(UploadStats { rows, rest })
    }

    /// How many rows a job has, and how many of them failed, where it says.
    async fn counts(&self, values: &Values) -> Result<Counts, CallError> {
        let Some(poll) = self.profile.poll.as_ref().filter(|poll| poll.total.is_some() || poll.failed.is_some()) else {
            return Ok(Counts { total: None, failed: None });
        };
        let good = self.wire.call(&self.profile, &self.account, &poll.request, values, None).await;
        let body = good.map_err(|bad| bad.call)?.body;
        let number = |at: &Option<String>| match at {
            None => Ok(None),
            Some(at) => match text_at(&body, at).and_then(|number| number.parse().ok()) {
                Some(number) => Ok(Some(number)),
                None => Err(unclear("a job does not say how many of its rows have failed", at)),
            },
        };
        Ok(Counts { total: number(&poll.total)?, failed: number(&poll.failed)? })
    }

    /// What one kind of reject says of the rows.
    async fn rejected(
        &self,
        batch: &SealedBatch,
        context: &OperationContext,
        rejects: &Rejects,
        values: &Values,
        spoken: &mut Spoken,
    ) -> Result<(), CallError> {
        let wrong = |error| CallError { class: ErrorClass::Config, in_doubt: false, error };
        let body = batch.read().await.map_err(wrong)?;
        let format = self.profile.encode.format;
        let mut rows = Correlation::new(&rejects.correlate, &batch.manifest, &body, format, context.rows);
        let mut page = Page { request: rejects.request.clone(), at: 0 };
        let mut seen = BTreeSet::new();
        for _ in 0..MOST_PAGES {
            let good = self.wire.call(&self.profile, &self.account, &page.request, values, None).await;
            let good = good.map_err(|bad| bad.call)?;
            let items = items(rejects, &good)?;
            for item in &items {
                let reason = said(item, &rejects.reason).unwrap_or_else(|| "the system does not say why".to_owned());
                let found = rows.find(item);
                spoken.count(rejects.then, reason, found);
            }
            match page.next(rejects, values, &good, items.len())? {
                None => return Ok(()),
                Some(mark) if !seen.insert(mark.clone()) => {
                    return Err(unclear("a page of errors is followed by itself", &mark));
                }
                Some(_) => {}
            }
        }
        Err(unclear("the pages of errors do not end", &rejects.items))
    }
}

struct Counts {
    total: Option<u32>,
    failed: Option<u32>,
}

/// What was said of rows.
#[derive(Default)]
struct Spoken {
    rows: Vec<(u32, RowOutcome)>,
    /// How many errors there were that fail a row.
    items: u32,
    /// How many of them were of no row that was found.
    unknown: u32,
}

impl Spoken {
    fn count(&mut self, then: RejectThen, reason: String, found: Vec<u32>) {
        let fails = then != RejectThen::Warned;
        self.items += u32::from(fails);
        self.unknown += u32::from(fails && found.is_empty());
        self.rows.extend(found.into_iter().map(|ordinal| {
            let reason = reason.clone();
            let outcome = match then {
                RejectThen::Rejected => RowOutcome::Rejected(reason),
                RejectThen::Warned => RowOutcome::Warned(reason),
                RejectThen::Retry => RowOutcome::Retry(reason),
            };
            (ordinal, outcome)
        }));
    }
}

fn unclear(what: &'static str, at: &str) -> CallError {
    let error = EtlError::new(ErrorKind::DestinationUnavailable, what).with("at", at);
    CallError { class: ErrorClass::Retry, in_doubt: false, error }
}

/// The errors of a page.
fn items(rejects: &Rejects, good: &Good) -> Result<Vec<Value>, CallError> {
    let body = &good.answer.body;
    match rejects.format {
        Format::Json => match good.body.pointer(&rejects.items) {
            Some(Value::Array(items)) => Ok(items.clone()),
            _ => Err(unclear("an answer has no list of errors where the profile looks for it", &rejects.items)),
        },
        Format::JsonLines => {
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
            let items = lines.map(serde_json::from_slice).collect::<Result<_, _>>();
            items.map_err(|_| unclear("a line of errors is no JSON", &rejects.items))
        }
        Format::Separated(delimiter) => {
            let text = String::from_utf8_lossy(body);
            let mut records = fields(&text, delimiter).into_iter();
            let header = records.next().unwrap_or_default();
            let item = |record: Vec<String>| {
                let pairs = header.iter().cloned().zip(record.into_iter().map(Value::from));
                Value::Object(pairs.collect::<Map<_, _>>())
            };
            Ok(records.map(item).collect())
        }
    }
}

/// The request of the page that is asked for.
struct Page {
    request: Request,
    at: u32,
}

impl Page {
    /// Goes on to the next page, if there is one; what marks it.
    fn next(
        &mut self,
        rejects: &Rejects,
        values: &Values,
        good: &Good,
        items: usize,
    ) -> Result<Option<String>, CallError> {
        let text = |at: &str| text_at(&good.body, at).filter(|text| !text.is_empty());
        let literal = |text: &str| Template::read(&text.replace("${", "$${"), rejects.request.line).unwrap_or_default();
        match &rejects.pages {
            Pages::One => Ok(None),
            Pages::Link(at) => {
                let Some(link) = text(at) else { return Ok(None) };
                if !is_of_the_same_server(&rejects.request.url, values, &link) {
                    return Err(unclear("the next page of errors is on another server", at));
                }
                self.request.url = literal(&link);
                self.request.query.clear();
                Ok(Some(link))
            }
            Pages::Cursor { at, parameter } => {
                let Some(cursor) = text(at) else { return Ok(None) };
                self.set(parameter, literal(&cursor));
                Ok(Some(cursor))
            }
            Pages::Offset { parameter, by, more } => {
                if items == 0 || text(more).is_none_or(|more| more == "false" || more == "0") {
                    return Ok(None);
                }
                self.at += by;
                self.set(parameter, literal(&self.at.to_string()));
                Ok(Some(self.at.to_string()))
            }
        }
    }

    fn set(&mut self, parameter: &str, value: Template) {
        self.request.query.retain(|(name, _)| name != parameter);
        self.request.query.push((parameter.to_owned(), value));
    }
}

/// Whether a link leads to where the request went, so that nobody else is told who asks.
fn is_of_the_same_server(request: &Template, values: &Values, link: &str) -> bool {
    let origin = |text: &str| {
        let url = text.parse::<http::Uri>().ok()?;
        Some((url.scheme_str()?.to_owned(), url.authority()?.to_string()))
    };
    let asked = request.fill(values, Within::Address).ok().and_then(|text| origin(&text));
    asked.is_some() && asked == origin(link)
}
