//! How does a batch become jobs, and what are they doing? Step by step, each stored before the next.

use std::time::Duration;

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::retry::pause;
use etl::store::OperationContext;
use serde_json::Value;

use super::super::shape::{Request, Sends, State, Submit};
use super::super::template::{Template, Values, Within};
use super::System;
use super::verdict::{retry_after, said, text_at};
use super::wire::{Bad, Content, Good, extracted};
use crate::bulk::{CallError, ErrorClass, Found, PollState, Resubmit, Said, SealedBatch, Submitted, UploadStats};

/// How often a step is tried again that has steps before it which need not be done again.
const MOST_THROTTLED: u32 = 20;

/// How long such a step waits where the system does not say.
const THROTTLED: Duration = Duration::from_secs(2);

impl System {
    /// What is known without a batch.
    pub(super) async fn values(&self) -> Result<Values, CallError> {
        let mut values = self.account.settings().clone();
        if let Some(discover) = &self.profile.discover {
            values.extend(self.wire.discovered(&self.profile, &self.account, discover).await?);
        }
        Ok(values)
    }

    /// What is known of a batch.
    async fn values_of(&self, batch: &SealedBatch) -> Result<Values, CallError> {
        let mut values = self.values().await?;
        values.extend(batch.manifest.frame.known.clone());
        values.insert("batch.id".to_owned(), batch.id.to_string());
        values.insert("batch.rows".to_owned(), batch.manifest.rows.len().to_string());
        Ok(values)
    }

    /// What is known of a job.
    pub(super) async fn values_by(&self, context: &OperationContext) -> Result<Values, CallError> {
        let mut values = self.values().await?;
        values.extend(learnt(context));
        Ok(values)
    }

    /// Hands a batch over: goes on after the last step that was stored.
    pub(super) async fn hand_over(&self, batch: &SealedBatch, said: &Said<'_>) -> Result<Submitted, CallError> {
        let mut before = said.contexts().await;
        let mut done = before.last().map_or(0, |context| usize::from(context.step) + 1);
        // An earlier process may have taken the next step, and it may not be taken twice.
        if done > 0 && self.profile.submit.get(done).is_some_and(|step| !step.is_repeatable) {
            if done + 1 == self.profile.submit.len()
                && let Found::Jobs(jobs) = self.look_for(batch, &before).await.map_err(in_doubt)?
            {
                return Ok(Submitted::Pending(jobs));
            }
            // Not beside what there is of it: what arrives late then finds nothing.
            let removed = self.clean_up(&before).await;
            removed.map_err(|error| CallError { class: ErrorClass::Retry, in_doubt: true, error })?;
            (before, done) = (Vec::new(), 0);
        }
        // What a table has for itself is needed when its jobs are asked for.
        let own = batch.manifest.frame.known.iter().filter(|(name, _)| name.starts_with("setting."));
        let mut vendor: Values = own.map(|(name, value)| (name.clone(), value.clone())).collect();
        vendor.extend(before.last().map(learnt).unwrap_or_default());
        let mut values = self.values_of(batch).await?;
        values.extend(vendor.clone());
        let all = (0, u32::try_from(batch.manifest.rows.len()).unwrap_or(u32::MAX));
        let last = self.profile.submit.len().saturating_sub(1);
        for (place, step) in self.profile.submit.iter().enumerate().skip(done) {
            let learnt = match self.take_step(batch, step, &values, place == last, place > 0).await {
                Ok(learnt) => learnt,
                Err(call) => return Err(self.given_up(call, place, &vendor).await),
            };
            values.extend(learnt.clone());
            vendor.extend(learnt);
            if place < last {
                let saved = said.save(context(place, &vendor, (0, 0))).await;
                saved.map_err(|error| CallError { class: ErrorClass::Retry, in_doubt: true, error })?;
            }
        }
        match self.profile.poll {
            Some(_) => Ok(Submitted::Pending(vec![context(last, &vendor, all)])),
            None => Ok(Submitted::Completed(UploadStats::SUCCEEDED)),
        }
    }

