//! Where can a test make the engine fail? Named places, armed by `ETL_FAILPOINTS`; nothing without the feature.
//!
//! The variable reads `name=action[@n];...`: the action happens at the n-th visit (default: the first), once.
//! `name=action%p` happens at p of a hundred visits. Actions: `kill` (the process dies at once), `error` (a transient
//! error), `slow` (up to half a second passes), `stall` (waits for ever).
//!
//! `ETL_FAILPOINTS_FILE` names a file with the same, of which only the form with `%` counts. It is read at every
//! visit, so that it can change while the process runs; what stalls goes on once the file says so no more.

#[cfg(feature = "failpoints")]
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    sync::{Mutex, OnceLock},
    time::Duration,
};

use crate::error::EtlResult;

/// The named places, in the order in which a change meets them; those of destinations that answer later come last.
pub const NAMES: &[&str] = &[
    "copy.chunk_read",
    "copy.chunk_written",
    "copy.finished",
    "catch_up.joined",
    "apply.before_write",
    "apply.after_write",
    "progress.before_store",
    "progress.before_confirm",
    "relay.before_sync",
    "relay.given_up",
    "relay.prepared",
    "run.staged",
    "run.sealed",
    "run.published",
    "parquet.run_gathered",
    "sftp.write",
    "sftp.before_rename",
    "sftp.after_rename",
    "sftp.file_shown",
    "sftp.run_shown",
    "bulk.building",
    "bulk.on_disk",
    "bulk.sealed",
    "bulk.submitting",
    "bulk.step_saved",
    "bulk.answered",
    "bulk.submitted",
    "bulk.polled",
    "bulk.outcomes_read",
    "bulk.settling",
    "bulk.settled",
    "bulk.cleaned_up",
    "bulk.taken_over",
];

/// Visits a named place.
///
/// # Errors
/// A transient error, where a test has armed one.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub async fn visit(_name: &'static str) -> EtlResult<()> {
    Ok(())
}

/// Visits a named place.
///
/// # Errors
/// A transient error, where a test has armed one.
#[cfg(feature = "failpoints")]
pub async fn visit(name: &'static str) -> EtlResult<()> {
    use crate::error::{ErrorKind, EtlError};

    debug_assert!(NAMES.contains(&name), "{name} is not listed");
    let in_file = often(&file_text(), name);
    match due(name).or_else(|| in_file.clone()).as_deref() {
        None => Ok(()),
        Some("kill") => std::process::abort(),
        Some("slow") => {
            crate::retry::pause(Duration::from_millis(draw(500))).await;
            Ok(())
        }
        Some("stall") if in_file.is_none() => std::future::pending().await,
        Some("stall") => {
            while file_text().contains(&format!("{name}=stall")) {
                crate::retry::pause(Duration::from_millis(20)).await;
            }
            Ok(())
        }
        Some(_) => Err(EtlError::new(ErrorKind::DestinationUnavailable, "a failpoint failed").with("failpoint", name)),
    }
}

/// What the file says now.
#[cfg(feature = "failpoints")]
fn file_text() -> String {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os("ETL_FAILPOINTS_FILE").map(PathBuf::from));
    file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default()
}

/// What happens at this visit by chance.
#[cfg(feature = "failpoints")]
fn often(text: &str, name: &str) -> Option<String> {
    text.split(';').find_map(|entry| {
        let (action, percent) = entry.trim().strip_prefix(name)?.strip_prefix('=')?.split_once('%')?;
        (draw(100) < percent.trim().parse().ok()?).then(|| action.trim().to_owned())
    })
}

/// A number below this; the same ones in the same order in every process.
#[cfg(feature = "failpoints")]
fn draw(below: u64) -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let mut number = DRAWN.fetch_add(1, Ordering::Relaxed).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (number ^ (number >> 31)) % below
}

/// Arms a failpoint from within the process: the action happens at the `visit`-th visit from now.
#[cfg(feature = "failpoints")]
pub fn arm(name: &'static str, action: &str, visit: u32) {
    if let Ok(mut armed) = armed().lock() {
        armed.insert(name.to_owned(), (action.to_owned(), visit));
    }
}

#[cfg(feature = "failpoints")]
fn due(name: &str) -> Option<String> {
    static SPEC: OnceLock<String> = OnceLock::new();
    let spec = SPEC.get_or_init(|| std::env::var("ETL_FAILPOINTS").unwrap_or_default());
    if let Some(action) = often(spec, name) {
        return Some(action);
    }
    let mut armed = armed().lock().ok()?;
    let (_, left) = armed.get_mut(name)?;
    *left = left.saturating_sub(1);
    if *left > 0 { None } else { armed.remove(name).map(|(action, _)| action) }
}

#[cfg(feature = "failpoints")]
fn armed() -> &'static Mutex<HashMap<String, (String, u32)>> {
    static ARMED: OnceLock<Mutex<HashMap<String, (String, u32)>>> = OnceLock::new();
    ARMED.get_or_init(|| Mutex::new(parse(&std::env::var("ETL_FAILPOINTS").unwrap_or_default())))
}

#[cfg(feature = "failpoints")]
fn parse(text: &str) -> HashMap<String, (String, u32)> {
    text.split(';')
        .filter_map(|entry| {
            let (name, action) = entry.split_once('=')?;
            let (action, visit) = action.split_once('@').unwrap_or((action, "1"));
            Some((name.trim().to_owned(), (action.trim().to_owned(), visit.trim().parse().ok()?)))
        })
        .collect()
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_armed_failpoint_fails_once_at_its_visit() {
        arm("relay.before_sync", "error", 2);
        assert!(visit("relay.before_sync").await.is_ok());
        assert!(visit("relay.before_sync").await.is_err());
        assert!(visit("relay.before_sync").await.is_ok());
    }

    #[test]
    fn the_variable_names_place_action_and_visit() {
        let armed = parse("a=kill@3; b=error");
        assert_eq!(armed["a"], ("kill".to_owned(), 3));
        assert_eq!(armed["b"], ("error".to_owned(), 1));
    }

    #[test]
    fn what_happens_by_chance_happens_about_as_often_as_it_says() {
        let times =
            |name: &str| (0..1000).filter(|_| often("x=slow%0; a.b=error%20;c=stall%100", name).is_some()).count();
        assert_eq!((times("x"), times("b"), times("c")), (0, 0, 1000));
        assert!((100..300).contains(&times("a.b")));
        assert_eq!(often("c=stall%100", "c").as_deref(), Some("stall"));
    }
}
