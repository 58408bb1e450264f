//! The rule of a time zone as POSIX writes it: `CET-1CEST,M3.5.0,M10.5.0/3`. It stands at the end of the system's files,
//! for the times after the last change that they list, and may be the value of `TZ` itself.
//!
//! Leaves to others: where the text comes from. Runs on: the shell's thread; pure.

use crate::admin::civil;

/// Seconds east of UTC, and the abbreviation.
pub type Kind = (i32, String);

/// Standard time, and perhaps another in a part of each year.
#[derive(Debug, PartialEq)]
pub struct Rule {
    standard: Kind,
    summer: Option<Summer>,
}

#[derive(Debug, PartialEq)]
struct Summer {
    kind: Kind,
    from: Change,
    to: Change,
}

/// A day of each year, and the second of that day (which may be outside it), by the time that holds before the change.
#[derive(Debug, PartialEq)]
struct Change {
    day: Day,
    second: i64,
}

#[derive(Debug, PartialEq)]
enum Day {
    /// `Mm.w.d`: month, week (5: the last), day of the week from Sunday on.
    Weekday(i64, i64, i64),
    /// `Jn`: 1 to 365; the leap day has no number.
    Numbered(i64),
    /// `n`: 0 to 365.
    Counted(i64),
}

const DAY: i64 = 86_400;

impl Rule {
    /// `None`: it is no such text.
    pub fn parse(text: &str) -> Option<Rule> {
        let mut rest = text;
        let name = take_name(&mut rest)?;
        let offset = -take_time(&mut rest)?;
        let standard = (i32::try_from(offset).ok()?, name);
        if rest.is_empty() {
            return Some(Rule { standard, summer: None });
        }
        let name = take_name(&mut rest)?;
        let own = if rest.is_empty() || rest.starts_with(',') { None } else { Some(-take_time(&mut rest)?) };
        let kind = (i32::try_from(own.unwrap_or(offset + 3600)).ok()?, name);
        // What holds where the text doesn't say: the rule of the United States.
        let mut days = if rest.is_empty() { ",M3.2.0,M11.1.0" } else { rest };
        let (from, to) = (take_change(&mut days)?, take_change(&mut days)?);
        days.is_empty().then_some(Rule { standard, summer: Some(Summer { kind, from, to }) })
    }

    /// What holds at a second since 1970.
    pub fn at(&self, second: i64) -> &Kind {
        let Some(Summer { kind, from, to }) = &self.summer else { return &self.standard };
        let (standard, summer) = (i64::from(self.standard.0), i64::from(kind.0));
        let year = civil(second.saturating_add(standard).div_euclid(DAY)).0;
        let (from, to) = (from.local_second(year) - standard, to.local_second(year) - summer);
        // South of the equator the summer goes over the turn of the year.
        let is_summer = if from <= to { (from..to).contains(&second) } else { !(to..from).contains(&second) };
        if is_summer { kind } else { &self.standard }
    }
}

impl Change {
    /// Seconds from 1970 to it on the clocks of the place.
    fn local_second(&self, year: i64) -> i64 {
        let day = match self.day {
            Day::Weekday(month, week, weekday) => {
                let first = days_to(year, month);
                // 1970 began with a Thursday.
                let day = first + (weekday - (first + 4)).rem_euclid(7) + (week - 1) * 7;
                let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                if day < days_to(next_year, next_month) { day } else { day - 7 }
            }
            Day::Numbered(number) => {
                let is_leap = days_to(year + 1, 1) - days_to(year, 1) == 366;
                days_to(year, 1) + number - 1 + i64::from(is_leap && number >= 60)
            }
            Day::Counted(number) => days_to(year, 1) + number,
        };
        day * DAY + self.second
    }
}

/// Days from 1970 to the first of a month.
fn days_to(year: i64, month: i64) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let is_leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    let past = year - 1;
    let leap_days = past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400) - 477;
    (year - 1970) * 365 + leap_days + BEFORE[month as usize - 1] + i64::from(is_leap && month > 2)
}

/// Three letters or more; or anything but `>` between `<` and `>`.
fn take_name(rest: &mut &str) -> Option<String> {
    let (name, tail) = match rest.strip_prefix('<') {
        Some(inside) => inside.split_once('>')?,
        None => rest.split_at(rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len())),
    };
    *rest = tail;
    (name.len() >= 3).then(|| name.to_owned())
}

/// `[+-]hhh[:mm[:ss]]` in seconds.
fn take_time(rest: &mut &str) -> Option<i64> {
    let minus = rest.starts_with('-');
    *rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    let mut seconds = take_number(rest, 167)? * 3600;
    for unit in [60, 1] {
        let Some(tail) = rest.strip_prefix(':') else { break };
        *rest = tail;
        seconds += take_number(rest, 59)? * unit;
    }
    Some(if minus { -seconds } else { seconds })
}

