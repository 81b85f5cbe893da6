//! Is this still the server whose changes were read before? The guards of `SOURCE.md` R9.

use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;
use crate::postgres::Connection;
use crate::store::SharedStore;

const SYSTEM: &str = "source.system";
const TIMELINE: &str = "source.timeline";
const DATABASE: &str = "source.database";

/// What `IDENTIFY_SYSTEM` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SystemIdentity {
    pub(crate) system: String,
    pub(crate) timeline: u32,
    /// What the server has flushed.
    pub(crate) flushed: Lsn,
    pub(crate) database: String,
}

impl SystemIdentity {
    /// Asks over a replication connection.
    pub(crate) async fn read(replication: &mut Connection) -> EtlResult<Self> {
        let rows = replication.query("IDENTIFY_SYSTEM").await?;
        let value = |name: &str| {
            let value = rows.first().and_then(|row| row.get(name));
            value.ok_or_else(|| {
                EtlError::new(ErrorKind::Protocol, "IDENTIFY_SYSTEM left something out").with("column", name)
            })
        };
        let timeline = value("timeline")?;
        Ok(Self {
            system: value("systemid")?.to_owned(),
            timeline: timeline.parse().map_err(|e| EtlError::new(ErrorKind::Protocol, "no timeline").because(e))?,
            flushed: value("xlogpos")?.parse()?,
            database: value("dbname")?.to_owned(),
        })
    }
}

/// Compares the server with the stored one, stores it when it is the first, and looks for a divergence when
/// the timeline changed.
///
/// # Errors
/// [`SourceIdentity`](ErrorKind::SourceIdentity) when it is another server or its history left ours.
pub(crate) async fn check_history(
    replication: &mut Connection,
    store: &SharedStore,
    found: &SystemIdentity,
) -> EtlResult<()> {
    let differs = |what: &'static str, stored: &str, now: &str| {
        EtlError::new(ErrorKind::SourceIdentity, format!("the source is another {what} than before"))
            .with("stored", stored)
            .with("found", now)
            .hint("Point the pipeline at the old source, or give it a new id and data_dir to copy everything")
    };
    for (fact, what, now) in [(SYSTEM, "server", &found.system), (DATABASE, "database", &found.database)] {
        match store.fact(fact).await? {
            Some(stored) if stored != *now => return Err(differs(what, &stored, now)),
            Some(_) => {}
            None => store.set_fact(fact, now.clone()).await?,
        }
    }
    let stored = store.fact(TIMELINE).await?.and_then(|text| text.parse::<u32>().ok());
    let position = store.progress().await?.confirmed;
    if let (Some(before), Some(position)) = (stored, position)
        && before != found.timeline
    {
        let history = replication.query(&format!("TIMELINE_HISTORY {}", found.timeline)).await?;
        let content = history.first().and_then(|row| row.get("content")).unwrap_or_default();
        follows(content, before, position)?;
    }
    store.set_fact(TIMELINE, found.timeline.to_string()).await
}

/// The history file lists, a line each, a timeline and the LSN at which it was left.
fn follows(history: &str, before: u32, position: Lsn) -> EtlResult<()> {
    let switch = history.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let timeline = words.next()?.parse::<u32>().ok()?;
        let at = words.next()?.parse::<Lsn>().ok()?;
        (timeline == before).then_some(at)
    });
    match switch {
        Some(at) if at >= position => Ok(()),
        _ => Err(EtlError::new(ErrorKind::SourceIdentity, "the source's history left the one that was read")
            .with("timeline", before)
            .with("switched at", switch.map_or("unknown".to_owned(), |at| at.to_string()))
            .with("read up to", position)
            .hint("Changes were read that the promoted server never had: copy everything again with a new data_dir")),
    }
}

/// Whether a stream may start: the stored confirmation, the slot's and the server's flush position agree.
///
/// # Errors
/// [`SourceIdentity`](ErrorKind::SourceIdentity) on a gap and on a server that went back in time.
pub(crate) fn check_start(stored: Lsn, slot_confirmed: Lsn, flushed: Lsn) -> EtlResult<()> {
    if slot_confirmed > stored {
        return Err(EtlError::new(ErrorKind::SourceIdentity, "the slot was moved on by somebody else, or recreated")
            .with("slot confirms", slot_confirmed)
            .with("stored", stored)
            .hint("Changes in between are lost for this pipeline: copy everything again with a new data_dir"));
    }
    if stored > flushed {
        return Err(EtlError::new(ErrorKind::SourceIdentity, "the source went back in time: a restored backup?")
            .with("stored", stored)
            .with("server has", flushed)
            .hint("Copy everything again with a new data_dir, or restore the newer server"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r9_a_start_needs_no_gap_and_no_future() {
        assert!(check_start(Lsn(10), Lsn(10), Lsn(10)).is_ok());
        assert!(check_start(Lsn(12), Lsn(10), Lsn(15)).is_ok());
        assert!(check_start(Lsn(10), Lsn(11), Lsn(15)).unwrap_err().to_string().contains("moved on"));
        assert!(check_start(Lsn(16), Lsn(10), Lsn(15)).unwrap_err().to_string().contains("back in time"));
    }

    #[test]
    fn r9_a_timeline_that_was_left_before_our_position_is_a_divergence() {
        let history = "1\t0/5000000\tno recovery target specified\n2\t0/9000000\tbefore x\n";
        assert!(follows(history, 1, Lsn(0x500_0000)).is_ok());
        assert!(follows(history, 1, Lsn(0x500_0001)).is_err());
        assert!(follows(history, 2, Lsn(0x800_0000)).is_ok());
        assert!(follows(history, 3, Lsn(1)).is_err());
    }
}
