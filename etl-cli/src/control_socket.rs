//! How do two processes on one machine talk about a pipeline? One line of JSON each way, through a socket in `data_dir`.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etl::pipeline::{PipelineHandle, TableStatus};
use etl::schema::TableId;
use etl::{ErrorKind, EtlError, EtlResult};
use etl_config::{AppConfig, DeskRequest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::failure::Failure;
use crate::shown::Shown;

const NAME: &str = "control.sock";

/// No request is longer.
const LONGEST: u64 = 64 << 10;

/// How long a request may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked of a running pipeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// How it is doing.
    Status,
    /// Hold a table back.
    Pause { table: String },
    /// Let it go on.
    Resume { table: String },
    /// Try it again, in quarantine.
    Release { table: String },
    /// Copy it anew.
    Resync { table: String },
    /// Look after operations and dead letters.
    Desk { request: DeskRequest },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The status.
    Status(Value),
    /// What there is to say.
    Found(Value),
    /// It is done.
    Done,
    /// It cannot be done.
    Refused {
        /// Why, and what helps.
        why: String,
        /// Whether it should have been asked otherwise.
        is_usage: bool,
    },
}

impl Answer {
    fn refused(why: String, is_usage: bool) -> Self {
        Self::Refused { why, is_usage }
    }

    /// What a verb ends with that was refused.
    pub(crate) fn failure(why: String, is_usage: bool) -> Failure {
        if is_usage { Failure::Usage(why) } else { Failure::Other(why) }
    }
}

/// Listens in the directory, which this process has locked; the socket goes when this is dropped.
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// # Errors
    /// When there can be no socket in the directory.
    pub(crate) fn open(data_dir: &Path) -> std::io::Result<Self> {
        let path = data_dir.join(NAME);
        // Left behind by a process that was killed: the directory is locked by this one.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let dir = File::open(data_dir)?;
        let listener = UnixListener::bind(short(&dir))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Answers until the future is dropped.
    pub(crate) async fn serve(&self, shown: &Shown) -> std::convert::Infallible {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let shown = shown.clone();
                    tokio::spawn(async move {
                        if let Err(error) = answer(stream, &shown).await {
                            tracing::debug!(%error, "a request on the control socket came to nothing");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket does not answer");
                    etl::retry::pause(PATIENCE).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The next process removes what is left.
        let _left = std::fs::remove_file(&self.path);
    }
}

/// The path of a socket has at most 107 bytes, that of a directory may have more.
fn short(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()))
}

async fn answer(stream: UnixStream, shown: &Shown) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(LONGEST));
    tokio::select! {
        read = reader.read_line(&mut line) => read?,
        () = etl::retry::pause(PATIENCE) => return Ok(()),
    };
    let answer = match serde_json::from_str(&line) {
        Ok(request) => perform(request, shown).await,
        Err(error) => Answer::refused(format!("the request is not understood: {error}"), true),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

async fn perform(request: Request, shown: &Shown) -> Answer {
    let Some(handle) = shown.handle() else { return Answer::refused("the pipeline is starting".to_owned(), false) };
    let done = match &request {
        Request::Status => return shown.status().map_or(Answer::Done, Answer::Status),
        Request::Pause { table } => wish(handle, table, PipelineHandle::pause).await,
        Request::Resume { table } => wish(handle, table, PipelineHandle::resume).await,
        Request::Release { table } => wish(handle, table, PipelineHandle::release).await,
        Request::Resync { table } => wish(handle, table, PipelineHandle::resync).await,
        Request::Desk { request } => return at_the_desk(handle, shown, request.clone()).await,
    };
    match done {
        Ok(()) => Answer::Done,
        Err(error) => Answer::refused(error.to_string(), error.kind() == ErrorKind::Config),
    }
}

async fn at_the_desk(handle: &PipelineHandle, shown: &Shown, request: DeskRequest) -> Answer {
    let Some(desk) = shown.desk() else { return Answer::refused("the pipeline is starting".to_owned(), false) };
    let goes_on = matches!(request, DeskRequest::Retry { .. } | DeskRequest::Abandon { .. });
    match desk.perform(request).await {
        Ok(found) => {
            let table = found.get("table_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
            if let Some(table) = table.filter(|_| goes_on) {
                let_go_on(handle, TableId(table)).await;
            }
            Answer::Found(found)
        }
        Err(error) => Answer::refused(error.to_string(), error.kind() == ErrorKind::Config),
    }
}

/// The table of an operation that was held need not wait for its next attempt.
async fn let_go_on(handle: &PipelineHandle, table: TableId) {
    let is_quarantined = |shown: &TableStatus| shown.id == table && shown.phase == "quarantined";
    if handle.status().tables.iter().any(is_quarantined)
        && let Err(error) = handle.release(table).await
    {
        tracing::warn!(%table, %error, "the table goes on at its next attempt");
    }
}

async fn wish<'h, F>(
    handle: &'h PipelineHandle,
    name: &str,
    wish: impl Fn(&'h PipelineHandle, TableId) -> F,
) -> EtlResult<()>
where
    F: Future<Output = EtlResult<()>>,
{
    wish(handle, table(handle, name)?).await
}

/// The table of this name: `schema.name`, or the name alone where only one schema has it.
fn table(handle: &PipelineHandle, name: &str) -> EtlResult<TableId> {
    let status = handle.status();
    let whole = status.tables.iter().find(|table| table.name.to_string() == name);
    let mut alone = status.tables.iter().filter(|table| &*table.name.name == name);
    match (whole, alone.next(), alone.next()) {
        (Some(table), _, _) | (None, Some(table), None) => Ok(table.id),
        (None, Some(_), Some(_)) => Err(EtlError::new(ErrorKind::Config, "several schemas have a table of that name")
            .with("table", name)
            .hint("Write it with its schema, such as public.users")),
        (None, None, _) => Err(EtlError::new(ErrorKind::Config, "no such table is published")
            .with("table", name)
            .hint("`etl tables list` shows them all")),
    }
}

/// Asks at the desk of a pipeline: of the one that runs, else of what it has left.
///
/// # Errors
/// What the desk says, or that nobody answers.
pub(crate) async fn ask_at_desk(config: &AppConfig, request: DeskRequest) -> Result<Value, Failure> {
    match ask(&config.pipeline.data_dir, &Request::Desk { request: request.clone() }).await? {
        Some(Answer::Found(found)) => Ok(found),
        Some(Answer::Refused { why, is_usage }) => Err(Answer::failure(why, is_usage)),
        Some(Answer::Done | Answer::Status(_)) => Err(Failure::Other("the pipeline did not answer that".to_owned())),
        None => Ok(config.desk().await?.perform(request).await?),
    }
}

/// Asks the pipeline that runs on a directory; nothing where none does.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn ask(data_dir: &Path, request: &Request) -> Result<Option<Answer>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::Other(format!("the pipeline on {} does not answer: {error}", data_dir.display()))
    };
    let Ok(dir) = File::open(data_dir) else { return Ok(None) };
    let stream = match UnixStream::connect(short(&dir)).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let (reader, mut writer) = stream.into_split();
    let mut text = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    writer.write_all(&text).await.map_err(failed)?;
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).await.map_err(failed)?;
    if line.is_empty() {
        return Err(Failure::Other(format!("the pipeline on {} ended before it answered", data_dir.display())));
    }
    serde_json::from_str(&line).map(Some).map_err(|error| failed(error.into()))
}
