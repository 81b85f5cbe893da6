//! What is handed over? A batch of rows that stands on disk and never changes, with what is known of each row.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use etl::Position;
use etl::clock::Timestamp;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::failpoint;
use etl::schema::{TableId, TableName};
use etl::store::OperationId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What is known of one row of a batch: by which it is found again in what a system says, and what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRow {
    /// Where it is in the source's history.
    pub position: Position,
    /// What happened to it, as `_CHANGE_TYPE` has it.
    pub change_type: Box<str>,
    /// Its key, each value as the server writes it; `None` for a table without one.
    pub key: Option<Box<[String]>>,
    /// Its values by column, masked as configured; what an update did not send is left out.
    pub row: serde_json::Value,
    /// Whether values are missing that its change did not send.
    #[serde(default)]
    pub is_partial: bool,
    /// Whether it is a row of a log of changes.
    #[serde(default)]
    pub is_logged: bool,
    /// How many of the body's bytes are its own.
    pub bytes: u32,
}

/// What stands around and between the rows of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Before the first, such as the header of CSV.
    pub head: String,
    /// Between two, such as the comma of a JSON array.
    pub separator: String,
    /// After the last.
    pub tail: String,
    /// What of the table, beside its rows, is needed to hand them over: another process, which has not met the table, finds
    /// it here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub known: BTreeMap<String, String>,
}

/// The rows of a batch, in the order of the body: a row's ordinal is its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What their table is called at the system.
    pub table: TableName,
    /// What stands around them.
    pub frame: Frame,
    /// The rows.
    pub rows: Vec<ManifestRow>,
}

impl Manifest {
    /// The rows with these ordinals, and the body that they alone make.
    pub(super) fn part(&self, body: &[u8], ordinals: &[u32]) -> (Self, Vec<u8>) {
        let mut starts = Vec::with_capacity(self.rows.len());
        let mut at = self.frame.head.len();
        for row in &self.rows {
            starts.push(at);
            at += row.bytes as usize + self.frame.separator.len();
        }
        let mut part = Draft::new(self.table.clone(), self.frame.clone());
        for ordinal in ordinals {
            let place = *ordinal as usize;
            if let (Some(row), Some(start)) = (self.rows.get(place), starts.get(place))
                && let Some(bytes) = body.get(*start..*start + row.bytes as usize)
            {
                part.push(row.clone(), bytes);
            }
        }
        part.finish()
    }
}

/// A batch that is being filled.
#[derive(Debug)]
pub(super) struct Draft {
    manifest: Manifest,
    body: Vec<u8>,
}

impl Draft {
    pub(super) fn new(table: TableName, frame: Frame) -> Self {
        let body = frame.head.clone().into_bytes();
        Self { manifest: Manifest { table, frame, rows: Vec::new() }, body }
    }

    pub(super) fn rows(&self) -> &[ManifestRow] {
        &self.manifest.rows
    }

    /// How long the body would be with one more row of so many bytes.
    pub(super) fn bytes_with(&self, row: usize) -> u64 {
        let Frame { separator, tail, .. } = &self.manifest.frame;
        let separator = if self.manifest.rows.is_empty() { 0 } else { separator.len() };
        (self.body.len() + separator + row + tail.len()) as u64
    }

    pub(super) fn push(&mut self, row: ManifestRow, bytes: &[u8]) {
        if !self.manifest.rows.is_empty() {
            self.body.extend_from_slice(self.manifest.frame.separator.as_bytes());
        }
        self.body.extend_from_slice(bytes);
        self.manifest.rows.push(ManifestRow { bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX), ..row });
    }

    pub(super) fn finish(mut self) -> (Manifest, Vec<u8>) {
        self.body.extend_from_slice(self.manifest.frame.tail.as_bytes());
        (self.manifest, self.body)
    }
}

/// A batch that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBatch {
    /// Its name: the same rows in the same form have the same.
    pub id: OperationId,
    /// The table.
    pub table: TableId,
    /// Its number: later ones of the same store have larger ones, until all of its operations are forgotten.
    pub sequence: u64,
    /// When it was sealed.
    pub sealed_at: Timestamp,
    /// How often it is submitted with this, from 1.
    pub attempt: u32,
    /// The file with its body.
    pub body: PathBuf,
    /// What is known of its rows.
    pub manifest: Manifest,
}

/// What a frame knows of the run that a batch is staged in.
pub(super) const RUN: &str = "etl.run";

impl SealedBatch {
    /// The run that it is staged in: it is to be out of sight until
    /// [`publish_run`](super::BulkDestination::publish_run) shows it.
    pub fn run(&self) -> Option<&str> {
        self.manifest.frame.known.get(RUN).map(String::as_str)
    }

    /// Its body.
    ///
    /// # Errors
    /// `Disk` where it cannot be read.
    pub async fn read(&self) -> EtlResult<Vec<u8>> {
        tokio::fs::read(&self.body).await.map_err(|error| failed("read a sealed batch", &self.body, error))
    }
}

/// The directory with the bodies and manifests of the batches that are under way.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    dir: PathBuf,
}

