//! What a request costs, in numbers without noise: instructions of each hot path, counted by callgrind, and system calls
//! of a whole server, counted by strace. Time is not looked at: on a shared machine it says little, and least about the
//! change that made it longer.
//!
//! Held against `costs/reference.txt`; a cost that has grown by more than a tenth fails. OSTLER_COSTS=renew writes the
//! file anew, for a commit that means to change a cost and says why. Another compiler than the file's makes other
//! instructions of the same source: then the comparison is wider, and says so; system calls do not depend on it.
//!
//! Each count is a difference of two runs that differ only in how often they do the one thing: what a program does at
//! its start and end cancels out.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::conn::{Conn, Next, PATIENCE, request};
use support::jute::{Acl, Reader, Writer};
use support::servers::{self, Kind, Options, Server};

/// How much dearer a cost may get, and how much with a compiler that is not the reference's.
const MARGIN: f64 = 0.10;
const MARGIN_OTHER_COMPILER: f64 = 0.30;

/// The paths of tools/hot_paths.rs, and how often each is run: the second time three times as often.
const PATHS: &[(&str, u64)] =
    &[("read", 5_000), ("set", 2_000), ("create", 2_000), ("log", 2_000), ("fan-out", 20_000), ("unwatched", 5_000)];

/// Segments of requests in the shorter run of a count of system calls; the longer one has four times as many.
const SEGMENTS: usize = 250;

struct Reference {
    compiler: String,
    costs: BTreeMap<String, f64>,
}

fn reference_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/costs/reference.txt")
}

impl Reference {
    fn parse(text: &str) -> Reference {
        let mut reference = Reference { compiler: String::new(), costs: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("reference.txt: {line}"));
            match name {
                "compiler" => reference.compiler = value.into(),
                _ => drop(reference.costs.insert(name.into(), value.parse().expect("a number"))),
            }
        }
        reference
    }

    /// The file with these costs in place of its own of the same names.
    fn renewed(text: &str, compiler: Option<&str>, costs: &BTreeMap<String, f64>) -> String {
        let mut reference = Reference::parse(text);
        reference.costs.extend(costs.iter().map(|(name, cost)| (name.clone(), *cost)));
        let mut out: String =
            text.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        out.push_str(&format!("compiler: {}\n", compiler.unwrap_or(&reference.compiler)));
        for (name, cost) in &reference.costs {
            out.push_str(&format!("{name}: {cost:.4}\n"));
        }
        out
    }

    /// Lines about what has changed; those of costs that have grown too much are the second list.
    fn compare(&self, compiler: Option<&str>, costs: &BTreeMap<String, f64>) -> (Vec<String>, Vec<String>) {
        let (mut told, mut dearer) = (Vec::new(), Vec::new());
        let same = compiler.is_none_or(|compiler| compiler == self.compiler);
        let margin = if same { MARGIN } else { MARGIN_OTHER_COMPILER };
        if !same {
            told.push(format!(
                "the reference was made with {}, this is {}: compared with a margin of {:.0} % instead of {:.0} %",
                self.compiler,
                compiler.unwrap_or_default(),
                margin * 100.0,
                MARGIN * 100.0
            ));
        }
        for (name, &cost) in costs {
            let Some(&before) = self.costs.get(name) else {
                dearer.push(format!("{name}: {cost:.2}, and reference.txt has no such line"));
                continue;
            };
            let change = cost / before - 1.0;
            let line = format!("{name}: {cost:.2}, reference {before:.2} ({:+.1} %)", change * 100.0);
            if change > margin {
                dearer.push(line);
            } else if change < -margin {
                told.push(format!("{line}: renew the reference, or its slack hides the next loss"));
            } else {
                told.push(line);
            }
        }
        (told, dearer)
    }
}

/// Compares, or renews when asked to.
fn judge(compiler: Option<&str>, costs: &BTreeMap<String, f64>) {
    let text = std::fs::read_to_string(reference_path()).expect("tests/costs/reference.txt");
    if std::env::var("OSTLER_COSTS").as_deref() == Ok("renew") {
        std::fs::write(reference_path(), Reference::renewed(&text, compiler, costs)).expect("written");
        return;
    }
    let (told, dearer) = Reference::parse(&text).compare(compiler, costs);
    told.iter().for_each(|line| println!("{line}"));
    assert!(
        dearer.is_empty(),
        "dearer than they were:\n  {}\nIf that is meant: OSTLER_COSTS=renew cargo test --test costs -- --ignored \
         --test-threads=1, and say in the commit why",
        dearer.join("\n  ")
    );
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("rustc");
    String::from_utf8_lossy(&output.stdout).trim().into()
}

/// Builds tools/hot_paths.rs as it would run, and says where it is.
fn build_hot_paths() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--example", "hot_paths", "--message-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut built = text.lines().filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next());
    built.next_back().map(PathBuf::from).expect("the example's program")
}

