//! Where can a test make the engine fail? Named places, armed by `ETL_FAILPOINTS`; nothing without the feature.
//!
//! The variable reads `name=action[@n];...`: the action happens at the n-th visit (default: the first), once.
//! Actions: `kill` (the process dies at once), `error` (a transient error), `stall` (waits for ever).

#[cfg(feature = "failpoints")]
use std::{collections::HashMap, sync::Mutex, sync::OnceLock};

use crate::error::EtlResult;

/// The named places, in the order in which a change meets them.
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
    match due(name).as_deref() {
        None => Ok(()),
        Some("kill") => std::process::abort(),
        Some("stall") => std::future::pending().await,
        Some(_) => Err(EtlError::new(ErrorKind::DestinationUnavailable, "a failpoint failed").with("failpoint", name)),
    }
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
}
