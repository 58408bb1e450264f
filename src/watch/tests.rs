//! The event table of client-protocol 4.4 row by row, and a simple model under random operations.

use super::*;
use crate::random::{Rng, hash_bytes};
use EventKind::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

type Event = (ConnectionId, EventKind, String, AclOf);

fn table() -> WatchTable {
    WatchTable::new(Arc::new(WatchFilter::new()), usize::MAX)
}

/// As if every path had a znode, with a number of its own.
fn number(path: &str) -> u32 {
    hash_bytes(path.as_bytes()) as u32
}

fn add(table: &mut WatchTable, connection: ConnectionId, path: &str, kind: WatchKind) {
    table.add(connection, path, Some(number(path)), kind).unwrap();
}

fn check(table: &WatchTable, connection: ConnectionId, path: &str, what: WatchType) -> bool {
    table.check(connection, path, Some(number(path)), what)
}

fn remove(table: &mut WatchTable, connection: ConnectionId, path: &str, what: WatchType) -> bool {
    table.remove(connection, path, Some(number(path)), what)
}

fn change(kind: EventKind, path: &str) -> Change<'_> {
    Change { kind, path, znode: number(path), parent: parent(path).map_or(0, number) }
}

fn trigger(table: &mut WatchTable, kind: EventKind, path: &str) -> Vec<Event> {
    trigger_change(table, &change(kind, path))
}

fn trigger_change(table: &mut WatchTable, change: &Change<'_>) -> Vec<Event> {
    let mut events = Vec::new();
    table.trigger(change, &mut |connection, kind, path: &str, acl| {
        events.push((connection, kind, path.to_owned(), acl));
    });
    events
}

/// Kinds and paths that connection 1 hears.
fn heard(table: &mut WatchTable, kind: EventKind, path: &str) -> Vec<(EventKind, String)> {
    trigger(table, kind, path).into_iter().map(|(_, kind, path, _)| (kind, path)).collect()
}

fn event(kind: EventKind, path: &str) -> (EventKind, String) {
    (kind, path.to_owned())
}

#[test]
fn what_is_above_a_path_is_its_parent_and_what_is_above_that() {
    let mut rng = Rng::new(5);
    let names = ["a", "b", "\u{e4}", "", "a name with more than eight bytes"];
    for _ in 0..500 {
        let parts: Vec<&str> = (0..rng.below(12)).map(|_| names[rng.below(5) as usize]).collect();
        let path = format!("/{}", parts.join("/"));
        let mut expected: Vec<&str> = std::iter::successors(parent(&path), |path| parent(path)).collect();
        expected.reverse();
        let mut found: Vec<(&str, u64)> = above(&path).collect();
        // Of a path that begins with two slashes, which no znode has, the root is above twice.
        found.dedup();
        assert_eq!(found, Vec::from_iter(expected.iter().map(|path| (*path, hash_bytes(path.as_bytes())))), "{path}");
    }
}

#[test]
fn one_shot_watches_fire_once_and_only_for_their_kind() {
    let mut table = table();
    add(&mut table, 1, "/w", WatchKind::Data);
    add(&mut table, 1, "/w", WatchKind::Data);
    assert_eq!(table.watch_count(), 1);
    assert_eq!(heard(&mut table, NodeCreated, "/w/child"), []);
    assert_eq!(heard(&mut table, NodeDataChanged, "/w"), [event(NodeDataChanged, "/w")]);
    assert_eq!(heard(&mut table, NodeDataChanged, "/w"), []);
    add(&mut table, 1, "/w", WatchKind::Child);
    assert_eq!(heard(&mut table, NodeDataChanged, "/w"), []);
    assert_eq!(heard(&mut table, NodeDeleted, "/w/child"), [event(NodeChildrenChanged, "/w")]);
    assert_eq!(heard(&mut table, NodeDeleted, "/w/child"), []);
    assert_eq!(table.watch_count(), 0);
    assert!(table.places.is_empty() && table.places.crowd_count() == 0);
}

