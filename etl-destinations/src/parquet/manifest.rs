//! What is durable? Numbered manifests, each written only where there is none of its number.

use std::sync::Arc;

use bytes::Bytes;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};

use super::layout::{MANIFESTS, manifest, manifest_number};
use super::state::{Entry, State};
use crate::storage::Location;

/// After as many manifests, and as many bytes as the last whole one has, a whole one is written.
const FEWEST_BETWEEN_WHOLE: u64 = 64;

/// How often opening is tried anew because somebody else was faster.
const MOST_RACES: usize = 8;

/// The manifests of a location, of which this process writes the next.
#[derive(Debug)]
pub(super) struct Manifests {
    location: Arc<Location>,
    session: String,
    state: State,
    /// The number of the next.
    next: u64,
    /// The number of the last whole one, its size, and the bytes since then.
    whole: u64,
    whole_bytes: u64,
    bytes_since: u64,
    /// Another process has taken over.
    is_taken: bool,
    /// Where this process only rearranges files: the session of the process that writes rows.
    host: Option<String>,
}

/// What has become of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Put {
    Written,
    /// Files have been rearranged from beside, and the entry says which there were.
    Overtaken,
}

/// What was found.
struct Found {
    state: State,
    next: u64,
    whole: Option<u64>,
    /// The session of the process that writes rows.
    host: String,
}

impl Manifests {
    /// Whether what is there can be read.
    pub(super) async fn look(location: &Location) -> EtlResult<State> {
        Ok(read(location).await?.state)
    }

    /// Reads what is there, and takes over: whoever wrote before cannot write any more.
    pub(super) async fn open(location: Arc<Location>, session: String) -> EtlResult<Self> {
        for _ in 0..MOST_RACES {
            let Found { state, next, whole, .. } = read(&location).await?;
            let claim = bytes(&Entry { session: session.clone(), ..state.entry() })?;
            let whole_bytes = claim.len() as u64;
            if !location.put_new(&manifest(next), claim.clone()).await? && !is_at(&location, next, &claim).await? {
                continue;
            }
            expect_conditional(&location, next).await?;
            let mut manifests = Self {
                location,
                session,
                state,
                next: next + 1,
                whole: next,
                whole_bytes,
                bytes_since: 0,
                is_taken: false,
                host: None,
            };
            manifests.prune(whole.unwrap_or(next)).await;
            return Ok(manifests);
        }
        Err(taken())
    }

    /// Reads what is there and takes nothing over: whoever writes goes on. `None` where nobody has written.
    pub(super) async fn visit(location: Arc<Location>, session: String) -> EtlResult<Option<Self>> {
        let Found { state, next, whole, host } = read_calmly(&location).await?;
        let Some(whole) = whole else { return Ok(None) };
        let (whole_bytes, bytes_since) = (0, 0);
        let host = Some(host);
        Ok(Some(Self { location, session, state, next, whole, whole_bytes, bytes_since, is_taken: false, host }))
    }

    /// What holds.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Learns what others have written.
    ///
    /// # Errors
    /// `Locked` where another process has taken over.
    pub(super) async fn refresh(&mut self) -> EtlResult<()> {
        if let Some(host) = &self.host {
            let found = read_calmly(&self.location).await?;
            if found.host != *host {
                self.is_taken = true;
                return Err(self.taken());
            }
            (self.state, self.next) = (found.state, found.next);
            return Ok(());
        }
        while let Some(content) = self.location.get(&manifest(self.next)).await? {
            let arrived = parse(self.next, &content)?;
            self.expect_known(&arrived)?;
            self.accept(arrived, content.len());
        }
        Ok(())
    }

    /// Makes the entry durable.
    ///
    /// # Errors
    /// `Locked` where another process has taken over; `StoreConflict` where an earlier attempt had arrived after all, or
    /// files have been rearranged meanwhile that the entry names.
    pub(super) async fn append(&mut self, entry: Entry) -> EtlResult<()> {
        let is_long = self.next - self.whole > FEWEST_BETWEEN_WHOLE && self.bytes_since > self.whole_bytes;
        if is_long && self.host.is_none() {
            let (before, entry) = (self.whole, self.state.entry());
            // It is tried again with the next one.
            if self.put(entry).await? == Put::Written {
                self.prune(before).await;
            }
        }
        match self.put(entry).await? {
            Put::Written => Ok(()),
            Put::Overtaken => {
                Err(EtlError::new(ErrorKind::StoreConflict, "files have been rearranged by another process meanwhile"))
            }
        }
    }

