//! Host names of peers, resolved anew at each connect: addresses move, and what was true at the start may not be.
//!
//! A literal address is answered at once. A name is looked up on a thread of its own, since that may take seconds, and
//! nobody else may wait for it: not the log for its next segment, nor the server's end. The thread begins with the first
//! name, and ends when nobody can ask it any more.
//!
//! Runs on: the pipeline asks and collects, the thread looks up.

use crate::hosts;
use crate::server::shared::Shared;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

/// Whose address was asked for; the number is the asker's.
pub type Question = u64;

/// All addresses of a host, or why there are none.
pub type Answer = Result<Vec<SocketAddr>, String>;

/// The answers that wait to be collected. At most one for each question asked.
#[derive(Default)]
pub struct Answers(Mutex<VecDeque<(Question, Answer)>>);

#[derive(Clone)]
pub struct Resolver {
    answers: Arc<Answers>,
    names: Arc<Names>,
    shared: Arc<Shared>,
}

/// The thread that looks up, once there is one. At most one question waits there for each connection that is being made.
#[derive(Default)]
pub struct Names(Mutex<Option<Sender<LookUp>>>);

impl Names {
    fn look_up(&self, look_up: LookUp) {
        let mut thread = self.0.lock();
        if thread.is_none() {
            let (sender, questions) = channel::<LookUp>();
            let builder = std::thread::Builder::new().name("resolver".into());
            if let Err(error) = builder.spawn(move || questions.into_iter().for_each(LookUp::run)) {
                return look_up.answer(Err(format!("no thread to look it up: {error}")));
            }
            *thread = Some(sender);
        }
        if let Some(sender) = &*thread
            && let Err(unasked) = sender.send(look_up)
        {
            // It has died of a bug. The next question gets a new one.
            *thread = None;
            unasked.0.answer(Err("the thread that looks names up is gone".into()));
        }
    }
}

/// One look-up, for the thread.
struct LookUp {
    question: Question,
    host: String,
    port: u16,
    answers: Arc<Answers>,
    shared: Arc<Shared>,
}

impl LookUp {
    fn run(self) {
        let answer = hosts::look_up(&self.host, self.port).map_err(|error| format!("{}: {error}", self.host));
        self.answer(answer);
    }

    fn answer(self, answer: Answer) {
        self.answers.0.lock().push_back((self.question, answer));
        self.shared.pipeline_bell.ring();
    }
}

impl Resolver {
    /// `names` is one for all of a server's.
    pub fn new(names: Arc<Names>, shared: Arc<Shared>) -> Resolver {
        Resolver { answers: Arc::default(), names, shared }
    }

    /// The answer comes out of `collect`, at once if the host is an address.
    pub fn ask(&self, question: Question, host: &str, port: u16) {
        match host.parse::<IpAddr>() {
            Ok(address) => {
                self.answers.0.lock().push_back((question, Ok(vec![SocketAddr::new(address, port)])));
            }
            Err(_) => self.names.look_up(LookUp {
                question,
                host: host.to_owned(),
                port,
                answers: self.answers.clone(),
                shared: self.shared.clone(),
            }),
        }
    }

    pub fn collect(&self) -> Option<(Question, Answer)> {
        self.answers.0.lock().pop_front()
    }

    pub fn has_answers(&self) -> bool {
        !self.answers.0.lock().is_empty()
    }
}
