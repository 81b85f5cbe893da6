//! Does every reader see exactly the committed bytes, whatever happens in between? Random runs against a plain list.

use std::fs::File;

use bytes::Bytes;
use proptest::prelude::*;

use super::log::{Found, Frames};
use super::spool::Spool;
use super::*;
use crate::byte_size::ByteSize;

#[derive(Debug, Clone)]
enum Step {
    Append {
        bytes: u8,
        begins: bool,
        commits: bool,
    },
    Adopt(u8),
    Rewind,
    Read(usize),
    Release(usize),
    Replace(usize),
    ToDisk(u64),
    /// What is written from here on goes to another file.
    NextFile,
    Sync,
    Crash {
        loses: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..9u8, any::<bool>(), any::<bool>())
            .prop_map(|(bytes, begins, commits)| Step::Append { bytes, begins, commits }),
        4 => (0..6u8).prop_map(Step::Adopt),
        2 => Just(Step::Rewind),
        8 => (0..3usize).prop_map(Step::Read),
        4 => (0..3usize).prop_map(Step::Release),
        2 => (0..3usize).prop_map(Step::Replace),
        4 => (0..20u64).prop_map(Step::ToDisk),
        3 => Just(Step::NextFile),
        2 => Just(Step::Sync),
        1 => any::<bool>().prop_map(|loses| Step::Crash { loses }),
    ]
}

/// Where the slot was created.
const CREATED: Lsn = Lsn(1);

/// A transaction that began, in offsets of the whole log.
#[derive(Clone, Copy)]
struct Began {
    commit: u64,
    begin: usize,
}

/// The whole log as it should be, and where nothing is incomplete.
#[derive(Default)]
struct Model {
    bytes: Vec<u8>,
    began: Vec<Began>,
    /// Offsets, and the last commit before each.
    boundaries: Vec<(usize, u64)>,
    open: bool,
    lsn: u64,
    fill: u8,
    /// What the source was told: it sends nothing before this again.
    confirmed: Lsn,
}

impl Model {
    fn append(&mut self, log: &mut Log, len: u8, begins: bool, commits: bool) {
        self.fill = self.fill.wrapping_add(1);
        let block = vec![self.fill; usize::from(len)];
        let mut marks = Vec::new();
        if !self.open {
            // Bytes outside of a transaction are a keepalive's.
            self.lsn += 10;
            let at = Timestamp(0);
            marks.push(match begins {
                true => Mark::Begin { offset: 0, commit: Lsn(self.lsn), xid: 1, at },
                false => Mark::KeepAlive { after: block.len(), end: Lsn(self.lsn) },
            });
            if begins {
                self.began.push(Began { commit: self.lsn, begin: self.bytes.len() });
            }
            self.open = begins;
        }
        if self.open && commits {
            marks.push(Mark::Commit { after: block.len(), end: Lsn(self.lsn + 5) });
            self.open = false;
        }
        self.bytes.extend(&block);
        if !self.open {
            self.boundaries.push((self.bytes.len(), self.began.last().map_or(0, |began| began.commit)));
        }
        log.append(Bytes::from(block), &marks).unwrap();
    }

    /// A streamed transaction, which is read in several pieces, or has none.
    fn adopt(&mut self, inner: &Inner, pieces: u8) {
        if self.open {
            return;
        }
        let mut spool = Spool::create(&inner.segments, 12).unwrap();
        let mut bytes = b"B".to_vec();
        for _ in 0..pieces {
            self.fill = self.fill.wrapping_add(1);
            let piece = vec![self.fill; 5];
            spool.write(&piece).unwrap();
            bytes.extend(piece);
        }
        bytes.push(b'C');
        self.lsn += 10;
        self.began.push(Began { commit: self.lsn, begin: self.bytes.len() });
        self.bytes.extend(bytes);
        self.boundaries.push((self.bytes.len(), self.lsn));
        let adopted = Transaction { commit: Lsn(self.lsn), end: Lsn(self.lsn + 5), xid: 1, at: Timestamp(0) };
        let frames = Frames { begin: Bytes::from_static(b"B"), commit: Bytes::from_static(b"C") };
        inner.log().adopt(Arc::new(spool.finish(true)), frames, adopted).unwrap();
    }

