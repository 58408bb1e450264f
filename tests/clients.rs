//! Clients that were written for ZooKeeper, unmodified, doing real work on ostler: kazoo and its recipes, the Java client
//! and zkCli, Curator's recipes, the C client's shell.
//!
//! OSTLER_CLIENTS_AGAINST=java runs the same against ZooKeeper 3.9.5, which proves that the tests ask for no more than
//! ZooKeeper gives.

#[path = "clients/program.rs"]
mod program;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use program::{compiled, java, kind, run, source};
use support::peers;
use support::servers::{Options, Server, wait_for};

fn server() -> Server {
    Server::start(kind(), &Options::usual())
}

#[test]
#[ignore = "needs Python with kazoo: tools/peers.sh"]
fn kazoo_and_its_recipes_work() {
    let server = server();
    let mut command = Command::new(peers().join("venv/bin/python"));
    command.arg(source("recipes.py")).arg(server.address());
    assert!(run(command, "").ends_with("all recipes work\n"));
}

#[test]
#[ignore = "needs Java and ZooKeeper's jars: tools/peers.sh"]
fn the_java_client_works() {
    let server = server();
    let classes = compiled("JavaClient.java");
    let mut command = java(classes.path(), "JavaClient");
    command.arg(server.address());
    assert!(run(command, "").ends_with("all parts work\n"));
}

#[test]
#[ignore = "needs Java, ZooKeeper's and Curator's jars: tools/peers.sh"]
fn curator_and_its_recipes_work() {
    let server = server();
    let classes = compiled("CuratorRecipes.java");
    let mut command = java(classes.path(), "CuratorRecipes");
    command.arg(server.address());
    assert!(run(command, "").ends_with("all recipes work\n"));
}

#[test]
#[ignore = "needs Java and ZooKeeper's jars: tools/peers.sh"]
fn zkcli_works() {
    let server = server();
    let cli = || {
        let mut command = java(Path::new("."), "org.apache.zookeeper.ZooKeeperMain");
        command.args(["-server", &server.address()]);
        command
    };
    // One command on the command line.
    let mut one = cli();
    one.args(["create", "/cli", "first"]);
    run(one, "");
    let mut one = cli();
    one.args(["get", "/cli"]);
    assert!(run(one, "").lines().any(|line| line == "first"));
    // Many, one after the other, in one session.
    let script = "\
        set /cli second\n\
        get -s /cli\n\
        create -e /cli/e x\n\
        create -s /cli/s- x\n\
        create -c /cli/c\n\
        create -t 100000 /cli/t x\n\
        create -e -s /cli/es- x\n\
        create /cli/e/child x\n\
        ls /cli\n\
        ls -R /cli\n\
        stat /cli\n\
        setquota -n 3 /cli\n\
        listquota /cli\n\
        delquota /cli\n\
        addauth digest me:pw\n\
        create /cli/mine m auth::cdrwa\n\
        getAcl /cli/mine\n\
        setAcl /cli/mine world:anyone:r\n\
        getAllChildrenNumber /cli\n\
        getEphemerals\n\
        whoami\n\
        sync /cli\n\
        addWatch -m PERSISTENT_RECURSIVE /cli\n\
        set /cli third\n\
        removewatches /cli\n\
        delete -v 7 /cli\n\
        delete /none\n\
        config\n\
        deleteall /cli\n\
        ls /\n\
        version\n\
        quit\n";
    let said = run(cli(), script);
    for expected in [
        "second",
        "dataVersion = 1",
        "Created /cli/e",
        "Created /cli/s-0000000001",
        "Created /cli/c",
        "Created /cli/t",
        "Created /cli/es-0000000004",
        "Ephemerals cannot have children: /cli/e/child",
        "[c, e, es-0000000004, s-0000000001, t]",
        "/cli/es-0000000004",
        "numChildren = 5",
        "absolute path is /zookeeper/quota/cli/zookeeper_limits",
        "Output quota for /cli count=3,bytes=-1",
        "Output stat for /cli count=6,bytes=10",
        "Created /cli/mine",
        ": cdrwa",
        "digest: me",
        "type:NodeDataChanged path:/cli",
        "version No is not valid : /cli",
        "Node does not exist: /none",
        "[zookeeper]",
    ] {
        assert!(said.contains(expected), "zkCli didn't say {expected:?}:\n{said}");
    }
}

