//! `etl gc`: what have dead pipelines left? Lists it, and removes it when told to.

use std::path::Path;
use std::process::ExitCode;

use etl::source::{Leftover, LeftoverKind, Standing};
use etl_config::AppConfig;
use indicatif::BinaryBytes;
use serde_json::json;

use crate::args::Gc;
use crate::failure::Failure;
use crate::stdout::say;

pub(crate) async fn gc(config: &Path, args: &Gc) -> Result<ExitCode, Failure> {
    let config = AppConfig::load(config)?;
    let found = config.leftovers().await?;
    let is_named =
        |leftover: &Leftover| args.names.iter().any(|name| *name == leftover.name || name == leftover.pipeline());
    for name in &args.names {
        if !found.iter().any(|leftover| leftover.name == *name || leftover.pipeline() == name) {
            return Err(Failure::Usage(format!("no pipeline has left anything that is called {name}")));
        }
    }
    let shown: Vec<&Leftover> = found.iter().filter(|leftover| args.names.is_empty() || is_named(leftover)).collect();
    let mut removed = Vec::new();
    if args.yes {
        // Publications and states last: what a slot needs is there for as long as the slot is.
        for leftover in &shown {
            match leftover.standing {
                Standing::Dead => {}
                Standing::Asleep if is_named(leftover) => {}
                Standing::Live if is_named(leftover) && leftover.kind == LeftoverKind::Slot => {
                    let Leftover { name, why, .. } = leftover;
                    return Err(Failure::Other(format!("{name} is live and stays: {why}")));
                }
                _ => continue,
            }
            config.remove_leftover(leftover).await?;
            removed.push((leftover.kind, leftover.name.as_str()));
        }
    }
    let is_removed = |leftover: &Leftover| removed.contains(&(leftover.kind, leftover.name.as_str()));
    if args.json {
        let lines: Vec<_> =
            shown.iter().map(|leftover| json!({ "removed": is_removed(leftover), "found": leftover })).collect();
        say(&serde_json::Value::from(lines).to_string());
    } else {
        tell(&shown, &is_removed, args.yes);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(found: &[&Leftover], is_removed: &dyn Fn(&Leftover) -> bool, is_sure: bool) {
    let width = found.iter().map(|leftover| leftover.name.len()).max().unwrap_or(0);
    for leftover in found {
        let state = match leftover.standing {
            _ if is_removed(leftover) => "removed",
            Standing::Dead => "dead",
            Standing::Asleep => "asleep",
            _ => "live",
        };
        let kind = match leftover.kind {
            LeftoverKind::Slot => "slot",
            LeftoverKind::Publication => "publication",
            _ => "state",
        };
        let kept = leftover.retained_bytes.filter(|kept| *kept > 0);
        let kept = kept.map_or_else(String::new, |kept| format!("; {} of WAL kept", BinaryBytes(kept)));
        say(&format!("{state:<7}  {kind:<11}  {:width$}  {}{kept}", leftover.name, leftover.why));
    }
    let left = |standing: Standing| found.iter().any(|found| found.standing == standing && !is_removed(found));
    if !is_sure && left(Standing::Dead) {
        say("`etl gc --yes` removes what is dead");
    }
    if left(Standing::Asleep) {
        say("What is asleep may be a stopped pipeline's: `etl gc --yes NAME` removes it all the same");
    }
    if found.is_empty() {
        say("no pipeline has left anything here");
    }
}
