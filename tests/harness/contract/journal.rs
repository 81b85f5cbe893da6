//! What was a vendor asked, on disk? A line a request, followed by its body; what a test did is among them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Asked;

/// What happened to a vendor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Event {
    /// It was asked something, with a body of so many bytes.
    Asked(Asked, usize),
    /// Time passed that nobody waited for.
    Passed(Duration),
    /// Credentials were taken back or given again.
    Credentials(String, bool),
}

/// The file that all that happened is in.
#[derive(Debug)]
pub(super) struct Journal(File);

impl Journal {
    /// The journal of a directory, and what is in it. What was not written to its end is not.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Vec<Event>)> {
        fs::create_dir_all(dir)?;
        let path = dir.join("requests.log");
        let bytes = fs::read(&path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(Vec::new()),
            _ => Err(error),
        })?;
        let mut events = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((event, after)) = event(rest) {
            events.push(event);
            rest = after;
        }
        let file = File::options().create(true).append(true).open(path)?;
        file.set_len((bytes.len() - rest.len()) as u64)?;
        Ok((Self(file), events))
    }

    pub(super) fn write(&mut self, event: &Event) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(event)?;
        bytes.push(b'\n');
        if let Event::Asked(asked, _) = event {
            bytes.extend_from_slice(&asked.body);
            bytes.push(b'\n');
        }
        self.0.write_all(&bytes)
    }
}

fn event(bytes: &[u8]) -> Option<(Event, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let event: Event = serde_json::from_slice(&bytes[..end]).ok()?;
    let rest = &bytes[end + 1..];
    match event {
        Event::Asked(mut asked, length) => {
            asked.body = rest.get(..length)?.to_vec();
            Some((Event::Asked(asked, length), rest.get(length + 1..)?))
        }
        event => Some((event, rest)),
    }
}
