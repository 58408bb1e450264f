//! One function for each parser: bytes in, and a panic if they break a promise. `tests/fuzz.rs` calls them with mutated
//! real inputs in every `cargo test`.
//!
//! Every target asserts more than "no panic" where there is more to assert: what was decoded survives its own bytes,
//! a transaction's announced digest is the tree's, a changed byte on disk is never taken for data.

mod peers;
mod zookeeper;

use ostler::admin::{Whitelist, Word};
use ostler::auth::{AuthIds, AuthRules};
use ostler::cli::shell::words;
use ostler::client::{self, Client, ConnectString, Options, Watch};
use ostler::config::servers::{parse_role, parse_server};
use ostler::config::{self, Config, Sources, WordList, properties};
use ostler::disk::Disk;
use ostler::disk::sim::SimDisk;
use ostler::ids::{OwnerRules, SessionId, Zxid};
use ostler::log::epochs::Epochs;
use ostler::log::{Batch, Log, Recovery, Sizes};
use ostler::prepare::reply::{Shape, write_reply};
use ostler::prepare::{Closing, Prepare, PrepareRules, Prepared, SessionCheck, WriteRequest};
use ostler::read::{self, Asker};
use ostler::snapshot::{self, SnapshotWriter, snapshot_path};
use ostler::tree::{Applied, Progress, Restore, Track, Tree, TreeOptions};
use ostler::watch::{Change, WatchFilter, WatchTable};
use ostler::wire::client::*;
use ostler::wire::multi::{self, MultiOp};
use ostler::wire::txn::{Acl, NodeKind, Txn, TxnDigest, TxnHeader, read_txn, write_txn};
use ostler::wire::writer::Jute;
use ostler::wire::{ErrorCode, Malformed, OpCode, Reader, Stat};
use std::fmt::Debug;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A parser under test.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Real inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The largest single allocation that an input of so many bytes may cause: `base + factor * bytes`. No announced
    /// length gets past it.
    pub base: usize,
    pub factor: usize,
}

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>, base: usize, factor: usize) -> Target {
    Target { name, run, seeds, base, factor }
}

pub const ALL: &[Target] = &[
    target("connect", connect, client_bodies, 1 << 10, 4),
    target("records", records, request_bodies, 1 << 10, 32),
    target("multi", multi, request_bodies, 1 << 10, 32),
    // A server in memory has a filter of watched paths of this size.
    target("requests", requests, streams, 1 << 18, 32),
    target("txn", txn, txns, 1 << 10, 32),
    target("quorum_packets", peers::quorum_packets, peers::packet_seeds, 1 << 10, 8),
    target("election_messages", peers::election_messages, peers::election_seeds, 1 << 12, 8),
    target("replies", replies, server_bodies, 1 << 10, 16),
    target("client", client, reply_streams, usize::MAX, 0),
    target("properties", properties, config_files, 1 << 12, 64),
    target("config", config, config_files, 1 << 16, 64),
    target("texts", texts, text_seeds, 1 << 12, 64),
    target("log", log, log_seeds, 1 << 19, 4),
    target("snapshot", snapshot, snapshot_seeds, 1 << 20, 16),
    target("snapshot_nodes", snapshot_nodes, node_seeds, 1 << 16, 32),
    target("zookeeper_tree", zookeeper::tree, zookeeper::tree_seeds, 1 << 16, 32),
    // A log is read in pieces of this size, and a snappy block may become sixty-four times what it was.
    target("zookeeper_directory", zookeeper::directory, zookeeper::directory_seeds, 1 << 20, 64),
    target("four_letter_words", four_letter_words, word_seeds, 1 << 12, 64),
];

/// Decodes, encodes, decodes: the two values must agree.
fn survives<'a, T: PartialEq + Debug>(
    bytes: &'a [u8],
    encoded: &'a mut Vec<u8>,
    read: impl Fn(&mut Reader<'a>) -> Result<T, Malformed>,
    write: impl Fn(&T, &mut Vec<u8>),
) {
    let Ok(first) = read(&mut Reader::new(bytes)) else { return };
    encoded.clear();
    write(&first, encoded);
    let mut reader = Reader::new(encoded);
    assert_eq!(read(&mut reader).as_ref(), Ok(&first), "what was decoded does not survive its own bytes");
    assert!(reader.rest().is_empty(), "more was encoded than is read: {first:?}");
}

