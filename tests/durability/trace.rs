//! Reads strace's output and holds it against one rule: the reply to a write leaves only after a sync that began
//! after the request had arrived has returned.
//!
//! The rule needs no knowledge of the server: a record can't be in the log before its request has been read, so a sync
//! that covers it begins later than that. Requests and replies are put together from the bytes of each connection.
//! Lines are in the order in which the tracer saw calls begin and end; it holds a thread until it has written its line,
//! so what causes what is in order, across threads too.
//!
//! A call that another thread's line interrupts is written as two, `<unfinished ...>` and `<... resumed>`.

use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub write_replies: usize,
    pub syncs: usize,
}

/// Opcodes of writes: what they answer must be on disk.
const WRITES: [i32; 9] = [1, 2, 5, 7, 14, 15, 19, 21, -11];

#[derive(Default)]
struct Connection {
    input: Vec<u8>,
    output: Vec<u8>,
    greeted: (bool, bool),
    /// Requests without a reply: whether they write, and when they had arrived.
    due: VecDeque<(bool, usize)>,
}

/// Checks a whole trace. `port` is the server's.
pub fn check(trace: &str, port: u16) -> Result<Report, String> {
    let mut report = Report::default();
    let mut connections: BTreeMap<String, Connection> = BTreeMap::new();
    // By thread: the beginning of its unfinished call, and when it began.
    let mut unfinished: BTreeMap<&str, (String, usize)> = BTreeMap::new();
    // When the last good sync began, of those that have ended.
    let mut synced_since = 0;
    for (now, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let (call, began) = if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            // What is sent is handed over when the call begins.
            if let Some(key) = connection(start, port)
                && is_send(start)
            {
                sent(connections.entry(key).or_default(), start, None, synced_since, &mut report, now)?;
            }
            unfinished.insert(thread, (start.trim_end().to_string(), now));
            continue;
        } else if let Some(end) = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            let Some((start, began)) = unfinished.remove(thread) else { continue };
            if is_send(&start) {
                continue;
            }
            (format!("{start}{}", end.1), began)
        } else {
            (rest.to_string(), now)
        };
        let name = call.split('(').next().unwrap_or_default();
        let writes_through = name == "pwritev2" && call.contains("RWF_DSYNC");
        if writes_through || matches!(name, "fsync" | "fdatasync" | "msync") {
            if if writes_through { returned(&call).is_some_and(|count| count > 0) } else { call.ends_with("= 0") } {
                report.syncs += 1;
                synced_since = synced_since.max(began);
            }
            continue;
        }
        let Some(key) = connection(&call, port) else { continue };
        let connection = connections.entry(key).or_default();
        if is_send(&call) {
            sent(connection, &call, returned(&call), synced_since, &mut report, now)?;
        } else if returned(&call).is_some_and(|count| count > 0) {
            let bytes = bytes(&call);
            connection.input.extend_from_slice(&bytes);
            connection.requests(now);
        }
    }
    Ok(report)
}

fn is_send(call: &str) -> bool {
    ["write(", "writev(", "sendto(", "sendmsg("].iter().any(|name| call.starts_with(name))
}

/// The client's end, where the call is on a connection of the server's port.
fn connection(call: &str, port: u16) -> Option<String> {
    let start = call.find("<TCP")?;
    let name = call[start..].split('>').collect::<Vec<_>>();
    // <TCP:[127.0.0.1:port->127.0.0.1:other]>
    let local = name.first()?.trim_end_matches('-');
    local.ends_with(&format!(":{port}")).then(|| name.get(1).map(|peer| peer.trim_end_matches(']').to_string()))?
}

fn returned(call: &str) -> Option<usize> {
    call.rsplit_once("= ")?.1.trim().parse().ok()
}

/// All bytes of the quoted strings in a call (several in a vector), as `-xx` writes them.
fn bytes(call: &str) -> Vec<u8> {
    let mut found = Vec::new();
    for (at, part) in call.split('"').enumerate() {
        if at % 2 == 1 {
            found.extend(part.split("\\x").skip(1).filter_map(|hex| u8::from_str_radix(hex, 16).ok()));
        }
    }
    found
}

