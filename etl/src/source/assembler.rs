//! What do the frames of the relay mean to one cursor? Events of its tables, in commit order.

mod draft;
mod joining;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;

use self::draft::{Draft, Place};
pub(crate) use self::joining::Reading;
use self::joining::Told;
use crate::clock::Timestamp;
use crate::data::{Event, RowSpans};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::postgres::pgoutput::{self, Begin, Message, NotedChange, Relation, Streamed};
use crate::postgres::pgoutput::{note_change, note_kept_change, note_kept_streamed_change, note_streamed_change};
use crate::postgres::{ReplicationFrame, replication_frames};
use crate::relay::Aborted;
use crate::schema::TableId;
use crate::source::shape::Shape;
use crate::source::snapshot::Visibility;
use crate::store::SnapshotFilter;
use crate::transform::Selection;

/// The end of a transaction, or a quiet place between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boundary {
    /// After the transaction.
    pub(crate) position: Position,
    /// What the slot may be told once everything before is durable.
    pub(crate) end: Lsn,
    /// What the relay may free once everything before is durable.
    pub(crate) offset: u64,
}

/// What the assembler made of one block.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    /// The events of the cursor's tables.
    pub(crate) events: Vec<Event>,
    /// Their rows' bytes.
    pub(crate) bytes: usize,
    /// Of these, what is not in the block: rows that were changed on their way.
    pub(crate) made: usize,
    /// The last boundary in the block, and how many of the events come before it.
    pub(crate) boundary: Option<(usize, Boundary)>,
    /// The position of the last event.
    pub(crate) position: Option<Position>,
    /// Where it stopped before the end of the block.
    pub(crate) stopped: Option<Stopped>,
}

/// A row that does not look as its table is known to (R10). The rest of the block is read once the table is followed no
/// more, or followed as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// Where its frame begins in the block.
    pub(crate) at: usize,
    /// The row's table.
    pub(crate) table: TableId,
    /// The row's place.
    pub(crate) position: Position,
    pub(crate) change: ShapeChange,
}

/// How the rows of a table have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShapeChange {
    /// What is different.
    pub(crate) what: String,
    /// What they look like now, where that is certain.
    pub(crate) shape: Option<Shape>,
    /// The place of the next row when it was told.
    pub(crate) told: Position,
}

/// How a cursor follows a table.
#[derive(Debug, Clone)]
pub(crate) struct Follow {
    /// What rows look like.
    pub(crate) selection: Arc<Selection>,
    /// Changes up to here are not the cursor's, or durable already.
    pub(crate) after: Position,
    /// What the table's copy has seen.
    pub(crate) seen: Option<SnapshotFilter>,
}

/// The transaction whose frames are being read.
#[derive(Debug)]
struct Transaction {
    xid: u32,
    commit: Lsn,
    at: Timestamp,
    /// Changes so far, of all tables (R4).
    ordinal: u64,
    /// Whether its `Begin` was handed on.
    is_begun: bool,
}

/// Turns blocks into events for one cursor.
#[derive(Debug)]
pub(crate) struct Assembler {
    follows: HashMap<TableId, Follow, RandomState>,
    /// Followed tables whose rows look different now, and how.
    changed: HashMap<TableId, ShapeChange>,
    /// Followed tables that have yet to arrive, and what was told of their shape meanwhile.
    expected: HashMap<TableId, Option<Told>>,
    transaction: Option<Transaction>,
    /// Tables that it does not follow and whose rows came; for whoever wonders, and takes them out.
    pub(crate) strangers: Vec<TableId>,
    /// The last commit that was begun; everything up to its end was or will be handed out.
    begun: Lsn,
    /// The last commit whose end was read.
    ended: Lsn,
    /// No change of a later commit is handed out.
    limit: Option<Lsn>,
    /// How many notes and drafts the last block had, as the next one will have.
    usual: (usize, usize),
}

/// A message, and whether it names its (sub)transaction.
struct InBlock<'a> {
    block: &'a Bytes,
    at: Range<usize>,
    in_stream: bool,
}

/// What a message means beyond its rows.
enum Met {
    Content,
    /// The end of a transaction.
    End {
        position: Position,
        end: Lsn,
    },
    /// The cursor wants the row, and it does not look as it should; it is not counted yet.
    Changed {
        table: TableId,
        position: Position,
        change: ShapeChange,
    },
}

