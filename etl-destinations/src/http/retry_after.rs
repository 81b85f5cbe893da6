//! How long does a server ask to be left alone? In seconds, or until a date, as RFC 9110 has it.

use std::time::Duration;

use etl::clock::Timestamp;
use etl::data::RawValue;
use etl::data::decode::timestamptz;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What `Retry-After` says, where it is one of its forms. A date is counted from the server's own `Date`, where it says that
/// too: its clock need not be ours.
pub(crate) fn retry_after(said: &str, date: Option<&str>, now: Timestamp) -> Option<Duration> {
    let said = said.trim();
    if said.bytes().all(|byte| byte.is_ascii_digit()) {
        return said.parse().ok().map(Duration::from_secs);
    }
    let now = date.and_then(|date| moment(date, now)).unwrap_or(now);
    Some(moment(said, now)?.since(now))
}

/// A date in one of the three forms that HTTP has had.
fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    let words: Vec<&str> = text.split([' ', ',', '-']).filter(|word| !word.is_empty()).collect();
    let (day, month, year, time) = match words[..] {
        [_, day, month, year, time, "GMT"] => (day, month, year, time),
        [_, month, day, time, year] => (day, month, year, time),
        _ => return None,
    };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let in_year = |year: u32| {
        let text = format!("{year:04}-{month:02}-{:02} {time}+00", day.parse::<u8>().ok()?);
        timestamptz(RawValue::Text(text.as_bytes())).ok().map(Timestamp::from_postgres)
    };
    match (year.len(), year.parse().ok()?) {
        // More than fifty years ahead it is one of the past.
        (2, year) => in_year(2000 + year).filter(|at| at.since(now) <= FIFTY_YEARS).or_else(|| in_year(1900 + year)),
        (4, year) => in_year(year),
        _ => None,
    }
}

const FIFTY_YEARS: Duration = Duration::from_secs(50 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    /// Sunday, the sixth of November 1994, 08:49:37.
    const THEN: Timestamp = Timestamp(784_111_777_000_000);

    #[test]
    fn seconds_and_the_three_forms_of_a_date_are_read() {
        let before = Timestamp(THEN.0 - 90_000_000);
        for (said, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(90)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(90)),
            ("Sun Nov  6 08:49:37 1994", Some(90)),
            ("Sun, 06 Nov 1994 08:48:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 31 Feb 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 8h49 GMT", None),
            ("soon", None),
            ("-5", None),
            ("1.5", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(retry_after(said, None, before), seconds.map(Duration::from_secs), "{said}");
        }
        assert_eq!(retry_after("", None, before), None);
    }

    #[test]
    fn a_date_is_counted_from_the_servers_own_time() {
        let ours = Timestamp(THEN.0 + 86_400_000_000);
        let date = "Sun, 06 Nov 1994 08:49:07 GMT";
        let waits = |date| retry_after("Sun, 06 Nov 1994 08:49:37 GMT", date, ours);
        assert_eq!(waits(Some(date)), Some(Duration::from_secs(30)));
        assert_eq!((waits(None), waits(Some("today"))), (Some(Duration::ZERO), Some(Duration::ZERO)));
    }
}
