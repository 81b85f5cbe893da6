//! Does `sftp` keep its promises, its files on OpenSSH's server read by Python and DuckDB and folded into rows?

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use etl::conformance_tests;
use etl::destination::conformance::{Abilities, Fault, Subject, UNSENT, fold};
use etl::destination::{AnyDestination, Mode, StampedText, TextRow};
use etl::schema::TableSchema;
use etl::store::{BoxFuture, SharedStore};
use etl::{ErrorKind, EtlError, EtlResult, Lsn, Position};
use etl_destinations::sftp::{Sftp, SftpConfig, SftpFormat};
use etl_destinations::table_name::{Case, NameRules};
use etl_destinations::table_rules::TableRules;
use harness::change_log::{Logged, read};
use harness::duckdb::Reader;
use harness::proxy::Proxy;
use harness::sshd::Sshd;

use crate::names::Names;
use crate::network::suffers;
use crate::rules::all_in;
use crate::table::told;

/// A server for files, behind a network that can fail.
pub(crate) struct Inbox {
    pub(crate) sshd: Sshd,
    reader: Reader,
    spool: tempfile::TempDir,
    proxy: Proxy,
    format: SftpFormat,
    names: Names,
    /// Whether it was opened for current states.
    is_current: AtomicBool,
}

/// What no text of a case is.
const NULL_MARKER: &str = "<null>";

/// What the paths of files can hold.
const NAMES: NameRules = NameRules {
    case: Case::Ignored,
    allows: |character| !character.is_control() && !matches!(character, '/' | '\\' | '.'),
    longest: 100,
    width: char::len_utf8,
};

/// The settings with which a server is reached.
pub(crate) fn reaching(sshd: &Sshd) -> SftpConfig {
    SftpConfig {
        port: sshd.port(),
        private_key: Some(sshd.key()),
        known_hosts: Some(sshd.known_hosts()),
        path: sshd.files().display().to_string(),
        ..SftpConfig::new("127.0.0.1", sshd.user())
    }
}

impl Inbox {
    fn config(&self) -> SftpConfig {
        SftpConfig {
            port: self.proxy.port(),
            known_hosts: None,
            host_keys: vec![self.sshd.fingerprint()],
            format: self.format,
            null_marker: NULL_MARKER.to_owned(),
            timeout: Duration::from_secs(2),
            ..reaching(&self.sshd)
        }
        .of_pipeline("suite", self.spool.path())
    }

    fn opened(&self, rules: TableRules, store: SharedStore) -> EtlResult<AnyDestination> {
        self.names.are_of(&store);
        Ok(AnyDestination::new(Sftp::with_config(self.config(), store, rules)?))
    }

    async fn stamped(&self, table: &TableSchema) -> EtlResult<Vec<StampedText>> {
        let named = self.names.of(table, NAMES).await?;
        let path = self.sshd.files().join(&*named.table.schema).join(&*named.table.name);
        let log = read(&self.reader, &path, NULL_MARKER).await;
        let log = log.map_err(|error| EtlError::new(ErrorKind::Internal, error))?;
        Ok(log.unwrap_or_default().into_iter().map(|logged| stamped(logged, &named.columns)).collect())
    }
}

fn stamped(mut logged: Logged, columns: &[String]) -> StampedText {
    let unsent = || Some(UNSENT.to_owned());
    let values = columns.iter().map(|name| logged.values.remove(name).unwrap_or_else(unsent)).collect();
    let (commit, ordinal) = logged.position;
    StampedText { position: Position::new(Lsn(commit), ordinal), change_type: logged.change_type, values }
}

/// What files in `upsert` come to: the newest that is told of each key, over what an older one says of what it leaves out.
fn current(mut rows: Vec<StampedText>, table: &TableSchema) -> Vec<StampedText> {
    let key =
        |row: &StampedText| -> TextRow { table.key.iter().map(|at| row.values[usize::from(*at)].clone()).collect() };
    rows.sort_by_key(|row| row.position);
    let mut found: Vec<StampedText> = Vec::new();
    for mut row in rows {
        let place = found.iter().position(|other| key(other) == key(&row));
        let before = place.map(|place| found.remove(place));
        if row.change_type == "DELETE" {
            continue;
        }
        for (place, value) in row.values.iter_mut().enumerate().filter(|(_, value)| value.as_deref() == Some(UNSENT)) {
            *value = before.as_ref().and_then(|before| before.values[place].clone());
        }
        found.push(StampedText { change_type: "UPSERT".to_owned(), ..row });
    }
    found
}

impl Subject for Inbox {
    fn open(&self, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        Box::pin(async { self.opened(TableRules::default(), store) })
    }

    fn rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<TextRow>>>> {
        Box::pin(async { Ok(Some(fold(self.stamped(table).await?, table))) })
    }

    fn abilities(&self) -> Abilities {
        let abilities = Abilities::default().with_log();
        if self.format == SftpFormat::Csv { abilities.without_unsent() } else { abilities }
    }

    fn modes(&self) -> &[Mode] {
        &[Mode::Append, Mode::Upsert]
    }

    fn open_in(&self, mode: Mode, store: SharedStore) -> BoxFuture<'_, EtlResult<AnyDestination>> {
        self.is_current.store(mode == Mode::Upsert, Relaxed);
        Box::pin(async move { self.opened(all_in(mode), store) })
    }

    fn stamped_rows<'a>(&'a self, table: &'a TableSchema) -> BoxFuture<'a, EtlResult<Option<Vec<StampedText>>>> {
        Box::pin(async {
            let rows = self.stamped(table).await?;
            Ok(Some(if self.is_current.load(Relaxed) { current(rows, table) } else { rows }))
        })
    }

    fn suffer(&self, fault: Option<Fault>) -> BoxFuture<'_, EtlResult<bool>> {
        Box::pin(async move {
            // What is said is encrypted: no answer can be lost by what it is to.
            if fault == Some(Fault::LoseAnswers) {
                self.proxy.control().half_open(harness::proxy::Direction::ToClient);
            } else {
                suffers(&self.proxy, fault, b"");
            }
            Ok(true)
        })
    }
}

pub(crate) async fn inbox(format: SftpFormat) -> Option<Inbox> {
    let (reader, sshd) = (Reader::find_or_skip().await?, Sshd::start_or_skip().await?);
    let proxy = Proxy::start(sshd.address()).await.unwrap();
    let (spool, names, is_current) = (tempfile::tempdir().unwrap(), Names::default(), AtomicBool::new(false));
    Some(Inbox { sshd, reader, spool, proxy, format, names, is_current })
}

async fn jsonl() -> Option<Inbox> {
    inbox(SftpFormat::Jsonl).await
}

conformance_tests!(jsonl, told);
