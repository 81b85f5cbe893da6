//! What does a DuckDB file hold, as DuckDB itself reads it?

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{io::AsyncWriteExt, process::Command};

/// The version that `make setup` fetches; it reads what libduckdb of the same version has written.
const VERSION: &str = "1.5.6";

/// A row as text, column by column; `None` is null.
pub type Row = Vec<Option<String>>;

/// DuckDB's own Python package. It opens the file read-only, so no other process may have it open for writing.
#[derive(Debug, Clone)]
pub struct Reader {
    packages: PathBuf,
}

impl Reader {
    /// Finds the package where `make setup` puts it, or where `ETL_DUCKDB_READER` says; `None` where it is not.
    pub async fn find() -> Option<Self> {
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
        let packages = env::var_os("ETL_DUCKDB_READER")
            .map(PathBuf::from)
            .or_else(|| cache.map(|cache| cache.join("etl/duckdb-reader").join(VERSION)))?;
        let reader = Self { packages };
        let output = reader.python().args(["-c", "import duckdb"]).output().await.ok()?;
        output.status.success().then_some(reader)
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
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/duckdb_reader.py");
        let mut command = self.python();
        command.arg(script).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().map_err(|e| e.to_string())?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(sql.as_bytes()).await.map_err(|e| e.to_string())?;
        }
        let output = child.wait_with_output().await.map_err(|e| e.to_string())?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            let last = error.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned();
            return Err(format!("DuckDB, {}: {last}\nin {sql}", file.display()));
        }
        let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).map_err(|e| e.to_string())).collect()
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