fn take_number(rest: &mut &str, most: i64) -> Option<i64> {
    let (digits, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    *rest = tail;
    digits.parse().ok().filter(|number| *number <= most)
}

/// `,day[/time]`.
fn take_change(rest: &mut &str) -> Option<Change> {
    *rest = rest.strip_prefix(',')?;
    let mut next = |prefix: &str, least, most| {
        *rest = rest.strip_prefix(prefix)?;
        take_number(rest, most).filter(|number| *number >= least)
    };
    let day = match next("M", 1, 12) {
        Some(month) => Day::Weekday(month, next(".", 1, 5)?, next(".", 0, 6)?),
        None => match next("J", 1, 365) {
            Some(number) => Day::Numbered(number),
            None => Day::Counted(next("", 0, 365)?),
        },
    };
    let second = match rest.strip_prefix('/') {
        Some(tail) => {
            *rest = tail;
            take_time(rest)?
        }
        None => 2 * 3600,
    };
    Some(Change { day, second })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last second of one kind, and the kinds at it and after it.
    fn changes_at(text: &str, second: i64) -> (String, String) {
        let rule = Rule::parse(text).unwrap_or_else(|| panic!("{text}"));
        let name = |kind: &Kind| format!("{} {}", kind.1, kind.0);
        (name(rule.at(second)), name(rule.at(second + 1)))
    }

    #[test]
    fn changes_are_where_the_tz_database_has_them() {
        let table = [
            ("CET-1CEST,M3.5.0,M10.5.0/3", 2_531_955_599, "CET 3600", "CEST 7200"),
            ("CET-1CEST,M3.5.0,M10.5.0/3", 2_550_704_399, "CEST 7200", "CET 3600"),
            ("EST5EDT,M3.2.0,M11.1.0", 2_530_767_599, "EST -18000", "EDT -14400"),
            ("EST5EDT", 2_551_327_199, "EDT -14400", "EST -18000"),
            ("AEST-10AEDT,M10.1.0,M4.1.0/3", 2_532_527_999, "AEDT 39600", "AEST 36000"),
            ("AEST-10AEDT,M10.1.0,M4.1.0/3", 2_548_252_799, "AEST 36000", "AEDT 39600"),
            ("IST-1GMT0,M10.5.0,M3.5.0/1", 2_531_955_599, "GMT 0", "IST 3600"),
            ("IST-1GMT0,M10.5.0,M3.5.0/1", 2_550_704_399, "IST 3600", "GMT 0"),
            ("EET-2EEST,M3.4.4/50,M10.4.4/50", 2_531_865_599, "EET 7200", "EEST 10800"),
            ("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", 2_531_955_599, "-02 -7200", "-01 -3600"),
            ("NST3:30NDT,M3.2.0,M11.1.0", 2_551_321_799, "NDT -9000", "NST -12600"),
            ("<+1245>-12:45<+1345>,M9.5.0/2:45,M4.1.0/3:45", 2_547_640_799, "+1245 45900", "+1345 49500"),
            ("IST-2IDT,M3.4.4/26,M10.5.0", 2_531_779_199, "IST 7200", "IDT 10800"),
            // The first of March 2048, and the day before.
            ("AAA0BBB,J60/0,J300", 2466633599, "AAA 0", "BBB 3600"),
            ("AAA0BBB-2:00:01,59/0,300", 2466547199, "AAA 0", "BBB 7201"),
        ];
        for (text, second, before, after) in table {
            assert_eq!(changes_at(text, second), (before.into(), after.into()), "{text}");
        }
        assert_eq!(Rule::parse("<+03>-3").map(|rule| rule.at(0).clone()), Some((10_800, "+03".into())));
    }

    #[test]
    fn what_is_no_rule_is_taken_for_none() {
        let wrong = "|CE-1|CET|CET-|CET-1CEST,|CET-1CEST,M3.5.0|CET-1CEST,M13.1.0,M1.1.0|CET-1CEST,M3.0.0,M1.1.0|<CET-1|\
                     CET168|CET1:60|CET-1CEST,M3.5.0,M10.5.0/3x|CET-1CEST,J0,J1|CET-1CEST,366,1|Europe/Berlin";
        for text in wrong.split('|') {
            assert_eq!(Rule::parse(text), None, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_and_no_time_make_it_panic(
            text in "(CET|<-1>|)[-0-9:]{0,4}(CEST|)[-0-9:]{0,3}(,[MJ]?[0-9]{1,3}(\\.[0-9]){0,2}(/[-0-9:]{1,6})?){0,2}",
            second in proptest::prelude::any::<i64>(),
        ) {
            // No date that Java prints is further away.
            let second = second / 1000;
            Rule::parse(&text).map(|rule| rule.at(second).0);
        }
    }
}
