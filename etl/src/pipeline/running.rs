//! How does a running pipeline end? By itself, by a word, or by being dropped.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::control::PipelineHandle;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::schema::TableId;

/// How a pipeline ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// Tables that wait for somebody.
    pub quarantined: Vec<TableId>,
    /// It was aborted: what was under way is left to the next run.
    pub aborted: bool,
}

/// A pipeline at work. Dropping it ends it at once; nothing that it has acknowledged is lost.
#[derive(Debug)]
pub struct RunningPipeline {
    pub(super) handle: PipelineHandle,
    pub(super) task: JoinHandle<EtlResult<Finished>>,
}

impl RunningPipeline {
    /// Tells and asks the pipeline, from anywhere.
    pub fn handle(&self) -> PipelineHandle {
        self.handle.clone()
    }

    /// Waits until the pipeline ends.
    ///
    /// # Errors
    /// Why it could not go on.
    pub async fn wait(mut self) -> EtlResult<Finished> {
        ended((&mut self.task).await)
    }

    /// Drains the pipeline; what is not done after `grace` is left to the next run.
    ///
    /// # Errors
    /// Why it could not go on.
    pub async fn shutdown(mut self, grace: Duration) -> EtlResult<Finished> {
        self.handle.shutdown();
        tokio::select! {
            done = &mut self.task => return ended(done),
            () = crate::retry::pause(grace) => self.handle.abort(),
        }
        ended((&mut self.task).await)
    }
}

impl Drop for RunningPipeline {
    fn drop(&mut self) {
        self.handle.abort();
        self.task.abort();
    }
}

fn ended(done: Result<EtlResult<Finished>, tokio::task::JoinError>) -> EtlResult<Finished> {
    match done {
        Ok(Err(error)) if error.kind() == ErrorKind::Cancelled => Ok(Finished { aborted: true, ..Finished::default() }),
        Ok(done) => done,
        Err(error) => Err(EtlError::new(ErrorKind::Internal, "the pipeline was cut short").because(error)),
    }
}
