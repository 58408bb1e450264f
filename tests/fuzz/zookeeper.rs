//! What ZooKeeper's servers write and send of their trees, and what may come in its place.

use super::{SESSION, Small, exercise, patch};
use ostler::disk::Disk;
use ostler::disk::sim::SimDisk;
use ostler::ids::{SessionId, Zxid};
use ostler::snapshot::zookeeper::{
    Compression, DecodeError, DecodeLimits, Decoded, Decoder, ImportOptions, import, write_file, write_snap, write_tree,
};
use ostler::tree::TreeOptions;
use std::path::Path;

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

const LOG: &[u8] = include_bytes!("../golden/zookeeper-3.9.5.log");
const DIGEST: u64 = 0x9_0449_267c;

/// A data directory of which one file is the rest of the input or a real one patched by it: a log (0), a snapshot, plain,
/// gzip or snappy (1 to 3). What is taken without a word is what the files held.
pub fn directory(input: &[u8]) {
    let [how, rest @ ..] = input else { return };
    let (name, compression) = [
        ("log.1", None),
        ("snapshot.16a", Some(Compression::Plain)),
        ("snapshot.16a.gz", Some(Compression::Gzip)),
        ("snapshot.16a.snappy", Some(Compression::Snappy)),
    ][*how as usize >> 1 & 3];
    let mut bytes = match compression {
        None => LOG.to_vec(),
        Some(compression) => packed(compression),
    };
    let mut changed = usize::MAX;
    if how & 1 == 1 {
        changed = patch(&mut bytes, rest);
    } else {
        bytes = rest.to_vec();
    }
    let (disk, dir) = (SimDisk::new(), Path::new("/data"));
    disk.create_dir(dir).unwrap();
    disk.put(&dir.join(name), bytes);
    let limits = DecodeLimits { item_bytes: 1 << 16, total_bytes: 1 << 22 };
    let tree = TreeOptions {
        owner_rules: ostler::ids::OwnerRules { extended_types: true, emulate_353_ttl: false },
        digest: true,
    };
    let options = ImportOptions { tree, limits, up_to: None, check_digests: true, member: true };
    let imported = import(&disk, dir, dir, options, &mut |_, _| {});
    if let Ok(Some(mut imported)) = imported {
        let whole = imported.report.notes.is_empty() && changed <= 4;
        assert!(!whole || imported.tree.digest() == DIGEST, "{changed} changed bytes make another tree");
        exercise(&mut imported.tree);
    } else {
        assert!(changed > 0, "real files are refused");
    }
}

fn packed(compression: Compression) -> Vec<u8> {
    let mut decoder = Decoder::new(TreeOptions::default(), DecodeLimits::default());
    decoder.push(&SNAPSHOT[16..]).unwrap();
    let decoded = decoder.finish(Zxid(0x16a)).unwrap();
    let mut bytes = Vec::new();
    write_file(&decoded.tree, &decoded.sessions, compression, &mut bytes).unwrap();
    bytes
}

pub fn directory_seeds() -> Vec<Vec<u8>> {
    let place = |how: u8| [vec![how], vec![0, 10, 3, 7, 0, 0, 9, 9]].concat();
    let mut seeds: Vec<Vec<u8>> = (0..4).map(|which| place(which << 1 | 1)).collect();
    seeds.push([&[0], &LOG[..3000]].concat());
    for (which, compression) in [Compression::Plain, Compression::Gzip, Compression::Snappy].into_iter().enumerate() {
        seeds.push([vec![(which as u8 + 1) << 1], packed(compression)].concat());
    }
    seeds
}
