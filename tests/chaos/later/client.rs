//! How is that system written to? In five ways, one for each class of what may be done when it is not known whether a batch
//! has arrived, with one way each of telling which rows were refused.

use std::net::SocketAddr;
use std::time::Duration;

use etl::data::RawValue;
use etl::store::OperationContext;
use etl::{ErrorKind, EtlError, EtlResult};
use etl_destinations::bulk::{
    BulkDestination, BulkRow, CallError, ErrorClass, Found, Limits, ManifestRow, Policy, PollState, Rest, Resubmit,
    RowOutcome, Said, Schedule, SealedBatch, Submitted, UploadStats,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What may be done when it is not known whether a batch has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    ClientId,
    Discover,
    /// A definition, its data, and then the step that counts.
    TwoStep,
    Idempotent,
    Unsafe,
}

impl Class {
    pub(crate) const ALL: [Self; 5] = [Self::ClientId, Self::Discover, Self::TwoStep, Self::Idempotent, Self::Unsafe];

    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// A client of the system.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) class: Class,
}

fn failed(class: ErrorClass, in_doubt: bool, what: impl Into<String>) -> CallError {
    CallError { class, in_doubt, error: EtlError::new(ErrorKind::DestinationUnavailable, what.into()) }
}

impl Client {
    /// One request; where it is not answered, nobody knows whether it has arrived.
    async fn call(&self, method: &str, target: &str, body: &[u8]) -> Result<(u16, Value), CallError> {
        let answered = async {
            let mut stream = TcpStream::connect(self.address).await?;
            let head = format!("{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let lost = |what: String| failed(ErrorClass::Retry, true, what);
        let answer = answered.await.map_err(|error| lost(error.to_string()))?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| lost("the answer was lost".to_owned()))?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let body = serde_json::from_str(body).map_err(|error| lost(error.to_string()))?;
        Ok((status.ok_or_else(|| lost("no status".to_owned()))?, body))
    }

    async fn submit_definition(&self, batch: &SealedBatch, body: &[u8], said: &Said<'_>) -> Result<Value, CallError> {
        let known = said.contexts().await.first().and_then(|context| context.vendor["definition"].as_u64());
        let definition = match known {
            Some(definition) => definition,
            None => {
                let (_, made) = self.call("POST", "/definitions", b"").await?;
                let definition = made["definition"].as_u64().unwrap();
                let context = OperationContext { step: 0, vendor: json!({ "definition": definition }), rows: (0, 0) };
                said.save(context).await.map_err(|error| CallError {
                    class: ErrorClass::Retry,
                    in_doubt: true,
                    error,
                })?;
                definition
            }
        };
        self.call("PUT", &format!("/definitions/{definition}/data"), body).await?;
        let sync = format!("/definitions/{definition}/sync?batch={}", batch.id);
        Ok(self.call("POST", &sync, b"").await?.1)
    }

    /// The place in the batch of a row that was refused.
    fn place(&self, reject: &Value, batch: &SealedBatch) -> Option<u32> {
        let is_it = |row: &ManifestRow| match self.class {
            Class::Discover => row.key.as_ref().is_some_and(|key| key[0] == reject["key"]),
            Class::TwoStep => row.row["v"] == reject["row"]["v"] && row.row["k"] == reject["row"]["key"],
            _ => {
                let key = row.key.as_ref().map_or("", |key| &key[0]);
                format!("{}/{}/{key}", row.position.commit.0, row.position.ordinal) == reject["id"]
            }
        };
        let found = match self.class {
            Class::ClientId => reject["index"].as_u64().map(|index| index as usize),
            _ => batch.manifest.rows.iter().position(is_it),
        };
        found.map(|place| place as u32)
    }
}

impl BulkDestination for Client {
    fn name(&self) -> &str {
        "later"
    }

    fn limits(&self) -> Limits {
        Limits { max_rows: 7, max_bytes: 1 << 20, max_row_bytes: 1 << 20, in_flight: 1, rate: None }
    }