    async fn take_step(
        &self,
        batch: &SealedBatch,
        step: &Submit,
        values: &Values,
        commits: bool,
        has_steps_before: bool,
    ) -> Result<Values, CallError> {
        let body = match step.request.sends {
            Sends::Batch(_) => {
                let wrong = |error| CallError { class: ErrorClass::Config, in_doubt: false, error };
                batch.read().await.map_err(wrong)?
            }
            _ => Vec::new(),
        };
        let mut throttled = 0;
        loop {
            let content = Content { body: &body, commits };
            match self.wire.call(&self.profile, &self.account, &step.request, values, Some(content)).await {
                Ok(good) => return extracted(&step.extract, &good, commits),
                Err(Bad { call: CallError { class: ErrorClass::Throttle(after), .. }, .. })
                    if has_steps_before && throttled < MOST_THROTTLED =>
                {
                    throttled += 1;
                    pause(after.unwrap_or(THROTTLED)).await;
                }
                Err(bad) => return Err(bad.call),
            }
        }
    }

    /// What was done before a step that failed stays, where the step may be tried again; else it is removed.
    async fn given_up(&self, call: CallError, place: usize, vendor: &Values) -> CallError {
        if place == 0 || call.in_doubt {
            return call;
        }
        let passes =
            matches!(call.class, ErrorClass::Retry | ErrorClass::Throttle(_) | ErrorClass::Reauth | ErrorClass::Config);
        let may_be_taken = call.class == ErrorClass::Retry && !self.profile.submit[place].is_repeatable;
        if passes && !may_be_taken && self.profile.policy.resubmit != Resubmit::UnsafeAtMostOnce {
            return CallError { in_doubt: true, ..call };
        }
        self.leave_nothing(&[context(place - 1, vendor, (0, 0))]).await;
        call
    }

    /// Removes what steps have made that are taken anew.
    async fn leave_nothing(&self, contexts: &[OperationContext]) {
        if let Err(error) = self.clean_up(contexts).await {
            tracing::warn!(system = %self.profile.name, %error, "what a batch has left there could not be removed");
        }
    }

    /// What a job is doing.
    pub(super) async fn state(&self, context: &OperationContext) -> Result<PollState, CallError> {
        let Some(poll) = &self.profile.poll else {
            let error = EtlError::new(ErrorKind::Internal, "a system that answers at once was asked for a job");
            return Err(CallError { class: ErrorClass::Config, in_doubt: false, error });
        };
        let values = self.values_by(context).await?;
        match self.wire.call(&self.profile, &self.account, &poll.request, &values, None).await {
            Ok(good) => {
                let state = self.state_of(&good);
                if matches!(state, PollState::Failed { .. }) {
                    // Its rows come again as a job of their own.
                    self.leave_nothing(std::slice::from_ref(context)).await;
                }
                Ok(state)
            }
            Err(Bad { status: Some(status), .. }) if poll.gone.contains(&status) => Ok(PollState::Gone),
            Err(bad) => Err(bad.call),
        }
    }

    fn state_of(&self, good: &Good) -> PollState {
        let Some(poll) = &self.profile.poll else { return PollState::PENDING };
        let progress = poll.progress.as_ref().and_then(|at| text_at(&good.body, at));
        let progress =
            progress.and_then(|percent| percent.parse::<f64>().ok()).map(|percent| percent.clamp(0.0, 100.0));
        let pending = PollState::Pending {
            progress: progress.map(|percent| percent as u8),
            retry_after: retry_after(&good.answer),
        };
        let found = text_at(&good.body, &poll.state).unwrap_or_default();
        let Some((_, state)) = poll.states.iter().find(|(name, _)| *name == found) else {
            tracing::warn!(system = %self.profile.name, state = %found, "a job is in a state that the profile does not know");
            return pending;
        };
        let failed = |class| {
            let at = poll.message.iter().chain(&self.profile.messages).cloned().collect::<Vec<_>>();
            PollState::Failed { class, code: found.clone(), message: said(&good.body, &at).unwrap_or_default() }
        };
        match state {
            State::Pending => pending,
            State::Completed => PollState::Completed,
            State::Gone => PollState::Gone,
            State::Retry => failed(ErrorClass::Retry),
            State::Refuse => failed(ErrorClass::RefuseBatch),
            State::Split => failed(ErrorClass::Split),
            State::Config => failed(ErrorClass::Config),
        }
    }