    async fn put(&mut self, mut entry: Entry) -> EtlResult<Put> {
        entry.session.clone_from(&self.session);
        entry.guest = self.host.is_some();
        let content = bytes(&entry)?;
        loop {
            if self.is_taken {
                return Err(self.taken());
            }
            let path = manifest(self.next);
            if self.location.put_new(&path, content.clone()).await? {
                self.accept(entry, content.len());
                return Ok(Put::Written);
            }
            let found = self.location.get(&path).await?.ok_or_else(|| damaged(self.next))?;
            let arrived = parse(self.next, &found)?;
            self.expect_known(&arrived)?;
            let (is_own, is_this) = (arrived.session == self.session, found == content);
            let is_in_the_way = arrived.rearranges() || self.host.is_some();
            self.accept(arrived, found.len());
            if is_this {
                return Ok(Put::Written);
            }
            if is_own {
                return Err(EtlError::new(ErrorKind::StoreConflict, "an earlier write has arrived after all"));
            }
            if is_in_the_way && entry.rearranges() {
                return Ok(Put::Overtaken);
            }
        }
    }

    /// That what has arrived does not come from a process that has taken over.
    fn expect_known(&mut self, arrived: &Entry) -> EtlResult<()> {
        let is_host = self.host.as_ref() == Some(&arrived.session);
        if arrived.guest || arrived.session == self.session || is_host {
            return Ok(());
        }
        self.is_taken = true;
        Err(self.taken())
    }

    fn taken(&self) -> EtlError {
        let error = taken();
        if self.host.is_some() { error.hint("A pipeline has started meanwhile; do it once more") } else { error }
    }

    fn accept(&mut self, entry: Entry, bytes: usize) {
        let bytes = bytes as u64;
        if entry.whole {
            (self.whole, self.whole_bytes, self.bytes_since) = (self.next, bytes, 0);
        } else {
            self.bytes_since += bytes;
        }
        self.next += 1;
        self.state.apply(entry);
    }

    /// Removes the manifests before this one; whoever reads goes by the last whole one, or by the one before it.
    async fn prune(&mut self, before: u64) {
        let pruned = async {
            let paths = self.location.list(MANIFESTS).await?;
            let old = |path: &String| manifest_number(path).is_some_and(|number| number < before);
            self.location.delete(paths.into_iter().filter(old).collect()).await
        };
        if let Err(error) = pruned.await {
            tracing::warn!(%error, "old manifests could not be removed; it is tried again with the next whole one");
        }
    }
}

/// The last whole manifest and those after it.
async fn read(location: &Location) -> EtlResult<Found> {
    let numbers: Vec<u64> = location.list(MANIFESTS).await?.iter().filter_map(|path| manifest_number(path)).collect();
    let Some(last) = numbers.iter().max().copied() else {
        return Ok(Found { state: State::default(), next: 1, whole: None, host: String::new() });
    };
    let (mut entries, mut host) = (Vec::new(), None);
    for number in (1..=last).rev() {
        let content = location.get(&manifest(number)).await?.ok_or_else(|| damaged(number))?;
        let entry = parse(number, &content)?;
        let is_whole = entry.whole;
        if !entry.guest {
            host.get_or_insert_with(|| entry.session.clone());
        }
        entries.push(entry);
        if is_whole {
            let mut state = State::default();
            entries.into_iter().rev().for_each(|entry| state.apply(entry));
            return Ok(Found { state, next: last + 1, whole: Some(number), host: host.unwrap_or_default() });
        }
    }
    Err(damaged(0))
}

/// As [`read`], where manifests may be removed meanwhile.
async fn read_calmly(location: &Location) -> EtlResult<Found> {
    for _ in 1..MOST_RACES {
        if let Ok(found) = read(location).await {
            return Ok(found);
        }
    }
    read(location).await
}

/// Whether it is this content that is there, which a lost answer had kept from us.
async fn is_at(location: &Location, number: u64, content: &Bytes) -> EtlResult<bool> {
    Ok(location.get(&manifest(number)).await?.as_ref() == Some(content))
}

/// That the store refuses to write over what is there.
async fn expect_conditional(location: &Location, number: u64) -> EtlResult<()> {
    let path = manifest(number);
    let Some(content) = location.get(&path).await? else { return Err(damaged(number)) };
    if location.put_new(&path, content).await? {
        return Err(EtlError::new(ErrorKind::DestinationUnsupported, "the store writes over what is there")
            .with("object", path)
            .hint("Choose a store with conditional writes (If-None-Match): they are what makes a batch atomic"));
    }
    Ok(())
}

fn bytes(entry: &Entry) -> EtlResult<Bytes> {
    serde_json::to_vec(entry).map(Bytes::from).or_etl(ErrorKind::Internal, "write a manifest")
}

fn parse(number: u64, content: &[u8]) -> EtlResult<Entry> {
    serde_json::from_slice(content).map_err(|error| damaged(number).because(error))
}

fn damaged(number: u64) -> EtlError {
    EtlError::new(ErrorKind::DestinationRejected, "a manifest is missing or damaged")
        .with("manifest", manifest(number))
        .hint("Bring back a copy of `.etl`, or begin in an empty place with a new state of the pipeline")
}

fn taken() -> EtlError {
    EtlError::new(ErrorKind::Locked, "another process has begun to write there")
        .hint("Run one pipeline at a time, and give each pipeline a location of its own")
}