/// A client's first frame.
pub fn connect(frame: &[u8]) {
    if let Ok(request) = ConnectRequest::read(frame) {
        let mut out = Vec::new();
        request.write(&mut out);
        assert_eq!(ConnectRequest::read(&out[4..]).as_ref(), Ok(&request));
    }
}

/// Every record that a client sends, each from the same bytes.
pub fn records(bytes: &[u8]) {
    let buffers: &mut [Vec<u8>; 16] = &mut Default::default();
    let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, ..] = buffers;
    survives(bytes, b0, RequestHeader::read, RequestHeader::write);
    survives(bytes, b1, PathWatch::read, PathWatch::write);
    survives(bytes, b2, PathVersion::read, PathVersion::write);
    survives(bytes, b3, PathMode::read, PathMode::write);
    survives(bytes, b4, SetDataRequest::read, SetDataRequest::write);
    survives(bytes, b5, SetAclRequest::read, SetAclRequest::write);
    survives(bytes, b6, ReconfigRequest::read, ReconfigRequest::write);
    survives(bytes, b7, AuthPacket::read, AuthPacket::write);
    survives(bytes, b8, read_acl, |acl, out| write_acl(out, acl.as_deref()));
    for (op, buffer) in [(OpCode::Create, b9), (OpCode::CreateTtl, b10)] {
        survives(bytes, buffer, |r| CreateRequest::read(r, op), |request, out| request.write(out, op));
    }
    for (op, buffer) in [(OpCode::SetWatches, b11), (OpCode::SetWatches2, b12)] {
        survives(bytes, buffer, |r| SetWatchesRequest::read(r, op), |request, out| request.write(out, op));
    }
    let _ = read_path(&mut Reader::new(bytes));
    if let Ok(packet) = AuthPacket::read(&mut Reader::new(bytes)) {
        let mut ids = AuthIds::of_peer([127, 0, 0, 1].into());
        let _ = ids.authenticate(packet.scheme.as_deref(), packet.auth, &AuthRules::default());
    }
}

/// The list of operations of a multi and a multiRead.
pub fn multi(bytes: &[u8]) {
    let encoded = &mut Vec::new();
    // A create without a TTL has none on its way back.
    let read = |r: &mut Reader<'_>| -> Result<String, Malformed> {
        let mut ops = multi::read_ops(r)?;
        for op in &mut ops {
            if let MultiOp::Create(op, request) = op
                && *op != OpCode::CreateTtl
            {
                request.ttl = -1;
            }
        }
        Ok(format!("{ops:?}"))
    };
    let Ok(first) = read(&mut Reader::new(bytes)) else { return };
    let ops = multi::read_ops(&mut Reader::new(bytes)).unwrap();
    ops.iter().for_each(|op| op.write(encoded));
    multi::write_end(encoded);
    assert_eq!(read(&mut Reader::new(encoded)), Ok(first));
}

/// A logged transaction.
pub fn txn(bytes: &[u8]) {
    let Ok((header, txn, digest)) = read_txn(bytes) else { return };
    let mut out = Vec::new();
    write_txn(&header, &txn, digest, &mut out);
    assert_eq!(read_txn(&out), Ok((header, txn, digest)), "what was decoded does not survive its own bytes");
}

/// What a server of one's own has in memory, without threads and sockets.
struct Small {
    tree: Tree,
    prepare: Prepare,
    watches: WatchTable,
    auth: AuthIds,
    rules: AuthRules,
    zxid: Zxid,
    applied: Applied,
    in_flight: Vec<(Shape, i32, TxnHeader, Txn, Option<TxnDigest>)>,
    out: Vec<u8>,
}

const SESSION: SessionId = SessionId(0x0100_001d_35e2_0000);

