//! What does the file say, and on which line? YAML as a tree of texts, before anything is known of its meaning.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use crate::problems::Problem;

/// No config is deeper; protects the stack.
const MOST_DEPTH: usize = 64;
/// No config has more values; protects against aliases of aliases.
const MOST_NODES: usize = 100_000;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// On this line of the file, from 1.
    Line(usize),
    /// In this environment variable.
    Variable(String),
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) origin: Origin,
    pub(crate) content: Content,
}

/// What a value is, as far as YAML's syntax tells.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Nothing, `null` or `~`.
    Null,
    /// A text that may mean anything.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A mapping; every key once.
    Map(Vec<(String, Node)>),
    /// A value whose problem is known already.
    Removed,
}

/// A text as written.
#[derive(Clone)]
pub(crate) struct Scalar {
    /// What it says, once variables are put in.
    pub(crate) text: String,
    /// Whether quotes say that it is a text and nothing else.
    pub(crate) quoted: bool,
    /// What the file says, where variables were put in: the text may be a secret.
    pub(crate) written: Option<String>,
}

impl std::fmt::Debug for Scalar {
    /// Without the text, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scalar(***)")
    }
}

impl Node {
    pub(crate) fn null(origin: Origin) -> Self {
        Self { origin, content: Content::Null }
    }

    /// A text from outside the file; a list or mapping in YAML's short form is read as such.
    pub(crate) fn from_variable(name: &str, text: &str) -> Result<Self, Problem> {
        let origin = Origin::Variable(name.to_owned());
        if text.starts_with(['[', '{']) {
            let mut problems = Vec::new();
            let mut node = parse(text, &mut problems);
            node.relocate(&origin);
            return match problems.pop() {
                None => Ok(node),
                Some(problem) => Err(problem.in_variable(name)),
            };
        }
        let scalar = Scalar { text: text.to_owned(), quoted: false, written: None };
        Ok(Self { origin, content: Content::Scalar(scalar) })
    }

    fn relocate(&mut self, origin: &Origin) {
        self.origin = origin.clone();
        match &mut self.content {
            Content::List(items) => items.iter_mut().for_each(|item| item.relocate(origin)),
            Content::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.relocate(origin)),
            Content::Null | Content::Scalar(_) | Content::Removed => {}
        }
    }

    /// The value of a key, where this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value under keys; where it is missing, the nearest one above.
    pub(crate) fn nearest(&self, keys: &[&str]) -> &Self {
        match keys.split_first().and_then(|(first, rest)| Some((self.get(first)?, rest))) {
            Some((child, rest)) => child.nearest(rest),
            None => self,
        }
    }

    /// Takes the value of a key out.
    pub(crate) fn take(&mut self, key: &str) -> Option<Self> {
        let Content::Map(entries) = &mut self.content else { return None };
        let place = entries.iter().position(|(name, _)| name == key)?;
        Some(entries.swap_remove(place).1)
    }

    /// The value under a path such as `batch.max_age` or `tables[1].match`.
    pub(crate) fn at_mut(&mut self, path: &[Step]) -> Option<&mut Self> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        let child = match (&mut self.content, first) {
            (Content::Map(entries), Step::Key(key)) => {
                entries.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
            }
            (Content::List(items), Step::Item(place)) => items.get_mut(*place),
            _ => None,
        };
        child?.at_mut(rest)
    }

    fn size(&self) -> usize {
        1 + match &self.content {
            Content::List(items) => items.iter().map(Self::size).sum(),
            Content::Map(entries) => entries.iter().map(|(_, value)| value.size()).sum(),
            Content::Null | Content::Scalar(_) | Content::Removed => 0,
        }
    }
}

/// One step down the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Item(usize),
}

/// A path as problems show it.
pub(crate) fn path_text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Item(place) => text.push_str(&format!("[{place}]")),
        }
    }
    text
}

/// Reads one YAML document; what is wrong with it is added to `problems`.
pub(crate) fn parse(text: &str, problems: &mut Vec<Problem>) -> Node {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, problems };
    match reader.document() {
        Ok(node) => node,
        Err(problem) => {
            problems.push(problem);
            Node::null(Origin::Line(1))
        }
    }
}

struct Reader<'t, 'p> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    problems: &'p mut Vec<Problem>,
}