const BODY: &str = "body";
const ROWS: &str = "rows";
const PART: &str = "part";

/// The name of a batch with these rows: made of all that makes it what it is.
pub(super) fn named(table: TableId, generation: u64, manifest: &Manifest, body: &[u8]) -> OperationId {
    let mut digest = Sha256::new();
    let mut number = |number: u64| digest.update(number.to_be_bytes());
    number(u64::from(table.0));
    number(generation);
    number(manifest.rows.len() as u64);
    for row in [manifest.rows.first(), manifest.rows.last()].into_iter().flatten() {
        number(row.position.commit.0);
        number(row.position.ordinal);
    }
    digest.update(body);
    let digest = digest.finalize();
    // The form of a UUID, which most systems take for a name.
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    OperationId([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-").into())
}

impl Spool {
    /// The spool in a directory that somebody else has opened.
    pub(super) const fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The spool in a directory, which is made where it is missing; what was not sealed is removed.
    pub(super) fn open(dir: &Path) -> EtlResult<Self> {
        fs::create_dir_all(dir).map_err(|error| failed("make the directory of sealed batches", dir, error))?;
        let spool = Self { dir: dir.to_owned() };
        for path in spool.files()? {
            if path.extension().is_some_and(|extension| extension == PART) {
                spool.remove_file(&path)?;
            }
        }
        Ok(spool)
    }

    /// Where it is, as it can be found from anywhere.
    pub(super) fn place(&self) -> String {
        let place = fs::canonicalize(&self.dir);
        place.unwrap_or_else(|_| self.dir.clone()).display().to_string()
    }

    fn files(&self) -> EtlResult<Vec<PathBuf>> {
        let doing = "list the sealed batches";
        let entries = fs::read_dir(&self.dir).map_err(|error| failed(doing, &self.dir, error))?;
        entries.map(|entry| entry.map(|entry| entry.path()).map_err(|error| failed(doing, &self.dir, error))).collect()
    }

    pub(super) fn body(&self, id: &OperationId) -> PathBuf {
        self.dir.join(format!("{id}.{BODY}"))
    }

    fn rows(&self, id: &OperationId) -> PathBuf {
        self.dir.join(format!("{id}.{ROWS}"))
    }

    /// Makes a batch durable; once it returns it never changes.
    pub(super) async fn seal(&self, id: &OperationId, body: Vec<u8>, manifest: Manifest) -> EtlResult<()> {
        let (spool, name) = (self.clone(), id.clone());
        off_thread(move || spool.write(&name, &body, &manifest)).await?;
        failpoint::visit("bulk.building").await?;
        let (spool, name) = (self.clone(), id.clone());
        off_thread(move || spool.publish(&name)).await?;
        failpoint::visit("bulk.on_disk").await
    }

    /// Writes it under names that nobody reads.
    fn write(&self, id: &OperationId, body: &[u8], manifest: &Manifest) -> EtlResult<()> {
        let mut rows = Vec::new();
        line(&mut rows, &(&manifest.table, &manifest.frame))?;
        manifest.rows.iter().try_for_each(|row| line(&mut rows, row))?;
        for (path, bytes) in [(self.rows(id), &rows[..]), (self.body(id), body)] {
            let written = File::create(part(&path)).and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            });
            written.map_err(|error| failed("write a sealed batch", &path, error))?;
        }
        Ok(())
    }

    /// Gives it its name. The body comes last: where it is, all is.
    fn publish(&self, id: &OperationId) -> EtlResult<()> {
        for path in [self.rows(id), self.body(id)] {
            fs::rename(part(&path), &path).map_err(|error| failed("write a sealed batch", &path, error))?;
        }
        let dir = File::open(&self.dir).and_then(|dir| dir.sync_all());
        dir.map_err(|error| failed("make a sealed batch durable", &self.dir, error))
    }

    /// What is known of the rows of a batch.
    pub(super) fn manifest(&self, id: &OperationId) -> EtlResult<Manifest> {
        let path = self.rows(id);
        let doing = "read what is known of a sealed batch";
        let file = File::open(&path).map_err(|error| failed(doing, &path, error))?;
        let mut lines = BufReader::new(file).lines().map(|line| line.map_err(|error| failed(doing, &path, error)));
        let read = |error: serde_json::Error| {
            EtlError::new(ErrorKind::Disk, format!("could not {doing}"))
                .with("path", path.display())
                .because(error)
                .hint("Somebody changed the file: bring it back, or abandon the operation")
        };
        let head = lines.next().transpose()?.unwrap_or_default();
        let (table, frame) = serde_json::from_str(&head).map_err(read)?;
        let rows = lines.map(|line| serde_json::from_str(&line?).map_err(read)).collect::<EtlResult<_>>()?;
        Ok(Manifest { table, frame, rows })
    }

    /// Whether the batch is there.
    pub(super) fn holds(&self, id: &OperationId) -> bool {
        self.body(id).exists()
    }

    /// Removes a batch that nobody needs any more.
    pub(super) fn remove(&self, id: &OperationId) -> EtlResult<()> {
        self.remove_file(&self.body(id))?;
        self.remove_file(&self.rows(id))
    }

    /// Removes every batch that is not wanted: sealed, but never stored as an operation.
    pub(super) fn keep_only(&self, is_wanted: impl Fn(&str) -> bool) -> EtlResult<u64> {
        let mut removed = 0;
        for path in self.files()? {
            let is_ours = path.extension().is_some_and(|extension| extension == BODY || extension == ROWS);
            let name = path.file_stem().and_then(|name| name.to_str());
            if is_ours && name.is_some_and(|name| !is_wanted(name)) {
                self.remove_file(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn remove_file(&self, path: &Path) -> EtlResult<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("remove a sealed batch", path, error))
            }
            _ => Ok(()),
        }
    }
}