impl Small {
    fn new() -> Small {
        let owner = OwnerRules { extended_types: true, ..OwnerRules::default() };
        let mut small = Small {
            tree: Tree::new(TreeOptions { owner_rules: owner, digest: true }),
            prepare: Prepare::new(PrepareRules { owner, enforce_quota: true, ..PrepareRules::default() }),
            watches: WatchTable::new(Arc::new(WatchFilter::new()), usize::MAX),
            auth: AuthIds::of_peer([127, 0, 0, 1].into()),
            rules: AuthRules::default(),
            zxid: Zxid::ZERO,
            applied: Applied::default(),
            in_flight: Vec::new(),
            out: Vec::new(),
        };
        for (path, data) in [
            ("/a", &b"hi"[..]),
            ("/a/b", b""),
            ("/a/b/c", b"third"),
            ("/zookeeper/quota/a", b""),
            ("/zookeeper/quota/a/zookeeper_limits", b"count=5,bytes=100,count_hard_limit=9,bytes_hard_limit=300"),
            ("/zookeeper/quota/a/zookeeper_stats", b"count=3,bytes=7"),
        ] {
            let mut body = Vec::new();
            body.put_text(path);
            body.put_buffer(Some(data));
            Acl::write_list(&[Acl::world(Acl::ALL)], &mut body);
            body.put_int(0);
            small.write(OpCode::Create, 1, &body);
            small.apply();
        }
        small
    }

    fn next_zxid(&mut self) -> Zxid {
        self.zxid = Zxid(self.zxid.0 + 1);
        self.zxid
    }

    fn write(&mut self, op: OpCode, xid: i32, body: &[u8]) {
        if op == OpCode::CloseSession {
            loop {
                let zxid = self.next_zxid();
                let (prepared, closing) = self.prepare.close_session(&self.tree, SESSION, xid, zxid, 1);
                self.take(op, xid, prepared);
                if closing == Closing::Done {
                    return;
                }
            }
        }
        let zxid = self.next_zxid();
        let session_check = SessionCheck::Live;
        let request = WriteRequest { session: SESSION, session_check, xid, op, body, auth: &self.auth };
        let prepared = self.prepare.write(&self.tree, &request, zxid, 1);
        if matches!(prepared, Prepared::Refused(_)) {
            self.zxid = Zxid(zxid.0 - 1);
        }
        self.take(op, xid, prepared);
    }

    /// What is logged must come back from the log as it was.
    fn take(&mut self, op: OpCode, xid: i32, prepared: Prepared) {
        let Prepared::Txn { header, txn, digest } = prepared else { return };
        let mut record = Vec::new();
        write_txn(&header, &txn, digest, &mut record);
        let back = read_txn(&record).expect("a record of our own");
        assert_eq!(back, (header, txn.clone(), digest), "a record does not survive the log");
        self.in_flight.push((Shape::of(op, &txn), xid, header, txn, digest));
    }

    fn apply(&mut self) {
        for (shape, xid, header, txn, digest) in std::mem::take(&mut self.in_flight) {
            self.applied.clear();
            self.tree.apply(&header, txn, &mut self.applied);
            if let Some(digest) = digest {
                assert_eq!(digest.tree, self.tree.digest(), "the digest that was announced is not the tree's");
            }
            for touched in &self.applied.touched {
                let (kind, path, parent) = (touched.kind, &*touched.path, touched.parent_slot);
                let change = Change { kind, path, znode: touched.slot, parent };
                self.watches.trigger(&change, &mut |_, kind, path, _| {
                    write_event(&mut self.out, kind, path, header.zxid.to_wire());
                });
            }
            let _ = write_reply(&mut self.out, &shape, xid, &header, &self.applied);
        }
        self.prepare.applied(self.tree.zxid());
    }

    fn read(&mut self, op: OpCode, xid: i32, body: &[u8]) {
        let asker = Asker::new(0, SESSION, &self.auth, &self.rules);
        read::answer(op, xid, body, &self.tree, &mut self.watches, &asker, &mut self.out);
    }
}

