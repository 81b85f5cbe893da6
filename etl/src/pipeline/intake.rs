//! Where does each part of what is received go? To the relay, to the file of a transaction in progress, or nowhere.

use std::ops::Range;

use crate::clock::Timestamp;
use crate::error::EtlResult;
use crate::lsn::Lsn;
use crate::postgres::pgoutput::StreamCommit;
use crate::relay::{Mark, Prepare};
use crate::source::{Apart, Marked};

/// What is done with a part of a block; ranges are within the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Frames for the relay; the marks count from the range's beginning.
    Log { frames: Range<usize>, marks: Vec<Mark> },
    /// A chunk of a transaction in progress begins.
    ChunkBegin { xid: u32, is_first: bool },
    /// Frames of that chunk.
    Chunk { xid: u32, frames: Range<usize> },
    /// What came of the (sub)transaction is void.
    Abort { xid: u32, subxid: u32 },
    /// The streamed transaction goes to the relay.
    Adopt(StreamCommit),
    /// What came of the transaction is prepared.
    Prepared { which: Prepare, is_streamed: bool },
    /// The prepared transaction goes to the relay, unless that has it.
    AdoptPrepared { gid: Box<str>, done: StreamCommit, is_known: bool },
    /// The prepared transaction is void.
    Forget { xid: u32, gid: Box<str> },
}

/// Sorts blocks. What a block leaves open goes on with the next one.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// Between the beginning and the end of a transaction.
    in_transaction: bool,
    /// It came before: its frames are dropped.
    is_resent: bool,
    /// Between the beginning and the end of a chunk of this transaction.
    chunk: Option<u32>,
    /// The end of the last transaction, or of a keepalive outside of one.
    received: Lsn,
}

impl Intake {
    /// Everything before was received, whether it was kept or not.
    pub(super) fn received(&self) -> Lsn {
        self.received
    }

    /// Sorts one block of this length; `is_known` says whether the relay has a transaction already.
    pub(super) fn sort(
        &mut self,
        found: Vec<Marked>,
        len: usize,
        is_known: impl Fn(Lsn, u32, Timestamp) -> EtlResult<bool>,
    ) -> EtlResult<Vec<Part>> {
        let mut cut = Cut { from: 0, marks: Vec::new(), parts: Vec::new() };
        for marked in found {
            match marked {
                Marked::Begin { at, commit, xid, time } => {
                    self.in_transaction = true;
                    if is_known(commit, xid, time)? {
                        self.cut(&mut cut, at, at);
                        self.is_resent = true;
                    } else {
                        cut.marks.push(Mark::Begin { offset: at - cut.from, commit, xid, at: time });
                    }
                }
                Marked::Commit { after, end } => {
                    self.in_transaction = false;
                    self.received = self.received.max(end);
                    if std::mem::take(&mut self.is_resent) {
                        cut.from = after;
                    } else {
                        cut.marks.push(Mark::Commit { after: after - cut.from, end });
                    }
                }
                // Within a transaction or a chunk it says nothing about what is complete.
                Marked::KeepAlive { after, end, .. } if !self.in_transaction && self.chunk.is_none() => {
                    self.received = self.received.max(end);
                    cut.marks.push(Mark::KeepAlive { after: after - cut.from, end });
                }
                Marked::KeepAlive { .. } => {}
                Marked::Apart { at, after, what } => {
                    self.cut(&mut cut, at, after);
                    let part = self.apart(what, &is_known)?;
                    cut.parts.extend(part);
                }
            }
        }
        self.cut(&mut cut, len, len);
        Ok(cut.parts)
    }

