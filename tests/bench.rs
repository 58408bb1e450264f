//! The load generator: every workload against an ostler server, and against servers that answer wrongly.
//!
//! A generator that does not notice a wrong answer measures nothing. So a stranger stands between it and a real server and
//! changes one thing; the generator has to end with an error that names it.
//!
//! Runs on: the test's thread; generator and servers are child processes.

#[path = "bench/liar.rs"]
mod liar;
mod support;

use liar::{Change, liar, liar_to};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::servers::{Kind, Options, Server, ostler, wait_for};

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
    let before = znodes(&server);
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
        // A session that is left would expire in the middle of what is measured next.
        assert_eq!(sessions(&server), 0, "{workload}");
    }
    assert_eq!(znodes(&server), before);
}

#[test]
fn delete_deletes_each_znode_once() {
    let server = server();
    let json = measured(&format!("delete --server {} --connections 3 --keys 1000", server.address()));
    assert_eq!(number(&json, "answered"), 1000.0);
}

/// The number of znodes that a server has.
fn znodes(server: &Server) -> u64 {
    figure(server, "zk_znode_count")
}

/// The number of sessions that have neither ended nor expired.
fn sessions(server: &Server) -> u64 {
    figure(server, "zk_global_sessions")
}

fn figure(server: &Server, name: &str) -> u64 {
    let words = support::conn::word(server.port, "mntr").unwrap();
    let line = words.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    line.unwrap_or_else(|| panic!("no {name} in {words}")).parse().unwrap()
}

#[test]
fn watchers_are_told_of_every_change_once() {
    let server = server();
    let before = znodes(&server);
    for (workload, watches) in [("watch-one --connections 7", 7.0), ("watch-many --keys 100 --connections 3", 100.0)] {
        let words = format!("{workload} --server {} --requests 4 --depth 8 --pid {}", server.address(), server.id());
        let json = measured(&words);
        assert_eq!((number(&json, "answered"), number(&json, "rounds")), (4.0 * watches, 4.0), "{json}");
        assert!(number(&json, "last_ms") >= number(&json, "first_ms") && number(&json, "cpu_us") > 0.0, "{json}");
        assert_eq!(sessions(&server), 0, "{workload}");
    }
    assert_eq!(znodes(&server), before);
}

#[test]
fn idle_sessions_are_kept_alive_and_their_memory_is_told() {
    let server = server();
    let before = znodes(&server);
    let words =
        format!("idle --server {} --seconds 10 --session-timeout 12000 --pid {}", server.address(), server.id());
    let json = measured(&format!("{words} --connections 30 --watches 20"));
    // Each session has to ping at least once in ten seconds of a timeout of twelve.
    assert!(number(&json, "answered") >= 30.0, "{json}");
    for figure in ["bytes_per_session", "bytes_per_watch", "wakeups_per_second", "cpu_ms_per_second", "anonymous_mb"] {
        number(&json, figure);
    }
    let json = measured(&format!("{words} --connections 0"));
    assert!(number(&json, "anonymous_mb") > 0.0 && !json.contains("bytes_per_session"), "{json}");
    assert_eq!(sessions(&server), 0);
    assert_eq!(znodes(&server), before);
}

#[test]
fn sessions_come_back_with_their_watches_after_a_cut() {
    let server = server();
    let json = measured(&format!("storm --server {} --connections 40 --watches 10", server.address()));
    assert_eq!((number(&json, "answered"), number(&json, "expired")), (40.0, 0.0), "{json}");
    assert!(number(&json, "all_back_ms") >= number(&json, "first_back_ms"), "{json}");
    assert_eq!(sessions(&server), 0);
}

#[test]
fn a_command_beside_the_load_is_told_whose_turn_it_is() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let mut command = Command::new(ostler());
    command.args("bench get --rounds 1 --seconds 0.3 --warmup 0 --connections 1 --keys 5".split_whitespace());
    for name in ["one", "two"] {
        command.arg("--compare").arg(format!("{}={name}", server.address()));
    }
    let status = command.arg("--during").arg(format!("echo > {}/{{name}}", folder.path().display())).status();
    assert!(status.unwrap().success());
    for name in ["one", "two"] {
        let there = || folder.path().join(name).exists().then_some(());
        wait_for("what the command writes", Duration::from_secs(30), there);
    }
}

