//! RFC 3339 times without a calendar crate: what the API and the logs need, UTC only.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-11-23T17:37:20Z`, the form of API objects.
pub fn seconds(time: SystemTime) -> String {
    format!("{}Z", date_and_time(since_epoch(time).as_secs()))
}

/// `2026-11-23T17:37:20.123456789Z`, the form of log lines. Fixed width, so that text order is time order.
pub(crate) fn nanoseconds(time: SystemTime) -> String {
    let elapsed = since_epoch(time);
    format!("{}.{:09}Z", date_and_time(elapsed.as_secs()), elapsed.subsec_nanos())
}

/// Reads RFC 3339 with any fraction and any offset.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 20 || bytes.len() > 40 {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        text.get(range).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?.parse::<i64>().ok()
    };
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|(place, expected)| bytes[*place] != *expected)
        || !matches!(bytes[10], b'T' | b't' | b' ')
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1970..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let mut rest = &text[19..];
    let mut nanoseconds = 0_u32;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let kept = &fraction[..digits.min(9)];
        nanoseconds = format!("{kept:0<9}").parse().ok().filter(|_| digits > 0)?;
        rest = &fraction[digits..];
    }
    let offset = match rest.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let place = text.len() - rest.len();
            let minutes = number(place + 1..place + 3)? * 60 + number(place + 4..place + 6)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let total = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset * 60;
    UNIX_EPOCH.checked_add(Duration::new(u64::try_from(total).ok()?, nanoseconds))
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn date_and_time(seconds: u64) -> String {
    let (day, time) = (seconds / 86_400, seconds % 86_400);
    // Eras of 400 years that start on 1 March, so that the leap day is the last one of a year.
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day_of_month:02}T{:02}:{:02}:{:02}",
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_back() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_795_455_440, "2026-11-23T17:37:20Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(at);
            assert_eq!(seconds(time), text);
            assert_eq!(parse(text), Some(time));
        }
        let fine = UNIX_EPOCH + Duration::new(1, 5);
        assert_eq!(nanoseconds(fine), "1970-01-01T00:00:01.000000005Z");
        assert_eq!(parse(&nanoseconds(fine)), Some(fine));
        assert_eq!(parse("1970-01-01T02:00:01.5+02:00"), Some(UNIX_EPOCH + Duration::from_millis(1500)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "yesterday",
            "2026-11-23",
            "2026-13-01T00:00:00Z",
            "2026-11-23T17:37:20",
            "1970-01-01T00:00:00+1",
            "1969-01-01T00:00:00Z",
            "2026-11-23T17:37:20.Z",
            "+026-11-23T17:37:20Z",
            "2026-11-23T17:37:20é",
            "1970-01-01T00:00:00+01:00",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
