//! How is a system dealt with as its profile says? The same for all of them: what differs is in the profile.

mod account;
mod auth;
mod correlate;
mod jobs;
mod pack;
mod rejects;
mod rows;
mod verdict;
mod wire;

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::store::OperationContext;

use self::account::Account;
use self::wire::Wire;
use super::{BuiltIn, Profile, ProfileConfig, WhereUnsupported};
use crate::bulk::{
    BulkDestination, BulkRow, BulkSettings, CallError, Found, Frame, Limits, OnUnsupported, Policy, PollState, Said,
    SealedBatch, Submitted, UploadStats,
};
use crate::writer::TargetTable;

/// A system that is dealt with as a profile says.
#[derive(Debug)]
pub struct System {
    profile: Profile,
    account: Account,
    wire: Wire,
}

impl System {
    /// The system of the config; nothing is connected yet.
    ///
    /// # Errors
    /// `Config`, where there is no such profile, where it is not right, and where what it asks for is not given.
    pub fn open(config: &ProfileConfig) -> EtlResult<Self> {
        let profile = profile(config)?;
        let account = Account::new(&profile, config)?;
        let marks_deletes = profile.encode.deleted.is_some() || profile.encode.has_metadata;
        if config.on_delete == WhereUnsupported::Deliver && !marks_deletes {
            return Err(EtlError::new(ErrorKind::Config, "the profile has no mark for a deleted row")
                .with("profile", &profile.name)
                .hint("Set `on_delete` to `ignore` or `error`, or give a profile of your own `encode.deleted`"));
        }
        if config.on_truncate == WhereUnsupported::Deliver {
            return Err(EtlError::new(ErrorKind::Config, "a truncate cannot be delivered: it is no row")
                .hint("Set `on_truncate` to `ignore` or `error`"));
        }
        let wire = Wire::new(&profile, config)?;
        Ok(Self { profile, account, wire })
    }

    /// How the system is used as a destination.
    ///
    /// # Errors
    /// `Config`, where nothing says where batches are kept.
    pub fn settings(config: &ProfileConfig) -> EtlResult<BulkSettings> {
        let spool = config.spool.clone().ok_or_else(|| {
            EtlError::new(ErrorKind::Config, "nothing says where batches are kept that are under way")
                .hint("Set the destination's `spool` to a directory that outlives the process")
        })?;
        let of = |what| match what {
            WhereUnsupported::Error => OnUnsupported::Error,
            WhereUnsupported::Ignore => OnUnsupported::Ignore,
            WhereUnsupported::Deliver => OnUnsupported::Deliver,
        };
        let (on_delete, on_truncate) = (of(config.on_delete), of(config.on_truncate));
        Ok(BulkSettings { on_delete, on_truncate, ..BulkSettings::new(spool) })
    }
}

/// Reads the profile that the config names.
fn profile(config: &ProfileConfig) -> EtlResult<Profile> {
    let (text, called) = match (&config.name, &config.path) {
        (Some(name), None) => {
            let built_in = BuiltIn::find(name).ok_or_else(|| {
                EtlError::new(ErrorKind::Config, "there is no profile of this name")
                    .with("name", name)
                    .hint("`etl profiles list` shows those that there are; `path` is for a file of your own")
            })?;
            (built_in.text.to_owned(), name.clone())
        }
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                EtlError::new(ErrorKind::Config, "the profile cannot be read")
                    .with("path", path.display())
                    .because(error)
                    .hint("It is a TOML file that this user may read")
            })?;
            (text, path.display().to_string())
        }
        _ => {
            return Err(EtlError::new(ErrorKind::Config, "the destination names either a profile or a file")
                .hint("Set `name` or `path`; `etl profiles list` shows the names that there are"));
        }
    };
    Profile::read(&text).map_err(|problems| {
        EtlError::new(ErrorKind::Config, "the profile is not right")
            .with("profile", &called)
            .because(problems)
            .hint("`etl profiles lint FILE` lists all that is wrong with it")
    })
}

impl BulkDestination for System {
    fn name(&self) -> &str {
        &self.profile.name
    }

    /// Requests are counted where they are made: a batch is more than one.
    fn limits(&self) -> Limits {
        Limits { rate: None, ..self.profile.limits }
    }

    fn policy(&self) -> Policy {
        self.profile.policy
    }

    fn supports_poll(&self) -> bool {
        self.profile.poll.is_some()
    }

    async fn check_connection(&self) -> EtlResult<()> {
        let values = self.values().await.map_err(|call| call.error)?;
        let checked = self.wire.call(&self.profile, &self.account, &self.profile.check, &values, None).await;
        checked.map(drop).map_err(|failure| failure.call.error)
    }

    fn frame(&self, table: &TargetTable) -> Frame {
        rows::frame(&self.profile.encode, &self.account, table)
    }

    fn transform(&self, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
        rows::write(&self.profile.encode, &self.account, row, out)
    }

    async fn submit(&self, batch: &SealedBatch, said: &Said<'_>) -> Result<Submitted, CallError> {
        self.hand_over(batch, said).await
    }

    async fn poll(&self, contexts: &[OperationContext]) -> Result<Vec<PollState>, CallError> {
        let mut states = Vec::with_capacity(contexts.len());
        for context in contexts {
            states.push(self.state(context).await?);
        }
        Ok(states)
    }

    async fn upload_stats(
        &self,
        batch: &SealedBatch,
        contexts: &[OperationContext],
        states: &[PollState],
    ) -> Result<UploadStats, CallError> {
        self.outcomes(batch, contexts, states).await
    }

    async fn recover(&self, batch: &SealedBatch, contexts: &[OperationContext]) -> Result<Found, CallError> {
        self.look_for(batch, contexts).await
    }

    async fn cleanup(&self, contexts: &[OperationContext]) -> EtlResult<()> {
        self.clean_up(contexts).await
    }
}