/// Starts the generator on a server that its `--during` kills, and starts that server again as soon as it is gone, after
/// `meanwhile`; what came out of it.
fn through_a_crash(mut server: Server, words: &str, meanwhile: impl FnOnce(&Server)) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("result.json");
    let words = format!("{words} --server {} --json {}", server.address(), json.display());
    let mut command = Command::new(ostler());
    command.arg("bench").args(words.split_whitespace()).arg("--during").arg(format!("kill -KILL {}", server.id()));
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the server to be killed", Duration::from_secs(30), || (!server.is_running()).then_some(()));
    server.kill();
    meanwhile(&server);
    server.restart();
    let output = running.wait_with_output().unwrap();
    (output, std::fs::read_to_string(json).unwrap_or_default())
}

#[test]
fn sessions_come_back_with_their_watches_after_a_crash() {
    let (output, json) = through_a_crash(server(), "storm --connections 40 --watches 10", |_| {});
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!((number(&json, "answered"), number(&json, "expired")), (40.0, 0.0), "{json}");
}

#[test]
fn a_crash_is_a_gap_in_the_writes_and_every_acknowledged_one_is_there_afterwards() {
    let (output, json) = through_a_crash(server(), "fail-over --seconds 9 --connections 4 --depth 8", |_| {});
    assert!(output.status.success(), "{}", text(&output));
    assert!(number(&json, "gap_ms") > 1.0 && number(&json, "acknowledged") > 10.0, "{json}");
    assert_eq!(number(&json, "checked"), number(&json, "acknowledged"));
    assert!(json.contains("connection lost"), "{json}");
}

#[test]
fn acknowledged_writes_that_are_lost_are_told() {
    let empty = |server: &Server| std::fs::remove_dir_all(server.data()).unwrap();
    let (output, _) = through_a_crash(server(), "fail-over --seconds 9 --connections 4", empty);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("wrong answers") && text(&output).contains("is gone from"), "{}", text(&output));
}

#[test]
fn a_fill_makes_its_shape_and_churns_it() {
    let server = server();
    let before = znodes(&server);
    let words = format!("fill --server {} --keys 3000 --churn 500 --pid {}", server.address(), server.id());
    let json = measured(&words);
    assert_eq!(number(&json, "answered"), 3000.0, "{json}");
    assert!(number(&json, "bytes_per_znode") > 0.0 && number(&json, "churn_per_second") > 0.0, "{json}");
    number(&json, "churned_bytes_per_znode");
    assert_eq!(znodes(&server), before);
}

#[test]
fn recorded_requests_are_replayed_and_other_answers_are_counted() {
    let (one, other) = (server(), server());
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("requests");
    let mut recorder = Command::new(ostler());
    let words = format!("bench record --listen 127.0.0.1:0 --server {} --seconds 10 --log", one.address());
    let mut recorder = recorder.args(words.split_whitespace()).arg(&log).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(recorder.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address = line.split(" at ").nth(1).unwrap().split(' ').next().unwrap().to_string();
    let mut shell = Command::new(ostler()).args(["shell", "-server", &address]).stdin(Stdio::piped()).spawn().unwrap();
    // All in one session, so that the replay has them in this order too, however late it connects.
    shell.stdin.take().unwrap().write_all(b"create /r x\nset /r y\nget /r\nget /missing\n").unwrap();
    shell.wait().unwrap();
    assert!(recorder.wait().unwrap().success());
    let replay = format!("replay --log {} --server", log.display());
    // At the recorded pace, on a server that is as the first one was: the same answers.
    let json = measured(&format!("{replay} {}", other.address()));
    assert!(number(&json, "answered") >= 4.0 && number(&json, "recorded_connections") == 1.0, "{json}");
    assert!(json.contains("\"errors\":{}"), "{json}");
    // Once more: what has been created is there already. As fast as it goes.
    let json = measured(&format!("{replay} {} --speed 0", other.address()));
    assert!(json.contains("answered with NodeExists (-110), recorded was ok (0)"), "{json}");
    assert_eq!(sessions(&other), 0);
    let garbage = format!("replay --log {} --server {}", other.data().join("../zoo.cfg").display(), other.address());
    let output = bench(&garbage);
    assert!(output.status.code() == Some(2) && text(&output).contains("not a file of requests"), "{}", text(&output));
    let output = bench(&format!("{replay} {} --speed 1e-30", other.address()));
    assert!(output.status.code() == Some(2) && text(&output).contains("at --speed"), "{}", text(&output));
}

#[test]
fn a_connection_that_gets_no_reply_is_noticed_beside_busy_ones() {
    let server = server();
    // The first connection makes the znodes; then come those of the load.
    let port = liar_to(server.port, 0, |number| (number == 3).then_some(|_| Some(Change::Drop)));
    let words = "get --connections 6 --depth 2 --keys 5 --seconds 600 --warmup 0 --patience 5";
    let output = bench(&format!("{words} --server 127.0.0.1:{port}"));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("no reply within --patience"), "{}", text(&output));
}

