//! What a learner is sent that is not in memory: a snapshot's tree, or records of the log. A thread of its own reads and
//! encodes, since both may take long; the pipeline takes what has gathered whenever the learner's connection has room.
//! Neither is ever whole in memory, so that many learners may need everything at once.
//!
//! Between the two stands a bounded pipe: the thread waits when the learner is slow, and ends when the pipe is dropped.
//!
//! Runs on: a thread for each learner that catches up; `take` on the pipeline's.

use crate::disk::RealDisk;
use crate::fatal::Fatal;
use crate::ids::Zxid;
use crate::log::{Batch, LogCursor, ReadError};
use crate::server::shared::Shared;
use crate::snapshot::zookeeper::{self, StreamError};
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes that may wait in a pipe.
const PIPE_BYTES: usize = 1 << 20;

/// Why there is no more, though it is not all.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The next attempt will find the same. `at`: the snapshot's zxid; or that of the last record before what can't be read.
    #[error("{fatal}")]
    Unreadable { at: Zxid, fatal: Fatal },
    #[error("{0}")]
    Other(String),
}

struct State<T> {
    waiting: Vec<T>,
    bytes: usize,
    end: Option<Result<(), Problem>>,
    dropped: bool,
}

struct Pipe<T> {
    state: Mutex<State<T>>,
    room: Condvar,
    shared: Arc<Shared>,
}

/// The pipeline's end. Dropping it ends the thread.
pub struct Outflow<T>(Arc<Pipe<T>>);

/// The thread's end.
struct Inlet<T>(Arc<Pipe<T>>);

impl<T> Outflow<T> {
    fn pair(shared: &Arc<Shared>) -> (Outflow<T>, Inlet<T>) {
        let state = State { waiting: Vec::new(), bytes: 0, end: None, dropped: false };
        let pipe = Arc::new(Pipe { state: Mutex::new(state), room: Condvar::new(), shared: shared.clone() });
        (Outflow(pipe.clone()), Inlet(pipe))
    }

    /// Whether `take` gives something.
    pub fn has_more(&self) -> bool {
        let state = self.0.state.lock();
        !state.waiting.is_empty() || state.end.is_some()
    }

    /// What has gathered, and whether that is the end: all of it, or why not.
    pub fn take(&self) -> (Vec<T>, Option<Result<(), Problem>>) {
        let mut state = self.0.state.lock();
        state.bytes = 0;
        let taken = (std::mem::take(&mut state.waiting), state.end.take());
        drop(state);
        self.0.room.notify_one();
        taken
    }
}

impl<T> Drop for Outflow<T> {
    fn drop(&mut self) {
        self.0.state.lock().dropped = true;
        self.0.room.notify_one();
    }
}

impl<T> Inlet<T> {
    /// Waits for room. `false`: nobody wants it any more.
    fn put(&self, item: T, bytes: usize) -> bool {
        let mut state = self.0.state.lock();
        while state.bytes >= PIPE_BYTES && !state.dropped {
            self.0.room.wait(&mut state);
        }
        if state.dropped {
            return false;
        }
        state.waiting.push(item);
        state.bytes += bytes;
        drop(state);
        self.0.shared.pipeline_bell.ring();
        true
    }

    fn end(&self, result: Result<(), Problem>) {
        self.0.state.lock().end = Some(result);
        self.0.shared.pipeline_bell.ring();
    }
}

struct Writer(Inlet<Vec<u8>>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.put(bytes.to_vec(), bytes.len()) { Ok(bytes.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Problem> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
    spawned.map(drop).map_err(|error| Problem::Other(format!("no thread for it: {error}")))
}

/// Whoever asks again may find what has passed: too many open files, or no memory, says nothing of the file.
fn unreadable(at: Zxid, fatal: Fatal) -> Problem {
    const PASSING: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];
    match &fatal {
        Fatal::Io { source, .. } if PASSING.iter().any(|it| source.raw_os_error() == Some(it.raw_os_error())) => {
            Problem::Other(fatal.to_string())
        }
        _ => Problem::Unreadable { at, fatal },
    }
}

/// Sends the snapshot at this zxid, which is in this file, as ZooKeeper writes it.
pub fn of_snapshot(zxid: Zxid, path: PathBuf, shared: &Arc<Shared>) -> Outflow<Vec<u8>> {
    let (outflow, inlet) = Outflow::pair(shared);
    let failed = Inlet(inlet.0.clone());
    let started = spawn("snap-sender", move || {
        let mut writer = Writer(inlet);
        let sent = zookeeper::stream_snap(&RealDisk, &path, &mut writer);
        writer.0.end(sent.map(drop).map_err(|error| match error {
            StreamError::Read(fatal) => unreadable(zxid, fatal),
            StreamError::Write(error) => Problem::Other(error.to_string()),
        }));
    });
    if let Err(problem) = started {
        failed.end(Err(problem));
    }
    outflow
}

/// Sends the records behind a cursor, up to and with one.
pub fn of_log(mut cursor: LogCursor<RealDisk>, up_to: Zxid, shared: &Arc<Shared>) -> Outflow<Batch> {
    let (outflow, inlet) = Outflow::pair(shared);
    let failed = Inlet(inlet.0.clone());
    let started = spawn("log-sender", move || {
        loop {
            let mut batch = Batch::new();
            if let Err(problem) = cursor.read(up_to, PIPE_BYTES / 2, &mut batch) {
                return inlet.end(Err(match problem {
                    ReadError::Gone { .. } => Problem::Other(problem.to_string()),
                    ReadError::Fatal(fatal) => unreadable(cursor.position(), fatal),
                }));
            }
            if batch.is_empty() {
                return inlet.end(Ok(()));
            }
            let bytes = batch.body_bytes();
            if !inlet.put(batch, bytes) {
                return;
            }
        }
    });
    if let Err(problem) = started {
        failed.end(Err(problem));
    }
    outflow
}