    /// Whether the system has jobs of a batch.
    pub(super) async fn look_for(&self, batch: &SealedBatch, before: &[OperationContext]) -> Result<Found, CallError> {
        let Some(recover) = &self.profile.recover else { return Ok(Found::Unknown) };
        let mut values = self.values_of(batch).await?;
        let mut vendor = before.last().map(learnt).unwrap_or_default();
        values.extend(vendor.clone());
        let Request { url, query, .. } = &recover.request;
        let asks_by = [url, &recover.is].into_iter().chain(query.iter().map(|(_, value)| value));
        // What a step was to learn is not known: so it was not taken, nor was the one after it.
        if !asks_by.flat_map(Template::variables).all(|name| values.contains_key(name)) {
            return Ok(Found::Nothing);
        }
        let good = self.wire.call(&self.profile, &self.account, &recover.request, &values, None).await;
        let good = good.map_err(|bad| bad.call)?;
        let wrong = |error| CallError { class: ErrorClass::Config, in_doubt: true, error };
        let is = recover.is.fill(&values, Within::Text).map_err(wrong)?;
        let Some(items) = good.body.pointer(&recover.items).and_then(Value::as_array) else {
            return Ok(Found::Unknown);
        };
        let Some(item) = items.iter().find(|item| text_at(item, &recover.at).as_deref() == Some(is.as_str())) else {
            let has_more = recover.more.as_ref().and_then(|at| text_at(&good.body, at));
            let is_whole = has_more.is_none_or(|more| more == "false");
            return Ok(if is_whole { Found::Nothing } else { Found::Unknown });
        };
        let found = Good { body: item.clone(), answer: good.answer };
        vendor.extend(extracted(&recover.extract, &found, true)?);
        let all = (0, u32::try_from(batch.manifest.rows.len()).unwrap_or(u32::MAX));
        Ok(Found::Jobs(vec![context(self.profile.submit.len().saturating_sub(1), &vendor, all)]))
    }

    /// Removes what a batch has left at the system, as far as it got.
    pub(super) async fn clean_up(&self, contexts: &[OperationContext]) -> EtlResult<()> {
        let Some(context) = contexts.last().filter(|_| !self.profile.cleanup.is_empty()) else { return Ok(()) };
        let values = self.values_by(context).await.map_err(|call| call.error)?;
        for request in &self.profile.cleanup {
            let needs = std::iter::once(&request.url).chain(request.query.iter().map(|(_, value)| value));
            if !needs.flat_map(Template::variables).all(|name| values.contains_key(name)) {
                continue;
            }
            let done = self.wire.call(&self.profile, &self.account, request, &values, None).await;
            done.map_err(|bad| bad.call.error)?;
        }
        Ok(())
    }
}

/// A question failed on which it depends whether a batch is handed over: nothing is known of the batch still.
fn in_doubt(call: CallError) -> CallError {
    CallError { in_doubt: true, ..call }
}

/// What was learnt, as it is stored.
fn context(step: usize, vendor: &Values, rows: (u32, u32)) -> OperationContext {
    let vendor = vendor.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    OperationContext { step: u16::try_from(step).unwrap_or(u16::MAX), vendor: Value::Object(vendor), rows }
}

fn learnt(context: &OperationContext) -> Values {
    let Some(vendor) = context.vendor.as_object() else { return Values::new() };
    vendor.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
