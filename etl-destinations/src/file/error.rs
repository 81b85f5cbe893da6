//! What went wrong with a file, and what helps?

use std::io;
use std::path::Path;

use etl::error::{ErrorKind, EtlError, EtlResult};

/// Says of an error of the file system what was being done with which file.
pub(super) trait FileResult<T> {
    fn or_file(self, doing: &str, path: &Path) -> EtlResult<T>;
}

impl<T> FileResult<T> for io::Result<T> {
    fn or_file(self, doing: &str, path: &Path) -> EtlResult<T> {
        self.map_err(|error| {
            let kind = ErrorKind::of_disk(&error);
            let hint = match error.kind() {
                _ if kind == ErrorKind::DiskFull => "Free some space on the disk",
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "Let the user that runs this write to the directory"
                }
                _ => "Look at the disk, and at what else works in the directory",
            };
            EtlError::new(kind, format!("could not {doing}")).with("path", path.display()).because(error).hint(hint)
        })
    }
}
