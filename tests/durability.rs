//! Nothing that was acknowledged is lost: the server is killed again and again under pipelined writes, and what was
//! acknowledged is looked for after each restart. And, since a killed process leaves its pages to the kernel, a trace
//! of system calls shows that replies wait for the sync that covers them.
//!
//! OSTLER_KILL_ROUNDS (default 20; CI says 200), OSTLER_KILL_SEED, and OSTLER_DURABILITY_AGAINST=java, which asks the
//! same of ZooKeeper and so tests the tests.

mod support;
#[path = "durability/trace.rs"]
mod trace;
#[path = "durability/writer.rs"]
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ostler::random::Rng;

use support::conn::{Conn, Granted, Next, PATIENCE, granted, hello, request};
use support::jute::{Acl, Reader, Stat, Writer};
use support::servers::{Kind, Options, Server};
use support::{servers, setting};
use writer::{Asked, Record};

const WRITERS: usize = 3;
const OPEN_ENDED: u64 = u64::MAX;

fn against() -> Kind {
    match std::env::var("OSTLER_DURABILITY_AGAINST").as_deref() {
        Ok("java") => Kind::Java,
        _ => Kind::Ostler,
    }
}

/// A client that asks one thing at a time, for looking around after a restart.
struct Inspector {
    conn: Conn,
    xid: i32,
}

impl Inspector {
    fn ask(&mut self, op: i32, body: Writer) -> (i64, i32, Vec<u8>) {
        self.send(op, body);
        self.answer(self.xid)
    }

    fn send(&mut self, op: i32, body: Writer) {
        self.xid += 1;
        self.conn.send(&request(self.xid, op, body)).expect("the server takes requests");
    }

    fn answer(&mut self, to: i32) -> (i64, i32, Vec<u8>) {
        loop {
            let Next::Frame(frame) = self.conn.next(PATIENCE) else { panic!("no answer to request {to}") };
            let mut reader = Reader(&frame);
            let (Some(xid), Some(zxid), Some(err)) = (reader.int(), reader.long(), reader.int()) else {
                panic!("a frame of {} bytes", frame.len())
            };
            if xid != -1 {
                assert_eq!(xid, to);
                return (zxid, err, reader.0.to_vec());
            }
        }
    }

    fn data(&mut self, path: &str) -> Option<(String, Stat)> {
        let (_, err, body) = self.ask(4, Writer::new().text(path).bool(false));
        if err == -101 {
            return None;
        }
        assert_eq!(err, 0, "getData {path}");
        let mut reader = Reader(&body);
        let data = reader.bytes().flatten().unwrap_or_default();
        Some((String::from_utf8(data).expect("we wrote text"), reader.stat().expect("a Stat")))
    }

    fn children(&mut self, path: &str) -> Vec<String> {
        let (_, err, body) = self.ask(8, Writer::new().text(path).bool(false));
        assert_eq!(err, 0, "getChildren {path}");
        let names = Reader(&body).list(Reader::bytes).flatten().unwrap_or_default();
        names.into_iter().map(|name| String::from_utf8(name.unwrap_or_default()).expect("we wrote text")).collect()
    }

    /// Deletes a node with its children.
    fn clear(&mut self, path: &str) {
        // All at once: they share their syncs.
        let names = self.children(path);
        let first = self.xid + 1;
        for name in &names {
            self.send(2, Writer::new().text(&format!("{path}/{name}")).int(-1));
        }
        for (xid, name) in (first..).zip(&names) {
            assert_eq!(self.answer(xid).1, 0, "delete {path}/{name}");
        }
        assert_eq!(self.ask(2, Writer::new().text(path).int(-1)).1, 0, "delete {path}");
    }

    fn create(&mut self, path: &str, flags: i32) -> i32 {
        let body = Writer::new().text(path).text("").acls(Some(&Acl::open())).int(flags);
        self.ask(1, body).1
    }
}

fn inspector(port: u16) -> Inspector {
    let (conn, _) = Conn::session(port, 30_000).expect("a session");
    Inspector { conn, xid: 0 }
}

