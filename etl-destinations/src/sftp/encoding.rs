//! How do rows become the bytes of a file, in the format that was chosen?

use etl::error::EtlResult;

use super::config::{SftpConfig, SftpFormat};
use crate::bulk::{BulkRow, Frame};
use crate::metadata_columns::ChangeType;
use crate::rowwise::{CsvFormat, JsonLines, Stamp};
use crate::writer::TargetTable;

/// The format of the files.
#[derive(Debug, Clone)]
pub(super) enum Encoding {
    Jsonl,
    Json,
    Csv(CsvFormat),
}

impl Encoding {
    /// # Errors
    /// `Config` for a delimiter or a null marker that cannot be told from values.
    pub(super) fn new(config: &SftpConfig) -> EtlResult<Self> {
        Ok(match config.format {
            SftpFormat::Jsonl => Self::Jsonl,
            SftpFormat::Json => Self::Json,
            SftpFormat::Csv => Self::Csv(CsvFormat::new(config.delimiter, &config.null_marker)?),
        })
    }

    /// Whether a record has no place for what was not sent.
    pub(super) fn needs_all_values(&self) -> bool {
        matches!(self, Self::Csv(_))
    }

    /// What stands around the rows of a file.
    pub(super) fn frame(&self, table: &TargetTable) -> Frame {
        match self {
            Self::Jsonl => Frame::default(),
            Self::Json => Frame {
                head: "[\n".to_owned(),
                separator: ",\n".to_owned(),
                tail: "\n]\n".to_owned(),
                ..Frame::default()
            },
            Self::Csv(csv) => {
                Frame { head: String::from_utf8_lossy(&csv.header(table)).into_owned(), ..Frame::default() }
            }
        }
    }

    /// # Errors
    /// `Value`, when a value cannot be written.
    pub(super) fn encode(&self, row: &BulkRow<'_>, out: &mut Vec<u8>) -> EtlResult<()> {
        let BulkRow { table, row, stamp, is_partial } = *row;
        // A part of the current state leaves out what was not sent, as an update of a log does.
        let part = Stamp { change_type: ChangeType::Update, ..stamp };
        let stamp = if is_partial && stamp.change_type == ChangeType::Upsert { part } else { stamp };
        match self {
            Self::Jsonl => JsonLines.write(out, table, row, &stamp),
            Self::Json => {
                JsonLines.write(out, table, row, &stamp)?;
                out.pop();
                Ok(())
            }
            Self::Csv(csv) => csv.write(out, table, row, &stamp),
        }
    }
}
