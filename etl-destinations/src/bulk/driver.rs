//! How does an operation get from sealed to settled? Each step is stored before the next is taken, so that another process
//! can go on from it.

use std::collections::hash_map::DefaultHasher;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etl::Position;
use etl::clock::{self, Timestamp};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::failpoint;
use etl::retry::pause;
use etl::schema::TableId;
use etl::store::{Operation, OperationContext, OperationId, OperationState, SharedStore};
use tokio::sync::Mutex as AsyncMutex;
use tracing::Instrument;

use super::answer::{is_of_others, outcomes};
use super::census::Census;
use super::limits::Bucket;
use super::requests::Requests;
use super::sealed::{Spool, off_thread};
use super::{
    BulkDestination, CallError, ErrorClass, Found, ManifestRow, Overall, PollState, Resubmit, RowOutcome, SealedBatch,
    Submitted, overall,
};
use crate::dead_rows::DeadLetterRules;

/// What all operations of a destination share.
pub(super) struct Driver<B> {
    pub(super) bulk: Arc<B>,
    pub(super) store: SharedStore,
    pub(super) spool: Spool,
    /// The account's requests, where they are counted.
    pub(super) bucket: Arc<Mutex<Option<Bucket>>>,
    /// Those that are under way.
    pub(super) requests: Requests,
    /// The sequence of the operation that is sealed last.
    pub(super) sequence: Arc<AtomicU64>,
    /// Within which limit rows that are refused for good are kept as dead letters; else they hold their table.
    pub(super) dead_letters: Option<DeadLetterRules>,
    /// What is counted.
    pub(super) census: Arc<Census>,
}

impl<B> Clone for Driver<B> {
    fn clone(&self) -> Self {
        Self {
            bulk: Arc::clone(&self.bulk),
            store: SharedStore::clone(&self.store),
            spool: self.spool.clone(),
            bucket: Arc::clone(&self.bucket),
            requests: self.requests.clone(),
            sequence: Arc::clone(&self.sequence),
            dead_letters: self.dead_letters,
            census: Arc::clone(&self.census),
        }
    }
}

/// What a submission has learnt: stored as soon as it is told.
pub struct Said<'s> {
    store: &'s SharedStore,
    operation: AsyncMutex<Operation>,
}

impl<'s> Said<'s> {
    /// A submission by hand, as the tests of a system of one's own make it: of a batch that the store knows nothing of yet,
    /// after steps that were told this.
    ///
    /// # Errors
    /// Where it cannot be stored: it is there already, or the store is out of reach.
    pub async fn begin(
        store: &'s SharedStore,
        batch: &SealedBatch,
        contexts: Vec<OperationContext>,
    ) -> EtlResult<Self> {
        let rows = &batch.manifest.rows;
        let position = |row: Option<&ManifestRow>| row.map_or(Position::ZERO, |row| row.position);
        let operation = Operation {
            id: batch.id.clone(),
            revision: 0,
            sequence: batch.sequence,
            table: batch.table,
            generation: 0,
            first: position(rows.first()),
            last: position(rows.last()),
            rows: u32::try_from(rows.len()).unwrap_or(u32::MAX),
            bytes: rows.iter().map(|row| u64::from(row.bytes)).sum(),
            sealed_at: batch.sealed_at,
            attempts: batch.attempt,
            is_replay: false,
            state: OperationState::Submitting { since: clock::now(), contexts },
        };
        let revision = store.put_operation(None, operation.clone(), Vec::new()).await?;
        Ok(Self { store, operation: AsyncMutex::new(Operation { revision, ..operation }) })
    }

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
        failpoint::visit("bulk.step_saved").await
    }

    /// What the steps that are done were told, before a crash too.
    pub async fn contexts(&self) -> Vec<OperationContext> {
        self.operation.lock().await.state.contexts().to_vec()
    }
}

/// What comes after a step.
pub(super) enum Next {
    /// Another step of it.
    Again(Operation),
    /// It is settled; these go on with some of its rows.
    Settled(Vec<Operation>),
}