/// Takes a session up again on the restarted server, as a client that has seen `zxid`.
fn resume(port: u16, session: &Granted, zxid: i64) -> Conn {
    let mut conn = Conn::open(port).expect("a connection");
    conn.send(&hello(zxid, 30_000, session.session, &session.password, Some(0))).expect("it takes the request");
    let Next::Frame(frame) = conn.next(PATIENCE) else {
        panic!("the session was not taken up: the server is behind zxid {zxid}")
    };
    let again = granted(&frame).expect("a ConnectResponse");
    assert_eq!(again.session, session.session, "the session survives, its client has seen zxid {zxid}");
    assert!(again.timeout > 0);
    conn
}

/// Holds what a writer was told against what the restarted server has.
fn check(round: u64, writer: usize, record: &Record, inspector: &mut Inspector) {
    let base = writer::base(round, writer);
    let what = format!("round {round}, writer {writer}, {} of {} acknowledged", record.acked.len(), record.sent.len());
    let mut previous = 0;
    for ack in &record.acked {
        assert!(ack.zxid > previous, "{what}: zxid {} after {previous}", ack.zxid);
        previous = ack.zxid;
    }
    // Each node holds the index of the request that made it.
    let mut found: BTreeMap<usize, (String, Stat)> = BTreeMap::new();
    let mut suffixes = Vec::new();
    for name in inspector.children(&base) {
        let (data, stat) = inspector.data(&format!("{base}/{name}")).expect("it was just listed");
        if name == "counter" {
            continue;
        }
        let index: usize = data.parse().expect("an index");
        if let Some(suffix) = name.strip_prefix("s-") {
            suffixes.push((index, suffix.parse::<u32>().expect("a sequence number")));
        }
        assert!(found.insert(index, (name, stat)).is_none(), "{what}: request {index} happened twice");
    }
    suffixes.sort();
    assert!(suffixes.windows(2).all(|pair| pair[0].1 < pair[1].1), "{what}: sequence numbers in order of requests");
    let counter = inspector.data(&format!("{base}/counter"));
    let counted: Option<usize> = counter.as_ref().map(|(data, _)| data.parse().expect("an index"));
    // The last request that left a trace. All before it must have, acknowledged or not: one client's writes are a
    // prefix of what it sent.
    let last = found.keys().last().copied().max(counted).unwrap_or(0);
    for (index, asked) in record.sent.iter().enumerate() {
        let ack = record.acked.get(index);
        let must = ack.is_some() || index < last;
        match asked {
            Asked::Counter if must => assert!(counted.is_some(), "{what}: request {index}: the counter is lost"),
            Asked::Sequential | Asked::Multi if must => {
                let Some((name, stat)) = found.get(&index) else {
                    panic!("{what}: request {index} ({asked:?}) is lost")
                };
                let Some(ack) = ack else { continue };
                assert_eq!(stat.czxid, ack.zxid, "{what}: request {index}: zxid as acknowledged");
                if let Some(path) = &ack.path {
                    assert_eq!(*path, format!("{base}/{name}"), "{what}: request {index}: name as acknowledged");
                }
            }
            _ => {}
        }
        if let (Asked::Counter | Asked::Multi, Some(_), Some(counted)) = (asked, ack, counted) {
            assert!(counted >= index, "{what}: the counter stands at {counted}, request {index} was acknowledged");
        }
    }
    // The counter and the nodes of multis go together.
    if let Some(counted) = counted
        && record.sent.get(counted) == Some(&Asked::Multi)
    {
        assert!(found.contains_key(&counted), "{what}: half of multi {counted}");
    }
}

