//! What can be done with objects? Each call is durable when it returns, and names objects by paths below the location.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use bytes::Bytes;
use etl::error::{ErrorKind, EtlResult, ResultExt};
use futures_util::TryStreamExt;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, WriteMultipart};

use super::error::failed;
use super::location::Location;

/// A part of an object that is written in parts.
const PART_BYTES: usize = 8 << 20;

impl Location {
    /// Writes an object, in place of one that is there. It appears whole, or not at all.
    ///
    /// # Errors
    /// What the store says.
    pub async fn put(&self, path: &str, bytes: Bytes) -> EtlResult<()> {
        let at = self.at(path);
        let put = if bytes.len() > 2 * PART_BYTES && self.file(path).is_none() {
            let whole = async {
                let mut parts = WriteMultipart::new_with_chunk_size(self.store.put_multipart(&at).await?, PART_BYTES);
                parts.put(bytes);
                parts.finish().await
            };
            whole.await.map(drop)
        } else {
            self.store.put(&at, bytes.into()).await.map(drop)
        };
        put.map_err(|error| failed("write an object", self.shown(path), error))
    }

    /// Writes an object where there is none; `false` where there is one, which stays.
    ///
    /// # Errors
    /// What the store says; whether the object was written is not known then.
    pub async fn put_new(&self, path: &str, bytes: Bytes) -> EtlResult<bool> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.at(path), bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(failed("write an object", self.shown(path), error)),
        }
    }

    /// An object's content; `None` where there is none.
    ///
    /// # Errors
    /// What the store says.
    pub async fn get(&self, path: &str) -> EtlResult<Option<Bytes>> {
        let read = async { self.store.get(&self.at(path)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("read an object", self.shown(path), error)),
        }
    }

    /// An object as a file: its own in a directory, else a copy that nobody else sees.
    ///
    /// # Errors
    /// What the store or the disk says.
    pub async fn fetch(&self, path: &str) -> EtlResult<File> {
        let doing = "fetch an object";
        if let Some(file) = self.file(path) {
            return File::open(file).or_etl(ErrorKind::Disk, doing).map_err(|error| error.with("object", path));
        }
        let not_read = |error| failed(doing, self.shown(path), error);
        let mut stream = self.store.get(&self.at(path)).await.map_err(not_read)?.into_stream();
        let mut file = unnamed_file()?;
        while let Some(bytes) = stream.try_next().await.map_err(not_read)? {
            file.write_all(&bytes).or_etl(ErrorKind::Disk, doing)?;
        }
        file.seek(SeekFrom::Start(0)).or_etl(ErrorKind::Disk, doing)?;
        Ok(file)
    }

    /// Makes an object of the content of another one, in place of one that is there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn copy(&self, from: &str, to: &str) -> EtlResult<()> {
        let copied = self.store.copy(&self.at(from), &self.at(to)).await;
        copied.map_err(|error| failed("copy an object", self.shown(from), error).with("to", to))
    }

    /// The paths of all objects below a folder, in their order.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list(&self, folder: &str) -> EtlResult<Vec<String>> {
        let below = self.at(folder);
        let prefix = (!below.as_ref().is_empty()).then_some(&below);
        let found: Result<Vec<_>, Error> = self.store.list(prefix).try_collect().await;
        let found = found.map_err(|error| failed("list objects", self.shown(folder), error))?;
        let path = |parts: &mut dyn Iterator<Item = object_store::path::PathPart<'_>>| {
            parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/")
        };
        let mut paths: Vec<String> = found
            .iter()
            .filter_map(|meta| meta.location.prefix_match(&self.prefix).map(|mut parts| path(&mut parts)))
            .collect();
        paths.sort_unstable();
        Ok(paths)
    }

    /// Deletes objects; one that is gone already is no error.
    ///
    /// # Errors
    /// What the store says.
    pub async fn delete(&self, paths: Vec<String>) -> EtlResult<()> {
        for path in paths {
            match self.store.delete(&self.at(&path)).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(failed("delete an object", self.shown(&path), error)),
            }
        }
        Ok(())
    }

    /// Deletes all objects below a folder; in a directory the folder goes, too.
    ///
    /// # Errors
    /// What the store or the disk says.
    pub async fn delete_folder(&self, folder: &str) -> EtlResult<()> {
        self.delete(self.list(folder).await?).await?;
        match self.file(folder).map(std::fs::remove_dir_all) {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).or_etl(ErrorKind::Disk, "remove a folder").map_err(|error| error.with("path", folder))
            }
            _ => Ok(()),
        }
    }

    /// That objects can be written and deleted here; leaves nothing behind.
    ///
    /// # Errors
    /// What the store says.
    pub async fn try_write(&self) -> EtlResult<()> {
        let path = ".etl/looked";
        self.put(path, Bytes::from_static(b"etl looked whether it can write here")).await?;
        self.delete(vec![path.to_owned()]).await
    }
}

/// A file without a name, which is gone once it is closed.
///
/// # Errors
/// `Disk` where there is no room.
pub fn unnamed_file() -> EtlResult<File> {
    tempfile::tempfile().or_etl(ErrorKind::Disk, "make a temporary file")
}