fn instructions(program: &Path, path: &str, times: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([path, &times.to_string()])
        .output()
        .expect("valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let collected = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.unwrap_or_else(|| panic!("no count of instructions in:\n{text}"))
}

#[test]
#[ignore = "needs valgrind"]
fn no_hot_path_takes_a_tenth_more_instructions_than_it_did() {
    let program = build_hot_paths();
    let mut costs = BTreeMap::new();
    for &(path, times) in PATHS {
        let (few, many) = (instructions(&program, path, times), instructions(&program, path, 3 * times));
        costs.insert(format!("instructions, {path}"), (many - few) as f64 / (2 * times) as f64);
    }
    judge(Some(&compiler()), &costs);
}

/// System calls of a server that answers so many segments of `depth` requests from one connection.
fn system_calls(write: bool, depth: usize, segments: usize) -> BTreeMap<String, u64> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("counts");
    let mut options = Options::usual();
    options.under = ["strace", "-D", "-f", "-c", "-o"].map(String::from).into();
    options.under.push(output.display().to_string());
    let mut server = Server::start(Kind::Ostler, &options);
    let (mut conn, _) = Conn::session(server.port, 30_000).expect("a session");
    let value = [7; 100];
    let create = Writer::new().text("/node").bytes(Some(&value)).acls(Some(&Acl::open())).int(0);
    exchange(&mut conn, &request(1, 1, create), 1);
    let one = match write {
        true => request(2, 5, Writer::new().text("/node").bytes(Some(&value)).int(-1)),
        false => request(2, 4, Writer::new().text("/node").bool(false)),
    };
    let segment = one.repeat(depth);
    for _ in 0..segments {
        exchange(&mut conn, &segment, depth);
    }
    server.terminate();
    let text = servers::wait_for("strace to end", Duration::from_secs(20), || {
        let text = std::fs::read_to_string(&output).ok()?;
        text.lines().any(|line| line.ends_with(" total")).then_some(text)
    });
    counts(&text)
}

fn exchange(conn: &mut Conn, bytes: &[u8], replies: usize) {
    conn.send(bytes).expect("the server takes requests");
    for _ in 0..replies {
        let Next::Frame(frame) = conn.next(PATIENCE) else { panic!("no reply") };
        let mut reader = Reader(&frame);
        let (_, _, err) = (reader.int(), reader.long(), reader.int());
        assert_eq!(err, Some(0));
    }
}

/// The table of `strace -c`: calls by name. A column of errors is there only in lines that have some.
fn counts(table: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (calls, name) = (words.get(3)?.parse().ok()?, words.last()?);
        (*name != "total").then(|| (name.to_string(), calls))
    };
    table.lines().filter_map(line).collect()
}

#[test]
#[ignore = "needs strace"]
fn no_request_takes_more_system_calls_than_it_did() {
    let mut costs = BTreeMap::new();
    for (name, write, depth) in [
        ("get, 1 in flight", false, 1),
        ("get, 16 in flight", false, 16),
        ("set, 1 in flight", true, 1),
        ("set, 16 in flight", true, 16),
    ] {
        let (few, many) = (system_calls(write, depth, SEGMENTS), system_calls(write, depth, 4 * SEGMENTS));
        let each = |name: &String| {
            let difference = many[name] as f64 - few.get(name).copied().unwrap_or(0) as f64;
            difference / (3 * SEGMENTS * depth) as f64
        };
        let parts: Vec<(&String, f64)> = many.keys().map(|name| (name, each(name))).collect();
        let shown: Vec<String> =
            parts.iter().filter(|(_, each)| *each >= 0.01).map(|(name, each)| format!("{name} {each:.2}")).collect();
        println!("{name}: {}", shown.join(", "));
        costs.insert(format!("system calls, {name}"), parts.iter().map(|(_, each)| each).sum::<f64>());
    }
    judge(None, &costs);
}

#[test]
fn a_cost_that_has_grown_by_more_than_a_tenth_is_told_and_one_with_another_compiler_has_more_room() {
    let text = "# why\ncompiler: rustc 1\ninstructions, read: 100.00\nsystem calls, get: 3.00\n";
    let reference = Reference::parse(text);
    let costs = |cost: f64| BTreeMap::from([("instructions, read".to_string(), cost)]);
    assert!(reference.compare(Some("rustc 1"), &costs(109.0)).1.is_empty());
    assert_eq!(reference.compare(Some("rustc 1"), &costs(111.0)).1.len(), 1);
    assert!(reference.compare(Some("rustc 2"), &costs(111.0)).1.is_empty());
    assert_eq!(reference.compare(Some("rustc 2"), &costs(131.0)).1.len(), 1);
    assert_eq!(reference.compare(None, &BTreeMap::from([("new".to_string(), 1.0)])).1.len(), 1);
    let renewed = Reference::renewed(text, Some("rustc 2"), &costs(90.0));
    assert_eq!(renewed, "# why\ncompiler: rustc 2\ninstructions, read: 90.0000\nsystem calls, get: 3.0000\n");
}

#[test]
fn the_table_of_strace_is_read_with_and_without_errors() {
    let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                 ------ ----------- ----------- --------- --------- ----------------\n \
                 75.00    0.000300           3       100         2 read\n \
                 25.00    0.000100           1        50           sendto\n\
                 ------ ----------- ----------- --------- --------- ----------------\n\
                 100.00    0.000400                   150         2 total\n";
    assert_eq!(counts(table), BTreeMap::from([("read".to_string(), 100), ("sendto".to_string(), 50)]));
}
