//! How much WAL may the slot make the source keep, and what happens before its disk is full?

use serde::{Deserialize, Serialize};

use super::SlotStatus;
use crate::byte_size::ByteSize;

/// Thresholds on the WAL that the source keeps for the slot. Each is left once a tenth less is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WalGuard {
    /// From here on it is said. Also said once the server has less than a fifth of `max_slot_wal_keep_size` left.
    /// Default 10GiB.
    pub warn_at: ByteSize,
    /// From here on copies read no more than `slow_to`. Default: never.
    pub slow_at: Option<ByteSize>,
    /// What all copies together read a second while they are slowed down. Default 4MiB.
    pub slow_to: ByteSize,
    /// From here on copies wait, so that the destination has time for the changes alone. Default: never.
    pub pause_at: Option<ByteSize>,
    /// The most that the source may keep. Default: no end.
    pub limit: Option<ByteSize>,
    /// What happens then.
    pub at_limit: AtWalLimit,
}

/// What happens once the source keeps more WAL than it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AtWalLimit {
    /// The run ends with an error, so that somebody looks. The source keeps the WAL.
    #[default]
    Stop,
    /// The run ends with an error and drops its slot: the source gets its disk back, and the next start copies every
    /// table again.
    DropSlot,
}

impl Default for WalGuard {
    fn default() -> Self {
        Self {
            warn_at: ByteSize::gib(10),
            slow_at: None,
            slow_to: ByteSize::mib(4),
            pause_at: None,
            limit: None,
            at_limit: AtWalLimit::Stop,
        }
    }
}

/// How far it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GuardLevel {
    #[default]
    Calm,
    Warned,
    Slowed,
    Paused,
    Limit,
}

impl GuardLevel {
    /// As status pages show it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Warned => "warned",
            Self::Slowed => "copies_slowed",
            Self::Paused => "copies_paused",
            Self::Limit => "limit",
        }
    }
}

impl WalGuard {
    fn thresholds(&self) -> [(GuardLevel, &'static str, Option<u64>); 4] {
        let bytes = |size: Option<ByteSize>| size.map(|size| size.0);
        [
            (GuardLevel::Warned, "warn_at", Some(self.warn_at.0)),
            (GuardLevel::Slowed, "slow_at", bytes(self.slow_at)),
            (GuardLevel::Paused, "pause_at", bytes(self.pause_at)),
            (GuardLevel::Limit, "limit", bytes(self.limit)),
        ]
    }

    /// What is wrong with the thresholds: the key, and why.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        let mut below: Option<(&str, u64)> = None;
        if self.slow_to.0 == 0 {
            return Some(("slow_to", "it must be more than nothing".to_owned()));
        }
        for (_, key, bytes) in self.thresholds() {
            let Some(bytes) = bytes else { continue };
            if bytes == 0 {
                return Some((key, "it must be more than nothing".to_owned()));
            }
            // Whoever gives only a lower limit need not lower the warning too.
            if let Some((lower, least)) = below.filter(|(lower, least)| bytes < *least && *lower != "warn_at") {
                return Some((key, format!("it is less than `{lower}: {}`", ByteSize(least))));
            }
            below = Some((key, bytes));
        }
        None
    }

    /// The level now, after this one.
    pub(crate) fn level(&self, before: GuardLevel, slot: &SlotStatus) -> GuardLevel {
        let kept = slot.retained_bytes;
        let is_reached = |level: GuardLevel, threshold: u64| {
            let threshold = if before >= level { threshold - threshold / 10 } else { threshold };
            kept >= threshold
        };
        let reached =
            self.thresholds().into_iter().filter(|(level, _, bytes)| bytes.is_some_and(|b| is_reached(*level, b)));
        let level = reached.map(|(level, ..)| level).max().unwrap_or_default();
        let is_near_loss = slot.safe_bytes.is_some_and(|safe| safe < (kept.saturating_add(safe)) / 5);
        if is_near_loss { level.max(GuardLevel::Warned) } else { level }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(retained_bytes: u64, safe_bytes: Option<u64>) -> SlotStatus {
        SlotStatus { retained_bytes, safe_bytes, ..SlotStatus::default() }
    }

    fn guard() -> WalGuard {
        let size = |bytes| Some(ByteSize(bytes));
        WalGuard {
            warn_at: ByteSize(100),
            slow_at: size(200),
            pause_at: size(300),
            limit: size(400),
            ..WalGuard::default()
        }
    }

    #[test]
    fn each_threshold_is_left_once_a_tenth_less_is_kept() {
        let mut level = GuardLevel::Calm;
        for (kept, expected) in [
            (99, "calm"),
            (100, "warned"),
            (90, "warned"),
            (89, "calm"),
            (250, "copies_slowed"),
            (300, "copies_paused"),
            (271, "copies_paused"),
            (269, "copies_slowed"),
            (400, "limit"),
            (50, "calm"),
        ] {
            level = guard().level(level, &slot(kept, None));
            assert_eq!(level.name(), expected, "{kept}");
        }
    }

    #[test]
    fn a_slot_that_is_about_to_be_lost_is_worth_a_warning_whatever_it_keeps() {
        let guard = WalGuard::default();
        assert_eq!(guard.level(GuardLevel::Calm, &slot(79, Some(21))), GuardLevel::Calm);
        assert_eq!(guard.level(GuardLevel::Calm, &slot(81, Some(19))), GuardLevel::Warned);
        assert_eq!(guard.level(GuardLevel::Calm, &slot(1 << 50, None)), GuardLevel::Warned, "nothing else is set");
    }

    #[test]
    fn thresholds_that_contradict_each_other_are_named() {
        assert_eq!(guard().problem(), None);
        let low = WalGuard { limit: Some(ByteSize(250)), ..guard() };
        let (key, why) = low.problem().unwrap();
        assert!(key == "limit" && why.contains("pause_at"), "{why}");
        let alone = WalGuard { limit: Some(ByteSize(5)), ..WalGuard::default() };
        assert_eq!(alone.problem(), None);
        assert_eq!(WalGuard { slow_to: ByteSize(0), ..guard() }.problem().unwrap().0, "slow_to");
    }
}
