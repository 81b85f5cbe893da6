//! Does `file` keep its promises in CSV, where a value that was not sent has no place?

use etl::conformance_tests;
use etl_destinations::file::FileFormat;

use crate::file::{Shelf, shelf};
use crate::table::told;

async fn csv() -> Option<Shelf> {
    shelf(FileFormat::Csv).await
}

conformance_tests!(csv, told);