#[test]
fn get_data_and_get_children_on_one_path_give_one_deleted_and_both_are_used_up() {
    let mut table = table();
    add(&mut table, 1, "/w", WatchKind::Data);
    add(&mut table, 1, "/w", WatchKind::Child);
    assert_eq!(heard(&mut table, NodeDataChanged, "/w"), [event(NodeDataChanged, "/w")]);
    assert!(check(&table, 1, "/w", WatchType::Children), "the child watch stays");
    add(&mut table, 1, "/w", WatchKind::Data);
    assert_eq!(heard(&mut table, NodeDeleted, "/w"), [event(NodeDeleted, "/w")]);
    assert_eq!(table.watch_count(), 0);
    add(&mut table, 1, "/w", WatchKind::Child);
    assert_eq!(heard(&mut table, NodeDeleted, "/w"), [event(NodeDeleted, "/w")]);
}

#[test]
fn persistent_watches_stay_and_see_children_but_not_their_data() {
    let mut table = table();
    add(&mut table, 1, "/w", WatchKind::Persistent);
    assert_eq!(table.watch_count(), 2);
    for _ in 0..2 {
        assert_eq!(heard(&mut table, NodeCreated, "/w"), [event(NodeCreated, "/w")]);
        assert_eq!(heard(&mut table, NodeDataChanged, "/w"), [event(NodeDataChanged, "/w")]);
        assert_eq!(heard(&mut table, NodeCreated, "/w/c"), [event(NodeChildrenChanged, "/w")]);
        assert_eq!(heard(&mut table, NodeDataChanged, "/w/c"), []);
        assert_eq!(heard(&mut table, NodeCreated, "/w/c/d"), []);
        assert_eq!(heard(&mut table, NodeDeleted, "/w"), [event(NodeDeleted, "/w")]);
    }
}

#[test]
fn recursive_watches_see_everything_below_but_no_changed_children() {
    let mut table = table();
    add(&mut table, 1, "/", WatchKind::Recursive);
    add(&mut table, 1, "/w", WatchKind::Recursive);
    for path in ["/w", "/w/c", "/w/c/d"] {
        for kind in [NodeCreated, NodeDataChanged, NodeDeleted] {
            assert_eq!(heard(&mut table, kind, path), [event(kind, path)], "once, however many ancestors match");
        }
    }
    assert_eq!(heard(&mut table, NodeCreated, "/ww"), [event(NodeCreated, "/ww")]);
    assert!(remove(&mut table, 1, "/", WatchType::PersistentRecursive));
    assert_eq!(heard(&mut table, NodeCreated, "/ww"), []);
}

#[test]
fn persistent_recursive_and_children_together() {
    let mut table = table();
    add(&mut table, 1, "/w", WatchKind::Persistent);
    add(&mut table, 1, "/w", WatchKind::Recursive);
    add(&mut table, 1, "/w", WatchKind::Child);
    let both = [event(NodeCreated, "/w/c"), event(NodeChildrenChanged, "/w")];
    assert_eq!(heard(&mut table, NodeCreated, "/w/c"), both);
    assert_eq!(heard(&mut table, NodeDataChanged, "/w"), [event(NodeDataChanged, "/w")]);
    assert_eq!(heard(&mut table, NodeDeleted, "/w"), [event(NodeDeleted, "/w")]);
}

#[test]
fn the_acl_is_the_parents_for_changed_children_only() {
    let mut table = table();
    add(&mut table, 1, "/", WatchKind::Child);
    add(&mut table, 2, "/w", WatchKind::Data);
    add(&mut table, 3, "/w", WatchKind::Child);
    let events = trigger(&mut table, NodeDeleted, "/w");
    let expected = [
        (2, NodeDeleted, "/w".to_owned(), AclOf::Node),
        (3, NodeDeleted, "/w".to_owned(), AclOf::Node),
        (1, NodeChildrenChanged, "/".to_owned(), AclOf::Parent),
    ];
    assert_eq!(events, expected);
}

#[test]
fn removing_one_kind_keeps_the_others() {
    let mut table = table();
    for kind in [WatchKind::Data, WatchKind::Child, WatchKind::Persistent, WatchKind::Recursive] {
        add(&mut table, 7, "/w", kind);
    }
    let types = [WatchType::Children, WatchType::Data, WatchType::Persistent, WatchType::PersistentRecursive];
    assert!(types.iter().all(|what| check(&table, 7, "/w", *what)) && !check(&table, 8, "/w", WatchType::Any));
    for what in types {
        assert!(remove(&mut table, 7, "/w", what), "{what:?}");
        assert!(!check(&table, 7, "/w", what) && !remove(&mut table, 7, "/w", what));
    }
    assert!(!check(&table, 7, "/w", WatchType::Any));
    add(&mut table, 7, "/w", WatchKind::Persistent);
    add(&mut table, 9, "/w", WatchKind::Data);
    assert!(remove(&mut table, 7, "/w", WatchType::Any));
    assert_eq!((table.watch_count(), check(&table, 9, "/w", WatchType::Data)), (1, true));
}

