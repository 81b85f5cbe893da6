//! How do rows get into a table? Through `COPY ... FROM STDIN`, in pieces, so that a large batch is not there twice.

use std::pin::Pin;

use bytes::Bytes;
use etl::Position;
use etl::clock::Timestamp;
use etl::data::{RawValue, TableRow};
use etl::error::{ErrorKind, EtlError, EtlResult};
use futures_util::SinkExt;
use tokio_postgres::CopyInSink;

use super::ddl::columns_of;
use super::error::PostgresResult;
use super::lines::{Form, Lines};
use super::link::Link;
use crate::metadata_columns::ChangeType;
use crate::writer::{StampedRow, TargetTable};

/// A piece is about as large.
const PIECE: usize = 256 << 10;

/// An open COPY.
pub(super) struct CopyIn {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    pub(super) lines: Lines,
}

impl CopyIn {
    /// Opens it for these columns, whose names SQL can take.
    pub(super) async fn begin(link: &Link, table: &str, columns: &[String], form: Form) -> EtlResult<Self> {
        let sql = format!("COPY {table} ({}) FROM STDIN WITH (FORMAT {})", columns.join(", "), form.name());
        let sink = link.client().copy_in(&sql).await.or_postgres("take rows")?;
        Ok(Self { sink: Box::pin(sink), lines: Lines::new(form, columns.len()) })
    }

    /// Sends what is written once that is enough.
    pub(super) async fn flush(&mut self) -> EtlResult<()> {
        if self.lines.len() < PIECE {
            return Ok(());
        }
        self.sink.feed(self.lines.take()).await.or_postgres("take rows")
    }

    /// The rows are all there.
    pub(super) async fn finish(mut self) -> EtlResult<()> {
        self.sink.feed(self.lines.finish()).await.or_postgres("take rows")?;
        self.sink.as_mut().finish().await.or_postgres("take rows").map(drop)
    }

    /// The values of a row.
    pub(super) fn values(&mut self, row: &TableRow, places: impl Iterator<Item = usize>) -> EtlResult<()> {
        for place in places {
            self.lines.value(row, place)?;
        }
        Ok(())
    }

    /// The values of a row as far as they were sent; null stands for the others.
    pub(super) fn sent(&mut self, row: &TableRow, places: impl Iterator<Item = usize>) -> EtlResult<()> {
        for place in places {
            match row.raw(place) {
                RawValue::Unchanged => self.lines.null(),
                _ => self.lines.value(row, place)?,
            }
        }
        Ok(())
    }

    /// The metadata columns.
    pub(super) fn stamps(&mut self, change: ChangeType, position: Position, at: Timestamp) -> EtlResult<()> {
        self.lines.text(change.as_str());
        self.lines.bigint(signed(position.commit.0)?);
        self.lines.bigint(signed(position.ordinal)?);
        self.lines.moment(at);
        Ok(())
    }
}

/// Copied rows, into the table itself.
pub(super) async fn copied(
    link: &Link,
    (name, table): (&str, &TargetTable),
    rows: &[TableRow],
    (position, at): (Position, Timestamp),
) -> EtlResult<()> {
    let mut copy = CopyIn::begin(link, name, &columns_of(table), Form::of(&table.source, rows)).await?;
    for row in rows {
        copy.values(row, 0..table.columns.len())?;
        if table.metadata.is_some() {
            copy.stamps(ChangeType::Upsert, position, at)?;
        }
        copy.flush().await?;
    }
    copy.finish().await
}

/// Rows with their stamps, into a table with the columns of this one.
pub(super) async fn stamped(link: &Link, (name, table): (&str, &TargetTable), rows: &[StampedRow]) -> EtlResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let form = Form::of(&table.source, rows.iter().map(|stamped| &stamped.row));
    let mut copy = CopyIn::begin(link, name, &columns_of(table), form).await?;
    for StampedRow { row, change_type, position, at } in rows {
        copy.values(row, 0..table.columns.len())?;
        if table.metadata.is_some() {
            copy.stamps(*change_type, *position, *at)?;
        }
        copy.flush().await?;
    }
    copy.finish().await
}

fn signed(number: u64) -> EtlResult<i64> {
    i64::try_from(number).map_err(|_| {
        EtlError::new(ErrorKind::Value, "a position does not fit a signed 64-bit column").with("position", number)
    })
}
