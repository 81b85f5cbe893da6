//! What does a request of a profile say? Where it goes, what it carries, and which answer is good.

use serde_json::Value;

use super::section::{At, Section};
use crate::profile::shape::{Compress, Condition, Extract, From, Pack, Request, Sends};
use crate::profile::template::{Template, WHOLE, Within};

/// Reads the keys of a request; others stay in the section.
pub(super) fn request(section: &mut Section<'_, '_>, usual: http::Method) -> Option<Request> {
    let line = section.line;
    let methods =
        ["GET", "POST", "PUT", "PATCH", "DELETE"].map(|name| (name, http::Method::from_bytes(name.as_bytes()).ok()));
    let method = match section.has("method") {
        true => section.choice("method", &methods).flatten(),
        false => Some(usual),
    };
    let url = section.template("url");
    let url = section.required("url", url);
    let query = section.templates("query");
    let headers = section.templates("headers");
    for (name, value) in &headers {
        if http::HeaderName::try_from(name.as_str()).is_err() {
            section.wrong(value.line, format!("`{name}` is no name of a header"));
        }
    }
    let expect = statuses(section);
    let good_when = condition(section, "good_when");
    let sends = sends(section)?;
    Some(Request { line, method: method?, url: url?, query, headers, expect, good_when, sends })
}

fn statuses(section: &mut Section<'_, '_>) -> Vec<u16> {
    let Some(words) = section.texts("expect") else { return vec![200, 201, 202, 204] };
    let mut statuses = Vec::new();
    for At { line, is } in words {
        match is.parse() {
            Ok(status @ 100..=599) => statuses.push(status),
            _ => section.wrong(line, format!("`{is}` is no status of HTTP")),
        }
    }
    statuses
}

/// A place in an answer, and what may stand there.
pub(super) fn condition(section: &mut Section<'_, '_>, key: &'static str) -> Option<Condition> {
    let mut inner = section.table(key)?;
    let at = inner.pointer("at");
    let at = inner.required("at", at);
    let is = inner.texts("is");
    let is = inner.required("is", is);
    inner.end();
    Some(Condition { at: at?, is: is?.into_iter().map(|at| at.is).collect() })
}

/// What is taken from the answer.
pub(super) fn extract(section: &mut Section<'_, '_>) -> Vec<Extract> {
    let mut extracts = Vec::new();
    for (name, At { line, is }) in section.pairs("extract") {
        if name.contains('.') || WHOLE.contains(&name.as_str()) {
            section.wrong(line, format!("`{name}` cannot be a variable of one's own"));
        }
        let from = match is.strip_prefix("header:") {
            Some(header) => From::Header(header.to_ascii_lowercase()),
            None if section.is_pointer(&is, line) => From::Body(is),
            None => continue,
        };
        extracts.push(Extract { name, from });
    }
    extracts
}

fn sends(section: &mut Section<'_, '_>) -> Option<Sends> {
    let ways = ["json", "form", "batch"].iter().filter(|key| section.has(key)).count();
    if ways > 1 {
        section.wrong(section.line, "a request sends one of `json`, `form` and `batch`");
    }
    if section.has("json") {
        let body = section.template("json");
        let content_type = section.text("content_type").map_or_else(|| "application/json".to_owned(), |at| at.is);
        let body = body?;
        is_json(section, &body);
        return Some(Sends::Json { body, content_type });
    }
    if section.has("form") {
        return Some(Sends::Form(section.templates("form")));
    }
    match section.table("batch") {
        Some(inner) => pack(inner).map(|pack| Sends::Batch(Box::new(pack))),
        None => Some(Sends::Nothing),
    }
}

fn pack(mut section: Section<'_, '_>) -> Option<Pack> {
    let content_type = section.text("content_type");
    let content_type = section.required("content_type", content_type);
    let words = [("none", Compress::None), ("gzip", Compress::Gzip), ("zip", Compress::Zip)];
    let compress = match section.has("compress") {
        true => section.choice("compress", &words),
        false => Some(Compress::None),
    };
    let file_name = section.template("file_name");
    let multipart = section.table("multipart").and_then(|mut inner| {
        let file = inner.text("file");
        let file = inner.required("file", file);
        let fields = inner.templates("fields");
        inner.end();
        Some((file?.is, fields))
    });
    if file_name.is_none() && (compress == Some(Compress::Zip) || multipart.is_some()) {
        section.wrong(section.line, "`file_name` is missing: the file in an archive or a form has a name");
    }
    section.end();
    Some(Pack {
        content_type: content_type?.is,
        compress: compress?,
        file_name: file_name.unwrap_or_default(),
        multipart,
    })
}

/// Says so where a template is no JSON, whatever is put in.
pub(super) fn is_json(section: &Section<'_, '_>, template: &Template) {
    let sample = |name: &str| match name {
        "rows" => "[]".into(),
        "row" => "{}".into(),
        "columns" => "\"x\":\"x\"".into(),
        _ => "1".into(),
    };
    let text = template.filled(Within::Text, |name| Some(sample(name))).unwrap_or_default();
    if let Err(error) = serde_json::from_str::<Value>(&text) {
        section.wrong(template.line, format!("this is no JSON once its variables are put in: {error}"));
    }
}
