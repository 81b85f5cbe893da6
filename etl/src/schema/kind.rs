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
    /// `"char"`, one byte
    Char,
    /// `timetz`
    TimeTz,
    /// `interval`
    Interval,
    /// `inet`, `cidr`
    Network,
    /// `macaddr`, `macaddr8`
    MacAddress,
    /// `bit`, `varbit`
    Bits,
    /// `pg_lsn`
    Lsn,
    /// `tid`
    Tid,
    /// `xid8`
    Xid8,
    /// `pg_snapshot`, `txid_snapshot`
    Snapshot,
    /// `jsonpath`, `ltree`, `lquery`, `ltxtquery`: text whose binary form has a version before it
    VersionedText,
    /// `point`, `line`, `lseg`, `box`, `path`, `polygon`, `circle`
    Geometric(Shape),
    /// `int2vector`, `oidvector`: numbers with spaces between
    Spaced(Arc<Kind>),
    /// `tsvector`
    TsVector,
    /// `tsquery`
    TsQuery,
    /// A range over values of a kind
    Range(Arc<Kind>),
    /// A multirange over values of a kind
    Multirange(Arc<Kind>),
    /// A composite type: its attributes in their order, without those that were dropped
    Composite(Arc<[Attribute]>),
    /// `hstore`
    Hstore,
    /// pgvector's `vector`, with its dimensions where they are declared
    Vector(Option<u16>),
    /// pgvector's `halfvec`, with its dimensions where they are declared
    HalfVector(Option<u16>),
    /// pgvector's `sparsevec`
    SparseVector,
    /// PostGIS's `geometry` and `geography`, with the SRID where it is declared
    Geometry(Option<i32>),
    /// An array of any number of dimensions
    Array(Arc<Kind>),
    /// Any other type, as text
    Other,
}

/// Which geometric type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// `point`
    Point,
    /// `line`
    Line,
    /// `lseg`
    Segment,
    /// `box`
    Box,
    /// `path`
    Path,
    /// `polygon`
    Polygon,
    /// `circle`
    Circle,
}

/// An attribute of a composite type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attribute {
    /// Its name.
    pub name: Arc<str>,
    /// The oid of its type, which the binary form repeats.
    pub type_oid: u32,
    /// The kind of its values.
    pub kind: Kind,
}

impl Kind {
    /// The kind of a built-in scalar type, by its oid (`pg_type.dat`).
    pub fn of_builtin(oid: u32, modifier: i32) -> Option<Self> {
        Some(match oid {
            16 => Self::Bool,
            17 => Self::Bytea,
            18 => Self::Char,
            // name, text, xml, bpchar, varchar, refcursor
            19 | 25 | 142 | 1042 | 1043 | 1790 => Self::Text,
            20 => Self::Int8,
            21 => Self::Int2,
            22 => Self::Spaced(Arc::new(Self::Int2)),
            23 => Self::Int4,
            // oid, xid, cid
            26 | 28 | 29 => Self::Oid,
            27 => Self::Tid,
            30 => Self::Spaced(Arc::new(Self::Oid)),
            114 => Self::Json,
            600 => Self::Geometric(Shape::Point),
            601 => Self::Geometric(Shape::Segment),
            602 => Self::Geometric(Shape::Path),
            603 => Self::Geometric(Shape::Box),
            604 => Self::Geometric(Shape::Polygon),
            628 => Self::Geometric(Shape::Line),
            650 | 869 => Self::Network,
            700 => Self::Float4,
            701 => Self::Float8,
            718 => Self::Geometric(Shape::Circle),
            774 | 829 => Self::MacAddress,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            1186 => Self::Interval,
            1266 => Self::TimeTz,
            1560 | 1562 => Self::Bits,
            1700 => Self::Numeric(precision_and_scale(modifier)),
            2950 => Self::Uuid,
            2970 | 5038 => Self::Snapshot,
            3220 => Self::Lsn,
            3614 => Self::TsVector,
            3615 => Self::TsQuery,
            3802 => Self::Jsonb,
            4072 => Self::VersionedText,
            5069 => Self::Xid8,
            _ => return None,
        })
    }

    /// The kind of an extension's type, by its name and that of the function that writes its binary form: its oid
    /// and schema are others in each database.
    pub fn of_extension(name: &str, send: &str, modifier: i32) -> Option<Self> {
        let declared = u16::try_from(modifier).ok().filter(|declared| *declared > 0);
        Some(match (name, send) {
            ("citext", "citextsend") => Self::Text,
            ("hstore", "hstore_send") => Self::Hstore,
            ("ltree", "ltree_send") | ("lquery", "lquery_send") | ("ltxtquery", "ltxtq_send") => Self::VersionedText,
            ("vector", "vector_send") => Self::Vector(declared),
            ("halfvec", "halfvec_send") => Self::HalfVector(declared),
            ("sparsevec", "sparsevec_send") => Self::SparseVector,
            ("geometry", "geometry_send") | ("geography", "geography_send") => Self::Geometry(srid(modifier)),
            _ => return None,
        })
    }

    /// What stands between the elements of an array of this kind, in text.
    pub fn delimiter(&self) -> u8 {
        match self {
            Self::Geometric(Shape::Box) => b';',
            Self::Geometry(_) => b':',
            _ => b',',
        }
    }

    /// Whether the server's binary form of this kind can be decoded.
    pub fn has_binary(&self) -> bool {
        match self {
            Self::Array(of) | Self::Range(of) | Self::Multirange(of) | Self::Spaced(of) => of.has_binary(),
            Self::Composite(attributes) => attributes.iter().all(|attribute| attribute.kind.has_binary()),
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

/// PostGIS packs the SRID, a signed 21-bit number, with flags into the modifier; 0 where none is declared.
fn srid(modifier: i32) -> Option<i32> {
    let srid = ((modifier & 0x0fff_ff00) - (modifier & 0x1000_0000)) >> 8;
    (modifier >= 0 && srid != 0).then_some(srid)
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

    #[test]
    fn a_composite_is_binary_where_all_its_attributes_are() {
        let attribute = |kind| Attribute { name: "a".into(), type_oid: 1, kind };
        let composite = |kinds: [Kind; 2]| Kind::Composite(kinds.map(attribute).into());
        assert!(composite([Kind::Int4, Kind::Range(Arc::new(Kind::Date))]).has_binary());
        assert!(!composite([Kind::Int4, Kind::Array(Arc::new(Kind::Other))]).has_binary());
    }

    #[test]
    fn a_type_of_an_extension_is_known_by_its_name_and_its_binary_form() {
        assert_eq!(Kind::of_extension("vector", "vector_send", 3), Some(Kind::Vector(Some(3))));
        assert_eq!(Kind::of_extension("vector", "my_vector_out", 3), None);
        // geometry(Point,4326), geometry(PointZ,3857), geometry.
        let geometry = |modifier| Kind::of_extension("geometry", "geometry_send", modifier);
        assert_eq!(geometry((4326 << 8) | (1 << 2)), Some(Kind::Geometry(Some(4326))));
        assert_eq!(geometry((3857 << 8) | (1 << 2) | 2), Some(Kind::Geometry(Some(3857))));
        assert_eq!(geometry(-1), Some(Kind::Geometry(None)));
    }
}