/// A client's frames after its handshake, answered as by a server. An even xid waits for its outcome, as a client may.
pub fn requests(stream: &[u8]) {
    let mut small = Small::new();
    let mut rest = stream;
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let Some((frame, after)) =
            usize::try_from(i32::from_be_bytes(*head)).ok().and_then(|len| after.split_at_checked(len))
        else {
            break;
        };
        rest = after;
        let mut reader = Reader::new(frame);
        let Ok(header) = RequestHeader::read(&mut reader) else { break };
        match OpCode::from_wire(header.op) {
            Some(op) if read::is_read(op) => {
                small.apply();
                small.read(op, header.xid, reader.rest());
            }
            Some(op) if op.is_write() => small.write(op, header.xid, reader.rest()),
            Some(OpCode::Auth) => {
                if let Ok(packet) = AuthPacket::read(&mut reader) {
                    let _ = small.auth.authenticate(packet.scheme.as_deref(), packet.auth, &small.rules);
                }
            }
            _ => {}
        }
        if header.xid & 1 == 0 {
            small.apply();
        }
    }
    small.apply();
    // What was said is whole frames, each with a reply's header.
    let mut said = &small.out[..];
    while !said.is_empty() {
        let (head, after) = said.split_first_chunk::<4>().expect("a length");
        let (frame, after) = after.split_at(u32::from_be_bytes(*head) as usize);
        ReplyHeader::read(&mut Reader::new(frame)).expect("a reply's header");
        said = after;
    }
}

/// What a client reads from a server.
pub fn replies(frame: &[u8]) {
    if let Ok(response) = ConnectResponse::read(frame) {
        let mut out = Vec::new();
        response.write(&mut out);
        assert_eq!(ConnectResponse::read(&out[4..]), Ok(response));
    }
    let (a, b) = (&mut Vec::new(), &mut Vec::new());
    survives(frame, a, Stat::read, Stat::write);
    survives(frame, b, |r| Acl::read_list(r), |list, out| Acl::write_list(list, out));
    let mut reader = Reader::new(frame);
    if ReplyHeader::read(&mut reader).is_ok() {
        let _ = reader.texts("children");
    }
}

/// Our own client, told anything by a server.
pub fn client(stream: &[u8]) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let server = Client::open(Options::new(&listener.local_addr().unwrap().to_string()), |_| {}).unwrap();
    let data = server.get_data("/a", Watch::No);
    let children = server.get_children("/a", Watch::Default);
    let acl = server.get_acl("/a");
    let multi = server.multi(&[client::Op::Delete { path: "/a".into(), version: -1 }]);
    let who = server.who_am_i();
    let (mut socket, _) = listener.accept().unwrap();
    drop(listener);
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = socket.read_exact(&mut [0; 49]);
    let mut granted = Vec::new();
    ConnectResponse { timeout_ms: 10_000, session: SESSION, password: [1; 16], read_only: Some(false) }
        .write(&mut granted);
    let _ = socket.write_all(&granted);
    let _ = socket.write_all(stream);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    // Any outcome will do; none will not.
    let wait = Duration::from_secs(10);
    let timed_out = |error: Option<client::Error>| {
        let late = client::Error::Code { code: ErrorCode::OPERATION_TIMEOUT, path: None };
        assert!(error.is_none_or(|error| error.to_string() != late.to_string()), "the client hangs");
    };
    timed_out(data.wait_for(wait).err());
    timed_out(children.wait_for(wait).err());
    timed_out(acl.wait_for(wait).err());
    timed_out(multi.wait_for(wait).err());
    timed_out(who.wait_for(wait).err());
    drop(socket);
    server.abandon();
}

/// The file's syntax alone.
pub fn properties(bytes: &[u8]) {
    let _ = properties::parse(bytes);
}

