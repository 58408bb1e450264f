//! Host names of peers, resolved anew at each connect: addresses move, and what was true at the start may not be.
//!
//! A literal address is answered at once; a name is looked up on the helper's thread, since that may take seconds.
//!
//! Runs on: the pipeline asks and collects, the helper looks up.

use crate::hosts;
use crate::server::helper::HelperMail;
use crate::server::shared::Shared;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

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
    helper: HelperMail,
    shared: Arc<Shared>,
}

/// One look-up, for the helper.
pub struct LookUp {
    question: Question,
    host: String,
    port: u16,
    answers: Arc<Answers>,
    shared: Arc<Shared>,
}

impl LookUp {
    pub fn run(self) {
        let answer = hosts::look_up(&self.host, self.port).map_err(|error| format!("{}: {error}", self.host));
        self.answers.0.lock().push_back((self.question, answer));
        self.shared.pipeline_bell.ring();
    }
}

impl Resolver {
    pub fn new(helper: HelperMail, shared: Arc<Shared>) -> Resolver {
        Resolver { answers: Arc::default(), helper, shared }
    }

    /// The answer comes out of `collect`, at once if the host is an address.
    pub fn ask(&self, question: Question, host: &str, port: u16) {
        match host.parse::<IpAddr>() {
            Ok(address) => {
                self.answers.0.lock().push_back((question, Ok(vec![SocketAddr::new(address, port)])));
            }
            Err(_) => self.helper.look_up(LookUp {
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