    fn policy(&self) -> Policy {
        let polls = Schedule { first: Duration::from_millis(1), longest: Duration::from_millis(5) };
        let resubmit = match self.class {
            Class::ClientId => Resubmit::ClientId,
            Class::Discover => Resubmit::Discover,
            Class::TwoStep | Class::Idempotent => Resubmit::Idempotent,
            Class::Unsafe => Resubmit::UnsafeAtLeastOnce,
        };
        Policy { resubmit, polls, max_dead_percent: 60, ..Policy::default() }
    }

    async fn check_connection(&self) -> EtlResult<()> {
        Ok(())
    }

    fn takes_deletes(&self) -> bool {
        true
    }

    fn transform(&self, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
        let position = row.stamp.position;
        let value = match row.row.raw(1) {
            RawValue::Unchanged => None,
            _ => row.row.text(1)?,
        };
        let key = row.row.text(0)?.unwrap_or_default();
        let line = json!({
            "key": key, "v": value, "change": row.stamp.change_type.as_str(), "commit": position.commit.0,
            "ordinal": position.ordinal, "id": format!("{}/{}/{key}", position.commit.0, position.ordinal),
        });
        out.extend_from_slice(format!("{line}\n").as_bytes());
        Ok(())
    }

    async fn submit(&self, batch: &SealedBatch, said: &Said<'_>) -> Result<Submitted, CallError> {
        let body =
            batch.read().await.map_err(|error| CallError { class: ErrorClass::Retry, in_doubt: false, error })?;
        let (id, attempt) = (&batch.id, batch.attempt);
        let answer = match self.class {
            Class::TwoStep => self.submit_definition(batch, &body, said).await?,
            Class::ClientId => self.call("POST", &format!("/jobs?batch={id}&name={id}-{attempt}"), &body).await?.1,
            Class::Discover => self.call("POST", &format!("/jobs?batch={id}&tag={id}-{attempt}"), &body).await?.1,
            Class::Idempotent | Class::Unsafe => self.call("POST", &format!("/jobs?batch={id}"), &body).await?.1,
        };
        let rows = (0, batch.manifest.rows.len() as u32);
        Ok(Submitted::Pending(vec![OperationContext { step: 1, vendor: json!({ "job": answer["job"] }), rows }]))
    }

    async fn poll(&self, contexts: &[OperationContext]) -> Result<Vec<PollState>, CallError> {
        let mut states = Vec::new();
        for context in contexts {
            let (status, answer) = self.call("GET", &format!("/jobs/{}", context.vendor["job"]), b"").await?;
            states.push(match (status, answer["state"].as_str()) {
                (404, _) => PollState::Gone,
                (_, Some("done")) => PollState::Completed,
                _ => PollState::PENDING,
            });
        }
        Ok(states)
    }

    async fn upload_stats(
        &self,
        batch: &SealedBatch,
        contexts: &[OperationContext],
        _states: &[PollState],
    ) -> Result<UploadStats, CallError> {
        let mut rows = Vec::new();
        let mut from = Some(0);
        while let Some(page) = from {
            let target = format!("/jobs/{}/rejects?from={page}", contexts[0].vendor["job"]);
            let (_, answer) = self.call("GET", &target, b"").await?;
            for reject in answer["rejects"].as_array().unwrap() {
                let place = self.place(reject, batch).ok_or_else(|| {
                    failed(ErrorClass::Retry, false, format!("the row that was refused is not of the batch: {reject}"))
                })?;
                rows.push((place, RowOutcome::Rejected(reject["why"].as_str().unwrap().to_owned())));
            }
            from = answer["next"].as_u64();
        }
        Ok(UploadStats { rows, rest: Rest::Succeeded })
    }

    async fn recover(&self, batch: &SealedBatch, _contexts: &[OperationContext]) -> Result<Found, CallError> {
        let (_, answer) = self.call("GET", &format!("/jobs?tag={}-{}", batch.id, batch.attempt), b"").await?;
        let rows = (0, batch.manifest.rows.len() as u32);
        let job = |job: &Value| OperationContext { step: 1, vendor: json!({ "job": job }), rows };
        let jobs: Vec<OperationContext> = answer["jobs"].as_array().unwrap().iter().map(job).collect();
        Ok(if jobs.is_empty() { Found::Nothing } else { Found::Jobs(jobs) })
    }
}
