//! The tree against a model that is as simple as the rules: a sorted map from path to znode, everything counted from
//! scratch (quorum-protocol 7, client-protocol 3 and 7). Random transactions, multis, closed sessions, replays, quotas;
//! and frozen images read while transactions go on.

use ostler::ids::{CONTAINER_OWNER, Owner, OwnerRules, SessionId, Zxid};
use ostler::tree::{Applied, Image, NumberedAcl, OpResult, Progress, Restore, Touched, Tree, TreeOptions};
use ostler::wire::client::EventKind;
use ostler::wire::txn::{Acl, NodeKind, Txn, TxnHeader};
use ostler::wire::{ErrorCode, OpCode, Stat};
use proptest::prelude::*;
use std::collections::BTreeMap;

const RULES: OwnerRules = OwnerRules { extended_types: true, emulate_353_ttl: false };

fn options() -> TreeOptions {
    TreeOptions { owner_rules: RULES, digest: true }
}

#[derive(Clone, PartialEq, Debug)]
struct ModelNode {
    data: Option<Vec<u8>>,
    acl: Vec<Acl>,
    czxid: u64,
    mzxid: u64,
    pzxid: u64,
    ctime: i64,
    mtime: i64,
    version: i32,
    cversion: i32,
    aversion: i32,
    owner: i64,
}

impl ModelNode {
    fn new(data: Option<&[u8]>, acl: Vec<Acl>, zxid: u64, time: i64, owner: i64) -> ModelNode {
        ModelNode {
            data: data.map(<[u8]>::to_vec),
            acl,
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time,
            mtime: time,
            version: 0,
            cversion: 0,
            aversion: 0,
            owner,
        }
    }

    fn data_len(&self) -> i64 {
        self.data.as_ref().map_or(0, Vec::len) as i64
    }
}

/// The root is at "".
#[derive(Clone)]
struct Model {
    nodes: BTreeMap<String, ModelNode>,
    zxid: u64,
    /// Sessions that were closed: their ids are not used again.
    closed: Vec<i64>,
}

fn parent_of(path: &str) -> &str {
    &path[..path.rfind('/').unwrap()]
}

impl Model {
    fn new() -> Model {
        let open = || vec![Acl::world(Acl::ALL)];
        let mut nodes = BTreeMap::new();
        for path in ["", "/zookeeper", "/zookeeper/quota"] {
            nodes.insert(path.to_owned(), ModelNode::new(Some(b""), open(), 0, 0, 0));
        }
        let mut config = ModelNode::new(Some(b""), vec![Acl::world(Acl::READ)], 0, 0, 0);
        config.aversion = -1;
        nodes.insert("/zookeeper/config".to_owned(), config);
        Model { nodes, zxid: 0, closed: Vec::new() }
    }

