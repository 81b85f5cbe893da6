//! What are the parts of a profile? Each read from its section.

use std::time::Duration;

use super::requests::{extract, is_json, request};
use super::section::{At, Named, Section, Text};
use super::{answers, errors};
use crate::bulk::{Limits, Order, Policy, Rate, Resubmit, Schedule, Unattributed};
use crate::profile::shape::{
    Auth, ClientCredentials, Discover, Encode, Field, FieldKind, Format, Profile, Recover, Submit, Times, Wanted,
};

/// How long an answer may be where the profile does not say.
const ANSWER_BYTES: u64 = 16 << 20;

/// The longest answer that can be asked for: it is read into memory.
const MOST_ANSWER_BYTES: u64 = 256 << 20;

/// Reads a whole profile; `None` where a part is missing that the others cannot be checked without.
pub(super) fn profile<'t>(text: &Text<'t>, mut root: Section<'_, 't>) -> Option<Profile> {
    let mut said = |key: &'static str| {
        let found = root.text(key);
        root.required(key, found).map(|at| at.is)
    };
    let (name, about) = (said("name"), said("about"));
    let (documents, documents_of) = (said("documents"), said("documents_of"));
    let resubmit = resubmit(&mut root);
    let orders = [("per_table", Order::PerTable), ("any", Order::Any)];
    let order = if root.has("order") { root.choice("order", &orders) } else { Some(Order::PerTable) };
    let messages = root.texts("messages").unwrap_or_default();
    let messages = messages.into_iter().filter(|at| root.is_pointer(&at.is, at.line)).map(|at| at.is).collect();
    let (settings, secrets) = (wanted(&mut root, "settings"), wanted(&mut root, "secrets"));
    let (limits, answer_bytes) = limits(&mut root).unzip();
    let auth = match root.table("auth") {
        Some(section) => auth(section),
        None => root.required("auth", None),
    };
    let discover = root.table("discover").and_then(discover);
    let check = root.table("check").and_then(|mut section| {
        let check = request(&mut section, http::Method::GET);
        section.end();
        check
    });
    let check = root.required("check", check);
    let encode = root.table("encode").and_then(encode);
    let encode = root.required("encode", encode);
    let submit: Vec<Submit> = root.tables("submit").into_iter().filter_map(step).collect();
    if submit.is_empty() {
        root.required::<()>("submit", None);
    }
    let errors = root.tables("errors").into_iter().filter_map(errors::rule).collect();
    let poll = match root.table("poll") {
        Some(section) => answers::poll(section),
        None => Some((None, None, Unattributed::Retry)),
    };
    let rejects = root.tables("rejects").into_iter().filter_map(answers::rejects).collect();
    let recover = root.table("recover").and_then(recover);
    let cleanup = root.tables("cleanup").into_iter().filter_map(|mut section| {
        let request = request(&mut section, http::Method::DELETE);
        section.end();
        request
    });
    let cleanup = cleanup.collect();
    if resubmit == Some(Resubmit::Discover) && recover.is_none() {
        text.wrong(
            1,
            "`recover` is missing: `resubmit = \"discover\"` needs to say how the system is asked for a batch",
        );
    }
    root.end();
    let (poll, times, unattributed) = poll?;
    let policy = policy(resubmit?, order?, times, unattributed);
    let (limits, answer_bytes) = (limits?, usize::try_from(answer_bytes?).ok()?);
    Some(Profile {
        name: name?,
        about: about?,
        documents: documents?,
        documents_of: documents_of?,
        settings,
        secrets,
        limits,
        policy,
        answer_bytes,
        messages,
        auth: auth?,
        discover,
        check: check?,
        encode: encode?,
        submit,
        errors,
        poll,
        rejects,
        recover,
        cleanup,
    })
}

fn policy(resubmit: Resubmit, order: Order, times: Option<Times>, unattributed: Unattributed) -> Policy {
    let policy = Policy { order, resubmit, unattributed, ..Policy::default() };
    match times {
        Some(Times { first, longest, deadline, forgets_after }) => {
            Policy { polls: Schedule { first, longest }, deadline, forgets_after, ..policy }
        }
        None => policy,
    }
}

