//! How is a value hidden? Masks, which give the same value for the same value wherever it stands.

use std::fmt::Write as _;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use crate::schema::{Column, Kind};
use crate::secret::Secret;

/// What stands in place of a column's values.
#[derive(Debug, Clone)]
pub enum Mask {
    /// 64 hex digits, HMAC-SHA-256 of the value's text under this salt: equal values stay equal, and are not found by
    /// trying without the salt.
    Hash(Secret),
    /// `***`
    Redact,
    /// The first so many characters of a text.
    Truncate(u32),
    /// Null.
    Null,
}

impl PartialEq for Mask {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Hash(one), Self::Hash(other)) => one.expose() == other.expose(),
            (Self::Truncate(one), Self::Truncate(other)) => one == other,
            (Self::Redact, Self::Redact) | (Self::Null, Self::Null) => true,
            _ => false,
        }
    }
}

impl Eq for Mask {}

/// What a redacted value reads.
const REDACTED: &str = "***";

impl Mask {
    /// The column once it is masked; nothing where its values cannot be masked so.
    pub(super) fn column(&self, column: &Column) -> Option<Column> {
        let text = |column: &Column| Column {
            type_oid: 25,
            modifier: -1,
            type_name: "text".into(),
            kind: Kind::Text,
            fill: column.fill.as_deref().and_then(|fill| self.apply(fill)).map(Into::into),
            ..column.clone()
        };
        match self {
            Self::Hash(_) | Self::Redact => Some(text(column)),
            Self::Truncate(_) => matches!(column.kind, Kind::Text).then(|| text(column)),
            Self::Null => Some(Column { nullable: true, fill: None, ..column.clone() }),
        }
    }

    /// Whether rows can still be told apart by what they have in the column.
    pub(super) fn keeps_apart(&self) -> bool {
        matches!(self, Self::Hash(_))
    }

    /// What stands in place of a text; nothing for null.
    pub(super) fn apply(&self, text: &str) -> Option<String> {
        match self {
            Self::Hash(salt) => Some(hex(&hmac(salt.expose().as_bytes(), text.as_bytes()))),
            Self::Redact => Some(REDACTED.to_owned()),
            Self::Truncate(most) => Some(text.chars().take(*most as usize).collect()),
            Self::Null => None,
        }
    }

    /// Says the same of equal masks only, and nothing of a salt.
    pub(super) fn print(&self) -> String {
        match self {
            Self::Hash(salt) => format!("hash {}", hex(&hmac(salt.expose().as_bytes(), b"etl"))),
            Self::Redact => "redact".to_owned(),
            Self::Truncate(most) => format!("truncate {most}"),
            Self::Null => "null".to_owned(),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Formatting into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// RFC 2104, with SHA-256.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |byte: u8| block.map(|key| key ^ byte);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

impl<'de> Deserialize<'de> for Mask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The masks that say more than their name.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Said {
            hash: Option<Secret>,
            truncate: Option<u32>,
        }
        struct NameOrMore;
        impl<'de> Visitor<'de> for NameOrMore {
            type Value = Mask;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`redact`, `null`, `{ hash: <salt> }` or `{ truncate: <characters> }`")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Mask, E> {
                Ok(Mask::Null)
            }
            fn visit_none<E: de::Error>(self) -> Result<Mask, E> {
                Ok(Mask::Null)
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Mask, E> {
                match name {
                    "redact" => Ok(Mask::Redact),
                    "null" => Ok(Mask::Null),
                    other => Err(de::Error::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Mask, A::Error> {
                match Said::deserialize(de::value::MapAccessDeserializer::new(map))? {
                    Said { hash: Some(salt), truncate: None } => Ok(Mask::Hash(salt)),
                    Said { hash: None, truncate: Some(most) } => Ok(Mask::Truncate(most)),
                    Said { hash: None, truncate: None } => Err(de::Error::missing_field("hash")),
                    Said { .. } => Err(de::Error::custom("`hash` and `truncate` exclude each other: keep one")),
                }
            }
        }
        deserializer.deserialize_any(NameOrMore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_rfc_4231() {
        let text = "what do ya want for nothing?";
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(Mask::Hash(Secret::new("Jefe")).apply(text).as_deref(), Some(expected));
        let long = String::from_utf8(vec![b'k'; 131]).unwrap();
        assert_ne!(Mask::Hash(Secret::new(long.clone())).apply(text), Mask::Hash(Secret::new(&long[1..])).apply(text));
    }

    #[test]
    fn masks_are_read_and_hide_what_they_say() {
        for (config, text, expected) in [
            ("\"redact\"", "x", Some("***")),
            ("\"null\"", "x", None),
            ("null", "x", None),
            ("{\"truncate\": 2}", "äöü", Some("äö")),
            ("{\"truncate\": 9}", "äöü", Some("äöü")),
        ] {
            let mask: Mask = serde_json::from_str(config).unwrap();
            assert_eq!(mask.apply(text).as_deref(), expected, "{config}");
        }
        let salted: Mask = serde_json::from_str("{\"hash\": \"hunter2\"}").unwrap();
        assert!(!format!("{salted:?} {}", salted.print()).contains("hunter2"));
        for wrong in [
            "\"hidden\"",
            "{\"hash\": 1}",
            "{\"truncate\": -1}",
            "7",
            "{}",
            "{\"hsh\": \"x\"}",
            "{\"hash\": \"x\", \"truncate\": 1}",
        ] {
            assert!(serde_json::from_str::<Mask>(wrong).is_err(), "{wrong}");
        }
    }
}