/// A whole zoo.cfg.
pub fn config(bytes: &[u8]) {
    thread_local! {
        static DIR: tempfile::TempDir = tempfile::tempdir().unwrap();
    }
    DIR.with(|dir| {
        let path = dir.path().join("zoo.cfg");
        std::fs::write(&path, bytes).unwrap();
        if let Ok(loaded) = config::load(&Sources { file: Some(path), processors: 2, ..Sources::default() }) {
            Whitelist::new(&loaded.config);
        }
    });
}

/// Small things that are given as text: server lines, whitelists, quotas, connect strings, paths, the shell's lines.
pub fn texts(bytes: &[u8]) {
    let _ = Track::parse(Some(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = parse_server("1", text);
    let _ = parse_role(text);
    let _ = WordList::parse(text);
    let _ = ConnectString::parse(text);
    let _ = client::check_path(text);
    for word in words::split(text) {
        assert!(text[word.start..].contains(&word.text));
        if let Some(quoted) = words::quote(&word.text) {
            let back: Vec<String> = words::split(&quoted).into_iter().map(|word| word.text).collect();
            assert_eq!(back, [word.text], "a quoted word does not come back");
        }
    }
}

pub fn four_letter_words(bytes: &[u8]) {
    if let Some(word) = bytes.first_chunk().and_then(|head| Word::from_bytes(*head)) {
        assert_eq!(Word::from_bytes(word.name().as_bytes().try_into().unwrap()), Some(word));
    }
    let mut config = Config::defaults(1);
    config.four_letter_words = WordList::parse(&String::from_utf8_lossy(bytes));
    let whitelist = Whitelist::new(&config);
    assert!(whitelist.allows(Word::Srvr), "srvr is always allowed");
}

type Files = Vec<(PathBuf, Vec<u8>)>;

const LOG_DIR: &str = "/log";
const LOG_SIZES: Sizes = Sizes { first: 4 << 10, segment: 8 << 10 };
const LOG_RECORDS: u64 = 90;

fn log_body(zxid: u64) -> Vec<u8> {
    (0..zxid * 37 % 300).map(|i| (zxid * 31 + i * 7) as u8 | 1).collect()
}

/// The files of a log of three segments.
fn log_files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = SimDisk::new();
        let dir = Path::new(LOG_DIR);
        disk.create_dir(dir).unwrap();
        let mut log = Log::create(disk.clone(), dir, Zxid::ZERO, LOG_SIZES).unwrap();
        for first in (1..LOG_RECORDS).step_by(3) {
            let mut batch = Batch::new();
            (first..first + 3).for_each(|zxid| batch.push(Zxid(zxid), &log_body(zxid)));
            log.append(&batch).unwrap();
            log.sync().unwrap();
        }
        Epochs::new(ostler::ids::Epoch(1), ostler::ids::Epoch(1)).store(&disk, dir).unwrap();
        drop(log);
        contents(&disk, dir)
    })
}

fn contents(disk: &SimDisk, dir: &Path) -> Files {
    let names = disk.list(dir).unwrap();
    names.iter().map(|name| dir.join(name)).map(|path| (path.clone(), disk.contents(&path).unwrap())).collect()
}

/// Changes bytes: each four bytes of `script` are a place (24 bits) and what to put there.
fn patch(bytes: &mut [u8], script: &[u8]) -> usize {
    let before = bytes.to_vec();
    for change in script.chunks_exact(4) {
        let at = u32::from_be_bytes([0, change[0], change[1], change[2]]) as usize % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = change[3];
        }
    }
    before.iter().zip(&*bytes).filter(|(before, after)| before != after).count()
}