    fn apart(
        &mut self,
        what: Apart,
        is_known: impl Fn(Lsn, u32, Timestamp) -> EtlResult<bool>,
    ) -> EtlResult<Option<Part>> {
        Ok(match what {
            Apart::ChunkBegin(start) => {
                self.chunk = Some(start.xid);
                Some(Part::ChunkBegin { xid: start.xid, is_first: start.is_first })
            }
            Apart::ChunkEnd => {
                self.chunk = None;
                None
            }
            Apart::Abort { xid, subxid } => Some(Part::Abort { xid, subxid }),
            Apart::Commit(commit) => {
                self.received = self.received.max(commit.end);
                if is_known(commit.commit, commit.xid, commit.at)? {
                    Some(Part::Abort { xid: commit.xid, subxid: commit.xid })
                } else {
                    Some(Part::Adopt(commit))
                }
            }
            Apart::PrepareBegin { xid } => {
                self.chunk = Some(xid);
                Some(Part::ChunkBegin { xid, is_first: true })
            }
            Apart::Prepared { which, is_streamed } => {
                self.chunk = None;
                Some(Part::Prepared { which, is_streamed })
            }
            Apart::CommitPrepared { gid, done } => {
                self.received = self.received.max(done.end);
                let is_known = is_known(done.commit, done.xid, done.at)?;
                Some(Part::AdoptPrepared { gid, done, is_known })
            }
            Apart::RollbackPrepared { xid, gid, end } => {
                self.received = self.received.max(end);
                Some(Part::Forget { xid, gid })
            }
        })
    }

    /// What was not sorted yet ends at `to`, and the rest begins at `from`.
    fn cut(&self, cut: &mut Cut, to: usize, from: usize) {
        let (frames, marks) = (cut.from..to, std::mem::take(&mut cut.marks));
        cut.from = from;
        match self.chunk {
            _ if frames.is_empty() || self.is_resent => {}
            Some(xid) => cut.parts.push(Part::Chunk { xid, frames }),
            None => cut.parts.push(Part::Log { frames, marks }),
        }
    }
}

/// How far a block is sorted.
struct Cut {
    from: usize,
    marks: Vec<Mark>,
    parts: Vec<Part>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::pgoutput::StreamStart;

    const AT: Timestamp = Timestamp(7);

    fn begin(at: usize, commit: u64) -> Marked {
        Marked::Begin { at, commit: Lsn(commit), xid: 1, time: AT }
    }

    fn commit(after: usize, end: u64) -> Marked {
        Marked::Commit { after, end: Lsn(end) }
    }

    fn alive(after: usize, end: u64) -> Marked {
        Marked::KeepAlive { after, end: Lsn(end), wants_reply: false }
    }

    /// Ten bytes from `at` on that are not for the log.
    fn apart(at: usize, what: Apart) -> Marked {
        Marked::Apart { at, after: at + 10, what }
    }

    fn chunk(xid: u32) -> Apart {
        Apart::ChunkBegin(StreamStart { xid, is_first: true })
    }

    fn done(xid: u32, commit: u64) -> StreamCommit {
        StreamCommit { xid, commit: Lsn(commit), end: Lsn(commit + 5), at: AT }
    }

    fn log(frames: Range<usize>, marks: impl IntoIterator<Item = Mark>) -> Part {
        Part::Log { frames, marks: marks.into_iter().collect() }
    }

    fn sort(intake: &mut Intake, found: Vec<Marked>, len: usize) -> Vec<Part> {
        // The relay reaches up to 20.
        intake.sort(found, len, |commit, _, _| Ok(commit <= Lsn(20))).unwrap()
    }

    #[test]
    fn ordinary_transactions_stay_together_and_resent_ones_are_left_out() {
        let mut intake = Intake::default();
        let found = vec![begin(0, 20), commit(30, 25), alive(40, 27), begin(40, 30), commit(70, 35), begin(70, 40)];
        let marks = [
            Mark::KeepAlive { after: 10, end: Lsn(27) },
            Mark::Begin { offset: 10, commit: Lsn(30), xid: 1, at: AT },
            Mark::Commit { after: 40, end: Lsn(35) },
            Mark::Begin { offset: 40, commit: Lsn(40), xid: 1, at: AT },
        ];
        assert_eq!(sort(&mut intake, found, 90), [log(30..90, marks)]);
        assert_eq!(intake.received(), Lsn(35));
        assert_eq!(sort(&mut intake, vec![alive(50, 60)], 50), [log(0..50, [])], "within, it says nothing");
        let last = log(0..20, [Mark::Commit { after: 20, end: Lsn(45) }]);
        assert_eq!(sort(&mut intake, vec![commit(20, 45)], 20), [last]);
        assert_eq!(intake.received(), Lsn(45));
    }

