//! What is one row of `pg_type`, and which kind follows from several of them?

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::error::EtlResult;
use crate::postgres::query_error;
use crate::schema::{Attribute, Kind};

/// A type may be made of others so deep; what is deeper is text.
const MAX_DEPTH: usize = 32;

/// What decides a type's kind.
#[derive(Debug, Clone)]
enum TypeRow {
    /// An array of this element, with this delimiter.
    Array(u32, u8),
    /// A domain over this type, with its modifier.
    Domain(u32, i32),
    Enum,
    /// A range over this type.
    Range(u32),
    /// A multirange over ranges of this type.
    Multirange(u32),
    /// Names, types and modifiers of the attributes.
    Composite(Vec<(Arc<str>, u32, i32)>),
    /// A type of an extension: its name, and that of the function that writes its binary form.
    Extension(String, String),
    Other,
}

/// The types that are used, by oid.
#[derive(Debug, Default)]
pub(super) struct Types(HashMap<u32, TypeRow>);

const QUERY: &str = "
SELECT t.oid, t.typtype::text, t.typname::text, e.oid, e.typdelim::text, nullif(t.typbasetype, 0), t.typtypmod,
       r.rngsubtype, m.rngsubtype, a.names, a.types, a.modifiers,
       (SELECT s.proname::text FROM pg_catalog.pg_proc s, pg_catalog.pg_depend d
         WHERE s.oid = t.typsend AND d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid
           AND d.deptype = 'e' LIMIT 1)
  FROM pg_catalog.pg_type t
       LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typelem <> 0 AND e.typarray = t.oid
       LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
       LEFT JOIN pg_catalog.pg_range m ON m.rngmultitypid = t.oid
       LEFT JOIN LATERAL (
           SELECT array_agg(c.attname::text ORDER BY c.attnum) AS names, array_agg(c.atttypid ORDER BY c.attnum) AS types,
                  array_agg(c.atttypmod ORDER BY c.attnum) AS modifiers
             FROM pg_catalog.pg_attribute c
            WHERE t.typtype = 'c' AND c.attrelid = t.typrelid AND c.attnum > 0 AND NOT c.attisdropped) a ON true
 WHERE t.oid = ANY($1)";

impl TypeRow {
    fn of(row: &Row) -> Self {
        let (form, modifier): (String, i32) = (row.get(1), row.get(6));
        let delimiter = row.get::<_, Option<String>>(4).and_then(|text| text.bytes().next());
        if let (Some(element), Some(delimiter)) = (row.get(3), delimiter) {
            return Self::Array(element, delimiter);
        }
        if let Some(base) = row.get(5) {
            return Self::Domain(base, modifier);
        }
        if let Some(element) = row.get(7) {
            return Self::Range(element);
        }
        if let Some(element) = row.get(8) {
            return Self::Multirange(element);
        }
        match &*form {
            "e" => Self::Enum,
            "c" => {
                let names: Option<Vec<String>> = row.get(9);
                let (types, modifiers): (Option<Vec<u32>>, Option<Vec<i32>>) = (row.get(10), row.get(11));
                let names = names.unwrap_or_default().into_iter().map(Arc::from);
                let types = types.unwrap_or_default().into_iter().zip(modifiers.unwrap_or_default());
                Self::Composite(names.zip(types).map(|(name, (of, modifier))| (name, of, modifier)).collect())
            }
            _ => match row.get(12) {
                Some(send) => Self::Extension(row.get(2), send),
                None => Self::Other,
            },
        }
    }

    /// The types that this one is made of.
    fn parts(&self) -> Vec<u32> {
        match self {
            Self::Array(of, _) | Self::Domain(of, _) | Self::Range(of) | Self::Multirange(of) => vec![*of],
            Self::Composite(attributes) => attributes.iter().map(|(_, of, _)| *of).collect(),
            Self::Enum | Self::Extension(..) | Self::Other => Vec::new(),
        }
    }
}

impl Types {
    /// Reads these types, and the ones that they are made of.
    pub(super) async fn read(client: &Client, oids: impl IntoIterator<Item = u32>) -> EtlResult<Self> {
        let mut types = Self::default();
        // What is built in is known without asking.
        let is_asked = |oid: &u32| Kind::of_builtin(*oid, -1).is_none();
        let mut wanted: HashSet<u32> = oids.into_iter().filter(is_asked).collect();
        while !wanted.is_empty() {
            let asked: Vec<u32> = wanted.drain().collect();
            let rows = client
                .query_typed(QUERY, &[(&asked, Type::OID_ARRAY)])
                .await
                .map_err(|e| query_error("read the types", e))?;
            for row in rows {
                let entry = TypeRow::of(&row);
                wanted.extend(entry.parts().into_iter().filter(is_asked));
                types.0.insert(row.get(0), entry);
            }
            wanted.retain(|oid| !types.0.contains_key(oid));
        }
        Ok(types)
    }

