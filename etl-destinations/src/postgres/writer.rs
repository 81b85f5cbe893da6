//! How is another Postgres written to? A transaction a unit, over a few sessions.

use std::fmt;
use std::sync::Arc;

use etl::destination::Capabilities;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::postgres::ConnectOptions;
use etl::store::SharedStore;
use etl::{CursorId, Position};
use tokio::sync::OnceCell;

use super::config::PostgresTargetConfig;
use super::link::Links;
use super::{ledger, unit};
use crate::table_destination::TableDestination;
use crate::table_name::NameRules;
use crate::table_rules::TableRules;
use crate::writer::{TableWriter, TargetTable, WriteUnit};

/// The fact of the store by which a target knows whose positions it holds.
const OWNER: &str = "destination.postgres";

/// Writes tables into another Postgres, exactly once.
pub struct Postgres {
    links: Links,
    address: String,
    store: SharedStore,
    /// Known once the target has its ledger.
    owner: OnceCell<String>,
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
        let links = Links::new(options, config.connections);
        let writer = Self { links, address, store: Arc::clone(&store), owner: OnceCell::new() };
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
            Ok::<_, EtlError>(owner)
        });
        Ok(made.await?)
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
        Capabilities::default().with_atomic().with_schema_changes()
    }

    /// `NAMEDATALEN` less one.
    fn name_rules(&self) -> NameRules {
        NameRules { longest: 63, ..NameRules::default() }
    }

    async fn apply(&self, unit: WriteUnit) -> EtlResult<()> {
        let done = async {
            let owner = self.owner().await?;
            let mut link = self.links.begin().await?;
            unit::apply(&mut link, owner, &unit).await?;
            self.links.commit(link).await
        };
        self.at(done.await)
    }

    async fn reset(&self, table: &Arc<TargetTable>) -> EtlResult<()> {
        let done = async {
            let owner = self.owner().await?;
            let link = self.links.begin().await?;
            unit::reset(&link, owner, table).await?;
            self.links.commit(link).await
        };
        self.at(done.await)
    }

    async fn check_connection(&self) -> EtlResult<()> {
        self.at(self.links.check().await)
    }

    async fn startup(&self) -> EtlResult<()> {
        self.at(self.owner().await.map(drop))
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
