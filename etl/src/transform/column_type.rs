//! Which type does the user give a column? One of Postgres's own, by its name.

use serde::{Deserialize, Deserializer, de};

use crate::schema::{Column, Kind};

/// What Postgres adds to a type modifier.
const MODIFIER_OFFSET: i32 = 4;

/// The type that a column arrives with, whatever it has at the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnType {
    type_oid: u32,
    modifier: i32,
    name: Box<str>,
    pub(super) kind: Kind,
}

impl ColumnType {
    /// `text`, which holds every value as the source writes it.
    pub(super) fn text() -> Self {
        Self { type_oid: 25, modifier: -1, name: "text".into(), kind: Kind::Text }
    }

    /// The type of this name, such as `bigint` or `numeric(38,10)`; nothing for one that is no target.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim().to_lowercase();
        let (plain, declared) = match name.split_once('(') {
            Some((plain, declared)) => (plain.trim_end(), Some(declared.strip_suffix(')')?)),
            None => (&*name, None),
        };
        let (type_oid, standard) = match plain {
            "text" => (25, "text"),
            "boolean" | "bool" => (16, "boolean"),
            "smallint" | "int2" => (21, "smallint"),
            "integer" | "int" | "int4" => (23, "integer"),
            "bigint" | "int8" => (20, "bigint"),
            "real" | "float4" => (700, "real"),
            "double precision" | "float8" => (701, "double precision"),
            "numeric" | "decimal" => (1700, "numeric"),
            "date" => (1082, "date"),
            "timestamp" | "timestamp without time zone" => (1114, "timestamp without time zone"),
            "timestamptz" | "timestamp with time zone" => (1184, "timestamp with time zone"),
            "uuid" => (2950, "uuid"),
            "json" => (114, "json"),
            "jsonb" => (3802, "jsonb"),
            _ => return None,
        };
        let (modifier, name) = match declared {
            None => (-1, standard.to_owned()),
            Some(declared) if type_oid == 1700 => {
                let (precision, scale) = declared.split_once(',').unwrap_or((declared, "0"));
                let (precision, scale): (u16, u16) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
                if !(1..=1000).contains(&precision) || scale > precision {
                    return None;
                }
                let modifier = (i32::from(precision) << 16 | i32::from(scale)) + MODIFIER_OFFSET;
                (modifier, format!("numeric({precision},{scale})"))
            }
            Some(_) => return None,
        };
        let kind = Kind::of_builtin(type_oid, modifier)?;
        Some(Self { type_oid, modifier, name: name.into(), kind })
    }

    /// The type as SQL writes it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The column with this type, and what rows had before it was added.
    pub(super) fn column(&self, column: &Column, fill: Option<String>) -> Column {
        Column {
            type_oid: self.type_oid,
            modifier: self.modifier,
            type_name: self.name.clone(),
            kind: self.kind.clone(),
            fill: fill.map(Into::into),
            ..column.clone()
        }
    }
}

impl<'de> Deserialize<'de> for ColumnType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| {
            let expected = "text, boolean, smallint, integer, bigint, real, double precision, numeric(p,s), date, \
                            timestamp, timestamptz, uuid, json or jsonb";
            de::Error::invalid_value(de::Unexpected::Str(&name), &expected)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_known_by_their_names_in_sql() {
        for (name, known) in [
            ("text", Some(("text", Kind::Text))),
            (" NUMERIC ( 38 , 10 ) ", Some(("numeric(38,10)", Kind::Numeric(Some((38, 10)))))),
            ("numeric(5)", Some(("numeric(5,0)", Kind::Numeric(Some((5, 0)))))),
            ("decimal", Some(("numeric", Kind::Numeric(None)))),
            ("int8", Some(("bigint", Kind::Int8))),
            ("timestamptz", Some(("timestamp with time zone", Kind::TimestampTz))),
            ("numeric(0,0)", None),
            ("numeric(5,6)", None),
            ("numeric(5,2", None),
            ("text(5)", None),
            ("varchar2", None),
        ] {
            let found = ColumnType::named(name).map(|found| (found.name, found.kind));
            assert_eq!(found, known.map(|(name, kind)| (name.into(), kind)), "{name}");
        }
        assert!(serde_json::from_str::<ColumnType>("\"varchar2\"").unwrap_err().to_string().contains("numeric(p,s)"));
    }
}
