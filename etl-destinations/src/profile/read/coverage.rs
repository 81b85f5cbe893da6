//! Does a profile say what to do with every answer, and does it learn what it has to ask by?

use super::section::Text;
use crate::profile::shape::{Correlate, Profile, Sends, Submit, Then};
use crate::profile::template::Template;

/// Says which answers mean nothing, and what does not fit together.
pub(super) fn check(text: &Text<'_>, profile: &Profile) {
    statuses(text, profile);
    let requests = profile.submit.iter().map(|step| &step.request);
    let mut all = requests.chain(profile.poll.iter().map(|poll| &poll.request));
    if all.any(|request| request.good_when.is_some()) && !is_covered(profile, 200) {
        text.wrong(
            1,
            "an answer may be refused by `good_when`, and no `[[errors]]` without `when` is for its status 200",
        );
    }
    let sends_batch = |step: &Submit| matches!(step.request.sends, Sends::Batch(_));
    if let Some(first) = profile.submit.first().filter(|_| !profile.submit.iter().any(sends_batch)) {
        text.wrong(first.request.line, "no step of `[[submit]]` sends the `batch`");
    }
    match &profile.poll {
        Some(poll) => {
            let learnt = profile.submit.iter().flat_map(|step| &step.extract);
            let learnt: Vec<&str> = learnt.map(|extract| extract.name.as_str()).collect();
            let templates = std::iter::once(&poll.request.url).chain(poll.request.query.iter().map(|(_, value)| value));
            if !templates.flat_map(Template::variables).any(|name| learnt.contains(&name)) {
                text.wrong(poll.request.line, "`[poll]` asks by nothing that a step of `[[submit]]` has learnt");
            }
        }
        None => {
            for rejects in &profile.rejects {
                text.wrong(rejects.request.line, "`[[rejects]]` needs `[poll]`: rows are asked for once a job is done");
            }
        }
    }
    let counts = profile.poll.as_ref().is_some_and(|poll| poll.failed.is_some());
    for rejects in profile.rejects.iter().filter(|rejects| matches!(rejects.correlate, Correlate::None) && !counts) {
        text.wrong(rejects.request.line, "rows that nothing tells apart have to be counted: `poll.failed` is missing");
    }
}

/// Every status that says that something is wrong means something.
fn statuses(text: &Text<'_>, profile: &Profile) {
    let silent: Vec<u16> = (400..600).filter(|status| !is_covered(profile, *status)).collect();
    if let Some(first) = silent.first() {
        let line = profile.submit.first().map_or(1, |step| step.request.line);
        let more = if silent.len() > 1 { format!(" and {} more", silent.len() - 1) } else { String::new() };
        text.wrong(line, format!("no `[[errors]]` without `when` is for the status {first}{more}"));
    }
    let is_read = |status| {
        profile.errors.iter().any(|rule| {
            matches!(rule.then, Then::Throttle)
                && rule.statuses.iter().any(|(from, to)| (*from..=*to).contains(&status))
        })
    };
    if !is_read(429) {
        text.wrong(1, "the status 429 is not `then = \"throttle\"` in any `[[errors]]`");
    }
}

fn is_covered(profile: &Profile, status: u16) -> bool {
    let unconditional = profile.errors.iter().filter(|rule| rule.when.is_none());
    unconditional.flat_map(|rule| &rule.statuses).any(|(from, to)| (*from..=*to).contains(&status))
}
