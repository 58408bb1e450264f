//! Random transactions over a few paths, for what keeps trees: valid ones mostly, and everything that it has to keep.
//!
//! Runs on: the test's thread.

use ostler::ids::SessionId;
use ostler::random::Rng;
use ostler::tree::Tree;
use ostler::wire::OpCode;
use ostler::wire::txn::{Acl, NodeKind, Txn};

/// One that may follow on what the tree has, of this session. One path in twenty is `quotas`' instead.
pub fn random_txn(rng: &mut Rng, tree: &Tree, session: SessionId, quotas: &[&str]) -> Txn {
    let mut path = format!("/p{}", rng.below(6));
    for _ in 0..rng.below(3) {
        path += &format!("/n{}", rng.below(4));
    }
    if rng.below(20) == 0 {
        path = quotas[rng.below(quotas.len() as u64) as usize].into();
    }
    let data = (rng.below(8) > 0).then(|| vec![b'a' + rng.below(26) as u8; rng.below(60) as usize]);
    let acl = match rng.below(4) {
        0 => vec![Acl { perms: rng.below(32) as i32, scheme: "digest".into(), id: format!("u{}:x", rng.below(9)) }],
        _ => vec![Acl::world(Acl::ALL)],
    };
    match (rng.below(10), tree.lookup(&path)) {
        (0..7, None) => {
            let parent = tree.lookup(&path[..path.rfind('/').unwrap()]);
            let Some(parent) = parent else { return Txn::Error { code: -101 } };
            let (op, kind) = [
                (OpCode::Create, NodeKind::Persistent),
                (OpCode::Create2, NodeKind::Ephemeral),
                (OpCode::CreateContainer, NodeKind::Container),
                (OpCode::CreateTtl, NodeKind::Ttl(5)),
            ][rng.below(4) as usize];
            let parent_cversion = parent.stored_cversion() + 1;
            Txn::Create { op, path, data, acl: acl.into(), kind, parent_cversion }
        }
        (0..3, Some(node)) => Txn::SetData { op: OpCode::SetData, path, data, version: node.version() + 1 },
        (3..6, Some(node)) if node.num_children() == 0 => Txn::Delete { op: OpCode::Delete, path },
        (6..8, Some(node)) => Txn::SetAcl { path, acl: acl.into(), version: node.aversion() + 1 },
        (8, _) if rng.below(20) == 0 => {
            let mut paths: Vec<String> = tree.ephemerals(session).collect();
            paths.sort_unstable();
            Txn::CloseSession { paths: Some(paths) }
        }
        _ => Txn::Error { code: -110 },
    }
}
