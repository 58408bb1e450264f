//! Four-letter words, held side by side. Both servers have the same clients, so what they say must be the same, but
//! for addresses, times, versions of the machine, sizes of files, and lines whose order is open.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::side::Side;
use crate::support::conn::word;
use crate::support::servers::wait_for;

/// Values of mntr that depend on the clients and the tree alone.
const EXACT: [&str; 8] = [
    "zk_server_state",
    "zk_num_alive_connections",
    "zk_outstanding_requests",
    "zk_znode_count",
    "zk_watch_count",
    "zk_ephemerals_count",
    "zk_approximate_data_size",
    "zk_global_sessions",
];

/// Compares every word, and says what differs. Asks again for a while: what a closed connection leaves behind goes
/// away a little later.
/// `sent`: whether the numbers of replies are compared; ZooKeeper's go astray with requests that it can't decode or
/// carry out, so with generated ones.
pub fn compare(left: &Side, right: &Side, sent: bool) -> Vec<String> {
    let words = "ruok isro srvr stat conf cons wchs wchc wchp dump dirs envi mntr hash gtmk crst srst";
    let mut differences = Vec::new();
    for one in words.split(' ') {
        let mut tries = 0;
        let difference = wait_for(one, Duration::from_secs(30), || {
            tries += 1;
            let (expected, found) = (said(left, one, sent), said(right, one, sent));
            // A garbled quota breaks off the Java server's mntr.
            let broken = one == "mntr" && expected.len() < 100;
            match expected == found || broken {
                true => Some(None),
                false if tries < 100 => None,
                false => Some(Some(format!("{one}:\n{}", apart(&expected, &found)))),
            }
        });
        differences.extend(difference);
    }
    differences
}

fn apart(expected: &[String], found: &[String]) -> String {
    let (one, other): (BTreeSet<_>, BTreeSet<_>) = (expected.iter().collect(), found.iter().collect());
    let mut text = String::new();
    one.difference(&other).for_each(|line| text += &format!("  - {line}\n"));
    other.difference(&one).for_each(|line| text += &format!("  + {line}\n"));
    if text.is_empty() { format!("  in another order:\n  - {expected:?}\n  + {found:?}\n") } else { text }
}

/// The answer, line by line, in the form that must be equal.
fn said(side: &Side, one: &str, sent: bool) -> Vec<String> {
    let text = match word(side.server.port, one) {
        Ok(text) => text,
        Err(error) => return vec![format!("no answer: {error}")],
    };
    let text = side.named(&text);
    let lines = text.split('\n').map(String::from);
    match one {
        "ruok" | "isro" | "gtmk" | "wchs" => lines.collect(),
        "srvr" => lines.map(srvr).collect(),
        "stat" => {
            let mut clients: Vec<String> = Vec::new();
            let mut rest = Vec::new();
            for line in lines {
                match line.starts_with(" /") {
                    // Probes come and go, and are counted; ours stay.
                    true if !line.contains("/slot ") => {}
                    true => clients.push(cons(line, sent)),
                    false => rest.push(srvr(line)),
                }
            }
            clients.sort();
            rest.append(&mut clients);
            rest
        }
        "conf" => lines.map(conf).collect(),
        "cons" => {
            let mut lines: Vec<String> =
                lines.filter(|line| line.is_empty() || line.contains("/slot ")).map(|line| cons(line, sent)).collect();
            lines.sort();
            lines
        }
        "wchc" | "wchp" => blocks(lines),
        "dump" => dump(lines),
        "dirs" | "envi" => lines.map(|line| key(&line)).collect(),
        "mntr" => mntr(lines),
        // Digests depend on times; and a write that can't be decoded repeats a zxid in the Java server's log.
        "hash" => {
            let mut zxids: Vec<String> = lines.map(|line| key(&line)).collect();
            zxids.dedup();
            zxids
        }
        _ => lines.collect(),
    }
}