/// A log of which one file (the first byte says which) is the rest of the input, or is patched by it.
pub fn log(input: &[u8]) {
    let [how, rest @ ..] = input else { return };
    let files = log_files();
    let disk = SimDisk::new();
    let dir = Path::new(LOG_DIR);
    disk.create_dir(dir).unwrap();
    let chosen = (how >> 1) as usize % files.len();
    let mut changed = usize::MAX;
    for (at, (path, bytes)) in files.iter().enumerate() {
        let mut bytes = bytes.clone();
        if at == chosen && how & 1 == 1 {
            changed = patch(&mut bytes, rest);
        } else if at == chosen {
            bytes = rest.to_vec();
        }
        disk.put(path, bytes);
    }
    if let Ok(Some(epochs)) = Epochs::load(&disk, dir) {
        let _ = Epochs::reconcile(Some(epochs), Zxid(LOG_RECORDS), dir);
    }
    let Ok(mut recovery) = Recovery::open(disk.clone(), dir, Zxid::ZERO, LOG_SIZES) else { return };
    let mut last = 0;
    loop {
        match recovery.next() {
            Err(_) => return,
            Ok(None) => break,
            Ok(Some((zxid, body))) => {
                last += 1;
                assert!(
                    changed > 4 || (zxid, body) == (Zxid(last), &log_body(last)[..]),
                    "{changed} changed bytes make another record {zxid}"
                );
            }
        }
    }
    if let Ok(mut log) = recovery.finish() {
        // And the log goes on.
        let mut batch = Batch::new();
        batch.push(Zxid(log.last_zxid().0 + 1), b"next");
        if log.last_zxid().0 < LOG_RECORDS {
            log.append(&batch).and_then(|()| log.sync()).unwrap();
        }
        assert!(changed > 1 || last == LOG_RECORDS, "{changed} changed byte lost records after {last} without a word");
    }
}

const SNAPSHOT_DIR: &str = "/snapshots";

/// A small snapshot: its path, bytes, and the znodes' images alone.
fn small_snapshot() -> &'static (PathBuf, Vec<u8>) {
    static SNAPSHOT: OnceLock<(PathBuf, Vec<u8>)> = OnceLock::new();
    SNAPSHOT.get_or_init(|| {
        let small = Small::new();
        let (disk, dir) = (SimDisk::new(), Path::new(SNAPSHOT_DIR));
        disk.create_dir(dir).unwrap();
        let sessions = [(SESSION, 8000), (SessionId(7), 4000)];
        let frozen = small.tree.begin_freeze();
        let mut writer = SnapshotWriter::begin(disk.clone(), dir, frozen, &sessions).unwrap().slices_of(200);
        loop {
            let progress = writer.take(&small.tree);
            writer.store().unwrap();
            if progress == Progress::Done {
                break;
            }
        }
        let info = writer.finish().unwrap();
        let path = snapshot_path(dir, info.zxid);
        let bytes = disk.contents(&path).unwrap();
        (path, bytes)
    })
}

/// Gives every block the checksum that its bytes ask for, so that what is behind the checksums is reached.
fn checksummed(bytes: &mut [u8]) {
    let mut zxid = [0; 8];
    if let Some(stored) = bytes.get(24..32) {
        zxid.copy_from_slice(stored);
    }
    let mut at = 8;
    while let Some(header) = bytes.get(at..at + 16) {
        let len = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        let Some(body) = bytes.get(at + 16..).and_then(|rest| rest.get(..len)) else { return };
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&zxid), &header[..12]), body);
        bytes[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
        at += 16 + len;
    }
}

/// A snapshot's file: the input, or the real one patched by it (bit 0 of the first byte), checksums set right (bit 1).
pub fn snapshot(input: &[u8]) {
    let [how, rest @ ..] = input else { return };
    let (path, genuine) = small_snapshot();
    let mut bytes = genuine.clone();
    let mut changed = usize::MAX;
    if how & 1 == 1 {
        changed = patch(&mut bytes, rest);
    } else {
        bytes = rest.to_vec();
    }
    if how & 2 == 2 {
        checksummed(&mut bytes);
    }
    let (disk, dir) = (SimDisk::new(), Path::new(SNAPSHOT_DIR));
    disk.create_dir(dir).unwrap();
    disk.put(path, bytes);
    let verified = snapshot::verify(&disk, path);
    let loaded = snapshot::load(&disk, path, TreeOptions::default(), 1);
    if how & 2 == 0 {
        let sound = verified.is_ok() && loaded.is_ok();
        assert!(changed == 0 || changed > 4 || !sound, "{changed} changed bytes went unseen");
        assert!(changed != 0 || sound, "an untouched snapshot is refused");
    }
    if let Ok(mut loaded) = loaded {
        // And the tree works.
        exercise(&mut loaded.tree);
    }
}

