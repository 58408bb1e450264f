//! Scripts by hand, for what a generator meets too seldom or what takes time: expiry, reaping, limits, every odd
//! character, the root locked.

use crate::requests::Path;
use crate::script::{After, Hello, Request, Step, op};
use crate::support::jute::{Acl, Writer, framed};

/// Builds a script, step by step.
#[derive(Default)]
pub struct Script {
    pub steps: Vec<Step>,
    xid: i32,
}

impl Script {
    pub fn connect(&mut self, slot: usize, timeout: i32) -> &mut Script {
        self.steps.push(Step::Connect { slot, hello: Hello::new(timeout), behind: Vec::new(), after: After::Open });
        self
    }

    pub fn send(&mut self, slot: usize, requests: Vec<Request>) -> &mut Script {
        self.steps.push(Step::Send { slot, requests, after: After::Open });
        self
    }

    pub fn last(&mut self, slot: usize, request: Request) -> &mut Script {
        self.steps.push(Step::Send { slot, requests: vec![request], after: After::Closed });
        self
    }

    pub fn request(&mut self, op: i32, body: Writer) -> Request {
        self.xid += 1;
        Request::new(self.xid, op, body, String::new())
    }

    pub fn create(&mut self, path: impl Into<Path>, flags: i32) -> Request {
        self.create_with(path, b"", &Acl::open(), flags)
    }

    pub fn create_with(&mut self, path: impl Into<Path>, data: &[u8], acls: &[Acl], flags: i32) -> Request {
        let body = Writer::new().bytes(Some(&path.into())).bytes(Some(data)).acls(Some(acls)).int(flags);
        self.request(op::CREATE2, body)
    }

    pub fn ttl(&mut self, path: &str, ttl: i64) -> Request {
        let body = Writer::new().text(path).text("").acls(Some(&Acl::open())).int(5).long(ttl);
        self.request(op::CREATE_TTL, body)
    }

    pub fn container(&mut self, path: &str) -> Request {
        let body = Writer::new().text(path).text("").acls(Some(&Acl::open())).int(4);
        self.request(op::CREATE_CONTAINER, body)
    }

    pub fn delete(&mut self, path: &str) -> Request {
        self.request(op::DELETE, Writer::new().text(path).int(-1))
    }

    pub fn read(&mut self, op: i32, path: impl Into<Path>, watch: bool) -> Request {
        self.request(op, Writer::new().bytes(Some(&path.into())).bool(watch))
    }

    pub fn path(&mut self, op: i32, path: &str) -> Request {
        self.request(op, Writer::new().text(path))
    }

    pub fn set_acl(&mut self, path: &str, acls: &[Acl]) -> Request {
        self.request(op::SET_ACL, Writer::new().text(path).acls(Some(acls)).int(-1))
    }

    pub fn set_data(&mut self, path: impl Into<Path>, data: &[u8]) -> Request {
        self.request(op::SET_DATA, Writer::new().bytes(Some(&path.into())).bytes(Some(data)).int(-1))
    }

    pub fn watch(&mut self, path: &str, mode: i32) -> Request {
        self.request(op::ADD_WATCH, Writer::new().text(path).int(mode))
    }

    pub fn auth(&mut self, text: &str) -> Request {
        let body = Writer::new().int(0).text("digest").text(text);
        Request { xid: -4, ..self.request(op::AUTH, body) }
    }

    pub fn close(&mut self, slot: usize) -> &mut Script {
        let close = self.request(op::CLOSE, Writer::new());
        self.last(slot, close)
    }
}

/// Sessions that fall silent, with and without their connection; what others hear of it; and that they can't come back.
pub fn expiry() -> Vec<Step> {
    let mut script = Script::default();
    script.connect(0, 60_000).connect(1, 1500).connect(2, 60_000);
    let (folder, watch, deep) = (script.create("/x", 0), script.watch("/x", 0), script.watch("/x", 1));
    script.send(0, vec![folder, watch, deep]);
    let mine = vec![script.create("/x/a", 1), script.create("/x/b-", 3), script.create("/plain", 0)];
    script.send(1, mine);
    let other = vec![script.create("/x/c", 1)];
    script.send(2, other);
    // The first loses its connection and is waited for: two ephemerals, each seen by both watches.
    script.steps.push(Step::Drop { slot: 1 });
    script.steps.push(Step::AwaitEvents { slot: 0, count: 4 });
    script.steps
}

