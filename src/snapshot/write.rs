//! Writes a snapshot in slices: a copy under the snapshotter's part of the lock, then a write without it.
//!
//! The file is `snap.tmp` until all of it is durable, and only then gets its name, so a name stands for a whole
//! snapshot. It is synced on the way, as often as the disk wants it.

use super::format::{
    BLOCK_HEADER, BlockHeader, ContentDigest, Header, Kind, MAGIC, SessionRecord, SnapshotInfo, Trailer, write_acl,
    write_session,
};
use super::{TMP_NAME, snapshot_path};
use crate::disk::{self, Disk, File};
use crate::fatal::Fatal;
use crate::limits;
use crate::tree::{Frozen, Image, Progress, Tree};
use std::path::{Path, PathBuf};

/// ACLs in one slice.
const SLICE_ACLS: u32 = 256;
/// A slice with what has been saved may be large; a block ends with the image that makes it this large.
const BLOCK_BYTES: usize = 64 << 20;
/// Sessions in one block.
const BLOCK_SESSIONS: usize = 4096;

/// A snapshot that is being written. Unless it is finished, the tree stays frozen: see `abandon`.
pub struct SnapshotWriter<D: Disk> {
    disk: D,
    dir: PathBuf,
    file: D::File,
    frozen: Frozen,
    sessions: u64,
    /// What the last `take` copied and no `store` has written yet.
    slice: Vec<u8>,
    slice_kind: Kind,
    slice_bytes: usize,
    piece_bytes: usize,
    block_bytes: usize,
    stage: Stage,
    blocks: u32,
    /// Of the file so far, with what is in `piece`.
    bytes: u64,
    /// Not written yet: the file goes past the page cache, in whole blocks. Nobody reads it before the next start.
    piece: Vec<u8>,
    synced: u64,
    nodes: u64,
    acls: u64,
    digest: ContentDigest,
}

/// A snapshot that was given up.
#[must_use]
pub struct Abandoned<D: Disk>(SnapshotWriter<D>);