fn exercise(tree: &mut Tree) {
    let header = TxnHeader { session: SESSION, cxid: 1, zxid: Zxid(tree.zxid().0 + 1), time: 5 };
    let data = Some(b"new".to_vec());
    let acl = vec![Acl::world(Acl::ALL)];
    let (op, path, kind) = (OpCode::Create, "/fuzz".to_owned(), NodeKind::Persistent);
    if tree.lookup("/fuzz").is_none() {
        tree.apply(
            &header,
            Txn::Create { op, path, data, acl: acl.into(), kind, parent_cversion: -1 },
            &mut Applied::default(),
        );
        assert!(tree.lookup("/fuzz").is_some());
    }
}

/// The images of znodes, as they are behind a snapshot's checksums.
pub fn snapshot_nodes(bytes: &[u8]) {
    let acls = vec![(1, Arc::from([Acl::world(Acl::READ)]))];
    let mut restore = Restore::new(TreeOptions::default(), Zxid(9), acls, 0).unwrap();
    let mut decoders = restore.decoders(2);
    let Ok(batch) = decoders[1].decode(bytes) else { return };
    if restore.add(batch).is_ok()
        && let Ok(mut tree) = restore.finish(decoders)
    {
        exercise(&mut tree);
    }
}

/// Frames that went between a real client and ZooKeeper 3.9.5: `>` from the client, `<` from the server.
fn frames(direction: char) -> Vec<Vec<u8>> {
    let lines = include_str!("frames.txt").lines().filter_map(|line| line.strip_prefix(direction));
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    lines.map(|hex| hex.trim().as_bytes().chunks(2).map(byte).collect()).collect()
}

fn without(bytes: usize, frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.into_iter().map(|frame| frame[bytes.min(frame.len())..].to_vec()).collect()
}

fn client_bodies() -> Vec<Vec<u8>> {
    without(4, frames('>'))
}

fn request_bodies() -> Vec<Vec<u8>> {
    without(12, frames('>'))
}

fn server_bodies() -> Vec<Vec<u8>> {
    let mut all = without(4, frames('<'));
    all.extend(without(20, frames('<')));
    all
}

fn streams() -> Vec<Vec<u8>> {
    let all = frames('>').split_off(3);
    let mut streams = vec![all.concat()];
    streams.extend(all.chunks(4).map(<[_]>::concat));
    streams.extend(all);
    streams
}

fn reply_streams() -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = frames('<').split_off(3);
    // The client's first requests have the xids from 1 on.
    let renumbered = |xid: u8| {
        move |mut frame: Vec<u8>| -> Vec<u8> {
            frame[4..8].copy_from_slice(&[0, 0, 0, xid]);
            frame
        }
    };
    let mut streams = vec![all.concat()];
    for frame in &all {
        streams.push((1..=5).flat_map(|xid| renumbered(xid)(frame.clone())).collect());
    }
    streams
}

fn txns() -> Vec<Vec<u8>> {
    let header = TxnHeader { session: SESSION, cxid: 3, zxid: Zxid(0x1_0000_0001), time: 0x1a2_0207_6b8f };
    let acl = vec![Acl::world(Acl::ALL), Acl { perms: 1, scheme: "digest".into(), id: "a:b".into() }];
    let create = |op, kind| Txn::Create {
        op,
        path: "/a/\u{1f600}".into(),
        data: Some(b"x".to_vec()),
        acl: acl.clone().into(),
        kind,
        parent_cversion: 3,
    };
    let txns = [
        Txn::CreateSession { timeout_ms: 8000 },
        Txn::CloseSession { paths: None },
        Txn::CloseSession { paths: Some(vec!["/a".into(), "/b/c".into()]) },
        Txn::Error { code: -101 },
        create(OpCode::Create, NodeKind::Ephemeral),
        create(OpCode::Create2, NodeKind::Persistent),
        create(OpCode::CreateContainer, NodeKind::Container),
        create(OpCode::CreateTtl, NodeKind::Ttl(77)),
        Txn::Delete { op: OpCode::Delete, path: "/a".into() },
        Txn::SetData { op: OpCode::SetData, path: "/a".into(), data: None, version: 4 },
        Txn::SetAcl { path: "/a".into(), acl: acl.clone().into(), version: 1 },
        Txn::Multi(vec![Txn::Check { path: "/a".into(), version: 1 }, Txn::Error { code: -2 }]),
    ];
    let mut all = Vec::new();
    for txn in &txns {
        for digest in [None, Some(TxnDigest { version: TxnDigest::VERSION, tree: 77 })] {
            let mut out = Vec::new();
            write_txn(&header, txn, digest, &mut out);
            all.push(out);
        }
    }
    all
}

