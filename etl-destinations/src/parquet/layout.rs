//! What are files called? By table, generation, number and session, below the table's directory.

use etl::clock::Timestamp;
use etl::schema::{TableId, TableName};

/// Where manifests are; no directory of a schema begins with a point.
pub(super) const MANIFESTS: &str = ".etl/log";

const DAY_MICROS: i64 = 86_400_000_000;

/// A name as a directory is called: what means something in a path or a glob is written `%2A`.
fn directory(name: &str) -> String {
    let means_something = |c: char| c.is_control() || r#"/\.%*?[]{}#~^|<>":;"#.contains(c);
    let mut written = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            c if c.is_ascii() && means_something(c) => written.push_str(&format!("%{:02X}", u32::from(c))),
            c => written.push(c),
        }
    }
    written
}

/// Where the files of runs wait that are not shown.
pub(super) const STAGED: &str = ".etl/staged";

/// Where the files of a run wait.
pub(super) fn staged(run: &str) -> String {
    format!("{STAGED}/{run}")
}

/// Where a file of a run is once that is shown, in the log of its table.
pub(super) fn shown(run: &str, path: &str, name: &TableName) -> String {
    let place = path.strip_prefix(&staged(run)).unwrap_or(path);
    format!("{}/log/{}", table(name), place.trim_start_matches('/'))
}

/// The name of a manifest.
pub(super) fn manifest(number: u64) -> String {
    format!("{MANIFESTS}/{number:020}.json")
}

/// The number of a manifest.
pub(super) fn manifest_number(path: &str) -> Option<u64> {
    path.strip_prefix(MANIFESTS)?.strip_prefix('/')?.strip_suffix(".json")?.parse().ok()
}

/// The directory of a table.
pub(super) fn table(name: &TableName) -> String {
    format!("{}/{}", directory(&name.schema), directory(&name.name))
}

/// What names the files of a table's current state.
pub(super) fn pointer(name: &TableName) -> String {
    format!("{}/current.json", table(name))
}

/// The day of a time, where files are in a directory a day.
pub(super) fn day(at: Timestamp) -> i64 {
    at.0.div_euclid(DAY_MICROS)
}

/// A file of a table's log. The oid tells a table from one of the same name before it, and the session what one process
/// has written from what another one wrote or still writes.
pub(super) struct FileName<'n> {
    pub(super) table: TableId,
    pub(super) generation: u64,
    pub(super) number: u64,
    pub(super) session: &'n str,
}

impl FileName<'_> {
    /// Its path, in the directory of the table or of the day.
    pub(super) fn path(&self, name: &TableName, day: Option<i64>) -> String {
        format!("{}/log/{}", table(name), self.of_day(day))
    }

    /// Its path as long as the run that writes it is not shown.
    pub(super) fn staged_path(&self, run: &str, day: Option<i64>) -> String {
        format!("{}/{}", staged(run), self.of_day(day))
    }

    fn of_day(&self, day: Option<i64>) -> String {
        let day = day.map(|day| format!("etl_date={}/", date(day))).unwrap_or_default();
        format!("{day}{}", self.name())
    }

    /// Its path in the directory of another file.
    pub(super) fn beside(&self, other: &str) -> String {
        let folder = other.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{}", self.name())
    }

    /// The path of a file of the current state.
    pub(super) fn current_path(&self, name: &TableName) -> String {
        format!("{}/current/{}", table(name), self.name())
    }

    fn name(&self) -> String {
        let Self { table, generation, number, session } = self;
        format!("{}-{generation:06}-{number:012}-{session}.parquet", table.0)
    }
}

/// Whether a path is one of ours.
pub(super) fn is_ours(path: &str) -> bool {
    let Some((_, name)) = path.rsplit_once('/') else { return false };
    let Some(name) = name.strip_suffix(".parquet") else { return false };
    let parts: Vec<&str> = name.split('-').collect();
    let [table, generation, number, session] = parts[..] else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_hex = |text: &str| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_long = generation.len() >= 6 && number.len() >= 12;
    is_long && [table, generation, number].into_iter().all(is_number) && is_hex(session)
}

/// What the sessions of processes begin with that only rearrange files; those of others have no capital letters.
pub(super) const GUEST: char = 'F';

/// Whether a file of ours was written by such a process.
pub(super) fn is_of_guest(path: &str) -> bool {
    is_ours(path) && path.rsplit_once('-').is_some_and(|(_, session)| session.starts_with(GUEST))
}

/// A day since 1970 as `2026-01-31`.
fn date(day: i64) -> String {
    // Years that begin in March, so that the leap day is the last one (Howard Hinnant, "chrono-compatible dates").
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_it_is_and_no_other_file_is_taken_for_one() {
        let name = FileName { table: TableId(u32::MAX), generation: 3, number: 12, session: "00c0ffee" };
        let table = TableName::new("public", "t");
        let flat = "public/t/log/4294967295-000003-000000000012-00c0ffee.parquet";
        assert_eq!(name.path(&table, None), flat);
        let hive = name.path(&table, Some(day(Timestamp(1_700_000_000_123_456))));
        assert_eq!(hive, flat.replace("log/", "log/etl_date=2023-11-14/"));
        assert!(is_ours(flat) && is_ours(&hive));
        for (day, path) in [(None, flat), (Some(day(Timestamp(1_700_000_000_123_456))), &*hive)] {
            let staged = name.staged_path("00c0ffee", day);
            assert!(staged.starts_with(".etl/staged/00c0ffee/") && is_ours(&staged), "{staged}");
            assert_eq!(shown("00c0ffee", &staged, &table), path);
        }
        for other in [
            "public/t/log/notes.parquet",
            "x/1-2-3-00c0ffee.parquet",
            "a-b-c-d.parquet",
            "",
            flat.trim_end_matches('t'),
        ] {
            assert!(!is_ours(other), "{other}");
        }
        let guest = FileName { session: "F00FC0DE", ..name }.path(&table, None);
        assert!(is_of_guest(&guest) && !is_of_guest(flat) && !is_of_guest(&flat.replace("00c", "f0c")));
        let odd = super::table(&TableName::new(".etl", "50% ü/*"));
        assert_eq!(odd, "%2Eetl/50%25 ü%2F%2A");
        assert_eq!(manifest_number(&manifest(7)), Some(7));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (of, expected) in [(0, "1970-01-01"), (-1, "1969-12-31"), (11_016, "2000-02-29"), (19_675, "2023-11-14")] {
            assert_eq!(date(of), expected);
        }
    }
}
