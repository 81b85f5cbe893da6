//! `etl status`: how is the pipeline doing? A page on a terminal, or JSON; once, or again and again.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use etl_config::AppConfig;
use indicatif::{BinaryBytes, HumanCount};
use serde_json::{Value, json};

use crate::args::Status;
use crate::control_socket::{Answer, Request, ask};
use crate::failure::Failure;
use crate::stdout::say;

/// How often a watched page is drawn.
const TICK: Duration = Duration::from_secs(1);

/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(crate) async fn status(config: &Path, args: &Status) -> Result<ExitCode, Failure> {
    let config = AppConfig::load(config)?;
    loop {
        let page = match ask(&config.pipeline.data_dir, &Request::Status).await? {
            Some(Answer::Status(status)) if args.json => status.to_string(),
            Some(Answer::Status(status)) => page(&status).join("\n"),
            Some(Answer::Refused { why, is_usage }) if !args.watch => return Err(Answer::failure(why, is_usage)),
            Some(Answer::Refused { why, .. }) => why,
            Some(Answer::Done | Answer::Found(_)) => "the pipeline is starting".to_owned(),
            None if args.json => {
                say(&json!({ "id": config.pipeline.id, "running": false }).to_string());
                return Err(Failure::Said(1));
            }
            None => return Err(not_running(&config)),
        };
        let clear = if args.watch && !args.json && std::io::stdout().is_terminal() { CLEAR } else { "" };
        say(&format!("{clear}{page}"));
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        etl::retry::pause(TICK).await;
    }
}

/// There is nobody to ask.
pub(crate) fn not_running(config: &AppConfig) -> Failure {
    let (id, dir) = (&config.pipeline.id, config.pipeline.data_dir.display());
    Failure::Other(format!("the pipeline {id} is not running on {dir}. Start it with `etl run`"))
}

fn page(status: &Value) -> Vec<String> {
    let text = |path: &str| status.pointer(path).and_then(Value::as_str).unwrap_or("-").to_owned();
    let bytes = |path: &str| status.pointer(path).and_then(Value::as_u64).map_or("-".to_owned(), to_bytes);
    let count = |path: &str| status.pointer(path).and_then(Value::as_u64).map_or("-".to_owned(), to_count);
    let lag = status.pointer("/lag_seconds").and_then(Value::as_f64).unwrap_or_default();
    let is_streaming = status.pointer("/streaming") == Some(&Value::Bool(true));
    let state = if is_streaming { "streaming" } else { "not streaming" };
    let mut lines = vec![
        format!("pipeline  {}, {state}{}, since {}", text("/id"), end(status), text("/started_at")),
        format!("lag       {lag:.1} s, {} of WAL; {} changes written", bytes("/lag_bytes"), count("/changes_written")),
        format!(
            "position  received {}, confirmed {}, durable {}",
            text("/received"),
            text("/confirmed"),
            text("/durable")
        ),
        format!(
            "source    slot {}, {} of WAL kept ({}{})",
            text("/slot"),
            bytes("/source/retained_bytes"),
            text("/source/wal_status"),
            spared(status)
        ),
        format!(
            "relay     {} in memory, {} on disk of {}",
            bytes("/relay/memory_bytes"),
            bytes("/relay/disk_bytes"),
            bytes("/relay/max_bytes")
        ),
        format!(
            "memory    {} in batches, {} in copies of {}; process {}",
            bytes("/memory/batch_bytes"),
            bytes("/memory/copy_bytes"),
            bytes("/memory/limit_bytes"),
            bytes("/process/resident_bytes")
        ),
    ];
    if let Some(error) = status.pointer("/last_error/message").and_then(Value::as_str) {
        lines.push(format!("error     {}: {error}", text("/last_error/at")));
    }
    lines.push(String::new());
    lines.extend(table_lines(status));
    lines
}

/// Where the run ends by itself.
fn end(status: &Value) -> String {
    status.pointer("/until").and_then(Value::as_str).map_or_else(String::new, |until| format!(" until {until}"))
}

/// What is done because of the WAL that the source keeps.
fn spared(status: &Value) -> String {
    match status.pointer("/wal_guard").and_then(Value::as_str) {
        None | Some("calm") => String::new(),
        Some(level) => format!("; {}", level.replace('_', " ")),
    }
}

