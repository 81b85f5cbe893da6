//! Have the hot paths become slower? Instructions a row, counted by callgrind and compared with what was recorded.
//!
//! Counts hardly depend on the machine and not at all on its load, so that a tenth more is a change of the program.
//! `instructions` compares with `baseline.tsv`, `instructions --write` writes it anew.

mod counted;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use etl_instructions::paths;

/// By how much a path may grow before that is a failure.
const ALLOWED: f64 = 1.10;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", path, times] => run(path, times.parse().unwrap_or(1)),
        [] => compare(false),
        ["--write"] => compare(true),
        _ => {
            eprintln!("usage: instructions [--write]");
            ExitCode::from(2)
        }
    }
}

/// What callgrind runs.
fn run(name: &str, times: usize) -> ExitCode {
    let Some((_, path)) = paths::ALL.iter().find(|(known, _)| *known == name) else { return ExitCode::from(2) };
    path(times);
    ExitCode::SUCCESS
}

fn compare(write: bool) -> ExitCode {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline.tsv");
    let compiler = counted::compiler();
    let mut found = Vec::new();
    for (name, _) in paths::ALL {
        match counted::per_row(name) {
            Ok(count) => found.push((*name, count)),
            Err(error) => {
                eprintln!("{name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    if write {
        let lines = found.iter().map(|(name, count)| format!("{name}\t{count:.0}\n"));
        let text = format!("# instructions a row; {compiler}\n{}", lines.collect::<String>());
        return match std::fs::write(&file, text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                ExitCode::FAILURE
            }
        };
    }
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let is_same_compiler = text.lines().next().is_some_and(|line| line.ends_with(&compiler));
    let known: BTreeMap<&str, f64> = text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(name, count)| Some((name, count.parse().ok()?)))
        .collect();
    let worse = report(&found, &known);
    match (worse, is_same_compiler) {
        (0, _) => ExitCode::SUCCESS,
        (_, true) => {
            eprintln!("slower than recorded; if that is meant, `make instructions-baseline` writes it down");
            ExitCode::FAILURE
        }
        (_, false) => {
            eprintln!("the counts were recorded with another compiler, so this is no failure: this is {compiler}");
            ExitCode::SUCCESS
        }
    }
}

/// Says how each path compares; returns how many are worse than allowed, or unknown.
fn report(found: &[(&str, f64)], known: &BTreeMap<&str, f64>) -> usize {
    let mut worse = 0;
    println!("{:<28} {:>10} {:>10} {:>7}", "instructions a row", "recorded", "now", "ratio");
    for (name, count) in found {
        let recorded = known.get(name).copied().unwrap_or(0.0);
        let ratio = count / recorded;
        let is_worse = recorded == 0.0 || ratio > ALLOWED;
        worse += usize::from(is_worse);
        println!("{name:<28} {recorded:>10.0} {count:>10.0} {ratio:>7.3}{}", if is_worse { "  worse" } else { "" });
    }
    worse
}