    fn complete(&self) -> usize {
        self.boundaries.last().map_or(0, |(offset, _)| *offset)
    }

    /// Nothing is left from there on.
    fn cut(&mut self, end: usize) {
        self.bytes.truncate(end);
        self.began.retain(|began| began.begin < end);
        self.boundaries.retain(|(offset, _)| *offset <= end);
        self.open = false;
    }
}

/// What one reader has seen: from this offset on, these bytes.
struct Seen {
    id: u64,
    from: usize,
    bytes: Vec<u8>,
    rewound: bool,
    /// It needs nothing that committed up to here.
    durable: u64,
}

impl Seen {
    fn new(log: &mut Log, model: &Model) -> Self {
        let durable = log.head().end.0.saturating_sub(1);
        let id = log.add_reader(None, StartAt::Head);
        Self { id, from: model.complete(), bytes: Vec::new(), rewound: false, durable }
    }

    /// Goes on after a restart with what it knew to be durable.
    fn again(&mut self, log: &mut Log, model: &Model) {
        let from = StartAt::After(Lsn(self.durable));
        assert!(log.holds(from), "what a reader had not released is gone");
        let first = model.began.iter().find(|began| began.commit > self.durable);
        let (id, from) = (log.add_reader(None, from), first.map_or(model.complete(), |began| began.begin));
        *self = Self { id, from, bytes: Vec::new(), rewound: false, durable: self.durable };
    }

    fn read(&mut self, log: &mut Log) -> bool {
        let read = match log.read(self.id) {
            None => return false,
            Some(Found::Read(read)) => read,
            Some(Found::Disk(record)) => {
                let (description, bytes) = record.load_into(&mut bytes::BytesMut::new()).unwrap();
                let Some(read) = log.read_loaded(self.id, &record, &description.marks, &bytes) else { return true };
                read
            }
            Some(Found::Spooled { spooled, piece }) => {
                let bytes = spooled.load_into(piece, &mut bytes::BytesMut::new()).unwrap();
                let Some(read) = log.read_spooled(self.id, &spooled, piece, &bytes) else { return true };
                read
            }
        };
        match read {
            Read::Rewound => self.rewound = true,
            Read::Block { bytes, offset, .. } => {
                let at = usize::try_from(offset).unwrap() - self.from;
                if std::mem::take(&mut self.rewound) {
                    assert!(at < self.bytes.len(), "nothing that was read is void");
                    self.bytes.truncate(at);
                }
                assert_eq!(at, self.bytes.len(), "a gap");
                self.bytes.extend(&bytes);
            }
        }
        true
    }

    fn release(&mut self, log: &mut Log, model: &Model) {
        let seen = self.from + self.bytes.len();
        if let Some((offset, commit)) = model.boundaries.iter().rfind(|(offset, _)| *offset <= seen) {
            log.release(self.id, *offset as u64);
            self.durable = self.durable.max(*commit);
        }
    }
}

fn open(dir: &tempfile::TempDir) -> Inner {
    let settings = RelaySettings { max_bytes: ByteSize::gib(1), at_limit: AtLimit::Stop };
    Inner::open(dir.path().join("relay"), &settings, 0).unwrap()
}