/// Path and connection to modes; everything else is looked for.
#[derive(Default)]
struct Model(BTreeMap<(String, ConnectionId), u8>, BTreeSet<ConnectionId>);

impl Model {
    fn trigger(&mut self, kind: EventKind, path: &str) -> Vec<Event> {
        let mut told = BTreeSet::new();
        for ((at, connection), modes) in &self.0 {
            let above = at == "/" || path.starts_with(&format!("{at}/"));
            if (at == path && modes & IN_DATA_TABLE != 0) || (at != path && above && modes & RECURSIVE != 0) {
                told.insert(*connection);
            }
        }
        let mut events: Vec<Event> = told.iter().map(|&c| (c, kind, path.to_owned(), AclOf::Node)).collect();
        self.use_up(path, DATA);
        if kind == NodeDeleted {
            let also = self.at(path, IN_CHILD_TABLE);
            events.extend(also.difference(&told).map(|&c| (c, kind, path.to_owned(), AclOf::Node)));
            self.use_up(path, CHILD);
        }
        if let (true, Some(parent)) = (kind != NodeDataChanged, parent(path)) {
            let told = self.at(parent, IN_CHILD_TABLE);
            events.extend(told.iter().map(|&c| (c, NodeChildrenChanged, parent.to_owned(), AclOf::Parent)));
            self.use_up(parent, CHILD);
        }
        events
    }

    fn at(&self, path: &str, wanted: u8) -> BTreeSet<ConnectionId> {
        let found = self.0.iter().filter(|((at, _), modes)| at == path && **modes & wanted != 0);
        found.map(|((_, connection), _)| *connection).collect()
    }

    fn use_up(&mut self, path: &str, used_up: u8) {
        self.0.iter_mut().filter(|((at, _), _)| at == path).for_each(|(_, modes)| *modes &= !used_up);
        self.0.retain(|_, modes| *modes != 0);
    }
}

#[test]
fn a_connection_watches_as_much_as_it_may_and_again_what_has_fired() {
    const EACH: usize = WATCH_BYTES + PATH_BYTES + 2;
    let mut table = WatchTable::new(Arc::new(WatchFilter::new()), 2 * EACH + 10);
    // Not there yet: the paths count.
    table.add(1, "/a", None, WatchKind::Data).unwrap();
    table.add(1, "/b", None, WatchKind::Data).unwrap();
    table.add(1, "/c", None, WatchKind::Data).unwrap_err();
    table.add(1, "/c", Some(3), WatchKind::Child).unwrap_err();
    // What it has is no more when it asks again; what others have is theirs.
    table.add(1, "/b", None, WatchKind::Data).unwrap();
    table.add(1, "/b", None, WatchKind::Persistent).unwrap();
    table.add(2, "/c", None, WatchKind::Data).unwrap();
    assert_eq!(heard(&mut table, NodeCreated, "/a"), [event(NodeCreated, "/a")]);
    (0..3).for_each(|znode| table.add(1, "/c", Some(znode), WatchKind::Child).unwrap());
    table.add(1, "/c", Some(3), WatchKind::Child).unwrap_err();
    // A rest that was refused is not there.
    assert_eq!(trigger(&mut table, NodeCreated, "/c"), [(2, NodeCreated, "/c".to_owned(), AclOf::Node)]);
    table.close(1);
    table.add(1, "/a", None, WatchKind::Recursive).unwrap();
    assert!(table.remove(1, "/a", None, WatchType::Any) || table.remove(1, "/a", None, WatchType::PersistentRecursive));
    (0..6).for_each(|znode| table.add(1, "/c", Some(znode), WatchKind::Data).unwrap());
    table.add(1, "/c", Some(6), WatchKind::Data).unwrap_err();
    // More of what it watches already takes nothing, unless the path has to be kept for it.
    (0..6).for_each(|znode| table.add(1, "/c", Some(znode), WatchKind::Child).unwrap());
    table.add(1, "/c", Some(0), WatchKind::Persistent).unwrap_err();
    table.close(1);
    table.add(1, "/c", Some(0), WatchKind::Data).unwrap();
    table.add(1, "/c", Some(0), WatchKind::Persistent).unwrap();
}

