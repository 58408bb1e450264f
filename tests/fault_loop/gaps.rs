//! How long no write was acknowledged to anybody although a quorum was there.
//!
//! Pure: knows no server.

use super::history::{Entry, Time};

/// The longest times between acknowledged writes, the longest first: when each began, and how long it was. What falls
/// into times without a quorum doesn't count.
pub fn longest(entries: &[Entry], without_quorum: &[(Time, Time)], count: usize) -> Vec<(Time, Time)> {
    let acked = entries.iter().filter(|entry| entry.asked.is_write());
    let mut times: Vec<Time> =
        acked.filter_map(|entry| entry.answer.filter(|(_, answer)| answer.err == 0).map(|(at, _)| at)).collect();
    times.sort_unstable();
    let mut gaps = Vec::new();
    for pair in times.windows(2) {
        let mut from = pair[0];
        for &(begin, end) in without_quorum {
            if end <= from || begin >= pair[1] {
                continue;
            }
            gaps.push((from, begin.saturating_sub(from)));
            from = end;
        }
        gaps.push((from, pair[1].saturating_sub(from)));
    }
    gaps.sort_by_key(|&(_, length)| std::cmp::Reverse(length));
    gaps.truncate(count);
    gaps
}

#[test]
fn a_gap_ends_where_a_quorum_was_missing() {
    use super::history::{Answer, Asked};
    let entry = |at| Entry {
        client: 0,
        session: 1,
        connection: 1,
        server: 0,
        invoked: at - 1,
        asked: Asked::Multi { value: at },
        answer: Some((at, Answer::default())),
    };
    let entries = [entry(10), entry(300), entry(40), entry(100)];
    assert_eq!(longest(&entries, &[], 2), [(100, 200), (40, 60)]);
    // It was there from 100 to 130 and from 210 on.
    assert_eq!(longest(&entries, &[(130, 210)], 3), [(210, 90), (40, 60), (10, 30)]);
    let mut refused = entries;
    refused[2].answer = Some((40, Answer { err: -103, ..Answer::default() }));
    assert_eq!(longest(&refused, &[], 2), [(100, 200), (10, 90)]);
}
