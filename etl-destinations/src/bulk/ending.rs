//! How does an operation end? Each of its rows is counted once, and what is not settled goes on in another operation.

use std::sync::atomic::Ordering;

use etl::clock::{self, Timestamp};
use etl::error::{ErrorKind, EtlResult};
use etl::failpoint;
use etl::store::{Accounting, DeadLetter, DeadLetterId, Operation, OperationState};

use super::answer::accounting;
use super::driver::{Driver, Next, chance, later};
use super::sealed::{Manifest, named, off_thread};
use super::{BulkDestination, RowOutcome, SealedBatch, Unattributed};

impl<B: BulkDestination> Driver<B> {
    /// In two halves, until what is wrong stands alone.
    pub(super) async fn split(&self, operation: Operation, batch: &SealedBatch, reason: String) -> EtlResult<Next> {
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
            self.spool.seal(&id, body, manifest).await?;
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
                Ok(revision) => {
                    self.census.saw(&part);
                    parts.push(Operation { revision, ..part });
                }
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
    pub(super) async fn account(
        &self,
        operation: Operation,
        batch: &SealedBatch,
        all: Vec<Option<RowOutcome>>,
    ) -> EtlResult<Next> {
        failpoint::visit("bulk.outcomes_read").await?;
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
            return self.try_again(operation, "failed", reason).await;
        }
        let mut parts = Vec::new();
        if !again.is_empty() {
            let wait = policy.polls.wait(operation.attempts, chance(&operation.id, operation.attempts));
            let not_before = Some(later(clock::now(), wait));
            parts = self.parts(&operation, batch, &[again], operation.attempts, not_before, &reason).await?;
        }
        let dead = dead_letters(&operation, &batch.manifest, &all, "rejected");
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
        let Some(rules) = self.dead_letters else {
            return Some(format!("{} rows are refused, and dead letters are off: {said}", counted.dead));
        };
        // Most of what was refused once may be refused again.
        if operation.is_replay {
            return None;
        }
        let (dead, rows, percent) = (counted.dead, operation.rows, rules.max_percent);
        (!rules.allows(dead, u64::from(rows)))
            .then(|| format!("{dead} of {rows} rows are refused, more than {percent} %: {said}"))
    }

    async fn settled(&self, operation: Operation, counted: Accounting, dead: Vec<DeadLetter>) -> EtlResult<()> {
        let contexts = operation.state.contexts().to_vec();
        let state = OperationState::Settled { accounting: counted, at: clock::now() };
        let next = Operation { state, ..operation };
        failpoint::visit("bulk.settling").await?;
        self.store.put_operation(Some(next.revision), next.clone(), dead).await?;
        self.census.settled(&next, counted);
        failpoint::visit("bulk.settled").await?;
        if !contexts.is_empty()
            && let Err(error) = self.bulk.cleanup(&contexts).await
        {
            tracing::warn!(operation = %next.id, %error, "what it has left at the system could not be removed");
        }
        failpoint::visit("bulk.cleaned_up").await?;
        let spool = self.spool.clone();
        off_thread(move || spool.remove(&next.id)).await
    }
}

/// The rows that were refused, as they are kept.
pub(super) fn dead_letters(
    operation: &Operation,
    manifest: &Manifest,
    all: &[Option<RowOutcome>],
    code: &str,
) -> Vec<DeadLetter> {
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
            code: code.to_owned(),
            reason: reason.clone(),
            at: clock::now(),
            attempts: operation.attempts,
            is_partial: row.is_partial,
            is_logged: row.is_logged,
            is_overtaken: false,
            replayed_in: None,
        })
    };
    all.iter().enumerate().filter_map(letter).collect()
}
