//! Where ostler must not do as ZooKeeper 3.9.5 does: requests that end that server for good, that get past permissions,
//! or that it answers as chance has it. The list, with reasons, is at the head of `oracle.rs`.

mod support;

use support::conn::{Conn, Next, PATIENCE, request};
use support::jute::{Acl, Reader, Writer};
use support::servers::{Kind, Options, Server};

struct Client {
    conn: Conn,
    xid: i32,
}

/// A reply: zxid, code, the rest.
type Reply = (i64, i32, Vec<u8>);

impl Client {
    fn new(server: &Server) -> Client {
        let (conn, _) = Conn::session(server.port, 30_000).expect("a session");
        Client { conn, xid: 0 }
    }

    /// Sends requests in one segment, and waits for as many replies.
    fn ask_all(&mut self, requests: &[(i32, Writer)]) -> Vec<Reply> {
        let mut bytes = Vec::new();
        for (op, body) in requests {
            self.xid += 1;
            bytes.extend_from_slice(&request(self.xid, *op, body.clone()));
        }
        self.conn.send(&bytes).expect("the server takes them");
        requests.iter().map(|(op, _)| self.reply().unwrap_or_else(|| panic!("no reply to op {op}"))).collect()
    }

    fn ask(&mut self, op: i32, body: Writer) -> Reply {
        self.ask_all(&[(op, body)]).remove(0)
    }

    fn reply(&mut self) -> Option<Reply> {
        loop {
            let Next::Frame(frame) = self.conn.next(PATIENCE) else { return None };
            let mut reader = Reader(&frame);
            let (xid, zxid, err) = (reader.int()?, reader.long()?, reader.int()?);
            if xid != -1 {
                return Some((zxid, err, reader.0.to_vec()));
            }
        }
    }

    fn exists(&mut self, path: &str) -> bool {
        self.ask(3, Writer::new().text(path).bool(false)).1 == 0
    }

    fn data(&mut self, path: &str) -> String {
        let (_, err, body) = self.ask(4, Writer::new().text(path).bool(false));
        assert_eq!(err, 0, "getData {path}");
        String::from_utf8_lossy(&Reader(&body).bytes().flatten().unwrap_or_default()).into_owned()
    }
}

fn create(path: &str, data: &str, flags: i32) -> Writer {
    Writer::new().text(path).text(data).acls(Some(&Acl::open())).int(flags)
}

fn set(path: &str, data: &str) -> Writer {
    Writer::new().text(path).text(data).int(-1)
}

fn ostler() -> Server {
    Server::start(Kind::Ostler, &Options::usual())
}

#[test]
fn a_ttl_below_zero_with_a_mode_that_has_none_is_a_bad_argument() {
    let server = ostler();
    let mut client = Client::new(&server);
    for flags in 0..5 {
        for ttl in [-1, -2, i64::MIN] {
            let (_, err, _) = client.ask(21, create("/ttl", "", flags).long(ttl));
            assert_eq!(err, -8, "flags {flags}, ttl {ttl}");
        }
    }
    assert!(!client.exists("/ttl"));
}

#[test]
fn opcodes_that_are_the_servers_own_are_refused_and_the_connection_closed() {
    let server = ostler();
    let mut watcher = Client::new(&server);
    assert_eq!(watcher.ask(1, create("/kept", "", 0)).1, 0);
    for (op, body) in [(20, Writer::new().text("/kept")), (-10, Writer::new().int(30_000))] {
        let mut client = Client::new(&server);
        let (zxid, err, rest) = client.ask(op, body);
        assert_eq!((zxid, err, rest.len()), (-1, -6, 0), "op {op}");
        assert_eq!(client.conn.next(PATIENCE), Next::End, "op {op}: the connection is closed");
    }
    assert!(watcher.exists("/kept"));
}

#[test]
fn a_quota_on_the_root_and_a_garbled_count_do_no_harm() {
    let mut server = ostler();
    let mut client = Client::new(&server);
    let all = [
        ("/zookeeper/quota/zookeeper_limits", "count=1,bytes=1"),
        ("/zookeeper/quota/zookeeper_stats", "count=0,bytes=0"),
        ("/a", "1"),
        ("/zookeeper/quota/a", ""),
        ("/zookeeper/quota/a/zookeeper_limits", "count=100,bytes=100"),
        ("/zookeeper/quota/a/zookeeper_stats", "count=0,bytes=0"),
    ];
    for (path, data) in all {
        assert_eq!(client.ask(1, create(path, data, 0)).1, 0, "{path}");
    }
    assert_eq!(client.data("/zookeeper/quota/a/zookeeper_stats"), "count=1,bytes=1");
    for (round, garbage) in ["no number", "count=x,bytes=y", "", ";;;", "count=99999999999999999999"].iter().enumerate()
    {
        assert_eq!(client.ask(5, set("/zookeeper/quota/a/zookeeper_stats", garbage)).1, 0);
        assert_eq!(client.ask(1, create(&format!("/a/{round}"), "22", 0)).1, 0, "after {garbage:?}");
        assert_eq!(client.data("/zookeeper/quota/a/zookeeper_stats"), "count=0,bytes=1", "after {garbage:?}");
        assert_eq!(client.ask(5, set("/a", "333")).1, 0, "after {garbage:?}");
    }
    // And a restart comes to the same.
    server.kill();
    server.restart();
    let mut client = Client::new(&server);
    assert_eq!(client.ask(1, create("/a/last", "", 0)).1, 0);
    assert_eq!(client.data("/zookeeper/quota/a/zookeeper_stats"), "count=1,bytes=1");
}

