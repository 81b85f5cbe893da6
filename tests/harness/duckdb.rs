//! What does a DuckDB file hold, as DuckDB itself reads it?

use std::{
    env, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Mutex, OnceCell},
};

/// The version that `make setup` fetches; it reads what libduckdb of the same version has written.
const VERSION: &str = "1.5.6";

/// A row as text, column by column; `None` is null.
pub type Row = Vec<Option<String>>;

/// DuckDB's own Python package. It opens the file read-only, so no other process may have it open for writing.
#[derive(Debug, Clone)]
pub struct Reader {
    packages: PathBuf,
    /// Answers one query after the other; not there before the first, and while it answers.
    server: Arc<Mutex<Option<Server>>>,
}

#[derive(Debug)]
struct Server {
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

/// Whether the package is there does not change while tests run.
static FOUND: OnceCell<Option<PathBuf>> = OnceCell::const_new();

impl Reader {
    /// Finds the package where `make setup` puts it, or where `ETL_DUCKDB_READER` says; `None` where it is not.
    pub async fn find() -> Option<Self> {
        let packages = FOUND.get_or_init(Self::packages).await.clone()?;
        Some(Self { packages, server: Arc::default() })
    }

    async fn packages() -> Option<PathBuf> {
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
        let packages = env::var_os("ETL_DUCKDB_READER")
            .map(PathBuf::from)
            .or_else(|| cache.map(|cache| cache.join("etl/duckdb-reader").join(VERSION)))?;
        let reader = Self { packages, server: Arc::default() };
        let output = reader.python().args(["-c", "import duckdb"]).output().await.ok()?;
        output.status.success().then_some(reader.packages)
    }

    /// Like [`Reader::find`]; its absence counts as a skip.
    pub async fn find_or_skip() -> Option<Self> {
        let found = Self::find().await;
        if found.is_none() {
            crate::skip::skip("DuckDB's own reader is not here: run `make setup`");
        }
        found
    }

    /// The rows of a query.
    ///
    /// # Errors
    /// What DuckDB says.
    pub async fn query(&self, file: &Path, sql: &str) -> Result<Vec<Row>, String> {
        let mut kept = self.server.lock().await;
        // One whose answer nobody waited for is gone with it.
        let mut server = match kept.take() {
            Some(server) => server,
            None => self.serve().map_err(|error| error.to_string())?,
        };
        let (rows, end) = server.ask(file, sql).await.map_err(|error| error.to_string())?;
        *kept = Some(server);
        match end["error"].as_str() {
            Some(error) => Err(format!("DuckDB, {}: {error}\nin {sql}", file.display())),
            None => Ok(rows),
        }
    }

    fn serve(&self) -> io::Result<Server> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/duckdb_reader.py");
        let mut command = self.python();
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn()?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (requests, answers) = pipes.ok_or_else(|| io::Error::other("a process without pipes"))?;
        Ok(Server { requests, answers: BufReader::new(answers).lines(), _process: process })
    }

    /// Runs a script of Python that may write, as the tests of this module need it.
    pub(crate) fn python(&self) -> Command {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", &self.packages).env("PYTHONUTF8", "1");
        command
    }

    /// Writes a file by SQL: what somebody else has put there.
    pub async fn write(&self, file: &Path, sql: &str) {
        let script = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute(sys.argv[2])";
        let output = self.python().args(["-c", script]).arg(file).arg(sql).output().await.expect("python");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Server {
    /// The rows, and the object that ends them.
    async fn ask(&mut self, file: &Path, sql: &str) -> io::Result<(Vec<Row>, Value)> {
        let request = serde_json::to_string(&(file, sql))? + "\n";
        self.requests.write_all(request.as_bytes()).await?;
        let mut rows = Vec::new();
        while let Some(line) = self.answers.next_line().await? {
            if line.starts_with('{') {
                return Ok((rows, serde_json::from_str(&line)?));
            }
            rows.push(serde_json::from_str(&line)?);
        }
        Err(io::Error::other("DuckDB's reader ended"))
    }
}
