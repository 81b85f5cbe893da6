//! How does a system that answers at once fit in? Its upload is all that there is.

use std::future::Future;
use std::sync::Arc;

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::store::OperationContext;

use super::{
    BulkDestination, BulkRow, CallError, ErrorClass, Frame, Limits, Policy, PollState, Said, SealedBatch, Submitted,
    UploadStats,
};
use crate::table_name::NameRules;
use crate::writer::TargetTable;

/// A system that takes a batch and says in its answer what became of it.
pub trait SimpleBulk: Send + Sync + 'static {
    /// The name that logs and errors show.
    fn name(&self) -> &str;

    /// What it takes at a time.
    fn limits(&self) -> Limits;

    /// How it is dealt with.
    fn policy(&self) -> Policy {
        Policy::default()
    }

    /// As of [`BulkDestination::check_connection`].
    fn check_connection(&self) -> impl Future<Output = EtlResult<()>> + Send;

    /// As of [`BulkDestination::name_rules`].
    fn name_rules(&self) -> NameRules {
        NameRules::default()
    }

    /// As of [`BulkDestination::needs_all_values`].
    fn needs_all_values(&self) -> bool {
        false
    }

    /// As of [`BulkDestination::takes_deletes`].
    fn takes_deletes(&self) -> bool {
        false
    }

    /// As of [`BulkDestination::reset`].
    fn reset(&self, _table: &TargetTable) -> impl Future<Output = EtlResult<bool>> + Send {
        async { Ok(false) }
    }

    /// As of [`BulkDestination::stages_runs`].
    fn stages_runs(&self) -> bool {
        false
    }

    /// As of [`BulkDestination::begin_run`].
    fn begin_run(&self, _run: &str) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// As of [`BulkDestination::publish_run`].
    fn publish_run(&self, _run: &str, _tables: &[Arc<TargetTable>]) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// As of [`BulkDestination::appends_runs`].
    fn appends_runs(&self) -> bool {
        false
    }

    /// As of [`BulkDestination::append_run`].
    fn append_run(&self, _run: &str) -> impl Future<Output = EtlResult<bool>> + Send {
        async { Ok(true) }
    }

    /// As of [`BulkDestination::remove_run`].
    fn remove_run(&self, _run: &str) -> impl Future<Output = EtlResult<()>> + Send {
        async { Ok(()) }
    }

    /// As of [`BulkDestination::frame`].
    fn frame(&self, _table: &TargetTable) -> Frame {
        Frame::default()
    }

    /// As of [`BulkDestination::transform`].
    ///
    /// # Errors
    /// As there.
    fn transform(&self, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()>;

    /// Hands a batch over.
    fn upload(&self, batch: &SealedBatch) -> impl Future<Output = Result<UploadStats, CallError>> + Send;
}

/// A [`SimpleBulk`] as a [`BulkDestination`].
#[derive(Debug, Clone)]
pub struct Simple<T>(pub T);

impl<T: SimpleBulk> BulkDestination for Simple<T> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn policy(&self) -> Policy {
        self.0.policy()
    }

    fn supports_poll(&self) -> bool {
        false
    }

    async fn check_connection(&self) -> EtlResult<()> {
        self.0.check_connection().await
    }

    fn name_rules(&self) -> NameRules {
        self.0.name_rules()
    }

    fn needs_all_values(&self) -> bool {
        self.0.needs_all_values()
    }

    fn takes_deletes(&self) -> bool {
        self.0.takes_deletes()
    }

    async fn reset(&self, table: &TargetTable) -> EtlResult<bool> {
        self.0.reset(table).await
    }

    fn stages_runs(&self) -> bool {
        self.0.stages_runs()
    }

    async fn begin_run(&self, run: &str) -> EtlResult<()> {
        self.0.begin_run(run).await
    }

    async fn publish_run(&self, run: &str, tables: &[Arc<TargetTable>]) -> EtlResult<()> {
        self.0.publish_run(run, tables).await
    }

    fn appends_runs(&self) -> bool {
        self.0.appends_runs()
    }

    async fn append_run(&self, run: &str) -> EtlResult<bool> {
        self.0.append_run(run).await
    }

    async fn remove_run(&self, run: &str) -> EtlResult<()> {
        self.0.remove_run(run).await
    }

    fn frame(&self, table: &TargetTable) -> Frame {
        self.0.frame(table)
    }

    fn transform(&self, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
        self.0.transform(row, out)
    }

    async fn submit(&self, batch: &SealedBatch, _said: &Said<'_>) -> Result<Submitted, CallError> {
        self.0.upload(batch).await.map(Submitted::Completed)
    }

    async fn poll(&self, _contexts: &[OperationContext]) -> Result<Vec<PollState>, CallError> {
        Err(never_asked())
    }

    async fn upload_stats(
        &self,
        _batch: &SealedBatch,
        _contexts: &[OperationContext],
        _states: &[PollState],
    ) -> Result<UploadStats, CallError> {
        Err(never_asked())
    }
}

fn never_asked() -> CallError {
    let error = EtlError::new(ErrorKind::Internal, "a system that answers at once was asked for a job");
    CallError { class: ErrorClass::Config, in_doubt: false, error }
}