/// The second part: what a session that is over is told, and one that falls silent on an open connection.
pub fn after_expiry() -> Vec<Step> {
    let mut script = Script::default();
    let again = Hello::again(1, 1500, 0);
    script.steps.push(Step::Connect { slot: 1, hello: again, behind: Vec::new(), after: After::Closed });
    script.connect(3, 1500);
    let mine = vec![script.create("/x/silent", 1), script.create("/x/silent/child", 0)];
    script.send(3, mine);
    script.steps.push(Step::AwaitClose { slot: 3 });
    let seen = vec![script.read(op::GET_CHILDREN2, "/x", false), script.read(op::EXISTS, "/plain", false)];
    script.send(0, seen);
    script.steps
}

/// Containers and nodes with a time to live go when they are due and empty, and not before.
pub fn reaping() -> Vec<Step> {
    let mut script = Script::default();
    script.connect(0, 60_000).connect(1, 60_000);
    let setup = vec![
        script.container("/never-used"),
        script.container("/c"),
        script.container("/c/inner"),
        script.create("/c/inner/leaf", 0),
        script.create("/p", 0),
        script.watch("/p", 0),
        script.watch("/c", 1),
    ];
    script.send(0, setup);
    // One after the other, so that their order is sure: the leaf by hand, its parent and then its parent by the server.
    let leaf = vec![script.delete("/c/inner/leaf")];
    script.send(1, leaf);
    script.steps.push(Step::AwaitEvents { slot: 0, count: 2 });
    let short = vec![script.ttl("/p/short", 400)];
    script.send(1, short);
    script.steps.push(Step::AwaitEvents { slot: 0, count: 1 });
    let with_child =
        vec![script.ttl("/p/parent", 400), script.create("/p/parent/child", 0), script.ttl("/p/long", 3_600_000)];
    script.send(1, with_child);
    let short = vec![script.ttl("/p/other", 400)];
    script.send(1, short);
    script.steps.push(Step::AwaitEvents { slot: 0, count: 1 });
    let child = vec![script.delete("/p/parent/child")];
    script.send(1, child);
    script.steps.push(Step::AwaitEvents { slot: 0, count: 1 });
    let seen = vec![
        script.read(op::GET_CHILDREN2, "/", false),
        script.read(op::GET_CHILDREN2, "/p", false),
        script.read(op::GET_DATA, "/p/long", false),
    ];
    script.send(0, seen);
    script.close(0).close(1);
    script.steps
}

/// The largest request, the one that is a byte larger, replies larger than either, and a listing of thousands.
pub fn limits() -> Vec<Step> {
    let mut script = Script::default();
    script.connect(0, 60_000).connect(1, 60_000).connect(2, 60_000);
    // Header 8, path 4 + 5, data 4, ACL 4 + 4 + 9 + 10, flags 4: the frame is exactly jute.maxbuffer.
    let data = vec![b'x'; 0xf_ffff - 52];
    let largest = vec![script.create_with("/bigg", &data, &Acl::open(), 0), script.read(op::GET_DATA, "/bigg", true)];
    script.send(0, largest);
    let mut larger = data;
    larger.push(b'y');
    let request = script.create_with("/bigh", &larger, &Acl::open(), 0);
    script.last(1, request);
    let parent = vec![script.create("/many", 0)];
    script.send(0, parent);
    for part in 0..60 {
        let some =
            (0..50).map(|n| script.create(format!("/many/child-with-a-long-name-{}", part * 50 + n), 0)).collect();
        script.send(2, some);
    }
    let seen = vec![
        script.read(op::GET_CHILDREN, "/many", true),
        script.read(op::GET_CHILDREN2, "/many", false),
        script.path(op::GET_ALL_CHILDREN_NUMBER, "/many"),
        script.read(op::EXISTS, "/bigh", false),
        script.set_data("/bigg", b""),
    ];
    script.send(0, seen);
    // A deep path, and a long one.
    let mut path = String::new();
    let mut deep = Vec::new();
    for _ in 0..200 {
        path.push_str("/d");
        deep.push(script.create(path.clone(), 0));
    }
    deep.push(script.create(format!("/{}", "n".repeat(100_000)), 0));
    deep.push(script.read(op::GET_CHILDREN, "/", false));
    script.send(0, deep);
    script.close(0).close(2);
    script.steps
}

