//! Clients that write all the time and remember what was acknowledged, through whatever happens to the servers.
//!
//! Each client has a folder of its own, and thus knows what has to be in it: what was acknowledged and not undone; what it
//! never heard of again may have happened or not, and is not judged. All share one folder of sequential znodes, whose
//! numbers may never come twice.
//!
//! ZooKeeper can't always read its own snapshots: an access list that was new while one was taken is missing in it
//! (ZOOKEEPER-4846, seen with 3.8.0 and with 3.9.5), and the server does not start, or shows another list. So access lists
//! are only set to such as are there from the beginning and stay.
//!
//! Runs on: one thread for each client.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ostler::clock::{self, Now};
use ostler::random::Rng;

use super::client::{Client, Lost, Tree, op};
use super::cluster::Cluster;
use crate::support::jute::{Acl, Reader, Writer};
use crate::support::servers::{pause, wait_for};

/// Session timeout that is asked for, in ms; a server may be away for as long as a JVM takes to start, twice.
const TIMEOUT: i32 = 60_000;

/// A ttl that no test lives to see end.
const TTL_MS: i64 = 40_000_000;

#[derive(Default)]
struct Switches {
    stop: AtomicBool,
    /// Clients hang up and stay away; sessions live on.
    away: AtomicBool,
    clients_away: AtomicU64,
    acknowledged: AtomicU64,
    /// When the last write was acknowledged, and the longest time between two, in ms.
    last: Mutex<Option<Now>>,
    longest_pause: AtomicU64,
}

/// What one client knows.
#[derive(Default)]
pub struct Record {
    pub certain: BTreeMap<String, Vec<u8>>,
    pub gone: BTreeSet<String>,
    pub sequential: Vec<String>,
    pub counter: u64,
    pub ephemeral: Option<String>,
    pub session: i64,
    pub expired: usize,
    pub unknown: usize,
}

pub struct Load {
    switches: Arc<Switches>,
    threads: Vec<JoinHandle<Record>>,
}

impl Load {
    pub fn start(cluster: &Cluster, clients: usize, seed: u64) -> Load {
        let ports = cluster.client_ports();
        let mut first = Client::new(ports.clone(), 0, TIMEOUT);
        assert!(first.connected(Duration::from_secs(60)), "nobody serves");
        for path in ["/load", "/load/seq"] {
            let body = Writer::new().text(path).bytes(Some(b"")).acls(Some(&Acl::open())).int(0);
            let error = first.insist(op::CREATE, &body);
            assert!(error == 0 || error == -110, "{path}: {error}");
        }
        for number in 0..ACLS {
            let body = Writer::new().text(&format!("/load/acl{number}")).bytes(None).acls(Some(&acls(number))).int(0);
            let error = first.insist(op::CREATE, &body);
            assert!(error == 0 || error == -110, "{number}: {error}");
        }
        first.close();
        let switches = Arc::new(Switches::default());
        let thread = |number: usize| {
            let (ports, switches) = (ports.clone(), switches.clone());
            std::thread::spawn(move || {
                let mut writer = LoadClient::new(ports, number, seed);
                writer.run(&switches);
                writer.record.expired = writer.client.expired;
                writer.record.session = writer.client.session();
                writer.record
            })
        };
        let threads = (0..clients).map(thread).collect();
        Load { switches, threads }
    }

