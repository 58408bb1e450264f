//! A second opinion that trusts no zxid: whether the writes of one znode, and the reads that came right behind a sync, can
//! be put into one order that fits their times and their answers (Wing and Gong's search, with Lowe's memory of
//! configurations that were tried).
//!
//! Each znode is a register of its own: absent, or a value and a version. A request whose answer was lost may take effect at
//! any later time, or never. The search is exponential where much is unknown, so it is given up after a while, and counted.

use crate::clients::{Op, Record};
use crate::network::Time;
use ostler::random::FastSet;
use ostler::wire::{ErrorCode, Reader, Stat};
use std::collections::BTreeMap;

/// Steps after which a search is given up.
const STEPS_MAX: usize = 200_000;

#[derive(Clone, Copy, Default, Debug)]
pub struct Effort {
    pub keys: usize,
    pub operations: usize,
    pub given_up: usize,
}

/// A znode: version and value; `None` is none.
type State = Option<(i32, String)>;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Action {
    Create(String),
    Set(String, i32),
    Delete(i32),
    Get,
}

/// What a client was told.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Told {
    Error(ErrorCode),
    Done,
    /// The new version.
    Version(i32),
    Read(i32, String),
}

struct Operation {
    from: Time,
    until: Time,
    action: Action,
    told: Option<Told>,
}

/// Panics if there is no order.
pub fn check(records: &[&Record]) -> Effort {
    let mut effort = Effort::default();
    for (key, operations) in by_key(records) {
        effort.keys += 1;
        effort.operations += operations.len();
        match search(&operations) {
            Some(true) => {}
            Some(false) => panic!("linearizability: no order fits the answers about {key}"),
            None => effort.given_up += 1,
        }
    }
    effort
}

fn by_key(records: &[&Record]) -> BTreeMap<String, Vec<Operation>> {
    let mut keys: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    let mut previous: Option<&Record> = None;
    for &record in records {
        let before = previous.replace(record);
        let (path, action) = match &record.op {
            Op::Create { path, data, ephemeral: false, sequential: false } => (path, Action::Create(data.clone())),
            Op::Set { path, data, version } => (path, Action::Set(data.clone(), *version)),
            Op::Delete { path, version } => (path, Action::Delete(*version)),
            Op::Get(path) => (path, Action::Get),
            _ => continue,
        };
        if !path.starts_with("/k") {
            continue;
        }
        let mut from = record.invoked;
        if action == Action::Get {
            // A read alone may be stale; behind a sync of its connection it may not.
            let behind_sync = before.filter(|before| {
                matches!(before.op, Op::Sync(_))
                    && before.answer.is_some()
                    && (before.client, before.connection) == (record.client, record.connection)
            });
            let Some(sync) = behind_sync.filter(|_| record.answer.is_some()) else { continue };
            from = sync.invoked;
        }
        let told = record.answer.as_ref().map(|answer| told(&action, answer.err, &answer.body));
        if matches!(told, Some(Told::Error(code)) if code == ErrorCode::SESSION_EXPIRED) {
            continue;
        }
        let until = record.answer.as_ref().map_or(Time::MAX, |answer| answer.at);
        keys.entry(path.clone()).or_default().push(Operation { from, until, action, told });
    }
    for operations in keys.values_mut() {
        operations.sort_by_key(|operation| operation.from);
    }
    keys
}

fn told(action: &Action, err: ErrorCode, body: &[u8]) -> Told {
    if err != ErrorCode::OK {
        return Told::Error(err);
    }
    let mut reader = Reader::new(body);
    match action {
        Action::Set(..) => Told::Version(Stat::read(&mut reader).expect("a stat").version),
        Action::Get => {
            let data = reader.buffer("data").expect("data").unwrap_or_default();
            let value = String::from_utf8(data.to_vec()).expect("clients write text");
            Told::Read(Stat::read(&mut reader).expect("a stat").version, value)
        }
        _ => Told::Done,
    }
}

