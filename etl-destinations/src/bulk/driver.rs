//! How does an operation get from sealed to settled? Each step is stored before the next is taken, so that another process
//! can go on from it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etl::clock::{self, Timestamp};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::retry::pause;
use etl::store::{
    Accounting, DeadLetter, DeadLetterId, Operation, OperationContext, OperationId, OperationState, SharedStore,
};
use tokio::sync::Mutex as AsyncMutex;

use super::answer::{accounting, is_of_others, outcomes};
use super::limits::Bucket;
use super::sealed::{Manifest, Spool, named, off_thread};
use super::{
    BulkDestination, CallError, ErrorClass, Found, Overall, PollState, Resubmit, RowOutcome, SealedBatch, Submitted,
    Unattributed, overall,
};

/// What all operations of a destination share.
pub(super) struct Driver<'d, B> {
    pub(super) bulk: &'d B,
    pub(super) store: &'d SharedStore,
    pub(super) spool: &'d Spool,
    /// The account's requests, where they are counted.
    pub(super) bucket: &'d Mutex<Option<Bucket>>,
    /// The sequence of the operation that is sealed last.
    pub(super) sequence: &'d AtomicU64,
    /// Whether rows that are refused for good are kept as dead letters; else they hold their table.
    pub(super) keeps_dead_letters: bool,
}

/// What a submission has learnt: stored as soon as it is told.
pub struct Said<'s> {
    store: &'s SharedStore,
    operation: AsyncMutex<Operation>,
}

impl Said<'_> {
    /// Stores what a step was told. Once it returns, no restart repeats the step.
    ///
    /// # Errors
    /// Where it cannot be stored: the next step must not be taken then.
    pub async fn save(&self, context: OperationContext) -> EtlResult<()> {
        let mut operation = self.operation.lock().await;
        let mut next = operation.clone();
        if let OperationState::Submitting { contexts, .. } = &mut next.state {
            contexts.push(context);
        }
        next.revision = self.store.put_operation(Some(operation.revision), next.clone(), Vec::new()).await?;
        *operation = next;
        Ok(())
    }

    /// What the steps that are done were told, before a crash too.
    pub async fn contexts(&self) -> Vec<OperationContext> {
        self.operation.lock().await.state.contexts().to_vec()
    }
}

