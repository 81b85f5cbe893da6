//! Where is it? `./lake`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`, and its options.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use etl::Secret;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use super::error::failed;

/// A directory or a part of a bucket, and everything below it.
#[derive(Clone)]
pub struct Location {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) prefix: Path,
    shown: Arc<str>,
    directory: Option<Arc<FilePath>>,
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Location").field(&self.shown).finish()
    }
}

/// The options of a store, by the names that its builder knows.
pub type StoreOptions = BTreeMap<String, Secret>;

impl Location {
    /// Reaches the place. A directory that is missing is made.
    ///
    /// # Errors
    /// `Config` for a place or an option that nobody knows, `Disk` where the directory cannot be made.
    pub fn open(location: &str, options: &StoreOptions) -> EtlResult<Self> {
        if let Some(directory) = directory_of(location) {
            let made = fs::create_dir_all(&directory).and_then(|()| match directory.parent() {
                Some(parent) if parent.is_dir() => fs::File::open(parent)?.sync_all(),
                _ => Ok(()),
            });
            made.map_err(|error| {
                EtlError::new(ErrorKind::of_disk(&error), "could not make the directory")
                    .with("path", directory.display())
                    .because(error)
                    .hint("Let the user that runs this write there")
            })?;
        }
        Self::look(location, options)
    }

    /// Reaches the place without making anything.
    ///
    /// # Errors
    /// As of [`open`](Self::open), and `Config` where the directory is missing.
    pub fn look(location: &str, options: &StoreOptions) -> EtlResult<Self> {
        let Some(directory) = directory_of(location) else { return bucket(location, options) };
        if let Some(name) = options.keys().next() {
            return Err(EtlError::new(ErrorKind::Config, "a directory has no options")
                .with("option", name)
                .hint("Remove `options`, or name a bucket: `s3://bucket/prefix`"));
        }
        let store = LocalFileSystem::new_with_prefix(&directory)
            .map_err(|error| failed("open the directory", location.to_owned(), error))?;
        let directory = fs::canonicalize(&directory).or_etl(ErrorKind::Disk, "open the directory")?;
        Ok(Self {
            store: Arc::new(store.with_fsync(true)),
            prefix: Path::default(),
            shown: location.into(),
            directory: Some(directory.into()),
        })
    }

    /// The directory that a text names, where it is not a bucket.
    pub fn directory_of(location: &str) -> Option<PathBuf> {
        directory_of(location)
    }

    /// The file of an object, where the place is a directory.
    pub(super) fn file(&self, path: &str) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.join(path))
    }

    pub(super) fn at(&self, path: &str) -> Path {
        // What is not ASCII stays as it is.
        let path = Path::parse(path).unwrap_or_else(|_| Path::from(path));
        self.prefix.parts().chain(path.parts()).collect()
    }

    /// An object as errors show it.
    pub(super) fn shown(&self, path: &str) -> String {
        format!("{}/{path}", self.shown.trim_end_matches('/'))
    }
}

fn directory_of(location: &str) -> Option<PathBuf> {
    match location.split_once("://") {
        Some(("file", path)) => Some(PathBuf::from(path)),
        Some(_) => None,
        None => Some(PathBuf::from(location)),
    }
}

fn bucket(location: &str, options: &StoreOptions) -> EtlResult<Location> {
    let (scheme, place) = location.split_once("://").unwrap_or_default();
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let root = format!("{scheme}://{bucket}");
    let store = match scheme {
        "s3" | "s3a" => s3(&root, options)?,
        "gs" => gcs(&root, options)?,
        "az" | "abfs" | "abfss" => azure(&root, options)?,
        _ => {
            return Err(EtlError::new(ErrorKind::Config, "nobody knows such a place")
                .with("location", location)
                .hint("Name a directory, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`"));
        }
    };
    Ok(Location {
        store,
        prefix: Path::parse(prefix).unwrap_or_else(|_| Path::from(prefix)),
        shown: location.into(),
        directory: None,
    })
}

/// What takes longer is the engine's to wait for.
#[cfg(feature = "cloud")]
fn retry() -> object_store::RetryConfig {
    // Where another part of the program has chosen one before, that one holds.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry_timeout = std::time::Duration::from_secs(20);
    object_store::RetryConfig { retry_timeout, ..object_store::RetryConfig::default() }
}

/// Makes a function that builds a store from its options, none of which may be unknown.
macro_rules! store {
    ($name:ident, $feature:literal, $builder:ty, $key:ty) => {
        #[cfg(feature = $feature)]
        fn $name(root: &str, options: &StoreOptions) -> EtlResult<Arc<dyn ObjectStore>> {
            let mut builder = <$builder>::new().with_url(root).with_retry(retry());
            for (name, value) in options {
                let key: $key = name.to_ascii_lowercase().parse().map_err(|_| {
                    EtlError::new(ErrorKind::Config, "the store has no such option")
                        .with("option", name)
                        .hint("docs/destinations/parquet.md names the usual ones")
                })?;
                builder = builder.with_config(key, value.expose());
            }
            let built = builder.build().map_err(|error| failed("reach the store", root.to_owned(), error));
            Ok(Arc::new(built.map_err(|error| error.hint("Look at `location` and `options`"))?))
        }

        #[cfg(not(feature = $feature))]
        fn $name(root: &str, _: &StoreOptions) -> EtlResult<Arc<dyn ObjectStore>> {
            Err(EtlError::new(ErrorKind::Config, "this kind of store is not compiled in")
                .with("location", root)
                .hint(concat!("Build with the feature `", $feature, "`")))
        }
    };
}

store!(s3, "s3", object_store::aws::AmazonS3Builder, object_store::aws::AmazonS3ConfigKey);
store!(gcs, "gcs", object_store::gcp::GoogleCloudStorageBuilder, object_store::gcp::GoogleConfigKey);
store!(azure, "azure", object_store::azure::MicrosoftAzureBuilder, object_store::azure::AzureConfigKey);

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(location: &str, options: &[(&str, &str)]) -> EtlError {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
        Location::look(location, &options).unwrap_err()
    }

    #[test]
    fn places_and_options_that_nobody_knows_are_refused() {
        assert_eq!(directory_of("./lake"), Some(PathBuf::from("./lake")));
        assert_eq!(directory_of("file:///data/lake"), Some(PathBuf::from("/data/lake")));
        let other = refused("ftp://host/x", &[]);
        assert!(other.kind() == ErrorKind::Config && other.to_string().contains("s3://"), "{other}");
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().display().to_string();
        assert!(refused(&directory, &[("aws_region", "x")]).to_string().contains("aws_region"));
        if cfg!(feature = "s3") {
            let unknown = refused("s3://bucket", &[("aws_colour", "hunter2")]);
            assert!(unknown.to_string().contains("aws_colour") && !unknown.to_string().contains("hunter2"));
        } else {
            assert!(refused("s3://bucket", &[]).to_string().contains("feature `s3`"));
        }
    }
}
