//! `strftime_now` for templates that write today's date.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Where a template's date comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The machine's clock and time zone.
    System,
    /// Always the same moment, in UTC: seconds since 1970.
    Fixed(i64),
}

impl Clock {
    /// The time now in the notation of C's `strftime`.
    pub(crate) fn strftime(self, format: &str) -> Result<String, jiff::Error> {
        let now = match self {
            Self::System => Zoned::now(),
            Self::Fixed(seconds) => Timestamp::from_second(seconds)?.to_zoned(TimeZone::UTC),
        };
        jiff::fmt::strtime::format(format, &now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_templates_use() {
        let clock = Clock::Fixed(1_725_580_800); // 2024-09-06, a Friday
        let cases = [
            ("%d %b %Y", "06 Sep 2024"),
            ("%B %d, %Y", "September 06, 2024"),
            ("%Y-%m-%d", "2024-09-06"),
            ("%A, %-d %B", "Friday, 6 September"),
            ("%H:%M:%S", "00:00:00"),
        ];
        for (format, expected) in cases {
            assert_eq!(clock.strftime(format).expect(format), expected, "{format}");
        }
        assert!(clock.strftime("%").is_err());
        let year: i32 = Clock::System.strftime("%Y").expect("a year").parse().expect("a number");
        assert!(year >= 2024);
    }
}
