//! Do the rows that follow look as they are expected to? What a RELATION says, compared with a schema (`SOURCE.md` R10).

use crate::postgres::pgoutput::{Relation, RelationColumn};
use crate::schema::{Column, ReplicaIdentity, TableSchema};

/// What differs between a schema and a relation, in the order in which rows carry columns.
pub(super) fn difference(schema: &TableSchema, relation: &Relation<'_>) -> Option<String> {
    if (&*schema.name.schema, &*schema.name.name) != (relation.namespace, relation.name) {
        return Some(format!("it is called {}.{} now", relation.namespace, relation.name));
    }
    if schema.identity != relation.identity {
        return Some("its replica identity".to_owned());
    }
    if schema.columns.len() != relation.columns.len() {
        return Some(format!("it has {} columns instead of {}", relation.columns.len(), schema.columns.len()));
    }
    let differs = |(place, (known, found)): (usize, (&Column, &RelationColumn<'_>))| {
        // Under FULL every column has the key flag (R8).
        let is_key = schema.key.iter().any(|key| usize::from(*key) == place);
        let flag = if schema.identity == ReplicaIdentity::Full { true } else { is_key };
        let is_same = &*known.name == found.name
            && (known.type_oid, known.modifier) == (found.type_oid, found.modifier)
            && flag == found.in_identity;
        (!is_same).then(|| format!("column {}", known.name))
    };
    schema.columns.iter().zip(&relation.columns).enumerate().find_map(differs)
}
