//! The words of a script: what the generator (or a scenario) says, and what a `Side` does.
//!
//! A script is played against two servers, step by step. Nothing in it belongs to one of them: sessions are named by
//! the order in which they were opened, connections by slot.

use crate::support::jute::{Writer, show};

/// Opcodes, by ZooKeeper's names.
pub mod op {
    pub const CREATE: i32 = 1;
    pub const DELETE: i32 = 2;
    pub const EXISTS: i32 = 3;
    pub const GET_DATA: i32 = 4;
    pub const SET_DATA: i32 = 5;
    pub const GET_ACL: i32 = 6;
    pub const SET_ACL: i32 = 7;
    pub const GET_CHILDREN: i32 = 8;
    pub const SYNC: i32 = 9;
    pub const PING: i32 = 11;
    pub const GET_CHILDREN2: i32 = 12;
    pub const CHECK: i32 = 13;
    pub const MULTI: i32 = 14;
    pub const CREATE2: i32 = 15;
    pub const RECONFIG: i32 = 16;
    pub const CHECK_WATCHES: i32 = 17;
    pub const REMOVE_WATCHES: i32 = 18;
    pub const CREATE_CONTAINER: i32 = 19;
    pub const DELETE_CONTAINER: i32 = 20;
    pub const CREATE_TTL: i32 = 21;
    pub const MULTI_READ: i32 = 22;
    pub const AUTH: i32 = 100;
    pub const SET_WATCHES: i32 = 101;
    pub const SASL: i32 = 102;
    pub const GET_EPHEMERALS: i32 = 103;
    pub const GET_ALL_CHILDREN_NUMBER: i32 = 104;
    pub const SET_WATCHES2: i32 = 105;
    pub const ADD_WATCH: i32 = 106;
    pub const WHO_AM_I: i32 = 107;
    pub const CREATE_SESSION: i32 = -10;
    pub const CLOSE: i32 = -11;

    pub const EVERY: [i32; 29] = [
        CREATE,
        DELETE,
        EXISTS,
        GET_DATA,
        SET_DATA,
        GET_ACL,
        SET_ACL,
        GET_CHILDREN,
        SYNC,
        PING,
        GET_CHILDREN2,
        CHECK,
        MULTI,
        CREATE2,
        RECONFIG,
        CHECK_WATCHES,
        REMOVE_WATCHES,
        CREATE_CONTAINER,
        CREATE_TTL,
        MULTI_READ,
        AUTH,
        SET_WATCHES,
        SASL,
        GET_EPHEMERALS,
        GET_ALL_CHILDREN_NUMBER,
        SET_WATCHES2,
        ADD_WATCH,
        WHO_AM_I,
        CLOSE,
    ];

