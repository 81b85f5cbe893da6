//! How do changes come in? One replication connection after another, into the relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use super::control::Stop;
use super::intake::{Intake, Part};
use super::prepared;
use super::report::note_touched;
use super::run::Run;
use crate::clock;
use crate::error::{ErrorKind, EtlError, EtlResult, RetryClass};
use crate::failpoint;
use crate::lsn::Lsn;
use crate::memory;
use crate::postgres::pgoutput::StreamCommit;
use crate::postgres::{Reporter, StreamReader};
use crate::relay::{RelayWriter, Transaction};
use crate::retry::{RetryPolicy, Waits};
use crate::source::{
    Marked, Opened, Suspicion, frames_around, marks, open_stream, reader_replied, set_diverged, until_shutdown,
};

/// How long a slot that another connection holds is waited for before the stream has begun.
const SLOT_PATIENCE: Duration = Duration::from_secs(10);

/// The same where the server hears nothing of whoever holds it: it lets go of a dead client after `wal_sender_timeout`.
const DEAD_PATIENCE: Duration = Duration::from_secs(75);

/// How long the last word may take to reach the server.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the server says when it is to send a value in binary whose type has no function for it.
const NO_SUCH_FUNCTION: &str = "42883";

/// Receives until the pipeline ends; `over` says that everything is written and confirmed.
pub(super) async fn receive(run: Arc<Run>, relay: RelayWriter, over: watch::Receiver<bool>) -> EtlResult<()> {
    let mut waits = RetryPolicy::default().waits();
    let mut holder = Holder { since: clock::monotonic(), replied: None };
    let suspicion = watch::Sender::new(Suspicion::new(clock::monotonic()));
    let mut receiver = Receiver {
        run,
        relay,
        over,
        suspicion,
        has_streamed: false,
        intake: Intake::default(),
        begun: Lsn::ZERO,
        must_come: None,
        has_come: AtomicBool::new(false),
    };
    loop {
        let error = match Box::pin(receiver.connection(&mut waits)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        receiver.run.board.streaming(false);
        let is_unsendable =
            receiver.run.streams.next().is_binary && error.context("sqlstate") == Some(NO_SUCH_FUNCTION);
        let is_held =
            error.kind() == ErrorKind::SlotBusy && !receiver.has_streamed && holder.keeps_it(&receiver.run).await;
        if is_held || (error.retry_class() != RetryClass::Transient && !is_unsendable) {
            return Err(error);
        }
        receiver.run.board.failed(&error);
        receiver.relay.rewind();
        if is_unsendable {
            // The walsender dies at the same place again, unless it is asked for text (`SOURCE.md` R15).
            tracing::warn!(%error, "a type has no binary form: the stream goes on as text");
            receiver.run.streams.want_text();
            continue;
        }
        let mut stop = receiver.run.stop.subscribe();
        tokio::select! {
            waited = waits.after(error) => waited?,
            _ = stop.wait_for(|stop| *stop != Stop::No) => return Ok(()),
        }
    }
}

/// Somebody else who reads the slot, dead or alive.
struct Holder {
    since: Instant,
    /// When it was heard of first.
    replied: Option<String>,
}

impl Holder {
    /// Whether there is no sense in waiting: it is alive, or should be gone by now.
    async fn keeps_it(&mut self, run: &Run) -> bool {
        // The next attempt says what is wrong where the server cannot be asked.
        let replied = reader_replied(&run.source.connect, &run.slot).await.ok().flatten();
        let waited = clock::monotonic().saturating_duration_since(self.since);
        let first = self.replied.get_or_insert_with(|| replied.clone().unwrap_or_default());
        let is_alive = replied.is_some_and(|replied| replied != *first);
        waited >= DEAD_PATIENCE || (is_alive && waited >= SLOT_PATIENCE)
    }
}

/// Puts what comes into the relay.
struct Receiver {
    run: Arc<Run>,
    relay: RelayWriter,
    over: watch::Receiver<bool>,
    /// Whether the server may be waiting for us to let it stop (`SOURCE.md` R16).
    suspicion: watch::Sender<Suspicion>,
    /// Whether there was a stream in this run.
    has_streamed: bool,
    /// What the last block left open.
    intake: Intake,
    /// Where the slot began to send.
    begun: Lsn,
    /// What it has to send again, if its history is still the same (`SOURCE.md` R9).
    must_come: Option<Transaction>,
    has_come: AtomicBool,
}

/// The task that talks to the server; it goes when the connection does.
struct Feedback(JoinHandle<EtlResult<()>>);

impl Drop for Feedback {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Receiver {
    /// One connection, until it is lost or the pipeline ends.
    async fn connection(&mut self, waits: &mut Waits) -> EtlResult<()> {
        let run = Arc::clone(&self.run);
        if self.has_streamed {
            // What is noted says which tables it costs where the source is not the same any more.
            note_touched(&run).await?;
        }
        let next = run.streams.next();
        let request = run.stream_request(next.is_binary);
        let Opened { stream, confirmed, must_come } =
            open_stream(request, &run.store).instrument(tracing::debug_span!("open_stream", slot = run.slot)).await?;
        waits.reset();
        self.relay.begin_at(confirmed);
        self.intake = Intake::default();
        (self.begun, self.must_come, self.has_come) = (confirmed, must_come, AtomicBool::new(false));
        self.has_streamed = true;
        run.streams.opened(next);
        run.board.streaming(true);
        let reporter = Reporter::new(confirmed);
        let feedback = reporter.clone().run(stream.writer, run.progress.confirmed(), self.over.clone());
        let feedback = Feedback(tokio::spawn(feedback));
        self.suspicion.send_replace(Suspicion::new(clock::monotonic()));
        let suspicion = self.suspicion.clone();
        let received = || reporter.last_received();
        let shutdown = until_shutdown(&run.source.connect, &suspicion, received, run.progress.confirmed());
        tokio::select! {
            ended = self.stream(stream.reader, feedback, &reporter) => ended,
            () = run.streams.is_over(next) => {
                let is_alike = run.streams.next().is_binary == next.is_binary;
                let why = if is_alike { "partitions came or went" } else { "values come as text from here on" };
                Err(EtlError::new(ErrorKind::SourceUnavailable, "the stream begins anew").with("why", why))
            }
            // The connection goes with the stream, and the server's walsender with the connection.
            error = shutdown => Err(error),
        }
    }

    /// Reads until the connection is lost or the pipeline ends.
    async fn stream(&mut self, mut reader: StreamReader, mut feedback: Feedback, reporter: &Reporter) -> EtlResult<()> {
        let (mut stop, budget) = (self.run.stop.subscribe(), self.run.board.memory.clone());
        let mut is_deaf = false;
        loop {
            let block = tokio::select! {
                block = reader.next_block() => block?,
                () = budget.pressed(memory::Part::Stream), if !is_deaf => {
                    // It waits for memory, and hears nothing meanwhile.
                    self.set_deaf(true);
                    is_deaf = true;
                    continue;
                }
                _ = stop.wait_for(|stop| *stop != Stop::No) => break,
                ended = &mut feedback.0 => return feedback_ended(ended),
            };
            if std::mem::take(&mut is_deaf) {
                self.set_deaf(false);
            }
            tokio::select! {
                done = self.block(block, reporter) => done?,
                // A full relay waits for readers that may be gone.
                _ = stop.wait_for(|stop| *stop != Stop::No) => break,
            }
        }
        self.last_word(&mut reader, feedback).await
    }

    /// Stays for the last confirmations, then lets the feedback say goodbye.
    async fn last_word(&self, reader: &mut StreamReader, mut feedback: Feedback) -> EtlResult<()> {
        if *self.run.stop.borrow() == Stop::Abort {
            return Ok(());
        }
        let mut stop = self.run.stop.subscribe();
        loop {
            tokio::select! {
                // What comes now is for the next run; it is read so that the server's questions are no dead end.
                block = reader.next_block() => match block {
                    Ok(block) => self.listen(&marks(&block)?),
                    Err(_) => return Ok(()),
                },
                _ = &mut feedback.0 => return Ok(()),
                _ = stop.wait_for(|stop| *stop == Stop::Abort) => return Ok(()),
                () = crate::retry::pause(GOODBYE), if *self.over.borrow() => return Ok(()),
            }
        }
    }

    /// Notes what speaks for a shutdown of the server, and what against it.
    fn listen(&self, found: &[Marked]) {
        let is_question = |marked: &Marked| matches!(marked, Marked::KeepAlive { wants_reply: true, .. });
        // A block of rows alone has no marks.
        let has_changes = found.is_empty() || found.iter().any(|m| !matches!(m, Marked::KeepAlive { .. }));
        let questions = u32::try_from(found.iter().filter(|marked| is_question(marked)).count()).unwrap_or(u32::MAX);
        self.suspicion.send_modify(|suspicion| suspicion.heard(has_changes, questions, clock::monotonic()));
    }

    /// Puts what is new of a block where it belongs.
    async fn block(&mut self, block: Bytes, reporter: &Reporter) -> EtlResult<()> {
        let found = marks(&block)?;
        self.listen(&found);
        if found.iter().any(|marked| matches!(marked, Marked::KeepAlive { wants_reply: true, .. })) {
            reporter.reply();
        }
        let mut intake = std::mem::take(&mut self.intake);
        let parts = intake.sort(found, block.len(), |commit, xid, at| self.is_known(commit, xid, at));
        let is_past = |last: Transaction| intake.received() > last.commit;
        let parts = match parts {
            Ok(_) if self.missing().is_some_and(is_past) => Err(self.diverged(intake.received())),
            parts => parts,
        };
        if parts.as_ref().is_err_and(|error| error.kind() == ErrorKind::SourceIdentity) {
            // The next start knows which tables that costs.
            set_diverged(&self.run.store, Some(self.begun)).await?;
        }
        let parts = parts?;
        self.intake = intake;
        reporter.received(self.intake.received());
        self.set_deaf(true);
        for part in parts {
            self.part(&block, part).await?;
        }
        self.set_deaf(false);
        let head = self.run.relay.head().end;
        self.run.progress.received(head);
        self.run.board.received(head, block.len() as u64, self.run.relay.status());
        Ok(())
    }

    fn set_deaf(&self, is_deaf: bool) {
        self.suspicion.send_modify(|suspicion| suspicion.set_deaf(is_deaf));
    }

    /// The connection stays while the disk of the relay is full: nothing of it would come again otherwise.
    async fn part(&mut self, block: &Bytes, part: Part) -> EtlResult<()> {
        let mut waits = RetryPolicy::default().waits();
        while let Err(error) = self.put(block, &part).await {
            self.run.board.failed(&error);
            waits.after(error).await?;
        }
        Ok(())
    }

    async fn put(&mut self, block: &Bytes, part: &Part) -> EtlResult<()> {
        match part {
            Part::Log { frames, marks } => self.relay.append(block.slice(frames.clone()), marks).await,
            Part::ChunkBegin { xid, is_first } => self.relay.begin_chunk(*xid, *is_first).await,
            Part::Chunk { xid, frames } => self.relay.spool(*xid, block.slice(frames.clone())).await,
            Part::Abort { xid, subxid } => {
                self.relay.abort(*xid, *subxid);
                Ok(())
            }
            Part::Adopt(done) => {
                let ((begin, commit), StreamCommit { xid, commit: at_lsn, end, at }) = (frames_around(done), *done);
                self.relay.adopt(begin, commit, Transaction { commit: at_lsn, end, xid, at }).await
            }
            Part::Prepared { which, is_streamed } => {
                self.relay.prepare(which, *is_streamed).await?;
                failpoint::visit("relay.prepared").await
            }
            Part::AdoptPrepared { gid, done, is_known } => {
                let (frames, StreamCommit { xid, commit, end, at }) = (frames_around(done), *done);
                let transaction = Transaction { commit, end, xid, at };
                if self.relay.commit_prepared(gid, frames, transaction, *is_known).await? {
                    return Ok(());
                }
                Err(prepared::is_lost(&self.run.store, gid, end).await?)
            }
            Part::Forget { xid, gid } => {
                self.relay.rollback_prepared(*xid, gid);
                Ok(())
            }
        }
    }

    /// R9: whether the relay has this transaction. One at the same place that is another is a divergence.
    fn is_known(&self, commit: Lsn, xid: u32, at: clock::Timestamp) -> EtlResult<bool> {
        match self.missing() {
            Some(last) if (commit, xid, at) == (last.commit, last.xid, last.at) => {
                self.has_come.store(true, Ordering::Relaxed);
            }
            Some(last) if commit >= last.commit => return Err(self.diverged(commit)),
            _ => {}
        }
        let head = self.run.relay.head();
        if head.last.is_none_or(|last| commit > last.commit) {
            return Ok(false);
        }
        match self.relay.has(commit) {
            Some(Transaction { xid: known, at: when, .. }) if (known, when) != (xid, at) => Err(self.diverged(commit)),
            // Every reader has released the ones that are gone, so they are durable.
            _ => Ok(true),
        }
    }

    /// What the slot has to send again, and has not.
    fn missing(&self) -> Option<Transaction> {
        self.must_come.filter(|_| !self.has_come.load(Ordering::Relaxed))
    }

    fn diverged(&self, at: Lsn) -> EtlError {
        EtlError::new(ErrorKind::SourceIdentity, "the source sends other transactions than before")
            .with("at", at)
            .with("since", self.begun)
            .hint("It lost what it had committed, or a backup was restored: the next start names the tables to copy again")
    }
}

fn feedback_ended(ended: Result<EtlResult<()>, tokio::task::JoinError>) -> EtlResult<()> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(error) => Err(EtlError::new(ErrorKind::Internal, "the feedback was cut short").because(error)),
    }
}
