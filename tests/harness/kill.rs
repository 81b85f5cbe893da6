//! How is the program started, watched, killed and started again?

use std::{
    collections::VecDeque,
    env, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{RngExt, rngs::StdRng};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::{OnceCell, watch},
};

const KEPT_LINES: usize = 20_000;

/// How the program is started, again and again the same.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Arc<Mutex<VecDeque<String>>>,
    seen: watch::Receiver<u64>,
}

impl Program {
    /// The binary `etl`: the one that `ETL_BIN` names, else that of this workspace, built first.
    pub async fn etl<I: Into<String>>(arguments: impl IntoIterator<Item = I>) -> Self {
        static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
        Self::at(BUILT.get_or_init(etl_binary).await, arguments)
    }

    /// Any program.
    pub fn at<I: Into<String>>(path: &Path, arguments: impl IntoIterator<Item = I>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { path: path.to_owned(), arguments, variables: Vec::new() }
    }

    /// Where the program is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Arms failpoints, as `etl::failpoint` reads them: `name=action[@n];...`.
    #[must_use]
    pub fn failpoints(self, spec: impl Into<String>) -> Self {
        self.variable("ETL_FAILPOINTS", spec)
    }

    /// Starts it and collects the lines of both of its outputs.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(&self) -> io::Result<Running> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).envs(self.variables.iter().map(|(n, v)| (n, v)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let (told, seen) = watch::channel(0);
        let told = Arc::new(told);
        if let Some(output) = child.stdout.take() {
            tokio::spawn(collect(output, Arc::clone(&lines), Arc::clone(&told)));
        }
        if let Some(output) = child.stderr.take() {
            tokio::spawn(collect(output, Arc::clone(&lines), told));
        }
        Ok(Running { child, lines, seen })
    }
}

async fn collect(output: impl AsyncRead + Unpin, lines: Arc<Mutex<VecDeque<String>>>, told: Arc<watch::Sender<u64>>) {
    let mut output = BufReader::new(output);
    let mut bytes = Vec::new();
    let mut file = kept_output();
    while output.read_until(b'\n', &mut bytes).await.is_ok_and(|read| read > 0) {
        if let Some(file) = &mut file {
            // What is lost of it, nobody looks into.
            let _ = std::io::Write::write_all(file, &bytes);
        }
        let mut kept = lines.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(String::from_utf8_lossy(&bytes).trim_end().to_owned());
        if kept.len() > KEPT_LINES {
            kept.pop_front();
        }
        drop(kept);
        bytes.clear();
        told.send_modify(|count| *count += 1);
    }
}

/// The file of all output of all runs, where somebody wants to look into what is left (`ETL_KEEP`, a directory).
fn kept_output() -> Option<std::fs::File> {
    let path = PathBuf::from(env::var_os("ETL_KEEP")?).join("output.log");
    std::fs::OpenOptions::new().create(true).append(true).open(path).ok()
}

impl Running {
    /// Everything that it has written so far, up to 20000 lines.
    #[must_use]
    pub fn output(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Waits until a line contains the text; gives that line.
    ///
    /// # Errors
    /// The output ended without it, or time ran out; the text holds the output.
    pub async fn line(&mut self, text: &str, longest: Duration) -> Result<String, String> {
        let find = |lines: &Mutex<VecDeque<String>>| {
            let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.iter().find(|line| line.contains(text)).cloned()
        };
        let waiting = async {
            loop {
                self.seen.mark_unchanged();
                if let Some(line) = find(&self.lines) {
                    return Some(line);
                }
                if self.seen.changed().await.is_err() {
                    return find(&self.lines);
                }
            }
        };
        let found = tokio::time::timeout(longest, waiting).await.ok().flatten();
        found.ok_or_else(|| format!("no line with `{text}`\n{}", self.output()))
    }

    /// Asks again and again until it holds or the program has ended.
    ///
    /// # Errors
    /// Time ran out or the program ended; the text holds the output.
    pub async fn until(&mut self, longest: Duration, mut holds: impl AsyncFnMut() -> bool) -> Result<(), String> {
        let asking = async {
            while !holds().await {
                if let Ok(Some(status)) = self.child.try_wait() {
                    return Err(format!("the program ended with {status}"));
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            Ok(())
        };
        let asked = tokio::time::timeout(longest, asking).await.unwrap_or_else(|_| Err("time ran out".to_owned()));
        asked.map_err(|what| format!("{what}\n{}", self.output()))
    }

    /// Kills it at once, as `kill -9` does, and waits for its end.
    pub async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }

    /// Asks it to end, as `kill` does.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to end, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Lets it stand still, as a machine that swaps or a virtual one that is moved does.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Time ran out; the text holds the output.
    pub async fn end(&mut self, longest: Duration) -> Result<ExitStatus, String> {
        match tokio::time::timeout(longest, self.child.wait()).await {
            Ok(Ok(status)) => {
                // Its last words; a child of its own may hold the output open for longer.
                let told = async { while self.seen.changed().await.is_ok() {} };
                let _ = tokio::time::timeout(Duration::from_secs(10), told).await;
                Ok(status)
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it did not end within {longest:?}\n{}", self.output())),
        }
    }

    /// The most bytes of memory that it has had at a time; `None` where nobody says so, or it has ended.
    #[must_use]
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(peak.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal); // one that has ended needs none
        }
    }
}

/// Kills and starts a program again and again, at times drawn from a seed.
#[derive(Debug)]
pub struct KillStorm {
    rng: StdRng,
    shortest: Duration,
    longest: Duration,
}

impl KillStorm {
    /// Lives of the program last between the two times.
    #[must_use]
    pub fn new(seed: u64, shortest: Duration, longest: Duration) -> Self {
        println!("kill storm seed {seed}");
        Self { rng: crate::seed::numbers(seed, 0x6b69_6c6c), shortest, longest }
    }