/// What a file is called until all of it is there.
fn part(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.{PART}", path.extension().unwrap_or_default().display()))
}

/// Runs what waits for the disk where that holds nobody else up.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> EtlResult<T> + Send + 'static,
) -> EtlResult<T> {
    tokio::task::spawn_blocking(work).await.or_etl(ErrorKind::Internal, "wait for the disk")?
}

fn line(out: &mut Vec<u8>, of: &impl Serialize) -> EtlResult<()> {
    serde_json::to_writer(&mut *out, of)
        .map_err(|error| EtlError::new(ErrorKind::Internal, "could not write what is known of a row").because(error))?;
    out.push(b'\n');
    Ok(())
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> EtlError {
    let (kind, hint) = match error.kind() {
        std::io::ErrorKind::StorageFull => (ErrorKind::DiskFull, "Free some space on the disk"),
        _ => (ErrorKind::Disk, "Let the user that runs this write there, and look at the system's log"),
    };
    EtlError::new(kind, format!("could not {doing}")).with("path", path.display()).because(error).hint(hint)
}

#[cfg(test)]
mod tests {
    use etl::Lsn;

    use super::*;

    fn manifest(rows: u64) -> Manifest {
        let row = |n| ManifestRow {
            position: Position::new(Lsn(9), n),
            change_type: "INSERT".into(),
            key: Some(Box::new([format!("ü\n{n}")])),
            row: serde_json::json!({"id": n, "v": "line\nbreak\0"}),
            is_partial: true,
            is_logged: false,
            bytes: 7,
        };
        let known = BTreeMap::from([("table".to_owned(), "public.t".to_owned())]);
        let frame = Frame { head: "[\n".to_owned(), separator: ",".to_owned(), tail: "]".to_owned(), known };
        Manifest { table: TableName::new("public", "t"), frame, rows: (1..=rows).map(row).collect() }
    }

    #[test]
    fn a_part_of_a_batch_is_framed_as_the_whole_was() {
        let mut draft = Draft::new(manifest(0).table, manifest(0).frame);
        for (row, bytes) in manifest(4).rows.into_iter().zip(["a", "", "ccc", "d"]) {
            let expected = draft.bytes_with(bytes.len());
            draft.push(row, bytes.as_bytes());
            assert_eq!(draft.bytes_with(0), expected + 1, "the separator of one more");
        }
        let (whole, body) = draft.finish();
        assert_eq!(body, b"[\na,,ccc,d]");
        let (part, bytes) = whole.part(&body, &[1, 2]);
        assert_eq!(bytes, b"[\n,ccc]");
        assert_eq!(part.rows, whole.rows[1..3]);
        assert_eq!(whole.part(&body, &[0, 1, 2, 3]), (whole.clone(), body.clone()));
        assert_eq!(whole.part(&body, &[9]).1, b"[\n]");
    }

    #[tokio::test]
    async fn a_sealed_batch_is_there_again_and_one_that_was_not_sealed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let (manifest, body) = (manifest(3), b"the body");
        let id = named(TableId(7), 1, &manifest, body);
        spool.seal(&id, body.to_vec(), manifest.clone()).await.unwrap();
        fs::write(dir.path().join("x.body.part"), "half").unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "what was not sealed is gone");
        assert!(spool.holds(&id));
        assert_eq!(spool.manifest(&id).unwrap(), manifest);
        assert_eq!(fs::read(spool.body(&id)).unwrap(), body);
        assert_eq!(spool.keep_only(|name| name == &*id.0).unwrap(), 0);
        spool.remove(&id).unwrap();
        spool.remove(&id).unwrap();
        assert!(!spool.holds(&id));
        spool.seal(&id, body.to_vec(), manifest.clone()).await.unwrap();
        assert_eq!(spool.keep_only(|_| false).unwrap(), 2, "a batch that nobody knows of");
    }

    #[test]
    fn the_same_rows_have_the_same_name_and_others_another() {
        let name = |table, generation, rows, body: &[u8]| named(TableId(table), generation, &manifest(rows), body);
        let one = name(7, 1, 3, b"x");
        assert_eq!(one, name(7, 1, 3, b"x"));
        for other in [name(8, 1, 3, b"x"), name(7, 2, 3, b"x"), name(7, 1, 4, b"x"), name(7, 1, 3, b"y")] {
            assert_ne!(one, other);
        }
        assert_eq!(one.0.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{one}");
    }
}
