//! Does every reader see exactly the committed bytes, whatever happens in between? Random runs against a plain list.

use bytes::Bytes;
use proptest::prelude::*;

use super::log::Found;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append { bytes: u8, begins: bool, commits: bool },
    Rewind,
    Read(usize),
    Release(usize),
    Replace(usize),
    ToDisk(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..9u8, any::<bool>(), any::<bool>())
            .prop_map(|(bytes, begins, commits)| Step::Append { bytes, begins, commits }),
        1 => Just(Step::Rewind),
        4 => (0..3usize).prop_map(Step::Read),
        2 => (0..3usize).prop_map(Step::Release),
        1 => (0..3usize).prop_map(Step::Replace),
        2 => (0..20u64).prop_map(Step::ToDisk),
    ]
}

/// The whole log as it should be, and where its last transaction is complete.
#[derive(Default)]
struct Model {
    bytes: Vec<u8>,
    complete: usize,
    open: bool,
    lsn: u64,
    fill: u8,
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
            self.open = begins;
        }
        if self.open && commits {
            marks.push(Mark::Commit { after: block.len(), end: Lsn(self.lsn + 5) });
            self.open = false;
        }
        self.bytes.extend(&block);
        if !self.open {
            self.complete = self.bytes.len();
        }
        log.append(Bytes::from(block), &marks).unwrap();
    }
}

/// What one reader has seen: from this offset on, these bytes.
struct Seen {
    id: u64,
    from: usize,
    bytes: Vec<u8>,
    rewound: bool,
}

impl Seen {
    fn new(log: &mut Log, model: &Model) -> Self {
        Self { id: log.add_reader(StartAt::Head), from: model.complete, bytes: Vec::new(), rewound: false }
    }

    fn read(&mut self, log: &mut Log) -> bool {
        let read = match log.read(self.id) {
            None => return false,
            Some(Found::Read(read)) => read,
            Some(Found::Disk(offset, record)) => {
                log.read_loaded(self.id, &record, &record.load(offset).unwrap()).unwrap()
            }
        };
        match read {
            Read::Rewound => self.rewound = true,
            Read::Block { bytes, offset } => {
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
}

fn run(steps: Vec<Step>) {
    let (mut log, mut model) = (Log::default(), Model::default());
    let dir = tempfile::tempdir().unwrap();
    let segments = Arc::new(Segments::open(dir.path().to_owned(), 1 << 20).unwrap());
    let mut segment = None;
    let mut readers: Vec<Seen> = (0..3).map(|_| Seen::new(&mut log, &model)).collect();
    for step in steps {
        match step {
            Step::Append { bytes, begins, commits } => model.append(&mut log, bytes, begins, commits),
            Step::Rewind => {
                log.rewind();
                model.bytes.truncate(model.complete);
                model.open = false;
            }
            Step::Read(n) => {
                readers[n].read(&mut log);
            }
            Step::Release(n) => {
                let seen = readers[n].from + readers[n].bytes.len();
                log.release(readers[n].id, seen.min(model.complete) as u64);
            }
            Step::ToDisk(keep) => {
                let old = log.oldest_in_memory(keep, segments.room());
                let (current, records) = segments.write(segment.take(), &old).unwrap();
                log.moved_to_disk(records);
                segment = current;
                assert!(log.memory_bytes() <= keep);
            }
            Step::Replace(n) => {
                log.remove_reader(readers[n].id);
                readers[n] = Seen::new(&mut log, &model);
            }
        }
    }
    // A last transaction follows, so that whoever was set back is told from where.
    model.append(&mut log, 3, true, true);
    for seen in &mut readers {
        while seen.read(&mut log) {}
        assert_eq!(seen.bytes, model.bytes[seen.from..]);
        assert_eq!(log.behind(seen.id), 0);
        log.release(seen.id, model.bytes.len() as u64);
    }
    assert_eq!(log.memory_bytes(), 0);
    drop(segment);
    assert_eq!(segments.bytes(), 0);
}

proptest! {
    #[test]
    fn readers_see_what_was_committed(steps in prop::collection::vec(step(), 1..120)) {
        run(steps);
    }
}