impl Assembler {
    /// An assembler that follows these tables.
    pub(crate) fn new(follows: impl IntoIterator<Item = (TableId, Follow)>) -> Self {
        Self {
            follows: follows.into_iter().collect(),
            changed: HashMap::new(),
            expected: HashMap::new(),
            transaction: None,
            strangers: Vec::new(),
            begun: Lsn::ZERO,
            ended: Lsn::ZERO,
            limit: None,
            usual: (0, 0),
        }
    }

    /// Follows one more table.
    pub(crate) fn follow(&mut self, table: TableId, follow: Follow) {
        self.follows.insert(table, follow);
    }

    /// Follows a table no more; returns how it was followed.
    pub(crate) fn unfollow(&mut self, table: TableId) -> Option<Follow> {
        self.changed.remove(&table);
        self.expected.remove(&table);
        self.follows.remove(&table)
    }

    /// How a table is followed.
    pub(crate) fn follow_of(&self, table: TableId) -> Option<&Follow> {
        self.follows.get(&table)
    }

    /// The rows of a table are read in another shape from now on; hands on that they are, and how they were read before.
    pub(crate) fn reshape(
        &mut self,
        table: TableId,
        selection: Arc<Selection>,
        position: Position,
    ) -> EtlResult<(Assembly, Option<Arc<Selection>>)> {
        let mut drafts = Vec::new();
        self.begin(&mut drafts)?;
        drafts.push(Draft::Ready(Event::Relation { new: Arc::clone(&selection.schema), position }));
        let before = self.read_as(table, selection);
        let nothing = RowSpans::new().finish(Bytes::new());
        let events = drafts.into_iter().map(|draft| draft.finish(&nothing)).collect();
        Ok((Assembly { events, position: self.position(), ..Assembly::default() }, before))
    }

    /// The rows of a table are read in this shape; returns the one before.
    pub(crate) fn read_as(&mut self, table: TableId, selection: Arc<Selection>) -> Option<Arc<Selection>> {
        self.changed.remove(&table);
        self.follows.get_mut(&table).map(|follow| std::mem::replace(&mut follow.selection, selection))
    }

    /// The tables that it follows.
    pub(crate) fn followed(&self) -> impl Iterator<Item = TableId> {
        self.follows.keys().copied()
    }

    /// The end of what the table's copy may have seen.
    pub(crate) fn seen_until(&self, table: TableId) -> Lsn {
        let seen = self.follows.get(&table).and_then(|follow| follow.seen.as_ref());
        seen.map_or(Lsn::ZERO, |seen| seen.until)
    }

    /// The commit LSN of the last transaction of which a frame was read.
    pub(crate) fn begun(&self) -> Lsn {
        self.begun
    }

    /// Hands out nothing of commits after this one.
    pub(crate) fn stop_after(&mut self, commit: Lsn) {
        self.limit = Some(commit);
    }

    /// The incomplete transaction was dropped from the relay and will come again. What was handed out of it is
    /// skipped then, up to `durable_or_handed_out`.
    pub(crate) fn rewind(&mut self, handed_out: Position) {
        self.transaction = None;
        self.forget_told(handed_out);
        for follow in self.follows.values_mut() {
            follow.after = follow.after.max(handed_out);
        }
    }

    /// Begins again with the transaction after `durable`, or within it.
    pub(crate) fn restart(&mut self, durable: Position) {
        self.rewind(durable);
        self.ended = if durable.ordinal == Position::WHOLE { durable.commit } else { Lsn::ZERO };
        self.begun = self.ended;
    }

    /// Reads a block of whole frames, or what is left of one, that begins at this offset of the relay. With `in_stream` its messages name their
    /// (sub)transactions; what names one of these is void (`SOURCE.md` R12).
    pub(crate) fn read(&mut self, block: &Bytes, offset: u64, in_stream: Option<&Aborted>) -> EtlResult<Assembly> {
        let mut spans = RowSpans::with_capacity(self.usual.0);
        let mut drafts = Vec::with_capacity(self.usual.1);
        let mut assembly = Assembly::default();
        let mut at = 0;
        for frame in replication_frames(block) {
            let (frame, after) = frame?;
            match frame {
                ReplicationFrame::KeepAlive { end, .. } if self.transaction.is_none() => {
                    let position = self.within_limit(self.ended);
                    let boundary = Boundary { position, end, offset: offset + after as u64 };
                    assembly.boundary = Some((drafts.len(), boundary));
                }
                ReplicationFrame::KeepAlive { .. } => {}
                ReplicationFrame::Data { payload, .. } => {
                    let place = InBlock { block, at: payload, in_stream: in_stream.is_some() };
                    match self.message(place, in_stream, &mut spans, &mut drafts)? {
                        Met::Content => {}
                        Met::End { position, end } => {
                            let boundary = Boundary { position, end, offset: offset + after as u64 };
                            assembly.boundary = Some((drafts.len(), boundary));
                        }
                        Met::Changed { table, position, change } => {
                            assembly.stopped = Some(Stopped { at, table, position, change });
                            break;
                        }
                    }
                }
            }
            at = after;
        }
        self.usual = (spans.mark(), drafts.len());
        if !drafts.is_empty() {
            assembly.bytes = block.len();
            assembly.position = self.position();
            draft::finish(drafts, &spans.finish(block.clone()), &mut assembly)?;
        }
        Ok(assembly)
    }

