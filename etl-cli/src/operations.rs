//! `etl operations`: what is under way to a system that answers later? Lists, shows, lets go on, gives up.

use std::path::Path;
use std::process::ExitCode;

use etl_config::{AppConfig, DeskRequest};
use indicatif::BinaryBytes;
use serde_json::Value;

use crate::args::{Operations, OperationsVerb};
use crate::control_socket::ask_at_desk;
use crate::failure::Failure;
use crate::stdout::say;

/// How much of a name tells most apart.
const SHORT: usize = 8;

pub(crate) async fn operations(config: &Path, args: Operations) -> Result<ExitCode, Failure> {
    let config = AppConfig::load(config)?;
    let is_json = matches!(args.verb, OperationsVerb::List { json: true } | OperationsVerb::Show { json: true, .. });
    let (request, told): (_, fn(&Value) -> Vec<String>) = match args.verb {
        OperationsVerb::List { .. } => (DeskRequest::Operations, lines),
        OperationsVerb::Show { id, rows, .. } => (DeskRequest::Operation { id, rows }, page),
        OperationsVerb::Retry { id, anew, within } => (DeskRequest::Retry { id, anew, longest: within }, put_back),
        OperationsVerb::Abandon { id, lost } => (DeskRequest::Abandon { id, is_lost: lost }, given_up),
    };
    let found = ask_at_desk(&config, request).await?;
    if is_json {
        say(&found.to_string());
    } else {
        told(&found).iter().for_each(|line| say(line));
    }
    Ok(ExitCode::SUCCESS)
}

fn text<'v>(value: &'v Value, path: &str) -> &'v str {
    value.pointer(path).and_then(Value::as_str).unwrap_or("-")
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_default()
}

fn lines(found: &Value) -> Vec<String> {
    let operations = found.as_array().map_or(&[][..], Vec::as_slice);
    if operations.is_empty() {
        return vec!["nothing is under way".to_owned()];
    }
    let width = operations.iter().map(|of| text(of, "/table").chars().count()).max().unwrap_or(0).max(5);
    let mut lines = vec![format!(
        "{:SHORT$}  {:width$}  {:<10}  {:>9}  {:>12}  {:>5}",
        "ID", "TABLE", "STATE", "ROWS", "BYTES", "TRIED"
    )];
    for operation in operations {
        let id: String = text(operation, "/id").chars().take(SHORT).collect();
        lines.push(format!(
            "{id:SHORT$}  {:width$}  {:<10}  {:>9}  {:>12}  {:>5}",
            text(operation, "/table"),
            text(operation, "/state"),
            number(operation, "/rows"),
            BinaryBytes(number(operation, "/bytes")).to_string(),
            number(operation, "/attempts"),
        ));
        lines.extend(operation.get("reason").and_then(Value::as_str).map(|reason| format!("  {reason}")));
    }
    lines
}

fn page(found: &Value) -> Vec<String> {
    let mut lines = vec![
        format!("operation  {}", text(found, "/id")),
        format!("table      {}, from {} to {}", text(found, "/table"), text(found, "/first"), text(found, "/last")),
        format!("state      {}, tried {} times", text(found, "/state"), number(found, "/attempts")),
    ];
    let said = [
        ("reason", "/reason"),
        ("since", "/since"),
        ("not before", "/not_before"),
        ("next poll", "/next_poll"),
        ("deadline", "/deadline"),
        ("settled", "/settled_at"),
    ];
    for (name, path) in said {
        if let Some(value) = found.pointer(path).and_then(Value::as_str) {
            lines.push(format!("{name:<10} {value}"));
        }
    }
    if let Some(accounting) = found.get("accounting") {
        lines.push(format!("rows       {accounting}"));
    }
    for context in found.get("contexts").and_then(Value::as_array).into_iter().flatten() {
        lines.push(format!("system     {context}"));
    }
    let (rows, bytes) = (number(found, "/rows"), BinaryBytes(number(found, "/bytes")));
    lines.push(format!("batch      {rows} rows, {bytes}, sealed at {}", text(found, "/sealed_at")));
    match found.pointer("/batch/body").and_then(Value::as_str) {
        Some(body) => lines.push(format!("file       {body}")),
        None => lines.push("file       not on disk".to_owned()),
    }
    let rows = found.pointer("/batch/rows").and_then(Value::as_array);
    lines.extend(rows.into_iter().flatten().map(|row| format!("  {row}")));
    lines
}

fn put_back(found: &Value) -> Vec<String> {
    vec![match text(found, "/state") {
        "submitted" => format!("{} is asked for again", text(found, "/id")),
        _ => format!("{} is submitted again", text(found, "/id")),
    }]
}

fn given_up(found: &Value) -> Vec<String> {
    let (id, table) = (text(found, "/id"), text(found, "/table"));
    vec![match number(found, "/accounting/dead") {
        0 => format!("{id} is given up; `etl tables resync {table}` copies its table again"),
        dead => format!("{id} is given up: {dead} rows are dead letters, which `etl dlq list --table {table}` shows"),
    }]
}
