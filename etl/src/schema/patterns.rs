//! Which tables are meant? Patterns of their names.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::TableName;

/// Which tables: patterns such as `public.*`, and `!public.audit_*` for those that are not meant after all.
///
/// `*` stands for any characters, `?` for one, in `schema.table`. The last pattern that matches decides; where the first begins with `!`, all others are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePatterns(Vec<String>);

impl TablePatterns {
    /// Of one or more patterns.
    pub fn new(patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(patterns.into_iter().map(Into::into).collect())
    }

    /// Whether a pattern has no characters.
    pub fn is_blank(&self) -> bool {
        self.0.iter().any(|pattern| pattern.is_empty())
    }

    /// Whether one table is named, and no other can be meant.
    pub fn is_one(&self) -> bool {
        matches!(&self.0[..], [one] if !one.contains(['*', '?', '!']))
    }

    /// Whether a text follows a pattern of `*` (any characters) and `?` (one).
    pub fn is_like(pattern: &str, text: &str) -> bool {
        like(pattern.as_bytes(), text.as_bytes())
    }

    /// Whether the table is meant.
    pub fn matches(&self, table: &TableName) -> bool {
        self.matches_text(&table.to_string())
    }

    /// Whether a name of any kind is meant.
    pub fn matches_text(&self, name: &str) -> bool {
        let mut meant = self.0.first().is_some_and(|first| first.starts_with('!'));
        for pattern in &self.0 {
            let (pattern, includes) = pattern.strip_prefix('!').map_or((&**pattern, true), |rest| (rest, false));
            if Self::is_like(pattern, name) {
                meant = includes;
            }
        }
        meant
    }
}

/// Whether the text follows the pattern of `*` and `?`. A `?` is one character, not one byte.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on with the last `*` taking one byte more.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let length = text[t..].iter().skip(1).take_while(|byte| **byte & 0xc0 == 0x80).count() + 1;
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => (p, t) = (p + 1, t + length),
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl fmt::Display for TablePatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl Serialize for TablePatterns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            more => more.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TablePatterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = TablePatterns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pattern such as public.*, or a list of them")
            }
            fn visit_str<E: de::Error>(self, pattern: &str) -> Result<TablePatterns, E> {
                Ok(TablePatterns::new([pattern]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TablePatterns, A::Error> {
                let mut patterns = Vec::new();
                while let Some(pattern) = list.next_element()? {
                    patterns.push(pattern);
                }
                if patterns.is_empty() {
                    return Err(de::Error::invalid_length(0, &self));
                }
                Ok(TablePatterns(patterns))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let patterns = TablePatterns::new(["public.*", "!public.audit_*", "public.audit_all"]);
        for (table, chosen) in [("users", true), ("audit_2024", false), ("audit_all", true)] {
            assert_eq!(patterns.matches(&TableName::new("public", table)), chosen, "{table}");
        }
        assert!(!patterns.matches(&TableName::new("other", "users")));
        assert!(TablePatterns::is_like("*.a*c", "x.abc") && !TablePatterns::is_like("*.a*c", "x.abd"));
        assert!(TablePatterns::new(["a.b"]).is_one() && !TablePatterns::new(["a.*"]).is_one());
    }
}