    /// Where the assembler stands: within a transaction, or after one.
    fn position(&self) -> Option<Position> {
        match &self.transaction {
            Some(transaction) => Some(Position::new(transaction.commit, transaction.ordinal)),
            None => Some(Position::after(self.ended)),
        }
    }
}

impl Assembler {
    /// Reads one message.
    fn message(
        &mut self,
        place: InBlock<'_>,
        in_stream: Option<&Aborted>,
        spans: &mut RowSpans,
        drafts: &mut Vec<Draft>,
    ) -> EtlResult<Met> {
        let bytes = place.block.get(place.at.clone()).unwrap_or_default();
        let message = match in_stream {
            None => pgoutput::parse(bytes)?,
            Some(aborted) => {
                let Streamed { xid, message } = pgoutput::parse_streamed(bytes)?;
                if xid.is_some_and(|xid| aborted.contains(xid)) {
                    if let Message::Relation(relation) = message {
                        self.relation(&relation, true);
                    }
                    return Ok(Met::Content);
                }
                message
            }
        };
        match message {
            Message::Insert { relation } | Message::Update { relation } | Message::Delete { relation }
                if let Some((position, change)) = self.change_of(TableId(relation))? =>
            {
                return Ok(Met::Changed { table: TableId(relation), position, change });
            }
            Message::Insert { relation } | Message::Delete { relation } => {
                let ordinal = self.count(1)?;
                self.row(TableId(relation), ordinal, place, spans, drafts)?;
            }
            Message::Update { relation } => self.update(TableId(relation), place, spans, drafts)?,
            Message::Begin(begin) => {
                self.begun = begin.commit;
                let Begin { xid, commit, at } = begin;
                self.transaction = Some(Transaction { xid, commit, at, ordinal: 0, is_begun: false });
            }
            Message::Commit(commit) => {
                let transaction = self.transaction.take().ok_or_else(stray)?;
                self.ended = transaction.commit;
                if transaction.is_begun {
                    drafts.push(Draft::Ready(Event::Commit { end: commit.end, at: transaction.at }));
                }
                return Ok(Met::End { position: self.within_limit(transaction.commit), end: commit.end });
            }
            Message::Relation(relation) => self.relation(&relation, false),
            Message::Truncate(truncate) => self.truncate(truncate.relations.iter(), drafts)?,
            // Types are read from the catalog; origins and messages are not asked for.
            Message::Origin(_) | Message::Type(_) | Message::Message(_) => {}
            other => {
                return Err(EtlError::new(ErrorKind::Protocol, "the source sends what it was not asked for")
                    .with("message", other.name()));
            }
        }
        Ok(Met::Content)
    }

    /// Counts changes of the transaction (R4); returns the first one's ordinal.
    fn count(&mut self, changes: u64) -> EtlResult<u64> {
        let transaction = self.transaction.as_mut().ok_or_else(stray)?;
        let first = transaction.ordinal + 1;
        transaction.ordinal += changes;
        Ok(first)
    }

    /// R4: an update that may change the key takes two ordinals, whoever looks at it: one with an old image.
    fn update(
        &mut self,
        table: TableId,
        place: InBlock<'_>,
        spans: &mut RowSpans,
        drafts: &mut Vec<Draft>,
    ) -> EtlResult<()> {
        // After the tag and the oid: `K` where the key changed, `O` before a full old image, else `N`.
        let form = place.at.start + if place.in_stream { 9 } else { 5 };
        let changes = match place.block.get(form) {
            Some(b'K' | b'O') => 2,
            _ => 1,
        };
        let ordinal = self.count(changes)?;
        self.row(table, ordinal, place, spans, drafts)
    }

