//! What is the text of a point, a line, a box, a path, a polygon, a circle?

use super::reader::Reader;
use super::{DecodeError, Decoded, write_float8};
use crate::schema::Shape;

/// Bytes of a point.
const POINT: usize = 16;

/// Writes a value of one of the geometric types.
pub(super) fn write_geometric(shape: Shape, bytes: &[u8], out: &mut String) -> Decoded<()> {
    let mut reader = Reader(bytes);
    match shape {
        Shape::Point => write_points(&mut reader, 1, out)?,
        Shape::Line => {
            out.push('{');
            write_number(&mut reader, out)?;
            out.push(',');
            write_pair(&mut reader, out)?;
            out.push('}');
        }
        Shape::Segment => {
            out.push('[');
            write_points(&mut reader, 2, out)?;
            out.push(']');
        }
        Shape::Box => write_points(&mut reader, 2, out)?,
        Shape::Path => {
            let (open, close) = match reader.u8()? {
                0 => ('[', ']'),
                1 => ('(', ')'),
                _ => return Err(DecodeError::Binary),
            };
            let count = reader.count(POINT)?;
            out.push(open);
            write_points(&mut reader, count, out)?;
            out.push(close);
        }
        Shape::Polygon => {
            let count = reader.count(POINT)?;
            out.push('(');
            write_points(&mut reader, count, out)?;
            out.push(')');
        }
        Shape::Circle => {
            out.push('<');
            write_points(&mut reader, 1, out)?;
            out.push(',');
            write_number(&mut reader, out)?;
            out.push('>');
        }
    }
    reader.end()
}

fn write_points(reader: &mut Reader<'_>, count: usize, out: &mut String) -> Decoded<()> {
    for place in 0..count {
        out.push_str(if place > 0 { ",(" } else { "(" });
        write_pair(reader, out)?;
        out.push(')');
    }
    Ok(())
}

fn write_pair(reader: &mut Reader<'_>, out: &mut String) -> Decoded<()> {
    write_number(reader, out)?;
    out.push(',');
    write_number(reader, out)
}

fn write_number(reader: &mut Reader<'_>, out: &mut String) -> Decoded<()> {
    write_float8(reader.f64()?, out);
    Ok(())
}
