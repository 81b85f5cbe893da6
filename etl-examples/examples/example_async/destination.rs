//! How does it become a destination? By saying how a row is written down, how rows are handed over, how one asks for them, and
//! what the answer means for each. Batches, order, waiting, crashes, counting and dead letters are the family's.

use std::time::Duration;

use etl::data::RawValue;
use etl::store::OperationContext;
use etl::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl_destinations::bulk::{
    BulkDestination, BulkRow, CallError, ErrorClass, Frame, Limits, Policy, PollState, Rest, Resubmit, RowOutcome,
    Said, Schedule, SealedBatch, Submitted, UploadStats,
};
use etl_destinations::metadata_columns::ChangeType;
use etl_destinations::writer::TargetTable;
use serde_json::{Map, Value, json};

use super::depot::{Depot, Parcel, Receipt, Silence, Verdict, Work};

/// The depot as a destination.
pub(crate) struct ToDepot(pub(crate) Depot);

impl BulkDestination for ToDepot {
    fn name(&self) -> &str {
        "depot"
    }

    fn limits(&self) -> Limits {
        Limits { max_rows: 12, max_bytes: 64 << 10, max_row_bytes: 4 << 10, in_flight: 1, rate: None }
    }

    fn policy(&self) -> Policy {
        Policy {
            // The depot knows a delivery by its name: when in doubt, deliver it again.
            resubmit: Resubmit::ClientId,
            polls: Schedule { first: Duration::from_millis(100), longest: Duration::from_secs(5) },
            deadline: Duration::from_secs(3600),
            // Batches are small: one parcel of three may be damaged without everything being wrong.
            max_dead_percent: 50,
            ..Policy::default()
        }
    }

    async fn check_connection(&self) -> EtlResult<()> {
        self.0.ask(&[]).map(drop).map_err(|silence| unheard(silence).error)
    }

    /// A parcel without content is taken off its shelf.
    fn takes_deletes(&self) -> bool {
        true
    }

    async fn truncate(&self, table: &TargetTable) -> EtlResult<bool> {
        self.0.clear(&format!("{}/", table.name));
        Ok(true)
    }

    /// A body is an array of JSON.
    fn frame(&self, _table: &TargetTable) -> Frame {
        Frame { head: "[".to_owned(), separator: ",".to_owned(), tail: "]".to_owned(), ..Frame::default() }
    }

    fn transform(&self, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
        let text = |place: usize| Ok::<_, EtlError>(row.row.text(place)?.map(|text| text.into_owned()));
        let mut label = row.table.name.to_string();
        for place in &row.table.source.key {
            label = format!("{label}/{}", text(usize::from(*place))?.unwrap_or_default());
        }
        let mut content = Map::new();
        for (place, name) in row.table.columns.iter().enumerate() {
            // What was not sent is not known: it is left out, never null.
            if row.row.raw(place) != RawValue::Unchanged {
                content.insert(name.to_string(), text(place)?.map_or(Value::Null, Value::String));
            }
        }
        let is_gone = row.stamp.change_type == ChangeType::Delete;
        let parcel = json!({ "label": label, "content": if is_gone { Value::Null } else { content.into() } });
        serde_json::to_writer(out, &parcel).or_etl(ErrorKind::Value, "write a parcel down")
    }

    async fn submit(&self, batch: &SealedBatch, _said: &Said<'_>) -> Result<Submitted, CallError> {
        let unread = |error| CallError { class: ErrorClass::Config, in_doubt: false, error };
        let body = batch.read().await.map_err(unread)?;
        let parcels: Vec<Parcel> =
            serde_json::from_slice(&body).or_etl(ErrorKind::Internal, "read the parcels").map_err(unread)?;
        // The batch has one name for ever; each attempt is a delivery of its own.
        let name = format!("{}/{}", batch.id, batch.attempt);
        match self.0.deliver(&name, parcels).map_err(unheard)? {
            Receipt::Done(verdicts) => {
                let rows = (0..).zip(verdicts.iter().map(outcome)).collect();
                Ok(Submitted::Completed(UploadStats { rows, rest: Rest::Failed }))
            }
            Receipt::Tickets(tickets) => {
                let mut first = 0;
                let context = |(ticket, parcels): (String, u32)| {
                    let rows = (first, first + parcels);
                    first += parcels;
                    OperationContext { step: 0, vendor: json!({ "ticket": ticket }), rows }
                };
                Ok(Submitted::Pending(tickets.into_iter().map(context).collect()))
            }
        }
    }

    /// One question for all, and an answer for each, in their order.
    async fn poll(&self, contexts: &[OperationContext]) -> Result<Vec<PollState>, CallError> {
        let asked: Vec<&str> = contexts.iter().filter_map(ticket).collect();
        let mut answers = self.0.ask(&asked).map_err(unheard)?.into_iter();
        let state = |context: &OperationContext| match ticket(context).and_then(|_| answers.next()) {
            None => failed("MISSING_CONTEXT", "there is no ticket to ask by"),
            Some(Work::Waiting { percent }) => PollState::Pending { progress: Some(percent), retry_after: None },
            Some(Work::Done) => PollState::Completed,
            Some(Work::Spoilt(why)) => failed("SPOILT", &why),
            Some(Work::Unknown) => PollState::Gone,
        };
        Ok(contexts.iter().map(state).collect())
    }

    async fn upload_stats(
        &self,
        _batch: &SealedBatch,
        contexts: &[OperationContext],
        states: &[PollState],
    ) -> Result<UploadStats, CallError> {
        let mut rows = Vec::new();
        for (context, _) in contexts.iter().zip(states).filter(|(_, state)| **state == PollState::Completed) {
            let verdicts = ticket(context).and_then(|ticket| self.0.verdicts(ticket)).unwrap_or_default();
            rows.extend((context.rows.0..context.rows.1).zip(verdicts.iter().map(outcome)));
        }
        // A row that was not spoken of has not succeeded.
        Ok(UploadStats { rows, rest: Rest::Failed })
    }
}

fn ticket(context: &OperationContext) -> Option<&str> {
    context.vendor["ticket"].as_str()
}

fn failed(code: &str, message: &str) -> PollState {
    PollState::Failed { class: ErrorClass::Retry, code: code.to_owned(), message: message.to_owned() }
}

fn outcome(verdict: &Verdict) -> RowOutcome {
    match verdict.clone() {
        Verdict::Shelved => RowOutcome::Succeeded,
        Verdict::ShelvedWith(remark) => RowOutcome::Warned(remark),
        Verdict::BringItAgain(why) => RowOutcome::Retry(why),
        Verdict::Refused(why) => RowOutcome::Rejected(why),
    }
}

/// The depot did not answer: that says nothing about the parcels. Whether they may have arrived has to be said.
fn unheard(silence: Silence) -> CallError {
    let error =
        EtlError::new(ErrorKind::DestinationUnavailable, "the depot does not answer").hint("See whether it is open");
    CallError { class: ErrorClass::Retry, in_doubt: silence == Silence::LineWentDead, error }
}