    pub fn acknowledged(&self) -> u64 {
        self.switches.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits for so many more acknowledged writes.
    pub fn progress(&self, writes: u64) {
        let from = self.acknowledged();
        wait_for("writes to be acknowledged", Duration::from_secs(60), || {
            pause(Duration::from_millis(5));
            (self.acknowledged() >= from + writes).then_some(())
        });
    }

    /// The longest time without an acknowledged write since the last question.
    pub fn longest_pause(&self) -> Duration {
        Duration::from_millis(self.switches.longest_pause.swap(0, Ordering::SeqCst))
    }

    /// All clients hang up; when this returns nothing is under way.
    pub fn away(&self) {
        self.switches.away.store(true, Ordering::SeqCst);
        let all = self.threads.len() as u64;
        wait_for("the clients to hang up", Duration::from_secs(30), || {
            pause(Duration::from_millis(5));
            (self.switches.clients_away.load(Ordering::SeqCst) == all).then_some(())
        });
    }

    pub fn back(&self) {
        *self.switches.last.lock().expect("nobody panics with it") = None;
        self.switches.away.store(false, Ordering::SeqCst);
    }

    /// Ends the load; sessions live on, until they expire.
    pub fn end(&mut self) -> Vec<Record> {
        self.switches.stop.store(true, Ordering::SeqCst);
        self.threads.drain(..).map(|thread| thread.join().expect("a client has failed")).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Nobody waits for clients of a run that has failed.
        self.switches.stop.store(true, Ordering::SeqCst);
    }
}

/// An access list; no two numbers have the same. 0 is the open one.
fn acls(number: u64) -> Vec<Acl> {
    let mut acls = vec![Acl::new(31, "world", "anyone")];
    if number > 0 {
        acls.push(Acl::new(1, "digest", &format!("u{number}:secret")));
    }
    acls
}

/// So many access lists are there all the time.
const ACLS: u64 = 20;

struct LoadClient {
    client: Client,
    number: usize,
    rng: Rng,
    count: u64,
    record: Record,
}

impl LoadClient {
    fn new(ports: Vec<u16>, number: usize, seed: u64) -> LoadClient {
        let client = Client::new(ports, number, TIMEOUT);
        let rng = Rng::new(seed ^ (number as u64 + 1) << 32);
        LoadClient { client, number, rng, count: 0, record: Record::default() }
    }

    fn run(&mut self, switches: &Switches) {
        let mut is_away = false;
        while !switches.stop.load(Ordering::SeqCst) {
            if switches.away.load(Ordering::SeqCst) {
                self.client.hang_up();
                if !std::mem::replace(&mut is_away, true) {
                    switches.clients_away.fetch_add(1, Ordering::SeqCst);
                }
                pause(Duration::from_millis(5));
                continue;
            }
            if std::mem::take(&mut is_away) {
                switches.clients_away.fetch_sub(1, Ordering::SeqCst);
            }
            if !self.client.connected(Duration::from_millis(100)) {
                continue;
            }
            match self.write() {
                Ok(()) => note_acknowledged(switches),
                Err(_) => self.record.unknown += 1,
            }
            pause(Duration::from_millis(4));
        }
        self.client.hang_up();
    }