/// The tables, one a line, below a line that names the columns.
pub(crate) fn table_lines(status: &Value) -> Vec<String> {
    let tables = status.get("tables").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let name = |table: &Value| table.get("name").and_then(Value::as_str).unwrap_or("-").to_owned();
    let width = tables.iter().map(|table| name(table).chars().count()).max().unwrap_or(0).max(5);
    let mut lines =
        vec![format!("{:width$}  {:<11}  {:>15}  {:>15}  {:>10}", "TABLE", "PHASE", "ROWS COPIED", "OF ABOUT", "LAG")];
    for table in tables {
        let count = |key| table.get(key).and_then(Value::as_u64).map_or("-".to_owned(), to_count);
        let lag =
            match (table.get("lag_seconds").and_then(Value::as_f64), table.get("lag_bytes").and_then(Value::as_u64)) {
                (Some(seconds), _) => format!("{seconds:.1} s"),
                (None, Some(bytes)) => to_bytes(bytes),
                (None, None) => "-".to_owned(),
            };
        let phase = table.get("phase").and_then(Value::as_str).unwrap_or("-");
        let (copied, about) = (count("rows_copied"), count("rows_estimated"));
        lines.push(format!("{:width$}  {phase:<11}  {copied:>15}  {about:>15}  {lag:>10}", name(table)));
        let said = [table.get("waits_for"), table.pointer("/error/message")].into_iter().flatten();
        lines.extend(said.filter_map(Value::as_str).map(|said| format!("  {said}")));
        lines.extend(next_try(table));
    }
    lines
}

/// When a table in quarantine is tried again.
fn next_try(table: &Value) -> Option<String> {
    let (name, phase) = (table.get("name")?.as_str()?, table.get("phase")?.as_str()?);
    let now = format!("`etl tables release {name}` tries now");
    (phase == "quarantined").then(|| match table.get("retry_at").and_then(Value::as_str) {
        Some(at) => format!("  tried again at {at}; {now}"),
        None => format!("  not tried again by itself; {now}"),
    })
}

fn to_bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

fn to_count(count: u64) -> String {
    HumanCount(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_the_status_holds() {
        let status = json!({
            "id": "shop", "slot": "etl_shop", "until": "0/30", "started_at": "2026-01-01T00:00:00Z", "streaming": true, "received": "0/20",
            "confirmed": "0/10", "durable": null, "lag_bytes": 2048, "lag_seconds": 1.25, "changes_written": 1234,
            "wal_guard": "copies_paused",
            "source": { "retained_bytes": 3_145_728, "wal_status": "reserved" },
            "relay": { "memory_bytes": 1, "disk_bytes": 0, "max_bytes": 1024 },
            "memory": { "limit_bytes": 1024, "batch_bytes": 0, "copy_bytes": 0 },
            "last_error": { "at": "2026-01-01T00:00:01Z", "message": "gone" },
            "tables": [
                { "name": "public.t", "phase": "copying", "rows_copied": 5, "rows_estimated": 10, "waits_for": "session 7" },
                { "name": "public.other", "phase": "paused", "rows_copied": 5, "lag_bytes": 100 },
                { "name": "public.bad", "phase": "quarantined", "error": { "message": "too large. Make it small" },
                  "retry_at": "2026-01-01T00:01:00Z" },
                { "name": "public.odd", "phase": "quarantined", "error": { "message": "another shape" } },
            ],
        });
        let page = page(&status).join("\n");
        for expected in [
            "shop, streaming until 0/30,",
            "1.2 s, 2.00 KiB",
            "1,234 changes",
            "durable -",
            "3.00 MiB of WAL kept (reserved; copies paused)",
            "error     2026-01-01T00:00:01Z: gone",
            "public.t      copying",
            "session 7",
            "100 B",
            "too large. Make it small",
            "tried again at 2026-01-01T00:01:00Z; `etl tables release public.bad` tries now",
            "not tried again by itself; `etl tables release public.odd` tries now",
        ] {
            assert!(page.contains(expected), "{expected}:\n{page}");
        }
    }
}
