//! Who cleans up when this process is killed? A small shell that waits for the end of its input.

use std::{
    io::Write,
    path::Path,
    process::{Child, ChildStdin, Stdio},
};

use crate::{Error, account::Account};

/// Reads the server's process id from its input (an empty line: no server). At the end of the input, which comes with
/// the end of this process however it ends, the server is stopped at once and the directory is removed.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
  kill -QUIT "$pid" 2>/dev/null
  tries=0
  while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 60 ]; do sleep 0.05; tries=$((tries + 1)); done
  kill -KILL "$pid" 2>/dev/null
fi
[ -z "$2" ] || rm -rf -- "$1"
"#;

#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
    input: Option<ChildStdin>,
}

impl Guard {
    /// Watches over a directory; `keep` leaves it for whoever wants to look into it.
    pub(crate) fn over(root: &Path, account: Account, keep: bool) -> Result<Self, Error> {
        let mut shell = account
            .process("/bin/sh")
            .args(["-c", SCRIPT, "etl-postgres-guard"])
            .arg(root)
            .arg(if keep { "" } else { "remove" })
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| Error::io("starting the guard of the server", e))?;
        let input = shell.stdin.take();
        Ok(Self { shell, input })
    }

    /// Tells which process to stop in the end.
    pub(crate) fn watch(&mut self, pid: Option<u32>) -> Result<(), Error> {
        let line = pid.map_or_else(|| "\n".to_owned(), |pid| format!("{pid}\n"));
        match &mut self.input {
            Some(input) => {
                input.write_all(line.as_bytes()).map_err(|e| Error::io("telling the guard of the server", e))
            }
            None => Ok(()),
        }
    }

    /// Lets the guard do its work; [`Guard::wait`] waits for its end.
    pub(crate) fn release(&mut self) {
        self.input = None;
    }

    pub(crate) fn wait(&mut self) {
        self.release();
        let _ = self.shell.wait();
    }
}
