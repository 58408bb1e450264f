//! Dates in the local time zone, as Java prints them: `Sun Nov 22 06:52:18 CET 2026`.
//!
//! The zone is read from `TZ` or `/etc/localtime` in the system's own format (RFC 8536), whose last line is the rule for all
//! times after the last change that the file lists; `TZ` may be such a rule itself. What can't be read is UTC.
//!
//! Runs on: the shell's thread.

use super::zone_rule::{Kind, Rule};
use crate::admin::java_date;
use crate::wire::reader::{Malformed, Reader};
use std::path::PathBuf;

/// Offsets from UTC, and since when each holds.
#[derive(Debug, Default)]
pub struct Zone {
    /// Second since 1970 from which the kind holds; ascending.
    changes: Vec<(i64, usize)>,
    /// Seconds east of UTC, and the abbreviation.
    kinds: Vec<Kind>,
    /// For the times from the last change on.
    rule: Option<Rule>,
}

impl Zone {
    /// The zone of this process; UTC if there is none that can be read.
    pub fn local() -> Zone {
        let read = |file: PathBuf| std::fs::read(file).ok().and_then(|bytes| Zone::read(&bytes).ok());
        let Ok(name) = std::env::var("TZ") else { return read("/etc/localtime".into()).unwrap_or_default() };
        let name = name.trim_start_matches(':');
        if name.is_empty() || name.contains("..") {
            return Zone::default();
        }
        let of_rule = || Rule::parse(name).map(|rule| Zone { rule: Some(rule), ..Zone::default() });
        read(PathBuf::from("/usr/share/zoneinfo").join(name)).or_else(of_rule).unwrap_or_default()
    }

    fn read(bytes: &[u8]) -> Result<Zone, Malformed> {
        let (zone, rest) = read_block(bytes, 4)?;
        if bytes.get(4).is_none_or(|version| *version < b'2') {
            return Ok(zone);
        }
        // From version 2 on, the same follows again with eight bytes a time, and a line with the rule, which may be empty.
        let (mut zone, rest) = read_block(rest, 8)?;
        let line = rest.strip_prefix(b"\n").and_then(|rest| rest.split(|byte| *byte == b'\n').next());
        zone.rule = line.and_then(|line| std::str::from_utf8(line).ok()).and_then(Rule::parse);
        Ok(zone)
    }

    /// `wall_ms` since 1970.
    pub fn java_date(&self, wall_ms: i64) -> String {
        let second = wall_ms.div_euclid(1000);
        let after = self.changes.partition_point(|(from, _)| *from <= second);
        let by_rule = self.rule.as_ref().filter(|_| after == self.changes.len());
        let kind = match (by_rule, after) {
            (Some(rule), _) => Some(rule.at(second)),
            (None, 0) => self.kinds.first(),
            (None, after) => self.kinds.get(self.changes[after - 1].1),
        };
        match kind {
            None => java_date(wall_ms),
            Some((offset, name)) => java_date(wall_ms.saturating_add(i64::from(*offset) * 1000)).replace("UTC", name),
        }
    }
}

