//! How does a system become a destination that takes a batch now and says later what became of it?
//!
//! A [`BulkDestination`] says how rows are encoded, submitted, asked for and told apart. What is the same for all of them
//! is done here: batches within limits, sealed on disk before anything is sent; an [`Operation`](etl::store::Operation)
//! stored before each request and after each answer, so that no restart hands a batch over again; waiting, backing off,
//! deadlines; counting every row once; dead letters.

mod answer;
mod census;
pub mod desk;
mod driver;
mod ending;
mod filling;
mod handing_over;
mod kept_back;
mod lane;
mod limits;
mod requests;
mod sealed;
mod simple;
mod staging;
#[cfg(test)]
mod tests;
mod writer;

use std::future::Future;
use std::sync::Arc;

use etl::data::TableRow;
use etl::error::EtlResult;
use etl::store::OperationContext;

pub use self::answer::{
    CallError, ErrorClass, Overall, PollState, Rest, RowOutcome, Submitted, UploadStats, overall, progress,
};
pub use self::driver::Said;
#[cfg(feature = "profile")]
pub(crate) use self::limits::Bucket;
pub use self::limits::{Limits, Order, Policy, Rate, Resubmit, Schedule, Unattributed};
pub use self::sealed::{Frame, Manifest, ManifestRow, SealedBatch};
pub use self::simple::{Simple, SimpleBulk};
pub use self::writer::{Bulk, BulkSettings, OnUnsupported};
use crate::rowwise::Stamp;
use crate::table_name::NameRules;
use crate::writer::TargetTable;

/// A row that is to be handed over.
#[derive(Debug, Clone, Copy)]
pub struct BulkRow<'r> {
    /// The table.
    pub table: &'r TargetTable,
    /// Its values; where it is partial, what was not sent is unchanged, and is to be left out.
    pub row: &'r TableRow,
    /// What happened to it, where and when. With the change type `DELETE` only the key has values.
    pub stamp: Stamp,
    /// Whether what was not sent is to stay as it is at the system.
    pub is_partial: bool,
}

/// A system that takes batches and says, at once or later, what became of them.
///
/// Its methods work without a pipeline too. None of them keeps anything that the next one needs: after a crash another
/// process goes on with what is stored.
pub trait BulkDestination: Send + Sync + 'static {
    /// The name that logs and errors show.
    fn name(&self) -> &str;

    /// What it takes at a time.
    fn limits(&self) -> Limits;

    /// How it is dealt with.
    fn policy(&self) -> Policy;

    /// Whether it answers later. Where it does not, [`submit`](Self::submit) says all.
    fn supports_poll(&self) -> bool {
        true
    }

    /// Whether it can be reached and written to; changes nothing.
    fn check_connection(&self) -> impl Future<Output = EtlResult<()>> + Send;

    /// Which names it can hold.
    fn name_rules(&self) -> NameRules {
        NameRules::default()
    }

    /// Whether a row of a change log has to have all its values, so that one that was not sent is an error.
    fn needs_all_values(&self) -> bool {
        false
    }

    /// Whether a row that is gone is handed over like any other, with the change type `DELETE`. Where not, the settings say
    /// what becomes of it.
    fn takes_deletes(&self) -> bool {
        false
    }

    /// Removes all rows of a table, before it is copied anew or because the source did; `false` where the system cannot.
    fn truncate(&self, _table: &TargetTable) -> impl Future<Output = EtlResult<bool>> + Send {
        async { Ok(false) }
    }

    /// Removes what is left of a table before it is copied anew, where that is more than a truncate at the source does.
    fn reset(&self, table: &TargetTable) -> impl Future<Output = EtlResult<bool>> + Send {
        self.truncate(table)
    }

    /// Whether batches can wait out of sight ([`SealedBatch::run`]) until all of them are shown. Where not, what is about runs is
    /// never called.
    fn stages_runs(&self) -> bool {
        false
    }

    /// A run begins: what others have left out of sight is removed.
    fn begin_run(&self, _run: &str) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// All batches of the run are settled: what waits of these tables takes the place of what there is of them. Called again
    /// where it failed or nobody heard of it, in another process too.
    fn publish_run(&self, _run: &str, _tables: &[Arc<TargetTable>]) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// Whether batches of changes can wait so, too: what they say comes to what there is, with
    /// [`append_run`](Self::append_run).
    fn appends_runs(&self) -> bool {
        false
    }

    /// All batches of a run of changes are settled: they are shown as if they came now. Called again where it failed or nobody
    /// heard of it, in another process too. `false` where nothing of the run is left: it comes again.
    fn append_run(&self, _run: &str) -> impl Future<Output = EtlResult<bool>> + Send {
        async { Ok(true) }
    }

    /// Removes what is left of a run, shown or not.
    fn remove_run(&self, _run: &str) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// What stands around the rows of a table.
    fn frame(&self, _table: &TargetTable) -> Frame {
        Frame::default()
    }

    /// Appends the row as the body has it.
    ///
    /// # Errors
    /// `Value` where it cannot be encoded: this row alone is a dead letter.
    fn transform(&self, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()>;

    /// Hands a batch over. What it learns on the way it tells to `said` before the next step, and after a crash it finds
    /// there what was told: a step that is done is not done again.
    fn submit(&self, batch: &SealedBatch, said: &Said<'_>)
    -> impl Future<Output = Result<Submitted, CallError>> + Send;

    /// What jobs are doing, one or many, answered in their order.
    fn poll(&self, contexts: &[OperationContext]) -> impl Future<Output = Result<Vec<PollState>, CallError>> + Send;

    /// What became of the rows of jobs that are done. What it does not know it says: no row is taken for succeeded that
    /// the system did not speak for.
    fn upload_stats(
        &self,
        batch: &SealedBatch,
        contexts: &[OperationContext],
        states: &[PollState],
    ) -> impl Future<Output = Result<UploadStats, CallError>> + Send;

    /// Whether the system has a batch of which it is not known whether it arrived.
    fn recover(
        &self,
        _batch: &SealedBatch,
        _contexts: &[OperationContext],
    ) -> impl Future<Output = Result<Found, CallError>> + Send {
        async { Ok(Found::Unknown) }
    }

    /// Removes what a settled batch has left at the system. It may be called again, and not at all.
    fn cleanup(&self, _contexts: &[OperationContext]) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }
}

/// What a system has of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// These jobs.
    Jobs(Vec<OperationContext>),
    /// It does not say.
    Unknown,
}
