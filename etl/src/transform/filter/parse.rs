//! What does the text of a row filter say? A small part of SQL's conditions.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::vec::IntoIter;

/// Deeper conditions are refused.
const MOST_LEVELS: usize = 64;

/// A condition, by the names of columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    IsNull(String),
    /// The column itself, a boolean.
    IsTrue(String),
    /// The column compared with each of these: one that is so is enough.
    Any(String, Compared, Vec<String>),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Compared {
    /// Whether values in this order are so.
    pub(super) fn is(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// An unquoted name, folded, or a keyword.
    Word(String),
    Quoted(String),
    Literal(String),
    Sign(&'static str),
}

const SIGNS: &[&str] = &["<=", ">=", "<>", "!=", "=", "<", ">", "(", ")", ","];

/// Reads a condition; says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let mut parser = Parser { tokens: tokens(text)?.into_iter().peekable(), level: 0 };
    let expression = parser.any()?;
    match parser.tokens.next() {
        None => Ok(expression),
        Some(token) => Err(format!("nothing was expected at {}", shown(&token))),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = if first == '\'' || first == '"' {
            let (content, length) = quoted(rest, first)?;
            (if first == '"' { Token::Quoted(content) } else { Token::Literal(content) }, length)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), sign.len())
        } else if first.is_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
            (Token::Word(rest[..length].to_lowercase()), length)
        } else if first.is_ascii_digit() || matches!(first, '-' | '+' | '.') {
            let is_number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-');
            let length = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
            (Token::Literal(rest[..length].trim_start_matches('+').to_owned()), length)
        } else {
            return Err(format!("{first:?} means nothing here"));
        };
        found.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(found)
}

/// What stands in quotes, and how long it is with them. A quote within is doubled.
fn quoted(text: &str, quote: char) -> Result<(String, usize), String> {
    let mut content = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            content.push(character);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            content.push(quote);
        } else {
            return Ok((content, at + 1));
        }
    }
    Err(format!("a {quote} is not closed"))
}

fn shown(token: &Token) -> String {
    match token {
        Token::Word(text) | Token::Quoted(text) => text.clone(),
        Token::Literal(text) => format!("'{text}'"),
        Token::Sign(sign) => (*sign).to_owned(),
    }
}

struct Parser {
    tokens: Peekable<IntoIter<Token>>,
    level: usize,
}

impl Parser {
    fn word(&mut self, word: &str) -> bool {
        self.tokens.next_if(|token| matches!(token, Token::Word(found) if found == word)).is_some()
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.tokens
            .next_if(|token| *token == Token::Sign(SIGNS.iter().find(|s| **s == sign).copied().unwrap_or("")))
            .is_some()
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.sign(sign) { Ok(()) } else { Err(format!("{sign} is missing")) }
    }

    /// Several with `OR`.
    fn any(&mut self) -> Result<Expression, String> {
        self.level += 1;
        if self.level > MOST_LEVELS {
            return Err("it has too many levels".to_owned());
        }
        let mut several = vec![self.all()?];
        while self.word("or") {
            several.push(self.all()?);
        }
        self.level -= 1;
        Ok(one_or(several, Expression::Or))
    }

    /// Several with `AND`.
    fn all(&mut self) -> Result<Expression, String> {
        let mut several = vec![self.condition()?];
        while self.word("and") {
            several.push(self.condition()?);
        }
        Ok(one_or(several, Expression::And))
    }

    fn condition(&mut self) -> Result<Expression, String> {
        let mut is_not = false;
        while self.word("not") {
            is_not = !is_not;
        }
        let inner = if self.sign("(") {
            let inner = self.any()?;
            self.expect(")")?;
            inner
        } else {
            self.comparison()?
        };
        Ok(negated(inner, is_not))
    }

    fn comparison(&mut self) -> Result<Expression, String> {
        let column = match self.tokens.next() {
            Some(Token::Word(name) | Token::Quoted(name)) => name,
            Some(token) => return Err(format!("the name of a column was expected at {}", shown(&token))),
            None => return Err("the name of a column is missing at its end".to_owned()),
        };
        if self.word("is") {
            let is_not = self.word("not");
            let inner = match self.tokens.next() {
                Some(Token::Word(word)) if word == "null" => Expression::IsNull(column),
                // Unlike `= true`, these are never unknown.
                Some(Token::Word(word)) if word == "true" || word == "false" => {
                    let value = Expression::Any(column.clone(), Compared::Equal, vec![word]);
                    Expression::And(vec![negated(Expression::IsNull(column), true), value])
                }
                _ => return Err("after IS comes NULL, TRUE or FALSE".to_owned()),
            };
            return Ok(negated(inner, is_not));
        }
        let is_not = self.word("not");
        if self.word("in") {
            self.expect("(")?;
            let mut literals = vec![self.literal()?];
            while self.sign(",") {
                literals.push(self.literal()?);
            }
            self.expect(")")?;
            return Ok(negated(Expression::Any(column, Compared::Equal, literals), is_not));
        }
        if is_not {
            return Err(format!("IN is missing after {column} NOT"));
        }
        for (sign, compared) in [
            ("=", Compared::Equal),
            ("<>", Compared::NotEqual),
            ("!=", Compared::NotEqual),
            ("<=", Compared::LessOrEqual),
            (">=", Compared::GreaterOrEqual),
            ("<", Compared::Less),
            (">", Compared::Greater),
        ] {
            if self.sign(sign) {
                return Ok(Expression::Any(column, compared, vec![self.literal()?]));
            }
        }
        Ok(Expression::IsTrue(column))
    }

    fn literal(&mut self) -> Result<String, String> {
        match self.tokens.next() {
            Some(Token::Literal(text)) => Ok(text),
            Some(Token::Word(word)) if word == "true" || word == "false" => Ok(word),
            Some(Token::Word(word)) if word == "null" => Err("nothing equals NULL: write IS NULL".to_owned()),
            Some(token) => Err(format!("a value was expected at {}", shown(&token))),
            None => Err("a value is missing at its end".to_owned()),
        }
    }
}

fn negated(inner: Expression, is_not: bool) -> Expression {
    if is_not { Expression::Not(Box::new(inner)) } else { inner }
}

fn one_or(mut several: Vec<Expression>, make: fn(Vec<Expression>) -> Expression) -> Expression {
    match several.len() {
        1 => several.remove(0),
        _ => make(several),
    }
}
