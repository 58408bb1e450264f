//! Makes scripts: which connection acts next, and how. Sees the first server's replies, which must be the second's too.
//!
//! One connection is the janitor: it is the super user and deletes what has grown, so that trees stay small, names are
//! used again, and nodes that nobody may touch go away.

use crate::reply::Body;
use crate::requests::{Known, Requests, ends_writes, path_of};
use crate::script::{After, Hello, Password, Request, Step, Wanted, op};
use crate::side::Side;
use crate::support::jute::{Writer, framed};

const SLOTS: usize = 6;
const JANITOR: usize = 0;
/// Refused connections come and go here.
const VISITOR: usize = 9;
/// A session without a connection is taken up again after at most so many steps: it must not expire.
const AWAY: usize = 60;
const NODES: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Empty,
    Open(usize),
    Away(usize, usize),
}

pub struct Generator {
    pub requests: Requests,
    places: [Place; SLOTS],
    step: usize,
    /// Steps that must come next.
    planned: Vec<Step>,
}

impl Generator {
    pub fn new(seed: u64, enforced: bool) -> Generator {
        Generator {
            requests: Requests::new(seed, enforced),
            places: [Place::Empty; SLOTS],
            step: 0,
            planned: Vec::new(),
        }
    }

    pub fn step(&mut self) -> Step {
        self.step += 1;
        if let Some(step) = self.planned.pop() {
            return step;
        }
        if let Some(slot) = self.overdue() {
            return self.connect(slot);
        }
        if self.requests.nodes.len() + self.requests.quotas.len() > NODES && self.places[JANITOR] != Place::Empty {
            return self.clean();
        }
        let slot = self.requests.below(SLOTS);
        if !matches!(self.places[slot], Place::Open(_)) {
            return if self.requests.once_in(3) { self.connect(slot) } else { self.other_than(slot) };
        }
        self.act(slot)
    }

    fn overdue(&self) -> Option<usize> {
        if self.places[JANITOR] == Place::Empty {
            return Some(JANITOR);
        }
        let late = |place: &Place| matches!(place, Place::Away(_, since) if since + AWAY < self.step);
        self.places.iter().position(late)
    }

    fn other_than(&mut self, slot: usize) -> Step {
        match self.requests.below(4) {
            0 => self.stranger(),
            1 => self.refused(),
            _ => {
                let open = (0..SLOTS).find(|other| matches!(self.places[*other], Place::Open(_)));
                match open {
                    Some(open) => self.act(open),
                    None => self.connect(slot),
                }
            }
        }
    }

    fn timeout(&mut self) -> i32 {
        self.requests.pick(&[60_000, 90_000, 120_000, 1, 0, -5, 59_999, 120_001, i32::MAX, i32::MIN])
    }

    fn connect(&mut self, slot: usize) -> Step {
        let timeout = self.timeout();
        let mut hello = match self.places[slot] {
            Place::Away(session, _) | Place::Open(session) => {
                let zxid = self.requests.zxid - self.requests.below(5) as i64;
                Hello::again(session, timeout, zxid)
            }
            Place::Empty => Hello::new(timeout),
        };
        if hello.wanted == Wanted::New {
            hello.last_zxid = self.requests.pick(&[0, 0, self.requests.zxid, -1, i64::MIN]);
            let passwords = [Some(vec![0; 16]), None, Some(Vec::new()), Some(vec![9; 8]), Some(vec![1; 40])];
            hello.password = Password::These(self.requests.pick(&passwords));
        }
        hello.version = self.requests.pick(&[0, 0, 0, 7, -1]);
        hello.read_only = self.requests.pick(&[Some(0), Some(0), Some(1), Some(7), None]);
        if hello.read_only.is_some() && self.requests.once_in(6) {
            hello.tail = vec![1, 2, 3];
        }
        let behind = if slot == JANITOR {
            vec![self.requests.auth(true)]
        } else {
            let count = self.requests.pick(&[0, 0, 1, 4]);
            self.segment(count)
        };
        Step::Connect { slot, hello, behind, after: After::Open }
    }

