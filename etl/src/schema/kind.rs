//! What kind of value does a Postgres type hold? The only map from type oids.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The kind of value that a column holds, as far as decoding and translating it goes.
///
/// A domain has the kind of its base type. What has no kind of its own is [`Kind::Other`]: text, exactly as
/// the server's output function writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `oid` and the like, unsigned 32 bits
    Oid,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`, with precision and scale where they are declared
    Numeric(Option<(u16, i16)>),
    /// `text`, `varchar`, `char`, `name`: text whose binary form is the text itself
    Text,
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `time`
    Time,
    /// `timestamp`
    Timestamp,
    /// `timestamptz`
    TimestampTz,
    /// `uuid`
    Uuid,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// An enum; its binary form is the label.
    Enum,
    /// An array of any number of dimensions
    Array(Arc<Kind>),
    /// Any other type, as text
    Other,
}

impl Kind {
    /// The kind of a built-in scalar type, by its oid (`pg_type.dat`).
    pub fn of_builtin(oid: u32, modifier: i32) -> Option<Self> {
        Some(match oid {
            16 => Self::Bool,
            17 => Self::Bytea,
            19 | 25 | 1042 | 1043 => Self::Text,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            26 => Self::Oid,
            114 => Self::Json,
            700 => Self::Float4,
            701 => Self::Float8,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            1700 => Self::Numeric(precision_and_scale(modifier)),
            2950 => Self::Uuid,
            3802 => Self::Jsonb,
            _ => return None,
        })
    }

    /// Whether the server's binary form of this kind can be decoded.
    pub fn has_binary(&self) -> bool {
        match self {
            Self::Array(element) => element.has_binary(),
            Self::Other => false,
            _ => true,
        }
    }
}

/// `numeric(p, s)` packs both into the modifier; since version 15 the scale is a signed 11-bit number.
fn precision_and_scale(modifier: i32) -> Option<(u16, i16)> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    let precision = u16::try_from(packed >> 16).ok()?;
    let scale = i16::try_from(((packed & 0x7ff) ^ 1024) - 1024).ok()?;
    Some((precision, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_modifiers_give_precision_and_scale() {
        // From `select atttypmod` on a server: numeric(18,4), numeric(5,0), numeric(3,-2), numeric.
        assert_eq!(precision_and_scale(((18 << 16) | 4) + 4), Some((18, 4)));
        assert_eq!(precision_and_scale((5 << 16) + 4), Some((5, 0)));
        assert_eq!(precision_and_scale(((3 << 16) | (-2 & 0x7ff)) + 4), Some((3, -2)));
        assert_eq!(precision_and_scale(-1), None);
    }

    #[test]
    fn an_array_is_binary_where_its_elements_are() {
        assert!(Kind::Array(Arc::new(Kind::Int4)).has_binary());
        assert!(!Kind::Array(Arc::new(Kind::Other)).has_binary());
    }
}
