//! What a tree of znodes should do with requests: written from the protocol's rules and not from the server's code.
//!
//! A map from path to znode, the sessions that live, and one function that takes a request at its zxid and gives the error
//! and the bytes of the answer. Only what the simulator's clients use.

use crate::clients::Op;
use ostler::ids::{SessionId, Zxid};
use ostler::wire::multi;
use ostler::wire::writer::Jute;
use ostler::wire::{ErrorCode, OpCode, Stat};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Znode {
    pub data: Vec<u8>,
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub pzxid: Zxid,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    /// Children that were ever created.
    pub created: i32,
    pub owner: i64,
    pub children: BTreeSet<String>,
}

impl Znode {
    pub fn stat(&self) -> Stat {
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: 2 * self.created - self.children.len() as i32,
            aversion: 0,
            ephemeral_owner: self.owner,
            data_length: self.data.len() as i32,
            num_children: self.children.len() as i32,
            pzxid: self.pzxid,
        }
    }
}

#[derive(Clone, Copy)]
struct At {
    session: SessionId,
    zxid: Zxid,
    time: i64,
}

#[derive(Clone)]
pub struct Model {
    pub nodes: BTreeMap<String, Znode>,
    pub sessions: BTreeSet<SessionId>,
}

impl Model {
    pub fn new() -> Model {
        let mut root = Znode::default();
        root.children.insert("zookeeper".into());
        Model { nodes: BTreeMap::from([("/".into(), root)]), sessions: BTreeSet::new() }
    }

    pub fn create_session(&mut self, session: SessionId) {
        self.sessions.insert(session);
    }

    pub fn close_session(&mut self, session: SessionId, zxid: Zxid) {
        self.sessions.remove(&session);
        let owned: Vec<String> =
            self.nodes.iter().filter(|(_, node)| node.owner == session.0).map(|(path, _)| path.clone()).collect();
        for path in owned {
            self.remove(&path, zxid);
        }
    }

    /// A request at its place in the order: the error, and the body of the answer.
    pub fn apply(&mut self, op: &Op, session: SessionId, zxid: Zxid, time: i64) -> (ErrorCode, Vec<u8>) {
        let at = At { session, zxid, time };
        let lives = self.sessions.contains(&session);
        let mut body = Vec::new();
        if let Op::Multi(ops) = op {
            let before = self.clone();
            let mut results = Vec::new();
            let mut failed = None;
            for (index, op) in ops.iter().enumerate() {
                let mut bytes = Vec::new();
                let result = if lives { self.one(op, at, &mut bytes) } else { Err(ErrorCode::SESSION_EXPIRED) };
                match result {
                    Ok(()) => results.push((op.code(), bytes)),
                    Err(code) => {
                        failed = Some((index, code));
                        break;
                    }
                }
            }
            if let Some((index, code)) = failed {
                *self = before;
                for at in 0..ops.len() {
                    let code = match at.cmp(&index) {
                        std::cmp::Ordering::Less => ErrorCode::OK,
                        std::cmp::Ordering::Equal => code,
                        std::cmp::Ordering::Greater => ErrorCode::RUNTIME_INCONSISTENCY,
                    };
                    multi::write_error(&mut body, code);
                }
            } else {
                for (op, bytes) in results {
                    multi::write_header(&mut body, op.to_wire(), false, 0);
                    body.extend_from_slice(&bytes);
                }
            }
            multi::write_end(&mut body);
            return (ErrorCode::OK, body);
        }
        if !lives {
            return (ErrorCode::SESSION_EXPIRED, Vec::new());
        }
        match self.one(op, at, &mut body) {
            Ok(()) => (ErrorCode::OK, body),
            Err(code) => (code, Vec::new()),
        }
    }

    fn one(&mut self, op: &Op, at: At, body: &mut Vec<u8>) -> Result<(), ErrorCode> {
        match op {
            Op::Create { path, data, ephemeral, sequential } => {
                let parent = self.nodes.get_mut("/").expect("everything is below the root");
                let path = if *sequential { format!("{path}{:010}", parent.created) } else { path.clone() };
                let name = path[1..].to_owned();
                if parent.children.contains(&name) {
                    return Err(ErrorCode::NODE_EXISTS);
                }
                parent.children.insert(name);
                parent.created += 1;
                parent.pzxid = at.zxid;
                let node = Znode {
                    data: data.as_bytes().to_vec(),
                    czxid: at.zxid,
                    mzxid: at.zxid,
                    pzxid: at.zxid,
                    ctime: at.time,
                    mtime: at.time,
                    owner: if *ephemeral { at.session.0 } else { 0 },
                    ..Znode::default()
                };
                body.put_text(&path);
                node.stat().write(body);
                self.nodes.insert(path, node);
            }
            Op::Set { path, data, version } => {
                self.check(path, *version)?;
                let node = self.nodes.get_mut(path).expect("just looked");
                node.data = data.as_bytes().to_vec();
                node.version += 1;
                (node.mzxid, node.mtime) = (at.zxid, at.time);
                node.stat().write(body);
            }
            Op::Delete { path, version } => {
                self.check(path, *version)?;
                self.remove(path, at.zxid);
            }
            Op::Check { path, version } => self.check(path, *version)?,
            _ => unreachable!("no write: {op:?}"),
        }
        Ok(())
    }

    fn check(&self, path: &str, version: i32) -> Result<(), ErrorCode> {
        let node = self.nodes.get(path).ok_or(ErrorCode::NO_NODE)?;
        if version == -1 || node.version == version { Ok(()) } else { Err(ErrorCode::BAD_VERSION) }
    }

    fn remove(&mut self, path: &str, zxid: Zxid) {
        self.nodes.remove(path);
        let root = self.nodes.get_mut("/").expect("everything is below the root");
        root.children.remove(&path[1..]);
        root.pzxid = zxid;
    }

    /// The answer to a read. Children are compared by the caller, since their order is the server's own.
    pub fn read(&self, op: &Op) -> (ErrorCode, Vec<u8>) {
        let mut body = Vec::new();
        let path = match op {
            Op::Get(path) | Op::Exists(path) | Op::Children(path) => path,
            _ => unreachable!("no read: {op:?}"),
        };
        let Some(node) = self.nodes.get(path) else { return (ErrorCode::NO_NODE, body) };
        match op {
            Op::Get(_) => body.put_buffer(Some(&node.data)),
            Op::Children(_) => {
                body.put_int(node.children.len() as i32);
                node.children.iter().for_each(|name| body.put_text(name));
            }
            _ => {}
        }
        node.stat().write(&mut body);
        (ErrorCode::OK, body)
    }
}

/// An answer to getChildren2 with the names in order.
pub fn sort_children(op: OpCode, body: &[u8]) -> Vec<u8> {
    if op != OpCode::GetChildren2 || body.is_empty() {
        return body.to_vec();
    }
    let mut reader = ostler::wire::Reader::new(body);
    let names = reader.texts("children").expect("a list").expect("not null");
    let mut names: Vec<String> = names.into_iter().map(|name| name.expect("a name").into_owned()).collect();
    names.sort_unstable();
    let mut sorted = Vec::new();
    sorted.put_int(names.len() as i32);
    names.iter().for_each(|name| sorted.put_text(name));
    sorted.extend_from_slice(reader.rest());
    sorted
}
