//! What went wrong with an object, and what helps?

use std::error::Error as StdError;
use std::io;

use etl::error::{ErrorKind, EtlError};
use object_store::Error;

/// Says of an error of the store what was being done with which object.
pub(super) fn failed(doing: &str, place: String, error: Error) -> EtlError {
    let (kind, hint) = class(&error);
    EtlError::new(kind, format!("could not {doing}")).with("object", place).because(error).hint(hint)
}

const NO_RIGHT: (ErrorKind, &str) = (
    ErrorKind::DestinationRejected,
    "Give an account in `options` that may list, read, write and delete below the location",
);
const NO_BUCKET: (ErrorKind, &str) =
    (ErrorKind::DestinationRejected, "Look whether there is such a bucket, in that region");

fn class(error: &Error) -> (ErrorKind, &'static str) {
    if let Some(error) = disk_error(error) {
        return match (ErrorKind::of_disk(error), error.kind()) {
            (ErrorKind::DiskFull, _) => (ErrorKind::DiskFull, "Free some space on the disk"),
            (kind, io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                (kind, "Let the user that runs this write to the directory")
            }
            (kind, _) => (kind, "Look at the disk, and at what else works in the directory"),
        };
    }
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match error {
        Error::Generic { .. } if says(&["NoSuchBucket", "ContainerNotFound", "bucket does not exist"]) => NO_BUCKET,
        Error::Generic { .. } if says(&["403 Forbidden", "401 Unauthorized"]) => NO_RIGHT,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => NO_RIGHT,
        Error::NotFound { .. } => NO_BUCKET,
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => {
            (ErrorKind::Config, "Look at `location` and `options`")
        }
        Error::AlreadyExists { .. } | Error::Precondition { .. } => {
            (ErrorKind::StoreConflict, "Let one pipeline at a time write to a location")
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            (ErrorKind::DestinationUnsupported, "Choose a store with conditional writes (If-None-Match)")
        }
        _ => (ErrorKind::DestinationUnavailable, "Look whether the store can be reached; it is tried again"),
    }
}

/// The error of the file system, where the store is a directory. Connections have such errors too.
fn disk_error(error: &Error) -> Option<&io::Error> {
    let Error::Generic { store: "LocalFileSystem", .. } = error else { return None };
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(store: &'static str, kind: io::ErrorKind) -> ErrorKind {
        failed("put", "x".to_owned(), Error::Generic { store, source: Box::new(io::Error::from(kind)) }).kind()
    }

    #[test]
    fn a_full_disk_is_told_from_a_lost_connection() {
        assert_eq!(of("LocalFileSystem", io::ErrorKind::StorageFull), ErrorKind::DiskFull);
        assert_eq!(of("LocalFileSystem", io::ErrorKind::PermissionDenied), ErrorKind::Disk);
        assert_eq!(of("S3", io::ErrorKind::ConnectionReset), ErrorKind::DestinationUnavailable);
        let denied = Error::PermissionDenied { path: "x".to_owned(), source: "403".into() };
        assert_eq!(failed("put", "x".to_owned(), denied).kind(), ErrorKind::DestinationRejected);
    }
}
