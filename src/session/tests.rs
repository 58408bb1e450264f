use super::*;
use crate::ids::ServerId;

const TICK: u32 = 2000;

fn at(ms: u64) -> Now {
    Now::START.plus_ms(ms)
}

fn table() -> SessionTable {
    SessionTable::new(TICK, 0, at(0))
}

/// Looks twice a tick until `ms`, as the pipeline does; what expired, and when.
fn run(table: &mut SessionTable, from: u64, to: u64) -> Vec<(u64, SessionId)> {
    let mut seen = Vec::new();
    for ms in (from..=to).step_by(500) {
        seen.extend(table.expired(at(ms)).into_iter().map(|id| (ms, id)));
    }
    seen
}

#[test]
fn passwords_of_a_real_server() {
    let hex = |id| password(SessionId(id)).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(0x0100_0014_1eab_0000), "d767c538189221800d90addd214cf0f9");
    assert_eq!(hex(0x0100_001d_35e2_0000), "ec9d001b09774a17aa90f303fa9c07e1");
    assert_eq!(hex(0x0100_001d_35e2_0001), "ffbefa1aa9c2295c9fd35a2fce251cae");
    let id = SessionId(0x0100_0014_1eab_0000);
    assert!(password_is(id, Some(&password(id))));
    assert!(!password_is(id, Some(&password(SessionId(id.0 + 1)))));
    assert!(!password_is(id, Some(&password(id)[..15])));
    assert!(!password_is(id, None));
    assert!(!password_is(SessionId::NONE, Some(&password(SessionId::NONE))));
}

#[test]
fn ids_have_the_server_the_clock_and_a_count() {
    let mut ids = SessionIds::new(ServerId(1), 0x12_3456_789a);
    let mut table = table();
    assert_eq!(ids.next(&table), SessionId(0x0112_3456_789a_0000));
    table.add(SessionId(0x0112_3456_789a_0001), 4000, None, at(0));
    assert_eq!(ids.next(&table), SessionId(0x0112_3456_789a_0002));
    assert_eq!(SessionIds::new(ServerId(0), 0).next(&table), SessionId(1), "0 is never a session");
    assert_eq!(SessionIds::new(ServerId(0x80), 0).next(&table).0, i64::MIN + 1, "nor is a container's owner");
}

#[test]
fn timeouts_are_clamped() {
    let negotiated = [0, -1, 1, 3999, 39_999, 1_000_000].map(|ms| negotiate(ms, 4000, 40_000));
    assert_eq!(negotiated, [4000, 4000, 4000, 4000, 39_999, 40_000]);
}

#[test]
fn a_session_expires_at_the_tick_after_its_timeout() {
    let mut table = table();
    table.add(SessionId(2), 4000, None, at(0));
    table.add(SessionId(1), 4000, None, at(500));
    table.add(SessionId(3), 5500, None, at(500));
    assert_eq!(run(&mut table, 500, 9000), [(6000, SessionId(1)), (6000, SessionId(2)), (8000, SessionId(3))]);
    assert_eq!(table.state(SessionId(1)), SessionState::Closing);
    assert!(!table.reopen(SessionId(1), 4000, OwnerHandle(7), at(9000)));
    assert_eq!(run(&mut table, 9500, 20_000), [], "an expired session is told once");
    table.remove(SessionId(1));
    assert_eq!(table.state(SessionId(1)), SessionState::Unknown);
}

#[test]
fn a_touch_gives_the_negotiated_timeout_anew_and_may_shorten_it() {
    let mut table = table();
    table.add(SessionId(1), 4000, Some(OwnerHandle(1)), at(0));
    table.add(SessionId(2), 40_000, Some(OwnerHandle(2)), at(0));
    assert_eq!(run(&mut table, 0, 5500), []);
    table.touch(&[SessionId(1), SessionId(99)], at(5500));
    assert!(table.reopen(SessionId(2), 4000, OwnerHandle(3), at(5500)));
    assert_eq!(table.owner(SessionId(2)), Some(OwnerHandle(3)));
    assert_eq!(table.timeout_ms(SessionId(2)), Some(40_000), "as it was created");
    assert_eq!(run(&mut table, 5500, 50_000), [(10_000, SessionId(1)), (10_000, SessionId(2))]);
}