fn resubmit(root: &mut Section<'_, '_>) -> Option<Resubmit> {
    let words = [
        ("client_id", Resubmit::ClientId),
        ("discover", Resubmit::Discover),
        ("idempotent", Resubmit::Idempotent),
        ("unsafe_at_least_once", Resubmit::UnsafeAtLeastOnce),
        ("unsafe_at_most_once", Resubmit::UnsafeAtMostOnce),
    ];
    let found = root.choice("resubmit", &words);
    root.required("resubmit", found)
}

/// What the profile asks for: its name and what it is, or that and what it is otherwise.
fn wanted(root: &mut Section<'_, '_>, key: &'static str) -> Vec<Wanted> {
    let mut list = Vec::new();
    for (name, value) in root.named(key) {
        match value {
            Named::Text(At { line, is }) => list.push(Wanted { line, name, about: is, default: None }),
            Named::Section(mut section) => {
                let line = section.line;
                let about = section.text("about");
                let about = section.required("about", about);
                let default = if key == "secrets" { None } else { section.text("default") };
                section.end();
                list.extend(about.map(|about| Wanted {
                    line,
                    name,
                    about: about.is,
                    default: default.map(|at| at.is),
                }));
            }
        }
    }
    list
}

fn limits(root: &mut Section<'_, '_>) -> Option<(Limits, u64)> {
    let section = root.table("limits");
    let mut section = root.required("limits", section)?;
    let rows = section.number("rows");
    let rows = section.required("rows", rows);
    let bytes = section.size("bytes");
    let bytes = section.required("bytes", bytes);
    let row_bytes = section.size("row_bytes");
    let row_bytes = section.required("row_bytes", row_bytes);
    if rows == Some(0) || bytes == Some(0) || row_bytes == Some(0) {
        section.wrong(section.line, "a limit of nothing lets nothing through");
    }
    let in_flight = section.number("in_flight").unwrap_or(1);
    let answer_bytes = section.size("answer_bytes").unwrap_or(ANSWER_BYTES);
    if answer_bytes > MOST_ANSWER_BYTES {
        section.wrong(section.line, "`limits.answer_bytes` is more than 256MiB: answers are read into memory");
    }
    let rate = match section.table("rate") {
        Some(inner) => rate(inner),
        None => None,
    };
    section.end();
    let limits = Limits { max_rows: rows?, max_bytes: bytes?, max_row_bytes: row_bytes?, in_flight, rate };
    Some((limits, answer_bytes))
}

fn rate(mut section: Section<'_, '_>) -> Option<Rate> {
    let burst = section.number("burst");
    let burst = section.required("burst", burst);
    let every = section.duration("every");
    let every = section.required("every", every).filter(|every| *every > Duration::ZERO);
    section.end();
    Some(Rate { burst: burst?, every: every? })
}

#[derive(Clone)]
enum AuthKind {
    None,
    Basic,
    Bearer,
    Header,
    Client,
}

fn auth(mut section: Section<'_, '_>) -> Option<Auth> {
    let kinds = [
        ("none", AuthKind::None),
        ("basic", AuthKind::Basic),
        ("bearer", AuthKind::Bearer),
        ("header", AuthKind::Header),
        ("oauth2_client_credentials", AuthKind::Client),
    ];
    let kind = section.choice("kind", &kinds);
    let kind = section.required("kind", kind)?;
    let mut template = |key: &'static str| {
        let found = section.template(key);
        section.required(key, found)
    };
    let auth = match kind {
        AuthKind::None => Some(Auth::None),
        AuthKind::Basic => {
            template("user").zip(template("password")).map(|(user, password)| Auth::Basic { user, password })
        }
        AuthKind::Bearer => template("token")
            .map(|token| Auth::Header { name: "authorization".to_owned(), value: token.after("Bearer ") }),
        AuthKind::Header => {
            let name = section.text("name");
            let name = section.required("name", name);
            let value = section.template("value");
            let value = section.required("value", value);
            name.zip(value).map(|(name, value)| Auth::Header { name: name.is.to_ascii_lowercase(), value })
        }
        AuthKind::Client => {
            let (url, id, secret) = (template("url"), template("client_id"), template("client_secret"));
            let ways = [("form", false), ("basic", true)];
            let is_in_header = if section.has("sent_as") { section.choice("sent_as", &ways)? } else { false };
            let fields = section.templates("fields");
            let token = section.pointer("token").unwrap_or_else(|| "/access_token".to_owned());
            let lasts = section.pointer("lasts").unwrap_or_else(|| "/expires_in".to_owned());
            url.zip(id).zip(secret).map(|((url, id), secret)| {
                Auth::Client(Box::new(ClientCredentials { url, id, secret, fields, is_in_header, token, lasts }))
            })
        }
    };
    section.end();
    auth
}