    fn row(
        &mut self,
        table_id: TableId,
        ordinal: u64,
        within: InBlock<'_>,
        spans: &mut RowSpans,
        drafts: &mut Vec<Draft>,
    ) -> EtlResult<()> {
        let Some((place, selection)) = self.place(table_id, ordinal)? else { return Ok(()) };
        let noted = note(selection, within, spans)?;
        let passes = selection.pass.is_some().then(|| Arc::clone(selection));
        self.begin(drafts)?;
        drafts.push(Draft::Row { place, noted, passes });
        Ok(())
    }

    /// How the rows of a table have changed, if the cursor wants the next one.
    fn change_of(&self, table: TableId) -> EtlResult<Option<(Position, ShapeChange)>> {
        let unknown = || ShapeChange { what: "it has yet to arrive".to_owned(), shape: None, told: Position::ZERO };
        let change = self.changed.get(&table).cloned().or_else(|| self.expects(table).then(unknown));
        let Some(change) = change else { return Ok(None) };
        let next = self.transaction.as_ref().ok_or_else(stray)?.ordinal + 1;
        Ok(self.place(table, next)?.map(|(place, _)| (place.position, change)))
    }

    /// Where a change stands, if the cursor wants it.
    fn place(&self, table_id: TableId, ordinal: u64) -> EtlResult<Option<(Place, &Arc<Selection>)>> {
        let transaction = self.transaction.as_ref().ok_or_else(stray)?;
        let Some(follow) = self.follows.get(&table_id) else { return Ok(None) };
        let position = Position::new(transaction.commit, ordinal);
        let is_beyond = self.limit.is_some_and(|limit| transaction.commit > limit);
        let has_seen = |seen: &SnapshotFilter| seen.has_seen(transaction.xid, transaction.commit);
        if is_beyond || position <= follow.after || follow.seen.as_ref().is_some_and(has_seen) {
            return Ok(None);
        }
        Ok(Some((Place { table_id, position, committed_at: transaction.at }, &follow.selection)))
    }

    /// Hands on the transaction's `Begin` before the first of its changes that anybody wants.
    fn begin(&mut self, drafts: &mut Vec<Draft>) -> EtlResult<()> {
        let transaction = self.transaction.as_mut().ok_or_else(stray)?;
        if !std::mem::replace(&mut transaction.is_begun, true) {
            drafts.push(Draft::Ready(Event::Begin { xid: transaction.xid, commit: transaction.commit }));
        }
        Ok(())
    }

    fn truncate(&mut self, relations: impl Iterator<Item = u32>, drafts: &mut Vec<Draft>) -> EtlResult<()> {
        let (mut tables, mut positions, mut committed_at) = (Vec::new(), Vec::new(), None);
        for table in relations.map(TableId) {
            let ordinal = self.count(1)?;
            if let Some((place, _)) = self.place(table, ordinal)? {
                tables.push(table);
                positions.push(place.position);
                committed_at = Some(place.committed_at);
            }
        }
        if let Some(at) = committed_at {
            self.begin(drafts)?;
            let (tables, positions) = (tables.into(), positions.into());
            drafts.push(Draft::Ready(Event::Truncate { tables, positions, at }));
        }
        Ok(())
    }

    /// What the rows that follow look like (R10). A transaction tells a shape once, and may have told it in what was
    /// rolled back: then nobody knows whether later rows look like that.
    fn relation(&mut self, relation: &Relation<'_>, is_void: bool) {
        let id = TableId(relation.oid);
        if !self.follows.contains_key(&id) {
            self.strangers.push(id);
            return;
        }
        let next = |open: &Transaction| Position::new(open.commit, open.ordinal + 1);
        let at = self.transaction.as_ref().map_or(Position::ZERO, next);
        let told = Told { shape: Shape::of(relation), is_void, at };
        match self.expected.get_mut(&id) {
            Some(Some(_)) if is_void => {}
            Some(expected) => *expected = Some(told),
            None => self.told(id, told),
        }
    }

    /// No position of a cursor that ends somewhere is beyond that.
    fn within_limit(&self, commit: Lsn) -> Position {
        Position::after(self.limit.map_or(commit, |limit| commit.min(limit)))
    }
}

/// Notes the rows of a message, without the columns that are left out.
fn note(selection: &Selection, within: InBlock<'_>, spans: &mut RowSpans) -> EtlResult<NotedChange> {
    let (InBlock { block, at, in_stream }, schema) = (within, selection.read());
    match (&selection.kept, in_stream) {
        (None, false) => note_change(block, at, schema, spans),
        (Some(kept), false) => note_kept_change(block, at, schema, kept, spans),
        (None, true) => note_streamed_change(block, at, schema, spans),
        (Some(kept), true) => note_kept_streamed_change(block, at, schema, kept, spans),
    }
}