fn config_files() -> Vec<Vec<u8>> {
    [
        "tickTime=2000\ndataDir=/tmp/fuzz\nclientPort=2181\n",
        "# a comment\n! another\ntickTime = 3000\ninitLimit:10\nsyncLimit 5\ndataDir=/tmp/a\\\n   b\nserver.1=h1:2888:3888\n",
        "dataDir=/tmp/x\nclientPort=0\nmaxClientCnxns=60\nautopurge.snapRetainCount=3\nautopurge.purgeInterval=1\n\
         4lw.commands.whitelist=stat, ruok,*\nadmin.enableServer=false\nextendedTypesEnabled=true\n\
         minSessionTimeout=4000\nmaxSessionTimeout=40000\nclientPortAddress=127.0.0.1\n",
        "dataDir=\\u002ftmp\\u002Fy\nserver.1=zoo1:2888:3888:participant;0.0.0.0:2181\nserver.2=[::1]:2888:3888|[::2]:1:2;2181\n\
         group.1=1:2\nweight.1=1\nstandaloneEnabled=false\nreconfigEnabled=true\n",
        "sslQuorum=true\nsecureClientPort=2281\nquorum.auth.enableSasl=false\ndigest.enabled=false\n",
        "dataDir=/tmp/z\r\nclientPort=2181\rsnapCount=10\r\n\\",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn text_seeds() -> Vec<Vec<u8>> {
    [
        "zoo1:2888:3888:participant;0.0.0.0:2181",
        "[::1]:2888:3888|[fe80::1]:2889:3889:observer;2181",
        "h1:2181,h2,[::1]:2183/chroot/x",
        "stat, ruok,*",
        "count=5,bytes=100,count_hard_limit=9,bytes_hard_limit=300",
        "create -e -s \"/a b\" 'it is' world:anyone:cdrwa",
        "get /a \"unclosed 'x' \u{1f600}\u{3000}y\"z",
        "/a/./b/../c//d\u{0}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn word_seeds() -> Vec<Vec<u8>> {
    Word::ALL.iter().map(|word| word.name().as_bytes().to_vec()).collect()
}

fn log_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (at, (_, bytes)) in log_files().iter().enumerate() {
        let choice = (at as u8) << 1;
        seeds.push([&[choice], &bytes[..]].concat());
        seeds.push(vec![choice | 1]);
        for place in [0u8, 1, 2, 3] {
            seeds.push(vec![choice | 1, 0, place, 16, 0xff]);
        }
    }
    seeds
}

fn snapshot_seeds() -> Vec<Vec<u8>> {
    let (_, bytes) = small_snapshot();
    let mut seeds = Vec::new();
    for how in [0, 2] {
        seeds.push([&[how], &bytes[..]].concat());
        seeds.push(vec![how | 1]);
        for at in [0, 1, 2] {
            seeds.push(vec![how | 1, 0, at, 40, 0xff]);
        }
    }
    seeds
}

fn node_seeds() -> Vec<Vec<u8>> {
    let small = Small::new();
    let mut out = Vec::new();
    small.tree.begin_freeze();
    while small.tree.read_frozen(1 << 20, &mut out) != Progress::Done {}
    vec![out]
}