    fn below<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a String, &'a ModelNode)> {
        let prefix = format!("{path}/");
        self.nodes.iter().filter(move |(other, _)| other.starts_with(&prefix))
    }

    fn children(&self, path: &str) -> Vec<&str> {
        let names = self.below(path).map(|(other, _)| &other[path.len() + 1..]);
        names.filter(|name| !name.contains('/')).collect()
    }

    fn stat(&self, path: &str) -> Stat {
        let node = &self.nodes[path];
        let children = self.children(path).len() as i32;
        Stat {
            czxid: Zxid(node.czxid),
            mzxid: Zxid(node.mzxid),
            ctime: node.ctime,
            mtime: node.mtime,
            version: node.version,
            cversion: 2 * node.cversion - children,
            aversion: node.aversion,
            ephemeral_owner: if node.owner > 0 { node.owner } else { 0 },
            data_length: node.data_len() as i32,
            num_children: children,
            pzxid: Zxid(node.pzxid),
        }
    }

    fn digest(&self) -> u64 {
        let counted = self.nodes.iter().filter(|(path, _)| !path.starts_with("/zookeeper/"));
        counted.fold(0u64, |sum, (path, node)| {
            let mut bytes = path.as_bytes().to_vec();
            bytes.extend(node.data.iter().flatten());
            for long in [node.czxid as i64, node.mzxid as i64, node.pzxid as i64, node.ctime, node.mtime] {
                bytes.extend(long.to_be_bytes());
            }
            for int in [node.version, node.cversion, node.aversion] {
                bytes.extend(int.to_be_bytes());
            }
            bytes.extend(node.owner.to_be_bytes());
            sum.wrapping_add(crc32fast::hash(&bytes) as u64)
        })
    }

    fn quota_of(&self, path: &str) -> Option<String> {
        let mut prefix = path;
        while !prefix.is_empty() {
            if self.nodes.contains_key(&format!("/zookeeper/quota{prefix}/zookeeper_limits")) {
                return Some(prefix.to_owned());
            }
            prefix = parent_of(prefix);
        }
        None
    }

    fn charge(&mut self, path: &str, count: i64, bytes: i64) {
        let Some(limited) = self.quota_of(path) else { return };
        let Some(stats) = self.nodes.get(&format!("/zookeeper/quota{limited}/zookeeper_stats")) else { return };
        let text = String::from_utf8(stats.data.clone().unwrap_or_default()).unwrap();
        let numbers = text.strip_prefix("count=").and_then(|rest| rest.split_once(",bytes="));
        let parsed = numbers.and_then(|(c, b)| Some((c.parse::<i64>().ok()?, b.parse::<i64>().ok()?)));
        match parsed {
            Some((c, b)) => self.write_usage(&limited, c + count, b + bytes),
            None => self.write_usage(&limited, count - 1, bytes - 1),
        }
    }

    fn recount(&mut self, path: &str) {
        let own = self.nodes.get(path).into_iter();
        let all: Vec<i64> = own.chain(self.below(path).map(|(_, node)| node)).map(ModelNode::data_len).collect();
        let (count, bytes) = if self.nodes.contains_key(path) { (all.len() as i64, all.iter().sum()) } else { (0, 0) };
        self.write_usage(path, count, bytes);
    }

    fn write_usage(&mut self, path: &str, count: i64, bytes: i64) {
        if let Some(stats) = self.nodes.get_mut(&format!("/zookeeper/quota{path}/zookeeper_stats")) {
            stats.data = Some(format!("count={count},bytes={bytes}").into_bytes());
        }
    }

    fn touched(&self, kind: EventKind, path: &str) -> Touched {
        let acl = |path: &str| Some(self.nodes[path].acl.clone()).filter(|acl| *acl != [Acl::world(Acl::ALL)]);
        let parent_acl = (kind != EventKind::NodeDataChanged).then(|| acl(parent_of(path))).flatten();
        let (acl, parent_acl) = (acl(path).map(Into::into), parent_acl.map(Into::into));
        // The model has no slots.
        Touched { kind, path: path.to_owned(), slot: 0, parent_slot: 0, acl, parent_acl }
    }

    fn apply(&mut self, header: &TxnHeader, txn: &Txn, out: &mut Applied) {
        match txn {
            Txn::Multi(ops) => match ops.iter().position(|op| matches!(op, Txn::Error { .. })) {
                None => ops.iter().for_each(|op| self.apply_one(header, op, out)),
                Some(at) => {
                    for (place, op) in ops.iter().enumerate() {
                        let code = match op {
                            Txn::Error { code } => *code,
                            _ if place < at => 0,
                            _ => -2,
                        };
                        out.results.push(OpResult::Error(ErrorCode(code)));
                    }
                }
            },
            single => self.apply_one(header, single, out),
        }
        self.zxid = self.zxid.max(header.zxid.0);
    }

    fn apply_one(&mut self, header: &TxnHeader, txn: &Txn, out: &mut Applied) {
        let zxid = header.zxid.0;
        let result = match txn {
            Txn::CreateSession { timeout_ms } => OpResult::SessionCreated { timeout_ms: *timeout_ms },
            Txn::CloseSession { paths } => {
                for path in paths.iter().flatten() {
                    self.delete(zxid, path, out);
                }
                let session = header.session.0;
                self.closed.push(session);
                let left: Vec<String> = self
                    .nodes
                    .iter()
                    .filter(|(_, node)| session != 0 && node.owner == session)
                    .map(|(path, _)| path.clone())
                    .collect();
                for path in left {
                    self.delete(zxid, &path, out);
                }
                OpResult::SessionClosed
            }
            Txn::Error { code } => OpResult::Error(ErrorCode(*code)),
            Txn::Create { op, path, data, acl, kind, parent_cversion } => {
                let parent_path = parent_of(path).to_owned();
                let exists = self.nodes.contains_key(path);
                let Some(parent) = self.nodes.get_mut(&parent_path) else {
                    out.results.push(OpResult::Error(ErrorCode::NO_NODE));
                    return;
                };
                let wanted = if *parent_cversion == -1 { parent.cversion + 1 } else { *parent_cversion };
                if (!exists || *op == OpCode::Create) && wanted > parent.cversion {
                    parent.cversion = wanted;
                    parent.pzxid = zxid;
                }
                if exists {
                    self.nodes.get_mut(path).unwrap().acl = acl.to_vec();
                    OpResult::Error(ErrorCode::NODE_EXISTS)
                } else {
                    let owner = match kind {
                        NodeKind::Persistent => 0,
                        NodeKind::Ephemeral => header.session.0,
                        NodeKind::Container => CONTAINER_OWNER,
                        NodeKind::Ttl(ms) => Owner::Ttl(*ms).to_stored(),
                    };
                    let node = ModelNode::new(data.as_deref(), acl.to_vec(), zxid, header.time, owner);
                    let bytes = node.data_len();
                    self.nodes.insert(path.clone(), node);
                    let stat = self.stat(path);
                    let name = &path[parent_path.len() + 1..];
                    if let ("zookeeper_stats", Some(counted)) = (name, parent_path.strip_prefix("/zookeeper/quota")) {
                        self.recount(counted);
                    }
                    self.charge(path, 1, bytes);
                    out.touched.push(self.touched(EventKind::NodeCreated, path));
                    OpResult::Created { touched: out.touched.len() - 1, stat }
                }
            }
            Txn::Delete { path, .. } => self.delete(zxid, path, out),
            Txn::SetData { path, data, version, .. } => match self.nodes.get_mut(path) {
                None => OpResult::Error(ErrorCode::NO_NODE),
                Some(node) => {
                    let before = node.data_len();
                    node.data = data.clone();
                    (node.version, node.mzxid, node.mtime) = (*version, zxid, header.time);
                    let difference = node.data_len() - before;
                    let stat = self.stat(path);
                    self.charge(path, 0, difference);
                    out.touched.push(self.touched(EventKind::NodeDataChanged, path));
                    OpResult::DataSet { stat }
                }
            },
            Txn::SetAcl { path, acl, version } => match self.nodes.get_mut(path) {
                None => OpResult::Error(ErrorCode::NO_NODE),
                Some(node) => {
                    node.acl = acl.to_vec();
                    node.aversion = *version;
                    OpResult::AclSet { stat: self.stat(path) }
                }
            },
            Txn::Check { .. } => OpResult::Checked,
            Txn::Multi(_) => unreachable!("not inside another"),
        };
        out.results.push(result);
    }

    fn delete(&mut self, zxid: u64, path: &str, out: &mut Applied) -> OpResult {
        let Some(parent) = self.nodes.get_mut(parent_of(path)) else { return OpResult::Error(ErrorCode::NO_NODE) };
        parent.pzxid = parent.pzxid.max(zxid);
        let Some(node) = self.nodes.get(path) else { return OpResult::Error(ErrorCode::NO_NODE) };
        let bytes = node.data_len();
        out.touched.push(self.touched(EventKind::NodeDeleted, path));
        let below: Vec<String> = self.below(path).map(|(other, _)| other.clone()).collect();
        assert!(below.is_empty(), "the generator deletes leaves only");
        self.nodes.remove(path);
        self.charge(path, -1, -bytes);
        OpResult::Deleted
    }
}