/// Which znodes there are, and their numbers: the lowest free one, so that numbers come again at once.
#[derive(Default)]
struct Znodes(BTreeMap<String, u32>);

impl Znodes {
    fn create(&mut self, path: &str) -> u32 {
        let number = (0..).find(|number| !self.0.values().any(|other| other == number)).unwrap();
        self.0.insert(path.to_owned(), number);
        number
    }
}

#[test]
fn random_operations_agree_with_the_model() {
    let paths = ["/", "/a", "/b", "/a/x", "/a/y", "/a/x/1", "/b/z"];
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let filter = Arc::new(WatchFilter::new());
        let mut table = WatchTable::new(filter.clone(), usize::MAX);
        let mut model = Model::default();
        let mut znodes = Znodes::default();
        znodes.create("/");
        for _ in 0..1500 {
            let path = paths[rng.below(paths.len() as u64) as usize];
            let znode = znodes.0.get(path).copied();
            let connection = rng.below(6) as u32;
            match rng.below(20) {
                0..8 => {
                    let (kind, modes) = [
                        (WatchKind::Data, DATA),
                        (WatchKind::Child, CHILD),
                        (WatchKind::Persistent, DATA_PERSISTENT | CHILD_PERSISTENT),
                        (WatchKind::Recursive, RECURSIVE),
                    ][rng.below(4) as usize];
                    // A child watch needs a znode.
                    if kind == WatchKind::Child && znode.is_none() {
                        continue;
                    }
                    table.add(connection, path, znode, kind).unwrap();
                    *model.0.entry((path.to_owned(), connection)).or_default() |= modes;
                    if modes & IN_DATA_TABLE != 0 {
                        model.1.insert(connection);
                    }
                }
                8..10 => {
                    let what = WatchType::from_wire(1 + rng.below(5) as i32).unwrap();
                    let mut from_data = false;
                    let removed = match model.0.get_mut(&(path.to_owned(), connection)) {
                        None => false,
                        Some(modes) => {
                            let old = *modes;
                            *modes &= !modes_of(what);
                            from_data = old & !*modes & IN_DATA_TABLE != 0;
                            *modes != old
                        }
                    };
                    model.0.retain(|_, modes| *modes != 0);
                    let left = model.0.iter().any(|((_, c), modes)| *c == connection && modes & IN_DATA_TABLE != 0);
                    if from_data && !left {
                        model.1.remove(&connection);
                    }
                    assert_eq!(table.remove(connection, path, znode, what), removed);
                }
                10 => {
                    table.close(connection);
                    model.0.retain(|(_, other), _| *other != connection);
                    model.1.remove(&connection);
                }
                _ => {
                    // What can happen to it now. A parent goes only when nothing is below it.
                    let has_children = znodes.0.keys().any(|other| parent(other) == Some(path));
                    let above = parent(path).map(|parent| znodes.0.get(parent).copied());
                    let (kind, znode, parent) = match (znode, above) {
                        (None, Some(Some(parent))) => (NodeCreated, znodes.create(path), parent),
                        (None, _) => continue,
                        (Some(znode), Some(Some(parent))) if !has_children && rng.below(2) == 0 => {
                            znodes.0.remove(path);
                            (NodeDeleted, znode, parent)
                        }
                        (Some(znode), _) => (NodeDataChanged, znode, u32::MAX),
                    };
                    let change = Change { kind, path, znode, parent };
                    let might = filter.might_watch(&PathHashes::new(&change));
                    let mut events = trigger_change(&mut table, &change);
                    let mut expected = model.trigger(kind, path);
                    assert!(might || expected.is_empty(), "the filter never hides a watch");
                    // Of one trigger, the order among connections means nothing.
                    events.sort_by_key(|e| (e.1 as i32 == 4, e.0));
                    expected.sort_by_key(|e| (e.1 as i32 == 4, e.0));
                    assert_eq!(events, expected);
                }
            }
            let count = |table: u8| model.0.values().filter(|modes| **modes & table != 0).count();
            assert_eq!(table.watch_count(), count(IN_DATA_TABLE) + count(IN_CHILD_TABLE));
            assert_eq!(
                (table.data_watch_count(), table.data_watchers().count()),
                (count(IN_DATA_TABLE), model.1.len())
            );
            let path_of = |number| znodes.0.iter().find(|(_, other)| **other == number).map(|(path, _)| path.clone());
            let data = table.data_watches(path_of);
            let data: BTreeSet<_> =
                data.flat_map(|(path, all)| all.into_iter().map(move |c| (path.to_string(), c))).collect();
            let expected = model.0.iter().filter(|(_, modes)| **modes & IN_DATA_TABLE != 0);
            assert_eq!(data, expected.map(|(at, _)| at.clone()).collect());
            for connection in 0..6 {
                let has = model.0.get(&(path.to_owned(), connection)).copied().unwrap_or(0);
                let znode = znodes.0.get(path).copied();
                assert_eq!(table.check(connection, path, znode, WatchType::Any), has != 0);
            }
        }
        for connection in 0..6 {
            table.close(connection);
        }
        assert!(table.places.is_empty() && table.places.crowd_count() == 0 && table.watchers.is_empty());
        assert!(filter.places.iter().chain(&filter.recursive).all(|counter| counter.load(Ordering::Relaxed) == 0));
    }
}