#[test]
fn a_pause_between_requests_is_not_held_against_the_server() {
    let server = server();
    let words = "get --rate 1 --burst 10 --patience 8 --connections 2 --seconds 12 --warmup 0 --keys 5";
    let json = measured(&format!("{words} --server {}", server.address()));
    assert_eq!(number(&json, "answered"), 20.0, "{json}");

    // A recording of one connection: a session, and two reads of the root with a pause of ten seconds between them.
    let mut log = b"ostler-requests 1\n".to_vec();
    let mut record = |at_us: u64, frame: &[u8]| {
        log.extend([&[1, 0, 0, 0, 0][..], &at_us.to_be_bytes(), &(frame.len() as u32).to_be_bytes(), frame].concat());
    };
    let mut hello = vec![0; 44];
    hello[12..16].copy_from_slice(&30_000i32.to_be_bytes());
    hello[24..28].copy_from_slice(&16i32.to_be_bytes());
    record(0, &hello);
    for (xid, at_us) in [(1u8, 0), (2, 10_000_000)] {
        record(at_us, &[0, 0, 0, xid, 0, 0, 0, 3, 0, 0, 0, 1, b'/', 0]);
    }
    let path = server.data().join("requests");
    std::fs::write(&path, log).unwrap();
    let json = measured(&format!("replay --patience 8 --log {} --server {}", path.display(), server.address()));
    assert_eq!(number(&json, "answered"), 2.0, "{json}");
}

#[test]
fn idle_sessions_that_are_lost_or_get_no_answer_are_noticed() {
    let server = server();
    let lost: liar::Lie = |frame| frame.starts_with(&(-2i32).to_be_bytes()).then_some(Change::Truncate);
    let silent: liar::Lie = |frame| frame.starts_with(&(-2i32).to_be_bytes()).then_some(Change::Drop);
    for (lie, due) in [(lost, "an idle session lost its connection"), (silent, "a ping had no answer within")] {
        // Only one of them.
        let port = liar_to(server.port, 0, move |number| (number == 1).then_some(lie));
        let words = "idle --connections 3 --seconds 8 --session-timeout 12000 --patience 5";
        let output = bench(&format!("{words} --server 127.0.0.1:{port}"));
        assert!(output.status.code() == Some(1) && text(&output).contains(due), "{}", text(&output));
    }
}

#[test]
fn events_that_nobody_asked_for_are_noticed() {
    let server = server();
    let lie: liar::Lie = |frame| {
        // The last digit of an event's path.
        frame.starts_with(&[0xff; 4]).then(|| Change::Other([&frame[..frame.len() - 1], b"9"].concat()))
    };
    let twice: liar::Lie = |frame| frame.starts_with(&[0xff; 4]).then(|| Change::Before(frame.to_vec()));
    for (lie, due) in [(lie, "which nobody watches"), (twice, "more often than it watches")] {
        let port = liar(server.port, 0, lie);
        let words = "watch-many --connections 1 --keys 5 --requests 2 --depth 1";
        let output = bench(&format!("{words} --server 127.0.0.1:{port}"));
        assert!(!output.status.success() && text(&output).contains(due), "{}", text(&output));
    }
    // One watcher is told nothing and another one twice: the number of events is right.
    let drop: liar::Lie = |frame| frame.starts_with(&[0xff; 4]).then_some(Change::Drop);
    let port = liar_to(server.port, 0, move |number| match number {
        1 => Some(drop),
        2 => Some(twice),
        _ => None,
    });
    let output = bench(&format!("watch-one --connections 3 --requests 2 --patience 5 --server 127.0.0.1:{port}"));
    assert!(output.status.code() == Some(1) && text(&output).contains("more often than"), "{}", text(&output));
}

