//! Does what a server has written of every kind arrive, in text and in binary, or end in an error that names the column?

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Subject;
use super::trial::{Broken, CaseResult, Transaction, Trial, chunk, promised};
use crate::data::recorded::{Recorded, recorded};
use crate::data::{RawValue, RowBuilder, TableRow};
use crate::destination::{Destination, TextRow};
use crate::error::{ErrorKind, EtlError};
use crate::lsn::Position;
use crate::schema::{Column, ReplicaIdentity, TableId, TableName, TableSchema};

/// The kinds of the record, each with a type that has it. Those beyond 90000 are of extensions or somebody's own.
const TYPES: &[(&str, u32, &str)] = &[
    ("bool", 16, "boolean"),
    ("int2", 21, "smallint"),
    ("int4", 23, "integer"),
    ("int8", 20, "bigint"),
    ("oid", 26, "oid"),
    ("float4", 700, "real"),
    ("float8", 701, "double precision"),
    ("numeric", 1700, "numeric"),
    ("text", 25, "text"),
    ("char", 18, "\"char\""),
    ("bytea", 17, "bytea"),
    ("date", 1082, "date"),
    ("time", 1083, "time without time zone"),
    ("timetz", 1266, "time with time zone"),
    ("timestamp", 1114, "timestamp without time zone"),
    ("timestamptz", 1184, "timestamp with time zone"),
    ("interval", 1186, "interval"),
    ("uuid", 2950, "uuid"),
    ("json", 114, "json"),
    ("jsonb", 3802, "jsonb"),
    ("network", 869, "inet"),
    ("mac", 829, "macaddr"),
    ("bits", 1562, "bit varying"),
    ("lsn", 3220, "pg_lsn"),
    ("tid", 27, "tid"),
    ("xid8", 5069, "xid8"),
    ("snapshot", 5038, "pg_snapshot"),
    ("versioned", 4072, "jsonpath"),
    ("point", 600, "point"),
    ("line", 628, "line"),
    ("segment", 601, "lseg"),
    ("box", 603, "box"),
    ("path", 602, "path"),
    ("polygon", 604, "polygon"),
    ("circle", 718, "circle"),
    ("tsvector", 3614, "tsvector"),
    ("tsquery", 3615, "tsquery"),
    ("hstore", 90001, "public.hstore"),
    ("vector", 90002, "public.vector"),
    ("halfvec", 90003, "public.halfvec"),
    ("sparsevec", 90004, "public.sparsevec"),
    ("geometry", 90005, "public.geometry"),
    ("record(int4,text)", 90006, "public.pair"),
    ("record(inner,int4[],date)", 90007, "public.nested"),
    ("spaced(int2)", 22, "int2vector"),
    ("spaced(oid)", 30, "oidvector"),
    ("range(int4)", 3904, "int4range"),
    ("range(numeric)", 3906, "numrange"),
    ("range(date)", 3912, "daterange"),
    ("range(timestamp)", 3908, "tsrange"),
    ("range(timestamptz)", 3910, "tstzrange"),
    ("range(text)", 90008, "public.textrange"),
    ("multirange(int4)", 4451, "int4multirange"),
    ("multirange(timestamptz)", 4534, "tstzmultirange"),
    ("multirange(text)", 90009, "public.textmultirange"),
    ("int4[]", 1007, "integer[]"),
    ("text[]", 1009, "text[]"),
    ("bool[]", 1000, "boolean[]"),
    ("float8[]", 1022, "double precision[]"),
    ("numeric[]", 1231, "numeric[]"),
    ("bytea[]", 1001, "bytea[]"),
    ("date[]", 1182, "date[]"),
    ("timestamptz[]", 1185, "timestamp with time zone[]"),
    ("interval[]", 1187, "interval[]"),
    ("uuid[]", 2951, "uuid[]"),
    ("jsonb[]", 3807, "jsonb[]"),
    ("network[]", 1041, "inet[]"),
    ("bits[]", 1563, "bit varying[]"),
    ("point[]", 1017, "point[]"),
    ("box[]", 1020, "box[]"),
    ("tsvector[]", 3643, "tsvector[]"),
    ("range(int4)[]", 3905, "int4range[]"),
    ("range(numeric)[]", 3907, "numrange[]"),
    ("multirange(int4)[]", 6150, "int4multirange[]"),
    ("hstore[]", 90010, "public.hstore[]"),
    ("vector[]", 90011, "public.vector[]"),
    ("record(int4,text)[]", 90012, "public.pair[]"),
];

/// Whether every version of the server that is read has the value, and in this type.
fn is_of_all_versions(value: &Recorded) -> bool {
    match value.name {
        "interval" => !value.text.contains("infinity"),
        "char" => value.text.len() == 1,
        // As `cidr` writes it.
        "network" => !(value.text.ends_with("/128") || value.text.ends_with("/32") && value.text.contains('.')),
        "mac" => value.binary.len() == 6,
        "versioned" => value.text.starts_with('$') || value.text.starts_with("strict"),
        _ => true,
    }
}