/// Everything that can be seen of a tree, against the model.
fn assert_same(tree: &Tree, model: &Model) {
    assert_eq!(tree.zxid(), Zxid(model.zxid));
    assert_eq!(tree.digest(), model.digest());
    assert_eq!(tree.node_count(), model.nodes.len() + 1);
    let mut owners: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (path, node) in &model.nodes {
        let found = tree.lookup(path).unwrap_or_else(|| panic!("{path} is missing"));
        assert_eq!(found.path(), if path.is_empty() { "/" } else { path });
        assert_eq!(found.stat(), model.stat(path), "{path}");
        assert_eq!(found.data(), node.data.as_deref(), "{path}");
        assert_eq!(found.acl(), &node.acl[..], "{path}");
        assert_eq!(found.acl_number().is_none(), node.acl == [Acl::world(Acl::ALL)]);
        assert_eq!((found.numbers().owner, found.stored_cversion()), (node.owner, node.cversion));
        let mut children: Vec<&str> = found.children().collect();
        children.sort_unstable();
        let mut expected = model.children(path);
        expected.sort_unstable();
        assert_eq!(children, expected, "{path}");
        assert!(children.iter().all(|name| found.child(name).unwrap().path() == format!("{path}/{name}")));
        assert_eq!(tree.all_children_number(path), model.below(path).count(), "{path}");
        owners.entry(node.owner).or_default().push(path.clone());
        assert_eq!(tree.quota_of(path).map(|quota| quota.path.to_owned()), model.quota_of(path), "{path}");
    }
    let sorted = |paths: Vec<String>| {
        let mut paths = paths;
        paths.sort_unstable();
        paths
    };
    let mut ephemerals = 0;
    for session in tree.sessions_with_ephemerals() {
        let paths: Vec<String> = tree.ephemerals(session).collect();
        ephemerals += paths.len();
        assert_eq!(Some(sorted(paths)), owners.remove(&session.0));
    }
    assert_eq!(tree.ephemeral_count(), ephemerals);
    let containers = owners.remove(&CONTAINER_OWNER).unwrap_or_default();
    assert_eq!(sorted(tree.containers().map(|node| node.path()).collect()), containers);
    owners.remove(&0);
    let ttls = owners.into_values().flatten().collect();
    assert_eq!(sorted(tree.ttl_nodes().map(|node| node.path()).collect()), sorted(ttls));
}

