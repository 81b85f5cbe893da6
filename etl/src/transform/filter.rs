//! Which rows are passed on? A condition on the values of a row, as SQL writes it.

mod numeric;
mod parse;

use std::cmp::Ordering;

use self::parse::{Compared, Expression};
use crate::data::decode::{DecodeError, Decoded};
use crate::data::{Cell, RawValue};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::schema::{Column, Kind, TableSchema};

/// A condition on the columns of one table.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    root: Node,
    /// The places of the columns that it looks at.
    pub(super) places: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    IsNull(usize),
    IsTrue(usize),
    /// The value compared with each: one that is so is enough.
    Any(usize, Compared, Vec<Cell<'static>>),
}

impl Filter {
    /// The condition for a table.
    ///
    /// # Errors
    /// `Config`, where it is no condition, names a column that is not there, or compares with what its type does not hold.
    pub(super) fn new(text: &str, table: &TableSchema) -> EtlResult<Self> {
        let wrong = |what: String| {
            EtlError::new(ErrorKind::Config, "a row filter cannot be read")
                .with("table", table.source_name())
                .with("filter", text)
                .with("why", what)
                .hint("Write conditions such as `country = 'DE' AND (age >= 18 OR age IS NULL)`")
        };
        let expression = parse::parse(text).map_err(wrong)?;
        let mut places = Vec::new();
        let root = bind(&expression, table, &mut places).map_err(wrong)?;
        places.sort_unstable();
        places.dedup();
        Ok(Self { root, places })
    }

    /// Whether the row is passed on; `value` gives the raw value of the column at a place.
    ///
    /// # Errors
    /// Where a value that is looked at was not sent, or cannot be read; the place says which.
    pub(super) fn passes<'v>(
        &self,
        table: &TableSchema,
        value: impl Fn(usize) -> RawValue<'v>,
    ) -> Result<bool, (usize, DecodeError)> {
        let cell = |place: usize| {
            let kind = &table.columns[place].kind;
            match Cell::decode(kind, value(place)).map_err(|error| (place, error))? {
                Cell::Unchanged => Err((place, DecodeError::Unchanged)),
                cell => Ok(cell),
            }
        };
        // Unknown is not true (SQL, WHERE).
        Ok(self.root.holds(&cell)? == Some(true))
    }
}

impl Node {
    fn holds<'v>(
        &self,
        cell: &impl Fn(usize) -> Result<Cell<'v>, (usize, DecodeError)>,
    ) -> Result<Option<bool>, (usize, DecodeError)> {
        // All of these must be so; one that is not decides, and one that is unknown leaves the rest unknown.
        let all = |nodes: &[Self], wanted: bool| {
            let mut result = Some(wanted);
            for node in nodes {
                match node.holds(cell)? {
                    Some(holds) if holds != wanted => return Ok(Some(!wanted)),
                    Some(_) => {}
                    None => result = None,
                }
            }
            Ok(result)
        };
        match self {
            Self::And(nodes) => all(nodes, true),
            Self::Or(nodes) => all(nodes, false),
            Self::Not(node) => Ok(node.holds(cell)?.map(|holds| !holds)),
            Self::IsNull(place) => Ok(Some(cell(*place)? == Cell::Null)),
            Self::IsTrue(place) => Ok(match cell(*place)? {
                Cell::Bool(value) => Some(value),
                _ => None,
            }),
            Self::Any(place, compared, with) => {
                let value = cell(*place)?;
                if value == Cell::Null {
                    return Ok(None);
                }
                for other in with {
                    let order = order(&value, other).map_err(|error| (*place, error))?;
                    if compared.is(order) {
                        return Ok(Some(true));
                    }
                }
                Ok(Some(false))
            }
        }
    }
}

