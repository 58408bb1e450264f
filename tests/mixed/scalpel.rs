//! The byte scalpel: between a learner and its leader, a proxy that counts bytes, and at a chosen one cuts the connection or
//! holds it up. Wherever that falls, in the middle of a header, of a transaction, of a snapshot, the learner has to be in
//! step again afterwards, with the same tree.
//!
//! Runs on: one thread accepts, two copy for each connection; the test's thread gives orders.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ostler::clock;

use crate::support::servers::pause;

/// Which bytes are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// What the learner sends.
    Learner,
    /// What the leader sends.
    Leader,
}

/// What happens at the chosen byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Both sides see an end, after exactly the bytes before.
    Close,
    /// Nothing passes for so long, in this direction, and then the connection ends.
    Stall(Duration),
    /// Nothing passes for so long, and then it goes on.
    Pause(Duration),
}

impl Cut {
    pub fn name(self) -> &'static str {
        match self {
            Cut::Close => "closed",
            Cut::Stall(_) => "stalled, then closed",
            Cut::Pause(_) => "paused",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub side: Side,
    /// Bytes that pass before it happens, from when the order is given.
    pub after: u64,
    pub cut: Cut,
}

#[derive(Default)]
struct Desk {
    order: Option<Order>,
    done: bool,
    /// Nothing gets through to new connections.
    shut: bool,
    /// What runs through now, to be cut at once if wanted.
    streams: Vec<TcpStream>,
    passed: [u64; 2],
    /// The same of the connection that runs through now.
    passed_now: [u64; 2],
    /// At which byte of its connection the last order was carried out.
    place: u64,
}

#[derive(Default)]
struct Shared {
    desk: Mutex<Desk>,
    over: AtomicBool,
}

pub struct Scalpel {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Scalpel {
    /// Learners that connect here are connected on to `target`.
    pub fn new(target: u16) -> Scalpel {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for learner in listener.incoming().flatten() {
                if accepting.over.load(Ordering::SeqCst) {
                    return;
                }
                connect(learner, target, &accepting);
            }
        });
        Scalpel { port, shared }
    }

    /// Gives an order; the one before has been carried out, or is forgotten.
    pub fn order(&self, order: Order) {
        let mut desk = self.shared.desk.lock().expect("nobody panics with it");
        (desk.order, desk.done) = (Some(order), false);
    }

    pub fn is_done(&self) -> bool {
        self.shared.desk.lock().expect("nobody panics with it").done
    }

    /// At which byte of its connection the last order was carried out.
    pub fn place(&self) -> u64 {
        self.shared.desk.lock().expect("nobody panics with it").place
    }

    /// Cuts what runs through now, and lets nothing through (or everything again).
    pub fn shut(&self, shut: bool) {
        let mut desk = self.shared.desk.lock().expect("nobody panics with it");
        desk.shut = shut;
        if shut {
            for stream in desk.streams.drain(..) {
                // It may have ended already.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Bytes that have passed so far, the learner's and the leader's.
    pub fn passed(&self) -> [u64; 2] {
        self.shared.desk.lock().expect("nobody panics with it").passed
    }
}

impl Drop for Scalpel {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.shut(true);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn connect(learner: TcpStream, target: u16, shared: &Arc<Shared>) {
    if shared.desk.lock().expect("nobody panics with it").shut {
        return;
    }
    // The leader opens its port when it leads; until then the learner sees a connection that ends.
    let Ok(leader) = TcpStream::connect(("127.0.0.1", target)) else { return };
    for stream in [&learner, &leader] {
        stream.set_nodelay(true).expect("a socket option");
    }
    let copies = [&learner, &leader].map(|stream| stream.try_clone().expect("a second handle"));
    let mut desk = shared.desk.lock().expect("nobody panics with it");
    (desk.streams, desk.passed_now) = (copies.into(), [0; 2]);
    drop(desk);
    for (side, from, to) in [(Side::Learner, &learner, &leader), (Side::Leader, &leader, &learner)] {
        let (from, to) = (from.try_clone().expect("a second handle"), to.try_clone().expect("a second handle"));
        let shared = shared.clone();
        std::thread::spawn(move || copy(side, from, to, &shared));
    }
}

fn copy(side: Side, mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut bytes = [0; 16384];
    'copying: while let Ok(count @ 1..) = from.read(&mut bytes) {
        let mut rest = &bytes[..count];
        let mut desk = shared.desk.lock().expect("nobody panics with it");
        desk.passed[side as usize] += count as u64;
        let before = desk.passed_now[side as usize];
        desk.passed_now[side as usize] += count as u64;
        let mut due = None;
        if !desk.done
            && let Some(order) = &mut desk.order
            && order.side == side
        {
            if (rest.len() as u64) > order.after {
                due = Some((order.after as usize, order.cut));
                desk.place = before + order.after;
                desk.done = true;
                desk.order = None;
            } else {
                order.after -= rest.len() as u64;
            }
        }
        drop(desk);
        if let Some((at, cut)) = due {
            let (before, after) = rest.split_at(at);
            if to.write_all(before).is_err() {
                break;
            }
            rest = after;
            match cut {
                Cut::Close => break,
                Cut::Stall(time) => {
                    pause(time);
                    break 'copying;
                }
                Cut::Pause(time) => pause(time),
            }
        }
        if to.write_all(rest).is_err() {
            break;
        }
    }
    // Either may have ended already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// How long a thing took, for the reports of the tests.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = clock::now();
    let result = work();
    (result, clock::now().since(begin))
}
