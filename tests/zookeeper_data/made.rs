//! Trees and files that are made from a seed: everything that ZooKeeper can store, and snapshots as fuzzy as its own.

use ostler::ids::{OwnerRules, SessionId, Zxid};
use ostler::random::Rng;
use ostler::snapshot::SessionRecord;
use ostler::snapshot::zookeeper::{DecodeLimits, Dirs, ImportOptions, write_log_header, write_log_record};
use ostler::tree::{Applied, Grow, NodeRef, Numbers, Tree, TreeOptions, Walk};
use ostler::wire::txn::{Acl, Txn, TxnDigest, TxnHeader, read_txn, write_txn};
use ostler::wire::writer::Jute;
use std::collections::BTreeMap;
use std::path::Path;

use crate::support::txns::random_txn;

pub fn dir() -> &'static Path {
    Path::new("/data")
}

pub fn dirs() -> Dirs<'static> {
    Dirs { snapshots: dir(), log: dir() }
}

pub fn options() -> ImportOptions {
    let owner_rules = OwnerRules { extended_types: true, emulate_353_ttl: false };
    let tree = TreeOptions { owner_rules, digest: true };
    ImportOptions { tree, limits: DecodeLimits::default(), up_to: None, check_digests: true, member: true }
}

/// Everything that can be seen, znode by znode.
pub fn assert_same(a: &Tree, b: &Tree) {
    assert_eq!((a.zxid(), a.digest(), a.node_count()), (b.zxid(), b.digest(), b.node_count()));
    assert_eq!(a.ephemeral_count(), b.ephemeral_count());
    let (mut one, mut other) = (Walk::sorted(), Walk::sorted());
    while let Some(x) = one.next(a) {
        let y = other.next(b).expect("as many znodes");
        assert_eq!(one.path(), other.path());
        assert_eq!((x.numbers(), x.acl(), x.stat()), (y.numbers(), y.acl(), y.stat()), "{}", one.path());
        assert_eq!(x.data(), y.data(), "{}", one.path());
        assert_eq!(a.quota_of(one.path()), b.quota_of(one.path()));
    }
}

pub struct State {
    pub tree: Tree,
    pub sessions: Vec<SessionRecord>,
}

const NAMES: [&str; 12] = [
    "a",
    "b",
    "child-0000000007",
    "\u{e4}\u{f6}\u{fc}",
    "\u{4e2d}\u{6587}",
    " ",
    ".hidden",
    "a b",
    "%2F",
    "zookeeper",
    "x\u{1f600}",
    "...",
];

fn number<T: Copy>(rng: &mut Rng, odd: [T; 4], otherwise: impl FnOnce(&mut Rng) -> T) -> T {
    if rng.below(4) == 0 { odd[rng.below(4) as usize] } else { otherwise(rng) }
}

fn acl(rng: &mut Rng) -> Vec<Acl> {
    let ids = ["anyone", "", "u:x", "\u{1f511}key", "127.0.0.1/8", "a\u{0}b"];
    let schemes = ["world", "digest", "ip", "sasl", "x509", "\u{e4}"];
    match rng.below(5) {
        0 => Vec::new(),
        1 | 2 => vec![Acl::world(Acl::ALL)],
        _ => (0..1 + rng.below(3))
            .map(|_| Acl {
                perms: number(rng, [0, 31, -1, i32::MIN], |rng| rng.below(32) as i32),
                scheme: schemes[rng.below(6) as usize].into(),
                id: ids[rng.below(6) as usize].into(),
            })
            .collect(),
    }
}

