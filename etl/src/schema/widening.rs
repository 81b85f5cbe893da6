//! Which kinds of value hold every value of another? The rules by which a column may grow and lose nothing.

use super::{Column, Kind};

/// The first oid that is not built in (`FirstNormalObjectId`): what its values may be is in its catalog alone.
const FIRST_OWN: u32 = 16_384;

/// `name`, and `char(n)`, which is filled with blanks.
const NAME: u32 = 19;
const BPCHAR: u32 = 1042;

/// How many digits the whole numbers of a kind have at most.
fn digits(kind: &Kind) -> Option<i32> {
    match kind {
        Kind::Int2 => Some(5),
        Kind::Int4 | Kind::Oid => Some(10),
        Kind::Int8 => Some(19),
        _ => None,
    }
}

impl Kind {
    /// Whether every value of the other kind is exactly a value of this one.
    ///
    /// Whole numbers grow (`smallint`, `integer`, `bigint`, `numeric`), floats too, and take what whole numbers they hold
    /// exactly; `numeric` grows on both sides of its point; `date` becomes `timestamp`; `json` holds `jsonb`; an array
    /// grows as its elements do; text holds the text of everything. A `timestamp` is no `timestamptz`: which moment it
    /// means is for a session to say.
    pub fn holds(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        match (self, other) {
            (Self::Text, _)
            | (Self::Int4, Self::Int2)
            | (Self::Int8, Self::Int2 | Self::Int4 | Self::Oid)
            | (Self::Float4, Self::Int2)
            | (Self::Float8, Self::Int2 | Self::Int4 | Self::Oid | Self::Float4)
            | (Self::Numeric(None), Self::Int2 | Self::Int4 | Self::Int8 | Self::Oid | Self::Numeric(_))
            | (Self::Timestamp, Self::Date)
            | (Self::Json, Self::Jsonb) => true,
            (Self::Numeric(Some((precision, scale))), Self::Numeric(Some((less, other_scale)))) => {
                let before_point = |precision: u16, scale: i16| i32::from(precision) - i32::from(scale);
                scale >= other_scale && before_point(*precision, *scale) >= before_point(*less, *other_scale)
            }
            (Self::Numeric(Some((precision, scale @ 0..))), whole) => {
                digits(whole).is_some_and(|digits| i32::from(*precision) - i32::from(*scale) >= digits)
            }
            (Self::Array(element), Self::Array(other)) => element.holds(other),
            _ => false,
        }
    }
}

impl Column {
    /// Whether every value of the other column is exactly one of this column's type: its [kind](Kind::holds) holds them,
    /// and so do its length or precision.
    pub fn holds(&self, other: &Self) -> bool {
        let is_same_type = self.type_oid == other.type_oid;
        if is_same_type && self.modifier == other.modifier {
            return self.kind == other.kind;
        }
        if matches!(self.kind, Kind::Numeric(_)) && self.type_oid < FIRST_OWN {
            return self.kind.holds(&other.kind);
        }
        let has_limit =
            matches!(self.kind, Kind::Text | Kind::Time | Kind::TimeTz | Kind::Timestamp | Kind::TimestampTz);
        let is_in_limit = has_limit && self.kind == other.kind && (0..=self.modifier).contains(&other.modifier);
        let fits = self.modifier < 0 || is_in_limit;
        if is_same_type {
            return fits && self.kind.holds(&other.kind);
        }
        let is_filled = (self.type_oid == BPCHAR || other.type_oid == BPCHAR) && self.modifier >= 0;
        // Two types of one kind take different values, those of text and what a domain is made of aside.
        let is_told_apart = self.kind == other.kind && !is_text(&self.kind) && other.type_oid < FIRST_OWN;
        let is_own = self.type_oid >= FIRST_OWN || self.type_oid == NAME || self.type_oid == BPCHAR;
        fits && !is_filled && !is_told_apart && !is_own && self.kind.holds(&other.kind)
    }
}

