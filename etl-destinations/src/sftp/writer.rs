//! How do batches reach the server? Each as one file, at a path that the batch alone decides.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::TableName;
use etl::store::SharedStore;

use super::client::Client;
use super::config::{OnTruncate, SftpConfig};
use super::encoding::Encoding;
use super::error::call;
use super::path_template::{Files, Part, PathTemplate, Segment};
use super::probe::probe;
use super::session::Session;
use super::sweep::{below, remove_all, remove_dead};
use super::upload::{Failed, Place, put};
use crate::bulk::{
    Bulk, BulkRow, BulkSettings, CallError, Frame, Limits, OnUnsupported, Policy, Resubmit, SealedBatch, Simple,
    SimpleBulk, UploadStats,
};
use crate::made_up;
use crate::table_destination::TableDestination;
use crate::table_name::{Case, NameRules};
use crate::table_rules::TableRules;
use crate::write_mode::WriteMode;
use crate::writer::TargetTable;

/// Writes files to a server over SFTP.
pub struct Sftp {
    config: SftpConfig,
    template: PathTemplate,
    encoding: Encoding,
    client: Client,
    /// The names of files that are being written.
    under_way: Mutex<HashSet<String>>,
    /// Directories in which nothing is left of attempts that have failed or were an earlier process's.
    swept: Mutex<HashSet<String>>,
}

impl fmt::Debug for Sftp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sftp").field("client", &self.client).field("template", &self.template).finish_non_exhaustive()
    }
}

/// What a file is called that is not whole, in all directories of a pipeline.
const PART: &str = ".part";

/// Whether a character may stand in the name of a file or a directory, wherever it stands.
fn is_in_names(character: char) -> bool {
    !character.is_control() && !matches!(character, '/' | '\\' | '.')
}

impl Sftp {
    /// A destination with these settings; the server is connected when it is first needed. It holds logs (`append`) where no
    /// rule says otherwise.
    ///
    /// # Errors
    /// `Config` for what is wrong with the settings.
    pub fn with_config(
        config: SftpConfig,
        store: SharedStore,
        rules: TableRules,
    ) -> EtlResult<TableDestination<Bulk<Simple<Self>>>> {
        if let Some(fault) = config.faults().into_iter().next() {
            return Err(EtlError::new(ErrorKind::Config, fault.what).with("key", fault.key).hint(fault.hint));
        }
        let rules = logging(rules)?;
        let template = PathTemplate::parse(&config.template).map_err(|what| EtlError::new(ErrorKind::Config, what))?;
        let settings = BulkSettings {
            on_truncate: match config.on_truncate {
                OnTruncate::Error => OnUnsupported::Error,
                OnTruncate::Ignore => OnUnsupported::Ignore,
            },
            ..BulkSettings::new(&config.home.spool)
        };
        let (encoding, client) = (Encoding::new(&config)?, Client::new(config.clone()));
        let (under_way, swept) = (Mutex::default(), Mutex::default());
        let sftp = Self { config, template, encoding, client, under_way, swept };
        Ok(Bulk::destination(Simple(sftp), settings, store, rules))
    }

