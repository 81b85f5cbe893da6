//! What does a profile make of an answer that is not good?

use super::requests::condition;
use super::section::{At, Section};
use crate::profile::shape::{ErrorRule, RowErrors, Then};

fn words() -> [(&'static str, Then); 6] {
    [
        ("retry", Then::Retry),
        ("throttle", Then::Throttle),
        ("reauth", Then::Reauth),
        ("split", Then::Split),
        ("refuse", Then::Refuse),
        ("config", Then::Config),
    ]
}

/// Reads one of `[[errors]]`.
pub(super) fn rule(mut section: Section<'_, '_>) -> Option<ErrorRule> {
    let statuses = section.texts("status");
    let statuses = section.required("status", statuses).unwrap_or_default();
    let statuses: Vec<(u16, u16)> = statuses.iter().filter_map(|at| range(&section, at)).collect();
    let when = condition(&mut section, "when");
    let then = match section.table("reject_rows") {
        Some(inner) => rows(inner).map(|rows| Then::RejectRows(Box::new(rows))),
        None => {
            let then = section.choice("then", &words());
            section.required("then", then)
        }
    };
    section.end();
    Some(ErrorRule { statuses, when, then: then? })
}

/// `429`, `4xx`, or `200`.
fn range(section: &Section<'_, '_>, At { line, is }: &At<String>) -> Option<(u16, u16)> {
    let class =
        is.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok()).filter(|class| (1..=5).contains(class));
    let found = match class {
        Some(class) => Some((class * 100, class * 100 + 99)),
        None => is.parse().ok().filter(|status| (100..=599).contains(status)).map(|status| (status, status)),
    };
    if found.is_none() {
        section.wrong(*line, format!("`{is}` is no status of HTTP; write such as `429` or `5xx`"));
    }
    found
}

fn rows(mut section: Section<'_, '_>) -> Option<RowErrors> {
    let items = section.pointer("items");
    let items = section.required("items", items);
    let at = section.pointer("at");
    let at = section.required("at", at);
    let after = section.text("after").map(|at| at.is).unwrap_or_default();
    let first = section.number("first").unwrap_or(0);
    let reason = section.pointer("reason");
    let reason = section.required("reason", reason);
    let otherwise = section.choice("otherwise", &words());
    let otherwise = section.required("otherwise", otherwise);
    section.end();
    Some(RowErrors { items: items?, at: at?, after, first, reason: reason?, otherwise: otherwise? })
}