/// Those of quotas last.
const PATHS: [&str; 14] = [
    "/a",
    "/b",
    "/a/x",
    "/a/x/ä",
    "/a/x/long-name-0000000001",
    "/a/y",
    "/b/x",
    "/b/x/y",
    "/zookeeper/quota/a",
    "/zookeeper/quota/a/zookeeper_limits",
    "/zookeeper/quota/a/zookeeper_stats",
    "/zookeeper/quota/a/x",
    "/zookeeper/quota/a/x/zookeeper_limits",
    "/zookeeper/quota/a/x/zookeeper_stats",
];

/// What a random number stands for, given the state: always a transaction that a server could have made.
fn make_txn(model: &Model, dice: [u8; 5], zxid: u64, paths: usize) -> (TxnHeader, Txn) {
    let open = (1..).filter(|session| !model.closed.contains(session)).nth(dice[4] as usize % 3);
    let session = SessionId(open.expect("there are many numbers"));
    let header = TxnHeader { session, cxid: 1, zxid: Zxid(zxid), time: 1000 + zxid as i64 };
    if dice[0] >= 232 {
        let txn = match dice[0] % 4 {
            0 => Txn::CreateSession { timeout_ms: dice[1] as i32 },
            // Without its list it can't be replayed (fault-model C-42).
            1 if paths == PATHS.len() => Txn::CloseSession { paths: None },
            2 => {
                let paths =
                    model.nodes.iter().filter(|(_, node)| node.owner == session.0).map(|(path, _)| path.clone());
                Txn::CloseSession { paths: Some(paths.collect()) }
            }
            _ => Txn::Error { code: -101 },
        };
        return (header, txn);
    }
    if dice[0] >= 200 {
        let mut shadow = model.clone();
        let mut ops = Vec::new();
        for op in 0..1 + dice[1] % 4 {
            let sub =
                [dice[1].wrapping_mul(31).wrapping_add(op * 77) % 200, dice[2] ^ (op * 13), dice[3] ^ op, op, dice[4]];
            let (_, txn) = make_txn(&shadow, sub, zxid, paths);
            shadow.apply(&header, &txn, &mut Applied::default());
            ops.push(txn);
        }
        if dice[0].is_multiple_of(4) {
            let at = dice[3] as usize % ops.len();
            ops[at] = Txn::Error { code: -110 };
            ops[at + 1..].fill(Txn::Error { code: -2 });
        }
        return (header, Txn::Multi(ops));
    }
    let path = PATHS[dice[1] as usize % paths].to_owned();
    let data = match dice[2] % 8 {
        0 => None,
        1 => Some(Vec::new()),
        len => Some(vec![b'0' + dice[3] % 10; len as usize * 5]),
    };
    let acl = match dice[3] % 5 {
        0 => vec![Acl::world(Acl::READ)],
        1 => vec![Acl { perms: 31, scheme: "digest".into(), id: "u:x".into() }, Acl::world(1)],
        _ => vec![Acl::world(Acl::ALL)],
    };
    let node = model.nodes.get(&path);
    let txn = match dice[0] % 10 {
        0..=4 => {
            let (op, kind) = match dice[2] / 8 % 6 {
                0 => (OpCode::Create, NodeKind::Persistent),
                1 => (OpCode::Create2, NodeKind::Persistent),
                2 | 3 => (OpCode::Create, NodeKind::Ephemeral),
                4 => (OpCode::CreateContainer, NodeKind::Container),
                _ => (OpCode::CreateTtl, NodeKind::Ttl(1 + dice[3] as i64)),
            };
            let parent = model.nodes.get(parent_of(&path));
            let under_ephemeral = parent.is_some_and(|parent| parent.owner > 0);
            if node.is_some() || parent.is_none() || under_ephemeral {
                return (header, Txn::Error { code: -110 });
            }
            let parent_cversion = parent
                .map_or(-1, |parent| if paths == PATHS.len() && dice[4] > 250 { -1 } else { parent.cversion + 1 });
            Txn::Create { op, path, data, acl: acl.into(), kind, parent_cversion }
        }
        5 | 6 if node.is_some() && model.children(&path).is_empty() => Txn::Delete { op: OpCode::Delete, path },
        7 | 8 if node.is_some() || dice[4] > 240 => {
            let version = node.map_or(1, |node| node.version + 1);
            let path = if dice[4] > 240 { String::new() } else { path };
            Txn::SetData { op: OpCode::SetData, path, data, version }
        }
        _ if node.is_none() => Txn::Error { code: -101 },
        _ if dice[4] < 200 => Txn::SetAcl { path, acl: acl.into(), version: node.map_or(1, |node| node.aversion + 1) },
        _ => Txn::Check { path, version: 0 },
    };
    (header, txn)
}

