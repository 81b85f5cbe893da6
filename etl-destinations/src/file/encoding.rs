//! How do rows become the bytes of a file, in the format that was chosen?

use etl::error::EtlResult;

use super::config::{FileConfig, FileFormat};
use crate::rowwise::{CsvFormat, JsonLines, SqlInserts, stamped_rows};
use crate::writer::{BatchRows, TargetTable};

/// The format of the files.
#[derive(Debug, Clone)]
pub(super) enum Encoding {
    Jsonl,
    Csv(CsvFormat),
    Sql,
}

impl Encoding {
    pub(super) fn new(config: &FileConfig) -> EtlResult<Self> {
        Ok(match config.format {
            FileFormat::Jsonl => Self::Jsonl,
            FileFormat::Csv => Self::Csv(CsvFormat::new(config.delimiter, &config.null_marker)?),
            FileFormat::Sql => Self::Sql,
        })
    }

    /// How the names of the files end.
    pub(super) fn extension(&self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv(_) => "csv",
            Self::Sql => "sql",
        }
    }

    /// What a file of the table begins with.
    pub(super) fn header(&self, table: &TargetTable) -> Vec<u8> {
        match self {
            Self::Csv(csv) => csv.header(table),
            Self::Jsonl | Self::Sql => Vec::new(),
        }
    }

    pub(super) fn encode(&self, table: &TargetTable, rows: &BatchRows) -> EtlResult<Vec<u8>> {
        let mut out = Vec::new();
        for (row, stamp) in stamped_rows(rows)? {
            match self {
                Self::Jsonl => JsonLines.write(&mut out, table, row, &stamp)?,
                Self::Csv(csv) => csv.write(&mut out, table, row, &stamp)?,
                Self::Sql => SqlInserts.write(&mut out, table, row, &stamp)?,
            }
        }
        Ok(out)
    }
}
