//! What is the text of a `tsvector` or a `tsquery`?

use std::fmt::Write as _;

use super::reader::Reader;
use super::{DecodeError, Decoded};

/// Writes a `tsvector`: each lexeme with a zero byte behind it, the number of its places, and these, the weight in the
/// highest two bits.
pub(super) fn write_ts_vector(bytes: &[u8], out: &mut String) -> Decoded<()> {
    let mut reader = Reader(bytes);
    for place in 0..reader.count(3)? {
        if place > 0 {
            out.push(' ');
        }
        write_lexeme(reader.zero_ended()?, out);
        for nth in 0..reader.u16()? {
            let entry = reader.u16()?;
            out.push(if nth > 0 { ',' } else { ':' });
            // Formatting into a string does not fail.
            let _ = write!(out, "{}", entry & 0x3fff);
            out.push_str(["", "C", "B", "A"][usize::from(entry >> 14)]);
        }
    }
    reader.end()
}

fn write_lexeme(lexeme: &str, out: &mut String) {
    out.push('\'');
    for character in lexeme.chars() {
        if matches!(character, '\'' | '\\') {
            out.push(character);
        }
        out.push(character);
    }
    out.push('\'');
}

/// A lexeme, or an operator whose operands follow, the right one first.
#[derive(Debug, Clone, Copy)]
enum Item<'a> {
    Lexeme { text: &'a str, weights: u8, is_prefix: bool },
    Not,
    And,
    Or,
    Phrase(u16),
}

impl Item<'_> {
    fn priority(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Phrase(_) => 3,
            Self::Not | Self::Lexeme { .. } => 4,
        }
    }
}

/// What is to be written next.
enum Step {
    /// The item at this place within an operator of this priority; whether it is the right operand of a phrase.
    Item {
        place: usize,
        around: u8,
        is_right_of_phrase: bool,
    },
    Operator(usize),
    Close,
}

/// Writes a `tsquery`, as `infix` in the server's `tsquery.c` does. Nothing recurs: a query may be as deep as it is long.
pub(super) fn write_ts_query(bytes: &[u8], out: &mut String) -> Decoded<()> {
    let items = items(bytes)?;
    let ends = ends(&items)?;
    if items.is_empty() {
        return Ok(());
    }
    let mut steps = vec![Step::Item { place: 0, around: 0, is_right_of_phrase: false }];
    while let Some(step) = steps.pop() {
        match step {
            Step::Close => out.push_str(" )"),
            Step::Operator(place) => match items.get(place) {
                Some(Item::Or) => out.push_str(" | "),
                Some(Item::And) => out.push_str(" & "),
                Some(Item::Phrase(1)) => out.push_str(" <-> "),
                Some(Item::Phrase(distance)) => drop(write!(out, " <{distance}> ")),
                _ => {}
            },
            Step::Item { place, around, is_right_of_phrase } => {
                let item = *items.get(place).ok_or(DecodeError::Binary)?;
                let (priority, is_phrase) = (item.priority(), matches!(item, Item::Phrase(_)));
                if priority < around || (is_phrase && is_right_of_phrase) {
                    out.push_str("( ");
                    steps.push(Step::Close);
                }
                let operand = |place, is_right_of_phrase| Step::Item { place, around: priority, is_right_of_phrase };
                match item {
                    Item::Lexeme { text, weights, is_prefix } => write_operand(text, weights, is_prefix, out),
                    Item::Not => {
                        out.push('!');
                        steps.push(operand(place + 1, false));
                    }
                    Item::And | Item::Or | Item::Phrase(_) => {
                        let left = *ends.get(place + 1).ok_or(DecodeError::Binary)?;
                        steps.push(operand(place + 1, is_phrase));
                        steps.push(Step::Operator(place));
                        steps.push(operand(left, false));
                    }
                }
            }
        }
    }
    Ok(())
}

fn items(bytes: &[u8]) -> Decoded<Vec<Item<'_>>> {
    let mut reader = Reader(bytes);
    let mut items = Vec::new();
    for _ in 0..reader.count(2)? {
        items.push(match reader.u8()? {
            1 => {
                let (weights, prefix) = (reader.u8()?, reader.u8()?);
                Item::Lexeme { text: reader.zero_ended()?, weights, is_prefix: prefix != 0 }
            }
            2 => match reader.u8()? {
                1 => Item::Not,
                2 => Item::And,
                3 => Item::Or,
                4 => Item::Phrase(reader.u16()?),
                _ => return Err(DecodeError::Binary),
            },
            _ => return Err(DecodeError::Binary),
        });
    }
    reader.end()?;
    Ok(items)
}

/// Where the tree of each item ends; that of the first must be all.
fn ends(items: &[Item<'_>]) -> Decoded<Vec<usize>> {
    let mut ends = vec![0; items.len()];
    for (place, item) in items.iter().enumerate().rev() {
        let operands = match item {
            Item::Lexeme { .. } => 0,
            Item::Not => 1,
            Item::And | Item::Or | Item::Phrase(_) => 2,
        };
        let mut end = place + 1;
        for _ in 0..operands {
            end = *ends.get(end).ok_or(DecodeError::Binary)?;
        }
        ends[place] = end;
    }
    if ends.first().is_some_and(|end| *end != items.len()) { Err(DecodeError::Binary) } else { Ok(ends) }
}

fn write_operand(text: &str, weights: u8, is_prefix: bool, out: &mut String) {
    write_lexeme(text, out);
    if weights != 0 || is_prefix {
        out.push(':');
    }
    if is_prefix {
        out.push('*');
    }
    for (bit, letter) in [(8, 'A'), (4, 'B'), (2, 'C'), (1, 'D')] {
        if weights & bit != 0 {
            out.push(letter);
        }
    }
}