fn session_ops_unordered(mut applied: Applied, txn: &Txn) -> Applied {
    if matches!(txn, Txn::CloseSession { .. }) {
        applied.touched.sort_by(|a, b| a.path.cmp(&b.path));
    }
    applied
}

/// What was touched last at a path has the slot that the path has, unless it is gone; then the slots are taken out.
fn check_slots(tree: &Tree, applied: &mut Applied) {
    for at in 0..applied.touched.len() {
        let (touched, later) = (&applied.touched[at], &applied.touched[at + 1..]);
        if touched.path.len() > 1 && later.iter().all(|later| later.path != touched.path) {
            let there = tree.lookup(&touched.path).map(|node| node.slot());
            let expected = (touched.kind != EventKind::NodeDeleted).then_some(touched.slot);
            assert_eq!(there, expected, "{}", touched.path);
            if there.is_some() {
                assert_eq!(tree.path_of_slot(touched.slot).as_deref(), Some(&*touched.path));
                assert_eq!(tree.lookup(parent_of(&touched.path)).map(|node| node.slot()), Some(touched.parent_slot));
            }
        }
    }
    applied.touched.iter_mut().for_each(|touched| (touched.slot, touched.parent_slot) = (0, 0));
}

fn restored(images: &[u8], acls: Vec<NumberedAcl>, zxid: Zxid) -> Tree {
    let mut restore = Restore::new(options(), zxid, acls, images.len() / 100).unwrap();
    // Two threads would do so, in any order.
    let mut rest = images;
    while rest.len() > images.len() / 2 {
        rest = Image::read(rest).unwrap().1;
    }
    let mut decoders = restore.decoders(2);
    for (decoder, part) in decoders.iter_mut().zip([rest, &images[..images.len() - rest.len()]]) {
        restore.add(decoder.decode(part).unwrap()).unwrap();
    }
    restore.finish(decoders).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_is_the_model_and_a_frozen_image_is_the_model_of_its_zxid(
        dice in prop::collection::vec(any::<[u8; 5]>(), 1..120),
        slice in 1usize..400,
    ) {
        let mut tree = Tree::new(options());
        let mut model = Model::new();
        let mut frozen: Option<(Model, Vec<u8>)> = None;
        for (at, dice) in dice.iter().enumerate() {
            let (header, txn) = make_txn(&model, *dice, at as u64 + 1, PATHS.len());
            let (mut real, mut expected) = (Applied::default(), Applied::default());
            tree.apply(&header, txn.clone(), &mut real);
            model.apply(&header, &txn, &mut expected);
            check_slots(&tree, &mut real);
            let (real, expected) = (session_ops_unordered(real, &txn), session_ops_unordered(expected, &txn));
            prop_assert_eq!(&real.results, &expected.results, "{:?}", &txn);
            prop_assert_eq!(&real.touched, &expected.touched, "{:?}", &txn);
            prop_assert_eq!(tree.digest(), model.digest(), "{:?}", &txn);
            match &mut frozen {
                None => {
                    if dice[0] % 16 == 3 {
                        let info = tree.begin_freeze();
                        prop_assert_eq!(info.zxid, Zxid(model.zxid));
                        prop_assert_eq!(info.nodes, model.nodes.len() as u64);
                        frozen = Some((model.clone(), Vec::new()));
                    }
                }
                Some((then, images)) => {
                    let unread = tree.frozen_bytes();
                    let length = images.len();
                    if dice[2] % 4 == 0 {
                        let progress = tree.read_frozen(slice, images);
                        prop_assert!(images.len() - length >= unread && tree.frozen_bytes() == 0);
                        if progress == Progress::More {
                            continue;
                        }
                        let (acls, progress) = tree.frozen_acls(0, u32::MAX);
                        prop_assert_eq!(progress, Progress::Done);
                        tree.end_freeze();
                        assert_same(&restored(images, acls, Zxid(then.zxid)), then);
                        frozen = None;
                    }
                }
            }
        }
        assert_same(&tree, &model);
        if let Some((then, mut images)) = frozen {
            while tree.read_frozen(slice, &mut images) == Progress::More {}
            let (acls, _) = tree.frozen_acls(0, u32::MAX);
            assert_same(&restored(&images, acls, Zxid(then.zxid)), &then);
        }
    }

    #[test]
    fn a_suffix_that_is_replayed_changes_nothing(
        dice in prop::collection::vec(any::<[u8; 5]>(), 1..80),
        from in any::<prop::sample::Index>(),
    ) {
        let mut tree = Tree::new(options());
        let mut model = Model::new();
        let mut log = Vec::new();
        for (at, dice) in dice.iter().enumerate() {
            // Without quotas: usage is kept by adding up, which can't be done twice (ZooKeeper neither).
            let (header, txn) = make_txn(&model, *dice, at as u64 + 1, 8);
            tree.apply(&header, txn.clone(), &mut Applied::default());
            model.apply(&header, &txn, &mut Applied::default());
            log.push((header, txn));
        }
        for (header, txn) in &log[from.index(log.len())..] {
            tree.apply(header, txn.clone(), &mut Applied::default());
        }
        assert_same(&tree, &model);
    }

    #[test]
    fn no_transaction_panics(
        ops in prop::collection::vec((any::<[u8; 4]>(), "(/|a|b|zookeeper|quota|zookeeper_limits|zookeeper_stats){0,9}"), 1..60),
    ) {
        let mut tree = Tree::new(options());
        for (dice, path) in ops {
            let header = TxnHeader {
                session: SessionId(dice[3] as i64 - 2),
                cxid: 0,
                zxid: Zxid(dice[1] as u64),
                time: 0,
            };
            let data = (dice[2] % 3 != 0).then(|| vec![b'x'; dice[2] as usize]);
            let kind = [NodeKind::Persistent, NodeKind::Ephemeral, NodeKind::Container, NodeKind::Ttl(-7)][dice[2] as usize % 4];
            let (op, acl, parent_cversion) = (OpCode::Create, vec![], dice[3] as i32 - 3);
            let txn = match dice[0] % 8 {
                0..=2 => Txn::Create { op, path, data, acl: acl.into(), kind, parent_cversion },
                3 => Txn::Delete { op: OpCode::Delete, path },
                4 => Txn::SetData { op: OpCode::SetData, path, data, version: i32::MIN },
                5 => Txn::SetAcl { path, acl: acl.into(), version: -1 },
                6 => Txn::CloseSession { paths: Some(vec![path.clone(), path]) },
                _ => Txn::Multi(vec![Txn::Multi(vec![]), Txn::Delete { op: OpCode::Delete, path }]),
            };
            tree.apply(&header, txn, &mut Applied::default());
        }
        let mut images = Vec::new();
        tree.begin_freeze();
        while tree.read_frozen(100, &mut images) == Progress::More {}
        let again = restored(&images, tree.frozen_acls(0, u32::MAX).0, tree.zxid());
        assert_eq!(again.digest(), tree.digest());
    }
}

