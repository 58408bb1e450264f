//! Quotas (client-protocol 7.2 to 7.4): limits and usage of a path P are ordinary znodes below `/zookeeper/quota` + P
//! that clients create; the server keeps the usage up to date in place, outside transactions, zxids and digests.
//!
//! Only the deepest path with limits counts. What kills ZooKeeper is harmless here: limits for the root are ignored, and
//! usage that can't be read is gone on from as if it were empty. A subtree is walked only when its usage node is made, and
//! once a transaction: clients choose how often they make one, and all wait meanwhile.

use super::Tree;
use super::index;
use super::node::NO_SLOT;
use crate::random::FastMap;
use crate::wire::ErrorCode;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

/// The root of all quotas.
pub const QUOTA_ROOT: &str = "/zookeeper/quota";
/// Name of the znode with the limits of a path.
pub const LIMITS_NAME: &str = "zookeeper_limits";
/// Name of the znode with the usage of a path.
pub const STATS_NAME: &str = "zookeeper_stats";

/// A longer text is no track: it is read and written with each change below its path. ZooKeeper's own have 150 bytes at
/// most.
const TRACK_BYTES_MAX: usize = 1024;

/// The path whose limits are written at `path`; never the root.
pub(super) fn limited_by(path: &str) -> Option<&str> {
    let limited = path.strip_prefix(QUOTA_ROOT)?.strip_suffix(LIMITS_NAME)?.strip_suffix('/')?;
    (limited.len() > 1 && limited.starts_with('/')).then_some(limited)
}

/// The path whose usage is written at `path`; "" is the root.
pub(super) fn counted_by(path: &str) -> Option<&str> {
    let counted = path.strip_prefix(QUOTA_ROOT)?.strip_suffix(STATS_NAME)?.strip_suffix('/')?;
    (counted.is_empty() || counted.starts_with('/')).then_some(counted)
}

/// The quota that a path is under.
#[derive(Debug, PartialEq, Eq)]
pub struct QuotaRef<'a> {
    /// The path that has the limits.
    pub path: &'a str,
    /// The limits as text (`Track::parse`); `None` if null.
    pub limits: Option<&'a [u8]>,
    /// The usage as text; `Some(None)` if null, `None` if there is no node for it.
    pub stats: Option<Option<&'a [u8]>>,
}

/// Limits or usage (upstream: `StatsTrack`). What is not given reads as -1, no limit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Track(BTreeMap<String, i64>);

impl Track {
    /// Reads the text of a limits or stats node. Fails where ZooKeeper's parser throws, and for a text that is too long;
    /// null is a failure, empty is not.
    pub fn parse(text: Option<&[u8]>) -> Result<Track, ErrorCode> {
        let text = text.filter(|text| text.len() <= TRACK_BYTES_MAX).ok_or(ErrorCode::MARSHALLING_ERROR)?;
        let text = String::from_utf8_lossy(text);
        let mut values = BTreeMap::new();
        let pairs = text.trim_end_matches([',', ';']);
        if pairs.is_empty() {
            return Ok(Track(values));
        }
        if pairs.starts_with([',', ';']) {
            return Err(ErrorCode::MARSHALLING_ERROR); // An empty pair, which has no value.
        }
        for pair in pairs.split([',', ';']).filter(|pair| !pair.is_empty()) {
            let mut parts = pair.trim_end_matches('=').split('=');
            let key = parts.next().unwrap_or_default();
            let value = match parts.next() {
                None => return Err(ErrorCode::MARSHALLING_ERROR),
                Some("") => -1,
                Some(number) => java_long(number).ok_or(ErrorCode::MARSHALLING_ERROR)?,
            };
            values.insert(key.to_owned(), value);
        }
        Ok(Track(values))
    }

    pub fn new(count: i64, bytes: i64) -> Track {
        let mut track = Track::default();
        track.set("count", count);
        track.set("bytes", bytes);
        track
    }

    fn get(&self, key: &str) -> i64 {
        self.0.get(key).copied().unwrap_or(-1)
    }

