//! Whether servers hold the same: every znode with its data and Stat, and the digests that they keep.
//!
//! Runs on: the test's thread.

use std::collections::BTreeMap;

use super::client::{Client, op};
use super::ensemble::{Ensemble, SOON};
use super::jute::{Stat, Writer};
use super::servers::wait_for;

/// Path to data and Stat.
pub type Tree = BTreeMap<String, (Vec<u8>, Stat)>;

/// Everything below a path and itself, as this client's server has it after a sync. Nobody may write meanwhile.
pub fn read(client: &mut Client, top: &str) -> Tree {
    read_beside(client, top, &mut [])
}

/// As `read`; the others' sessions are kept alive meanwhile, since hundreds of thousands of znodes may take their time.
fn read_beside(client: &mut Client, top: &str, others: &mut [Client]) -> Tree {
    const PINGS_EVERY: usize = 50;
    client.sync().expect("a sync");
    let mut tree = Tree::new();
    let mut level = vec![top.to_owned()];
    // All of one level in flight at once: servers share few cores.
    while !level.is_empty() {
        let mut next = Vec::new();
        for (chunk, paths) in level.chunks(200).enumerate() {
            if chunk % PINGS_EVERY == PINGS_EVERY - 1 {
                others.iter_mut().for_each(|other| other.ping().expect("it takes a ping"));
            }
            for path in paths {
                client.send(op::GET, Writer::new().text(path).bool(false)).expect("it takes requests");
                client.send(op::CHILDREN, Writer::new().text(path).bool(false)).expect("it takes requests");
            }
            for path in paths {
                let mut data =
                    client.receive().expect("an answer").data().unwrap_or_else(|| panic!("no data of {path}"));
                let children = client.receive().expect("an answer").children();
                let prefix = if path == "/" { "" } else { path };
                if path == "/zookeeper/config" {
                    // When that server has started, in ZooKeeper too.
                    data.1.mtime = 0;
                }
                let (names, _) = children.unwrap_or_else(|| panic!("no children of {path}"));
                next.extend(names.iter().map(|name| format!("{prefix}/{name}")));
                tree.insert(path.clone(), data);
            }
        }
        level = next;
    }
    tree
}

/// zxid to digest, for the newest states that a server remembers.
fn digests(ensemble: &Ensemble, at: usize) -> BTreeMap<String, String> {
    let text = wait_for("digests", SOON, || ensemble.word(at, "hash"));
    // A key, a zxid and a value stand in each line, in whatever clothing.
    let words = text.lines().map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()).collect::<Vec<_>>());
    words.filter(|words| words.len() >= 2).map(|words| (words[0].to_owned(), words[1..].join(" "))).collect()
}

/// Holds all of these servers against the first: same znodes, same data, same Stats, and the same digests where two
/// remember one of the same zxid. Returns what they hold, and how many digests were compared.
pub fn compare(ensemble: &Ensemble, servers: &[usize]) -> (Tree, usize) {
    // Closing sessions write: every reader is there before the first looks.
    let mut clients: Vec<Client> = servers.iter().map(|&at| ensemble.client(at, 30_000)).collect();
    let mut first = Tree::new();
    for (nth, at) in servers.iter().enumerate() {
        let (client, others) = clients[nth..].split_first_mut().expect("one for each server");
        let tree = read_beside(client, "/", others);
        if nth == 0 {
            first = tree;
        } else {
            differ(&first, &tree, &format!("server {} and server {}", servers[0] + 1, at + 1));
        }
        // Closing writes, so those that have read stay until the last one has.
        clients[..=nth].iter_mut().for_each(|client| client.ping().expect("it takes a ping"));
    }
    clients.into_iter().for_each(Client::close);
    let known: Vec<_> = servers.iter().map(|&at| digests(ensemble, at)).collect();
    let mut compared = 0;
    for (other, at) in known.iter().zip(servers).skip(1) {
        for (zxid, digest) in other {
            if let Some(expected) = known[0].get(zxid) {
                compared += 1;
                assert_eq!(expected, digest, "digests of servers {} and {} at {zxid}", servers[0] + 1, at + 1);
            }
        }
    }
    (first, compared)
}

/// Panics with the first difference of two trees.
pub fn differ(one: &Tree, other: &Tree, what: &str) {
    for (path, node) in one {
        match other.get(path) {
            Some(same) if same == node => {}
            found => panic!("{what} differ at {path}:\n{node:?}\n{found:?}"),
        }
    }
    let more = other.keys().find(|path| !one.contains_key(*path));
    assert!(more.is_none(), "{what} differ: only the second has {more:?}");
}

/// The zxid up to which a server has applied, as it says itself.
pub fn zxid_of(ensemble: &Ensemble, at: usize) -> u64 {
    wait_for("a zxid", super::ensemble::SOON, || {
        let answer = ensemble.word(at, "srvr")?;
        let text = answer.lines().find_map(|line| line.strip_prefix("Zxid: 0x"))?.to_owned();
        u64::from_str_radix(&text, 16).ok()
    })
}
