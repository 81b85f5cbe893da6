//! Over which sessions is the target written to? A few, each used by one transaction at a time.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::postgres::{ConnectOptions, Session, query_error};
use etl::schema::TableName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::error::{PostgresResult, failed};
use super::origin::{self, Origin, Origins};

/// The sessions.
#[derive(Debug)]
pub(super) struct Links {
    options: ConnectOptions,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<Seat>>,
    has_origins: bool,
    /// Known once the pipeline has a name in the target.
    origins: OnceLock<Origins>,
}

/// A commit empties all stages of a session, so they are few.
const MOST_STAGES: usize = 24;

/// A session, and the tables of its own that hold rows on their way.
#[derive(Debug)]
struct Seat {
    session: Session,
    stages: Vec<Stage>,
    /// After the session: when that is dropped, it is free.
    _origin: Option<Origin>,
}

#[derive(Debug)]
struct Stage {
    name: String,
    definition: String,
    /// The open transaction has put rows into it.
    is_used: bool,
}

/// A session with an open transaction. Dropped before it is committed, it goes with its connection, and the server
/// rolls back.
#[derive(Debug)]
pub(super) struct Link {
    seat: Seat,
    permit: OwnedSemaphorePermit,
}

/// A session whose open transaction waits for its next piece. It keeps nobody else from writing.
#[derive(Debug)]
pub(super) struct Parked(Seat);

impl Links {
    /// At most so many at a time, those that are parked not among them.
    pub(super) fn new(options: ConnectOptions, most: u16, has_origins: bool) -> Self {
        let (free, origins) = (Arc::new(Semaphore::new(most.max(1).into())), OnceLock::new());
        Self { options, free, idle: Mutex::default(), has_origins, origins }
    }

    /// The pipeline has this name in the target.
    pub(super) fn are_of(&self, name: &str) {
        if self.has_origins && self.origins.set(Origins::new(name)).is_ok() {
            // Whoever asked for the name had none.
            self.idle().clear();
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Seat>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new session.
    pub(super) async fn connect(&self) -> EtlResult<Session> {
        let session = Session::connect(&self.options).await;
        session.map_err(|error| failed("be reached", error).with("server", self.options.address()))
    }

    /// That the server can be reached, and takes tables; changes nothing.
    pub(super) async fn check(&self) -> EtlResult<()> {
        let session = self.connect().await?;
        let asked = "SELECT (current_setting('transaction_read_only') = 'off')::text,
                            has_database_privilege(current_database(), 'CREATE')::text";
        let rows = session.client().simple_query(asked).await.or_postgres("be asked what is allowed")?;
        let is = |place| {
            rows.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(place) == Some("true")))
        };
        let refused = |what: &'static str, hint: &'static str| {
            Err(EtlError::new(ErrorKind::Config, what).with("server", self.options.address()).hint(hint))
        };
        match (is(0), is(1)) {
            (true, true) if self.has_origins => origin::check(session.client()).await,
            (true, true) => Ok(()),
            (false, _) => refused("the target cannot be written", "Name a primary, not a standby, in the `url`"),
            (true, false) => refused("the user may not make schemas in the target", "GRANT CREATE ON DATABASE to it"),
        }
    }

    async fn turn(&self) -> EtlResult<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_owned().await.or_etl(ErrorKind::Internal, "wait for a session")
    }

    /// Goes on with a transaction.
    pub(super) async fn go_on(&self, Parked(seat): Parked) -> EtlResult<Link> {
        Ok(Link { seat, permit: self.turn().await? })
    }

    /// A session in a new transaction.
    pub(super) async fn begin(&self) -> EtlResult<Link> {
        let permit = self.turn().await?;
        // One that was lost meanwhile is of no use, and the others may be as old.
        let idle = self.idle().pop();
        if let Some(seat) = idle.filter(|seat| !seat.session.client().is_closed()) {
            let link = Link { seat, permit };
            if link.run("BEGIN", "begin a transaction").await.is_ok() {
                return Ok(link);
            }
            self.idle().clear();
            return self.begin_anew(link.permit).await;
        }
        self.begin_anew(permit).await
    }

    async fn begin_anew(&self, permit: OwnedSemaphorePermit) -> EtlResult<Link> {
        let session = self.connect().await?;
        // A commit that was answered has to survive a crash of the server: the source lets go of what it held.
        // A transaction waits for its next piece as long as the source takes.
        let begin = "SELECT set_config('synchronous_commit', 'on', false)
                      WHERE current_setting('synchronous_commit') = 'off';
                     SET idle_in_transaction_session_timeout = 0; BEGIN";
        let origin = match self.origins.get() {
            Some(origins) => Some(origins.enter(session.client()).await?),
            None => None,
        };
        let link = Link { seat: Seat { session, stages: Vec::new(), _origin: origin }, permit };
        link.run(begin, "begin a transaction").await?;
        Ok(link)
    }

    /// Ends the transaction, for good.
    pub(super) async fn commit(&self, mut link: Link) -> EtlResult<()> {
        link.client().batch_execute("COMMIT").await.map_err(|error| {
            // What is looked at only now is of some table.
            let database = error.as_db_error();
            let table = database.and_then(|error| Some(TableName::new(error.schema()?, error.table()?)));
            let failed = failed("commit", query_error("commit", error));
            table.into_iter().fold(failed, |failed, table| failed.with("table", table))
        })?;
        for stage in &mut link.seat.stages {
            stage.is_used = false;
        }
        self.idle().push(link.seat);
        Ok(())
    }
}

impl Link {
    /// Leaves the transaction open until its next piece comes.
    pub(super) fn park(self) -> Parked {
        Parked(self.seat)
    }

    pub(super) fn client(&self) -> &Client {
        self.seat.session.client()
    }

    /// Runs statements.
    pub(super) async fn run(&self, sql: &str, doing: &'static str) -> EtlResult<()> {
        self.client().batch_execute(sql).await.or_postgres(doing)
    }

    /// Runs statements, the last of which gives rows of text.
    pub(super) async fn rows(&self, sql: &str, doing: &'static str) -> EtlResult<Vec<SimpleQueryRow>> {
        let messages = self.client().simple_query(sql).await.or_postgres(doing)?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// Makes an empty table of the session's own that holds rows on their way; a query gives its columns.
    pub(super) async fn stage(&mut self, name: &str, definition: String) -> EtlResult<()> {
        let known = self.seat.stages.iter().position(|stage| stage.name == name);
        let mut sql = String::new();
        match known.map(|place| self.seat.stages.remove(place)) {
            Some(stage) if stage.definition == definition => {
                if stage.is_used {
                    sql = format!("DELETE FROM pg_temp.{name}");
                }
            }
            outdated => {
                let full = self.seat.stages.len() >= MOST_STAGES;
                let oldest = full.then(|| self.seat.stages.remove(0));
                for stage in outdated.into_iter().chain(oldest) {
                    sql.push_str(&format!("DROP TABLE pg_temp.{};", stage.name));
                }
                sql.push_str(&format!("CREATE TEMP TABLE {name} ON COMMIT DELETE ROWS AS {definition} WITH NO DATA"));
            }
        }
        if !sql.is_empty() {
            self.run(&sql, "prepare rows").await?;
        }
        self.seat.stages.push(Stage { name: name.to_owned(), definition, is_used: true });
        Ok(())
    }
}