pub(super) fn later(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp(now.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
}

/// Moves waits apart: a number from 0 to 1, the same for the same operation and turn.
pub(super) fn chance(id: &OperationId, turn: u32) -> f64 {
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
        .hint("Look at it with `etl operations show`, then `etl operations retry` or `etl operations abandon` it")
        .of_table(operation.table)
}

impl<B: BulkDestination> Driver<B> {
    /// Goes on with an operation until it and all that its rows went on in are settled; returns the latter.
    pub(super) async fn settle(&self, operation: Operation) -> EtlResult<Vec<OperationId>> {
        let (mut waiting, mut parts) = (vec![operation], Vec::new());
        while let Some(operation) = waiting.pop() {
            match self.step(operation).await? {
                Next::Again(operation) => waiting.push(operation),
                Next::Settled(more) => {
                    parts.extend(more.iter().map(|part| part.id.clone()));
                    waiting.extend(more.into_iter().rev());
                }
            }
        }
        Ok(parts)
    }

    async fn step(&self, operation: Operation) -> EtlResult<Next> {
        match &operation.state {
            OperationState::Settled { .. } => Ok(Next::Settled(Vec::new())),
            OperationState::Held { reason, .. } => Err(held(&operation, reason)),
            OperationState::Sealed { reason: Some(reason), .. }
                if operation.attempts >= self.bulk.policy().max_attempts =>
            {
                let reason = format!("{} attempts have failed: {reason}", operation.attempts);
                self.hold(operation, reason).await
            }
            OperationState::Sealed { not_before, .. } => {
                self.until(*not_before).await;
                self.admitted().await;
                self.to_the_end(operation.table, |driver| driver.submit_first(operation)).await
            }
            OperationState::Submitting { .. } => {
                self.to_the_end(operation.table, |driver| async move { driver.in_doubt(operation).await }).await
            }
            OperationState::Submitted { next_poll, deadline, .. } => {
                self.until(Some(*next_poll.min(deadline))).await;
                self.admitted().await;
                self.poll(operation).await
            }
            _ => Err(EtlError::new(ErrorKind::Internal, "an operation is in a state that nobody knows")),
        }
    }

    /// Does this whether anybody goes on waiting for it or not: a write may be given up because of another table, and what
    /// becomes of a request whose answer nobody hears is in doubt.
    async fn to_the_end<F>(&self, table: TableId, work: impl FnOnce(Self) -> F) -> EtlResult<Next>
    where
        F: Future<Output = EtlResult<Next>> + Send + 'static,
    {
        let under_way = self.requests.of(table).await;
        let work = work(self.clone());
        let done = async move {
            let done = work.await;
            drop(under_way);
            done
        };
        let done = tokio::spawn(done.in_current_span()).await;
        done.map_err(|error| EtlError::new(ErrorKind::Internal, "a submission was cut short").because(error))?
    }

    async fn submit_first(self, operation: Operation) -> EtlResult<Next> {
        let state = OperationState::Submitting { since: clock::now(), contexts: Vec::new() };
        let attempts = operation.attempts + 1;
        let operation = self.put(Operation { attempts, ..operation }, state).await?;
        failpoint::visit("bulk.submitting").await?;
        self.submit(operation).await
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
            self.census.metrics().throttled(wait);
            pause(wait).await;
        }
    }

    async fn put(&self, operation: Operation, state: OperationState) -> EtlResult<Operation> {
        let next = Operation { state, ..operation };
        let revision = self.store.put_operation(Some(next.revision), next.clone(), Vec::new()).await?;
        self.census.saw(&next);
        Ok(Operation { revision, ..next })
    }

    async fn batch(&self, operation: &Operation) -> EtlResult<SealedBatch> {
        let (spool, name) = (self.spool.clone(), operation.id.clone());
        let manifest = off_thread(move || spool.manifest(&name)).await?;
        let (id, table, body) = (operation.id.clone(), operation.table, self.spool.body(&operation.id));
        let (sequence, sealed_at, attempt) = (operation.sequence, operation.sealed_at, operation.attempts);
        Ok(SealedBatch { id, table, sequence, sealed_at, attempt, body, manifest })
    }

    pub(super) async fn hold(&self, operation: Operation, reason: String) -> EtlResult<Next> {
        let contexts = operation.state.contexts().to_vec();
        let is_submitted = matches!(operation.state, OperationState::Submitted { .. });
        let state = OperationState::Held { reason: reason.clone(), contexts, is_submitted, since: clock::now() };
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
        let said = Said { store: &self.store, operation: AsyncMutex::new(operation) };
        let began = clock::now();
        let answer = self.bulk.submit(&batch, &said).await;
        self.census.metrics().submitted(clock::now().since(began));
        let operation = said.operation.into_inner();
        if answer.is_ok() {
            failpoint::visit("bulk.answered").await?;
        }
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
        let operation = self.put(operation, state).await?;
        failpoint::visit("bulk.submitted").await?;
        Ok(operation)
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
                self.census.metrics().submitted_again("in_doubt");
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
        let answer = self.bulk.poll(&contexts).await;
        self.census.metrics().polled(answer.as_ref().map_or("unanswered", |states| overall(states).name()));
        let states = match answer {
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
                self.try_again(operation, "gone", reason).await
            }
            Resubmit::Discover | Resubmit::UnsafeAtMostOnce => self.hold(operation, reason).await,
        }
    }

    /// All of it is submitted again, later each time.
    pub(super) async fn try_again(&self, operation: Operation, because: &str, reason: String) -> EtlResult<Next> {
        self.census.metrics().submitted_again(because);
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
        failpoint::visit("bulk.polled").await?;
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
}
