//! Takes replies apart and writes them down so that two servers' can be compared.
//!
//! The text has every byte of the frame in it, in a form that tells null from empty, except what may differ:
//!
//! - times: 0 stays 0, others become `t`. (That a server's times agree among themselves is checked by `Side`.)
//! - session ids become `s0`, `s1` by order of opening, passwords only their length.
//! - lists whose order ZooKeeper leaves open are sorted: children, ephemerals, whoAmI.
//!
//! A frame that doesn't decode, or has bytes left, is written as it came.

use crate::script::op;
use crate::support::jute::{Acl, Reader, Stat, show, show_opt};

/// A string or a buffer; `None` is null.
type Bytes = Option<Vec<u8>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    Path(Bytes),
    Stat(Stat),
    PathStat(Bytes, Stat),
    Data(Bytes, Stat),
    Acls(Option<Vec<Acl>>, Stat),
    Children(Option<Vec<Bytes>>, Option<Stat>),
    Int(i32),
    Token(Bytes),
    Ids(Vec<(Bytes, Bytes)>),
    Results(Vec<(i32, i32, Body)>),
    /// Not what this reply should be.
    Raw(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub xid: i32,
    pub zxid: i64,
    pub err: i32,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub zxid: i64,
    pub kind: i32,
    pub path: Option<Vec<u8>>,
    pub text: String,
}

pub struct Header {
    pub xid: i32,
    pub zxid: i64,
    pub err: i32,
}

pub fn header(frame: &[u8]) -> Option<Header> {
    let mut reader = Reader(frame);
    Some(Header { xid: reader.int()?, zxid: reader.long()?, err: reader.int()? })
}

pub fn event(frame: &[u8]) -> Option<Event> {
    let header = header(frame)?;
    let mut reader = Reader(&frame[16..]);
    let (kind, state, path) = (reader.int()?, reader.int()?, reader.bytes()?);
    let text = format!(
        "event zxid {} err {} type {kind} state {state} path {}{}",
        header.zxid,
        header.err,
        show_opt(path.as_deref()),
        if reader.is_empty() { String::new() } else { format!(" and {}", show(reader.0)) },
    );
    Some(Event { zxid: header.zxid, kind, path, text })
}

/// Decodes the reply to a request of this opcode. `None` if there isn't even a header.
pub fn reply(op: i32, frame: &[u8]) -> Option<Reply> {
    let header = header(frame)?;
    let rest = &frame[16..];
    let mut reader = Reader(rest);
    let body = if rest.is_empty() { Some(Body::None) } else { body(op, &mut reader) };
    let body = match body {
        Some(body) if reader.is_empty() || rest.is_empty() => body,
        _ => Body::Raw(rest.to_vec()),
    };
    Some(Reply { xid: header.xid, zxid: header.zxid, err: header.err, body })
}

fn body(op: i32, reader: &mut Reader) -> Option<Body> {
    Some(match op {
        op::CREATE | op::SYNC => Body::Path(reader.bytes()?),
        op::CREATE2 | op::CREATE_CONTAINER | op::CREATE_TTL => Body::PathStat(reader.bytes()?, reader.stat()?),
        op::EXISTS | op::SET_DATA | op::SET_ACL => Body::Stat(reader.stat()?),
        op::GET_DATA | op::RECONFIG => Body::Data(reader.bytes()?, reader.stat()?),
        op::GET_ACL => Body::Acls(reader.list(Reader::acl)?, reader.stat()?),
        op::GET_CHILDREN | op::GET_EPHEMERALS => Body::Children(reader.list(Reader::bytes)?, None),
        op::GET_CHILDREN2 => Body::Children(reader.list(Reader::bytes)?, Some(reader.stat()?)),
        op::GET_ALL_CHILDREN_NUMBER | op::ADD_WATCH => Body::Int(reader.int()?),
        op::SASL => Body::Token(reader.bytes()?),
        op::WHO_AM_I => Body::Ids(reader.list(|one| Some((one.bytes()?, one.bytes()?)))??),
        op::MULTI | op::MULTI_READ => Body::Results(results(reader)?),
        _ => return None,
    })
}

