//! What does an error of DuckDB mean? Its message says, since it has no codes.

use etl::error::{ErrorKind, EtlError, EtlResult};

/// Turns DuckDB's errors into ours.
pub(super) trait DuckDbResult<T> {
    /// Says what was being done.
    fn or_duckdb(self, doing: &'static str) -> EtlResult<T>;
}

impl<T> DuckDbResult<T> for Result<T, duckdb::Error> {
    fn or_duckdb(self, doing: &'static str) -> EtlResult<T> {
        self.map_err(|error| {
            let text = error.to_string();
            let (kind, hint) = class(&text);
            let failed = EtlError::new(kind, format!("DuckDB could not {doing}")).because(error);
            match hint {
                Some(hint) => failed.hint(hint),
                None => failed,
            }
        })
    }
}

/// Whether DuckDB has given the open file up: a checkpoint failed, say, because the disk was full. Opened again it is
/// whole.
pub(super) fn is_given_up(error: &EtlError) -> bool {
    let text = error.to_string();
    text.contains("FATAL Error") || text.contains("has been invalidated")
}

fn class(text: &str) -> (ErrorKind, Option<&'static str>) {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["Could not set lock", "Conflicting lock", "already open"]) {
        return (ErrorKind::Locked, Some("A DuckDB file has one writing process: end the other one"));
    }
    if says(&["No space left", "not enough space", "Disk full"]) {
        return (ErrorKind::DiskFull, Some("Free some space: nothing is lost"));
    }
    if says(&["Permission denied", "Read-only file system", "read-only mode"]) {
        return (ErrorKind::Disk, Some("The file and its directory must be writable"));
    }
    if says(&["not a valid DuckDB database", "different version of DuckDB", "storage version"]) {
        return (ErrorKind::Config, Some("Give the path of a file made by this version of DuckDB, or of a new one"));
    }
    if says(&["Failure while replaying WAL"]) {
        return (
            ErrorKind::Disk,
            Some(
                "DuckDB cannot read its own log after a crash. Keep the file for its makers; with a new file, and without \
                  `data_dir` and slot, everything is copied again",
            ),
        );
    }
    if says(&["Out of Memory", "failed to allocate", "could not allocate"]) {
        return (ErrorKind::DestinationUnavailable, Some("Raise `memory_limit` of the destination"));
    }
    if says(&["Conflict on", "write-write conflict", "Transaction conflict", "PRIMARY KEY or UNIQUE constraint"]) {
        return (ErrorKind::StoreConflict, None);
    }
    if says(&["IO Error", "has been invalidated"]) {
        return (ErrorKind::Disk, Some("Look at the disk, then start again: nothing is lost"));
    }
    (ErrorKind::DestinationRejected, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_tell_what_helps() {
        for (text, kind) in [
            ("IO Error: Could not set lock on file \"x\": Conflicting lock is held in ...", ErrorKind::Locked),
            ("IO Error: Could not write all bytes to file \"x\": No space left on device", ErrorKind::DiskFull),
            ("TransactionContext Error: Conflict on tuple deletion!", ErrorKind::StoreConflict),
            ("Out of Memory Error: could not allocate block", ErrorKind::DestinationUnavailable),
            (
                "TransactionContext Error: Failure while replaying WAL file \"x\": Conflict on tuple deletion!",
                ErrorKind::Disk,
            ),
            ("Binder Error: no such column", ErrorKind::DestinationRejected),
        ] {
            assert_eq!(class(text).0, kind, "{text}");
        }
        let full =
            "FATAL Error: Failed to create checkpoint because of error: Could not write file: No space left on device";
        assert_eq!(class(full).0, ErrorKind::DiskFull);
        assert!(is_given_up(&EtlError::new(ErrorKind::DiskFull, "could not commit").because(full)));
    }
}
