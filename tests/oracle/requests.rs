//! Makes requests: good ones, bad ones, and ones that are nearly good.
//!
//! It leaves out what would end or corrupt the Java server, or what that server answers by chance; see the list of
//! allowed differences in `oracle.rs`.

use std::collections::{BTreeMap, BTreeSet};

use ostler::random::Rng;

use crate::script::{Request, op};
use crate::support::jute::{Acl, Reader, Writer, show, show_opt};
use crate::tables::{BAD_ACLS, BAD_PATHS, GOOD_ACLS, NAMES, QUOTA_LIMITS, UNKNOWN};

pub type Path = Vec<u8>;

/// What the generator believes of a node. It may be wrong: other sessions' cleanup isn't followed.
#[derive(Clone, Copy, Default, Debug)]
pub struct Known {
    pub version: i32,
    pub aversion: i32,
}

pub struct Requests {
    pub rng: Rng,
    pub nodes: BTreeMap<Path, Known>,
    pub quotas: BTreeSet<Path>,
    pub zxid: i64,
    /// Whether hard quotas are enforced: then a garbled limit is harmless, otherwise it isn't tried.
    pub enforced: bool,
    pub xid: i32,
}

impl Requests {
    pub fn new(seed: u64, enforced: bool) -> Requests {
        Requests { rng: Rng::new(seed), nodes: BTreeMap::new(), quotas: BTreeSet::new(), zxid: 0, enforced, xid: 0 }
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.rng.below(bound as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    fn existing(&mut self) -> Path {
        if self.nodes.is_empty() {
            return b"/".to_vec();
        }
        let index = self.below(self.nodes.len());
        self.nodes.keys().nth(index).cloned().unwrap_or_default()
    }

    fn child_of(&mut self, parent: &[u8]) -> Path {
        let mut path = if parent == b"/" { Vec::new() } else { parent.to_vec() };
        path.push(b'/');
        path.extend_from_slice(self.pick(&NAMES).as_bytes());
        path
    }

    fn bad_path(&mut self) -> Option<Path> {
        match self.below(40) {
            0 => None,
            _ => Some(self.pick(&BAD_PATHS).to_vec()),
        }
    }

    pub fn path(&mut self) -> Option<Path> {
        loop {
            let path = match self.below(20) {
                0..10 => self.existing(),
                10..15 => {
                    let parent = self.existing();
                    self.child_of(&parent)
                }
                15..18 => {
                    let parent = self.pick(&["/", "/a", "/b", "/a/b"]);
                    self.child_of(parent.as_bytes())
                }
                18 => {
                    let special = ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota", "/missing/x"];
                    self.pick(&special).as_bytes().to_vec()
                }
                _ if self.once_in(2) => return self.bad_path(),
                _ => self.existing(),
            };
            // Deep trees are slow to clean up; quota nodes have their own maker.
            if path.len() < 120 && !path.starts_with(b"/zookeeper/quota/") {
                return Some(path);
            }
        }
    }

    fn version(&mut self, path: &Option<Path>, of_acl: bool) -> i32 {
        let known = path.as_ref().and_then(|path| self.nodes.get(path)).copied().unwrap_or_default();
        match self.below(10) {
            0..4 => -1,
            4..8 => {
                if of_acl {
                    known.aversion
                } else {
                    known.version
                }
            }
            8 => self.below(4) as i32,
            _ => self.pick(&[-2, i32::MIN, i32::MAX, -1, 7]),
        }
    }

    pub fn data(&mut self) -> Option<Vec<u8>> {
        match self.below(30) {
            0..3 => None,
            3..6 => Some(Vec::new()),
            6..27 => {
                let length = 1 + self.below(40);
                Some((0..length).map(|_| self.rng.next() as u8).collect())
            }
            27..29 => Some(vec![self.rng.next() as u8; 700]),
            _ => Some(vec![self.rng.next() as u8; 20_000]),
        }
    }

    pub fn acls(&mut self) -> Option<Vec<Acl>> {
        let list = |list: &[(i32, &str, &str)]| list.iter().map(|(p, s, i)| Acl::new(*p, s, i)).collect::<Vec<_>>();
        match self.below(40) {
            0..24 => Some(Acl::open()),
            24..35 => Some(list(self.pick(&GOOD_ACLS))),
            35..38 => Some(list(self.pick(&BAD_ACLS))),
            38 => None,
            _ => {
                let mut acl = self.pick(&[
                    Acl::new(31, "world", "anyone"),
                    Acl::new(31, "digest", "a:b"),
                    Acl::new(31, "auth", ""),
                    Acl { perms: 31, scheme: Some(b"digest".to_vec()), id: Some("a\u{1f600}:x".into()) },
                ]);
                match self.below(4) {
                    0 => acl.scheme = None,
                    1 => acl.id = None,
                    _ => {}
                }
                Some(vec![acl])
            }
        }
    }

    fn next_xid(&mut self) -> i32 {
        self.xid += 1;
        self.xid
    }

    /// Mostly the next one; sometimes one that no client library would use. Never -1 (events) nor -4 (kept for auth).
    fn any_xid(&mut self) -> i32 {
        match self.below(60) {
            0 => self.pick(&[0, -2, -8, i32::MIN, i32::MAX, -3, 1]),
            _ => self.next_xid(),
        }
    }

    fn make(&mut self, op: i32, body: Writer, note: String) -> Request {
        let xid = self.any_xid();
        Request::new(xid, op, body, note)
    }

    // Bodies, shared by single requests and by the parts of a multi. Each comes with its note.

    fn create_body(&mut self, kind: i32, single: bool) -> (Writer, String) {
        let path = self.path();
        let data = self.data();
        let acls = self.acls();
        let mut flags = match kind {
            op::CREATE_CONTAINER => self.pick(&[4, 4, 4, 4, 0, 2, 1, 3, 9]),
            op::CREATE_TTL => self.pick(&[5, 5, 6, 6, 5, 6, 0, 1, 2, 3, 4, 7]),
            _ => self.pick(&[0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, -1, i32::MAX]),
        };
        if !single && !(0..=6).contains(&flags) && self.once_in(2) {
            flags = 0;
        }
        let body = Writer::new().bytes(path.as_deref()).bytes(data.as_deref()).acls(acls.as_deref()).int(flags);
        let mut note = format!("{} flags {flags} acls {acls:?}", show_opt(path.as_deref()));
        if kind != op::CREATE_TTL {
            return (body, note);
        }
        let mut ttl =
            self.pick(&[86_400_000, 86_400_000, 1i64 << 32, (1 << 40) - 1, 1 << 40, 0, -1, i64::MIN, i64::MAX]);
        if single && !matches!(flags, 5 | 6) && ttl < 0 {
            ttl = 0; // would end the Java server
        }
        if ttl < 3_600_000 && ttl > 0 {
            ttl = 3_600_000; // nothing may be reaped by the clock
        }
        note += &format!(" ttl {ttl}");
        (body.long(ttl), note)
    }

    fn path_and_version(&mut self) -> (Writer, String) {
        let path = self.path();
        let version = self.version(&path, false);
        let body = Writer::new().bytes(path.as_deref()).int(version);
        (body, format!("{} version {version}", show_opt(path.as_deref())))
    }

    fn set_data_body(&mut self) -> (Writer, String) {
        let path = self.path();
        let (data, version) = (self.data(), self.version(&path, false));
        let body = Writer::new().bytes(path.as_deref()).bytes(data.as_deref()).int(version);
        (body, format!("{} version {version}", show_opt(path.as_deref())))
    }

    fn path_and_watch(&mut self) -> (Writer, String) {
        let path = self.path();
        let watch = self.once_in(2);
        let byte = if watch { self.pick(&[1, 1, 1, 7, 255]) } else { 0 };
        (Writer::new().bytes(path.as_deref()).byte(byte), format!("{} watch {watch}", show_opt(path.as_deref())))
    }

    /// One part of a multi or a multiRead: its opcode and body.
    fn part(&mut self, read: bool) -> (i32, Writer, String) {
        let stray = self.once_in(40);
        let (kind, (body, note)) = if stray {
            let kind = self.pick(&[op::MULTI, op::SET_ACL, 99, op::CLOSE, -1, op::GET_ACL, 0]);
            (kind, self.path_and_version())
        } else if read != self.once_in(40) {
            let kind = self.pick(&[op::GET_DATA, op::GET_CHILDREN]);
            (kind, self.path_and_watch())
        } else {
            match self.below(12) {
                0..3 => (op::CREATE, self.create_body(op::CREATE, false)),
                3 => (op::CREATE2, self.create_body(op::CREATE2, false)),
                4 => (op::CREATE_CONTAINER, self.create_body(op::CREATE_CONTAINER, false)),
                5 => (op::CREATE_TTL, self.create_body(op::CREATE_TTL, false)),
                6..8 => (op::DELETE, self.path_and_version()),
                8..10 => (op::SET_DATA, self.set_data_body()),
                _ => (op::CHECK, self.path_and_version()),
            }
        };
        (kind, body, note)
    }

    /// A multi whose parts build on each other, so that it succeeds more often than chance would let it.
    fn plan(&mut self) -> Vec<(i32, Writer, String)> {
        let parent = self.existing();
        let node = self.child_of(&parent);
        let child = self.child_of(&node);
        let create = |path: &[u8], kind: i32, flags: i32| {
            let body = Writer::new().bytes(Some(path)).bytes(Some(b"plan")).acls(Some(&Acl::open())).int(flags);
            (kind, body, format!("{} flags {flags}", show(path)))
        };
        let version = |path: &[u8], kind: i32, version: i32| {
            (kind, Writer::new().bytes(Some(path)).int(version), format!("{} version {version}", show(path)))
        };
        let set = |path: &[u8], version: i32| {
            let body = Writer::new().bytes(Some(path)).bytes(Some(b"set")).int(version);
            (op::SET_DATA, body, format!("{} version {version}", show(path)))
        };
        let mut parts = vec![create(&node, op::CREATE, 0)];
        for _ in 0..self.below(6) {
            parts.push(match self.below(7) {
                0 => create(&child, op::CREATE2, 0),
                1 => create(&child, op::CREATE, 2),
                2 => create(&child, op::CREATE_CONTAINER, 4),
                3 => set(&node, -1),
                4 => version(&node, op::CHECK, 0),
                5 => version(&child, op::DELETE, -1),
                _ => set(&child, 0),
            });
        }
        if self.once_in(3) {
            parts.push(version(&node, op::DELETE, -1));
        }
        parts
    }

    fn multi(&mut self, read: bool) -> Request {
        let count = self.pick(&[0, 1, 1, 2, 2, 3, 3, 4, 6, 12]);
        let parts = if !read && self.once_in(2) { self.plan() } else { (0..count).map(|_| self.part(read)).collect() };
        let (mut body, mut note) = (Writer::new(), String::new());
        for (kind, part, text) in &parts {
            let err = self.pick(&[-1, -1, -1, 0, 5]);
            body = body.int(*kind).byte(0).int(err).raw(&part.0);
            note += &format!("[{} {text}] ", op::name(*kind));
        }
        body = match self.below(60) {
            0 => body,
            1 => body.int(-1).byte(0).int(-1),
            2 => body.int(1).byte(1).int(3),
            3 => body.int(-1).byte(7).int(-1),
            _ => body.int(-1).byte(1).int(-1),
        };
        self.make(if read { op::MULTI_READ } else { op::MULTI }, body, note)
    }

    pub fn set_acl(&mut self) -> Request {
        let mut path = self.path();
        if path.as_deref().is_some_and(|path| path == b"/" || path == b"" || path.starts_with(b"/zookeeper")) {
            path = Some(self.existing());
        }
        let (acls, version) = (self.acls(), self.version(&path, true));
        let body = Writer::new().bytes(path.as_deref()).acls(acls.as_deref()).int(version);
        self.make(op::SET_ACL, body, format!("{} version {version} {acls:?}", show_opt(path.as_deref())))
    }

    /// A request that takes a place in the order of writes.
    pub fn write(&mut self) -> Request {
        let (kind, (body, note)) = match self.below(28) {
            0..5 => (op::CREATE, self.create_body(op::CREATE, true)),
            5..9 => (op::CREATE2, self.create_body(op::CREATE2, true)),
            9..11 => (op::CREATE_CONTAINER, self.create_body(op::CREATE_CONTAINER, true)),
            11..13 => (op::CREATE_TTL, self.create_body(op::CREATE_TTL, true)),
            13..16 => (op::DELETE, self.path_and_version()),
            16..20 => (op::SET_DATA, self.set_data_body()),
            20..22 => return self.set_acl(),
            22 => {
                let joining: Option<&[u8]> = self.pick(&[None, Some(b"server.5=127.0.0.1:1:2;3"), Some(b"")]);
                let leaving: Option<&[u8]> = self.pick(&[None, Some(b"1"), Some(b"x")]);
                let body = Writer::new().bytes(joining).bytes(leaving).bytes(None).long(-1);
                (op::RECONFIG, (body, String::new()))
            }
            _ => return self.multi(false),
        };
        let mut request = self.make(kind, body, note);
        if self.once_in(25) {
            self.garble(&mut request);
        }
        request
    }

    fn paths(&mut self) -> Option<Vec<Path>> {
        if self.once_in(60) {
            return None;
        }
        let count = self.below(4);
        Some((0..count).map(|_| self.path().unwrap_or_default()).collect())
    }

    pub fn read(&mut self) -> Request {
        let (kind, (body, note)) = match self.below(40) {
            0..5 => (op::EXISTS, self.path_and_watch()),
            5..10 => (op::GET_DATA, self.path_and_watch()),
            10..13 => (op::GET_CHILDREN, self.path_and_watch()),
            13..16 => (op::GET_CHILDREN2, self.path_and_watch()),
            16..21 => {
                let kind = self.pick(&[op::GET_ACL, op::GET_ACL, op::SYNC, op::GET_ALL_CHILDREN_NUMBER]);
                let path = self.path();
                (kind, (Writer::new().bytes(path.as_deref()), show_opt(path.as_deref())))
            }
            21 => {
                let mut prefix = self.path();
                if self.once_in(4) {
                    prefix = self.pick(&[None, Some(b" ".to_vec()), Some(b"/".to_vec()), Some(b"/a".to_vec())]);
                }
                (op::GET_EPHEMERALS, (Writer::new().bytes(prefix.as_deref()), show_opt(prefix.as_deref())))
            }
            22 => (op::WHO_AM_I, (Writer::new(), String::new())),
            23 => (op::PING, (Writer::new(), String::new())),
            24..27 => return self.multi(true),
            27..31 => {
                let path = self.path();
                let mode = self.pick(&[0, 0, 0, 1, 1, 1, 1, 2, -1]);
                let body = Writer::new().bytes(path.as_deref()).int(mode);
                (op::ADD_WATCH, (body, format!("{} mode {mode}", show_opt(path.as_deref()))))
            }
            31..35 => {
                let kind = self.pick(&[op::CHECK_WATCHES, op::REMOVE_WATCHES]);
                let path = self.path();
                let which = self.pick(&[1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 0, 6, -1]);
                let body = Writer::new().bytes(path.as_deref()).int(which);
                (kind, (body, format!("{} type {which}", show_opt(path.as_deref()))))
            }
            35..38 => {
                let two = self.once_in(2);
                let zxid = match self.below(4) {
                    0 => self.pick(&[0, -1, i64::MAX, i64::MIN]),
                    1 => self.zxid,
                    _ => self.zxid - self.below(30) as i64,
                };
                let mut body = Writer::new().long(zxid);
                let mut note = format!("relative {zxid}");
                for _ in 0..if two { 5 } else { 3 } {
                    let paths = self.paths();
                    note +=
                        &format!(" {:?}", paths.as_ref().map(|list| list.iter().map(|p| show(p)).collect::<Vec<_>>()));
                    body = body.texts(paths.as_deref());
                }
                (if two { op::SET_WATCHES2 } else { op::SET_WATCHES }, (body, note))
            }
            _ => (op::EXISTS, self.path_and_watch()),
        };
        let mut request = self.make(kind, body, note);
        if kind != op::PING && kind != op::WHO_AM_I && self.once_in(25) {
            self.garble(&mut request);
        }
        request
    }

    /// Spoils a body so that it is one of: cut short, followed by junk, led by a null or an absurd length.
    fn garble(&mut self, request: &mut Request) {
        let body = &mut request.body;
        match self.rng.below(6) {
            0 | 1 => {
                let keep = self.rng.below(body.len() as u64 + 1) as usize;
                // A cut that leaves the record whole in a shorter form is no cut: nothing to avoid there.
                body.truncate(keep);
                request.note += " (cut)";
            }
            2 => {
                body.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
                request.note += " (junk behind)";
            }
            3 if body.len() >= 4 => {
                let length: i32 = if self.rng.below(2) == 0 { -2 } else { i32::MIN };
                body[..4].copy_from_slice(&length.to_be_bytes());
                request.note += " (negative length)";
            }
            4 if body.len() >= 4 => {
                body[..4].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
                request.note += " (huge length)";
            }
            _ => {
                body.clear();
                request.note += " (no body)";
            }
        }
    }

    /// An auth or SASL packet that succeeds.
    pub fn auth(&mut self, super_user: bool) -> Request {
        if !super_user && self.once_in(8) {
            let token: &[u8] = self.pick(&[b"" as &[u8], b"token"]);
            let xid = self.next_xid();
            return Request::new(xid, op::SASL, Writer::new().bytes(Some(token)), show(token));
        }
        let texts: [(&str, &[u8]); 9] = [
            ("digest", b"u:p"),
            ("digest", b"u:p"),
            ("digest", b"bob:pw"),
            ("digest", b"a:b:c"),
            ("digest", b"nocolon"),
            ("digest", b""),
            ("digest", b"\xff\xfe:x"),
            ("ip", b"1.2.3.4"),
            ("ip", b""),
        ];
        let (scheme, text) = if super_user { ("digest", b"super:secret" as &[u8]) } else { self.pick(&texts) };
        let kind = self.pick(&[0, 0, 100, -1]);
        let xid = if self.once_in(2) { -4 } else { self.next_xid() };
        let body = Writer::new().int(kind).text(scheme).bytes(Some(text));
        Request::new(xid, op::AUTH, body, format!("{scheme} {}", show(text)))
    }

    /// A request after which the server closes the connection. To be sent alone.
    pub fn fatal(&mut self) -> Request {
        let xid = self.next_xid();
        let (kind, body) = match self.below(9) {
            0..4 => {
                let kind = self.pick(&UNKNOWN);
                (kind, if self.once_in(2) { Writer::new() } else { Writer::new().text("/a").int(-1) })
            }
            4 => (op::AUTH, Writer::new().int(0).text("nothing").bytes(Some(b"x"))),
            5 => (op::AUTH, Writer::new().int(0).text("digest").bytes(None)),
            6 => (op::AUTH, Writer::new().int(0).text(self.pick(&["world", "sasl", "super", ""])).bytes(Some(b"x"))),
            7 => (op::AUTH, Writer::new().int(0).int(77)),
            _ => (op::SASL, Writer::new().int(-1)),
        };
        Request::new(xid, kind, body, "fatal".into())
    }

    /// Something with a quota: its nodes are made as zkCli makes them.
    pub fn quota(&mut self) -> Request {
        let on = self.pick(&["/a", "/b", "/a/b", "/q"]);
        let base = format!("/zookeeper/quota{on}");
        let leaf = self.pick(&["", "", "/zookeeper_limits", "/zookeeper_limits", "/zookeeper_stats"]);
        let path = format!("{base}{leaf}").into_bytes();
        let text = match leaf {
            "/zookeeper_limits" if self.enforced && self.once_in(8) => "garbage",
            "/zookeeper_limits" => self.pick(&QUOTA_LIMITS),
            "/zookeeper_stats" => "count=0,bytes=0",
            _ => "",
        };
        let xid = self.next_xid();
        let note = format!("{} {text}", show(&path));
        let (kind, body) = match self.below(8) {
            0..4 => {
                let body = Writer::new().bytes(Some(&path)).text(text).acls(Some(&Acl::open())).int(0);
                (op::CREATE, body)
            }
            4 if leaf == "/zookeeper_limits" => (op::SET_DATA, Writer::new().bytes(Some(&path)).text(text).int(-1)),
            5 => (op::DELETE, Writer::new().bytes(Some(&path)).int(-1)),
            _ => (op::GET_DATA, Writer::new().bytes(Some(&path)).byte(1)),
        };
        Request::new(xid, kind, body, note)
    }

    /// Everything that a quota on a node needs, as zkCli's setquota sends it; and something to count.
    pub fn whole_quota(&mut self) -> Vec<Request> {
        let on = self.pick(&["/a", "/b", "/a/b"]);
        let limit = self.pick(&QUOTA_LIMITS);
        let mut nodes = vec![("/a".to_string(), "")];
        nodes.extend([
            (on.to_string(), "some"),
            ("/zookeeper/quota/a".into(), ""),
            (format!("/zookeeper/quota{on}"), ""),
        ]);
        nodes.push((format!("/zookeeper/quota{on}/zookeeper_limits"), limit));
        nodes.push((format!("/zookeeper/quota{on}/zookeeper_stats"), "count=0,bytes=0"));
        for name in ["c", "d", "e"] {
            nodes.push((format!("{on}/{name}"), "twenty bytes of data"));
        }
        let mut requests = Vec::new();
        for (path, text) in nodes {
            let xid = self.next_xid();
            let body = Writer::new().text(&path).text(text).acls(Some(&Acl::open())).int(0);
            requests.push(Request::new(xid, op::CREATE, body, format!("{path} {text}")));
        }
        for length in [50, 30, 4] {
            let xid = self.next_xid();
            let body = Writer::new().text(on).bytes(Some(&vec![b'q'; length])).int(-1);
            requests.push(Request::new(xid, op::SET_DATA, body, format!("{on} {length} bytes")));
        }
        requests
    }

    pub fn delete(&mut self, path: &[u8]) -> Request {
        let xid = self.next_xid();
        Request::new(xid, op::DELETE, Writer::new().bytes(Some(path)).int(-1), show(path))
    }

    pub fn close(&mut self) -> Request {
        let xid = self.next_xid();
        Request::new(xid, op::CLOSE, Writer::new(), String::new())
    }
}

/// The path that a request begins with, where it begins with one.
pub fn path_of(request: &Request) -> Option<Path> {
    Reader(&request.body).bytes().flatten()
}

/// Whether later writes in the same segment would be answered by chance by the Java server.
pub fn ends_writes(request: &Request) -> bool {
    match request.op {
        op::SET_ACL => true,
        // A container asked for with an ephemeral's flag counts as an ephemeral until it is applied.
        op::CREATE_CONTAINER | op::MULTI => request.note.contains("flags 1") || request.note.contains("flags 3"),
        _ => false,
    }
}
