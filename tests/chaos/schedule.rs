//! Which harm is done when? Everything that can go wrong, mixed, drawn from one seed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use harness::proxy::{Cut, Direction};
use harness::seed::numbers;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

/// A disk that may be full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// With the state and the relay.
    Data,
    /// With the DuckDB file.
    File,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of our process.
    Kill,
    /// Our process is asked to end.
    Terminate,
    /// Our process stands still.
    Freeze,
    /// The server ends at once, and starts.
    Crash,
    /// The server ends for good, and its standby takes its place.
    Promote,
    /// Connections end.
    Cut(Cut),
    /// One direction of all connections is swallowed.
    HalfOpen(Direction),
    /// No new connections.
    Refuse,
    /// Few bytes a second.
    Throttle,
    /// No room.
    Full(Disk),
    /// The destination does what this says of the failpoints around each write.
    Destination(&'static str),
}

/// The destination is slow; refuses; fails after it has written; fails at copies; does not answer at all.
const DESTINATION: &[&str] = &[
    "apply.before_write=slow%60;copy.chunk_read=slow%30",
    "apply.before_write=error%70;copy.chunk_read=error%20",
    "apply.after_write=error%50;copy.chunk_written=error%10",
    "apply.before_write=error%30;apply.after_write=slow%30;progress.before_confirm=slow%50",
    "apply.before_write=stall%100;copy.chunk_read=stall%50",
];

/// A fault, when it begins, and how long it lasts if it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Harm {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
    pub(crate) lasts: Duration,
}

/// Whether the storm is long enough for everything to be copied and caught up in between.
fn is_long(within: Duration) -> bool {
    within > Duration::from_secs(30)
}

/// In a third of the long storms a standby takes the place of the primary, somewhere in the middle.
pub(crate) fn promotion(seed: u64, within: Duration) -> Option<Harm> {
    let mut rng = numbers(seed, 0x7072_6f6d);
    let promotes = rng.random_bool(0.34) && is_long(within);
    let at = within.mul_f64(rng.random_range(0.3..0.7));
    promotes.then_some(Harm { at, fault: Fault::Promote, lasts: Duration::ZERO })
}

/// Everything else that goes wrong within this time, by its beginning. `has_disks`: disks can be full.
pub(crate) fn schedule(seed: u64, within: Duration, has_disks: bool) -> Vec<Harm> {
    let mut rng = numbers(seed, 0x73_746f_726d);
    let mut harms = Vec::new();
    let longest = if is_long(within) { 3500 } else { 1200 };
    let mut at = Duration::from_millis(rng.random_range(300..1500));
    while at < within {
        let (fault, lasts) = draw(&mut rng);
        if has_disks || !matches!(fault, Fault::Full(_)) {
            harms.push(Harm { at, fault, lasts: Duration::from_millis(lasts) });
        }
        at += Duration::from_millis(rng.random_range(100..longest));
    }
    harms
}

fn draw(rng: &mut StdRng) -> (Fault, u64) {
    let lasts = rng.random_range(200..2500);
    let direction = if rng.random_bool(0.5) { Direction::ToClient } else { Direction::ToServer };
    let cut = if rng.random_bool(0.5) { Cut::Close } else { Cut::Reset };
    let disk = if rng.random_bool(0.5) { Disk::Data } else { Disk::File };
    let destination = DESTINATION.choose(rng).copied().unwrap_or_default();
    let fault = match rng.next_u32() % 20 {
        0..=3 => Fault::Kill,
        4 => Fault::Terminate,
        5 => Fault::Freeze,
        6 | 7 => Fault::Crash,
        8..=10 => Fault::Cut(cut),
        11 | 12 => Fault::HalfOpen(direction),
        13 => Fault::Refuse,
        14 => Fault::Throttle,
        15 | 16 => Fault::Full(disk),
        _ => Fault::Destination(destination),
    };
    match fault {
        // A half-open connection that stays is told by keepalives after minutes; a freeze ends before a timeout.
        Fault::HalfOpen(_) | Fault::Freeze | Fault::Refuse => (fault, lasts.min(1000)),
        _ => (fault, lasts),
    }
}

impl Fault {
    /// Whether a start at that time may be refused.
    pub(crate) fn disturbs_a_start(self) -> bool {
        !matches!(self, Self::Kill | Self::Terminate | Self::Freeze | Self::Destination(_))
    }

    /// Whether nothing of it stays that has to be made good.
    pub(crate) fn is_over_at_once(self) -> bool {
        matches!(self, Self::Kill | Self::Terminate | Self::Crash | Self::Promote | Self::Cut(_))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Terminate => "terminate",
            Self::Freeze => "freeze",
            Self::Crash => "crash",
            Self::Promote => "promotion",
            Self::Cut(_) => "cut",
            Self::HalfOpen(_) => "half-open",
            Self::Refuse => "refuse",
            Self::Throttle => "throttle",
            Self::Full(Disk::Data) => "full data_dir",
            Self::Full(Disk::File) => "full disk",
            Self::Destination(_) => "destination",
        }
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at.as_secs_f64(), self.lasts.as_secs_f64());
        write!(f, "{at:6.1} s {:?}", self.fault)?;
        match self.fault {
            _ if self.fault.is_over_at_once() => Ok(()),
            _ => write!(f, " for {lasts:.1} s"),
        }
    }
}

/// How often each fault is in there, in words.
pub(crate) fn counts(harms: &[Harm]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    harms.iter().for_each(|harm| *counts.entry(harm.fault.name()).or_default() += 1);
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_seed_draws_the_same_schedule_again() {
    let minute = Duration::from_secs(60);
    assert_eq!(schedule(7, minute, true), schedule(7, minute, true));
    assert_ne!(schedule(7, minute, true), schedule(8, minute, true));
    let promoted = (0..300).filter(|seed| promotion(*seed, minute).is_some()).count();
    assert!(promoted > 70 && promoted < 140, "in a third: {promoted}");
    assert_eq!(promotion(7, Duration::from_secs(10)), None);
    let names: std::collections::BTreeSet<&str> =
        schedule(7, minute * 20, true).iter().map(|harm| harm.fault.name()).collect();
    assert_eq!(names.len(), 11, "everything happens: {names:?}");
}