    /// A ConnectRequest that is refused, or closed without an answer.
    fn refused(&mut self) -> Step {
        let timeout = self.timeout();
        let mut hello = Hello::new(timeout);
        let live: Vec<usize> = self.places.iter().filter_map(|place| place.session()).collect();
        match self.requests.below(5) {
            0 => hello.last_zxid = self.requests.pick(&[i64::MAX, self.requests.zxid + 1000]),
            1 => hello.wanted = Wanted::Unknown(self.requests.pick(&[5, -1, 0x0100_0000_0000_0001, i64::MIN])),
            2 if !live.is_empty() => {
                hello.wanted = Wanted::Opened(self.requests.pick(&live));
                hello.password = Password::Wrong;
            }
            3 if !live.is_empty() => {
                hello.wanted = Wanted::Opened(self.requests.pick(&live));
                hello.password = Password::These(self.requests.pick(&[None, Some(Vec::new()), Some(vec![0; 16])]));
            }
            4 if !live.is_empty() => {
                hello.wanted = Wanted::Opened(self.requests.pick(&live));
                hello.password = Password::Right;
                hello.last_zxid = self.requests.zxid + 1000;
            }
            _ => hello.last_zxid = i64::MAX,
        }
        Step::Connect { slot: VISITOR, hello, behind: Vec::new(), after: After::Closed }
    }

    fn stranger(&mut self) -> Step {
        let hello = Writer::new().int(0).long(0).int(60_000).long(0);
        let bytes = match self.requests.below(11) {
            0 => b"ruok".to_vec(),
            1 => b"ruok\nmore".to_vec(),
            2 => b"isro".to_vec(),
            3 => b"RUOK".to_vec(),
            4 => vec![0xff, 0xf4, 0xff, 0xfd],
            5 => framed(&hello.0),
            6 => framed(&hello.int(-5).0),
            7 => framed(&hello.int(1_000_000).0),
            8 => framed(&[]),
            9 => framed(&[0; 11]),
            _ => self.requests.pick(&[i32::MIN, -1, i32::MAX, 0x10_0000]).to_be_bytes().to_vec(),
        };
        Step::Stranger { bytes }
    }

    fn act(&mut self, slot: usize) -> Step {
        let open = |requests| Step::Send { slot, requests, after: After::Open };
        match self.requests.below(100) {
            0..70 => {
                let count = self.requests.pick(&[1, 1, 2, 3, 4, 6, 8, 12, 30]);
                open(self.segment(count))
            }
            70..72 => {
                // A whole quota, one node after the other.
                let mut steps: Vec<Step> =
                    self.requests.whole_quota().into_iter().map(|request| open(vec![request])).collect();
                steps.reverse();
                self.planned = steps;
                self.step()
            }
            72..76 => {
                let quota = self.requests.quota();
                let mut requests = vec![quota];
                if !self.requests.enforced {
                    let count = self.requests.below(4);
                    requests.extend(self.segment(count));
                }
                open(requests)
            }
            76..82 => {
                // Reads only: who may see an event while the identity changes is decided by chance.
                let mut requests: Vec<Request> = (0..self.requests.below(5)).map(|_| self.requests.read()).collect();
                let at = self.requests.below(requests.len() + 1);
                let super_user = slot != JANITOR && self.requests.once_in(12);
                requests.insert(at, self.requests.auth(super_user));
                open(requests)
            }
            82..84 => Step::Send { slot, requests: vec![self.requests.fatal()], after: After::Closed },
            84..86 => {
                let bytes = match self.requests.below(7) {
                    0 => framed(&[]),
                    1 => framed(&[0, 0, 0]),
                    2 => framed(&[0; 7]),
                    3 => b"ruok".to_vec(),
                    4 => (-1i32).to_be_bytes().to_vec(),
                    5 => 0x10_0000i32.to_be_bytes().to_vec(),
                    _ => i32::MAX.to_be_bytes().to_vec(),
                };
                Step::Garbage { slot, bytes }
            }
            86..89 => Step::Drop { slot },
            89..91 => self.connect_over(slot),
            91..94 => self.refused(),
            94..97 => self.stranger(),
            _ => {
                let mut requests = self.segment(3);
                // A close is a write, too, and takes with it what it believes to be ephemeral.
                requests.retain(|request| !ends_writes(request));
                requests.push(self.requests.close());
                Step::Send { slot, requests, after: After::Closed }
            }
        }
    }

    /// Takes an open session over from another connection: the old one is closed by the server.
    fn connect_over(&mut self, slot: usize) -> Step {
        let empty = (1..SLOTS).find(|other| self.places[*other] == Place::Empty);
        let (Some(empty), Some(session)) = (empty, self.places[slot].session()) else {
            return self.connect_again(slot);
        };
        let timeout = self.timeout();
        let hello = Hello::again(session, timeout, 0);
        Step::Connect { slot: empty, hello, behind: Vec::new(), after: After::Open }
    }

    fn connect_again(&mut self, slot: usize) -> Step {
        let again = self.connect(slot);
        self.planned.push(again);
        Step::Drop { slot }
    }

