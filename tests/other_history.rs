//! A server whose history goes another way than its leader's, and can't be cut where the leader says: what it was given in a
//! snapshot by a leader that no quorum ever followed has no beginning on its disk. It needs no restart, no operator and no
//! election: it asks for the leader's whole state.

mod support;

use ostler::disk::RealDisk;
use ostler::ids::{SessionId, Zxid};
use ostler::log::{Log, Recovery, Sizes};
use ostler::snapshot::{self, SessionRecord, SnapshotWriter};
use ostler::storage::{Dirs, Install};
use ostler::tree::{Applied, Progress, Tree, TreeOptions};
use ostler::wire::OpCode;
use ostler::wire::txn::{NodeKind, Txn, TxnHeader, read_txn};

use support::ensemble::{Ensemble, Layout};
use support::trees;

/// The log and the state that a stopped server has on its disk.
fn read(dirs: &Dirs) -> (Log<RealDisk>, Tree, Vec<SessionRecord>) {
    let options = TreeOptions::default();
    let newest = snapshot::load_newest(&RealDisk, &dirs.snapshots, options, 1).unwrap();
    let (mut tree, sessions) =
        newest.loaded.map_or((Tree::new(options), Vec::new()), |loaded| (loaded.tree, loaded.sessions));
    let mut recovery = Recovery::open(RealDisk, &dirs.log, tree.zxid(), Sizes::default()).unwrap();
    while let Some((_, record)) = recovery.next().unwrap() {
        let (header, txn, _) = read_txn(record).unwrap();
        tree.apply(&header, txn, &mut Applied::default());
    }
    (recovery.finish().unwrap(), tree, sessions)
}

/// Two transactions that nobody else has, in a snapshot in the place of everything else.
fn install_more(dirs: &Dirs) -> Zxid {
    let (mut log, mut tree, sessions) = read(dirs);
    for path in ["/lost-1", "/lost-2"] {
        let zxid = tree.zxid().next().unwrap();
        let header = TxnHeader { session: SessionId(1), cxid: 0, zxid, time: 0 };
        let (op, kind) = (OpCode::Create, NodeKind::Persistent);
        let txn = Txn::Create { op, path: path.into(), data: None, acl: Vec::new().into(), kind, parent_cversion: -1 };
        tree.apply(&header, txn, &mut Applied::default());
    }
    assert!(tree.lookup("/lost-2").is_some());
    let end = tree.zxid();
    let install = Install::begin(RealDisk, dirs, &log, end).unwrap();
    let mut writer = SnapshotWriter::begin(RealDisk, &dirs.snapshots, tree.begin_freeze(), &sessions).unwrap();
    loop {
        let progress = writer.take(&tree);
        writer.store().unwrap();
        if progress == Progress::Done {
            break;
        }
    }
    writer.finish().unwrap();
    install.commit(&mut log).unwrap();
    end
}

#[test]
fn a_history_that_can_not_be_cut_where_the_leader_says_is_replaced_by_the_leaders() {
    let mut ensemble = Ensemble::start(Layout::of(3));
    let odd = ensemble.followers()[0];
    let mut client = ensemble.client(odd, 20_000);
    client.create("/agreed", b"", 0).unwrap().unwrap();
    ensemble.kill_all(&[0, 1, 2]);
    let dir = ensemble.data(odd).join("version-2");
    let end = install_more(&Dirs { snapshots: dir.clone(), log: dir });

    let others: Vec<usize> = (0..3).filter(|&at| at != odd).collect();
    others.iter().for_each(|&at| ensemble.spawn(at));
    let mut client = ensemble.client(others[0], 20_000);
    client.create("/since", b"", 0).unwrap().unwrap();
    ensemble.restart(odd);
    let (tree, _) = trees::compare(&ensemble, &[0, 1, 2]);
    assert!(tree.contains_key("/agreed") && tree.contains_key("/since"));
    assert!(!tree.keys().any(|path| path.starts_with("/lost")), "{end}: {tree:?}");
    let said = ensemble.log(odd);
    assert!(said.contains("asks the leader for its whole state"), "it went another way:\n{said}");
    assert!(ensemble.is_running(odd));
}
