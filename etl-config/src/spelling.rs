//! What did the user mean to write? The nearest of the names that would have been right.

/// The nearest name, where one is near enough to be meant.
pub(crate) fn nearest<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    nearest_as_written(&written.to_lowercase(), names)
}

/// The same where upper and lower case are not the same.
pub(crate) fn nearest_as_written<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let measured = names.into_iter().map(|name| (distance(written, name), name));
    let most = (written.chars().count() / 3).max(1);
    measured.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// How many letters must be changed, added, left out or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before_last[j - 2] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["publication", "tables", "password", "port"];
        let cases = [
            ("publicaton", Some("publication")),
            ("Tabels", Some("tables")),
            ("prot", Some("port")),
            ("pasword", Some("password")),
            ("colour", None),
            ("", None),
        ];
        for (written, meant) in cases {
            assert_eq!(nearest(written, names), meant, "{written}");
        }
    }
}