/// What comes after a step.
enum Next {
    /// Another step of it.
    Again(Operation),
    /// It is settled; these go on with some of its rows.
    Settled(Vec<Operation>),
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp(now.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
}

/// Moves waits apart: a number from 0 to 1, the same for the same operation and turn.
fn chance(id: &OperationId, turn: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    (id, turn).hash(&mut hasher);
    f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

/// The error of an operation that waits for somebody.
fn held(operation: &Operation, reason: &str) -> EtlError {
    EtlError::new(ErrorKind::DestinationRejected, "an operation is held")
        .with("operation", &operation.id)
        .with("table", operation.table)
        .with("reason", reason)
        .hint("Look at it, then have it submitted again or given up")
        .of_table(operation.table)
}

impl<B: BulkDestination> Driver<'_, B> {
    /// Goes on with an operation until it and all that its rows went on in are settled; what the rows came to in all.
    pub(super) async fn settle(&self, operation: Operation) -> EtlResult<()> {
        let mut waiting = vec![operation];
        while let Some(operation) = waiting.pop() {
            match self.step(operation).await? {
                Next::Again(operation) => waiting.push(operation),
                Next::Settled(parts) => waiting.extend(parts.into_iter().rev()),
            }
        }
        Ok(())
    }

    async fn step(&self, operation: Operation) -> EtlResult<Next> {
        match &operation.state {
            OperationState::Settled { .. } => Ok(Next::Settled(Vec::new())),
            OperationState::Held { reason, .. } => Err(held(&operation, reason)),
            OperationState::Sealed { reason, .. } if operation.attempts >= self.bulk.policy().max_attempts => {
                let reason = reason.as_deref().unwrap_or("it is not said why");
                let reason = format!("{} attempts have failed: {reason}", operation.attempts);
                self.hold(operation, reason).await
            }
            OperationState::Sealed { not_before, .. } => {
                self.until(*not_before).await;
                self.admitted().await;
                let state = OperationState::Submitting { since: clock::now(), contexts: Vec::new() };
                let attempts = operation.attempts + 1;
                let operation = self.put(Operation { attempts, ..operation }, state).await?;
                self.submit(operation).await
            }
            OperationState::Submitting { .. } => self.in_doubt(operation).await,
            OperationState::Submitted { next_poll, deadline, .. } => {
                self.until(Some(*next_poll.min(deadline))).await;
                self.admitted().await;
                self.poll(operation).await
            }
            _ => Err(EtlError::new(ErrorKind::Internal, "an operation is in a state that nobody knows")),
        }
    }

    async fn until(&self, time: Option<Timestamp>) {
        let wait = time.map_or(Duration::ZERO, |time| time.since(clock::now()));
        if !wait.is_zero() {
            pause(wait).await;
        }
    }

    /// Waits until the account may make a request.
    async fn admitted(&self) {
        let wait = {
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.as_mut().map_or(Duration::ZERO, |bucket| bucket.take(clock::now()))
        };
        if !wait.is_zero() {
            pause(wait).await;
        }
    }

    async fn put(&self, operation: Operation, state: OperationState) -> EtlResult<Operation> {
        let next = Operation { state, ..operation };
        let revision = self.store.put_operation(Some(next.revision), next.clone(), Vec::new()).await?;
        Ok(Operation { revision, ..next })
    }

    async fn batch(&self, operation: &Operation) -> EtlResult<SealedBatch> {
        let (spool, name) = (self.spool.clone(), operation.id.clone());
        let manifest = off_thread(move || spool.manifest(&name)).await?;
        let (id, table) = (operation.id.clone(), operation.table);
        Ok(SealedBatch { body: self.spool.body(&id), id, table, attempt: operation.attempts, manifest })
    }

    async fn hold(&self, operation: Operation, reason: String) -> EtlResult<Next> {
        let contexts = operation.state.contexts().to_vec();
        let state = OperationState::Held { reason: reason.clone(), contexts, since: clock::now() };
        let operation = self.put(operation, state).await?;
        Err(held(&operation, &reason))
    }

    /// Back on its place, to be submitted later.
    async fn again(&self, operation: Operation, wait: Duration, reason: String) -> EtlResult<Operation> {
        let not_before = (!wait.is_zero()).then(|| later(clock::now(), wait));
        self.put(operation, OperationState::Sealed { not_before, reason: Some(reason) }).await
    }

    async fn submit(&self, operation: Operation) -> EtlResult<Next> {
        let batch = self.batch(&operation).await?;
        let said = Said { store: self.store, operation: AsyncMutex::new(operation) };
        let answer = self.bulk.submit(&batch, &said).await;
        let operation = said.operation.into_inner();
        match answer {
            Ok(Submitted::Completed(stats)) if is_of_others(&stats, operation.rows) => self.of_others(operation).await,
            Ok(Submitted::Completed(stats)) => {
                let outcomes = outcomes(&stats, operation.rows);
                self.account(operation, &batch, outcomes).await
            }
            Ok(Submitted::Pending(contexts)) if contexts.is_empty() || !self.bulk.supports_poll() => {
                self.hold(operation, "the system has it, and gave nothing to ask for it by".to_owned()).await
            }
            Ok(Submitted::Pending(contexts)) => self.submitted(operation, contexts).await.map(Next::Again),
            Err(call) => self.refused(operation, &batch, call).await,
        }
    }

    async fn submitted(&self, operation: Operation, contexts: Vec<OperationContext>) -> EtlResult<Operation> {
        let (now, policy) = (clock::now(), self.bulk.policy());
        let state = OperationState::Submitted {
            since: now,
            contexts,
            next_poll: later(now, policy.polls.wait(0, chance(&operation.id, 0))),
            polls: 0,
            deadline: later(now, policy.deadline),
            expires: policy.forgets_after.map(|after| later(now, after)),
        };
        self.put(operation, state).await
    }

    /// A request failed. What is stored says that it may have arrived, until it is known that it has not.
    async fn refused(&self, operation: Operation, batch: &SealedBatch, call: CallError) -> EtlResult<Next> {
        let reason = call.error.to_string();
        if call.in_doubt {
            return Err(call.error);
        }
        // It was not taken, so it was no attempt.
        let attempts = operation.attempts.saturating_sub(1);
        match call.class {
            ErrorClass::Throttle(after) => {
                let wait = after.unwrap_or_else(|| self.bulk.policy().polls.wait(0, chance(&operation.id, 0)));
                Ok(Next::Again(self.again(Operation { attempts, ..operation }, wait, reason).await?))
            }
            ErrorClass::Retry | ErrorClass::Reauth | ErrorClass::Config => {
                self.again(Operation { attempts, ..operation }, Duration::ZERO, reason).await?;
                Err(call.error)
            }
            ErrorClass::Split => self.split(operation, batch, reason).await,
            ErrorClass::RefuseBatch => {
                let all = vec![Some(RowOutcome::Rejected(reason)); operation.rows as usize];
                self.account(operation, batch, all).await
            }
            ErrorClass::RejectRows(rows) => {
                let beside = RowOutcome::Retry("rows beside it were refused".to_owned());
                let mut all = vec![Some(beside); operation.rows as usize];
                for (ordinal, why) in rows {
                    let Some(place) = all.get_mut(ordinal as usize) else { return self.of_others(operation).await };
                    *place = Some(RowOutcome::Rejected(why));
                }
                self.account(operation, batch, all).await
            }
        }
    }

    async fn of_others(&self, operation: Operation) -> EtlResult<Next> {
        self.hold(operation, "the system spoke of rows that it was not given".to_owned()).await
    }

    /// A request may have arrived or not.
    async fn in_doubt(&self, operation: Operation) -> EtlResult<Next> {
        match self.bulk.policy().resubmit {
            Resubmit::ClientId | Resubmit::Idempotent | Resubmit::UnsafeAtLeastOnce => {
                tracing::warn!(operation = %operation.id, "it may have been handed over already, and is again");
                self.admitted().await;
                self.submit(operation).await
            }
            Resubmit::UnsafeAtMostOnce => {
                self.hold(operation, "it may have been handed over, and twice would be twice".to_owned()).await
            }
            Resubmit::Discover => {
                let batch = self.batch(&operation).await?;
                self.admitted().await;
                match self.bulk.recover(&batch, operation.state.contexts()).await.map_err(|call| call.error)? {
                    Found::Jobs(contexts) if !contexts.is_empty() => {
                        self.submitted(operation, contexts).await.map(Next::Again)
                    }
                    Found::Nothing => self.submit(operation).await,
                    Found::Jobs(_) | Found::Unknown => {
                        self.hold(operation, "the system does not say whether it has it".to_owned()).await
                    }
                }
            }
        }
    }

    async fn poll(&self, operation: Operation) -> EtlResult<Next> {
        let OperationState::Submitted { contexts, deadline, expires, .. } = &operation.state else {
            return Ok(Next::Again(operation));
        };
        let (contexts, deadline, now) = (contexts.clone(), *deadline, clock::now());
        let is_forgotten = expires.is_some_and(|expires| now >= expires);
        let states = match self.bulk.poll(&contexts).await {
            Ok(states) if states.len() == contexts.len() => states,
            Ok(_) => return self.ask_later(operation, None, "it answered for another number of jobs").await,
            Err(call) => return self.unanswered(operation, call).await,
        };
        if overall(&states) == Overall::Pending {
            if is_forgotten {
                return self.gone(operation).await;
            }
            if now >= deadline {
                return self.hold(operation, "it is not done, and its deadline has passed".to_owned()).await;
            }
            let after = states.iter().filter_map(|state| match state {
                PollState::Pending { retry_after, .. } => *retry_after,
                _ => None,
            });
            return self.ask_later(operation, after.max(), "it is not done").await;
        }
        self.resolve(operation, &contexts, &states).await
    }

    /// A question was not answered: that says nothing about the job.
    async fn unanswered(&self, operation: Operation, call: CallError) -> EtlResult<Next> {
        match call.class {
            ErrorClass::Config | ErrorClass::Reauth => Err(call.error),
            ErrorClass::Throttle(after) => self.ask_later(operation, after, &call.error.to_string()).await,
            _ => self.ask_later(operation, None, &call.error.to_string()).await,
        }
    }

    async fn ask_later(&self, operation: Operation, after: Option<Duration>, why: &str) -> EtlResult<Next> {
        let now = clock::now();
        let mut next = operation.clone();
        let OperationState::Submitted { next_poll, polls, deadline, .. } = &mut next.state else {
            return Ok(Next::Again(operation));
        };
        if now >= *deadline {
            return self.hold(operation, format!("its deadline has passed: {why}")).await;
        }
        *polls = polls.saturating_add(1);
        let wait = self.bulk.policy().polls.wait(*polls, chance(&operation.id, *polls));
        *next_poll = later(now, after.unwrap_or_default().max(wait));
        let state = next.state;
        Ok(Next::Again(self.put(operation, state).await?))
    }

    /// The system does not know the jobs any more.
    async fn gone(&self, operation: Operation) -> EtlResult<Next> {
        let reason = "the system does not know it any more".to_owned();
        match self.bulk.policy().resubmit {
            Resubmit::ClientId | Resubmit::Idempotent | Resubmit::UnsafeAtLeastOnce => {
                self.try_again(operation, reason).await
            }
            Resubmit::Discover | Resubmit::UnsafeAtMostOnce => self.hold(operation, reason).await,
        }
    }

    /// All of it is submitted again, later each time.
    async fn try_again(&self, operation: Operation, reason: String) -> EtlResult<Next> {
        let wait = self.bulk.policy().polls.wait(operation.attempts, chance(&operation.id, operation.attempts));
        Ok(Next::Again(self.again(operation, wait, reason).await?))
    }

    /// Every job is done, one way or another.
    async fn resolve(
        &self,
        operation: Operation,
        contexts: &[OperationContext],
        states: &[PollState],
    ) -> EtlResult<Next> {
        let batch = self.batch(&operation).await?;
        if states.iter().all(|state| *state == PollState::Gone) {
            return self.gone(operation).await;
        }
        let mut all = vec![None; operation.rows as usize];
        if states.contains(&PollState::Completed) {
            let stats = match self.bulk.upload_stats(&batch, contexts, states).await {
                Ok(stats) => stats,
                Err(call) => return self.unanswered(operation, call).await,
            };
            if is_of_others(&stats, operation.rows) {
                return self.of_others(operation).await;
            }
            all = outcomes(&stats, operation.rows);
        }
        for (context, state) in contexts.iter().zip(states) {
            let outcome = match state {
                PollState::Completed | PollState::Pending { .. } => continue,
                PollState::Gone if self.bulk.policy().resubmit == Resubmit::UnsafeAtMostOnce => None,
                PollState::Gone => Some(RowOutcome::Retry("the system does not know its job any more".to_owned())),
                PollState::Failed { class, code, message } => match class {
                    ErrorClass::Split if contexts.len() == 1 => {
                        return self.split(operation, &batch, format!("{code} {message}")).await;
                    }
                    ErrorClass::Config => {
                        self.again(operation, Duration::ZERO, message.clone()).await?;
                        let error = EtlError::new(ErrorKind::Config, "the system refuses what it is configured for");
                        return Err(error.with("code", code).with("answer", message));
                    }
                    ErrorClass::RefuseBatch => Some(RowOutcome::Rejected(format!("{code} {message}"))),
                    _ => Some(RowOutcome::Retry(format!("{code} {message}"))),
                },
            };
            let (first, end) = context.rows;
            for place in all.iter_mut().take(end as usize).skip(first as usize) {
                place.clone_from(&outcome);
            }
            if let PollState::Failed { class: ErrorClass::RejectRows(rows), .. } = state {
                for (ordinal, why) in rows {
                    if let Some(place) = all.get_mut(*ordinal as usize) {
                        *place = Some(RowOutcome::Rejected(why.clone()));
                    }
                }
            }
        }
        self.account(operation, &batch, all).await
    }

    /// In two halves, until what is wrong stands alone.
    async fn split(&self, operation: Operation, batch: &SealedBatch, reason: String) -> EtlResult<Next> {
        if operation.rows <= 1 {
            return self.account(operation, batch, vec![Some(RowOutcome::Rejected(reason))]).await;
        }
        let middle = operation.rows / 2;
        let halves: [Vec<u32>; 2] = [(0..middle).collect(), (middle..operation.rows).collect()];
        // A half is another batch, tried for the first time.
        let parts = self.parts(&operation, batch, &halves, 0, None, &reason).await?;
        let retried = Accounting { retried: u64::from(operation.rows), ..Accounting::default() };
        self.settled(operation, retried, Vec::new()).await?;
        Ok(Next::Settled(parts))
    }

    /// Operations that go on with some of the rows; those that are there already stay as they are.
    async fn parts(
        &self,
        of: &Operation,
        batch: &SealedBatch,
        ordinals: &[Vec<u32>],
        attempts: u32,
        not_before: Option<Timestamp>,
        reason: &str,
    ) -> EtlResult<Vec<Operation>> {
        let body = batch.read().await?;
        let mut parts = Vec::with_capacity(ordinals.len());
        for ordinals in ordinals {
            let (manifest, body) = batch.manifest.part(&body, ordinals);
            let id = named(of.table, of.generation, &manifest, &body);
            let (rows, bytes) = (u32::try_from(manifest.rows.len()).unwrap_or(u32::MAX), body.len() as u64);
            let (spool, name) = (self.spool.clone(), id.clone());
            off_thread(move || spool.seal(&name, &body, &manifest)).await?;
            let reason = Some(reason.to_owned());
            let part = Operation {
                rows,
                bytes,
                sealed_at: clock::now(),
                sequence: self.sequence.fetch_add(1, Ordering::SeqCst) + 1,
                attempts,
                state: OperationState::Sealed { not_before, reason },
                revision: 0,
                id: id.clone(),
                ..of.clone()
            };
            match self.store.put_operation(None, part.clone(), Vec::new()).await {
                Ok(revision) => parts.push(Operation { revision, ..part }),
                Err(error) if error.kind() == ErrorKind::StoreConflict => {
                    let stored = self.store.operations().await?.into_iter().find(|operation| operation.id == id);
                    parts.push(stored.ok_or(error)?);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(parts)
    }

    /// Every row has an outcome, or it is known of which none is known.
    async fn account(
        &self,
        operation: Operation,
        batch: &SealedBatch,
        all: Vec<Option<RowOutcome>>,
    ) -> EtlResult<Next> {
        let (policy, counted) = (self.bulk.policy(), accounting(&all));
        if counted.unattributed > 0 && policy.unattributed == Unattributed::Hold {
            let reason = format!("the system does not say what became of {} rows", counted.unattributed);
            return self.hold(operation, reason).await;
        }
        if counted.dead > 0
            && let Some(reason) = self.over_budget(&operation, counted, &all)
        {
            return self.hold(operation, reason).await;
        }
        let again: Vec<u32> = (0..operation.rows)
            .filter(|place| matches!(all[*place as usize], None | Some(RowOutcome::Retry(_))))
            .collect();
        let reason = all.iter().flatten().find_map(|outcome| match outcome {
            RowOutcome::Retry(reason) => Some(reason.clone()),
            _ => None,
        });
        let reason = reason.unwrap_or_else(|| "the system does not say what became of it".to_owned());
        if again.len() == all.len() {
            return self.try_again(operation, reason).await;
        }
        let mut parts = Vec::new();
        if !again.is_empty() {
            let wait = policy.polls.wait(operation.attempts, chance(&operation.id, operation.attempts));
            let not_before = Some(later(clock::now(), wait));
            parts = self.parts(&operation, batch, &[again], operation.attempts, not_before, &reason).await?;
        }
        let dead = dead_letters(&operation, &batch.manifest, &all);
        self.settled(operation, counted, dead).await?;
        Ok(Next::Settled(parts))
    }

    /// Why the refused rows may not become dead letters, if they may not.
    fn over_budget(&self, operation: &Operation, counted: Accounting, all: &[Option<RowOutcome>]) -> Option<String> {
        let first = all.iter().flatten().find_map(|outcome| match outcome {
            RowOutcome::Rejected(reason) => Some(reason.as_str()),
            _ => None,
        });
        let said = first.unwrap_or_default();
        if !self.keeps_dead_letters {
            return Some(format!("{} rows are refused, and dead letters are off: {said}", counted.dead));
        }
        let percent = u64::from(self.bulk.policy().max_dead_percent);
        let most = (u64::from(operation.rows) * percent / 100).max(1);
        (counted.dead > most)
            .then(|| format!("{} of {} rows are refused, more than {percent} %: {said}", counted.dead, operation.rows))
    }

    async fn settled(&self, operation: Operation, counted: Accounting, dead: Vec<DeadLetter>) -> EtlResult<()> {
        let contexts = operation.state.contexts().to_vec();
        let state = OperationState::Settled { accounting: counted, at: clock::now() };
        let next = Operation { state, ..operation };
        self.store.put_operation(Some(next.revision), next.clone(), dead).await?;
        if !contexts.is_empty()
            && let Err(error) = self.bulk.cleanup(&contexts).await
        {
            tracing::warn!(operation = %next.id, %error, "what it has left at the system could not be removed");
        }
        let spool = self.spool.clone();
        off_thread(move || spool.remove(&next.id)).await
    }
}

fn dead_letters(operation: &Operation, manifest: &Manifest, all: &[Option<RowOutcome>]) -> Vec<DeadLetter> {
    let letter = |(ordinal, outcome): (usize, &Option<RowOutcome>)| {
        let Some(RowOutcome::Rejected(reason)) = outcome else { return None };
        let row = manifest.rows.get(ordinal)?;
        Some(DeadLetter {
            id: DeadLetterId { operation: operation.id.clone(), ordinal: u32::try_from(ordinal).ok()? },
            table: operation.table,
            position: row.position,
            key: row.key.clone(),
            change_type: row.change_type.clone(),
            row: row.row.clone(),
            code: "rejected".to_owned(),
            reason: reason.clone(),
            at: clock::now(),
            attempts: operation.attempts,
        })
    };
    all.iter().enumerate().filter_map(letter).collect()
}