    pub fn name(op: i32) -> &'static str {
        match op {
            CREATE => "create",
            DELETE => "delete",
            EXISTS => "exists",
            GET_DATA => "getData",
            SET_DATA => "setData",
            GET_ACL => "getACL",
            SET_ACL => "setACL",
            GET_CHILDREN => "getChildren",
            SYNC => "sync",
            PING => "ping",
            GET_CHILDREN2 => "getChildren2",
            CHECK => "check",
            MULTI => "multi",
            CREATE2 => "create2",
            RECONFIG => "reconfig",
            CHECK_WATCHES => "checkWatches",
            REMOVE_WATCHES => "removeWatches",
            CREATE_CONTAINER => "createContainer",
            DELETE_CONTAINER => "deleteContainer",
            CREATE_TTL => "createTTL",
            MULTI_READ => "multiRead",
            AUTH => "auth",
            SET_WATCHES => "setWatches",
            SASL => "sasl",
            GET_EPHEMERALS => "getEphemerals",
            GET_ALL_CHILDREN_NUMBER => "getAllChildrenNumber",
            SET_WATCHES2 => "setWatches2",
            ADD_WATCH => "addWatch",
            WHO_AM_I => "whoAmI",
            CREATE_SESSION => "createSession",
            CLOSE => "closeSession",
            _ => "unknown",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Request {
    pub xid: i32,
    pub op: i32,
    pub body: Vec<u8>,
    /// What it means, for a person.
    pub note: String,
    /// Served by the connection itself, so that its reply may overtake earlier ones. Its xid is like no other.
    pub out_of_band: bool,
}

impl Request {
    pub fn new(xid: i32, op: i32, body: Writer, note: String) -> Request {
        Request { xid, op, body: body.0, note, out_of_band: op == op::AUTH || op == op::SASL }
    }
    pub fn payload(&self) -> Vec<u8> {
        Writer::new().int(self.xid).int(self.op).raw(&self.body).0
    }
    pub fn describe(&self) -> String {
        format!("xid {} {} {} body {}", self.xid, op::name(self.op), self.note, show(&self.body))
    }
}

/// Which session a ConnectRequest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    New,
    /// The n-th session opened in this run.
    Opened(usize),
    /// An id that no server gave out.
    Unknown(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    Right,
    Wrong,
    These(Option<Vec<u8>>),
}

#[derive(Clone, Debug)]
pub struct Hello {
    pub version: i32,
    pub last_zxid: i64,
    pub timeout: i32,
    pub wanted: Wanted,
    pub password: Password,
    pub read_only: Option<u8>,
    /// Bytes after the last field.
    pub tail: Vec<u8>,
}

impl Hello {
    pub fn new(timeout: i32) -> Hello {
        Hello {
            version: 0,
            last_zxid: 0,
            timeout,
            wanted: Wanted::New,
            password: Password::These(Some(vec![0; 16])),
            read_only: Some(0),
            tail: Vec::new(),
        }
    }
    pub fn again(session: usize, timeout: i32, last_zxid: i64) -> Hello {
        Hello { wanted: Wanted::Opened(session), password: Password::Right, last_zxid, ..Hello::new(timeout) }
    }
}

/// What the server does with the connection after this step, as the script's author expects it. A server that does
/// otherwise differs from its peer, and is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Open,
    Closed,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// A new connection in an empty slot, with requests behind the ConnectRequest in the same segment.
    Connect { slot: usize, hello: Hello, behind: Vec<Request>, after: After },
    /// Requests in one segment.
    Send { slot: usize, requests: Vec<Request>, after: After },
    /// Bytes that are not requests; the server closes the connection.
    Garbage { slot: usize, bytes: Vec<u8> },
    /// Bytes on a connection of their own, which the server answers or not and then closes.
    Stranger { bytes: Vec<u8> },
    /// The client's end goes away without a word.
    Drop { slot: usize },
    /// Waits until the server closes the connection, as at expiry.
    AwaitClose { slot: usize },
    /// Waits for so many events on one connection; for what servers do by themselves.
    AwaitEvents { slot: usize, count: usize },
}

impl Step {
    pub fn describe(&self) -> String {
        let list = |requests: &[Request]| -> String {
            requests.iter().map(|request| format!("\n      {}", request.describe())).collect()
        };
        match self {
            Step::Connect { slot, hello, behind, after } => {
                format!("slot {slot}: connect {hello:?}, then {after:?}{}", list(behind))
            }
            Step::Send { slot, requests, after } => {
                format!("slot {slot}: send, then {after:?}{}", list(requests))
            }
            Step::Garbage { slot, bytes } => format!("slot {slot}: garbage {}", show(bytes)),
            Step::Stranger { bytes } => format!("a stranger: {}", show(bytes)),
            Step::Drop { slot } => format!("slot {slot}: connection dropped"),
            Step::AwaitClose { slot } => format!("slot {slot}: wait for the server to close"),
            Step::AwaitEvents { slot, count } => format!("slot {slot}: wait for {count} events"),
        }
    }
}