impl<D: Disk> Abandoned<D> {
    /// Takes the file away. Without the guard: it may be large.
    pub fn discard(self) {
        self.0.discard();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Nodes,
    /// ACLs from this number on.
    Acls(u32),
    Done,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Begins the file for a tree that has just been frozen, with the sessions of the same moment. `dir` exists.
    pub fn begin(disk: D, dir: &Path, frozen: Frozen, sessions: &[SessionRecord]) -> Result<Self, Fatal> {
        let tmp = dir.join(TMP_NAME);
        // Of a server that was killed: large, perhaps.
        let _ = disk.remove(&tmp);
        let mut file = disk.create(&tmp, 0).map_err(|error| disk::fatal(&tmp, 0, error))?;
        file.bypass_cache(D::PIECE_BYTES);
        let mut writer = SnapshotWriter {
            disk,
            dir: dir.to_owned(),
            file,
            frozen,
            sessions: sessions.len() as u64,
            slice: Vec::new(),
            slice_kind: Kind::Nodes,
            slice_bytes: limits::READ_GUARD_BYTES,
            piece_bytes: D::PIECE_BYTES,
            block_bytes: BLOCK_BYTES,
            stage: Stage::Nodes,
            blocks: 0,
            bytes: 0,
            piece: Vec::new(),
            synced: 0,
            nodes: 0,
            acls: 0,
            digest: ContentDigest::default(),
        };
        match writer.write_start(sessions) {
            Ok(()) => Ok(writer),
            Err(fatal) => {
                writer.discard();
                Err(fatal)
            }
        }
    }

    fn write_start(&mut self, sessions: &[SessionRecord]) -> Result<(), Fatal> {
        self.write_all(&MAGIC)?;
        let header = Header {
            zxid: self.frozen.zxid,
            tree_digest: self.frozen.digest,
            nodes: self.frozen.nodes,
            sessions: self.sessions,
        };
        self.write_block(Kind::Header, &header.write())?;
        for some in sessions.chunks(BLOCK_SESSIONS) {
            let mut body = Vec::new();
            for session in some {
                write_session(session, &mut body);
                self.digest.session(session);
            }
            self.write_block(Kind::Sessions, &body)?;
        }
        Ok(())
    }

    /// About how many bytes a slice has, instead of what the guard allows, a block, and what is written at a time. Tests take
    /// small ones.
    pub fn slices_of(mut self, bytes: usize) -> Self {
        (self.slice_bytes, self.piece_bytes, self.block_bytes) = (bytes, bytes, bytes);
        self
    }

    /// Copies the next slice out of the tree; bounded work and no I/O, for under the guard. After `Done` the tree isn't
    /// frozen any more.
    pub fn take(&mut self, tree: &Tree) -> Progress {
        assert!(self.slice.is_empty(), "the last slice was stored");
        match self.stage {
            Stage::Nodes => {
                self.slice_kind = Kind::Nodes;
                if tree.read_frozen(self.slice_bytes, &mut self.slice) == Progress::Done {
                    self.stage = Stage::Acls(0);
                }
            }
            Stage::Acls(from) => {
                self.slice_kind = Kind::Acls;
                let (acls, progress) = tree.frozen_acls(from, SLICE_ACLS);
                for acl in &acls {
                    write_acl(acl, &mut self.slice);
                    self.digest.acl(acl);
                }
                self.acls += acls.len() as u64;
                self.stage = Stage::Acls(from.saturating_add(SLICE_ACLS));
                if progress == Progress::Done {
                    tree.end_freeze();
                    self.stage = Stage::Done;
                }
            }
            Stage::Done => {}
        }
        if self.stage == Stage::Done { Progress::Done } else { Progress::More }
    }

    /// Writes the slice that `take` copied. Without the guard.
    pub fn store(&mut self) -> Result<(), Fatal> {
        if self.slice.is_empty() {
            return Ok(());
        }
        let mut slice = std::mem::take(&mut self.slice);
        let mut from = 0;
        if self.slice_kind == Kind::Nodes {
            let mut rest = &slice[..];
            while let Some((image, after)) = Image::read(rest) {
                self.digest.node(&image, &rest[..rest.len() - after.len()]);
                self.nodes += 1;
                rest = after;
                let at = slice.len() - rest.len();
                if at - from >= self.block_bytes {
                    self.write_block(self.slice_kind, &slice[from..at])?;
                    from = at;
                }
            }
            assert!(rest.is_empty(), "the tree gives whole images");
        }
        if from < slice.len() {
            self.write_block(self.slice_kind, &slice[from..])?;
        }
        slice.clear();
        // Saved images may have come as one large buffer: that isn't kept.
        slice.shrink_to(2 * limits::READ_GUARD_BYTES);
        self.slice = slice;
        Ok(())
    }

    /// Makes it durable and gives it its name. After `take` has said `Done` and everything was stored.
    pub fn finish(mut self) -> Result<SnapshotInfo, Fatal> {
        assert!(self.stage == Stage::Done, "everything was taken");
        assert!(self.slice.is_empty(), "everything was stored");
        assert!(self.nodes == self.frozen.nodes, "every znode was seen once");
        let finished = self.write_end();
        if finished.is_err() {
            self.discard();
        }
        finished
    }

    fn write_end(&mut self) -> Result<SnapshotInfo, Fatal> {
        let content_digest = std::mem::take(&mut self.digest).finish();
        let bytes = self.bytes + (BLOCK_HEADER + Trailer::BYTES) as u64;
        let trailer = Trailer { blocks: self.blocks as u64 + 1, bytes, acls: self.acls, content_digest };
        self.write_block(Kind::Trailer, &trailer.write())?;
        assert!(self.bytes == bytes);
        self.write_pieces(self.piece.len())?;
        self.file.sync().map_err(|error| disk::sync_failed(&self.dir.join(TMP_NAME), error))?;
        let path = snapshot_path(&self.dir, self.frozen.zxid);
        self.disk.rename(&self.dir.join(TMP_NAME), &path).map_err(|error| disk::fatal(&path, 0, error))?;
        self.disk.sync_dir(&self.dir).map_err(|error| disk::sync_failed(&self.dir, error))?;
        Ok(SnapshotInfo {
            zxid: self.frozen.zxid,
            tree_digest: self.frozen.digest,
            nodes: self.nodes,
            sessions: self.sessions,
            content_digest,
            bytes,
        })
    }

    /// Gives up: thaws the tree, for under the guard. The file is left for `discard`.
    pub fn abandon(mut self, tree: &Tree) -> Abandoned<D> {
        if self.stage != Stage::Done {
            tree.end_freeze();
            self.stage = Stage::Done;
        }
        Abandoned(self)
    }

    /// A full disk needs the room. What stays behind is removed before the next snapshot.
    fn discard(self) {
        let SnapshotWriter { disk, dir, file, .. } = self;
        // Not open any more, so that all of the room is there again when this returns.
        drop(file);
        let _ = disk.remove(&dir.join(TMP_NAME));
    }

    fn write_block(&mut self, kind: Kind, body: &[u8]) -> Result<(), Fatal> {
        let header = BlockHeader::new(self.frozen.zxid, kind, self.blocks, body);
        self.blocks = self.blocks.checked_add(1).expect("four billion blocks are more than any tree");
        self.write_all(&header.write())?;
        self.write_all(body)
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Fatal> {
        self.piece.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        if self.piece.len() >= self.piece_bytes {
            self.write_pieces(self.piece.len() / self.piece_bytes * self.piece_bytes)?;
        }
        Ok(())
    }

    /// Writes the first `count` bytes that were gathered, and takes them off.
    fn write_pieces(&mut self, count: usize) -> Result<(), Fatal> {
        let mut at = self.bytes - self.piece.len() as u64;
        // A slice with many saved images has more than one.
        for piece in self.piece[..count].chunks(self.piece_bytes) {
            let written = self.file.write_at(at, piece);
            written.map_err(|error| disk::fatal(&self.dir.join(TMP_NAME), piece.len() as u64, error))?;
            at += piece.len() as u64;
            if at - self.synced >= D::SYNC_BYTES {
                self.file.sync().map_err(|error| disk::sync_failed(&self.dir.join(TMP_NAME), error))?;
                self.synced = at;
            }
        }
        self.piece.drain(..count);
        self.piece.shrink_to(2 * self.piece_bytes);
        Ok(())
    }
}