fn bind(expression: &Expression, table: &TableSchema, places: &mut Vec<usize>) -> Result<Node, String> {
    let mut column = |name: &str| {
        let place = table.column_index(name).ok_or_else(|| format!("the table has no column {name}"))?;
        places.push(place);
        Ok::<_, String>((place, &table.columns[place]))
    };
    Ok(match expression {
        Expression::IsNull(name) => Node::IsNull(column(name)?.0),
        Expression::IsTrue(name) => match column(name)? {
            (place, Column { kind: Kind::Bool, .. }) => Node::IsTrue(place),
            (_, column) => return Err(format!("{name} is {}, not boolean", column.type_name)),
        },
        Expression::Any(name, compared, literals) => {
            let (place, column) = column(name)?;
            if *compared != Compared::Equal && *compared != Compared::NotEqual && !has_order(&column.kind) {
                return Err(format!("values of {name} ({}) have no order here", column.type_name));
            }
            let literals = literals.iter().map(|literal| {
                let cell = cell_of(&column.kind, literal);
                cell.ok_or_else(|| format!("'{literal}' is no value of {name} ({})", column.type_name))
            });
            Node::Any(place, *compared, literals.collect::<Result<_, _>>()?)
        }
        Expression::Not(inner) => Node::Not(Box::new(bind(inner, table, places)?)),
        Expression::And(inner) => Node::And(bind_all(inner, table, places)?),
        Expression::Or(inner) => Node::Or(bind_all(inner, table, places)?),
    })
}

fn bind_all(inner: &[Expression], table: &TableSchema, places: &mut Vec<usize>) -> Result<Vec<Node>, String> {
    inner.iter().map(|expression| bind(expression, table, places)).collect()
}

/// Whether values are compared by more than being the same.
fn has_order(kind: &Kind) -> bool {
    use Kind::{
        Bool, Bytea, Date, Float4, Float8, Int2, Int4, Int8, Numeric, Oid, Text, Time, Timestamp, TimestampTz, Uuid,
    };
    matches!(
        kind,
        Bool | Int2
            | Int4
            | Int8
            | Oid
            | Float4
            | Float8
            | Numeric(_)
            | Text
            | Bytea
            | Date
            | Time
            | Timestamp
            | TimestampTz
            | Uuid
    )
}

/// A literal as a value of the kind; a date alone is midnight.
fn cell_of(kind: &Kind, literal: &str) -> Option<Cell<'static>> {
    let decode = |text: &str| Cell::decode(kind, RawValue::Text(text.as_bytes())).ok().map(Cell::into_owned);
    let midnight = match kind {
        Kind::Timestamp => Some(" 00:00:00"),
        Kind::TimestampTz => Some(" 00:00:00+00"),
        _ => None,
    };
    let boolean = match (kind, literal) {
        (Kind::Bool, "true") => Some("t"),
        (Kind::Bool, "false") => Some("f"),
        _ => None,
    };
    decode(boolean.unwrap_or(literal)).or_else(|| decode(&format!("{literal}{}", midnight?)))
}

/// Texts by their bytes; numbers with `NaN` as the greatest, as Postgres orders them.
fn order(one: &Cell<'_>, other: &Cell<'_>) -> Decoded<Ordering> {
    let floats = |one: f64, other: f64| one.partial_cmp(&other).unwrap_or_else(|| one.is_nan().cmp(&other.is_nan()));
    Ok(match (one, other) {
        (Cell::Bool(one), Cell::Bool(other)) => one.cmp(other),
        (Cell::I64(one), Cell::I64(other)) => one.cmp(other),
        (Cell::F32(one), Cell::F32(other)) => floats((*one).into(), (*other).into()),
        (Cell::F64(one), Cell::F64(other)) => floats(*one, *other),
        (Cell::Numeric(one), Cell::Numeric(other)) => numeric::compare(one, other),
        (Cell::Text(one), Cell::Text(other)) | (Cell::Json(one), Cell::Json(other)) => one.cmp(other),
        (Cell::Bytes(one), Cell::Bytes(other)) => one.cmp(other),
        (Cell::Date(one), Cell::Date(other)) => one.cmp(other),
        (Cell::Time(one), Cell::Time(other)) => one.cmp(other),
        (Cell::Timestamp(one), Cell::Timestamp(other)) | (Cell::TimestampTz(one), Cell::TimestampTz(other)) => {
            one.cmp(other)
        }
        (Cell::Uuid(one), Cell::Uuid(other)) => one.cmp(other),
        // What has no order here is the same, or is not.
        (one, other) if std::mem::discriminant(one) != std::mem::discriminant(other) => {
            return Err(DecodeError::WrongType);
        }
        (one, other) if one == other => Ordering::Equal,
        _ => Ordering::Less,
    })
}

#[cfg(test)]
mod tests;