fn key(line: &str) -> String {
    line.split([':', '=', '\t']).next().unwrap_or_default().to_string()
}

fn srvr(line: String) -> String {
    let open = ["Zookeeper version", "Latency min/avg/max", "Received", "Sent", "Connections"];
    let name = key(&line);
    if open.contains(&name.as_str()) { name } else { line }
}

fn conf(line: String) -> String {
    let open = ["clientPort", "dataDir", "dataDirSize", "dataLogDir", "dataLogSize"];
    let name = key(&line);
    if open.contains(&name.as_str()) { name } else { line }
}

/// What a client did is compared, when and how fast isn't.
fn cons(line: String, sent: bool) -> String {
    let open = ["est=", "lresp=", "llat=", "minlat=", "avglat=", "maxlat=", "queued=", "sent=", "lcxid="];
    let open = &open[..if sent { 6 } else { 9 }];
    let fields =
        line.split_inclusive([',', '(']).map(|field| match open.iter().find(|open| field.starts_with(**open)) {
            Some(open) => format!("{open}*{}", if field.ends_with(')') { ")" } else { "," }),
            None => field.to_string(),
        });
    fields.collect()
}

/// Blocks of a heading and indented lines: both in any order.
fn blocks(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut blocks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut heading = String::new();
    for line in lines {
        if line.starts_with('\t') {
            blocks.entry(heading.clone()).or_default().insert(line);
        } else {
            heading = line;
            blocks.entry(heading.clone()).or_default();
        }
    }
    blocks.into_iter().map(|(heading, lines)| format!("{heading} {lines:?}")).collect()
}

/// Sessions, ephemerals and connections; when they expire depends on when they were heard from.
fn dump(lines: impl Iterator<Item = String>) -> Vec<String> {
    let kept = lines.filter_map(|line| {
        if line.contains(" expire at ") || (line.contains("ip: /") && !line.contains("/slot ")) {
            return None;
        }
        // Upstream counts a session that has had ephemerals, and lists it without any.
        if line.starts_with("Sessions with Ephemerals") {
            return Some("Sessions with Ephemerals (*):".into());
        }
        // "Session Sets (4)/(3)": the first number counts times, the second of connections counts probes.
        match line.split_once("Sets (") {
            Some((head, tail)) if head.starts_with("Session") => {
                Some(format!("{head}Sets (*)/{}", tail.split_once('/').map_or("", |(_, count)| count)))
            }
            Some((head, _)) => Some(format!("{head}Sets (*)/(*)")),
            None => Some(line),
        }
    });
    // Sections keep their order, what is in them has none.
    let mut kept: Vec<String> = kept.collect();
    let bare = |lines: &[String], at: usize| {
        lines[at].starts_with('s')
            && lines[at].ends_with(':')
            && !lines.get(at + 1).is_some_and(|next| next.starts_with('\t'))
    };
    for at in (0..kept.len()).rev() {
        if bare(&kept, at) {
            kept.remove(at);
        }
    }
    let (mut sections, mut section) = (Vec::new(), Vec::new());
    for line in kept {
        if line.ends_with(':') && !line.starts_with("0x") && !line.starts_with('s') && !section.is_empty() {
            sections.push(std::mem::take(&mut section));
        }
        section.push(line);
    }
    sections.push(section);
    sections
        .into_iter()
        .flat_map(|mut section| {
            section[1..].sort();
            section
        })
        .collect()
}

/// The names, and the values that can't depend on the moment.
fn mntr(lines: impl Iterator<Item = String>) -> Vec<String> {
    // Counters for each first part of a path are as many as clients think of names: ostler doesn't keep them.
    let lines = lines.filter(|line| !key(line).ends_with("_per_namespace"));
    let named = lines.map(|line| {
        let name = key(&line);
        if EXACT.contains(&name.as_str()) { line } else { name }
    });
    named.collect::<BTreeSet<_>>().into_iter().collect()
}
