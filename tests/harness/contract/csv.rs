//! What does a file of CSV say? As RFC 4180 has it, and no other way.

/// Its records, each with its fields, up to the first that breaks the rules; and whether none did.
pub(super) fn records(text: &str, delimiter: char) -> (Vec<Vec<String>>, bool) {
    let mut records = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((record, after)) = record(rest, delimiter) else { return (records, false) };
        records.push(record);
        rest = after;
    }
    (records, true)
}

fn record(mut rest: &str, delimiter: char) -> Option<(Vec<String>, &str)> {
    let mut fields = Vec::new();
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(inner) => quoted(inner)?,
            None => plain(rest, delimiter)?,
        };
        fields.push(field);
        if let Some(next) = after.strip_prefix(delimiter) {
            rest = next;
            continue;
        }
        let end = after.strip_prefix("\r\n").or_else(|| after.strip_prefix('\n'));
        return end.or_else(|| after.is_empty().then_some(after)).map(|next| (fields, next));
    }
}

fn plain(text: &str, delimiter: char) -> Option<(String, &str)> {
    let end = text.find([delimiter, '\r', '\n', '"']).unwrap_or(text.len());
    // A quote within a field that does not begin with one.
    (!text[end..].starts_with('"')).then(|| (text[..end].to_owned(), &text[end..]))
}

fn quoted(mut text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let end = text.find('"')?;
        field.push_str(&text[..end]);
        text = &text[end + 1..];
        match text.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                text = next;
            }
            None => return Some((field, text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_read_by_its_rules() {
        let read = |text: &str, delimiter| {
            let (records, is_whole) = records(text, delimiter);
            (records.iter().map(|record| record.join("|")).collect::<Vec<_>>(), is_whole)
        };
        let said = |records: &[&str], is_whole: bool| -> (Vec<String>, bool) {
            (records.iter().map(|&record| record.to_owned()).collect(), is_whole)
        };
        assert_eq!(read("", ','), said(&[], true));
        assert_eq!(read("a,b\r\n1,\n", ','), said(&["a|b", "1|"], true));
        assert_eq!(read("\"x,\"\"y\"\"\nz\",ü", ','), said(&["x,\"y\"\nz|ü"], true));
        assert_eq!(read("a;b,c\n", ';'), said(&["a|b,c"], true));
        for broken in ["a\nb\"c", "a\n\"b", "a\n\"b\"c", "a\nb\rc"] {
            assert_eq!(read(broken, ','), said(&["a"], false), "{broken:?}");
        }
    }
}
