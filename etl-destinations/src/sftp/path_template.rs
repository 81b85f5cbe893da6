//! Where is a batch's file? At a path made of what the batch is, the same each time it is asked for.

use etl::clock::Timestamp;
use etl::data::decode;
use etl::schema::TableName;
use etl::store::OperationId;

/// The path of files below a directory: texts and variables, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathTemplate {
    segments: Vec<Vec<Piece>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    Schema,
    Table,
    Pipeline,
    Format,
    Year,
    Month,
    Day,
    Hour,
    Operation,
    Part,
}

const VARIABLES: &[(&str, Variable)] = &[
    ("schema", Variable::Schema),
    ("table", Variable::Table),
    ("pipeline", Variable::Pipeline),
    ("format", Variable::Format),
    ("year", Variable::Year),
    ("month", Variable::Month),
    ("day", Variable::Day),
    ("hour", Variable::Hour),
    ("operation", Variable::Operation),
    ("part", Variable::Part),
];

/// What all files of a table have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files<'f> {
    pub(crate) table: &'f TableName,
    pub(crate) pipeline: &'f str,
    pub(crate) format: &'static str,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'f> {
    pub(crate) files: Files<'f>,
    pub(crate) operation: &'f OperationId,
    pub(crate) sequence: u64,
    pub(crate) sealed_at: Timestamp,
}

/// A segment of a path in which some variables may stand for anything of their form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment(Vec<Piece>);

impl PathTemplate {
    /// Reads a template. Where neither `{part}` nor `{operation}` keeps the names of two files apart, the part comes before
    /// the ending of the name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Err("the template begins with `/`: it is below `path`".to_owned());
        }
        let mut segments = text.split('/').map(pieces).collect::<Result<Vec<_>, _>>()?;
        let is_apart = |piece: &Piece| matches!(piece, Piece::Variable(Variable::Part | Variable::Operation));
        if !segments.iter().flatten().any(is_apart)
            && let Some(name) = segments.last_mut()
        {
            add_part(name);
        }
        Ok(Self { segments })
    }

    /// The path of a file, its directories first and its name last.
    pub(crate) fn path(&self, part: &Part<'_>) -> Vec<String> {
        let segment = |pieces: &Vec<Piece>| pieces.iter().map(|piece| part.text(piece)).collect();
        self.segments.iter().map(segment).collect()
    }

    /// What the paths of a table's files look like; `None` where they cannot be told from those of other tables.
    pub(crate) fn paths_of(&self, files: &Files<'_>) -> Option<Vec<Segment>> {
        let has = |variable| self.segments.iter().flatten().any(|piece| *piece == Piece::Variable(variable));
        if !has(Variable::Schema) || !has(Variable::Table) {
            return None;
        }
        let known = |piece: &Piece| match piece {
            Piece::Variable(variable) => files.value(*variable).map_or_else(|| piece.clone(), Piece::Text),
            Piece::Text(_) => piece.clone(),
        };
        Some(self.segments.iter().map(|pieces| Segment(pieces.iter().map(known).collect())).collect())
    }
}

impl Files<'_> {
    fn value(&self, variable: Variable) -> Option<String> {
        match variable {
            Variable::Schema => Some(self.table.schema.to_string()),
            Variable::Table => Some(self.table.name.to_string()),
            Variable::Pipeline => Some(self.pipeline.to_owned()),
            Variable::Format => Some(self.format.to_owned()),
            _ => None,
        }
    }
}

impl Part<'_> {
    fn text(&self, piece: &Piece) -> String {
        let variable = match piece {
            Piece::Text(text) => return text.clone(),
            Piece::Variable(variable) => *variable,
        };
        let time = |range: std::ops::Range<usize>| {
            let mut text = String::new();
            decode::write_timestamptz(self.sealed_at.to_postgres(), &mut text);
            text.get(range).unwrap_or_default().to_owned()
        };
        let id = &*self.operation.0;
        match variable {
            Variable::Year => time(0..4),
            Variable::Month => time(5..7),
            Variable::Day => time(8..10),
            Variable::Hour => time(11..13),
            Variable::Operation => id.to_owned(),
            Variable::Part => format!("{:010}-{}", self.sequence, id.get(..8).unwrap_or(id)),
            of_all => self.files.value(of_all).unwrap_or_default(),
        }
    }
}

impl Segment {
    /// The segment, where it can be only one.
    pub(crate) fn text(&self) -> Option<String> {
        let mut whole = String::new();
        for piece in &self.0 {
            let Piece::Text(text) = piece else { return None };
            whole.push_str(text);
        }
        Some(whole)
    }

    /// Whether a name is such a segment.
    pub(crate) fn matches(&self, name: &str) -> bool {
        begins(&self.0, name)
    }
}

fn begins(pieces: &[Piece], name: &str) -> bool {
    let Some((first, rest)) = pieces.split_first() else { return name.is_empty() };
    match first {
        Piece::Text(text) => name.strip_prefix(text.as_str()).is_some_and(|name| begins(rest, name)),
        Piece::Variable(variable) => (1..=name.len())
            .any(|end| name.get(..end).is_some_and(|value| variable.takes(value)) && begins(rest, &name[end..])),
    }
}