    /// One write. Errors that only follow from an earlier write of unknown outcome are taken as they come.
    fn write(&mut self) -> Result<(), Lost> {
        let home = format!("/load/c{}", self.number);
        self.count += 1;
        let count = self.count;
        if !self.record.certain.contains_key(&home) {
            let error = self.client.create(&home, b"home", 0)?.error;
            assert!(error == 0 || error == -110, "{error}");
            self.record.certain.insert(home.clone(), b"home".to_vec());
            let path = format!("{home}/counter");
            let error = self.client.create(&path, b"0", 0)?.error;
            assert!(error == 0 || error == -110, "{error}");
            return Ok(());
        }
        if self.record.ephemeral.is_none() {
            let path = format!("{home}/mine-{count}");
            assert_eq!(self.client.create(&path, b"", 1)?.error, 0);
            self.record.ephemeral = Some(path);
            return Ok(());
        }
        let path = format!("{home}/n{count:06}");
        let data = format!("{}:{count}:{}", self.number, "x".repeat(self.rng.below(80) as usize)).into_bytes();
        let body = Writer::new().text(&path).bytes(Some(&data)).acls(Some(&Acl::open()));
        match self.rng.below(20) {
            0..7 => {
                assert_eq!(self.client.create(&path, &data, 0)?.error, 0);
                self.record.certain.insert(path, data);
            }
            7..12 => {
                assert_eq!(self.client.set(&format!("{home}/counter"), count.to_string().as_bytes())?.error, 0);
                self.record.counter = count;
            }
            12..14 => {
                let answer = self.client.create("/load/seq/s-", &data, 2)?;
                assert_eq!(answer.error, 0);
                let name = Reader(&answer.body).bytes().flatten().expect("a path");
                self.record.sequential.push(String::from_utf8(name).expect("text"));
            }
            14..16 => {
                let Some(path) = self.record.certain.keys().find(|path| path.contains("/n")).cloned() else {
                    return Ok(());
                };
                self.record.certain.remove(&path);
                assert_eq!(self.client.delete(&path)?.error, 0);
                self.record.gone.insert(path);
            }
            16 => {
                assert_eq!(self.client.call(op::CREATE_TTL, body.int(5).long(TTL_MS))?.error, 0);
                self.record.certain.insert(path, data);
            }
            17 => {
                assert_eq!(self.client.call(op::CREATE_CONTAINER, body.int(4))?.error, 0);
                self.record.certain.insert(path, data);
            }
            18 => {
                let body = Writer::new().text(&home).acls(Some(&acls(count % ACLS))).int(-1);
                assert_eq!(self.client.call(op::SET_ACL, body)?.error, 0);
            }
            _ => {
                // Both or neither; every third one fails, which is a transaction too.
                let version = if count.is_multiple_of(3) { 1 << 20 } else { -1 };
                let multi = Writer::new()
                    .int(op::CREATE)
                    .bool(false)
                    .int(-1)
                    .raw(&body.int(0).0)
                    .int(13)
                    .bool(false)
                    .int(-1)
                    .text(&home)
                    .int(version)
                    .int(-1)
                    .bool(true)
                    .int(-1);
                let answer = self.client.call(op::MULTI, multi)?;
                assert_eq!(answer.error, 0, "a failed multi says so in its results");
                if version < 0 {
                    self.record.certain.insert(path, data);
                } else {
                    self.record.gone.insert(path);
                }
            }
        }
        Ok(())
    }
}

fn note_acknowledged(switches: &Switches) {
    switches.acknowledged.fetch_add(1, Ordering::SeqCst);
    let now = clock::now();
    let mut last = switches.last.lock().expect("nobody panics with it");
    if let Some(before) = last.replace(now) {
        switches.longest_pause.fetch_max(now.since(before).as_millis() as u64, Ordering::SeqCst);
    }
}

/// Holds what the clients know against what a server has. How many znodes were judged.
pub fn judge(records: &[Record], tree: &Tree) -> usize {
    let mut judged = 0;
    let mut numbers = BTreeSet::new();
    for (number, record) in records.iter().enumerate() {
        for (path, data) in &record.certain {
            let node = tree.get(path).unwrap_or_else(|| panic!("{path} was acknowledged and is lost"));
            assert_eq!(node.data.as_ref(), Some(data), "{path}");
        }
        for path in &record.gone {
            assert!(!tree.contains_key(path), "{path} was deleted, or never made, and is there");
        }
        for path in &record.sequential {
            assert!(tree.contains_key(path), "{path} was acknowledged and is lost");
            assert!(numbers.insert(path.clone()), "{path} was given twice");
        }
        assert!(record.sequential.is_sorted(), "sequential znodes of one client come in their order");
        let counter = tree[&format!("/load/c{number}/counter")].data.clone().expect("a number");
        let counter: u64 = String::from_utf8(counter).expect("text").parse().expect("a number");
        assert!(counter >= record.counter, "set to {} and acknowledged, is {counter}", record.counter);
        if let (Some(path), 0) = (&record.ephemeral, record.expired) {
            let node = tree.get(path).unwrap_or_else(|| panic!("{path} is gone, and its session has not expired"));
            assert_eq!(node.stat.owner, record.session, "{path}");
        }
        judged += record.certain.len() + record.gone.len() + record.sequential.len() + 1;
    }
    judged
}