/// Every character at which path rules change, in a name alone, between others, and read back.
pub fn characters() -> Vec<Step> {
    let mut script = Script::default();
    script.connect(0, 60_000);
    let parent = vec![script.create("/p", 0), script.watch("/p", 1)];
    script.send(0, parent);
    let mut chars: Vec<u32> = (0..0x180).collect();
    for edge in
        [0x7ff, 0x800, 0xd7ff, 0xe000, 0xf8ff, 0xf900, 0xfeff, 0xffef, 0xfff0, 0xfffd, 0xffff, 0x10000, 0x10ffff]
    {
        chars.extend([edge, edge + 1]);
    }
    for some in chars.chunks(40) {
        let mut requests = Vec::new();
        for char in some.iter().filter_map(|code| char::from_u32(*code)) {
            requests.push(script.create(format!("/p/a{char}b"), 0));
            requests.push(script.create(format!("/p/{char}"), 2));
            requests.push(script.set_data(format!("/p/a{char}b"), b"x"));
            requests.push(script.read(op::EXISTS, format!("/p/a{char}b"), true));
        }
        script.send(0, requests);
    }
    // Bytes that are no characters, wherever text goes.
    let odd: [&[u8]; 16] = [
        b"\xff",
        b"\xc0\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\xe2\x82x",
        b"\xed\xa0\x80",
        b"\xed\xa0\xbd\xed\xb8\x80",
        b"\xed\xb8\x80",
        b"\xf0\x9f\x98\x80",
        b"\xf0\x9f\x98",
        b"\xf0\x9f\xff",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xe0\x80\xaf\xe1\x80",
        b"\x80\xbf\xf5x\xfe",
    ];
    for bytes in odd {
        let path = [b"/p/", bytes].concat();
        let acl = Acl { perms: 31, scheme: Some(b"digest".to_vec()), id: Some([bytes, b":x"].concat()) };
        let open = Acl::new(31, "world", "anyone");
        let node = script.create_with("/p/acl-", b"", &[acl, open], 2);
        let requests = vec![
            script.create(path.clone(), 0),
            script.read(op::GET_DATA, path.clone(), true),
            script.request(op::SYNC, Writer::new().bytes(Some(&path))),
            script.request(op::GET_EPHEMERALS, Writer::new().bytes(Some(&path))),
            node,
        ];
        script.send(0, requests);
    }
    let names = vec![script.read(op::GET_CHILDREN2, "/p", false)];
    script.send(0, names);
    for n in 0..40 {
        let acl = vec![script.path(op::GET_ACL, &format!("/p/acl-{n:010}"))];
        script.send(0, acl);
    }
    script.close(0);
    script.steps
}

/// Access lists with nulls in them, before and behind every other entry, and addresses in every spelling.
pub fn access_lists() -> Vec<Step> {
    let mut script = Script::default();
    script.connect(0, 60_000);
    let auth = vec![script.auth("u:p"), script.create("/p", 0)];
    script.send(0, auth);
    let entry = |perms: i32, scheme: Option<&str>, id: Option<&str>| {
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        Acl { perms, scheme: bytes(scheme), id: bytes(id) }
    };
    let entries = [
        entry(31, Some("world"), Some("anyone")),
        entry(31, Some("digest"), Some("a:b")),
        entry(1, Some("digest"), Some("a:b")),
        entry(31, Some("auth"), Some("")),
        entry(31, None, None),
        entry(1, None, Some("anyone")),
        entry(31, None, Some("anyone")),
        entry(31, Some("world"), None),
        entry(31, Some("digest"), None),
        entry(1, Some("digest"), None),
        entry(31, Some("auth"), None),
        entry(31, Some("nope"), None),
        entry(31, Some("ip"), Some("1.2.3")),
    ];
    let all = || entries.iter();
    let ones = all().map(|a| vec![a.clone()]);
    let twos = all().flat_map(|a| all().map(move |b| vec![a.clone(), b.clone()]));
    let behind = |a: &Acl| -> Vec<Vec<Acl>> {
        let twos = all().flat_map(|b| all().map(move |c| (b, c)));
        twos.map(|(b, c)| vec![a.clone(), b.clone(), c.clone()]).collect()
    };
    // And where it is one of many.
    let many = all().map(|a| {
        let others = (0..10).map(|at| entry(31, Some("digest"), Some(&format!("{at}:x"))));
        others.chain([a.clone()]).collect::<Vec<_>>()
    });
    let addresses = [
        "::+1",
        ":::+1",
        "+1::",
        "::-1",
        "::-0",
        "::1",
        "::1+",
        "::+",
        "::00001",
        "::0001",
        "::10000",
        "::0x1",
        "1:2:3:4:5:6:7:+8",
        "1::2::3",
        ":::",
        "::",
        ":",
        "1:",
        ":1",
        "::1:",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7:8:9",
        "::1%lo",
        "::1.2.3.4",
        "::+ffff",
        "::ffff",
        "::-ffff",
        "::-8000",
        "::fffff",
        "::7fffffff",
        "::80000000",
        "::-80000000",
        "::+",
        "::++1",
        "1::-1:0",
        "::+fffff",
        "::+0001",
        "::+00001",
        "FE80::1",
        "::1/+1",
        "::+1/128",
        "1.2.3.+4",
        "+1.2.3.4",
        "1.2.3.0004",
        " 1.2.3.4",
        "::1 ",
        "1.2.3.4/32",
        "1.2.3.4/33",
        "::g",
        "1:2:3:4:5:6:7:8/64",
    ];
    let addresses = addresses.into_iter().map(|id| vec![entry(31, Some("ip"), Some(id))]);
    let nulls: Vec<Vec<Acl>> = ones.chain(twos).chain(all().flat_map(behind)).chain(many).collect();
    let addresses: Vec<Vec<Acl>> = addresses.collect();
    for lists in addresses.chunks(50).chain(nulls.chunks(50)) {
        let requests = lists.iter().map(|list| script.create_with("/p/n-", b"", list, 2)).collect();
        script.send(0, requests);
    }
    script.close(0);
    script.steps
}

