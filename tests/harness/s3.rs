//! Where is S3 in tests? moto's server on loopback, which enforces conditional puts, one a test binary.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{ChildStdin, Command},
    sync::OnceCell,
};

/// What `make setup` fetches.
const VERSION: &str = "5.2.5-21.0.0";

/// A bucket of its own.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// How the server is reached.
    pub endpoint: String,
    /// Its name.
    pub name: String,
}

struct Server {
    endpoint: String,
    /// It ends with this.
    _input: ChildStdin,
}

/// Python with pyarrow, boto3 and moto; `None` where `make setup` could not get them.
pub async fn python() -> Option<Command> {
    let found = command();
    let output = command().args(["-c", "import pyarrow, boto3, moto"]).output().await.ok()?;
    output.status.success().then_some(found)
}

fn command() -> Command {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let packages = cache.unwrap_or_default().join("etl/parquet-readers").join(VERSION);
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages).env("PYTHONUTF8", "1").kill_on_drop(true);
    command
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("harness").join(name)
}

impl Bucket {
    /// An empty bucket; where it cannot be had, that counts as a skip.
    pub async fn make_or_skip() -> Option<Self> {
        static SERVER: OnceCell<Option<Server>> = OnceCell::const_new();
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let Some(server) = SERVER.get_or_init(start).await else {
            crate::skip::skip_part("there is no S3 here: run `make setup`");
            return None;
        };
        let bucket = Self { endpoint: server.endpoint.clone(), name: format!("bucket-{}", MADE.fetch_add(1, Relaxed)) };
        bucket.client(&[]).await;
        Some(bucket)
    }

    /// Puts all of its objects into a directory.
    pub async fn mirror(&self, directory: &Path) {
        self.client(&[directory.to_str().expect("a path of text")]).await;
    }

    async fn client(&self, words: &[&str]) {
        let mut command = command();
        command.arg(script("s3_mirror.py")).args([&self.endpoint, &self.name]).args(words);
        let output = command.output().await.expect("python");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

async fn start() -> Option<Server> {
    let mut python = python().await?;
    python.arg(script("moto_server.py")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // It outlives the test that began it, and ends with the process.
    let mut child = python.kill_on_drop(false).spawn().ok()?;
    let input = child.stdin.take()?;
    let mut lines = BufReader::new(child.stdout.take()?).lines();
    let port: u16 = lines.next_line().await.ok()??.trim().parse().ok()?;
    Some(Server { endpoint: format!("http://127.0.0.1:{port}"), _input: input })
}
