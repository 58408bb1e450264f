//! The load generator: every workload against an ostler server, and against servers that answer wrongly.
//!
//! A generator that does not notice a wrong answer measures nothing. So a stranger stands between it and a real server and
//! changes one thing; the generator has to end with an error that names it.
//!
//! Runs on: the test's thread; generator and servers are child processes.

#[path = "bench/liar.rs"]
mod liar;
mod support;

use liar::{Change, liar};
use std::process::{Command, Output};
use support::servers::{Kind, Options, Server, ostler};

/// Runs `ostler bench` with these words.
fn bench(words: &str) -> Output {
    let output = Command::new(ostler()).arg("bench").args(words.split_whitespace()).output();
    output.expect("ostler is there")
}

/// The same, which has to end well; what it wrote as JSON.
fn measured(words: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("result.json");
    let output = bench(&format!("{words} --json {}", json.display()));
    assert!(output.status.success(), "{words}: {}", text(&output));
    std::fs::read_to_string(json).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// The first number of that name.
fn number(json: &str, name: &str) -> f64 {
    let key = format!("\"{name}\":");
    let at = json.find(&key).unwrap_or_else(|| panic!("no {name} in {json}")) + key.len();
    let end = json[at..].find([',', '}', ']']).unwrap();
    json[at..at + end].parse().unwrap_or_else(|_| panic!("{name} is {}", &json[at..at + end]))
}

fn server() -> Server {
    Server::start(Kind::Ostler, &Options::usual())
}

#[test]
fn every_steady_workload_is_answered_and_leaves_nothing_behind() {
    let server = server();
    let workloads =
        ["get", "exists", "children", "children-change", "set", "create", "create-delete", "multi", "mixed", "ping"];
    for workload in workloads {
        let json = measured(&format!(
            "{workload} --server {} --connections 3 --depth 4 --requests 500 --keys 50 --pid {}",
            server.address(),
            server.id()
        ));
        assert_eq!((number(&json, "answered"), number(&json, "wrong")), (500.0, 0.0), "{workload}: {json}");
        assert!(number(&json, "per_second") > 0.0 && number(&json, "cpu_us") > 0.0, "{json}");
        assert!(number(&json, "p50_us") <= number(&json, "p99_us"), "{json}");
    }
    let words = support::conn::word(server.port, "mntr").unwrap();
    // The root, /zookeeper, its config and quota.
    assert!(words.contains("zk_znode_count\t5\n") || words.contains("zk_znode_count\t4\n"), "{words}");
}

#[test]
fn delete_deletes_each_znode_once() {
    let server = server();
    let json = measured(&format!("delete --server {} --connections 3 --keys 1000", server.address()));
    assert_eq!(number(&json, "answered"), 1000.0);
}

#[test]
fn a_chroot_and_several_servers_in_one_address_are_fine() {
    let server = server();
    let (address, other) = (server.address(), server.address());
    let json =
        measured(&format!("set --server {address},{other}/below --connections 4 --requests 100 --keys 10 --keep"));
    assert_eq!(number(&json, "answered"), 100.0);
    let kept = Command::new(ostler()).args(["shell", "-server", &address, "ls", "/below/ostler-bench"]).output();
    assert!(text(&kept.unwrap()).contains("keys"));
}

#[test]
fn an_open_loop_keeps_its_rate_and_counts_from_when_requests_were_due() {
    let server = server();
    let json = measured(&format!(
        "mixed --server {} --rate 500 --seconds 1 --warmup 0.2 --connections 2 --threads 2 --distribution zipfian",
        server.address()
    ));
    let rate = number(&json, "per_second");
    assert!((495.0..=505.0).contains(&rate), "{json}");
}

#[test]
fn several_servers_are_compared_in_turn_with_redis_among_them_and_a_page_is_written() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let (html, csv) = (folder.path().join("result.html"), folder.path().join("result.csv"));
    let output = bench(&format!(
        "mixed --compare {}=ostler={} --compare redis://127.0.0.1:{}=redis --rounds 2 --seconds 0.3 --warmup 0.1 \
         --connections 2 --depth 2 --keys 20 --html {} --csv {}",
        server.address(),
        server.id(),
        liar::redis(""),
        html.display(),
        csv.display()
    ));
    let text = text(&output);
    assert!(output.status.success() && text.contains("ostler to redis: throughput x "), "{text}");
    let order: Vec<&str> = text.lines().filter(|line| line.contains(" round ")).map(str::trim_start).collect();
    assert!(order[0].starts_with("ostler round 0") && order[1].starts_with("redis round 0"), "{text}");
    assert!(order[2].starts_with("ostler round 1") && order[3].starts_with("redis round 1"), "{text}");
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("<svg") && page.contains("redis") && page.ends_with("</html>\n"));
    let csv = std::fs::read_to_string(csv).unwrap();
    assert_eq!(csv.lines().count(), 5, "{csv}");
    let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert!(columns.iter().all(|&count| count == columns[0]), "{csv}");
}

