//! Reads a snapshot back. Every byte is under a checksum, and a tree comes out only when all of them were right and all
//! znodes fit together; so a flipped bit or a missing end is an error with its place, never a smaller tree.
//!
//! Blocks are independent of each other: the threads that `load` is given share them out, and are gone when it returns.

use super::format::{
    BLOCK_HEADER, BlockHeader, Header, Kind, MAGIC, SessionRecord, SnapshotInfo, Trailer, corrupt, read_acls,
    read_sessions,
};
use super::{snapshot_path, snapshot_zxid};
use crate::disk::{self, Disk, File};
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::tree::{Image, Restore, Tree, TreeOptions};
use parking_lot::Mutex;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a snapshot held.
pub struct Loaded {
    pub tree: Tree,
    pub sessions: Vec<SessionRecord>,
    pub info: SnapshotInfo,
}

/// The newest snapshot that is sound, and what was wrong with those that are newer.
pub struct Newest {
    /// `None` if there is no snapshot at all.
    pub loaded: Option<Loaded>,
    /// Newest first. Whoever goes on with an older one needs a log that reaches back to it.
    pub damaged: Vec<Fatal>,
}

/// Loads the newest snapshot of a directory that is sound. Where there are snapshots but none is sound, that of the
/// newest is the error: an empty tree is never the answer to damage (fault model S20, S21).
pub fn load_newest<D: Disk>(disk: &D, dir: &Path, options: TreeOptions, threads: usize) -> Result<Newest, Fatal> {
    let mut damaged = Vec::new();
    for zxid in list(disk, dir)? {
        match load(disk, &snapshot_path(dir, zxid), options, threads) {
            Ok(loaded) => return Ok(Newest { loaded: Some(loaded), damaged }),
            Err(fatal) => damaged.push(fatal),
        }
    }
    if damaged.is_empty() { Ok(Newest { loaded: None, damaged }) } else { Err(damaged.swap_remove(0)) }
}

/// Zxids of the snapshots in a directory, by their names alone, newest first.
pub fn list<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Zxid>, Fatal> {
    let names = disk.list(dir).map_err(|error| disk::fatal(dir, 0, error))?;
    let mut zxids: Vec<Zxid> = names.iter().filter_map(|name| snapshot_zxid(name)).collect();
    zxids.sort_unstable_by(|a, b| b.cmp(a));
    Ok(zxids)
}

/// Loads one snapshot.
pub fn load<D: Disk>(disk: &D, path: &Path, options: TreeOptions, threads: usize) -> Result<Loaded, Fatal> {
    let file = Opened::open(disk, path, false)?;
    let (acls, sessions) = file.read_tables()?;
    // What the header says is asked for as room in memory: no more than could be in the file.
    let expected = file.header.nodes.min(file.trailer.bytes / Image::BYTES_MIN as u64) as usize;
    let restore = Restore::new(options, file.header.zxid, acls, expected);
    let restore = restore.or_else(|error| corrupt(path, 0, error.to_string()))?;
    let mut decoders = restore.decoders(threads.clamp(1, file.of_kind(Kind::Nodes).count().max(1)));
    let restore = Mutex::new(restore);
    file.each_nodes_block(&mut decoders, |decoder, block, body| {
        let at = |offset: usize| block.body_at() + offset as u64;
        let batch = decoder.decode(body).or_else(|error| corrupt(path, at(error.offset), error.problem))?;
        restore.lock().add(batch).or_else(|error| corrupt(path, at(error.offset), error.problem))
    })?;
    let tree = restore.into_inner().finish(decoders).or_else(|error| corrupt(path, 0, error.problem))?;
    if tree.digest() != file.header.tree_digest {
        let problem = format!("the tree's digest is {:#x} and not {:#x}", tree.digest(), file.header.tree_digest);
        return corrupt(path, 0, problem);
    }
    // The tree counts its root twice, as ZooKeeper does.
    let nodes = tree.node_count() as u64 - 1;
    if nodes != file.header.nodes {
        return corrupt(path, 0, format!("{nodes} znodes and not {}", file.header.nodes));
    }
    Ok(Loaded { tree, sessions, info: file.info() })
}

/// Checks every byte of a snapshot without building anything, in one pass; as it is on the disk, not as it is remembered.
pub fn verify<D: Disk>(disk: &D, path: &Path) -> Result<SnapshotInfo, Fatal> {
    let file = Opened::open(disk, path, true)?;
    file.read_tables()?;
    Ok(file.info())
}