/// A tree that no history need have made: every number is any number.
/// `plain`: without characters that Java loses when it reads its own files (those outside the basic plane).
pub fn random_state(rng: &mut Rng, nodes: u64, plain: bool) -> State {
    let sessions: BTreeMap<SessionId, i32> = (0..rng.below(5))
        .map(|at| {
            (
                SessionId(number(rng, [1, -5, i64::MAX, 0x0100_005f_dfd8_0009], |rng| {
                    100 + rng.below(9) as i64 + at as i64
                })),
                4000 + at as i32,
            )
        })
        .collect();
    let owners: Vec<i64> = sessions.keys().map(|session| session.0).collect();
    let mut grow = Grow::new(options().tree);
    let mut paths = vec![String::new()];
    for at in 0..nodes {
        let path = if at == 0 {
            String::new()
        } else {
            let parent = &paths[rng.below(paths.len() as u64) as usize];
            let name = match rng.below(3) {
                0 => NAMES[rng.below(12) as usize].replace('\u{1f600}', if plain { "-" } else { "\u{1f600}" }),
                1 => "n".repeat(1 + rng.below(300) as usize),
                _ => format!("n{at}"),
            };
            format!("{parent}/{name}")
        };
        let data = match rng.below(5) {
            0 => None,
            1 => Some(Vec::new()),
            2 => Some(vec![rng.next() as u8; rng.below(20_000) as usize]),
            _ => Some((0..rng.below(50)).map(|_| rng.next() as u8).collect()),
        };
        let zxid = |rng: &mut Rng| Zxid(number(rng, [0, 1, u64::MAX, 1 << 63], |rng| rng.below(1 << 40)));
        let time = |rng: &mut Rng| number(rng, [0, -1, i64::MAX, i64::MIN], |rng| rng.below(1 << 41) as i64);
        let version = |rng: &mut Rng| number(rng, [0, -1, i32::MAX, i32::MIN], |rng| rng.below(1000) as i32);
        let owner = match rng.below(6) {
            0 => i64::MIN,
            1 => (0xff00_0000_0000_0000 | rng.below(1 << 40)) as i64,
            2 if !owners.is_empty() => owners[rng.below(owners.len() as u64) as usize],
            _ => 0,
        };
        let numbers = Numbers {
            czxid: zxid(rng),
            mzxid: zxid(rng),
            pzxid: zxid(rng),
            ctime: time(rng),
            mtime: time(rng),
            version: version(rng),
            cversion: version(rng),
            aversion: version(rng),
            owner,
        };
        let acl = grow.acl(&acl(rng));
        if grow.add(&path, data.as_deref(), &numbers, acl).is_ok() {
            paths.push(path);
        }
    }
    let zxid = Zxid(1 + rng.below(1 << 40));
    State { tree: grow.finish(zxid).unwrap(), sessions: sessions.into_iter().collect() }
}

const SESSIONS: [SessionId; 3] = [SessionId(0x1_0000_0001), SessionId(-5), SessionId(77)];

const QUOTAS: [&str; 2] = ["/zookeeper/quota/p1", "/zookeeper/quota/p1/zookeeper_limits"];

/// A tree with a history.
pub struct Made {
    pub tree: Tree,
    pub sessions: BTreeMap<SessionId, i32>,
}

impl Made {
    pub fn new() -> Made {
        Made { tree: Tree::new(options().tree), sessions: BTreeMap::new() }
    }

    /// A random transaction, valid mostly.
    fn make_txn(&self, rng: &mut Rng, zxid: Zxid) -> (TxnHeader, Txn) {
        let session = SESSIONS[rng.below(3) as usize];
        let header = TxnHeader { session, cxid: 0, zxid, time: 7 * zxid.0 as i64 };
        if !self.sessions.contains_key(&session) {
            return (header, Txn::CreateSession { timeout_ms: 4000 });
        }
        (header, random_txn(rng, &self.tree, session, &QUOTAS))
    }

    /// Applies a random transaction, and gives the entry that a server logs of it.
    pub fn entry(&mut self, rng: &mut Rng, zxid: Zxid) -> Vec<u8> {
        let (header, txn) = self.make_txn(rng, zxid);
        match &txn {
            Txn::CreateSession { timeout_ms } => drop(self.sessions.insert(header.session, *timeout_ms)),
            Txn::CloseSession { .. } => drop(self.sessions.remove(&header.session)),
            _ => {}
        }
        self.tree.apply(&header, txn.clone(), &mut Applied::default());
        // A transaction that failed has none.
        let digest = TxnDigest { version: TxnDigest::VERSION, tree: self.tree.digest() };
        let mut bytes = Vec::new();
        write_txn(&header, &txn, (!matches!(txn, Txn::Error { .. })).then_some(digest), &mut bytes);
        bytes
    }

    pub fn grow(&mut self, rng: &mut Rng, count: u64) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.entry(rng, Zxid(self.tree.zxid().0 + 1))).collect()
    }

    pub fn session_list(&self) -> Vec<SessionRecord> {
        self.sessions.iter().map(|(&session, &timeout_ms)| (session, timeout_ms)).collect()
    }
}

/// A server that takes a snapshot as ZooKeeper does: sessions first, then ACLs, then znodes from the root down, each as
/// it is when its turn comes, while transactions go on.
pub struct Fuzzy {
    pub made: Made,
    entries: Vec<Vec<u8>>,
}

