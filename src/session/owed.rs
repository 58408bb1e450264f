//! What a server that follows owes its clients: the requests that it has given to its leader, until each is answered.
//!
//! A leader answers in the order in which it was asked, with a transaction of the same session and cxid. When it is lost,
//! nobody knows what became of the requests that have no answer: they may be in its history. Whoever leads next has a
//! history that is certain, and once all of it has come (UPTODATE of a later epoch: the old leader can commit nothing any
//! more), there are two kinds: those whose transaction came with it, and those that happened nowhere and never will. The
//! second may be asked again, and nothing is done twice.
//!
//! What it promises:
//! - nothing of a session is with a leader while something that its client asked before that waits to be given to one;
//! - what no leader has had is never taken for answered;
//! - where a transaction says that order is broken, or that the session's client is on another server (a transaction that
//!   nobody here asked for), what is owed to it is handed out, so that its connection can be closed.
//!
//! Left to others: what a request is (`T`), when all of a history has come, whether the client is still there when its
//! requests are asked again. Without I/O, clock or threads. Runs on the pipeline's thread.

use crate::ids::SessionId;
use crate::random::FastMap;
use std::collections::VecDeque;

/// How far a request has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// A leader has it, and will answer with a transaction.
    Asked,
    /// The leader that had it is gone. There may be a transaction of it.
    Lost,
    /// No leader has had it.
    Kept,
    /// Its answer is known; it waits for those before it.
    Settled,
}

struct Request<T> {
    stage: Stage,
    /// It was there when the last leader was lost, or came afterwards and has not been asked.
    is_held: bool,
    /// Its client has gone.
    is_left: bool,
    cxid: i32,
    /// Room that it takes.
    bytes: usize,
    what: T,
}

impl<T> Request<T> {
    fn waits_for_a_leader(&self) -> bool {
        matches!(self.stage, Stage::Lost | Stage::Kept)
    }
}

/// Requests of all sessions of one server, each session's in the order of its client.
pub struct Owed<T> {
    /// No queue is empty.
    sessions: FastMap<SessionId, VecDeque<Request<T>>>,
    /// Requests that are not held, and their bytes.
    asked: usize,
    asked_bytes: usize,
    held: usize,
}

impl<T> Default for Owed<T> {
    fn default() -> Owed<T> {
        Owed { sessions: FastMap::default(), asked: 0, asked_bytes: 0, held: 0 }
    }
}

impl<T> Owed<T> {
    /// Requests under way with the present leader, and their bytes: what a limit is for. Those that are held are as many as
    /// there were when the last one was lost, and what had been read by then.
    pub fn asked(&self) -> (usize, usize) {
        (self.asked, self.asked_bytes)
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        assert_eq!(self.sessions.is_empty(), self.asked + self.held == 0);
        self.sessions.is_empty()
    }

    /// Whether something of the session waits for a leader: what comes behind it has to wait too (`keep`).
    pub fn waits(&self, session: SessionId) -> bool {
        self.held > 0 && self.sessions.get(&session).is_some_and(|queue| queue.iter().any(Request::waits_for_a_leader))
    }

    /// The leader is asked.
    pub fn ask(&mut self, session: SessionId, cxid: i32, bytes: usize, what: T) {
        assert!(!self.waits(session), "a request overtakes one of the same session");
        self.push(session, Request { stage: Stage::Asked, is_held: false, is_left: false, cxid, bytes, what });
    }

    /// Its answer is known here, and the leader is not asked; it comes out of `next_settled` in its turn.
    pub fn settle(&mut self, session: SessionId, bytes: usize, what: T) {
        assert!(!self.waits(session), "an answer overtakes one of the same session");
        self.push(session, Request { stage: Stage::Settled, is_held: false, is_left: false, cxid: 0, bytes, what });
    }

    /// There is no leader, or something before it waits for one.
    pub fn keep(&mut self, session: SessionId, what: T) {
        self.push(session, Request { stage: Stage::Kept, is_held: true, is_left: false, cxid: 0, bytes: 0, what });
    }

    fn push(&mut self, session: SessionId, request: Request<T>) {
        self.count(&request);
        self.sessions.entry(session).or_default().push_back(request);
    }

    fn count(&mut self, request: &Request<T>) {
        if request.is_held {
            self.held += 1;
        } else {
            self.asked += 1;
            self.asked_bytes += request.bytes;
        }
    }

    fn uncount(&mut self, request: &Request<T>) {
        if request.is_held {
            self.held -= 1;
        } else {
            self.asked -= 1;
            self.asked_bytes -= request.bytes;
        }
    }