/// Found by the property above: a session without a list of paths owned a quota's limits and what they count.
#[test]
fn a_session_that_ends_without_a_list_of_paths_loses_them_in_the_order_of_their_names() {
    let dice = [
        [90, 204, 32, 0, 0],
        [120, 126, 112, 0, 17],
        [160, 205, 112, 0, 107],
        [130, 108, 0, 0, 0],
        [233, 0, 0, 0, 0],
        [253, 0, 0, 0, 16],
    ];
    let (mut tree, mut model) = (Tree::new(options()), Model::new());
    for (at, dice) in dice.into_iter().enumerate() {
        let (header, txn) = make_txn(&model, dice, at as u64 + 1, PATHS.len());
        tree.apply(&header, txn.clone(), &mut Applied::default());
        model.apply(&header, &txn, &mut Applied::default());
    }
    assert_same(&tree, &model);
}

#[test]
fn a_number_that_is_free_or_another_znodes_by_now_has_no_children_of_the_one_before() {
    let mut tree = Tree::new(options());
    let mut zxid = 0;
    let mut apply = |tree: &mut Tree, txn: Txn| {
        zxid += 1;
        let header = TxnHeader { session: SessionId(1), cxid: 0, zxid: Zxid(zxid), time: 0 };
        tree.apply(&header, txn, &mut Applied::default());
        Zxid(zxid)
    };
    let create = |path: &str| Txn::Create {
        op: OpCode::Create,
        path: path.into(),
        data: None,
        acl: Acl::open().to_vec().into(),
        kind: NodeKind::Persistent,
        parent_cversion: -1,
    };
    let delete = |path: &str| Txn::Delete { op: OpCode::Delete, path: path.into() };
    let there = |tree: &Tree, slot, czxid| tree.lookup_child(slot, czxid, "child").map(|child| child.path());

    let old = apply(&mut tree, create("/old"));
    apply(&mut tree, create("/old/child"));
    let slot = tree.lookup("/old").unwrap().slot();
    assert_eq!(there(&tree, slot, old).as_deref(), Some("/old/child"));
    apply(&mut tree, delete("/old/child"));
    apply(&mut tree, delete("/old"));
    assert_eq!(there(&tree, slot, old), None, "the number is free");
    let new = apply(&mut tree, create("/new"));
    apply(&mut tree, create("/new/child"));
    assert_eq!(tree.lookup("/new").unwrap().slot(), slot, "the number has been given out again");
    assert_eq!(there(&tree, slot, old), None, "to a znode with such a child of its own");
    assert_eq!(there(&tree, slot, new).as_deref(), Some("/new/child"));
}