fn read_block(bytes: &[u8], time_bytes: usize) -> Result<(Zone, &[u8]), Malformed> {
    if !bytes.starts_with(b"TZif") {
        return Err(Malformed::Unknown("magic", 0));
    }
    let mut reader = Reader::new(bytes.get(20..).ok_or(Malformed::Short("header"))?);
    let mut count =
        |field| reader.int(field).and_then(|raw| usize::try_from(raw).map_err(|_| Malformed::Length(field, raw)));
    let (utc, standard, leaps) = (count("isutcnt")?, count("isstdcnt")?, count("leapcnt")?);
    let (times, kinds, letters) = (count("timecnt")?, count("typecnt")?, count("charcnt")?);

    let mut rest = reader.rest();
    let mut take = |len: usize| {
        let (head, tail) = rest.split_at_checked(len).ok_or(Malformed::Short("zone"))?;
        rest = tail;
        Ok::<_, Malformed>(head)
    };
    let at = take(times.saturating_mul(time_bytes))?;
    let which = take(times)?;
    let table = take(kinds.saturating_mul(6))?;
    let names = take(letters)?;
    take(leaps.saturating_mul(time_bytes + 4).saturating_add(standard).saturating_add(utc))?;

    let mut zone = Zone::default();
    for (time, kind) in at.chunks(time_bytes).zip(which) {
        let mut reader = Reader::new(time);
        let time = if time_bytes == 8 { reader.long("time")? } else { reader.int("time")? as i64 };
        zone.changes.push((time, *kind as usize));
    }
    for entry in table.chunks(6) {
        let offset = Reader::new(entry).int("utoff")?;
        let name = names.get(entry[5] as usize..).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        zone.kinds.push((offset, String::from_utf8_lossy(name).into_owned()));
    }
    Ok((zone, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One change: from UTC to an hour east, at second 1000; version 1 and version 2 alike.
    fn file(version: u8) -> Vec<u8> {
        let block = |time_bytes: usize| {
            let mut bytes = b"TZif".to_vec();
            bytes.push(version);
            bytes.extend([0; 15]);
            for count in [0, 0, 0, 1, 2, 8] {
                bytes.extend(i32::to_be_bytes(count));
            }
            bytes.extend(&1000i64.to_be_bytes()[8 - time_bytes..]);
            bytes.push(1);
            bytes.extend([0, 0, 0, 0, 0, 0]);
            bytes.extend([0, 0, 0x0e, 0x10, 0, 4]);
            bytes.extend(b"UTC\0CET\0");
            bytes
        };
        let mut bytes = block(4);
        if version >= b'2' {
            bytes.extend(block(8));
        }
        bytes
    }

    #[test]
    fn dates_are_in_the_zone_of_the_file() {
        for version in [0, b'2'] {
            let zone = Zone::read(&file(version)).unwrap();
            assert_eq!(zone.java_date(999_999), "Thu Jan 01 00:16:39 UTC 1970");
            assert_eq!(zone.java_date(1_000_000), "Thu Jan 01 01:16:40 CET 1970");
        }
        assert_eq!(Zone::default().java_date(0), "Thu Jan 01 00:00:00 UTC 1970");
    }

    #[test]
    fn times_after_the_last_change_follow_the_rule_of_the_last_line() {
        let of = |line: &str| Zone::read(&[&file(b'2')[..], line.as_bytes()].concat()).unwrap();
        // As slim files have it: a single change, and the rule for all that follows.
        let zone = of("\nCET-1CEST,M3.5.0,M10.5.0/3\n");
        assert_eq!(zone.java_date(999_999), "Thu Jan 01 00:16:39 UTC 1970");
        assert_eq!(zone.java_date(1_000_000), "Thu Jan 01 01:16:40 CET 1970");
        assert_eq!(zone.java_date(1_785_542_400_000), "Sat Aug 01 02:00:00 CEST 2026");
        assert_eq!(zone.java_date(1_795_330_706_000), "Sun Nov 22 07:58:26 CET 2026");
        for line in ["", "\n\n", "\nnonsense\n", "\n\u{ff}"] {
            assert_eq!(of(line).java_date(1_785_542_400_000), "Sat Aug 01 01:00:00 CET 2026", "{line:?}");
        }
        let zone = Zone { rule: Rule::parse("CET-1CEST,M3.5.0,M10.5.0/3"), ..Zone::default() };
        assert_eq!(zone.java_date(1_785_542_400_000), "Sat Aug 01 02:00:00 CEST 2026");
        zone.java_date(i64::MAX);
        zone.java_date(i64::MIN);
    }

    #[test]
    fn no_truncated_file_is_taken() {
        let bytes = file(b'2');
        for len in 0..bytes.len() {
            assert!(Zone::read(&bytes[..len]).is_err(), "{len} bytes");
        }
    }
}