fn results(reader: &mut Reader) -> Option<Vec<(i32, i32, Body)>> {
    let mut results = Vec::new();
    loop {
        let (kind, done, err) = (reader.int()?, reader.byte()?, reader.int()?);
        if done != 0 {
            return (kind == -1 && err == -1).then_some(results);
        }
        let body = match kind {
            -1 => Body::Int(reader.int()?),
            op::DELETE | op::CHECK => Body::None,
            op::CREATE | op::CREATE2 | op::SET_DATA | op::GET_DATA | op::GET_CHILDREN => body(kind, reader)?,
            _ => return None,
        };
        results.push((kind, err, body));
    }
}

/// Names sessions by the order in which they were opened.
pub struct Names<'a>(pub &'a [i64]);

impl Names<'_> {
    pub fn session(&self, id: i64) -> String {
        match self.0.iter().position(|known| *known == id) {
            _ if id == 0 => "0".into(),
            Some(index) => format!("s{index}"),
            None => format!("unknown {id:#x}"),
        }
    }

    fn stat(&self, stat: &Stat) -> String {
        let time = |time: i64| if time == 0 { "0" } else { "t" };
        format!(
            "stat(c {} m {} ct {} mt {} v {} cv {} av {} owner {} len {} children {} p {})",
            stat.czxid,
            stat.mzxid,
            time(stat.ctime),
            time(stat.mtime),
            stat.version,
            stat.cversion,
            stat.aversion,
            self.session(stat.owner),
            stat.length,
            stat.children,
            stat.pzxid
        )
    }

    fn body(&self, body: &Body) -> String {
        match body {
            Body::None => String::new(),
            Body::Path(path) => format!("path {}", show_opt(path.as_deref())),
            Body::Stat(stat) => self.stat(stat),
            Body::PathStat(path, stat) => format!("path {} {}", show_opt(path.as_deref()), self.stat(stat)),
            Body::Data(data, stat) => format!("data {} {}", show_opt(data.as_deref()), self.stat(stat)),
            Body::Acls(acls, stat) => {
                let acls = acls.as_ref().map(|acls| {
                    // What `auth` stands for is a set: several ids of one client come in any order.
                    let mut acls = acls.clone();
                    for run in acls.chunk_by_mut(|a, b| (a.perms, &a.scheme) == (b.perms, &b.scheme)) {
                        run.sort_by(|a, b| a.id.cmp(&b.id));
                    }
                    let one = |acl: &Acl| {
                        format!("{:o} {}:{}", acl.perms, show_opt(acl.scheme.as_deref()), show_opt(acl.id.as_deref()))
                    };
                    acls.iter().map(one).collect::<Vec<_>>()
                });
                format!("acls {acls:?} {}", self.stat(stat))
            }
            Body::Children(names, stat) => {
                let names = names.as_ref().map(|names| {
                    let mut names: Vec<_> = names.iter().map(|name| show_opt(name.as_deref())).collect();
                    names.sort();
                    names.join(" ")
                });
                let stat = stat.as_ref().map(|stat| self.stat(stat));
                format!("names [{}] {}", names.unwrap_or("null".into()), stat.unwrap_or_default())
            }
            Body::Int(int) => format!("int {int}"),
            Body::Token(token) => format!("token {}", show_opt(token.as_deref())),
            Body::Ids(ids) => {
                let one = |(scheme, id): &(Option<Vec<u8>>, Option<Vec<u8>>)| {
                    format!("{}:{}", show_opt(scheme.as_deref()), show_opt(id.as_deref()))
                };
                let mut ids: Vec<_> = ids.iter().map(one).collect();
                ids.sort();
                format!("ids {}", ids.join(" "))
            }
            Body::Results(results) => {
                let one = |(kind, err, body): &(i32, i32, Body)| format!("{kind}/{err} {}", self.body(body));
                format!("results [{}]", results.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            Body::Raw(bytes) => format!("RAW {}", show(bytes)),
        }
    }

    pub fn reply(&self, reply: &Reply) -> String {
        format!("reply xid {} zxid {} err {} {}", reply.xid, reply.zxid, reply.err, self.body(&reply.body))
    }
}

/// Every Stat in a reply.
pub fn stats(body: &Body, found: &mut Vec<Stat>) {
    match body {
        Body::Stat(stat)
        | Body::PathStat(_, stat)
        | Body::Data(_, stat)
        | Body::Acls(_, stat)
        | Body::Children(_, Some(stat)) => found.push(*stat),
        Body::Results(results) => results.iter().for_each(|(_, _, body)| stats(body, found)),
        _ => {}
    }
}
