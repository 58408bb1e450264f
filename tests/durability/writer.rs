//! One client that keeps several writes in flight and remembers what it asked and what it was told.
//!
//! Every write carries its index among this writer's writes, so that what survives tells which ones happened.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::conn::{Conn, Next, PATIENCE, request};
use crate::support::jute::{Acl, Reader, Writer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A node with a sequence number.
    Sequential,
    /// setData of the counter.
    Counter,
    /// A node and the counter at once.
    Multi,
    /// A create that fails: it takes a zxid all the same.
    Failing,
    Ephemeral,
}

pub struct Ack {
    pub zxid: i64,
    /// The name that the server chose.
    pub path: Option<String>,
}

#[derive(Default)]
pub struct Record {
    pub sent: Vec<Asked>,
    /// As many as were answered; they are the first of `sent`, in order.
    pub acked: Vec<Ack>,
}

/// Index of the request that makes the ephemeral.
pub const EPHEMERAL: usize = 1;

pub fn base(round: u64, writer: usize) -> String {
    format!("/r{round}-w{writer}")
}

pub fn ephemeral(round: u64, writer: usize) -> String {
    format!("/e{round}-w{writer}")
}

/// Writes until the connection ends or so many have been answered.
pub fn write(mut conn: Conn, round: u64, writer: usize, depth: usize, limit: u64, acks: &AtomicU64) -> Record {
    let mut record = Record::default();
    loop {
        let mut bytes = Vec::new();
        while record.sent.len() < record.acked.len() + depth && (record.sent.len() as u64) < limit {
            let (asked, frame) = ask(record.sent.len(), round, writer);
            record.sent.push(asked);
            bytes.extend_from_slice(&frame);
        }
        if record.acked.len() as u64 == limit {
            return record;
        }
        // A connection that broke still holds replies to read.
        let _ = conn.send(&bytes);
        // At least half of what is in flight before the next are sent: several in one segment.
        let wanted = record.acked.len() + depth.div_ceil(2);
        while record.acked.len() < wanted.min(record.sent.len()) {
            let Next::Frame(frame) = conn.next(PATIENCE) else { return record };
            let index = record.acked.len();
            record.acked.push(acknowledged(&frame, index, record.sent[index]));
            acks.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn ask(index: usize, round: u64, writer: usize) -> (Asked, Vec<u8>) {
    let base = base(round, writer);
    let text = index.to_string();
    let create = |path: &str, flags: i32| Writer::new().text(path).text(&text).acls(Some(&Acl::open())).int(flags);
    let counter = format!("{base}/counter");
    let (asked, op, body) = match index {
        0 => (Asked::Counter, 1, create(&counter, 0)),
        EPHEMERAL => (Asked::Ephemeral, 1, create(&ephemeral(round, writer), 1)),
        _ => match index % 5 {
            0 => (Asked::Counter, 5, Writer::new().text(&counter).text(&text).int(-1)),
            1 => {
                let node = create(&format!("{base}/m{index}"), 0);
                let set = Writer::new().text(&counter).text(&text).int(-1);
                let body = Writer::new().int(1).byte(0).int(-1).raw(&node.0).int(5).byte(0).int(-1).raw(&set.0);
                (Asked::Multi, 14, body.int(-1).byte(1).int(-1))
            }
            2 => (Asked::Failing, 1, create(&counter, 0)),
            _ => (Asked::Sequential, 1, create(&format!("{base}/s-"), 2)),
        },
    };
    (asked, request(index as i32 + 1, op, body))
}

fn acknowledged(frame: &[u8], index: usize, asked: Asked) -> Ack {
    let mut reader = Reader(frame);
    let (Some(xid), Some(zxid), Some(err)) = (reader.int(), reader.long(), reader.int()) else {
        panic!("a reply of {} bytes", frame.len())
    };
    assert_eq!(xid, index as i32 + 1, "replies in order of requests");
    assert_eq!(err, if asked == Asked::Failing { -110 } else { 0 }, "request {index}, {asked:?}");
    let path = match asked {
        Asked::Sequential => reader.bytes().flatten().and_then(|path| String::from_utf8(path).ok()),
        _ => None,
    };
    Ack { zxid, path }
}
