//! Do the rows that follow look as they are expected to? What a RELATION says, compared with a schema (`SOURCE.md` R10).

use crate::postgres::pgoutput::Relation;
use crate::schema::{Column, ReplicaIdentity, TableName, TableSchema};

/// What a RELATION says of the rows that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    name: TableName,
    identity: ReplicaIdentity,
    columns: Vec<ShapeColumn>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ShapeColumn {
    name: Box<str>,
    type_oid: u32,
    modifier: i32,
    in_identity: bool,
}

impl Shape {
    pub(super) fn of(relation: &Relation<'_>) -> Self {
        let columns = relation.columns.iter().map(|column| ShapeColumn {
            name: column.name.into(),
            type_oid: column.type_oid,
            modifier: column.modifier,
            in_identity: column.in_identity,
        });
        Self {
            name: TableName::new(relation.namespace, relation.name),
            identity: relation.identity,
            columns: columns.collect(),
        }
    }
}

/// What differs between a schema and a shape, in the order in which rows carry columns.
pub(crate) fn difference(schema: &TableSchema, shape: &Shape) -> Option<String> {
    if schema.name != shape.name {
        return Some(format!("it is called {} now", shape.name));
    }
    if schema.identity != shape.identity {
        return Some("its replica identity".to_owned());
    }
    if schema.columns.len() != shape.columns.len() {
        return Some(format!("it has {} columns instead of {}", shape.columns.len(), schema.columns.len()));
    }
    let differs = |(place, (known, found)): (usize, (&Column, &ShapeColumn))| {
        // Under FULL every column has the key flag (R8).
        let is_key = schema.key.iter().any(|key| usize::from(*key) == place);
        let flag = if schema.identity == ReplicaIdentity::Full { true } else { is_key };
        let is_same = known.name == found.name
            && (known.type_oid, known.modifier) == (found.type_oid, found.modifier)
            && flag == found.in_identity;
        (!is_same).then(|| format!("column {}", known.name))
    };
    schema.columns.iter().zip(&shape.columns).enumerate().find_map(differs)
}