#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) offset: u64,
    header: BlockHeader,
}

impl Block {
    fn body_at(&self) -> u64 {
        self.offset + BLOCK_HEADER as u64
    }
}

/// A snapshot whose first and last block are right, and whose blocks fill the file.
pub(super) struct Opened<'a, F> {
    file: F,
    path: &'a Path,
    header: Header,
    trailer: Trailer,
    blocks: Vec<Block>,
}

impl<'a, F: File> Opened<'a, F> {
    /// `whole`: the checksums of all blocks are right too, on the disk itself.
    pub(super) fn open<D: Disk<File = F>>(disk: &D, path: &'a Path, whole: bool) -> Result<Opened<'a, F>, Fatal> {
        let io = |error| disk::fatal(path, 0, error);
        let mut file = disk.open_to_read(path).map_err(io)?;
        if whole {
            file.bypass_cache(D::PIECE_BYTES);
        }
        let len = file.len().map_err(io)?;
        let start = MAGIC.len() as u64;
        let shortest = start + 2 * BLOCK_HEADER as u64 + (Header::BYTES + Trailer::BYTES) as u64;
        let mut magic = [0; MAGIC.len()];
        if len >= start {
            file.read_at(0, &mut magic).map_err(io)?;
            // Before the rest, which another version may have in another way.
            check_version(path, magic)?;
        }
        if len < shortest {
            return corrupt(path, len, format!("{len} bytes are too few for a snapshot"));
        }
        let named = path.file_name().and_then(|name| name.to_str()).and_then(snapshot_zxid);
        let blocks = walk(&file, path, start..len, named.filter(|_| whole))?;
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return corrupt(path, start, "empty") };
        let mut body = [0; Header::BYTES];
        if first.header.kind != Kind::Header || first.header.len as usize != Header::BYTES {
            return corrupt(path, first.offset, "does not begin with a header");
        }
        file.read_at(first.body_at(), &mut body).map_err(io)?;
        let header = Header::read(&body);
        if !first.header.fits(header.zxid, &body) {
            return corrupt(path, first.offset, "wrong checksum of the header");
        }
        if named != Some(header.zxid) {
            return corrupt(path, first.offset, format!("this is the snapshot of zxid {}", header.zxid));
        }
        if last.header.kind != Kind::Trailer || last.header.len as usize != Trailer::BYTES {
            return corrupt(path, last.offset, "does not end with a trailer: the end is missing");
        }
        let (last, count) = (*last, blocks.len() as u64);
        let mut opened =
            Opened { file, path, header, trailer: Trailer { blocks: 0, bytes: 0, acls: 0, content_digest: 0 }, blocks };
        let body = opened.read_block(&last)?;
        match Trailer::read(&body) {
            Some(trailer) if trailer.blocks == count && trailer.bytes == len => opened.trailer = trailer,
            _ => return corrupt(path, last.offset, "the trailer belongs to another file"),
        }
        let mut middle = opened.blocks[1..opened.blocks.len() - 1].iter();
        if let Some(odd) = middle.find(|block| matches!(block.header.kind, Kind::Header | Kind::Trailer)) {
            return corrupt(path, odd.offset, "a header or trailer in the middle");
        }
        Ok(opened)
    }

    pub(super) fn path(&self) -> &Path {
        self.path
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    fn info(&self) -> SnapshotInfo {
        SnapshotInfo {
            zxid: self.header.zxid,
            tree_digest: self.header.tree_digest,
            nodes: self.header.nodes,
            sessions: self.header.sessions,
            content_digest: self.trailer.content_digest,
            bytes: self.trailer.bytes,
        }
    }

    /// A block's body, once its checksum is right. Its length was checked against the file's.
    pub(super) fn read_block(&self, block: &Block) -> Result<Vec<u8>, Fatal> {
        let mut body = Vec::new();
        read_body(&self.file, self.path, block, self.header.zxid, &mut body)?;
        Ok(body)
    }

    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(move |block| block.header.kind == kind)
    }

    pub(super) fn read_tables(&self) -> Result<(Vec<crate::tree::NumberedAcl>, Vec<SessionRecord>), Fatal> {
        let (mut acls, mut sessions) = (Vec::new(), Vec::new());
        for block in self.of_kind(Kind::Acls) {
            if read_acls(&self.read_block(block)?, &mut acls).is_none() {
                return corrupt(self.path, block.offset, "not a list of ACLs");
            }
        }
        for block in self.of_kind(Kind::Sessions) {
            if read_sessions(&self.read_block(block)?, &mut sessions).is_none() {
                return corrupt(self.path, block.offset, "not a list of sessions");
            }
        }
        if acls.len() as u64 != self.trailer.acls || sessions.len() as u64 != self.header.sessions {
            return corrupt(self.path, 0, "ACLs or sessions are missing");
        }
        Ok((acls, sessions))
    }

