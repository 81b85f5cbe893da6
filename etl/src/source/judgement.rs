//! Do the changes go on where they were left? Decided from what is remembered and what is found, and nothing else.

use super::identity::SystemIdentity;
use super::slot::Slot;
use crate::error::{ErrorKind, EtlError};
use crate::lsn::Lsn;
use crate::relay::Transaction;

/// What is known of the source from before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) system: Option<String>,
    pub(crate) timeline: Option<u32>,
    pub(crate) database: Option<String>,
    pub(crate) database_oid: Option<String>,
    /// Name and oid.
    pub(crate) publication: Option<String>,
    /// What the slot was told at most.
    pub(crate) confirmed: Option<Lsn>,
    /// The last commit of which any table has something.
    pub(crate) written: Lsn,
    /// The last commit of which a table of the main cursor may have something.
    pub(crate) main: Lsn,
    pub(crate) was_creating: bool,
    /// The source was seen to have another history since.
    pub(crate) diverged: Option<Lsn>,
    /// The last transaction that was received, when that was noted.
    pub(crate) last: Option<Transaction>,
}

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) identity: SystemIdentity,
    pub(crate) database_oid: Option<String>,
    pub(crate) is_standby: bool,
    /// Name and oid; `None` where it does not exist.
    pub(crate) publication: Option<String>,
    /// Where the timelines before this one were left, where it is another one than before.
    pub(crate) history: String,
    pub(crate) slot: Option<Slot>,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Judgement {
    /// The slot is read from here on.
    GoOn(Lsn),
    /// There was nothing before. A slot that an earlier attempt has left is dropped first.
    CreateSlot { drops: bool },
    /// Changes are missing, or were read that never were.
    Broken(Break),
    /// Nothing may be touched.
    Refused(EtlError),
}

/// Why the changes do not go on where they were left.
#[derive(Debug)]
pub(crate) struct Break {
    pub(crate) what: String,
    pub(crate) context: Vec<(&'static str, String)>,
    /// What led to it, usually, and what would avoid it.
    pub(crate) hint: &'static str,
    pub(crate) extent: Extent,
    /// The slot is ours, and of use.
    pub(crate) keeps_slot: bool,
}

/// Which tables are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All that were copied: nobody knows which of them changed.
    Gap,
    /// Those that have something from after this: the source has another history since.
    Since(Lsn),
    /// All: it is another source, with positions of its own.
    Elsewhere,
}

impl Break {
    fn new(what: impl Into<String>, extent: Extent, hint: &'static str) -> Self {
        Self { what: what.into(), context: Vec::new(), hint, extent, keeps_slot: false }
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.context.push((key, value.to_string()));
        self
    }

    fn keeps_slot(mut self, slot: Option<&Slot>) -> Self {
        self.keeps_slot = slot.is_some_and(|slot| match self.extent {
            Extent::Since(at) => slot.lost.is_none() && slot.confirmed <= at,
            Extent::Gap | Extent::Elsewhere => false,
        });
        if !self.keeps_slot && matches!(self.extent, Extent::Since(_)) {
            // Without the changes up to there no table is whole.
            self.extent = Extent::Since(Lsn::ZERO);
        }
        self
    }
}

/// The transaction that a stream from here on has to send again: one that sends another in its place, or none, is of
/// another history.
pub(crate) fn must_come(before: &Remembered, found: &Found, begins: Lsn) -> Option<Transaction> {
    let timeline = before.timeline.filter(|timeline| *timeline != found.identity.timeline);
    let left = timeline.map(|timeline| left_at(&found.history, timeline).unwrap_or_default());
    // What was received and never written need not be in the history of a promoted standby.
    before.last.filter(|last| last.commit >= begins && left.is_none_or(|left| last.commit < left))
}

/// Compares.
pub(crate) fn judge(before: &Remembered, found: &Found) -> Judgement {
    if let Some(slot) = &found.slot
        && let Some(refused) = foreign(before, found, slot)
    {
        return Judgement::Refused(refused);
    }
    if let Some(broken) = elsewhere(before, found).or_else(|| another_history(before, found)) {
        return Judgement::Broken(broken);
    }
    match (&found.slot, before.confirmed) {
        (None, None) => Judgement::CreateSlot { drops: false },
        (Some(_), None) if before.was_creating => Judgement::CreateSlot { drops: true },
        (Some(slot), None) => Judgement::Refused(
            EtlError::new(ErrorKind::SourceIdentity, "the slot exists, but its state is not here")
                .with("slot", &slot.name)
                .hint(format!(
                    "If the state is lost or the slot belongs to nobody, drop it and start over: \
                     SELECT pg_drop_replication_slot('{0}'); else give the pipeline another id or its own data_dir",
                    slot.name
                )),
        ),
        (None, Some(confirmed)) => {
            let (what, hint) = match (is_promoted(before, found), found.is_standby) {
                (true, _) => (
                    "a standby was promoted that does not have the slot: changes are missing",
                    "From version 17 on `source.postgres.failover: true` lets standbys have it",
                ),
                (false, _) => {
                    ("the slot is gone: changes are missing", "Somebody dropped it, or a backup was restored")
                }
            };
            Judgement::Broken(Break::new(what, Extent::Gap, hint).with("read up to", confirmed))
        }
        (Some(slot), Some(confirmed)) => match gap(before, found, slot, confirmed) {
            Some(broken) => Judgement::Broken(broken),
            None => Judgement::GoOn(slot.confirmed),
        },
    }
}

fn is_promoted(before: &Remembered, found: &Found) -> bool {
    before.timeline.is_some_and(|timeline| timeline < found.identity.timeline)
}