#[test]
fn every_acknowledged_write_survives_kill_9_in_order() {
    let rounds = setting("OSTLER_KILL_ROUNDS", 20);
    let seed = setting("OSTLER_KILL_SEED", 1);
    let mut rng = Rng::new(seed);
    let options = Options::usual().with("snapCount=2000");
    let mut server = Server::start(against(), &options);
    let port = server.port;
    let mut records: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
    let mut sessions: Vec<Option<Granted>> = vec![None; WRITERS];
    let mut seen = 0;
    let mut acknowledged = 0;
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let mut inspector = inspector(port);
        for writer in 0..WRITERS {
            assert_eq!(inspector.create(&writer::base(round, writer), 0), 0, "round {round}: its folder is new");
        }
        // Sometimes at once, sometimes after a snapshot's worth of writes.
        let limit = match rng.below(4) {
            0 => rng.below(20),
            1 => rng.below(1000),
            _ => rng.below(200),
        };
        let acks = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let conn = match &sessions[writer] {
                    Some(session) => resume(port, session, seen),
                    None => {
                        let (conn, granted) = Conn::session(port, 30_000).expect("a session");
                        sessions[writer] = Some(granted);
                        conn
                    }
                };
                let acks = acks.clone();
                let depth = 1 + rng.below(40) as usize;
                std::thread::spawn(move || writer::write(conn, round, writer, depth, OPEN_ENDED, &acks))
            })
            .collect();
        servers::wait_for("acknowledgements", Duration::from_secs(60), || {
            let stuck = threads.iter().all(|thread| thread.is_finished());
            (acks.load(Ordering::Relaxed) >= limit || stuck).then_some(())
        });
        assert!(server.is_running(), "round {round}: the server ended by itself:\n{}", server.log());
        server.kill();
        let ended: Vec<Record> = threads.into_iter().map(|thread| thread.join().expect("a writer ends")).collect();
        for record in &ended {
            acknowledged += record.acked.len();
            seen = record.acked.last().map_or(seen, |ack| seen.max(ack.zxid));
        }
        slowest = slowest.max(server.restart());

        let mut inspector = self::inspector(port);
        let (zxid, _, _) = inspector.ask(3, Writer::new().text("/").bool(false));
        assert!(zxid >= seen, "round {round}: zxid {seen} was acknowledged, the server is at {zxid}");
        for (writer, record) in ended.iter().enumerate() {
            check(round, writer, record, &mut inspector);
            let session = sessions[writer].as_ref().expect("it wrote");
            if record.acked.len() > writer::EPHEMERAL {
                let path = writer::ephemeral(round, writer);
                let (_, stat) = inspector.data(&path).unwrap_or_else(|| panic!("round {round}: {path} is lost"));
                assert_eq!(stat.owner, session.session);
            }
        }
        records.insert(round, ended);
        // Every tenth round stays to the end; of the others the last few, so that the tree doesn't grow for ever.
        if let Some(old) = round.checked_sub(5).filter(|old| old % 10 != 0) {
            records.remove(&old);
            (0..WRITERS).for_each(|writer| inspector.clear(&writer::base(old, writer)));
        }
    }
    // Old rounds again, by now through snapshots and purged logs.
    let mut inspector = inspector(port);
    for (round, ended) in &records {
        for (writer, record) in ended.iter().enumerate() {
            check(*round, writer, record, &mut inspector);
        }
    }
    println!("{rounds} rounds, {acknowledged} writes acknowledged, none lost; slowest start {slowest:?}");
    assert!(acknowledged > 0);
}

#[test]
#[ignore = "needs strace"]
fn no_reply_leaves_before_the_sync_that_covers_it_has_returned() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("trace");
    let calls = "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,fsync,fdatasync,msync,pwritev2";
    let words = ["strace", "-D", "-f", "-yy", "-xx", "-s", "300000", "-e", calls, "-o"];
    let mut options = Options::usual();
    options.under = words.iter().map(|word| word.to_string()).collect();
    options.under.push(output.display().to_string());
    let mut server = Server::start(against(), &options);
    let port = server.port;
    let mut inspector = inspector(port);
    let acks = Arc::new(AtomicU64::new(0));
    // One at a time, then pipelined by several at once.
    for (round, depth, writers) in [(0, 1, 1), (1, 16, WRITERS)] {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                assert_eq!(inspector.create(&writer::base(round, writer), 0), 0);
                let (conn, _) = Conn::session(port, 30_000).expect("a session");
                let acks = acks.clone();
                std::thread::spawn(move || writer::write(conn, round, writer, depth, 150, &acks))
            })
            .collect();
        for thread in threads {
            let record = thread.join().expect("a writer ends");
            assert_eq!(record.acked.len(), record.sent.len(), "all were answered");
        }
    }
    server.terminate();
    let text = servers::wait_for("strace to end", Duration::from_secs(20), || {
        let text = std::fs::read_to_string(&output).ok()?;
        text.contains("+++ exited").then_some(text)
    });
    let report = trace::check(&text, port).unwrap_or_else(|problem| panic!("{problem}"));
    println!("{report:?}");
    assert!(report.write_replies >= 600, "{report:?}");
    assert!(report.syncs >= 150, "one at a time needs a sync each: {report:?}");
}