impl Variable {
    /// Whether a text has the form of its values.
    fn takes(self, text: &str) -> bool {
        let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        let hex = |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match self {
            Self::Year => digits(text, 4),
            Self::Month | Self::Day | Self::Hour => digits(text, 2),
            Self::Operation => text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'),
            Self::Part => text
                .split_once('-')
                .is_some_and(|(number, id)| number.len() >= 10 && digits(number, number.len()) && hex(id, 8)),
            Self::Schema | Self::Table | Self::Pipeline | Self::Format => false,
        }
    }
}

fn pieces(segment: &str) -> Result<Vec<Piece>, String> {
    if matches!(segment, "" | "." | "..") {
        return Err(format!("`{segment}` is no name of a file or a directory"));
    }
    if segment.starts_with('.') {
        return Err(format!("`{segment}` begins with a point, as only files do that are not whole"));
    }
    if segment.chars().any(|character| character.is_control() || character == '\\') {
        return Err("the template has a backslash or a control character".to_owned());
    }
    let mut pieces = Vec::new();
    let mut rest = segment;
    while let Some(at) = rest.find(['{', '}']) {
        let (text, from) = rest.split_at(at);
        let unclosed = || format!("`{from}` has a brace without its other one");
        let (name, after) = from.strip_prefix('{').and_then(|from| from.split_once('}')).ok_or_else(unclosed)?;
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let variable = VARIABLES.iter().find(|(word, _)| *word == name).map(|(_, variable)| *variable);
        let unknown = || {
            let words: Vec<String> = VARIABLES.iter().map(|(word, _)| format!("{{{word}}}")).collect();
            format!("there is no `{{{name}}}`, only {}", words.join(", "))
        };
        pieces.push(Piece::Variable(variable.ok_or_else(unknown)?));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// Puts the part before the name's ending.
fn add_part(name: &mut Vec<Piece>) {
    let ending = name.iter().position(|piece| matches!(piece, Piece::Text(text) if text.contains('.')));
    let part = [Piece::Text("-".to_owned()), Piece::Variable(Variable::Part)];
    match ending {
        None => name.extend(part),
        Some(place) => {
            let Piece::Text(text) = name.remove(place) else { return };
            let (before, after) = text.split_at(text.find('.').unwrap_or(text.len()));
            let before = (!before.is_empty()).then(|| Piece::Text(before.to_owned()));
            let after = Piece::Text(after.to_owned());
            name.splice(place..place, before.into_iter().chain(part).chain([after]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-29 23:59:59.999999 UTC.
    const AT: Timestamp = Timestamp(1_709_251_199_999_999);

    fn path(template: &str) -> String {
        let (table, operation) =
            (TableName::new("sales", "orders"), OperationId("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9".into()));
        let files = Files { table: &table, pipeline: "shop", format: "csv" };
        let part = Part { files, operation: &operation, sequence: 42, sealed_at: AT };
        PathTemplate::parse(template).unwrap().path(&part).join("/")
    }

    #[test]
    fn a_path_is_made_of_what_the_batch_is() {
        for (template, expected) in [
            ("{schema}/{table}/{part}.{format}", "sales/orders/0000000042-0a1b2c3d.csv"),
            ("{year}/{month}/{day}/{hour}/{table}_{part}.txt", "2024/02/29/23/orders_0000000042-0a1b2c3d.txt"),
            ("{pipeline}-{operation}", "shop-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"),
            ("{table}.{format}", "orders-0000000042-0a1b2c3d.csv"),
            ("in/new.csv.done", "in/new-0000000042-0a1b2c3d.csv.done"),
            ("{part}/{table}", "0000000042-0a1b2c3d/orders"),
            ("{table}", "orders-0000000042-0a1b2c3d"),
        ] {
            assert_eq!(path(template), expected, "{template}");
        }
    }

    #[test]
    fn a_template_that_leads_elsewhere_or_says_nothing_is_refused() {
        for (template, why) in [
            ("/{table}", "begins with `/`"),
            ("../{table}", "`..` is no name"),
            ("a//b", "`` is no name"),
            ("a/", "`` is no name"),
            ("", "`` is no name"),
            ("{table}/.{part}", "begins with a point"),
            ("{tabel}", "there is no `{tabel}`, only {schema}"),
            ("{table", "`{table` has a brace"),
            ("table}", "`}` has a brace"),
            ("a\\b", "a backslash"),
            ("a\nb", "a control character"),
        ] {
            let error = PathTemplate::parse(template).unwrap_err();
            assert!(error.contains(why), "{template:?}: {error}");
        }
    }

    #[test]
    fn the_files_of_a_table_are_told_from_all_others() {
        let table = TableName::new("sales", "orders");
        let files = Files { table: &table, pipeline: "shop", format: "csv" };
        let of = |template: &str| PathTemplate::parse(template).unwrap().paths_of(&files);
        assert_eq!(of("{table}/{part}"), None, "another schema may have such a table");
        let segments = of("{schema}/{year}/{table}-{part}.{format}").unwrap();
        assert_eq!(segments[0].text().as_deref(), Some("sales"));
        assert_eq!((segments[1].text(), segments[1].matches("2024"), segments[1].matches("24")), (None, true, false));
        assert!(segments[2].matches("orders-0000000042-0a1b2c3d.csv"));
        assert!(segments[2].matches("orders-12345678901-0a1b2c3d.csv"));
        for other in [
            "orders-0000000042-0a1b2c3d.csv.gz",
            "orders_old-0000000042-0a1b2c3d.csv",
            "orders.csv",
            "orders-42-0a1b2c3d.csv",
        ] {
            assert!(!segments[2].matches(other), "{other}");
        }
    }
}