fn stray() -> EtlError {
    EtlError::new(ErrorKind::Protocol, "a message came outside of a transaction")
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;

    fn frame(content: &[u8], out: &mut BytesMut) {
        out.put_u8(b'd');
        out.put_u32(content.len() as u32 + 4);
        out.put_slice(content);
    }

    fn message(content: &[u8], out: &mut BytesMut) {
        frame(&[&b"w"[..], &[0; 24], content].concat(), out);
    }

    fn begin(commit: u64) -> Vec<u8> {
        [&b"B"[..], &commit.to_be_bytes(), &[0; 8], &[0, 0, 0, 1]].concat()
    }

    fn commit(lsn: u64) -> Vec<u8> {
        [&b"C\0"[..], &lsn.to_be_bytes(), &(lsn + 8).to_be_bytes(), &[0; 8]].concat()
    }

    fn keepalive(end: u64) -> Vec<u8> {
        [&b"k"[..], &end.to_be_bytes(), &[0; 9]].concat()
    }

    #[test]
    fn a_transaction_that_was_cut_off_is_not_passed_by_a_keepalive() {
        let mut assembler = Assembler::new([]);
        let mut block = BytesMut::new();
        message(&begin(10), &mut block);
        message(&commit(10), &mut block);
        message(&begin(20), &mut block);
        let first = assembler.read(&block.split().freeze(), 0, None).unwrap();
        assert_eq!(first.boundary.unwrap().1.position, Position::after(Lsn(10)));
        assert_eq!(assembler.begun(), Lsn(20));

        // The connection is lost; the next one begins with a keepalive, and sends the transaction again.
        assembler.rewind(Position::after(Lsn(10)));
        frame(&keepalive(19), &mut block);
        let quiet = assembler.read(&block.split().freeze(), 0, None).unwrap();
        assert_eq!(quiet.boundary.unwrap().1.position, Position::after(Lsn(10)));
        message(&begin(20), &mut block);
        message(&commit(20), &mut block);
        let again = assembler.read(&block.freeze(), 0, None).unwrap();
        assert_eq!(again.boundary.unwrap().1.position, Position::after(Lsn(20)));
    }

    /// A message as it comes in a chunk: its (sub)transaction after the tag.
    fn in_chunk(xid: u32, message: &[u8]) -> Vec<u8> {
        let (tag, rest) = message.split_at(1);
        [tag, &xid.to_be_bytes(), rest].concat()
    }

    #[test]
    fn r12_what_a_rolled_back_subtransaction_did_is_void_and_not_counted() {
        let schema = crate::data::mutation::table(9, &[crate::schema::Kind::Text]);
        let selection = Arc::new(Selection::whole(&schema));
        let follow = Follow { selection, after: Position::ZERO, seen: None };
        let insert = b"I\0\0\0\x09N\0\x01t\0\0\0\x01x";
        let renamed = b"R\0\0\0\x09public\0renamed\0d\0\0";
        let truncate = b"T\0\0\0\x01\0\0\0\0\x09";
        let mut assembler = Assembler::new([(schema.id, follow)]);
        let mut block = BytesMut::new();
        message(&begin(10), &mut block);
        assembler.read(&block.split().freeze(), 0, None).unwrap();
        for (xid, content) in [(1, &insert[..]), (5, insert), (6, truncate), (7, insert)] {
            message(&in_chunk(xid, content), &mut block);
        }
        let assembly = assembler.read(&block.split().freeze(), 0, Some(&Aborted::new(vec![6, 5]))).unwrap();
        let places = assembly.events.iter().filter_map(|event| match event {
            Event::Change(change) => Some(change.position),
            _ => None,
        });
        assert_eq!(places.collect::<Vec<_>>(), [1, 2].map(|ordinal| Position::new(Lsn(10), ordinal)));
        // A shape is told once, be it in what is rolled back: nobody knows what rows after it look like.
        for aborted in [Aborted::default(), Aborted::new(vec![5])] {
            message(&in_chunk(5, renamed), &mut block);
            let before = block.len();
            message(&in_chunk(7, insert), &mut block);
            let stopped = assembler.read(&block.split().freeze(), 0, Some(&aborted)).unwrap().stopped.unwrap();
            assert_eq!((stopped.at, stopped.table), (before, schema.id));
        }
    }
}