/// Seen in wchs of ZooKeeper 3.9.5.
#[test]
fn a_fired_watch_leaves_its_connection_in_the_summary_and_a_removed_one_does_not() {
    let mut table = table();
    let summary = |table: &WatchTable| {
        let paths = table.data_watches(|_| Some("/a".into())).count();
        (table.data_watchers().count(), paths, table.data_watch_count())
    };
    add(&mut table, 1, "/a", WatchKind::Child);
    assert_eq!(summary(&table), (0, 0, 0));
    add(&mut table, 1, "/a", WatchKind::Data);
    assert_eq!(summary(&table), (1, 1, 1));
    heard(&mut table, NodeDataChanged, "/a");
    assert_eq!(summary(&table), (1, 0, 0));
    add(&mut table, 1, "/a", WatchKind::Data);
    assert!(remove(&mut table, 1, "/a", WatchType::Data));
    assert_eq!(summary(&table), (0, 0, 0));
}

#[test]
fn a_connection_that_watches_again_and_again_keeps_a_short_list() {
    let mut table = table();
    for round in 0..10_000 {
        let path = format!("/p{}", round % 7);
        add(&mut table, 1, &path, WatchKind::Data);
        heard(&mut table, NodeDataChanged, &path);
    }
    assert!(table.watchers[&1].znodes.len() <= 64);
}

#[test]
fn a_number_that_another_znode_gets_brings_none_of_the_old_watches() {
    let mut table = table();
    table.add(1, "/old", Some(5), WatchKind::Data).unwrap();
    table.add(2, "/old", Some(5), WatchKind::Child).unwrap();
    table.add(3, "/old", Some(5), WatchKind::Persistent).unwrap();
    let at_5 = |kind, path| Change { kind, path, znode: 5, parent: 0 };
    let events = trigger_change(&mut table, &at_5(NodeDeleted, "/old"));
    assert_eq!(events.iter().map(|event| event.0).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
    for kind in [NodeCreated, NodeDataChanged, NodeDeleted] {
        assert_eq!(trigger_change(&mut table, &at_5(kind, "/new")), []);
    }
    assert!(table.check(3, "/old", None, WatchType::Persistent), "it waits for the path");
}

#[test]
fn what_one_connection_watches_at_one_path_is_counted_once_whichever_came_first() {
    let kinds = [WatchKind::Data, WatchKind::Child, WatchKind::Persistent, WatchKind::Recursive];
    for order in 0..24 {
        let (mut table, mut left) = (table(), kinds.to_vec());
        let mut choice = order;
        while !left.is_empty() {
            add(&mut table, 1, "/w", left.remove(choice % left.len()));
            choice /= left.len() + 1;
        }
        assert_eq!((table.watch_count(), table.data_watch_count()), (2, 1), "{order}");
        assert_eq!(trigger(&mut table, NodeDataChanged, "/w").len(), 1);
        assert!(!check(&table, 1, "/w", WatchType::Data) && check(&table, 1, "/w", WatchType::Children));
        assert_eq!(trigger(&mut table, NodeDeleted, "/w").len(), 1);
        assert!(!check(&table, 1, "/w", WatchType::Children) && check(&table, 1, "/w", WatchType::PersistentRecursive));
        assert_eq!((table.watch_count(), table.data_watch_count()), (2, 1));
    }
}