/// What is checked is what ZooKeeper does: it has to pass.
#[test]
#[ignore = "needs Java and ZooKeeper's jars: tools/peers.sh"]
fn zookeeper_itself_answers_every_workload_as_it_is_expected_to() {
    let server = Server::start(Kind::Java, &Options::usual());
    let steady = ["get", "exists", "children", "children-change", "set", "create", "create-delete", "multi", "mixed"];
    let sessions =
        ["watch-one", "watch-many", "idle --watches 5", "storm --watches 5", "fill --churn 100", "fail-over"];
    for workload in steady.iter().chain(&["ping", "delete"]).chain(&sessions) {
        // Requests bound a steady load and the rounds of watchers; seconds the others.
        let bound =
            if workload.starts_with("idle") || *workload == "fail-over" { "--seconds 1" } else { "--requests 300" };
        let keys = if workload.contains("watches") { "" } else { "--keys 100" };
        let json = measured(&format!("{workload} --server {} --connections 3 {bound} {keys}", server.address()));
        assert_eq!(number(&json, "wrong"), 0.0, "{workload}: {json}");
    }
}

#[test]
fn the_scripts_that_start_the_peers_say_how_they_are_used() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/compare.sh");
    let output = Command::new("bash").arg(script).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("start NAME") && !text(&output).contains("set -u"), "{}", text(&output));
    let unknown = Command::new("bash").args([script, "start", "nobody"]).output().unwrap();
    assert!(!unknown.status.success() && text(&unknown).contains("no such server"), "{}", text(&unknown));
}

#[test]
fn a_reader_that_has_gone_away_is_no_error() {
    let mut server = server();
    let unread = |words: &str| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(ostler()).args(words.split_whitespace()).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{words}: {}", text(&output));
    };
    unread("version");
    unread(&format!("bench ping --server {} --requests 10", server.address()));
    server.terminate();
    unread(&format!("log --records {}", server.data().join("version-2").display()));
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
    for words in ["--distribution zipfian", "--burst 5"] {
        let json = measured(&format!(
            "mixed --server {} --rate 500 --seconds 1 --warmup 0.2 --connections 2 --threads 2 {words}",
            server.address()
        ));
        // All that was due in that second, however late it was asked or answered.
        let rate = number(&json, "per_second");
        assert!((495.0..=505.0).contains(&rate), "{json}");
    }
}

#[test]
fn several_servers_are_compared_in_turn_with_redis_among_them_and_a_page_is_written() {
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let (html, csv) = (folder.path().join("result.html"), folder.path().join("result.csv"));
    let output = bench(&format!(
        "mixed --compare {}=ostler={} --compare redis://127.0.0.1:{}=redis --rounds 2 --requests 200 \
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
        // Which of the two the generator sees depends on whether it was about to write.
        ("get", "closed the connection|Broken pipe|reset by peer", |frame| is_data(frame).then_some(Change::Truncate)),
        ("get", "reply to xid", |frame| (is_data(frame) && frame[3] == 50).then_some(Change::Drop)),
        ("get", "reply to xid", |frame| (is_data(frame) && frame[3] == 50).then(|| Change::Before(frame.to_vec()))),
        ("set", "answered with BadVersion", |frame| {
            (frame.len() == 16 + 68).then(|| Change::Other(with(&frame[..16], 12, &(-103i32).to_be_bytes())))
        }),
    ];
    for (workload, due, lie) in lies {
        let said = caught(&server, workload, lie);
        assert!(due.split('|').any(|due| said.contains(due)), "{due:?} was due of {workload}:\n{said}");
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
        // Ids of processes end below this one.
        ("get --server 127.0.0.1:1 --pid 4194304", "there is no process 4194304"),
        ("get --compare a:1=x=4194304 --compare b:1=y", "there is no process 4194304"),
    ];
    for (words, due) in refused {
        let output = bench(words);
        assert!(!output.status.success() && text(&output).contains(due), "{words}: {}", text(&output));
    }
    // A file that can't be written is told as well.
    let words = format!("ping --server {} --requests 10 --json /nonexistent/x", server.address());
    assert!(text(&bench(&words)).contains("/nonexistent/x"));
}