fn discover(mut section: Section<'_, '_>) -> Option<Discover> {
    let request = request(&mut section, http::Method::GET);
    let extract = extract(&mut section);
    section.end();
    Some(Discover { request: request?, extract })
}

fn step(mut section: Section<'_, '_>) -> Option<Submit> {
    let request = request(&mut section, http::Method::POST);
    let extract = extract(&mut section);
    let is_repeatable = section.flag("repeatable").unwrap_or(true);
    section.end();
    Some(Submit { request: request?, extract, is_repeatable })
}

fn recover(mut section: Section<'_, '_>) -> Option<Recover> {
    let request = request(&mut section, http::Method::GET);
    let items = section.pointer("items");
    let items = section.required("items", items);
    let at = section.pointer("at");
    let at = section.required("at", at);
    let is = section.template("is");
    let is = section.required("is", is);
    let more = if section.has("more") { section.pointer("more") } else { None };
    let extract = extract(&mut section);
    section.end();
    Some(Recover { request: request?, items: items?, at: at?, is: is?, more, extract })
}

/// What a body or an answer is written in.
pub(super) fn format(section: &mut Section<'_, '_>) -> Option<Format> {
    let words = [
        ("json", Format::Json),
        ("jsonl", Format::JsonLines),
        ("csv", Format::Separated(',')),
        ("tsv", Format::Separated('\t')),
    ];
    section.choice("format", &words)
}

fn encode(mut section: Section<'_, '_>) -> Option<Encode> {
    let format = format(&mut section);
    let format = section.required("format", format);
    let envelope = section.template("envelope");
    let row = section.template("row");
    for (template, variable) in [(&envelope, "rows"), (&row, "row")] {
        let Some(template) = template else { continue };
        is_json(&section, template);
        if template.variables().filter(|name| *name == variable).count() != 1 {
            section.wrong(template.line, format!("it holds `${{{variable}}}` once"));
        }
    }
    if envelope.is_some() && format.is_some_and(|format| format != Format::Json) {
        section.wrong(section.line, "only `format = \"json\"` has an `encode.envelope`");
    }
    let column = section.template("column");
    let is_text = matches!(format, Some(Format::Separated(_)));
    let null = section.text("null").map(|at| at.is);
    let keeps_null = section.flag("keeps_null").unwrap_or(false);
    let fields = fields(&mut section);
    let rest = if section.has("rest") { section.pointer("rest") } else { None };
    let deleted = if section.has("deleted") { section.pointer("deleted") } else { None };
    let has_metadata = section.flag("metadata").unwrap_or(false);
    if is_text && (row.is_some() || !fields.is_empty() || rest.is_some() || deleted.is_some() || keeps_null) {
        section.wrong(section.line, "`row`, `fields`, `rest`, `deleted` and `keeps_null` are for JSON alone");
    }
    if format.is_some() && !is_text && null.is_some() {
        section.wrong(section.line, "`encode.null` is for CSV and TSV alone; JSON has `keeps_null`");
    }
    // Where no column has a place of its own, all stand at the top.
    let rest = if fields.is_empty() { rest.or(Some(String::new())) } else { rest };
    section.end();
    let (format, null) = (format?, null.unwrap_or_default());
    Some(Encode { format, envelope, row, column, null, keeps_null, fields, rest, deleted, has_metadata })
}

fn fields(section: &mut Section<'_, '_>) -> Vec<Field> {
    let kinds = [("value", FieldKind::Value), ("text", FieldKind::Text), ("json", FieldKind::Json)];
    let mut fields = Vec::new();
    for (column, value) in section.named("fields") {
        match value {
            Named::Text(At { line, is: at }) => {
                if section.is_pointer(&at, line) {
                    fields.push(Field { column, at, kind: FieldKind::Value });
                }
            }
            Named::Section(mut inner) => {
                let at = inner.pointer("at");
                let at = inner.required("at", at);
                let kind = inner.choice("as", &kinds).unwrap_or(FieldKind::Value);
                inner.end();
                fields.extend(at.map(|at| Field { column, at, kind }));
            }
        }
    }
    fields
}