    fn set(&mut self, key: &str, value: i64) {
        self.0.insert(key.to_owned(), value);
    }

    /// Znodes: used, or the soft limit.
    pub fn count(&self) -> i64 {
        self.get("count")
    }

    /// Bytes of data: used, or the soft limit.
    pub fn bytes(&self) -> i64 {
        self.get("bytes")
    }

    pub fn count_hard_limit(&self) -> i64 {
        self.get("countHardLimit")
    }

    pub fn byte_hard_limit(&self) -> i64 {
        self.get("byteHardLimit")
    }
}

/// `Long.parseLong`: decimal digits with an optional sign.
fn java_long(text: &str) -> Option<i64> {
    text.parse().ok()
}

impl fmt::Display for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "count={},bytes={}", self.count(), self.bytes())?;
        let mut others = self.0.iter().filter(|(key, _)| *key != "count" && *key != "bytes").peekable();
        if others.peek().is_some() {
            write!(f, "=")?;
        }
        for (key, value) in others {
            write!(f, ";{key}={value}")?;
        }
        Ok(())
    }
}

impl Tree {
    /// Every path with limits, in no order.
    pub fn quotas(&self) -> impl Iterator<Item = QuotaRef<'_>> {
        self.quotas.iter().filter_map(|path| self.quota_of(path))
    }

    /// The quota that `path` is under: that of the deepest path with limits, `path` itself included.
    pub fn quota_of<'a>(&'a self, path: &'a str) -> Option<QuotaRef<'a>> {
        let (path, slot) = self.quota_node(path)?;
        let node = self.node_ref(slot);
        let limits = node.child(LIMITS_NAME).and_then(|node| node.data());
        let stats = node.child(STATS_NAME).map(|node| node.data());
        Some(QuotaRef { path, limits, stats })
    }

    /// The deepest path with limits down to `path`, and the znode that they hang on. Found by going along the quotas, name
    /// by name and only as far as they go: a path may have a hundred thousand names, and be looked up with each change.
    fn quota_node<'p>(&self, path: &'p str) -> Option<(&'p str, u32)> {
        if self.quotas.is_empty() {
            return None;
        }
        let child = |slot: u32, name: &str| self.index.find_child(&self.nodes, slot, name.as_bytes());
        let mut slot = self.find(QUOTA_ROOT)?;
        let mut found = None;
        let mut end = 0;
        for name in path.strip_prefix('/')?.split('/') {
            let Some(below) = child(slot, name) else { break };
            slot = below;
            end += 1 + name.len();
            if child(slot, LIMITS_NAME).is_some() {
                found = Some((&path[..end], slot));
            }
        }
        found
    }

    /// Adds to the usage of the quota that `path` is under, if there is one.
    pub(super) fn charge(&mut self, path: &str, bytes: i64, count: i64) {
        let Some((limited, slot)) = self.quota_node(path) else { return };
        let Some(slot) = self.index.find_child(&self.nodes, slot, STATS_NAME.as_bytes()) else { return };
        let mut track = Track::parse(self.nodes.data(&self.nodes[slot as usize])).unwrap_or_default();
        track.set("count", track.count().wrapping_add(count));
        track.set("bytes", track.bytes().wrapping_add(bytes));
        let stats_path = format!("{QUOTA_ROOT}{limited}/{STATS_NAME}");
        self.change_data(slot, &stats_path, Some(track.to_string().as_bytes()), |_| {});
    }

    /// Writes the actual usage of a subtree into its stats node, if there is one.
    pub(super) fn recount(&mut self, path: &str) {
        let stats_path = format!("{QUOTA_ROOT}{path}/{STATS_NAME}");
        let Some(stats) = self.find(&stats_path) else { return };
        let (count, bytes) = match self.find(path) {
            Some(slot) => (1 + i64::from(self.nodes[slot as usize].descendants()), self.bytes_from(slot)),
            None => (0, 0),
        };
        self.change_data(stats, &stats_path, Some(Track::new(count, bytes).to_string().as_bytes()), |_| {});
    }

    /// Bytes of data of a znode and all below it. Known for the rest of the transaction.
    fn bytes_from(&mut self, top: u32) -> i64 {
        if let Some(&known) = self.counted.get(&top) {
            return known;
        }
        let mut bytes = 0;
        let mut left = vec![top];
        while let Some(slot) = left.pop() {
            if let Some(known) = self.counted.get(&slot) {
                bytes += known;
                continue;
            }
            #[cfg(test)]
            tests::WALKED.set(tests::WALKED.get() + 1);
            let node = &self.nodes[slot as usize];
            bytes += node.data_len() as i64;
            left.extend_from_slice(node.children());
        }
        self.counted.insert(top, bytes);
        bytes
    }

    /// Keeps what `bytes_from` knows: a znode has more bytes of data, or fewer.
    #[inline]
    pub(super) fn note_bytes(&mut self, slot: u32, difference: i64) {
        if !self.counted.is_empty() && difference != 0 {
            self.note_bytes_above(slot, difference);
        }
    }

    #[cold]
    fn note_bytes_above(&mut self, mut slot: u32, difference: i64) {
        while slot != NO_SLOT {
            if let Some(bytes) = self.counted.get_mut(&slot) {
                *bytes += difference;
            }
            slot = self.nodes[slot as usize].parent;
        }
    }

    /// After a load: which paths have limits.
    pub(super) fn find_quotas(&mut self) {
        for path in self.below_quota_root(LIMITS_NAME) {
            if let Some(limited) = limited_by(&path) {
                self.quotas.insert(limited.into());
            }
        }
    }

    /// Counts the usage of each path with limits anew, as ZooKeeper does when it loads a snapshot of its own. Ours are exact and
    /// don't need it; what a client has put where there are no limits is left alone.
    pub fn recount_quotas(&mut self) {
        let mut paths = self.below_quota_root(STATS_NAME);
        // The deepest first: what is above it goes on from there, and no znode is looked at twice.
        paths.sort_by_key(|path| Reverse(path.matches('/').count()));
        for path in paths {
            if let Some(counted) = counted_by(&path)
                && self.quotas.contains(counted)
            {
                self.recount(counted);
            }
        }
        self.counted = FastMap::default();
    }

    fn below_quota_root(&self, name: &str) -> Vec<String> {
        let mut left: Vec<u32> = self.find(QUOTA_ROOT).into_iter().collect();
        let mut found = Vec::new();
        while let Some(slot) = left.pop() {
            let node = &self.nodes[slot as usize];
            left.extend_from_slice(node.children());
            if self.nodes.name(node) == name.as_bytes() {
                found.push(index::path_of(&self.nodes, slot));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{SessionId, Zxid};
    use crate::random::Rng;
    use crate::tree::{Applied, TreeOptions};
    use crate::wire::OpCode;
    use crate::wire::txn::{Acl, NodeKind, Txn, TxnHeader};
    use std::cell::Cell;

    thread_local! {
        /// Znodes looked at to count a usage.
        pub(super) static WALKED: Cell<usize> = const { Cell::new(0) };
    }

    fn create(path: &str, data: &str) -> Txn {
        Txn::Create {
            op: OpCode::Create,
            path: path.into(),
            data: Some(data.into()),
            acl: Acl::open().clone(),
            kind: NodeKind::Persistent,
            parent_cversion: -1,
        }
    }

    fn set(path: &str, data: &str) -> Txn {
        Txn::SetData { op: OpCode::SetData, path: path.into(), data: Some(data.into()), version: 1 }
    }

    fn delete(path: &str) -> Txn {
        Txn::Delete { op: OpCode::Delete, path: path.into() }
    }

    fn apply(tree: &mut Tree, txn: Txn) {
        let header = TxnHeader { session: SessionId(1), cxid: 0, zxid: Zxid(tree.zxid().0 + 1), time: 0 };
        tree.apply(&header, txn, &mut Applied::default());
    }

    fn text(tree: &Tree, path: &str) -> String {
        let data = tree.lookup(path).and_then(|node| node.data());
        data.map_or("nothing".into(), |data| String::from_utf8_lossy(data).into_owned())
    }

    /// Two paths with limits, one below the other, and a hundred znodes below both.
    fn tree_with_quotas() -> Tree {
        let mut tree = Tree::new(TreeOptions::default());
        for path in ["/a", "/a/b", "/zookeeper/quota/a", "/zookeeper/quota/a/b"] {
            apply(&mut tree, create(path, "12345"));
        }
        (0..100).for_each(|n| apply(&mut tree, create(&format!("/a/b/{n}"), "x")));
        for limited in ["/a", "/a/b"] {
            apply(&mut tree, create(&format!("/zookeeper/quota{limited}/zookeeper_limits"), "count=1000"));
        }
        tree
    }

    #[test]
    fn a_usage_that_cannot_be_read_is_gone_on_from_as_if_empty_and_nothing_is_walked() {
        let mut tree = tree_with_quotas();
        let stats = "/zookeeper/quota/a/b/zookeeper_stats";
        apply(&mut tree, create(stats, ""));
        assert_eq!(text(&tree, stats), "count=101,bytes=105");
        let walked = WALKED.get();
        let long = format!("count=1{}", ";x=1".repeat(TRACK_BYTES_MAX / 4));
        for garbage in ["x", "count=a", "", &long] {
            let pairs = (0..50).flat_map(|_| [set(stats, garbage), set("/a/b", "1234567")]);
            apply(&mut tree, Txn::Multi(pairs.collect()));
            apply(&mut tree, set("/a/b", "12345"));
            assert_eq!(text(&tree, stats), "count=-1,bytes=-3", "{garbage}");
        }
        let null = Txn::SetData { op: OpCode::SetData, path: stats.into(), data: None, version: 1 };
        apply(&mut tree, Txn::Multi(vec![null, create("/a/b/c", "abc")]));
        assert_eq!((text(&tree, stats), WALKED.get()), ("count=0,bytes=2".into(), walked));
    }

    #[test]
    fn only_usages_of_paths_with_limits_are_counted_anew() {
        let mut tree = tree_with_quotas();
        apply(&mut tree, create("/free", ""));
        for path in
            ["/zookeeper/quota/free", "/zookeeper/quota/a/zookeeper_stats", "/zookeeper/quota/free/zookeeper_stats"]
        {
            apply(&mut tree, create(path, ""));
        }
        for at in ["a", "free"] {
            apply(&mut tree, set(&format!("/zookeeper/quota/{at}/zookeeper_stats"), "hello"));
        }
        tree.recount_quotas();
        assert_eq!(text(&tree, "/zookeeper/quota/a/zookeeper_stats"), "count=102,bytes=110");
        assert_eq!(text(&tree, "/zookeeper/quota/free/zookeeper_stats"), "hello");
    }

    #[test]
    fn however_quotas_are_nested_each_znode_is_looked_at_once_to_count_all_anew() {
        for limits_last in [true, false] {
            let mut tree = Tree::new(TreeOptions::default());
            let mut path = String::new();
            for _ in 0..50 {
                path += "/a";
                apply(&mut tree, create(&path, "x"));
                apply(&mut tree, create(&format!("/zookeeper/quota{path}"), ""));
                if !limits_last {
                    limit(&mut tree, &path);
                }
            }
            (0..200).for_each(|n| apply(&mut tree, create(&format!("{path}/{n}"), "y")));
            let all = path.len() / 2;
            (0..all).filter(|_| limits_last).for_each(|at| limit(&mut tree, &path[..2 * (all - at)]));
            let walked = WALKED.get();
            tree.recount_quotas();
            assert!(WALKED.get() - walked <= 250, "{} steps for 250 znodes", WALKED.get() - walked);
            assert_eq!(text(&tree, "/zookeeper/quota/a/zookeeper_stats"), "count=250,bytes=250");
        }
    }

    fn limit(tree: &mut Tree, path: &str) {
        apply(tree, create(&format!("/zookeeper/quota{path}/zookeeper_limits"), "count=1000"));
        apply(tree, create(&format!("/zookeeper/quota{path}/zookeeper_stats"), ""));
    }

    #[test]
    fn a_transaction_walks_a_subtree_once_however_often_its_usage_is_made() {
        let mut tree = tree_with_quotas();
        let [outer, inner] = ["/zookeeper/quota/a/zookeeper_stats", "/zookeeper/quota/a/b/zookeeper_stats"];
        let walked = WALKED.get();
        let mut ops = Vec::new();
        for n in 0..50 {
            let leaf = format!("/a/b/more-{n}");
            ops.extend([create(inner, ""), create(outer, ""), create(&leaf, "12"), set("/a", &"z".repeat(n))]);
            ops.extend([delete(inner), delete(outer)]);
        }
        ops.extend([create(outer, ""), create(inner, "")]);
        apply(&mut tree, Txn::Multi(ops));
        assert_eq!(text(&tree, inner), "count=151,bytes=205");
        assert_eq!(text(&tree, outer), "count=152,bytes=254");
        assert_eq!(WALKED.get() - walked, 102, "101 for the inner one and the top of the outer");
        assert!(tree.counted.is_empty(), "nothing outlives the transaction");
    }

    #[test]
    fn the_quota_of_a_path_is_that_of_its_longest_beginning_with_limits() {
        let mut rng = Rng::new(2);
        let mut tree = Tree::new(TreeOptions::default());
        assert_eq!(tree.quota_of("/a"), None);
        let names = ["a", "b", LIMITS_NAME];
        let some_path = |rng: &mut Rng| -> String {
            (0..1 + rng.below(6)).map(|_| format!("/{}", names[rng.below(3) as usize])).collect()
        };
        let mut with_limits = std::collections::BTreeSet::new();
        for _ in 0..60 {
            let limited = some_path(&mut rng);
            for end in limited.match_indices('/').skip(1).map(|(at, _)| at).chain([limited.len()]) {
                apply(&mut tree, create(&format!("{QUOTA_ROOT}{}", &limited[..end]), ""));
            }
            apply(&mut tree, create(&format!("{QUOTA_ROOT}{limited}/{LIMITS_NAME}"), "count=1"));
            with_limits.insert(limited.clone());
            with_limits
                .extend(limited.match_indices(&format!("/{LIMITS_NAME}")).map(|(at, _)| limited[..at].to_owned()));
            with_limits.remove("");
            for path in
                (0..30).map(|_| some_path(&mut rng)).chain(["", "/", "a", "/a//b", "/a/", "//"].map(String::from))
            {
                let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
                let expected = ends.map(|end| &path[..end]).rfind(|path| with_limits.contains(*path));
                assert_eq!(tree.quota_of(&path).map(|quota| quota.path), expected, "{path}");
            }
        }
    }

    /// What is known from earlier in a transaction is what a walk would find, whatever happened in between.
    #[test]
    fn one_transaction_comes_to_what_several_do() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let paths = ["/a", "/a/b", "/a/b/c", "/a/d", "/e"];
            let mut nodes: Vec<String> = paths.iter().map(|path| path.to_string()).collect();
            nodes.push("/zookeeper/quota/zookeeper_stats".into());
            for path in &paths[..4] {
                nodes.push(format!("/zookeeper/quota{path}"));
                nodes.push(format!("/zookeeper/quota{path}/zookeeper_limits"));
                nodes.push(format!("/zookeeper/quota{path}/zookeeper_stats"));
            }
            let (mut whole, mut single) = (Tree::new(TreeOptions::default()), Tree::new(TreeOptions::default()));
            for _ in 0..20 {
                let make = |_| {
                    let path = &nodes[rng.below(nodes.len() as u64) as usize];
                    match rng.below(8) {
                        0..4 => create(path, &"x".repeat(rng.below(20) as usize)),
                        4..6 => set(path, &"x".repeat(rng.below(20) as usize)),
                        // With what is below it.
                        _ => delete(path),
                    }
                };
                let ops: Vec<Txn> = (0..30).map(make).collect();
                ops.iter().for_each(|op| apply(&mut single, op.clone()));
                apply(&mut whole, Txn::Multi(ops));
                for path in &nodes {
                    assert_eq!(text(&whole, path), text(&single, path), "{path}, seed {seed}");
                }
            }
        }
    }

    #[test]
    fn tracks_read_and_print_as_zookeeper_does() {
        let parse = |text: &str| Track::parse(Some(text.as_bytes())).map(|track| track.to_string());
        assert_eq!(parse("count=3,bytes=9").unwrap(), "count=3,bytes=9");
        let full = "count=-1,bytes=-1=;byteHardLimit=10;countHardLimit=4";
        assert_eq!(parse(full).unwrap(), full);
        assert_eq!(parse("countHardLimit=4;count==5,,;bytes=1").unwrap(), "count=-1,bytes=1=;countHardLimit=4");
        assert_eq!(parse("").unwrap(), "count=-1,bytes=-1");
        assert_eq!(parse(",;,").unwrap(), "count=-1,bytes=-1");
        for bad in ["x", "count", "count=", "count=a", ",count=1", "count=99999999999999999999"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(Track::parse(None).is_err());
    }

    #[test]
    fn which_paths_are_limits_and_stats() {
        assert_eq!(limited_by("/zookeeper/quota/a/b/zookeeper_limits"), Some("/a/b"));
        assert_eq!(limited_by("/zookeeper/quota/zookeeper_limits"), None, "the root has no quota");
        assert_eq!(limited_by("/zookeeper/quotax/zookeeper_limits"), None);
        assert_eq!(limited_by("/zookeeper/quota/a/xzookeeper_limits"), None);
        assert_eq!(counted_by("/zookeeper/quota/zookeeper_stats"), Some(""));
        assert_eq!(counted_by("/zookeeper/quota/a/zookeeper_stats"), Some("/a"));
    }

    /// Step by step what ZooKeeper 3.9.5 showed in `get` and in mntr's zk_approximate_data_size.
    #[test]
    fn usage_and_data_size_are_those_of_a_real_server() {
        let mut tree = Tree::new(TreeOptions::default());
        let mut step = |txn: Txn, stats: &str, shown: &str, size: i64| {
            apply(&mut tree, txn);
            assert_eq!((&*text(&tree, stats), tree.approximate_data_size()), (shown, size));
        };
        let a = "/zookeeper/quota/a/zookeeper_stats";
        step(create("/a", "hello"), a, "nothing", 51);
        step(set("/a", "hello2"), a, "nothing", 52);
        step(create("/zookeeper/quota/a", ""), a, "nothing", 70);
        step(create("/zookeeper/quota/a/zookeeper_limits", "count=5,bytes=100"), a, "nothing", 122);
        step(create(a, ""), a, "count=1,bytes=6", 156);
        step(create("/a/b", "123"), a, "count=2,bytes=9", 163);
        step(create("/a/\u{e9}", ""), a, "count=3,bytes=9", 167);
        step(set(a, "count=1,bytes=2=;x=5"), a, "count=1,bytes=2=;x=5", 172);
        step(set("/a", "zzzzzzzzzzzzzzzzzzzz"), a, "count=1,bytes=16=;x=5", 186);
        step(set(a, ""), a, "", 165);
        step(set("/a", "zzzzzzzzzzzzzzzzzzzz"), a, "count=-1,bytes=-1", 165);
        step(set("/a", "zzzzzzzzzzzzzzzzzzzzz"), a, "count=-1,bytes=0", 166);
        step(delete(a), a, "nothing", 116);
        let root = "/zookeeper/quota/zookeeper_stats";
        step(create(root, "x"), root, "count=10,bytes=42", 149);
        step(set("/", "rootdata"), root, "count=10,bytes=42", 157);
    }
}
