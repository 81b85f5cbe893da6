//! How is another Postgres written to? A transaction a unit, over a few sessions.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etl::destination::{Batch, Capabilities};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::postgres::ConnectOptions;
use etl::schema::TableExtras;
use etl::store::SharedStore;
use etl::{CursorId, Position};
use tokio::sync::OnceCell;

use super::config::{Atomic, Create, PostgresTargetConfig};
use super::link::{Links, Parked};
use super::{ddl, extras, ledger, staging, unit};
use crate::table_destination::TableDestination;
use crate::table_name::NameRules;
use crate::table_rules::TableRules;
use crate::writer::{Replacement, Step, TableWriter, TargetTable, WriteUnit};

/// The fact of the store by which a target knows whose positions it holds.
const OWNER: &str = "destination.postgres";

/// Writes tables into another Postgres, exactly once.
pub struct Postgres {
    links: Links,
    address: String,
    store: SharedStore,
    /// Known once the target has its ledger.
    owner: OnceCell<String>,
    atomic: Atomic,
    create: Create,
    /// Transactions whose last piece is yet to come, and how far they go.
    pending: Mutex<HashMap<CursorId, (Parked, Position)>>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("server", &self.address).finish_non_exhaustive()
    }
}

impl Postgres {
    /// A destination that writes every table as `upsert` into the database of the URL.
    ///
    /// # Errors
    /// `Config` when the URL is none; `DestinationUnavailable` when the server does not answer.
    pub async fn open(url: &str, store: SharedStore) -> EtlResult<TableDestination<Self>> {
        let destination = Self::with_config(PostgresTargetConfig::new(url), store, TableRules::default())?;
        destination.writer().owner().await?;
        Ok(destination)
    }

    /// A destination with these settings; the server is called when it is first needed.
    ///
    /// # Errors
    /// `Config` when the URL is none.
    pub fn with_config(
        config: PostgresTargetConfig,
        store: SharedStore,
        rules: TableRules,
    ) -> EtlResult<TableDestination<Self>> {
        let options = options(&config)?;
        let address = options.address();
        let links = Links::new(options, config.connections, config.origin);
        let (owner, pending) = (OnceCell::new(), Mutex::default());
        let (atomic, create) = (config.atomic, config.create);
        let writer = Self { links, address, store: Arc::clone(&store), owner, atomic, create, pending };
        Ok(TableDestination::new(writer, store, rules))
    }

    /// The name under which this pipeline's positions are kept.
    async fn owner(&self) -> EtlResult<&str> {
        let made = self.owner.get_or_try_init(async || {
            let link = self.links.begin().await?;
            ledger::prepare(&link).await?;
            let known = self.store.fact(OWNER).await?;
            let is_known = known.is_some();
            let owner = match known {
                Some(known) => known,
                None => {
                    let rows = link.rows("SELECT gen_random_uuid()", "make a name").await?;
                    let name = rows.first().and_then(|row| row.get(0)).map(str::to_owned);
                    name.ok_or_else(|| EtlError::new(ErrorKind::Internal, "the target made no name"))?
                }
            };
            self.links.commit(link).await?;
            if !is_known {
                self.store.set_fact(OWNER, owner.clone()).await?;
            }
            self.links.are_of(&owner);
            Ok::<_, EtlError>(owner)
        });
        Ok(made.await?)
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<CursorId, (Parked, Position)>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cursor's open transaction where the batch goes on from it; what was begun otherwise is rolled back.
    fn take_pending(&self, batch: &Batch) -> Option<Parked> {
        let (parked, upto) = self.pending().remove(&batch.cursor)?;
        (upto == batch.from).then_some(parked)
    }

    /// Whether the batch ends within what is to be kept as a whole.
    fn is_piece(&self, batch: &Batch) -> bool {
        // Tables join and leave between transactions.
        let is_piece = batch.is_piece || self.atomic == Atomic::Always;
        is_piece && !batch.upto.is_boundary() && batch.moves.is_empty()
    }

    /// Makes tables that are missing: nobody waits for a lock on their names until a long transaction ends.
    async fn ensure_first(&self, unit: &mut WriteUnit) -> EtlResult<()> {
        let is_ensure = |step: &Step| matches!(step, Step::Ensure(_));
        let count = unit.steps.iter().position(|step| !is_ensure(step)).unwrap_or(unit.steps.len());
        if count == 0 {
            return Ok(());
        }
        let link = self.links.begin().await?;
        ledger::lock_shapes(&link).await?;
        for step in unit.steps.drain(..count) {
            if let Step::Ensure(table) = step {
                ddl::ensure(&link, &table).await?;
            }
        }
        self.links.commit(link).await
    }

    fn at<T>(&self, done: EtlResult<T>) -> EtlResult<T> {
        done.map_err(|error| error.with("target", &self.address))
    }
}

fn options(config: &PostgresTargetConfig) -> EtlResult<ConnectOptions> {
    let mut options = ConnectOptions::from_url(config.url.expose())?;
    if let Some(tls) = &config.tls {
        options.tls.clone_from(tls);
    }
    options.application_name = "etl destination".to_owned();
    Ok(options)
}

impl TableWriter for Postgres {
    fn name(&self) -> &str {
        "postgres"
    }

    fn capabilities(&self) -> Capabilities {
        let can = Capabilities::default().with_atomic().with_schema_changes().with_staged_runs().with_whole_runs();
        let can = if self.create.any() { can.with_table_extras() } else { can };
        if self.atomic == Atomic::Always { can.with_whole_transactions() } else { can }
    }