/// What an operation does to a state, and what its client is told.
fn step(state: &State, action: &Action) -> (State, Told) {
    match (action, state) {
        (Action::Create(data), None) => (Some((0, data.clone())), Told::Done),
        (Action::Create(_), Some(_)) => (state.clone(), Told::Error(ErrorCode::NODE_EXISTS)),
        (_, None) => (None, Told::Error(ErrorCode::NO_NODE)),
        (Action::Set(_, wanted) | Action::Delete(wanted), Some((version, _))) if *wanted != -1 && wanted != version => {
            (state.clone(), Told::Error(ErrorCode::BAD_VERSION))
        }
        (Action::Set(data, _), Some((version, _))) => (Some((version + 1, data.clone())), Told::Version(version + 1)),
        (Action::Delete(_), Some(_)) => (None, Told::Done),
        (Action::Get, Some((version, data))) => (state.clone(), Told::Read(*version, data.clone())),
    }
}

/// Whether there is an order; `None` if the search was given up.
fn search(operations: &[Operation]) -> Option<bool> {
    let words = operations.len().div_ceil(64);
    let mut done = vec![0u64; words];
    let is_done = |done: &[u64], at: usize| done[at / 64] >> (at % 64) & 1 == 1;
    let mut tried: FastSet<(Vec<u64>, State)> = FastSet::default();
    // Each level: the state before, what was chosen, and where to go on choosing.
    let mut stack: Vec<(State, usize)> = Vec::new();
    let mut state: State = None;
    let mut resume = 0;
    let mut steps = 0;
    loop {
        let first = (0..operations.len()).find(|&at| !is_done(&done, at));
        let open = (0..operations.len()).filter(|&at| !is_done(&done, at));
        let deadline = open.map(|at| operations[at].until).min().unwrap_or(Time::MAX);
        if deadline == Time::MAX {
            return Some(true);
        }
        let mut chosen = None;
        for at in first.unwrap_or(0).max(resume)..operations.len() {
            let operation = &operations[at];
            if operation.from > deadline {
                break;
            }
            if is_done(&done, at) {
                continue;
            }
            steps += 1;
            let (after, told) = step(&state, &operation.action);
            // An unanswered one that changes nothing need not be placed.
            let fits = operation.told.as_ref().map_or(after != state, |expected| *expected == told);
            if !fits {
                continue;
            }
            done[at / 64] |= 1 << (at % 64);
            if tried.insert((done.clone(), after.clone())) {
                chosen = Some((at, after));
                break;
            }
            done[at / 64] &= !(1 << (at % 64));
        }
        if steps > STEPS_MAX {
            return None;
        }
        match chosen {
            Some((at, after)) => {
                stack.push((std::mem::replace(&mut state, after), at));
                resume = 0;
            }
            None => {
                let Some((before, at)) = stack.pop() else { return Some(false) };
                state = before;
                done[at / 64] &= !(1 << (at % 64));
                resume = at + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(from: Time, until: Time, action: Action, told: Option<Told>) -> Operation {
        Operation { from, until, action, told }
    }

    #[test]
    fn a_stale_read_behind_a_sync_has_no_order_and_an_unknown_write_may_come_late() {
        let create = || operation(0, 1, Action::Create("a".into()), Some(Told::Done));
        let set = |until, told| operation(2, until, Action::Set("b".into(), -1), told);
        let get = |from, version: i32, value: &str| {
            operation(from, from + 1, Action::Get, Some(Told::Read(version, value.into())))
        };
        assert_eq!(search(&[create(), set(3, Some(Told::Version(1))), get(4, 1, "b")]), Some(true));
        assert_eq!(search(&[create(), set(3, Some(Told::Version(1))), get(4, 0, "a")]), Some(false));
        assert_eq!(search(&[create(), set(Time::MAX, None), get(4, 0, "a"), get(6, 1, "b")]), Some(true));
        assert_eq!(search(&[create(), set(Time::MAX, None), get(4, 1, "b"), get(6, 0, "a")]), Some(false));
    }
}