/// A program that is talked to line by line.
struct Shell {
    stdin: ChildStdin,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Shell {
    /// Sends a command and reads until all that it must bring has been said, in any order.
    fn say(&mut self, command: &str, expected: &[&str]) {
        writeln!(self.stdin, "{command}").expect("the shell listens");
        let mut since = Vec::new();
        while !expected.iter().all(|expected| since.iter().any(|line: &String| line.contains(expected))) {
            match self.lines.recv_timeout(Duration::from_secs(20)) {
                Ok(line) => since.push(line),
                Err(_) => panic!("{command}: {expected:?} expected, heard {since:#?}\nbefore: {:#?}", self.heard),
            }
        }
        self.heard.append(&mut since);
    }
}

#[test]
#[ignore = "needs Debian's zookeeper-bin: tools/peers.sh"]
fn the_c_clients_shell_works() {
    let server = server();
    // Line by line, though its output isn't a terminal.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "/usr/lib/zookeeper/bin/cli_mt", "-h", &server.address()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("stdbuf is there");
    let (send, lines) = channel();
    let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let errors = send.clone();
    let threads = [
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(send.send(line)))
        }),
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| drop(errors.send(line)))
        }),
    ];
    let mut shell = Shell { stdin: child.stdin.take().expect("piped"), lines, heard: Vec::new() };
    shell.say("create /c", &["Got a new session id", "name = /c"]);
    shell.say("get /c", &["value_len = 3", "new", "version=0"]);
    // Its get has left a watch.
    shell.say("set /c world", &["CHANGED_EVENT state = CONNECTED_STATE for path /c", "version=1"]);
    shell.say("get /c", &["value_len = 5", "world"]);
    shell.say("create2 +e /c/e", &["name = /c/e", "version=0", "ephemeralOwner = 1"]);
    shell.say("create +s /c/s-", &["name = /c/s-0000000001"]);
    shell.say("create +es /c/s-", &["name = /c/s-0000000002"]);
    shell.say("create +c /c/container", &["name = /c/container"]);
    shell.say("create +t=100000 /c/ttl", &["name = /c/ttl"]);
    shell.say("ls /c", &["e", "s-0000000001", "s-0000000002", "container", "ttl"]);
    shell.say("ls2 /c", &["container", "ephemeralOwner = 0"]);
    shell.say("wexists /later", &["-101"]);
    shell.say("create /later", &["CREATED_EVENT state = CONNECTED_STATE for path /later", "name = /later"]);
    shell.say("create /c/e/x", &["rc = -108"]);
    shell.say("create /c", &["rc = -110"]);
    shell.say("delete /c", &["rc = -111"]);
    shell.say("delete /none", &["rc = -101"]);
    shell.say("sync /c", &["name = /c"]);
    shell.say("delete /c/ttl", &["CHILD_EVENT state = CONNECTED_STATE for path /c", "/c/ttl: rc = 0"]);
    shell.say("aget /later", &["value_len = 3"]);
    shell.say("quit", &["Quitting..."]);
    let status = wait_for("the shell's end", Duration::from_secs(20), || child.try_wait().expect("our child"));
    assert!(status.success(), "{status}: {:#?}", shell.heard);
    threads.into_iter().for_each(|thread| thread.join().expect("it reads, no more"));
    // A second one, with one command, sees what the first left: not its ephemerals.
    let mut again = Command::new("/usr/lib/zookeeper/bin/cli_mt");
    again.args(["-h", &server.address(), "-c", "ls /c"]);
    let said = run(again, "");
    assert!(said.contains("s-0000000001") && !said.contains("s-0000000002") && !said.contains("\te\n"), "{said}");
}