/// The root and ZooKeeper's own nodes under ACLs that keep others out, and the super user who gets past them.
pub fn locked() -> Vec<Step> {
    let mut script = Script::default();
    script.connect(0, 60_000).connect(1, 60_000).connect(2, 60_000);
    let auths = [script.auth("super:secret"), script.auth("u:p")];
    let [super_user, user] = auths;
    script.send(0, vec![super_user]).send(1, vec![user]);
    let own = [Acl::new(31, "digest", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=")];
    let first = vec![script.create("/a", 0), script.create_with("/own", b"secret", &own, 0)];
    script.send(1, first);
    let watches = vec![script.watch("/", 1), script.watch("/", 0), script.read(op::EXISTS, "/own/x", true)];
    script.send(2, watches);
    for round in 0..2 {
        for path in ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config", "/own", "/a"] {
            for slot in [2, 1, 0] {
                let child = if path == "/" { "/x".to_string() } else { format!("{path}/x") };
                let requests = vec![
                    script.read(op::GET_DATA, path, false),
                    script.read(op::GET_CHILDREN2, path, true),
                    script.path(op::GET_ACL, path),
                    script.path(op::GET_ALL_CHILDREN_NUMBER, path),
                    script.set_data(path, b"d"),
                    script.create(child.clone(), 0),
                    script.delete(&child),
                    script.delete(path),
                ];
                script.send(slot, requests);
            }
            if round == 0 {
                let lock = vec![script.set_acl(path, &own)];
                script.send(0, lock);
            }
        }
    }
    let open = vec![script.set_acl("/", &Acl::open())];
    script.send(0, open);
    script.close(0).close(1).close(2);
    script.steps
}

/// Connections without a session: four-letter words in every spelling, and first frames that are none.
pub fn strangers() -> Vec<Step> {
    let words = "ruok isro gtmk srvx RUOK ruo\n conf cons crst dirs dump envi hash mntr srst stat wchc wchp wchs stmk kill reqs wtch";
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    // What these say differs by itself; that they say it is compared elsewhere.
    let loud = ["conf", "cons", "dirs", "dump", "envi", "mntr", "stat"];
    for word in words.split(' ').filter(|word| !loud.contains(word)) {
        inputs.push(word.as_bytes().to_vec());
        inputs.push([word.as_bytes(), b"\n"].concat());
        inputs.push([word.as_bytes(), b" and more than a word"].concat());
    }
    inputs.push([b"stmk" as &[u8], &7i64.to_be_bytes()].concat());
    inputs.push(b"gtmk".to_vec());
    inputs.push([b"stmk" as &[u8], &(-1i64).to_be_bytes()].concat());
    inputs.push(b"gtmk".to_vec());
    inputs.push(vec![0xff, 0xf4, 0xff, 0xfd]);
    inputs.push(vec![0xff, 0xf4, 0xff, 0xfd, 0x06]);
    for length in [i32::MIN, -1, 0, 0x10_0000, i32::MAX] {
        inputs.push(length.to_be_bytes().to_vec());
    }
    let hello = Writer::new().int(0).long(0).int(30_000).long(0).bytes(Some(&[0; 16]));
    for keep in 0..hello.0.len() {
        inputs.push(framed(&hello.0[..keep]));
    }
    inputs.into_iter().map(|bytes| Step::Stranger { bytes }).collect()
}

/// The words on a server that allows only one of them.
pub fn refused_words() -> Vec<Step> {
    let words = "ruok isro gtmk stmk conf cons crst dirs dump envi hash mntr srst stat wchc wchp wchs none";
    words.split(' ').map(|word| Step::Stranger { bytes: word.as_bytes().to_vec() }).collect()
}