    /// Requests that one client may have in flight at once, with answers that don't depend on chance.
    fn segment(&mut self, count: usize) -> Vec<Request> {
        let mut requests: Vec<Request> = Vec::new();
        let mut may_write = true;
        for _ in 0..count {
            let write = may_write && self.requests.once_in(2);
            let mut request = if write { self.requests.write() } else { self.requests.read() };
            // Hard quotas are compared with what has been applied: one write at a time.
            may_write &= !(write && (ends_writes(&request) || self.requests.enforced));
            if self.requests.once_in(50)
                && let Some(last) = requests.last()
            {
                request.xid = last.xid;
            }
            requests.push(request);
        }
        requests
    }

    /// Deletes what there is, children first.
    fn clean(&mut self) -> Step {
        let mut paths: Vec<_> = self.requests.nodes.keys().chain(&self.requests.quotas).cloned().collect();
        paths.retain(|path| !path.starts_with(b"/zookeeper") || path.starts_with(b"/zookeeper/quota/"));
        paths.sort_by_key(|path| std::cmp::Reverse(path.iter().filter(|byte| **byte == b'/').count()));
        self.requests.nodes.clear();
        self.requests.quotas.clear();
        let mut steps = Vec::new();
        for some in paths.chunks(25) {
            let requests = some.iter().map(|path| self.requests.delete(path)).collect();
            steps.push(Step::Send { slot: JANITOR, requests, after: After::Open });
        }
        // The janitor may be away, or connected as somebody else's victim: it comes back first, and authenticates.
        if !matches!(self.places[JANITOR], Place::Open(_)) {
            let connect = self.connect(JANITOR);
            steps.insert(0, connect);
        }
        steps.reverse();
        self.planned = steps;
        self.planned.pop().unwrap_or(Step::Drop { slot: JANITOR })
    }

    /// Ends every session, so that two servers can be compared at rest.
    pub fn farewell(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for slot in 0..SLOTS {
            if let Place::Away(..) = self.places[slot] {
                steps.push(self.connect(slot));
            }
            if self.places[slot] != Place::Empty {
                steps.push(Step::Send { slot, requests: vec![self.requests.close()], after: After::Closed });
            }
        }
        steps
    }

    /// Learns what has become of the step.
    pub fn observe(&mut self, step: &Step, side: &Side) {
        self.requests.zxid = side.last_zxid;
        for learned in &side.learned {
            self.learn(&learned.request, learned.reply.err, &learned.reply.body);
        }
        let closed = match step {
            Step::Send { slot, requests, .. } => {
                requests.iter().any(|request| request.op == op::CLOSE).then_some(*slot)
            }
            _ => None,
        };
        for slot in 0..SLOTS {
            self.places[slot] = match (self.places[slot], side.session(slot)) {
                (_, Some(session)) => Place::Open(session),
                (Place::Open(_), None) if closed == Some(slot) => Place::Empty,
                (Place::Open(session), None) => Place::Away(session, self.step),
                (place, None) => place,
            };
        }
        // A session that has moved to another slot isn't away any more; one that was refused for good is over.
        for slot in 0..SLOTS {
            if let Place::Away(session, _) = self.places[slot] {
                let moved = (0..SLOTS).any(|other| self.places[other] == Place::Open(session));
                let tried = matches!(step, Step::Connect { slot: other, .. } if *other == slot);
                if moved || tried {
                    self.places[slot] = Place::Empty;
                }
            }
        }
    }

    fn learn(&mut self, request: &Request, err: i32, body: &Body) {
        let path = path_of(request);
        match (request.op, err, body) {
            (_, 0, Body::Path(Some(path)) | Body::PathStat(Some(path), _)) if request.op != op::SYNC => self.born(path),
            (op::DELETE, 0, _) | (op::GET_DATA | op::EXISTS | op::SET_DATA, -101, _) => {
                if let Some(path) = path {
                    self.requests.nodes.remove(&path);
                    self.requests.quotas.remove(&path);
                }
            }
            (_, 0, Body::Stat(stat) | Body::Data(_, stat) | Body::Acls(_, stat)) => {
                if let Some(known) = path.and_then(|path| self.requests.nodes.get_mut(&path)) {
                    *known = Known { version: stat.version, aversion: stat.aversion };
                }
            }
            (_, 0, Body::Results(results)) => {
                for (_, _, body) in results {
                    if let Body::Path(Some(path)) | Body::PathStat(Some(path), _) = body {
                        self.born(path);
                    }
                }
            }
            _ => {}
        }
    }

    fn born(&mut self, path: &[u8]) {
        if path.starts_with(b"/zookeeper/quota/") {
            self.requests.quotas.insert(path.to_vec());
        } else {
            self.requests.nodes.insert(path.to_vec(), Known::default());
        }
    }
}

impl Place {
    fn session(&self) -> Option<usize> {
        match self {
            Place::Empty => None,
            Place::Open(session) | Place::Away(session, _) => Some(*session),
        }
    }
}
