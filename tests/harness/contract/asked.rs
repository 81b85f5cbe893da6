//! What is a vendor asked, and what does it say?

use etl::clock::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Fate, Fault};

/// A request as a vendor sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Which request it is, from 1.
    pub number: u64,
    /// When, by the vendor's time.
    pub at: Timestamp,
    /// The method.
    pub method: String,
    /// The path as it was sent.
    pub path: String,
    /// The parameters of the query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The headers in order, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// What goes wrong with it.
    pub fault: Option<Fault>,
    /// What becomes of the job that it makes.
    pub fate: Option<Fate>,
    /// The body as it was sent.
    #[serde(skip)]
    pub body: Vec<u8>,
}

impl Asked {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// A parameter of the query.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The path in parts; a slash at its end makes no difference.
    #[must_use]
    pub fn segments(&self) -> Vec<&str> {
        segments(&self.path)
    }

    /// The content type without its parameters, in lower case.
    #[must_use]
    pub fn content_type(&self) -> String {
        let value = self.header("content-type").unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// The body, where it is JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The body as the fields of a form.
    #[must_use]
    pub fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// The user and the password of basic authentication.
    #[must_use]
    pub fn basic(&self) -> Option<(String, String)> {
        let encoded = self.header("authorization")?.strip_prefix("Basic ")?;
        let decoded = String::from_utf8(base64(encoded)?).ok()?;
        decoded.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
    }

    /// Where the vendor was reached: what its links begin with.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.header("host").unwrap_or("localhost"))
    }
}

/// A path in parts.
pub(super) fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

/// Standard base64 with its padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut bits = 0_u32;
    let mut bytes = Vec::new();
    for (place, digit) in digits.bytes().enumerate() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        if place % 4 != 0 {
            let shift = 6 - 2 * (place % 4);
            bytes.push((bits >> shift & 0xff) as u8);
        }
    }
    text.len().is_multiple_of(4).then_some(bytes)
}

/// What a vendor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Nothing but a status.
    #[must_use]
    pub const fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// JSON.
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: body.to_string().into_bytes() }
    }

    /// The same with a header, in place of one with this name.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.to_string()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_it_was_written() {
        let read = |text| base64(text).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(read("").as_deref(), Some(""));
        assert_eq!(read("Zg==").as_deref(), Some("f"));
        assert_eq!(read("Zm8=").as_deref(), Some("fo"));
        assert_eq!(read("Zm9v").as_deref(), Some("foo"));
        assert_eq!(read("Q29tcGFueVxVc2VyOnAv").as_deref(), Some("Company\\User:p/"));
        assert_eq!((read("Zm9"), read("Z!==")), (None, None));
    }
}