    pub(super) fn config(&self) -> &SftpConfig {
        &self.config
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What the paths of a table's files look like, where they can be told from those of other tables.
    pub(super) fn paths_of(&self, table: &TableName) -> Option<Vec<Segment>> {
        self.template.paths_of(&self.files(table))
    }

    fn files<'f>(&'f self, table: &'f TableName) -> Files<'f> {
        Files { table, pipeline: &self.config.home.pipeline, format: self.config.format.word() }
    }

    fn place(&self, batch: &SealedBatch) -> Place {
        let part = Part {
            files: self.files(&batch.manifest.table),
            operation: &batch.id,
            sequence: batch.sequence,
            sealed_at: batch.sealed_at,
        };
        let mut segments = self.template.path(&part);
        let name = segments.pop().unwrap_or_default();
        let mut directory = batch.run().map_or_else(|| self.config.path.clone(), |run| self.run_directory(run));
        let mut directories = Vec::with_capacity(segments.len());
        for segment in segments {
            directory = below(&directory, &segment);
            directories.push(directory.clone());
        }
        // No two attempts have one name: a server may still do what an attempt that is dead has asked it for.
        let attempt = made_up::number();
        let part = below(&directory, &format!("{}{}-{attempt:016x}{PART}", self.part_prefix(), batch.id));
        Place { path: below(&directory, &name), part, directories, directory }
    }

    fn part_prefix(&self) -> String {
        format!(".etl-{}-", self.config.home.pipeline)
    }

    fn under_way(&self) -> MutexGuard<'_, HashSet<String>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn swept(&self) -> MutexGuard<'_, HashSet<String>> {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what is left in a directory of attempts that have failed or were an earlier process's, once.
    async fn sweep(&self, session: &Session, directory: &str) -> EtlResult<()> {
        if self.swept().contains(directory) {
            return Ok(());
        }
        let prefix = self.part_prefix();
        let is_dead = |name: &str| {
            let is_part = name.starts_with(&prefix) && name.ends_with(PART);
            is_part && !self.under_way().contains(&below(directory, name))
        };
        remove_dead(session, directory, is_dead).await?;
        self.swept().insert(directory.to_owned());
        Ok(())
    }

    async fn hand_over(&self, batch: &SealedBatch) -> Result<(), Failed> {
        let place = self.place(batch);
        let _writing = Writing::of(self, &place.part);
        let session = self.client.session().await?;
        self.sweep(&session, &place.directory).await?;
        let put = put(&session, &batch.body, &place).await;
        if put.is_err() {
            // What there is of it is in nobody's way, but the next attempt has another name for it.
            self.swept().remove(&place.directory);
        }
        put
    }
}

/// A file that is being written, for as long as this is there.
struct Writing<'w> {
    sftp: &'w Sftp,
    part: &'w str,
}

impl<'w> Writing<'w> {
    fn of(sftp: &'w Sftp, part: &'w str) -> Self {
        sftp.under_way().insert(part.to_owned());
        Self { sftp, part }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.sftp.under_way().remove(self.part);
    }
}

/// Logs where no rule says otherwise.
fn logging(mut rules: TableRules) -> EtlResult<TableRules> {
    let modes = rules.rules.iter().map(|rule| rule.write_mode).chain([rules.defaults.write_mode]);
    if modes.flatten().any(|mode| mode == WriteMode::SoftDelete) {
        return Err(EtlError::new(ErrorKind::Config, "files that are handed over hold no rows that can be marked")
            .with("destination", "sftp")
            .hint("Set `write_mode: append` or `upsert`: both tell of deleted rows by `_CHANGE_TYPE`"));
    }
    rules.defaults.write_mode.get_or_insert(WriteMode::Append);
    Ok(rules)
}

impl SimpleBulk for Sftp {
    fn name(&self) -> &str {
        "sftp"
    }

    fn limits(&self) -> Limits {
        let max_bytes = self.config.max_bytes.0;
        Limits { max_rows: self.config.max_rows, max_bytes, max_row_bytes: max_bytes, in_flight: 1, rate: None }
    }

    /// The path is the name by which a file is known again.
    fn policy(&self) -> Policy {
        Policy { resubmit: Resubmit::ClientId, ..Policy::default() }
    }

    async fn check_connection(&self) -> EtlResult<()> {
        let session = Box::pin(Session::open(&self.config)).await?;
        probe(&session, &self.config.path, &self.config.home.pipeline).await
    }

    fn name_rules(&self) -> NameRules {
        // As of `file`: the server's file system may not tell upper from lower case.
        NameRules { case: Case::Ignored, allows: is_in_names, longest: 100, ..NameRules::default() }
    }

    fn needs_all_values(&self) -> bool {
        self.encoding.needs_all_values()
    }

    fn takes_deletes(&self) -> bool {
        true
    }

    /// What is left of its files goes, as far as their paths tell them from others.
    async fn reset(&self, table: &TargetTable) -> EtlResult<bool> {
        let Some(paths) = self.paths_of(&table.name) else { return Ok(false) };
        let session = self.client.session().await?;
        remove_all(&session, &self.config.path, &paths).await?;
        Ok(true)
    }

    fn stages_runs(&self) -> bool {
        true
    }

    async fn begin_run(&self, run: &str) -> EtlResult<()> {
        Box::pin(self.begin_staging(run)).await
    }

    async fn publish_run(&self, run: &str, tables: &[Arc<TargetTable>]) -> EtlResult<()> {
        Box::pin(self.publish_staged(run, tables)).await
    }

    fn appends_runs(&self) -> bool {
        true
    }

    /// As a run that takes the place of nothing.
    async fn append_run(&self, run: &str) -> EtlResult<bool> {
        Box::pin(self.append_staged(run)).await
    }

    async fn remove_run(&self, run: &str) -> EtlResult<()> {
        Box::pin(self.remove_staged(run)).await
    }

    fn frame(&self, table: &TargetTable) -> Frame {
        self.encoding.frame(table)
    }

    fn transform(&self, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
        self.encoding.encode(row, out)
    }

    async fn upload(&self, batch: &SealedBatch) -> Result<UploadStats, CallError> {
        let handed = Box::pin(self.hand_over(batch)).await;
        handed.map(|()| UploadStats::SUCCEEDED).map_err(|Failed { error, in_doubt }| call(error, in_doubt))
    }
}
