//! What a znode and a watch cost, measured on the process itself: a real large tree has a hundred million of the one
//! (mean path 115 bytes, its last part 24, mean data 46), and a busy server a million of the other.
//!
//! One test, since nothing else may allocate meanwhile.

use ostler::ids::{SessionId, Zxid};
use ostler::tree::{Applied, Tree, TreeOptions};
use ostler::watch::{WatchFilter, WatchKind, WatchTable};
use ostler::wire::OpCode;
use ostler::wire::txn::{Acl, NodeKind, Txn, TxnHeader};
use std::sync::Arc;

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}

fn create(tree: &mut Tree, out: &mut Applied, path: String, data: usize) {
    let zxid = Zxid(tree.zxid().0 + 1);
    let header = TxnHeader { session: SessionId(1), cxid: 1, zxid, time: 1_700_000_000_000 };
    let txn = Txn::Create {
        op: OpCode::Create,
        path,
        data: Some(vec![b'x'; data]),
        acl: vec![Acl::world(Acl::ALL)].into(),
        kind: NodeKind::Persistent,
        parent_cversion: -1,
    };
    out.clear();
    tree.apply(&header, txn, out);
    assert_eq!(out.touched.len(), 1);
}

#[test]
fn a_znode_takes_at_most_200_bytes_and_a_watch_at_most_25() {
    let mut tree = Tree::new(TreeOptions::default());
    let mut out = Applied::default();
    let before = resident();
    // Levels of 29 bytes above the leaves: 3 * 30 + 25 = 115.
    let (parents, leaves) = (40, 10_000);
    let top = format!("/{:029}", 0);
    let middle = format!("{top}/{:029}", 0);
    create(&mut tree, &mut out, top, 0);
    create(&mut tree, &mut out, middle.clone(), 0);
    for parent in 0..parents {
        let parent = format!("{middle}/{parent:029}");
        create(&mut tree, &mut out, parent.clone(), 46);
        for leaf in 0..leaves {
            create(&mut tree, &mut out, format!("{parent}/{leaf:024}"), 46);
        }
    }
    let nodes = parents * leaves + parents + 2;
    let each = (resident() - before) / nodes;
    println!("{nodes} znodes (path 115 bytes, data 46): {each} resident bytes each");
    assert!(each <= 200, "{each}");

    // Watches on existing znodes, each of 1000 connections on its own. Looked at at several sizes, since a table that doubles
    // is half empty at some of them. What was measured before is kept: memory that it gave back would not be counted.
    let mut table = WatchTable::new(Arc::new(WatchFilter::new()), usize::MAX);
    let before = resident();
    let connections = 1000;
    let mut znode = 0;
    for watches in [300, 600, 1000, 1200] {
        while znode < watches * connections {
            // The path is looked at and not kept.
            table.add(znode % connections, "/services/1", Some(znode), WatchKind::Data).unwrap();
            znode += 1;
        }
        let each = (resident() - before) / znode as usize;
        println!("{znode} watches on as many znodes: {each} resident bytes each");
        assert!(table.watch_count() == znode as usize && each <= 25, "{each}");
    }

    // A million on the same thousand znodes.
    let mut crowded = WatchTable::new(Arc::new(WatchFilter::new()), usize::MAX);
    let before = resident();
    for connection in 0..connections {
        for znode in 0..1000 {
            crowded.add(connection, "/services/1", Some(znode), WatchKind::Data).unwrap();
        }
    }
    let each = (resident() - before) / crowded.watch_count();
    println!("a million watches on a thousand znodes: {each} resident bytes each");
    assert!(each <= 20, "{each}");

    // A million on paths that are no znodes: those have to be kept.
    let paths: Vec<Box<str>> = (0..1_000_000).map(|n| format!("/services/{n:030}").into_boxed_str()).collect();
    let mut outside = WatchTable::new(Arc::new(WatchFilter::new()), usize::MAX);
    let before = resident();
    for (n, path) in paths.iter().enumerate() {
        outside.add(n as u32 % connections, path, None, WatchKind::Data).unwrap();
    }
    // 40 bytes of path are an allocation of 48.
    let each = (resident() - before) / paths.len() - 48;
    println!("a million watches on as many paths without a znode: {each} resident bytes each, beside the path");
    assert!(each <= 40, "{each}");
    drop((tree, table, crowded, outside));
}
