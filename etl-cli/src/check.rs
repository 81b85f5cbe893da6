//! `etl check`: would it run? Looks at config, source, destination and data directory, and changes nothing there.

use std::path::Path;
use std::process::ExitCode;

use etl::pipeline::SyncMode;
use etl::source::{Finding, Severity, SourceConfig, check_between_runs, check_copies};
use etl::{EtlError, EtlResult};
use etl_config::{AppConfig, Problems};
use serde_json::{Value, json};

use crate::args::Check;
use crate::failure::Failure;
use crate::stdout::say;
use crate::traces::Sender;

/// One thing that was looked at and is not as it should be.
struct Line {
    /// `config`, `source`, `destination`, `store` or `data_dir`.
    area: &'static str,
    severity: Severity,
    what: String,
    hint: Option<String>,
}

impl Line {
    fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    fn severity(&self) -> &'static str {
        match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

pub(crate) async fn check(file: &Path, args: &Check) -> Result<ExitCode, Failure> {
    let config = match AppConfig::load(file) {
        Ok(config) => config,
        Err(problems) if args.json => {
            say(&of_problems(&problems).to_string());
            return Err(Failure::Said(2));
        }
        Err(problems) => return Err(problems.into()),
    };
    if let Some(traces) = &config.telemetry.traces {
        let _usable = Sender::new(traces, &config.pipeline.id)?;
    }
    let lines = look(&config).await;
    let is_good = !lines.iter().any(Line::is_error);
    if args.json {
        say(&of_lines(&lines, is_good).to_string());
    } else {
        tell(file, &lines);
    }
    if is_good { Ok(ExitCode::SUCCESS) } else { Err(Failure::Said(1)) }
}

async fn look(config: &AppConfig) -> Vec<Line> {
    let mut lines = Vec::new();
    // Why a destination cannot be opened is said below.
    let source = match config.source_to_check().await {
        Err(_) => config.source(),
        known => known,
    };
    match source {
        Ok(source) => match look_at_source(config, &source).await {
            Ok(findings) => lines.extend(findings.into_iter().map(of_finding)),
            Err(error) => lines.push(of_error("source", &error)),
        },
        Err(error) => lines.push(of_error("source", &error)),
    }
    if let Err(error) = config.check_destination().await {
        lines.push(of_error("destination", &error));
    }
    if let Err(error) = config.check_store().await {
        lines.push(of_error("store", &error));
    }
    if let Err(error) = config.check_data_dir() {
        lines.push(of_error("data_dir", &error));
    }
    lines
}

async fn look_at_source(config: &AppConfig, source: &SourceConfig) -> EtlResult<Vec<Finding>> {
    let slot = config.slot();
    if config.pipeline.mode == SyncMode::FullRefresh {
        return check_copies(source, &slot).await;
    }
    let mut findings = etl::source::check(source, &slot).await?;
    if config.pipeline.mode == SyncMode::Incremental {
        findings.extend(check_between_runs(source, &slot).await?);
    }
    Ok(findings)
}

fn of_finding(finding: Finding) -> Line {
    let severity = finding.severity;
    Line { area: "source", severity, what: finding.what, hint: Some(finding.hint).filter(|hint| !hint.is_empty()) }
}

fn of_error(area: &'static str, error: &EtlError) -> Line {
    Line { area, severity: Severity::Error, what: error.to_string(), hint: None }
}

/// Areas without an error are said to be fine; then what was found, the worst first.
fn tell(file: &Path, lines: &[Line]) {
    say(&format!("ok       config: {}", file.display()));
    for area in ["source", "destination", "store", "data_dir"] {
        if !lines.iter().any(|line| line.area == area && line.is_error()) {
            say(&format!("ok       {area}"));
        }
    }
    for severity in [Severity::Error, Severity::Warning, Severity::Note] {
        for line in lines.iter().filter(|line| line.severity == severity) {
            let hint = line.hint.as_ref().map_or_else(String::new, |hint| format!("\n         {hint}"));
            say(&format!("{:<7}  {}: {}{hint}", line.severity(), line.area, line.what));
        }
    }
}

fn of_lines(lines: &[Line], is_good: bool) -> Value {
    let findings: Vec<Value> = lines
        .iter()
        .map(|line| json!({ "area": line.area, "severity": line.severity(), "what": line.what, "hint": line.hint }))
        .collect();
    json!({ "ok": is_good, "findings": findings })
}

fn of_problems(problems: &Problems) -> Value {
    let findings: Vec<Value> = problems
        .all()
        .iter()
        .map(|problem| {
            json!({
                "area": "config", "severity": "error", "what": problem.message, "hint": problem.hint,
                "path": problem.path, "place": problem.place, "value": problem.value,
            })
        })
        .collect();
    json!({ "ok": false, "findings": findings })
}