impl Fuzzy {
    pub fn begin(rng: &mut Rng, count: u64) -> Fuzzy {
        let mut made = Made::new();
        let entries = made.grow(rng, count);
        Fuzzy { made, entries }
    }

    /// Name and bytes of a snapshot, with up to `pace` transactions before each znode.
    pub fn snapshot(&mut self, rng: &mut Rng, pace: u64) -> (String, Vec<u8>) {
        let name = format!("snapshot.{:x}", self.made.tree.zxid().0);
        let mut out = b"ZKSN\x00\x00\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff".to_vec();
        out.put_int(self.made.sessions.len() as i32);
        for (session, timeout_ms) in &self.made.sessions {
            out.put_long(session.0);
            out.put_int(*timeout_ms);
        }
        let mut keys: BTreeMap<String, i64> = BTreeMap::new();
        let lists = self.made.tree.acl_lists();
        out.put_int(lists.len() as i32);
        for (at, (_, list)) in lists.iter().enumerate() {
            out.put_long(at as i64 + 1);
            Acl::write_list(list, &mut out);
            keys.insert(format!("{list:?}"), at as i64 + 1);
        }
        let mut left = vec![String::new()];
        while let Some(path) = left.pop() {
            self.go_on(rng, pace);
            let Some(node) = self.made.tree.lookup(&path) else { continue };
            out.put_text(&path);
            out.put_buffer(node.data());
            let next = keys.len() as i64 + 1;
            let key =
                if node.acl_number().is_none() { -1 } else { *keys.entry(format!("{:?}", node.acl())).or_insert(next) };
            out.put_long(key);
            put_numbers(&node, &mut out);
            left.extend(node.children().map(|name| format!("{path}/{name}")));
        }
        out.put_text("/");
        seal(&mut out);
        // The digest is of the last transaction that has one.
        loop {
            let entry = self.made.entry(rng, Zxid(self.made.tree.zxid().0 + 1));
            let failed = entry[28..32] == (-1i32).to_be_bytes();
            self.entries.push(entry);
            if !failed {
                break;
            }
        }
        out.put_long(self.made.tree.zxid().to_wire());
        out.put_int(TxnDigest::VERSION);
        out.put_long(self.made.tree.digest() as i64);
        seal(&mut out);
        out.put_long(self.made.tree.zxid().to_wire());
        seal(&mut out);
        self.go_on(rng, 20);
        (name, out)
    }

    fn go_on(&mut self, rng: &mut Rng, most: u64) {
        let count = rng.below(most + 1);
        self.entries.extend(self.made.grow(rng, count));
    }

    /// The digest that the server's tree had after a transaction.
    pub fn digest_at(&self, zxid: Zxid) -> u64 {
        let mut tree = Tree::new(options().tree);
        for entry in &self.entries[..zxid.0 as usize] {
            let (header, txn, _) = read_txn(entry).unwrap();
            tree.apply(&header, txn, &mut Applied::default());
        }
        tree.digest()
    }

    /// What is logged behind a transaction.
    pub fn entries_after(&self, zxid: Zxid) -> impl Iterator<Item = (Zxid, &[u8])> {
        let numbered = self.entries.iter().enumerate().map(|(at, entry)| (Zxid(at as u64 + 1), entry.as_slice()));
        numbered.skip(zxid.0 as usize)
    }

    /// Name and bytes of the log, from the first record on.
    pub fn log(&self) -> (String, Vec<u8>) {
        let mut bytes = Vec::new();
        write_log_header(&mut bytes).unwrap();
        for entry in &self.entries {
            write_log_record(entry, &mut bytes).unwrap();
        }
        ("log.1".into(), bytes)
    }
}

fn put_numbers(node: &NodeRef<'_>, out: &mut Vec<u8>) {
    let n = node.numbers();
    out.put_long(n.czxid.to_wire());
    out.put_long(n.mzxid.to_wire());
    out.put_long(n.ctime);
    out.put_long(n.mtime);
    out.put_int(n.version);
    out.put_int(n.cversion);
    out.put_int(n.aversion);
    out.put_long(n.owner);
    out.put_long(n.pzxid.to_wire());
}

pub fn adler(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in bytes {
        a = (a + byte as u32) % 65521;
        b = (b + a) % 65521;
    }
    b << 16 | a
}

pub fn seal(out: &mut Vec<u8>) {
    let sum = adler(out);
    out.put_long(sum as i64);
    out.put_text("/");
}
