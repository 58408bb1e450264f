//! The judge has to see what is wrong: a history in which all is well, and the same with one thing changed.

use super::check::{Run, judge};
use super::history::{Answer, Asked, Cut, Entry, Expired, SINGLE, TOGETHER, appended, register};
use crate::support::jute::Stat;
use crate::support::trees::Tree;

struct Sample {
    entries: Vec<Entry>,
    expired: Vec<Expired>,
    cuts: Vec<Cut>,
    last: Tree,
}

fn stat(mzxid: i64, version: i32) -> Option<Stat> {
    Some(Stat { mzxid, version, ..Stat::default() })
}

fn entry(client: usize, time: u64, asked: Asked, zxid: i64, value: u64, stat: Option<Stat>) -> Entry {
    let answer = Answer { zxid, err: 0, value, stat };
    let (session, connection) = (client as i64 + 100, client as u32);
    Entry { client, session, connection, server: client, invoked: time, asked, answer: Some((time + 5, answer)) }
}

/// Two clients, all kinds of requests, one write whose outcome is unknown and that is seen by a read.
fn sample() -> Sample {
    let held = Stat { owner: 100, ..Stat::default() };
    let unknown = Entry { answer: None, ..entry(1, 70, Asked::Set { key: 0, value: 13 }, 0, 0, None) };
    let entries = vec![
        entry(0, 10, Asked::Set { key: 0, value: 10 }, 50, 0, stat(50, 1)),
        entry(0, 20, Asked::Ephemeral { index: 1 }, 51, 0, None),
        entry(0, 30, Asked::Held { index: 1 }, 51, 0, Some(held)),
        entry(0, 40, Asked::Multi { value: 11 }, 52, 0, stat(52, 1)),
        entry(0, 90, Asked::Get { key: 0 }, 56, 13, stat(55, 3)),
        entry(0, 100, Asked::Append { index: 1 }, 57, 0, None),
        entry(1, 45, Asked::Get { key: SINGLE + 1 }, 52, 11, stat(52, 1)),
        entry(1, 50, Asked::Sync, 52, 0, None),
        entry(1, 60, Asked::Swap { key: 0, value: 12, version: 1 }, 54, 0, stat(54, 2)),
        unknown,
    ];
    let mut last = Tree::new();
    for key in 0..SINGLE + TOGETHER {
        let (value, stat) = match key {
            0 => ("13", stat(55, 3)),
            SINGLE.. => ("11", stat(52, 1)),
            _ => ("0", stat(1, 0)),
        };
        last.insert(register(key), (value.into(), stat.unwrap_or_default()));
    }
    last.insert(appended(0, 1), (Vec::new(), Stat { czxid: 57, ..Stat::default() }));
    let expired = vec![Expired { session: 100, timeout: 1, last_sent: 100, told: 2_000_000 }];
    let cuts = vec![Cut { minority: vec![1], from: 66, to: 80 }];
    Sample { entries, expired, cuts, last }
}

fn problems(sample: &Sample) -> Vec<String> {
    let Sample { entries, expired, cuts, last } = sample;
    judge(&Run { entries, expired, cuts, last, silence_after: 10 }).1
}

fn answer(entry: &mut Entry) -> &mut Answer {
    &mut entry.answer.as_mut().expect("answered").1
}

#[test]
fn a_history_in_which_all_is_well_is_passed() {
    assert_eq!(problems(&sample()), Vec::<String>::new());
}

#[test]
fn each_thing_that_is_wrong_is_seen() {
    type Change = fn(&mut Sample);
    let changes: [(&str, Change); 17] = [
        ("two writes with one zxid", |s| answer(&mut s.entries[5]).zxid = 54),
        ("a write after", |s| {
            answer(&mut s.entries[5]).zxid = 53;
            s.last.insert(appended(0, 1), (Vec::new(), Stat { czxid: 53, ..Stat::default() }));
        }),
        ("the session had seen", |s| answer(&mut s.entries[2]).zxid = 49),
        ("after a sync", |s| {
            s.entries.push(Entry {
                session: 101,
                connection: 9,
                ..entry(0, 55, Asked::Get { key: 3 }, 51, 0, stat(1, 0))
            });
            s.entries.last_mut().expect("pushed").client = 1;
        }),
        ("not the state at its zxid", |s| {
            let read = entry(0, 95, Asked::Get { key: 0 }, 56, 12, stat(54, 2));
            s.entries.insert(5, read);
        }),
        ("register", |s| answer(&mut s.entries[4]).value = 12),
        ("nobody wrote", |s| {
            answer(&mut s.entries[4]).value = 99;
            s.last.insert(register(0), (b"99".to_vec(), Stat { mzxid: 55, version: 3, ..Stat::default() }));
        }),
        ("writes nobody saw", |s| {
            answer(&mut s.entries[4]).stat = stat(55, 4);
            s.last.insert(register(0), (b"13".to_vec(), Stat { mzxid: 55, version: 4, ..Stat::default() }));
        }),
        ("a version that was not the one asked for", |s| {
            s.entries[8].asked = Asked::Swap { key: 0, value: 12, version: 0 };
        }),
        ("the version was right", |s| {
            let mut refused = entry(0, 55, Asked::Swap { key: 0, value: 14, version: 1 }, 53, 0, None);
            answer(&mut refused).err = -103;
            s.entries.insert(4, refused);
        }),
        ("register 12", |s| {
            s.last.insert(register(SINGLE + 2), (b"0".to_vec(), Stat { mzxid: 1, version: 0, ..Stat::default() }));
            answer(&mut s.entries[3]).stat = stat(52, 0);
        }),
        ("at the end", |s| drop(s.last.remove(&appended(0, 1)))),
        ("an ephemeral of a living session", |s| answer(&mut s.entries[2]).stat = stat(1, 1)),
        ("is left, and every session is over", |s| {
            drop(s.last.insert("/ephemeral/0-1".into(), (Vec::new(), Stat::default())));
        }),
        ("expired before its time", |s| s.expired[0].told = 900_000),
        ("a minority has agreed", |s| s.cuts[0].from = 58),
        ("a minority has answered for too long", |s| s.cuts[0].from = 40),
    ];
    for (expected, change) in changes {
        let mut changed = sample();
        change(&mut changed);
        let found = problems(&changed);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}: {found:#?}");
    }
}

#[test]
fn what_happened_without_what_was_sent_before_it_is_seen() {
    let mut changed = sample();
    for index in [5, 6] {
        let lost = Entry { answer: None, connection: 7, ..entry(0, 110 + index, Asked::Append { index }, 0, 0, None) };
        changed.entries.push(lost);
    }
    assert_eq!(problems(&changed), Vec::<String>::new(), "neither has happened");
    changed.last.insert(appended(0, 6), (Vec::new(), Stat { czxid: 60, ..Stat::default() }));
    assert!(problems(&changed).iter().any(|problem| problem.contains("one sent before it did not")));
}
