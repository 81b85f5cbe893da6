//! What does a system say later? The states of its jobs, and which rows it did not take.

use std::collections::BTreeSet;
use std::time::Duration;

use super::parts::format;
use super::requests::request;
use super::section::{At, Section};
use crate::bulk::Unattributed;
use crate::profile::shape::{Correlate, Format, Pages, Poll, RejectThen, Rejects, State, Times};

const STATES: &[(&str, State)] = &[
    ("pending", State::Pending),
    ("completed", State::Completed),
    ("retry", State::Retry),
    ("refuse", State::Refuse),
    ("split", State::Split),
    ("config", State::Config),
    ("gone", State::Gone),
];

/// Reads `[poll]`, and what of it says how long things take.
pub(super) fn poll(mut section: Section<'_, '_>) -> Option<(Option<Poll>, Option<Times>, Unattributed)> {
    let request = request(&mut section, http::Method::GET);
    let gone = section.texts("gone").unwrap_or_default();
    let gone = gone.iter().filter_map(|At { line, is }| {
        let status = is.parse().ok();
        if status.is_none() {
            section.wrong(*line, format!("`{is}` is no status of HTTP"));
        }
        status
    });
    let gone = gone.collect();
    let state = section.pointer("state");
    let state = section.required("state", state);
    let states = states(&mut section);
    let mut pointer = |key| if section.has(key) { section.pointer(key) } else { None };
    let (message, progress) = (pointer("message"), pointer("progress"));
    let (total, failed) = (pointer("total"), pointer("failed"));
    let policies = [("retry", Unattributed::Retry), ("hold", Unattributed::Hold)];
    let unattributed = match section.has("unattributed") {
        true => section.choice("unattributed", &policies),
        false => Some(Unattributed::Retry),
    };
    let times = times(&mut section);
    section.end();
    let poll = Poll { request: request?, gone, state: state?, states, message, progress, total, failed };
    Some((Some(poll), Some(times?), unattributed?))
}

/// Each state that the vendor documents means something, and nothing else is named.
fn states(section: &mut Section<'_, '_>) -> Vec<(String, State)> {
    let documented = section.texts("documented");
    let documented = section.required("documented", documented).unwrap_or_default();
    let line = section.line;
    let mut states = Vec::new();
    for (name, At { line, is }) in section.pairs("states") {
        match STATES.iter().find(|(word, _)| *word == is) {
            Some((_, state)) => states.push((name.clone(), *state)),
            None => {
                let known: Vec<&str> = STATES.iter().map(|(word, _)| *word).collect();
                section.wrong(line, format!("the state `{name}` means `{is}`, which is none of {}", known.join(", ")));
                states.push((name.clone(), State::Pending));
            }
        }
        if !documented.iter().any(|of| of.is == name) {
            section.wrong(line, format!("the state `{name}` is not among those that `poll.documented` lists"));
        }
    }
    let mapped: BTreeSet<&str> = states.iter().map(|(name, _)| name.as_str()).collect();
    for At { line, is } in documented.iter().filter(|of| !mapped.contains(of.is.as_str())) {
        section.wrong(*line, format!("the state `{is}` is not in `poll.states`"));
    }
    if !states.iter().any(|(_, state)| *state == State::Completed) {
        section.wrong(line, "no state in `poll.states` means `completed`");
    }
    states
}

fn times(section: &mut Section<'_, '_>) -> Option<Times> {
    let inner = section.table("schedule");
    let mut inner = section.required("schedule", inner)?;
    let mut needed = |key: &'static str| {
        let found = inner.duration(key);
        inner.required(key, found)
    };
    let (first, longest, deadline) = (needed("first"), needed("longest"), needed("deadline"));
    let forgets_after = inner.duration("forgets_after");
    if [first, longest, deadline].contains(&Some(Duration::ZERO)) || first > longest {
        inner.wrong(inner.line, "`first` is more than nothing and at most `longest`, and so is `deadline`");
    }
    inner.end();
    Some(Times { first: first?, longest: longest?, deadline: deadline?, forgets_after })
}

/// Reads one of `[[rejects]]`.
pub(super) fn rejects(mut section: Section<'_, '_>) -> Option<Rejects> {
    let request = request(&mut section, http::Method::GET);
    let format = if section.has("format") { format(&mut section) } else { Some(Format::Json) };
    let items = section.pointer("items").unwrap_or_default();
    let words = [("rejected", RejectThen::Rejected), ("warned", RejectThen::Warned), ("retry", RejectThen::Retry)];
    let then = if section.has("then") { section.choice("then", &words) } else { Some(RejectThen::Rejected) };
    let reason = section.texts("reason");
    let reason = section.required("reason", reason).unwrap_or_default();
    let reason = reason.into_iter().filter(|at| section.is_pointer(&at.is, at.line)).map(|at| at.is).collect();
    let pages = match section.table("pages") {
        Some(inner) => pages(inner),
        None => Some(Pages::One),
    };
    let correlate = section.table("correlate");
    let correlate = section.required("correlate", correlate).and_then(correlation);
    section.end();
    let (request, correlate) = (request?, correlate?);
    Some(Rejects { request, format: format?, items, then: then?, reason, pages: pages?, correlate })
}

fn pages(mut section: Section<'_, '_>) -> Option<Pages> {
    let kinds = [("link", 0), ("cursor", 1), ("offset", 2)];
    let kind = section.choice("kind", &kinds);
    let kind = section.required("kind", kind)?;
    let at = section.pointer("at");
    let at = section.required("at", at);
    let parameter = |section: &mut Section<'_, '_>| {
        let found = section.text("parameter");
        section.required("parameter", found).map(|at| at.is)
    };
    let pages = match kind {
        0 => at.map(Pages::Link),
        1 => at.zip(parameter(&mut section)).map(|(at, parameter)| Pages::Cursor { at, parameter }),
        _ => {
            let parameter = parameter(&mut section);
            let by = section.number("by").filter(|by| *by > 0);
            let by = section.required("by", by);
            parameter.zip(by).zip(at).map(|((parameter, by), more)| Pages::Offset { parameter, by, more })
        }
    };
    section.end();
    pages
}

fn correlation(mut section: Section<'_, '_>) -> Option<Correlate> {
    let kinds = [("key", 0), ("index", 1), ("row", 2), ("none", 3)];
    let by = section.choice("by", &kinds);
    let by = section.required("by", by)?;
    let at = |section: &mut Section<'_, '_>| {
        let found = section.pointer("at");
        section.required("at", found)
    };
    let correlate = match by {
        0 if section.has("columns") => {
            let columns = section.pairs("columns");
            let columns = columns.into_iter().filter(|(_, at)| section.is_pointer(&at.is, at.line));
            Some(Correlate::Key(columns.map(|(column, at)| (Some(column), at.is)).collect()))
        }
        0 => at(&mut section).map(|at| Correlate::Key(vec![(None, at)])),
        1 => {
            let at = at(&mut section);
            let first = section.number("first");
            let first = section.required("first", first);
            at.zip(first).map(|(at, first)| Correlate::Index { at, first })
        }
        2 => at(&mut section).map(|at| Correlate::Row { at }),
        _ => Some(Correlate::None),
    };
    section.end();
    correlate
}
