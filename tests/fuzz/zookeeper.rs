//! What ZooKeeper's servers write and send of their trees, and what may come in its place.

use super::{SESSION, Small, exercise};
use ostler::ids::{SessionId, Zxid};
use ostler::snapshot::zookeeper::{DecodeError, DecodeLimits, Decoded, Decoder, write_snap, write_tree};
use ostler::tree::TreeOptions;

/// What 3.9.5 wrote: 16 bytes of header and 67 of seals around the tree.
const SNAPSHOT: &[u8] = include_bytes!("../golden/zookeeper-3.9.5.snapshot");

fn decode(mut decoder: Decoder, bytes: &[u8], piece: usize) -> Result<(Decoded, usize), DecodeError> {
    let mut taken = 0;
    for piece in bytes.chunks(piece) {
        taken += decoder.push(piece)?;
        if decoder.is_whole() {
            break;
        }
    }
    Ok((decoder.finish(Zxid(9))?, taken))
}

/// A tree as it comes from a leader (bit 0 of the first byte) or out of a file.
pub fn tree(input: &[u8]) {
    let [how, bytes @ ..] = input else { return };
    let limits = DecodeLimits { item_bytes: 4096, total_bytes: 1 << 20 };
    let decoder = || match how & 1 {
        1 => Decoder::of_snap(TreeOptions::default(), limits),
        _ => Decoder::new(TreeOptions::default(), limits),
    };
    let whole = decode(decoder(), bytes, bytes.len().max(1));
    let pieces = decode(decoder(), bytes, 1 + *how as usize);
    let ((mut whole, taken), (pieces, taken_in_pieces)) = match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => (whole, pieces),
        (Err(one), Err(other)) => return assert_eq!(one, other, "the error depends on the pieces"),
        _ => panic!("whether it is a tree depends on the pieces"),
    };
    assert_eq!((taken, whole.tree.digest()), (taken_in_pieces, pieces.tree.digest()), "the tree depends on the pieces");

    let mut encoded = Vec::new();
    match how & 1 {
        1 => write_snap(&whole.tree, &whole.sessions, &mut encoded),
        _ => write_tree(&whole.tree, &whole.sessions, &mut encoded),
    }
    .unwrap();
    let (again, taken) = decode(decoder(), &encoded, encoded.len()).expect("what was decoded survives its own bytes");
    assert_eq!(taken, encoded.len());
    assert_eq!((again.tree.digest(), &again.sessions), (whole.tree.digest(), &whole.sessions));
    assert_eq!(again.tree.node_count(), whole.tree.node_count());
    exercise(&mut whole.tree);
}

pub fn tree_seeds() -> Vec<Vec<u8>> {
    let small = Small::new();
    let sessions = [(SessionId(7), 4000), (SESSION, 8000)];
    let (mut file, mut snap) = (vec![0], vec![1]);
    write_tree(&small.tree, &sessions, &mut file).unwrap();
    write_snap(&small.tree, &sessions, &mut snap).unwrap();
    let real = [&[2], &SNAPSHOT[16..SNAPSHOT.len() - 67]].concat();
    vec![file, snap, real]
}
