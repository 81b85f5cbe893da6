//! What can a person do about operations? Look at the batch, let one go on that is held, or give it up.

use std::path::PathBuf;
use std::time::Duration;

use etl::clock;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::store::{Accounting, DeadLetter, Operation, OperationState, SharedStore};
use serde::Serialize;

use super::RowOutcome;
use super::ending::dead_letters;
use super::sealed::{Manifest, ManifestRow, Spool, off_thread};

/// The fact with the directory of the sealed batches.
pub const SPOOL_FACT: &str = "bulk.spool";

/// A sealed batch as somebody finds it who looks for it.
#[derive(Debug, Clone, Serialize)]
pub struct BatchOnDisk {
    /// The file with its body.
    pub body: PathBuf,
    /// What is known of its first rows.
    pub rows: Vec<ManifestRow>,
}

/// The batch of an operation, with so many of its rows; `None` where it is not on disk, or not any more.
///
/// # Errors
/// Where store or disk cannot be read.
pub async fn batch_on_disk(store: &SharedStore, operation: &Operation, most: usize) -> EtlResult<Option<BatchOnDisk>> {
    let Some(spool) = spool(store).await?.filter(|spool| spool.holds(&operation.id)) else { return Ok(None) };
    let body = spool.body(&operation.id);
    let Manifest { mut rows, .. } = manifest(&spool, operation).await?;
    rows.truncate(most);
    Ok(Some(BatchOnDisk { body, rows }))
}

/// Finds an operation by its name, or by the beginning of one.
///
/// # Errors
/// `Config` where there is none, or more than one.
pub async fn operation(store: &SharedStore, name: &str) -> EtlResult<Operation> {
    let mut found: Vec<Operation> = store.operations().await?;
    if let Some(place) = found.iter().position(|operation| &*operation.id.0 == name) {
        return Ok(found.swap_remove(place));
    }
    found.retain(|operation| !name.is_empty() && operation.id.0.starts_with(name));
    match (found.pop(), found.is_empty()) {
        (Some(operation), true) => Ok(operation),
        (Some(_), false) => Err(EtlError::new(ErrorKind::Config, "several operations begin like that")
            .with("operation", name)
            .hint("Write more of its name")),
        (None, _) => Err(EtlError::new(ErrorKind::Config, "there is no such operation")
            .with("operation", name)
            .hint("`etl operations list` shows them; one that is settled is soon forgotten")),
    }
}

/// Lets an operation that is held go on, as of [`Operation::put_back`]. A pipeline that runs goes on with it once its
/// table is released.
///
/// # Errors
/// `Config` where it is not held, `StoreConflict` where somebody else was faster.
pub async fn put_back(
    store: &SharedStore,
    operation: Operation,
    longest: Duration,
    anew: bool,
) -> EtlResult<Operation> {
    let next = operation.put_back(clock::now(), longest, anew)?;
    let revision = store.put_operation(Some(next.revision), next.clone(), Vec::new()).await?;
    Ok(Operation { revision, ..next })
}

/// Gives an operation up that is held: its rows become dead letters, all of them. With `is_lost` one whose batch is gone
/// from the disk, with its rows: they count as of unknown end, and their table is to be copied again.
///
/// # Errors
/// `Config` where it is not held, and where its batch is there although it is said to be lost, or the other way round.
pub async fn abandon(store: &SharedStore, operation: Operation, is_lost: bool) -> EtlResult<Operation> {
    let spool = spool(store).await?.filter(|spool| spool.holds(&operation.id));
    let (accounting, letters) = match &spool {
        _ if operation.state.is_settled() => return Err(operation.not_held()),
        None if is_lost => {
            (Accounting { unattributed: u64::from(operation.rows), ..Accounting::default() }, Vec::new())
        }
        None => {
            return Err(EtlError::new(ErrorKind::Config, "the rows of the operation are not on disk any more")
                .with("operation", &operation.id)
                .hint(
                    "Bring the directory of sealed batches back; or give it up with `--lost`, and copy its table again",
                ));
        }
        Some(_) if is_lost => {
            return Err(EtlError::new(ErrorKind::Config, "the rows of the operation are not lost")
                .with("operation", &operation.id)
                .hint("Leave `--lost` out: they become dead letters"));
        }
        Some(spool) => {
            let OperationState::Held { reason, .. } = &operation.state else { return Err(operation.not_held()) };
            let letters = letters(&operation, &manifest(spool, &operation).await?, reason)?;
            (Accounting { dead: u64::from(operation.rows), ..Accounting::default() }, letters)
        }
    };
    let state = OperationState::Settled { accounting, at: clock::now() };
    let next = Operation { state, ..operation };
    let revision = store.put_operation(Some(next.revision), next.clone(), letters).await?;
    if let Some(spool) = spool {
        let id = next.id.clone();
        off_thread(move || spool.remove(&id)).await?;
    }
    Ok(Operation { revision, ..next })
}

fn letters(operation: &Operation, manifest: &Manifest, reason: &str) -> EtlResult<Vec<DeadLetter>> {
    let all = vec![Some(RowOutcome::Rejected(reason.to_owned())); manifest.rows.len()];
    let letters = dead_letters(operation, manifest, &all, "abandoned");
    if letters.len() == operation.rows as usize {
        return Ok(letters);
    }
    Err(EtlError::new(ErrorKind::Disk, "the rows on disk are not those of the operation")
        .with("operation", &operation.id)
        .with("rows on disk", letters.len())
        .with("rows", operation.rows)
        .hint("Somebody changed the file: bring it back"))
}

async fn spool(store: &SharedStore) -> EtlResult<Option<Spool>> {
    Ok(store.fact(SPOOL_FACT).await?.map(|dir| Spool::at(dir.into())))
}

async fn manifest(spool: &Spool, operation: &Operation) -> EtlResult<Manifest> {
    let (spool, id) = (spool.clone(), operation.id.clone());
    off_thread(move || spool.manifest(&id)).await
}