fn is_text(kind: &Kind) -> bool {
    match kind {
        Kind::Array(element) => is_text(element),
        kind => *kind == Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn numeric(precision: u16, scale: i16) -> Kind {
        Kind::Numeric(Some((precision, scale)))
    }

    fn array(element: Kind) -> Kind {
        Kind::Array(Arc::new(element))
    }

    #[test]
    fn a_kind_holds_what_fits_exactly_and_nothing_else() {
        for (from, to, fits) in [
            (Kind::Int2, Kind::Int4, true),
            (Kind::Int4, Kind::Int8, true),
            (Kind::Int8, Kind::Numeric(None), true),
            (Kind::Int8, numeric(19, 0), true),
            (Kind::Int8, numeric(20, 2), false),
            (Kind::Int4, numeric(12, 2), true),
            (Kind::Int4, numeric(9, 0), false),
            (Kind::Int4, numeric(20, -2), false),
            (Kind::Oid, Kind::Int8, true),
            (Kind::Oid, Kind::Int4, false),
            (Kind::Int8, Kind::Int4, false),
            (Kind::Int4, Kind::Int2, false),
            (Kind::Float4, Kind::Float8, true),
            (Kind::Float8, Kind::Float4, false),
            (Kind::Int4, Kind::Float8, true),
            (Kind::Int4, Kind::Float4, false),
            (Kind::Int8, Kind::Float8, false),
            (Kind::Float8, Kind::Numeric(None), false),
            (numeric(10, 2), numeric(12, 2), true),
            (numeric(10, 2), numeric(12, 4), true),
            (numeric(10, 2), numeric(11, 4), false),
            (numeric(12, 2), numeric(10, 2), false),
            (numeric(10, 2), numeric(12, 1), false),
            (numeric(3, -2), numeric(5, 0), true),
            (numeric(10, 2), Kind::Numeric(None), true),
            (Kind::Numeric(None), numeric(38, 10), false),
            (Kind::Text, Kind::Text, true),
            (Kind::Int4, Kind::Text, true),
            (Kind::Enum, Kind::Text, true),
            (Kind::Text, Kind::Int4, false),
            (Kind::Text, Kind::Enum, false),
            (Kind::Date, Kind::Timestamp, true),
            (Kind::Timestamp, Kind::Date, false),
            (Kind::Date, Kind::TimestampTz, false),
            (Kind::Timestamp, Kind::TimestampTz, false),
            (Kind::TimestampTz, Kind::Timestamp, false),
            (Kind::Jsonb, Kind::Json, true),
            (Kind::Json, Kind::Jsonb, false),
            (array(Kind::Int4), array(Kind::Int8), true),
            (array(Kind::Int8), array(Kind::Int4), false),
            (array(Kind::Int4), Kind::Text, true),
            (Kind::Int4, array(Kind::Int4), false),
            (Kind::Bool, Kind::Int4, false),
            (Kind::Uuid, Kind::Uuid, true),
        ] {
            assert_eq!(to.holds(&from), fits, "{from:?} in {to:?}");
        }
    }

    fn column(type_oid: u32, modifier: i32) -> Column {
        let kind = match type_oid {
            1009 | 1015 => array(Kind::Text),
            _ => Kind::of_builtin(type_oid, modifier).unwrap_or(Kind::Other),
        };
        let (name, type_name) = ("c".into(), "".into());
        Column { name, attnum: 1, type_oid, modifier, type_name, kind, nullable: true, fill: None }
    }

    #[test]
    fn a_column_holds_what_its_length_lets_it() {
        let (text, varchar, bpchar, name, timestamp, interval) = (25, 1043, 1042, 19, 1114, 1186);
        let numeric = |precision: i32, scale: i32| ((precision << 16) | scale) + 4;
        for (from, to, fits) in [
            ((varchar, 9), (varchar, 14), true),
            ((varchar, 14), (varchar, 9), false),
            ((varchar, 9), (text, -1), true),
            ((text, -1), (varchar, 9), false),
            ((text, -1), (varchar, -1), true),
            ((varchar, -1), (varchar, 9), false),
            ((bpchar, 9), (bpchar, 14), true),
            ((bpchar, 9), (text, -1), true),
            ((bpchar, 9), (varchar, 14), false),
            ((varchar, 9), (bpchar, 14), false),
            ((name, -1), (text, -1), true),
            ((text, -1), (name, -1), false),
            ((23, -1), (varchar, 9), false),
            ((23, -1), (text, -1), true),
            ((1700, numeric(10, 2)), (1700, numeric(12, 2)), true),
            ((1700, numeric(12, 2)), (1700, numeric(10, 2)), false),
            ((1700, numeric(12, 2)), (1700, -1), true),
            ((timestamp, 3), (timestamp, 6), true),
            ((timestamp, 3), (timestamp, -1), true),
            ((timestamp, -1), (timestamp, 3), false),
            ((1082, -1), (timestamp, 3), false),
            ((interval, -1), (interval, -1), true),
            ((interval, -1), (869, -1), false),
            ((650, -1), (869, -1), false),
            ((1560, 3), (1560, 5), false),
            ((1560, 3), (1562, -1), false),
            ((1015, 9), (1009, -1), true),
            ((23, -1), (FIRST_OWN, -1), false),
            ((FIRST_OWN, -1), (FIRST_OWN, -1), true),
        ] {
            assert_eq!(column(to.0, to.1).holds(&column(from.0, from.1)), fits, "{from:?} in {to:?}");
        }
    }
}