    #[test]
    fn what_is_prepared_waits_for_its_fate_whatever_comes_in_between() {
        let mut intake = Intake::default();
        let which = || Prepare { xid: 9, gid: "gid".into(), prepare: Lsn(22) };
        let gid = || Box::<str>::from("gid");
        let found = vec![
            apart(0, Apart::PrepareBegin { xid: 9 }),
            alive(30, 40),
            apart(30, Apart::Prepared { which: which(), is_streamed: false }),
            begin(40, 30),
            commit(60, 35),
            apart(60, Apart::CommitPrepared { gid: gid(), done: done(9, 40) }),
            apart(70, Apart::CommitPrepared { gid: gid(), done: done(9, 20) }),
            apart(80, Apart::RollbackPrepared { xid: 8, gid: gid(), end: Lsn(50) }),
        ];
        let marks =
            [Mark::Begin { offset: 0, commit: Lsn(30), xid: 1, at: AT }, Mark::Commit { after: 20, end: Lsn(35) }];
        let expected = [
            Part::ChunkBegin { xid: 9, is_first: true },
            Part::Chunk { xid: 9, frames: 10..30 },
            Part::Prepared { which: which(), is_streamed: false },
            log(40..60, marks),
            Part::AdoptPrepared { gid: gid(), done: done(9, 40), is_known: false },
            Part::AdoptPrepared { gid: gid(), done: done(9, 20), is_known: true },
            Part::Forget { xid: 8, gid: gid() },
        ];
        assert_eq!(sort(&mut intake, found, 90), expected);
        assert_eq!(intake.received(), Lsn(50));
    }

    #[test]
    fn a_resent_transaction_is_left_out_over_many_blocks() {
        let mut intake = Intake::default();
        assert_eq!(sort(&mut intake, vec![begin(10, 15)], 50), [log(0..10, [])]);
        assert_eq!(sort(&mut intake, vec![], 50), []);
        assert_eq!(sort(&mut intake, vec![commit(20, 16)], 50), [log(20..50, [])]);
    }

    #[test]
    fn chunks_go_to_their_transactions_and_what_lies_between_to_the_log() {
        let mut intake = Intake::default();
        let found = vec![begin(0, 30), commit(20, 35), apart(20, chunk(7)), alive(50, 36)];
        let marks =
            [Mark::Begin { offset: 0, commit: Lsn(30), xid: 1, at: AT }, Mark::Commit { after: 20, end: Lsn(35) }];
        let first = Part::ChunkBegin { xid: 7, is_first: true };
        assert_eq!(sort(&mut intake, found, 60), [log(0..20, marks), first, Part::Chunk { xid: 7, frames: 30..60 }]);
        assert_eq!(intake.received(), Lsn(35), "a chunk is not cut by a keepalive");
        let found = vec![
            apart(5, Apart::ChunkEnd),
            alive(30, 40),
            apart(30, chunk(8)),
            apart(40, Apart::ChunkEnd),
            apart(50, Apart::Abort { xid: 7, subxid: 9 }),
            apart(60, Apart::Commit(done(7, 50))),
            apart(70, Apart::Commit(done(8, 20))),
        ];
        let parts = [
            Part::Chunk { xid: 7, frames: 0..5 },
            log(15..30, [Mark::KeepAlive { after: 15, end: Lsn(40) }]),
            Part::ChunkBegin { xid: 8, is_first: true },
            Part::Abort { xid: 7, subxid: 9 },
            Part::Adopt(done(7, 50)),
            // The relay has it: what came of it is void.
            Part::Abort { xid: 8, subxid: 8 },
        ];
        assert_eq!(sort(&mut intake, found, 80), parts);
        assert_eq!(intake.received(), Lsn(55));
    }
}
