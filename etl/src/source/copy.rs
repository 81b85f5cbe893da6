//! How are a table's existing rows read? In ranges of pages, by several connections under one snapshot.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::BytesMut;

use super::catalog::{Leaf, PublishedTable};
use super::chunk::Chunk;
use super::snapshot::qualified;
use crate::data::{CopiedRows, RowFormat, RowRun, RowSpans, TableRow};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::memory::held;
use crate::postgres::copy_binary::CopyBinary;
use crate::postgres::{Connection, CopyOut, copy_text, quote_ident, quote_literal};
use crate::schema::TableSchema;
use crate::store::RepairKey;
use crate::transform::{Pass, Selection};

/// Binary where every column has a decoder for it.
pub(crate) fn format(schema: &TableSchema) -> RowFormat {
    let is_binary = schema.columns.iter().all(|column| column.kind.has_binary());
    if is_binary { RowFormat::Binary } else { RowFormat::Text }
}

/// Which rows of a leaf are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Those in a chunk.
    Of(&'a Chunk),
    /// Those with one of these keys.
    With(&'a Leaf, &'a [RepairKey]),
}

/// The query that reads rows; the publication's filter and columns hold as in the stream.
pub(crate) fn copy_sql(table: &PublishedTable, selection: &Selection, rows: Rows<'_>, format: RowFormat) -> String {
    let columns: Vec<String> = selection.source_columns().map(|column| quote_ident(&column.name)).collect();
    let leaf = match rows {
        Rows::Of(chunk) => &chunk.leaf,
        Rows::With(leaf, _) => leaf,
    };
    let mut sql = format!("COPY (SELECT {} FROM ONLY {} WHERE ", columns.join(", "), qualified(&leaf.name));
    match rows {
        Rows::Of(chunk) => {
            let _ = write!(sql, "ctid >= '({},0)'", chunk.first_page);
            if let Some(end) = chunk.end_page {
                let _ = write!(sql, " AND ctid < '({end},0)'");
            }
        }
        Rows::With(_, keys) => {
            let row = |values: Vec<String>| format!("({})", values.join(", "));
            let names = selection.read().key.iter().filter_map(|place| columns.get(usize::from(*place)).cloned());
            let keys = keys.iter().map(|key| row(key.0.iter().map(|value| quote_literal(value)).collect()));
            let keys: Vec<String> = keys.collect();
            let _ = write!(sql, "{} IN ({})", row(names.collect()), keys.join(", "));
        }
    }
    if let Some(filter) = &table.row_filter {
        let _ = write!(sql, " AND ({filter})");
    }
    let format = if format == RowFormat::Binary { "binary" } else { "text" };
    let _ = write!(sql, ") TO STDOUT (FORMAT {format})");
    sql
}

/// Rows as they came, and what they weigh.
#[derive(Debug)]
pub(crate) struct CopyRows {
    pub(crate) rows: CopiedRows,
    pub(crate) bytes: usize,
}

/// Reads rows, block by block.
pub(crate) struct RowReader<'a> {
    copy: CopyOut<'a>,
    /// As they are read.
    schema: Arc<TableSchema>,
    /// As they are passed on, and how.
    passed: Option<(Arc<TableSchema>, Arc<Pass>)>,
    /// `None`: the copy is text.
    binary: Option<CopyBinary>,
    /// How many notes and rows the last block had, as the next one will have.
    usual: (usize, usize),
}

impl<'a> RowReader<'a> {
    /// Begins to read on a connection that has joined the snapshot.
    pub(crate) async fn open(
        connection: &'a mut Connection,
        table: &PublishedTable,
        selection: &Selection,
        rows: Rows<'_>,
    ) -> EtlResult<Self> {
        let schema = selection.read();
        let format = format(schema);
        let sql = copy_sql(table, selection, rows, format);
        let copy = connection.copy_out(&sql).await.map_err(|e| explain(e, schema))?;
        let binary = (format == RowFormat::Binary).then(|| CopyBinary::new(Arc::clone(schema)));
        let passed = selection.pass.as_ref().map(|pass| (Arc::clone(&selection.schema), Arc::clone(pass)));
        Ok(Self { copy, schema: Arc::clone(schema), passed, binary, usual: (0, 0) })
    }

    /// The rows of the next block; `None` at the end.
    pub(crate) async fn next(&mut self) -> EtlResult<Option<CopyRows>> {
        let (mut spans, mut rows) = (RowSpans::with_capacity(self.usual.0), Vec::with_capacity(self.usual.1));
        let mut own = BytesMut::new();
        let (schema, binary) = (&self.schema, &mut self.binary);
        let noted = self.copy.next_block(|bytes, payload| match binary {
            Some(binary) => binary.note_payload(bytes, payload, &mut spans, &mut rows),
            None => {
                if own.is_empty() {
                    own.reserve(bytes.len());
                }
                copy_text::append_payload(&bytes[payload], schema, &mut own, &mut spans, &mut rows)
            }
        });
        let Some(block) = noted.await.map_err(|e| explain(e, &self.schema))? else {
            return self.binary.as_ref().map_or(Ok(()), CopyBinary::finish).map(|()| None);
        };
        self.usual = (spans.mark(), rows.len());
        let (bytes, more) = match &self.binary {
            Some(_) => (block, 0),
            None => {
                let more = own.capacity();
                (own.freeze(), more)
            }
        };
        // Rows are made where somebody asks for them, beside their indexes.
        let notes = spans.byte_size() + size_of_val(&*rows) + rows.len() * size_of::<TableRow>();
        let buffer = spans.finish(match self.copy.charge(more + notes) {
            Some(claim) => held(bytes, claim),
            None => bytes,
        });
        let bytes = buffer.byte_size();
        let rows = match &self.passed {
            Some((schema, pass)) => {
                let rows: Vec<TableRow> = rows.into_iter().map(|row| TableRow::new(Arc::clone(&buffer), row)).collect();
                pass.rows(schema, &rows, |bytes| self.copy.charge(bytes))?.into()
            }
            None => RowRun::new(buffer, rows).into(),
        };
        Ok(Some(CopyRows { rows, bytes }))
    }
}

fn explain(error: EtlError, schema: &TableSchema) -> EtlError {
    let error = if error.context("table").is_none() { error.with("table", &schema.name) } else { error };
    match error.kind() {
        ErrorKind::SourcePermission => error.hint(format!(
            "Grant it: GRANT SELECT ON {} TO <user>; a table with row security needs BYPASSRLS or its owner",
            qualified(schema.source_name())
        )),
        _ => error,
    }
}