#[test]
fn an_owner_whose_name_is_outside_the_basic_plane_has_what_is_his_after_a_restart() {
    let mut server = ostler();
    let session = |server: &Server| {
        let mut client = Client::new(server);
        let auth = request(-4, 100, Writer::new().int(0).text("digest").text("\u{1f600}:pw"));
        client.conn.send(&auth).expect("the server takes it");
        assert_eq!(client.reply().map(|reply| reply.1), Some(0));
        client
    };
    let mut client = session(&server);
    let own = Writer::new().text("/own").text("mine").acls(Some(&[Acl::new(31, "auth", "")])).int(0);
    assert_eq!(client.ask(1, own).1, 0);
    let acl = client.ask(6, Writer::new().text("/own"));
    assert_eq!(client.data("/own"), "mine");
    server.kill();
    server.restart();
    let mut client = session(&server);
    assert_eq!(client.data("/own"), "mine");
    assert_eq!(client.ask(6, Writer::new().text("/own")).2, acl.2);
    assert_eq!(Client::new(&server).ask(4, Writer::new().text("/own").bool(false)).1, -102);
}

#[test]
fn a_write_behind_a_set_acl_is_checked_against_the_new_list() {
    let server = ostler();
    let mut client = Client::new(&server);
    let read_only = [Acl::new(1, "world", "anyone")];
    for n in 0..50 {
        let path = format!("/acl-{n}");
        let lock = Writer::new().text(&path).acls(Some(&read_only)).int(-1);
        let requests =
            [(1, create(&path, "", 0)), (7, lock), (5, set(&path, "x")), (1, create(&format!("{path}/x"), "", 0))];
        let codes: Vec<i32> = client.ask_all(&requests).iter().map(|reply| reply.1).collect();
        assert_eq!(codes, [0, 0, -102, -102], "{path}");
    }
}

#[test]
fn a_container_asked_for_with_an_ephemerals_flag_takes_children_at_once() {
    let server = ostler();
    let mut client = Client::new(&server);
    for n in 0..50 {
        let path = format!("/container-{n}");
        let requests = [(19, create(&path, "", 1)), (1, create(&format!("{path}/child"), "", 0))];
        let codes: Vec<i32> = client.ask_all(&requests).iter().map(|reply| reply.1).collect();
        assert_eq!(codes, [0, 0], "{path}");
    }
}

#[test]
fn a_write_that_cannot_be_decoded_takes_no_zxid_and_leaves_nothing_in_the_log() {
    let mut server = ostler();
    let mut client = Client::new(&server);
    let (first, err, _) = client.ask(1, create("/a", "", 0));
    assert_eq!(err, 0);
    for op in [1, 2, 5, 7, 15, 19, 21] {
        let (zxid, err, rest) = client.ask(op, Writer::new().int(3));
        assert_eq!((zxid, err, rest.len()), (first, -5, 0), "op {op}");
    }
    let (second, err, _) = client.ask(1, create("/b", "", 0));
    assert_eq!((second, err), (first + 1, 0));
    server.kill();
    server.restart();
    let mut client = Client::new(&server);
    assert!(client.exists("/a") && client.exists("/b"));
}

/// Clients are refused before they have taken the last descriptors: the log's next segments, and snapshots, need some.
#[test]
fn clients_never_take_the_descriptors_that_the_log_needs() {
    const LIMIT: usize = 120;
    let mut options = Options::usual();
    options.under = ["sh", "-c", &format!("ulimit -n {LIMIT}; exec \"$@\""), "sh"].map(str::to_owned).to_vec();
    options.config.push("snapCount=20".into());
    let server = Server::start(Kind::Ostler, &options);
    let mut client = Client::new(&server);
    let idle: Vec<_> = (0..2 * LIMIT).map(|_| std::net::TcpStream::connect(("127.0.0.1", server.port))).collect();
    assert_eq!(client.ask(1, create("/w", "", 0)).1, 0);
    // The first segments are of 1, 4 and 16 MiB.
    let large = "x".repeat(500_000);
    for _ in 0..60 {
        assert_eq!(client.ask(5, set("/w", &large)).1, 0);
    }
    assert!(server.log().contains("ulimit -n"), "{}", server.log());
    drop(idle);
    assert_eq!(Client::new(&server).data("/w").len(), large.len());
}