    /// A transaction has come. The request that it answers; into `passed_over` those that will not be answered any more.
    ///
    /// `tells` says that nobody but the session's client can have caused it, and that it was not refused for coming from the
    /// wrong server. If no request here is its cause, the client is on another server, and its connection here is one that
    /// it has left.
    pub fn claim(&mut self, session: SessionId, cxid: i32, tells: bool, passed_over: &mut Vec<T>) -> Option<T> {
        let queue = self.sessions.get_mut(&session)?;
        let answers =
            |request: &Request<T>| matches!(request.stage, Stage::Asked | Stage::Lost) && request.cxid == cxid;
        let at = match queue.iter().position(answers) {
            Some(at) => at,
            None if tells => queue.len(),
            None => return None,
        };
        let mut gone: VecDeque<Request<T>> = queue.drain(..(at + 1).min(queue.len())).collect();
        let is_over = queue.is_empty();
        let answered = if gone.len() > at { gone.pop_back() } else { None };
        if is_over {
            self.sessions.remove(&session);
        }
        for request in gone {
            self.uncount(&request);
            passed_over.push(request.what);
        }
        let answered = answered?;
        self.uncount(&answered);
        Some(answered.what)
    }

    /// The session's first request, if its answer is known and it `may` be told.
    pub fn next_settled(&mut self, session: SessionId, may: impl Fn(&T) -> bool) -> Option<T> {
        let queue = self.sessions.get_mut(&session)?;
        let first = queue.front()?;
        let request = if first.stage == Stage::Settled && may(&first.what) { queue.pop_front()? } else { return None };
        if queue.is_empty() {
            self.sessions.remove(&session);
        }
        self.uncount(&request);
        Some(request.what)
    }

    /// The leader is gone. What it was asked has an answer in its successor's history, or none.
    pub fn leader_lost(&mut self) {
        for request in self.sessions.values_mut().flatten().filter(|request| !request.is_held) {
            request.is_held = true;
            if request.stage == Stage::Asked {
                request.stage = Stage::Lost;
            }
        }
        self.held += std::mem::take(&mut self.asked);
        self.asked_bytes = 0;
        let left: Vec<SessionId> = self.sessions.keys().copied().filter(|session| self.is_left(*session)).collect();
        left.into_iter().for_each(|session| self.remove(session));
    }

    /// Whether nobody is there for any of it, and no leader either.
    fn is_left(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|queue| queue.iter().all(|request| request.is_held && request.is_left))
    }

    fn remove(&mut self, session: SessionId) {
        for request in self.sessions.remove(&session).into_iter().flatten() {
            self.uncount(&request);
        }
    }

    /// All that is owed.
    pub fn each(&mut self) -> impl Iterator<Item = &mut T> {
        self.sessions.values_mut().flatten().map(|request| &mut request.what)
    }

    /// Something that no transaction answers was asked beside this queue, and its leader is gone: it waits in its place,
    /// before the first that is kept or `is_behind` it.
    pub fn keep_between(&mut self, session: SessionId, what: T, is_behind: impl Fn(&T) -> bool) {
        let queue = self.sessions.entry(session).or_default();
        let at = queue.iter().position(|request| is_behind(&request.what)).unwrap_or(queue.len());
        queue.insert(at, Request { stage: Stage::Kept, is_held: true, is_left: false, cxid: 0, bytes: 0, what });
        self.held += 1;
    }

    /// There is a leader whose whole history has come, and the client is there: what has to be asked now, in its order, from
    /// the first that waits for a leader.
    pub fn ask_again(&mut self, session: SessionId) -> Vec<T> {
        let Some(queue) = self.sessions.get_mut(&session) else { return Vec::new() };
        let Some(first) = queue.iter().position(Request::waits_for_a_leader) else { return Vec::new() };
        let again: Vec<Request<T>> = queue.drain(first..).collect();
        if queue.is_empty() {
            self.sessions.remove(&session);
        }
        assert!(again.iter().all(|request| request.stage != Stage::Asked), "it was given to a leader too early");
        again.iter().for_each(|request| self.uncount(request));
        again.into_iter().filter(|request| !request.is_left).map(|request| request.what).collect()
    }

    /// A connection has closed: no other leader is asked, as its client may be on another server by then. What the present
    /// one has stays in its place, for the sake of the order.
    pub fn forget(&mut self, session: SessionId, is_its: impl Fn(&T) -> bool) {
        let Some(queue) = self.sessions.get_mut(&session) else { return };
        queue.iter_mut().filter(|request| is_its(&request.what)).for_each(|request| request.is_left = true);
        if self.is_left(session) {
            self.remove(session);
        }
    }
}

#[cfg(test)]
mod tests;
