//! The log, read and checked ahead of the tree that applies it: reading waits for the disk and applying for memory, so each has
//! a processor of its own if there are two. It begins while the snapshot is being loaded, with a guess which one that will be.
//!
//! Nothing is decided here: `log::Recovery` judges each record as it does on one thread, and is given back at the end of the
//! log to be finished by the one who has applied all of it. What is wrong is said where it was found: behind everything that
//! was read before it, but for a segment that was not begun, of which it is said before anything else.
//!
//! Runs on: the starting thread; one that reads, and one that looks at the segment behind the last. Neither outlives `finish`,
//! or the scope at the latest.

use crate::disk::RealDisk;
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::limits;
use crate::log::{Batch, Recovery, Sizes};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{Scope, ScopedJoinHandle};

/// A piece of the log. Its memory is used again.
#[derive(Default)]
pub struct Piece {
    pub records: Batch,
    /// Bytes of the log that were read with this piece, and about how many there are.
    pub progress: (u64, u64),
}

/// How reading has ended: with what the segment that was not begun is, and with a log at its end.
struct End {
    unbegun: Result<(), Fatal>,
    recovery: Result<Recovery<RealDisk>, Fatal>,
}

/// A log that is being read.
pub struct Ahead<'scope> {
    pieces: Receiver<Piece>,
    spent: Sender<Piece>,
    thread: ScopedJoinHandle<'scope, End>,
}

impl<'scope> Ahead<'scope> {
    /// Begins to read behind `from`.
    pub fn start(scope: &'scope Scope<'scope, '_>, dir: &'scope Path, from: Zxid) -> Ahead<'scope> {
        let (full, pieces) = mpsc::sync_channel(limits::REPLAY_PIECES);
        // As many as there are pieces at most.
        let (spent, back) = mpsc::channel();
        let reader = Reader { dir, from, full, back };
        Ahead { pieces, spent, thread: scope.spawn(move || reader.run()) }
    }

    /// What comes next; `None` at the end, which `finish` tells of.
    pub fn next(&mut self) -> Option<Piece> {
        self.pieces.recv().ok()
    }

    /// The memory of a piece that has been applied.
    pub fn give_back(&mut self, piece: Piece) {
        // At the end nobody wants it.
        let _ = self.spent.send(piece);
    }

    /// The log at its end, when `next` has said that.
    pub fn finish(self) -> Result<Recovery<RealDisk>, Fatal> {
        let End { unbegun, recovery } = self.end();
        unbegun?;
        recovery
    }

    /// Reads no further, since something is wrong with what was read. Returns what is said of it.
    pub fn fail(self, fatal: Fatal) -> Fatal {
        self.end().unbegun.err().unwrap_or(fatal)
    }

    /// Reads no further: it was the wrong place to begin.
    pub fn abandon(self) {
        self.end();
    }

    fn end(self) -> End {
        drop(self.pieces);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Reader<'a> {
    dir: &'a Path,
    from: Zxid,
    full: SyncSender<Piece>,
    back: Receiver<Piece>,
}

impl Reader<'_> {
    fn run(self) -> End {
        let opened = Recovery::open_in_parts(RealDisk, self.dir, self.from, Sizes::default());
        let (recovery, unbegun) = match opened {
            Ok(opened) => opened,
            Err(fatal) => return End { unbegun: Ok(()), recovery: Err(fatal) },
        };
        std::thread::scope(|scope| {
            let check = scope.spawn(|| unbegun.check());
            let recovery = self.read(recovery);
            let unbegun = check.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            End { unbegun, recovery }
        })
    }

    fn read(self, mut recovery: Recovery<RealDisk>) -> Result<Recovery<RealDisk>, Fatal> {
        loop {
            let mut piece = self.back.try_recv().unwrap_or_default();
            piece.records.clear();
            let more = fill(&mut recovery, &mut piece.records);
            piece.progress = recovery.progress();
            // It is not if something else is wrong, or this was the wrong place to begin.
            let is_wanted = piece.records.is_empty() || self.full.send(piece).is_ok();
            if !more? || !is_wanted {
                return Ok(recovery);
            }
        }
    }
}

/// `false` at the end of the log. What was read before an error is in the piece.
fn fill(recovery: &mut Recovery<RealDisk>, records: &mut Batch) -> Result<bool, Fatal> {
    while records.body_bytes() < limits::REPLAY_PIECE_BYTES && records.len() < limits::REPLAY_PIECE_TXNS {
        let Some((zxid, record)) = recovery.next()? else { return Ok(false) };
        records.push(zxid, record);
    }
    Ok(true)
}
