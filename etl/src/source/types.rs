//! What is one row of `pg_type`, and which kind follows from several of them?

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::Client;

use crate::error::EtlResult;
use crate::postgres::query_error;
use crate::schema::Kind;

/// What decides a type's kind.
#[derive(Debug, Clone)]
struct TypeRow {
    /// `b`ase, `c`omposite, `d`omain, `e`num, `p`seudo, `r`ange, `m`ultirange.
    form: String,
    /// The element, where the type is the array type of it.
    element: Option<u32>,
    /// The type that a domain is over, with its modifier.
    base: Option<(u32, i32)>,
}

/// The types that are used, by oid.
#[derive(Debug, Default)]
pub(super) struct Types(HashMap<u32, TypeRow>);

/// Arrays whose elements are not told apart by commas, such as `box[]`, stay text.
const QUERY: &str = "
SELECT t.oid, t.typtype::text, CASE WHEN e.typarray = t.oid AND e.typdelim = ',' THEN e.oid END,
       nullif(t.typbasetype, 0), t.typtypmod
  FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typelem <> 0
 WHERE t.oid = ANY($1)";

impl Types {
    /// Reads these types, and the ones that they are made of.
    pub(super) async fn read(client: &Client, oids: impl IntoIterator<Item = u32>) -> EtlResult<Self> {
        let mut types = Self::default();
        let mut wanted: HashSet<u32> = oids.into_iter().collect();
        while !wanted.is_empty() {
            let asked: Vec<u32> = wanted.drain().collect();
            let rows = client.query(QUERY, &[&asked]).await.map_err(|e| query_error("read the types", e))?;
            for row in rows {
                let base: Option<u32> = row.get(3);
                let entry = TypeRow {
                    form: row.get(1),
                    element: row.get(2),
                    base: base.map(|oid| (oid, row.get::<_, i32>(4))),
                };
                wanted.extend(entry.element.into_iter().chain(base));
                types.0.insert(row.get(0), entry);
            }
            wanted.retain(|oid| !types.0.contains_key(oid));
        }
        Ok(types)
    }

    /// The kind of a type with this modifier.
    pub(super) fn kind(&self, oid: u32, modifier: i32) -> Kind {
        if let Some(kind) = Kind::of_builtin(oid, modifier) {
            return kind;
        }
        match self.0.get(&oid) {
            Some(TypeRow { element: Some(element), .. }) => Kind::Array(Arc::new(self.kind(*element, modifier))),
            Some(TypeRow { base: Some((base, own)), .. }) => self.kind(*base, *own),
            Some(TypeRow { form, .. }) if form == "e" => Kind::Enum,
            _ => Kind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Given<'a> = (u32, &'a str, Option<u32>, Option<(u32, i32)>);

    fn types(rows: &[Given<'_>]) -> Types {
        Types(
            rows.iter()
                .map(|(oid, form, element, base)| {
                    (*oid, TypeRow { form: (*form).to_owned(), element: *element, base: *base })
                })
                .collect(),
        )
    }

    #[test]
    fn domains_take_the_kind_of_their_base_and_arrays_that_of_their_elements() {
        let types = types(&[
            (50_000, "d", None, Some((1700, ((10 << 16) | 2) + 4))),
            (50_001, "b", Some(50_000), None),
            (50_002, "e", None, None),
            (50_003, "c", None, None),
        ]);
        assert_eq!(types.kind(50_000, -1), Kind::Numeric(Some((10, 2))));
        assert_eq!(types.kind(50_001, -1), Kind::Array(Arc::new(Kind::Numeric(Some((10, 2))))));
        assert_eq!(types.kind(50_002, -1), Kind::Enum);
        assert_eq!(types.kind(50_003, -1), Kind::Other);
        assert_eq!(types.kind(50_004, -1), Kind::Other);
    }
}