    /// The kind of a type with this modifier.
    pub(super) fn kind(&self, oid: u32, modifier: i32) -> Kind {
        self.kind_within(oid, modifier, MAX_DEPTH)
    }

    fn kind_within(&self, oid: u32, modifier: i32, depth: usize) -> Kind {
        if let Some(kind) = Kind::of_builtin(oid, modifier) {
            return kind;
        }
        let (Some(row), Some(depth)) = (self.0.get(&oid), depth.checked_sub(1)) else { return Kind::Other };
        let part = |of: u32, modifier: i32| self.kind_within(of, modifier, depth);
        match row {
            TypeRow::Array(element, delimiter) => match part(*element, modifier) {
                element if element.delimiter() == *delimiter => Kind::Array(Arc::new(element)),
                _ => Kind::Other,
            },
            TypeRow::Domain(base, own) => part(*base, *own),
            TypeRow::Enum => Kind::Enum,
            TypeRow::Range(element) => Kind::Range(Arc::new(part(*element, -1))),
            TypeRow::Multirange(element) => Kind::Multirange(Arc::new(part(*element, -1))),
            TypeRow::Composite(attributes) => {
                let attribute = |(name, type_oid, modifier): &(Arc<str>, u32, i32)| Attribute {
                    name: Arc::clone(name),
                    type_oid: *type_oid,
                    kind: part(*type_oid, *modifier),
                };
                Kind::Composite(attributes.iter().map(attribute).collect())
            }
            TypeRow::Extension(name, send) => Kind::of_extension(name, send, modifier).unwrap_or(Kind::Other),
            TypeRow::Other => Kind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(rows: &[(u32, TypeRow)]) -> Types {
        Types(rows.iter().cloned().collect())
    }

    #[test]
    fn domains_take_the_kind_of_their_base_and_arrays_that_of_their_elements() {
        let types = types(&[
            (50_000, TypeRow::Domain(1700, ((10 << 16) | 2) + 4)),
            (50_001, TypeRow::Array(50_000, b',')),
            (50_002, TypeRow::Enum),
            (50_003, TypeRow::Other),
        ]);
        assert_eq!(types.kind(50_000, -1), Kind::Numeric(Some((10, 2))));
        assert_eq!(types.kind(50_001, -1), Kind::Array(Arc::new(Kind::Numeric(Some((10, 2))))));
        assert_eq!(types.kind(50_002, -1), Kind::Enum);
        assert_eq!(types.kind(50_003, -1), Kind::Other);
        assert_eq!(types.kind(50_004, -1), Kind::Other);
    }

    #[test]
    fn what_is_made_of_other_types_has_their_kinds() {
        let types = types(&[
            (50_000, TypeRow::Range(1082)),
            (50_001, TypeRow::Multirange(1082)),
            (50_002, TypeRow::Composite(vec![("a".into(), 50_000, -1), ("b".into(), 1700, ((5 << 16) | 1) + 4)])),
            (50_003, TypeRow::Array(50_002, b',')),
            (50_004, TypeRow::Extension("citext".to_owned(), "citextsend".to_owned())),
        ]);
        let range = Kind::Range(Arc::new(Kind::Date));
        let attribute = |name: &str, type_oid, kind| Attribute { name: name.into(), type_oid, kind };
        let composite = Kind::Composite(Arc::from([
            attribute("a", 50_000, range.clone()),
            attribute("b", 1700, Kind::Numeric(Some((5, 1)))),
        ]));
        assert_eq!(types.kind(50_000, -1), range);
        assert_eq!(types.kind(50_001, -1), Kind::Multirange(Arc::new(Kind::Date)));
        assert_eq!(types.kind(50_003, -1), Kind::Array(Arc::new(composite)));
        assert_eq!(types.kind(50_004, -1), Kind::Text);
    }

    #[test]
    fn an_array_with_a_delimiter_of_its_own_is_text_unless_its_elements_have_it() {
        let types = types(&[
            (1020, TypeRow::Array(603, b';')),
            (50_000, TypeRow::Array(50_001, b':')),
            (50_001, TypeRow::Other),
        ]);
        assert!(matches!(types.kind(1020, -1), Kind::Array(_)));
        assert_eq!(types.kind(50_000, -1), Kind::Other);
    }

    #[test]
    fn a_type_that_is_made_of_itself_ends() {
        let types = types(&[(50_000, TypeRow::Composite(vec![("a".into(), 50_000, -1)]))]);
        assert!(!types.kind(50_000, -1).has_binary());
    }
}