impl<'t> Reader<'t, '_> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(syntax_error(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self) -> Result<Node, Problem> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(Node::null(Origin::Line(1))),
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                event => {
                    let node = self.node(event, &mut Vec::new())?;
                    return self.end_of_document().map(|()| node);
                }
            }
        }
    }

    fn end_of_document(&mut self) -> Result<(), Problem> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(_), span) => {
                    let problem = Problem::new("", "a second YAML document begins here");
                    return Err(problem.on_line(line(&span)).hint("Keep one document in the file, without `---`"));
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, (event, span): (Event<'t>, Span), path: &mut Vec<Step>) -> Result<Node, Problem> {
        self.nodes += 1;
        if path.len() > MOST_DEPTH || self.nodes > MOST_NODES {
            return Err(Problem::new("", "the file is nested too deeply or too large").on_line(line(&span)));
        }
        let (content, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (scalar(&text, style), anchor),
            Event::SequenceStart(anchor, _) => (self.list(path)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(path)?, anchor),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Problem::new(&path_text(path), "this alias names no anchor").on_line(line(&span)));
                };
                self.nodes += node.size();
                return Ok(node);
            }
            _ => (Content::Null, 0),
        };
        let node = Node { origin: Origin::Line(line(&span)), content };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, path: &mut Vec<Step>) -> Result<Content, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::StreamEnd, _) => return Ok(Content::List(items)),
                event => {
                    path.push(Step::Item(items.len()));
                    items.push(self.node(event, path)?);
                    path.pop();
                }
            }
        }
    }

    fn map(&mut self, path: &mut Vec<Step>) -> Result<Content, Problem> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        loop {
            let (key, span) = match self.next()? {
                (Event::MappingEnd | Event::StreamEnd, _) => return Ok(Content::Map(entries)),
                (Event::Scalar(text, ..), span) => (text.into_owned(), span),
                (_, span) => {
                    return Err(Problem::new(&path_text(path), "a key must be a plain text").on_line(line(&span)));
                }
            };
            path.push(Step::Key(key.clone()));
            let event = self.next()?;
            let value = self.node(event, path)?;
            if entries.iter().any(|(known, _)| *known == key) {
                let problem = Problem::new(&path_text(path), "this key is written twice").on_line(line(&span));
                self.problems.push(problem.hint("Keep one of the two"));
            } else {
                entries.push((key, value));
            }
            path.pop();
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Content {
    let quoted = style != ScalarStyle::Plain;
    match text {
        "" | "~" | "null" if !quoted => Content::Null,
        _ => Content::Scalar(Scalar { text: text.to_owned(), quoted, written: None }),
    }
}

fn line(span: &Span) -> usize {
    span.start.line()
}

fn syntax_error(error: &ScanError) -> Problem {
    Problem::new("", format!("not valid YAML: {}", error.info()))
        .on_line(error.marker().line())
        .hint("Check the indentation, and put texts with `:`, `#`, `{` or `*` in quotes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_lines() {
        let mut problems = Vec::new();
        let tree = parse("a:\n  b: [1, 'two']\nc: &x {d: ~}\ne: *x\n", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(tree.get("a").unwrap().get("b").unwrap().origin, Origin::Line(2));
        assert!(matches!(tree.get("e").unwrap().get("d").unwrap().content, Content::Null));
    }

    #[test]
    fn broken_files_are_problems_with_a_line() {
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let bombs = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
            let last = n - 1;
            text + &format!("a{n}: &a{n} [*a{last}, *a{last}, *a{last}]\n")
        });
        let cases = [
            ("a: 1\na: 2\n", "written twice"),
            ("a: {b: 1\n", "not valid YAML"),
            ("a: *nothing\n", "not valid YAML"),
            ("a: 1\n---\nb: 2\n", "second YAML document"),
            ("? [a]\n: b\n", "must be a plain text"),
            (deep.as_str(), "nested too deeply"),
            (bombs.as_str(), "too large"),
        ];
        for (text, expected) in cases {
            let mut problems = Vec::new();
            parse(text, &mut problems);
            let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
            assert!(all.len() == 1 && all[0].contains(expected) && all[0].contains("line"), "{text}: {all:?}");
        }
    }
}