/// A slot that is not ours to read, or to drop.
fn foreign(before: &Remembered, found: &Found, slot: &Slot) -> Option<EtlError> {
    let refused = |what: &str, hint: &str| {
        Some(EtlError::new(ErrorKind::SourceIdentity, what).with("slot", &slot.name).hint(hint))
    };
    let database = slot.database.as_deref();
    let is_here = database == Some(&found.identity.database);
    let is_remembered = before.database.is_some() && database == before.database.as_deref();
    if slot.plugin.as_deref() != Some("pgoutput") || slot.is_temporary || !(is_here || is_remembered) {
        return refused(
            "a slot of this name serves another plugin or database",
            "Give the pipeline another id, or drop that slot",
        );
    }
    if slot.is_synced && found.is_standby {
        return refused(
            "the slot is a copy of one of the primary, which can be read once this standby is promoted",
            "Read the primary, or give the pipeline that reads the standby another id",
        );
    }
    None
}

/// Another server, or another database.
fn elsewhere(before: &Remembered, found: &Found) -> Option<Break> {
    let hint = "Point the pipeline at the old source, or give it a new id and data_dir";
    let another = |what: &str, stored: &str, now: &str| {
        let what = format!("the source is another {what} than before");
        Some(Break::new(what, Extent::Elsewhere, hint).with("stored", stored).with("found", now))
    };
    let identity = &found.identity;
    if let Some(system) = before.system.as_ref().filter(|system| **system != identity.system) {
        return another("server", system, &identity.system);
    }
    match (&before.database, &before.database_oid, &found.database_oid) {
        // A database that was renamed is the same.
        (_, Some(stored), Some(now)) if stored == now => None,
        (Some(stored), Some(_), Some(_)) => another("database", stored, &identity.database),
        (Some(stored), ..) if *stored != identity.database => another("database", stored, &identity.database),
        _ => None,
    }
}

/// The server went back in time, or a standby was promoted that had not received everything.
fn another_history(before: &Remembered, found: &Found) -> Option<Break> {
    let confirmed = before.confirmed?;
    let slot = found.slot.as_ref();
    if let Some(at) = before.diverged {
        let hint = "The server lost what it had committed, or a backup was restored with the slot in it";
        let what = "the source sends other transactions than before";
        return Some(Break::new(what, Extent::Since(at), hint).with("since", at).keeps_slot(slot));
    }
    // What the slot was told is common to both.
    let told = slot.filter(|slot| slot.lost.is_none()).map_or(Lsn::ZERO, |slot| slot.confirmed);
    if let Some(timeline) = before.timeline.filter(|timeline| *timeline != found.identity.timeline) {
        let left = left_at(&found.history, timeline);
        let is_before = left.is_some_and(|at| at >= confirmed && at > before.written);
        // A standby that was promoted under the stream: its slot has followed it.
        if is_before || (left.is_some_and(|at| told > at) && told <= confirmed) {
            return None;
        }
        let what = "the source's history is not the one that was read";
        let hint = "A standby was promoted, or a backup was restored, that lacks changes which were read";
        let at = left.unwrap_or(told);
        let shown = left.map_or("unknown".to_owned(), |at| at.to_string());
        return Some(
            Break::new(what, Extent::Since(at), hint)
                .with("timeline", timeline)
                .with("now", found.identity.timeline)
                .with("left at", shown)
                .with("read up to", confirmed.max(before.written))
                .keeps_slot(slot),
        );
    }
    // A slot that was created a moment ago confirms what the server flushes a moment later.
    let flushed = found.identity.flushed.max(told.min(confirmed));
    (confirmed > flushed).then(|| {
        let hint = "A backup was restored, or the server lost its disk";
        Break::new("the source went back in time", Extent::Since(told), hint)
            .with("read up to", confirmed)
            .with("server has", found.identity.flushed)
            .keeps_slot(slot)
    })
}

/// The slot is ours, and changes are missing all the same.
fn gap(before: &Remembered, found: &Found, slot: &Slot, confirmed: Lsn) -> Option<Break> {
    if let Some(reason) = &slot.lost {
        let hint = match reason.as_str() {
            "wal_removed" => "Raise max_slot_wal_keep_size on the source, or let the destination keep up",
            "rows_removed" | "conflict_or_wal_removed" => "Set hot_standby_feedback = on on the standby that is read",
            "wal_level_insufficient" => "Set wal_level = logical on the primary",
            "idle_timeout" => "Raise idle_replication_slot_timeout on the source",
            _ => "Look at the server's log",
        };
        let what = "the slot was invalidated: the server has removed what was still needed";
        return Some(Break::new(what, Extent::Gap, hint).with("reason", reason).with("read up to", confirmed));
    }
    if slot.confirmed > confirmed {
        let what = "the slot was moved on by somebody else, or recreated: changes are missing";
        let hint = "Nobody else may use the slot";
        let broken = Break::new(what, Extent::Gap, hint);
        return Some(broken.with("slot confirms", slot.confirmed).with("stored", confirmed));
    }
    match (&before.publication, &found.publication) {
        (Some(stored), Some(now)) if stored != now => {
            let what = "the publication is another one than before: what it left out meanwhile is missing";
            let hint = "Change a publication by ALTER PUBLICATION, and not by dropping and making it";
            Some(Break::new(what, Extent::Gap, hint).with("stored", stored).with("found", now))
        }
        _ => None,
    }
}

/// Where a timeline was left. The history lists, a line each, a timeline and an LSN.
fn left_at(history: &str, timeline: u32) -> Option<Lsn> {
    history.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let left = words.next()?.parse::<u32>().ok()?;
        let at = words.next()?.parse::<Lsn>().ok()?;
        (left == timeline).then_some(at)
    })
}

#[cfg(test)]
mod tests;