    /// Starts and kills the program so many times, then starts it once more and leaves it running.
    ///
    /// # Errors
    /// It could not be started, or a life ended by itself with an exit code; the text holds its output.
    pub async fn rage(&mut self, program: &Program, kills: u32) -> Result<Running, String> {
        for life in 1..=kills {
            let mut running = program.start().map_err(|e| e.to_string())?;
            let lasts = self.rng.random_range(self.shortest..=self.longest);
            match running.end(lasts).await {
                // An armed failpoint may have been faster; an exit code means that it gave up.
                Ok(status) if status.code().is_some() => {
                    return Err(format!("life {life} ended with {status}\n{}", running.output()));
                }
                _ => running.kill().await,
            }
        }
        program.start().map_err(|e| e.to_string())
    }
}

/// Builds `etl` with the features that the workspace as a whole has, as the tests were built.
async fn etl_binary() -> PathBuf {
    if let Some(path) = env::var_os("ETL_BIN") {
        return PathBuf::from(path);
    }
    let test = env::current_exe().expect("a path of this test");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps/<test>").to_owned();
    let target = profile.parent().expect("a target directory");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--workspace", "--bin", "etl", "--quiet", "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = cargo.current_dir(root).status().await.expect("cargo runs");
    assert!(status.success(), "cargo build of `etl` failed");
    profile.join("etl")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Program {
        Program::at(Path::new("/bin/sh"), ["-c", script])
    }

    #[tokio::test]
    async fn a_line_is_waited_for_and_its_absence_is_told_with_the_output() {
        let mut running = shell("echo one; sleep 0.1; echo \"two $ETL_FAILPOINTS\" >&2")
            .failpoints("a=kill")
            .start()
            .expect("started");
        assert_eq!(running.line("two", SOON).await.expect("a line"), "two a=kill");
        let error = running.line("three", SOON).await.expect_err("no such line");
        assert!(error.contains("one\ntwo a=kill"), "{error}");
        assert!(running.end(SOON).await.expect("an end").success());
    }

    #[tokio::test]
    async fn a_program_can_be_asked_to_end_and_be_killed() {
        let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
        let mut running = shell(script).start().expect("started");
        running.line("up", SOON).await.expect("up");
        running.terminate();
        assert_eq!(running.end(SOON).await.expect("an end").code(), Some(3));
        let mut running = shell(script).start().expect("started");
        running.line("up", SOON).await.expect("up");
        running.kill().await;
        assert_eq!(running.end(SOON).await.expect("an end").code(), None);
    }

    #[tokio::test]
    async fn a_storm_starts_the_program_once_more_than_it_kills_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lives");
        let program = shell(&format!("echo x >> {}; echo up; sleep 60", path.display()));
        let mut storm = KillStorm::new(1, Duration::from_millis(60), Duration::from_millis(90));
        let mut running = storm.rage(&program, 3).await.expect("a last life");
        running.line("up", SOON).await.expect("up");
        assert_eq!(std::fs::read_to_string(path).expect("lives").lines().count(), 4);
        let gives_up = storm.rage(&shell("echo why; exit 7"), 1).await.expect_err("it gave up");
        assert!(gives_up.contains("why"), "{gives_up}");
    }
}