fn sent(
    connection: &mut Connection,
    call: &str,
    count: Option<usize>,
    synced_since: usize,
    report: &mut Report,
    now: usize,
) -> Result<(), String> {
    let mut bytes = bytes(call);
    if let Some(count) = count {
        bytes.truncate(count);
    }
    connection.output.extend_from_slice(&bytes);
    while let Some(frame) = frame(&mut connection.output) {
        if !std::mem::replace(&mut connection.greeted.1, true) {
            continue;
        }
        if frame.get(..4) == Some(&(-1i32).to_be_bytes()) {
            continue;
        }
        let Some((writes, arrived)) = connection.due.pop_front() else {
            return Err(format!("line {now}: a reply to no request"));
        };
        if !writes {
            continue;
        }
        report.write_replies += 1;
        if synced_since <= arrived {
            return Err(format!(
                "line {}: a reply leaves to a request that arrived at line {}; the last sync that had returned began \
                 at line {}",
                now + 1,
                arrived + 1,
                synced_since + 1
            ));
        }
    }
    Ok(())
}

impl Connection {
    fn requests(&mut self, now: usize) {
        while let Some(frame) = frame(&mut self.input) {
            if std::mem::replace(&mut self.greeted.0, true) {
                let op = frame.get(4..8).map_or(0, |op| i32::from_be_bytes([op[0], op[1], op[2], op[3]]));
                self.due.push_back((WRITES.contains(&op), now));
            }
        }
    }
}

/// Takes one whole frame off the front. A four-letter word isn't one: it stays, and nothing follows it.
fn frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = i32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let frame = bytes.get(4..4 + usize::try_from(length).ok()?)?.to_vec();
    bytes.drain(..4 + frame.len());
    Some(frame)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn example(lines: &[(&str, &str, &[u8], &str)]) -> String {
    let socket = "7<TCP:[127.0.0.1:2181->127.0.0.1:40000]>";
    let line = |(thread, call, bytes, end): &(&str, &str, &[u8], &str)| {
        format!("{thread}  {call}({socket}, \"{}\", 100, 0, NULL, NULL{end}\n", hex(bytes))
    };
    lines
        .iter()
        .map(|one| if one.2.is_empty() { format!("{}  {}{}\n", one.0, one.1, one.3) } else { line(one) })
        .collect()
}

#[test]
fn a_reply_that_leaves_too_early_is_found() {
    let hello: &[u8] = &[0, 0, 0, 1, 9];
    let create: &[u8] = &[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 1];
    let reply: &[u8] = &[0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0];
    let begin =
        [("1", "recvfrom", hello, ") = 5"), ("1", "sendto", hello, ") = 5"), ("1", "recvfrom", create, ") = 12")];
    let sync = ("2", "fdatasync(9</data/log>", &[] as &[u8], ") = 0");
    let starts = ("2", "fdatasync(9</data/log>", &[] as &[u8], " <unfinished ...>");
    let ends = ("2", "<... fdatasync resumed>", &[] as &[u8], ") = 0");
    let send = ("1", "sendto", reply, ") = 20");

    let good = example(&[begin[0], begin[1], begin[2], sync, send]);
    assert_eq!(check(&good, 2181), Ok(Report { write_replies: 1, syncs: 1 }));
    let good = example(&[begin[0], begin[1], begin[2], starts, ends, send]);
    assert_eq!(check(&good, 2181), Ok(Report { write_replies: 1, syncs: 1 }));
    let call = "pwritev2(9</data/log>, [{iov_base=\"\\x01\", iov_len=1}], 1, 512, RWF_DSYNC";
    let good = example(&[begin[0], begin[1], begin[2], ("2", call, &[], ") = 1"), send]);
    assert_eq!(check(&good, 2181), Ok(Report { write_replies: 1, syncs: 1 }));

    let none = example(&[begin[0], begin[1], begin[2], send]);
    assert!(check(&none, 2181).is_err());
    let before = example(&[begin[0], begin[1], sync, begin[2], send]);
    assert!(check(&before, 2181).is_err(), "a sync from before the request");
    let under_way = example(&[begin[0], begin[1], begin[2], starts, send, ends]);
    assert!(check(&under_way, 2181).is_err(), "the sync has not returned");
    let began_before = example(&[begin[0], begin[1], starts, begin[2], ends, send]);
    assert!(check(&began_before, 2181).is_err(), "the sync began before the request came");
}