    /// Reads and checks all blocks of znodes, on a thread for each of these, which its visits are given. The first error in
    /// the file's order wins.
    fn each_nodes_block<S: Send>(
        &self,
        states: &mut [S],
        visit: impl Fn(&mut S, &Block, &[u8]) -> Result<(), Fatal> + Sync,
    ) -> Result<(), Fatal> {
        let blocks: Vec<Block> = self.of_kind(Kind::Nodes).copied().collect();
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<(usize, Fatal)>> = Mutex::new(None);
        let work = |state: &mut S| {
            let mut body = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(block) = blocks.get(at) else { return };
                let read = read_body(&self.file, self.path, block, self.header.zxid, &mut body);
                if let Err(fatal) = read.and_then(|()| visit(state, block, &body)) {
                    let mut failed = failed.lock();
                    if failed.as_ref().is_none_or(|(first, _)| at < *first) {
                        *failed = Some((at, fatal));
                    }
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            let Some((own, others)) = states.split_first_mut() else { return };
            for state in others {
                scope.spawn(|| work(state));
            }
            work(own);
        });
        match failed.into_inner() {
            None => Ok(()),
            Some((_, fatal)) => Err(fatal),
        }
    }
}

/// The last version that there is going to be.
const VERSION_MAX: u8 = 31;

/// No checksum covers the version, so its number has an odd count of ones: one flipped bit makes no other version, and noise
/// hardly ever.
fn check_version(path: &Path, magic: [u8; MAGIC.len()]) -> Result<(), Fatal> {
    let (name, version, known) = (&magic[..MAGIC.len() - 1], magic[MAGIC.len() - 1], MAGIC[MAGIC.len() - 1]);
    match name == &MAGIC[..MAGIC.len() - 1] {
        true if version == known => Ok(()),
        true if version.count_ones() % 2 == 1 && version <= VERSION_MAX => {
            Err(Fatal::OtherVersion { file: path.to_owned(), version: version.into(), known: known.into() })
        }
        true => corrupt(path, name.len() as u64, format!("there is no version {version} of a snapshot")),
        false => corrupt(path, 0, "does not begin as a snapshot"),
    }
}

/// A block's body, once its checksum is right. Its length was checked against the file's.
fn read_body<F: File>(file: &F, path: &Path, block: &Block, zxid: Zxid, body: &mut Vec<u8>) -> Result<(), Fatal> {
    body.resize(block.header.len as usize, 0);
    file.read_at(block.body_at(), body).map_err(|error| disk::fatal(path, 0, error))?;
    if block.header.fits(zxid, body) {
        Ok(())
    } else {
        corrupt(path, block.offset, format!("wrong checksum of block {}", block.header.number))
    }
}

/// Where the blocks are, from their headers. What these say is checked with the bodies: here with `whole`, the zxid of the
/// snapshot, but for the first block, which has to say that it is of this zxid.
fn walk<F: File>(file: &F, path: &Path, within: Range<u64>, whole: Option<Zxid>) -> Result<Vec<Block>, Fatal> {
    let (mut blocks, mut body) = (Vec::new(), Vec::new());
    let Range { start: mut offset, end: len } = within;
    while offset < len {
        let mut bytes = [0; BLOCK_HEADER];
        if len - offset < BLOCK_HEADER as u64 {
            return corrupt(path, offset, "ends in the header of a block");
        }
        file.read_at(offset, &mut bytes).map_err(|error| disk::fatal(path, 0, error))?;
        let Some(header) = BlockHeader::read(&bytes) else { return corrupt(path, offset, "not a block") };
        if header.number as usize != blocks.len() {
            return corrupt(path, offset, format!("block {} in the place of {}", header.number, blocks.len()));
        }
        let block = Block { offset, header };
        if len - block.body_at() < header.len as u64 {
            return corrupt(path, offset, format!("block {} is longer than the rest of the file", header.number));
        }
        if let Some(zxid) = whole.filter(|_| !blocks.is_empty()) {
            read_body(file, path, &block, zxid, &mut body)?;
        }
        offset = block.body_at() + header.len as u64;
        blocks.push(block);
    }
    Ok(blocks)
}
