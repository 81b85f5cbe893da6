//! Where in the source's history is something? LSNs, and positions within a transaction.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, EtlError, EtlResult};

/// A place in the source's write-ahead log, in bytes. Written `16/B374D848`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    /// The LSN as the signed number that destinations store. Servers reach the sign bit after 8 EiB of WAL.
    pub const fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = EtlError;

    fn from_str(text: &str) -> EtlResult<Self> {
        let parse = |part: &str| u32::from_str_radix(part, 16).ok();
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(u64::from(parse(high)?) << 32 | u64::from(parse(low)?))))
            .ok_or_else(|| EtlError::new(ErrorKind::Protocol, "not an LSN").with("text", text))
    }
}

/// A place among all changes: the transaction's commit LSN, then the place within the transaction.
///
/// Ordinals count from 1 (`SOURCE.md` R4). `ordinal = 0` is before the transaction's first change, and
/// [`Position::WHOLE`] is after its last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The commit LSN of the transaction.
    pub commit: Lsn,
    /// The place within it.
    pub ordinal: u64,
}

impl Position {
    /// Before everything.
    pub const ZERO: Self = Self { commit: Lsn::ZERO, ordinal: 0 };
    /// The ordinal that stands for a transaction that is done.
    pub const WHOLE: u64 = u64::MAX;

    /// The place of one change.
    pub const fn new(commit: Lsn, ordinal: u64) -> Self {
        Self { commit, ordinal }
    }

    /// After the last change of the transaction that committed there.
    pub const fn after(commit: Lsn) -> Self {
        Self { commit, ordinal: Self::WHOLE }
    }

    /// Whether no transaction is cut in two here.
    pub const fn is_boundary(self) -> bool {
        self.ordinal == 0 || self.ordinal == Self::WHOLE
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ordinal {
            Self::WHOLE => write!(f, "{}+", self.commit),
            n => write!(f, "{}.{n}", self.commit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_survives_its_text() {
        for lsn in [Lsn(0), Lsn(0x16_B374_D848), Lsn(u64::MAX)] {
            assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        for bad in ["", "16", "16/", "/1", "g/0", "1/2/3", "100000000/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn positions_order_by_commit_then_place() {
        let commit = Lsn(100);
        assert!(Position::new(commit, 0) < Position::new(commit, 1));
        assert!(Position::new(commit, 9) < Position::after(commit));
        assert!(Position::after(commit) < Position::new(Lsn(101), 0));
    }
}