#[test]
fn a_wrong_value_of_redis_is_noticed() {
    let words = format!("get --protocol redis --server 127.0.0.1:{} --requests 200 --keys 10", liar::redis("7"));
    let output = bench(&words);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("other data than what was written"), "{}", text(&output));
}

/// Runs a workload through a liar; what it said, having failed.
fn caught(server: &Server, workload: &str, lie: liar::Lie) -> String {
    let port = liar(server.port, 20, lie);
    // What the lies change is in no reply of the preparation: it is the load that has to notice.
    let words = "--connections 1 --depth 4 --requests 2000 --keys 100";
    let output = bench(&format!("{workload} --server 127.0.0.1:{port} {words}"));
    assert_eq!(output.status.code(), Some(1), "{workload}: {}", text(&output));
    text(&output)
}

fn with(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// A reply to a getData of the load: header, 100 bytes of data, Stat.
fn is_data(frame: &[u8]) -> bool {
    frame.len() == 16 + 4 + 100 + 68
}

#[test]
fn wrong_answers_are_caught_and_named() {
    let server = server();
    let lies: [(&str, &str, liar::Lie); 13] = [
        ("get", "reply to xid 9999 where", |frame| {
            is_data(frame).then(|| Change::Other(with(frame, 0, &9999i32.to_be_bytes())))
        }),
        ("get", "the zxid went back", |frame| {
            // One zxid of the load is far ahead: the next, which is true, is behind it.
            (is_data(frame) && frame[3] == 50).then(|| Change::Other(with(frame, 4, &[0, 0, 1])))
        }),
        ("get", "other data than what was written", |frame| {
            is_data(frame).then(|| Change::Other(with(frame, 16 + 4 + 7, b"z")))
        }),
        ("get", "other data than what was written", |frame| {
            is_data(frame).then(|| Change::Other(with(frame, 16 + 4 + 99, b"z")))
        }),
        ("get", "bytes end too early", |frame| {
            is_data(frame).then(|| Change::Other(frame[..frame.len() - 1].to_vec()))
        }),
        ("get", "bytes too many", |frame| is_data(frame).then(|| Change::Other([frame, b"x"].concat()))),
        ("get", "data of Some(99) bytes where 100", |frame| {
            let short = |frame: &[u8]| [&frame[..16], &99i32.to_be_bytes(), &frame[20..119], &frame[120..]].concat();
            is_data(frame).then(|| Change::Other(short(frame)))
        }),
        ("get", "a Stat with 5 bytes", |frame| {
            is_data(frame).then(|| Change::Other(with(frame, 16 + 104 + 52, &5i32.to_be_bytes())))
        }),
        ("get", "answered with NoNode", |frame| {
            is_data(frame).then(|| Change::Other(with(&frame[..16], 12, &(-101i32).to_be_bytes())))
        }),
        ("get", "closed the connection", |frame| is_data(frame).then_some(Change::Truncate)),
        ("get", "reply to xid", |frame| (is_data(frame) && frame[3] == 50).then_some(Change::Drop)),
        ("get", "reply to xid", |frame| (is_data(frame) && frame[3] == 50).then(|| Change::Before(frame.to_vec()))),
        ("set", "answered with BadVersion", |frame| {
            (frame.len() == 16 + 68).then(|| Change::Other(with(&frame[..16], 12, &(-103i32).to_be_bytes())))
        }),
    ];
    for (workload, due, lie) in lies {
        let said = caught(&server, workload, lie);
        assert!(said.contains(due), "{due:?} was due of {workload}:\n{said}");
    }
}

#[test]
fn what_cannot_be_measured_says_why() {
    let server = server();
    let refused = [
        ("get --server 127.0.0.1:1", "refused"),
        ("get --server nowhere.invalid:1", "nowhere.invalid"),
        ("get --connections 0", "at least one"),
        ("get --root /", "--root"),
        ("get --compare a:1=only", "second"),
        ("get --compare etcd://a:1=x --compare b:1=y", "--compare etcd://a:1=x"),
        ("multi --protocol redis --server 127.0.0.1:1", "no counterpart"),
    ];
    for (words, due) in refused {
        let output = bench(words);
        assert!(!output.status.success() && text(&output).contains(due), "{words}: {}", text(&output));
    }
    // A file that can't be written is told as well.
    let words = format!("ping --server {} --requests 10 --json /nonexistent/x", server.address());
    assert!(text(&bench(&words)).contains("/nonexistent/x"));
}