    /// `NAMEDATALEN` less one.
    fn name_rules(&self) -> NameRules {
        NameRules { longest: 63, ..NameRules::default() }
    }

    async fn apply(&self, mut unit: WriteUnit) -> EtlResult<()> {
        let done = async {
            let owner = self.owner().await?;
            let begun = unit.batch.as_ref().and_then(|batch| self.take_pending(batch));
            if begun.is_some() || unit.batch.as_ref().is_some_and(|batch| self.is_piece(batch)) {
                self.ensure_first(&mut unit).await?;
            }
            let mut link = match begun {
                Some(parked) => self.links.go_on(parked).await?,
                None => self.links.begin().await?,
            };
            unit::apply(&mut link, owner, &unit).await?;
            match unit.batch.filter(|batch| self.is_piece(batch)) {
                Some(batch) => drop(self.pending().insert(batch.cursor, (link.park(), batch.upto))),
                None => self.links.commit(link).await?,
            }
            Ok(())
        };
        self.at(done.await)
    }

    async fn rehearse(&self, unit: WriteUnit) -> EtlResult<()> {
        if unit.batch.as_ref().is_some_and(|batch| self.is_piece(batch) || self.pending().contains_key(&batch.cursor)) {
            let what = "a piece of a transaction cannot be taken back alone";
            return Err(EtlError::new(ErrorKind::DestinationUnsupported, what));
        }
        let done = async {
            let owner = self.owner().await?;
            let mut link = self.links.begin().await?;
            unit::apply(&mut link, owner, &unit).await?;
            // What is looked at only at the end is looked at now; without a commit the server rolls back.
            link.run("SET CONSTRAINTS ALL IMMEDIATE", "look at constraints").await
        };
        self.at(done.await)
    }

    async fn reset(&self, table: &Arc<TargetTable>) -> EtlResult<()> {
        let done = async {
            let owner = self.owner().await?;
            drop(self.pending().remove(&CursorId::Table(table.id)));
            let link = self.links.begin().await?;
            unit::reset(&link, owner, table).await?;
            self.links.commit(link).await
        };
        self.at(done.await)
    }

    async fn begin_run(&self, run: &str, tables: &[Replacement]) -> EtlResult<()> {
        let done = async {
            let owner = self.owner().await?;
            let link = self.links.begin().await?;
            staging::begin(&link, owner, run, tables).await?;
            self.links.commit(link).await
        };
        self.at(done.await)
    }

    async fn stage(&self, run: &str, unit: WriteUnit) -> EtlResult<()> {
        let done = async {
            let owner = self.owner().await?;
            let mut link = self.links.begin().await?;
            staging::stage(&mut link, owner, run, &unit).await?;
            self.links.commit(link).await
        };
        self.at(done.await)
    }

    async fn publish(&self, run: &str, tables: &[Replacement]) -> EtlResult<()> {
        let done = async {
            let owner = self.owner().await?;
            self.pending().clear();
            let link = self.links.begin().await?;
            staging::publish(&link, owner, run, tables).await?;
            self.links.commit(link).await
        };
        self.at(done.await)
    }

    async fn abandon_run(&self, run: &str, _tables: &[Replacement]) -> EtlResult<()> {
        let done = async {
            let owner = self.owner().await?;
            let link = self.links.begin().await?;
            staging::abandon(&link, owner, run).await?;
            self.links.commit(link).await
        };
        self.at(done.await)
    }

    async fn complete(&self, table: &Arc<TargetTable>, extras: &TableExtras) -> EtlResult<()> {
        if table.is_adopted {
            return Ok(());
        }
        let done = async {
            // Others go on writing meanwhile, whatever the number of `connections`.
            let session = self.links.connect().await?;
            extras::make(&session, table, extras, self.create).await
        };
        self.at(done.await)
    }

    async fn check_connection(&self) -> EtlResult<()> {
        self.at(self.links.check().await)
    }

    async fn startup(&self) -> EtlResult<()> {
        self.pending().clear();
        let done = async {
            self.owner().await?;
            // What keeps a session from its work is said before any table meets it.
            self.links.commit(self.links.begin().await?).await
        };
        self.at(done.await)
    }

    async fn shutdown(&self) -> EtlResult<()> {
        self.pending().clear();
        Ok(())
    }

    async fn go_back(&self, to: Position) -> EtlResult<()> {
        let done = async {
            let owner = self.owner().await?;
            let link = self.links.begin().await?;
            ledger::go_back(&link, owner, to).await?;
            self.links.commit(link).await
        };
        self.at(done.await)
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        let done = async {
            let owner = self.owner().await?;
            drop(self.pending().remove(&cursor));
            let link = self.links.begin().await?;
            let position = ledger::position(&link, owner, cursor).await?;
            self.links.commit(link).await?;
            Ok(position)
        };
        self.at(done.await)
    }
}

#[cfg(test)]
mod tests {
    use etl::postgres::{TlsMode, TlsOptions};

    use super::*;

    #[test]
    fn the_connection_is_encrypted_as_the_config_says() {
        let url = "postgres://u:hunter2@h/d?sslmode=disable";
        assert_eq!(options(&PostgresTargetConfig::new(url)).unwrap().tls.mode, Some(TlsMode::Disable));
        let [ca, certificate, key] = ["ca.crt", "a.crt", "a.key"].map(|file| Some(file.into()));
        let tls = TlsOptions { mode: Some(TlsMode::VerifyFull), ca, certificate, key };
        let config = PostgresTargetConfig { tls: Some(tls.clone()), ..PostgresTargetConfig::new(url) };
        assert_eq!(options(&config).unwrap().tls, tls);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