#[test]
fn the_timeout_is_that_of_the_server_that_the_client_is_on() {
    let (first, second) = (OwnerHandle(7), OwnerHandle(8));
    let mut table = table();
    table.add(SessionId(1), 4_000, None, at(0));
    // Nobody's, as after a change of leader: whoever has heard of it knows.
    table.touch_elsewhere(SessionId(1), 10_000, first, at(0));
    assert_eq!(table.negotiated_ms(SessionId(1)), Some(10_000));
    assert!(table.reopen(SessionId(1), 40_000, second, at(0)));
    table.touch_elsewhere(SessionId(1), 4_000, first, at(0));
    assert_eq!(table.negotiated_ms(SessionId(1)), Some(40_000), "it has left that one");
    table.touch_elsewhere(SessionId(1), 20_000, second, at(0));
    table.touch_elsewhere(SessionId(1), 0, second, at(0));
    assert_eq!(table.negotiated_ms(SessionId(1)), Some(20_000));
    assert_eq!(table.timeout_ms(SessionId(1)), Some(4_000), "as it was created");
}

#[test]
fn time_in_which_the_server_could_not_hear_does_not_count() {
    let mut table = table();
    table.add(SessionId(1), 4000, None, at(0));
    assert_eq!(run(&mut table, 0, 1000), []);
    assert_eq!(table.expired(at(3_601_000)), [], "one tick of an hour's pause counts");
    assert_eq!(run(&mut table, 3_601_500, 3_605_000), [(3_604_000, SessionId(1))]);
}

#[test]
fn a_session_belongs_to_its_last_connection() {
    let mut table = table();
    table.add(SessionId(1), 4000, Some(OwnerHandle(1)), at(0));
    assert!(table.reopen(SessionId(1), 4000, OwnerHandle(2), at(100)));
    table.disown(SessionId(1), OwnerHandle(1));
    assert_eq!(table.owner(SessionId(1)), Some(OwnerHandle(2)));
    table.disown(SessionId(1), OwnerHandle(2));
    assert_eq!((table.owner(SessionId(1)), table.state(SessionId(1))), (None, SessionState::Live));
    assert!(table.set_closing(SessionId(1)));
    assert!(!table.set_closing(SessionId(1)));
    assert_eq!(run(&mut table, 500, 20_000), [], "what is being closed does not expire too");
}

#[test]
fn what_is_shown_is_sorted() {
    let mut table = table();
    for id in [5, 3, 9] {
        table.add(SessionId(id), if id == 3 { 8000 } else { 4000 }, None, at(0));
    }
    let buckets = table.dump();
    assert_eq!(buckets[0], ExpiryBucket { in_ms: 6000, sessions: vec![SessionId(5), SessionId(9)] });
    assert_eq!(buckets[1], ExpiryBucket { in_ms: 10_000, sessions: vec![SessionId(3)] });
    assert_eq!(table.timeouts(), [(SessionId(3), 8000), (SessionId(5), 4000), (SessionId(9), 4000)]);
    assert_eq!(table.wake_at(at(0)), at(1000));
    table.restart_clocks(at(100_000));
    assert_eq!(table.dump().len(), 2);
}

/// As many as a follower sees in minutes: it never asks what has expired.
#[test]
fn sessions_that_come_and_go_leave_nothing_where_nobody_asks_what_has_expired() {
    let mut table = table();
    for id in 1..=10 {
        table.add(SessionId(id), 4000, None, at(0));
    }
    let entries = |table: &SessionTable| table.buckets.values().map(Vec::len).sum::<usize>();
    for n in 0..50_000 {
        let now = at(n as u64 * 10);
        table.add(SessionId(1_000 + n), 40_000, None, now);
        // One that comes back with less time each time, and one that is on its way out.
        table.reopen(SessionId(1), 400_000_000 - 4_000 * n as i32, OwnerHandle(1), now);
        table.set_closing(SessionId(2));
        table.remove(SessionId(1_000 + n));
        assert!(entries(&table) <= 2 * 11 + STALE_ENTRIES + 1, "{} after {n}", entries(&table));
    }
    assert_eq!(entries(&table), table.entries);
    // Whoever is left is filed where it expires, and once.
    table.begin_anew_but(|_| false, at(500_000));
    assert_eq!(run(&mut table, 500_000, 520_000).len(), 9);
    assert_eq!(entries(&table), table.entries);
}

#[test]
fn what_is_filed_anew_for_the_stale_ones_expires_when_it_would_have() {
    let mut table = table();
    table.add(SessionId(1), 4000, None, at(0));
    table.add(SessionId(2), 4000, None, at(0));
    table.add(SessionId(3), 4000, None, at(0));
    assert!(table.set_closing(SessionId(3)));
    table.touch(&[SessionId(2)], at(1500));
    table.touch(&[SessionId(2)], at(3000));
    for n in 0..5_000 {
        table.add(SessionId(1_000 + n), 40_000, None, at(3000));
        table.remove(SessionId(1_000 + n));
    }
    assert_eq!(run(&mut table, 3000, 20_000), [(6000, SessionId(1)), (8000, SessionId(2))]);
}