/// The end of the last segment is lost, as far as it was not synced, and what its records stand for with it.
fn lose(dir: &std::path::Path, synced: record::Synced, spools: &[u64]) {
    let last = segment::files(dir, "seg").unwrap().pop();
    for (spool, path) in segment::files(dir, "spool").unwrap() {
        if spools.contains(&spool) {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
    }
    let Some((number, last)) = last else { return };
    let safe = if number == synced.segment { synced.position } else { 0 };
    let file = File::options().write(true).open(&last).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(safe + (len - safe) / 2).unwrap();
}

fn crash(dir: &tempfile::TempDir, inner: Inner, model: &mut Model, readers: &mut [Seen], loses: bool) -> Inner {
    let synced = inner.pen().synced_place();
    let spools = inner.pen().unsynced_spools();
    drop(inner);
    if loses {
        lose(&dir.path().join("relay"), synced, &spools);
    }
    let inner = open(dir);
    {
        let mut log = inner.log();
        assert!(model.confirmed == CREATED || log.head().end >= model.confirmed, "what was confirmed is lost");
        assert!(!log.holds(StartAt::After(Lsn(u64::MAX))), "nobody has said where the stream goes on");
        log.begin_at(model.confirmed);
        let end = usize::try_from(log.end_offset()).unwrap();
        if end == 0 {
            // Nothing was on disk: the log's offsets begin anew.
            *model = Model { lsn: model.lsn, fill: model.fill, confirmed: model.confirmed, ..Model::default() };
        }
        model.cut(end);
        assert_eq!(end, model.complete(), "a transaction is cut in two");
        for reader in readers {
            reader.again(&mut log, model);
        }
    }
    inner
}

fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut inner, mut model) = (open(&dir), Model { confirmed: CREATED, ..Model::default() });
    inner.log().begin_at(CREATED);
    let mut readers: Vec<Seen> = (0..3).map(|_| Seen::new(&mut inner.log(), &model)).collect();
    for step in steps {
        match step {
            Step::Append { bytes, begins, commits } => model.append(&mut inner.log(), bytes, begins, commits),
            Step::Adopt(pieces) => model.adopt(&inner, pieces),
            Step::Rewind => {
                inner.log().rewind();
                model.cut(model.complete());
            }
            Step::Read(n) => {
                readers[n].read(&mut inner.log());
            }
            Step::Release(n) => readers[n].release(&mut inner.log(), &model),
            Step::Replace(n) => {
                inner.log().remove_reader(readers[n].id);
                readers[n] = Seen::new(&mut inner.log(), &model);
            }
            Step::ToDisk(keep) => {
                inner.pen().spill(&inner, keep, false).unwrap();
                assert!(inner.log().memory_bytes() <= keep);
            }
            Step::NextFile => inner.pen().next_file(),
            Step::Sync => {
                let end = inner.log().head().end;
                inner.pen().record(&inner, end).unwrap();
                inner.pen().sync(&inner.segments).unwrap();
                model.confirmed = end;
            }
            Step::Crash { loses } => inner = crash(&dir, inner, &mut model, &mut readers, loses),
        }
    }
    // A last transaction follows, so that whoever was set back is told from where.
    model.append(&mut inner.log(), 3, true, true);
    for seen in &mut readers {
        let mut log = inner.log();
        while seen.read(&mut log) {}
        assert_eq!(seen.bytes, model.bytes[seen.from..]);
        assert_eq!(log.behind(seen.id), 0);
        log.release(seen.id, model.bytes.len() as u64);
    }
    assert_eq!(inner.log().memory_bytes(), 0);
    inner.pen().let_go();
    assert_eq!(inner.segments.bytes(), 0);
    assert_eq!(std::fs::read_dir(dir.path().join("relay")).map_or(0, Iterator::count), 0);
}

proptest! {
    #[test]
    fn readers_see_what_was_committed(steps in prop::collection::vec(step(), 1..120)) {
        run(steps);
    }
}

#[test]
fn a_streamed_transaction_between_keepalives_is_whole_after_a_crash_that_loses_what_was_not_synced() {
    let keepalive = |bytes| Step::Append { bytes, begins: false, commits: false };
    run(vec![
        keepalive(1),
        Step::Sync,
        Step::Adopt(1),
        Step::Replace(0),
        Step::Replace(2),
        keepalive(4),
        Step::ToDisk(0),
        Step::Replace(1),
        Step::Crash { loses: true },
    ]);
}
