//! Numbers and dates as Java prints them, because that is what gets parsed.
//!
//! Runs on: whichever thread answers.

/// `Double.toString`: at least one digit after the point, and `1.0E7` from ten million up or below a thousandth.
pub fn java_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{value:?}");
    }
    // Rust's exponent form has the shortest digits as well: 1.5e-5, 1e7.
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if digits.contains('.') => format!("{digits}E{exponent}"),
        Some((digits, exponent)) => format!("{digits}.0E{exponent}"),
        None => text,
    }
}

/// A mean as ZooKeeper shows it: at most four digits after the point, half of the last one rounded up.
pub(super) fn mean(value: f64) -> String {
    // Exactly, digit by digit: multiplying by 10,000 first would round twice.
    let exact = format!("{value:.30}");
    let Some((whole, fraction)) = exact.split_once('.') else { return java_double(value) };
    let cut: f64 = format!("{whole}.{}", &fraction[..4]).parse().unwrap_or(value);
    let up = fraction.as_bytes()[4] >= b'5';
    let rounded = if up { ((cut * 10_000.0).round() + 1.0) / 10_000.0 } else { cut };
    java_double(rounded)
}

/// `Date.toString` of a wall time in milliseconds, in UTC: `Sun Nov 22 06:58:26 UTC 2026`.
pub fn java_date(wall_ms: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = wall_ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let weekday = DAYS[days.rem_euclid(7) as usize];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{weekday} {} {day:02} {hour:02}:{minute:02}:{second:02} UTC {year}", MONTHS[month - 1])
}

/// Year, month (1 to 12) and day of a number of days since 1970 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms": years begin in March, so that the leap day is the last).
pub fn civil(days: i64) -> (i64, usize, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as usize, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_printed_as_java_prints_them() {
        let cases = [
            (0.0, "0.0"),
            (2.5379, "2.5379"),
            (3.0, "3.0"),
            (0.001, "0.001"),
            (0.0005, "5.0E-4"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (12_345_678.5, "1.23456785E7"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(java_double(value), text);
        }
    }

    #[test]
    fn means_have_four_digits_and_half_goes_up() {
        let cases = [
            (0.0, "0.0"),
            (34.0 / 9.0, "3.7778"),
            (20.0 / 3.0, "6.6667"),
            (0.03125, "0.0313"),
            (0.99996, "1.0"),
            (0.00004, "0.0"),
            (0.00005, "1.0E-4"),
            (71.0, "71.0"),
            (1234.56789, "1234.5679"),
        ];
        for (value, text) in cases {
            assert_eq!(mean(value), text, "{value}");
        }
    }

    #[test]
    fn dates_are_printed_as_java_prints_them() {
        assert_eq!(java_date(0), "Thu Jan 01 00:00:00 UTC 1970");
        assert_eq!(java_date(1_795_330_706_000), "Sun Nov 22 06:58:26 UTC 2026");
        assert_eq!(java_date(951_782_400_000), "Tue Feb 29 00:00:00 UTC 2000");
        assert_eq!(java_date(-1), "Wed Dec 31 23:59:59 UTC 1969");
    }
}