/// A table with a column a kind, and the values of each.
fn every_kind() -> (Arc<TableSchema>, Vec<Vec<Recorded>>) {
    let mut by_name: BTreeMap<&str, Vec<Recorded>> = BTreeMap::new();
    for value in recorded().filter(is_of_all_versions) {
        by_name.entry(value.name).or_default().push(value);
    }
    let column = |attnum: i16, name: String, (type_oid, type_name): (u32, &str), kind| Column {
        fill: None,
        name: name.into(),
        attnum,
        type_oid,
        modifier: -1,
        type_name: type_name.into(),
        kind,
        nullable: attnum > 1,
    };
    let mut columns = vec![column(1, "id".to_owned(), (23, "integer"), crate::schema::Kind::Int4)];
    let mut values = Vec::new();
    for (attnum, (name, oid, type_name)) in (2..).zip(TYPES) {
        let of_kind = by_name.remove(name).unwrap_or_default();
        let Some(kind) = of_kind.first().map(|value| value.kind.clone()) else { continue };
        columns.push(column(attnum, format!("c{attnum}"), (*oid, type_name), kind));
        values.push(of_kind);
    }
    let schema = TableSchema {
        last_attnum: 0,
        source_name: None,
        id: TableId(1),
        name: TableName::new("public", "kinds"),
        columns: columns.into(),
        key: Box::new([0]),
        identity: ReplicaIdentity::Default,
        since: Position::ZERO,
    };
    (Arc::new(schema), values)
}

/// One row: what it holds of each kind, in one of the server's forms.
struct Wide<'v> {
    id: String,
    is_binary: bool,
    values: Vec<Option<&'v Recorded>>,
}

impl Wide<'_> {
    fn row(&self, schema: &Arc<TableSchema>) -> TableRow {
        let raw = self.values.iter().map(|value| match value {
            None => RawValue::Null,
            Some(value) if self.is_binary => RawValue::Binary(&value.binary),
            Some(value) => RawValue::Text(value.text.as_bytes()),
        });
        let mut builder = RowBuilder::new();
        let id = RawValue::Text(self.id.as_bytes());
        builder.push_raw(schema, std::iter::once(id).chain(raw).collect::<Vec<_>>().into_iter()).expect("all columns");
        builder.finish().remove(0)
    }

    /// What must be there of it.
    fn text(&self, subject: &dyn Subject) -> TextRow {
        let held = |value: &Recorded| subject.holds_for(&value.kind, &value.text).unwrap_or_else(|| value.text.clone());
        let text = |value: &Option<&Recorded>| value.map(held);
        std::iter::once(Some(self.id.clone())).chain(self.values.iter().map(text)).collect()
    }

    /// Leaves out what the place has no room for; the error must say which column that is.
    fn leave_out(&mut self, schema: &TableSchema, error: EtlError) -> CaseResult {
        if error.kind() != ErrorKind::Value {
            return Err(error.into());
        }
        let text = error.to_string();
        let place = error.context("column").and_then(|name| schema.column_index(name)).filter(|place| *place > 0);
        let value = place.and_then(|place| self.values.get_mut(place - 1));
        let Some(value) = value.filter(|value| value.is_some() && text.contains(&*schema.name.name)) else {
            return Err(Broken::new(format!("the error does not name table and column of the value: {text}")));
        };
        *value = None;
        Ok(())
    }
}

pub(super) async fn what_a_server_wrote_of_every_kind_arrives_or_is_named(trial: &mut Trial<'_>) -> CaseResult {
    let (schema, values) = every_kind();
    let most = values.iter().map(Vec::len).max().unwrap_or_default();
    trial.copy(&schema, &[]).await?;
    let mut written: Vec<Wide<'_>> = Vec::new();
    for (place, is_binary) in (0..=most).flat_map(|place| [(place, false), (place, true)]) {
        let id = (place * 2 + usize::from(is_binary)).to_string();
        let values = values.iter().map(|of_kind| of_kind.get(place)).collect();
        let mut wide = Wide { id, is_binary, values };
        let number = written.len() as u64;
        // Copied and streamed by turns.
        loop {
            let row = wide.row(&schema);
            let done = if place % 2 == 0 {
                trial.destination().write_copy_chunk(schema.id, chunk(1, number + 2), vec![row].into()).await
            } else {
                trial.deliver(&[Transaction::at(100 + number).insert_row(row).end()]).await
            };
            match done {
                Ok(()) => break,
                Err(error) => wide.leave_out(&schema, error)?,
            }
        }
        written.push(wide);
    }
    for (place, column) in schema.columns.iter().skip(1).enumerate() {
        let arrives = written.iter().any(|row| row.values[place].is_some());
        promised(arrives, || format!("no value of the type {} is taken", column.type_name))?;
    }
    let subject = trial.subject();
    trial.expect_text(&schema, written.iter().map(|row| row.text(subject)).collect()).await
}
