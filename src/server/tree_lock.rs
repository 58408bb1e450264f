//! The tree behind a reader-writer lock that is split by core.
//!
//! A core that answers a read must not share a cache line with another core that does the same, or a read costs an
//! atomic on a contended line. So each core has a part of the lock to itself and takes only that one; the pipeline takes
//! all parts, in order, for each batch that it applies. A read guard thus costs one uncontended atomic a loop turn, and
//! a write guard excludes every reader, which makes a multi atomic for them.
//!
//! Rules of the guards: no system call, no log line, no unbounded work while one is held; a core lets go after
//! `limits::READ_GUARD_BYTES` of replies, the pipeline after `limits::WRITE_GUARD_TXNS` changes.
//!
//! This file is one of the three that may be `unsafe`: what a lock guards has to be reached through it.
#![allow(unsafe_code)]

use crate::tree::Tree;
use parking_lot::{Mutex, MutexGuard};
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A part of the lock on a cache line (and its prefetched neighbour) of its own.
#[repr(align(128))]
struct Part(Mutex<()>);

struct Inner {
    tree: UnsafeCell<Tree>,
    parts: Box<[Part]>,
}

// SAFETY: `tree` is reached only through `ReadGuard` (shared, while one part is held), `WriteGuard` (exclusive, while
// all parts are held) and `Writer::peek` (shared, see there). `Tree` itself is `Send` and `Sync`, asserted below.
unsafe impl Sync for Inner {}
const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Tree>();
};

/// The one writer's end. Not `Clone`: that there is only one is what `peek` rests on.
pub struct Writer {
    inner: Arc<Inner>,
}

/// One reader's end, with a part of its own.
pub struct Reader {
    inner: Arc<Inner>,
    part: usize,
}

/// Splits a tree into one writer and `readers` readers.
pub fn split(tree: Tree, readers: usize) -> (Writer, Vec<Reader>) {
    let parts = (0..readers).map(|_| Part(Mutex::new(()))).collect();
    let inner = Arc::new(Inner { tree: UnsafeCell::new(tree), parts });
    let ends = (0..readers).map(|part| Reader { inner: inner.clone(), part }).collect();
    (Writer { inner }, ends)
}

impl Reader {
    /// Waits for at most one batch of the writer.
    #[inline]
    pub fn read(&self) -> ReadGuard<'_> {
        ReadGuard { part: self.inner.parts[self.part].0.lock(), inner: &self.inner }
    }
}

impl Writer {
    /// Excludes every reader. Waits for each at most as long as the rules of the guards let one hold on.
    pub fn write(&mut self) -> WriteGuard<'_> {
        let parts = self.inner.parts.iter().map(|part| part.0.lock()).collect();
        WriteGuard { _parts: parts, inner: &self.inner }
    }

    /// The tree without any lock: only the writer changes it, and while this borrow of the one writer lives it does not.
    pub fn peek(&self) -> &Tree {
        // SAFETY: the only `&mut Tree` comes from a `WriteGuard`, which borrows the one `Writer` mutably; this shared
        // borrow of the same `Writer` excludes it. Other readers only have `&Tree`.
        unsafe { &*self.inner.tree.get() }
    }
}

pub struct ReadGuard<'a> {
    part: MutexGuard<'a, ()>,
    inner: &'a Inner,
}

impl ReadGuard<'_> {
    /// Lets a waiting writer in, and takes the part again after it.
    pub fn yield_to_writer(&mut self) {
        MutexGuard::bump(&mut self.part);
    }
}

impl Deref for ReadGuard<'_> {
    type Target = Tree;
    #[inline]
    fn deref(&self) -> &Tree {
        // SAFETY: a part is held, so no `WriteGuard` exists; `yield_to_writer` takes `&mut self`, so no `&Tree` from
        // here outlives it.
        unsafe { &*self.inner.tree.get() }
    }
}

pub struct WriteGuard<'a> {
    _parts: Vec<MutexGuard<'a, ()>>,
    inner: &'a Inner,
}

impl Deref for WriteGuard<'_> {
    type Target = Tree;
    fn deref(&self) -> &Tree {
        // SAFETY: all parts are held and the one `Writer` is borrowed mutably.
        unsafe { &*self.inner.tree.get() }
    }
}

impl DerefMut for WriteGuard<'_> {
    fn deref_mut(&mut self) -> &mut Tree {
        // SAFETY: as in `deref`, and `&mut self` makes this the only reference.
        unsafe { &mut *self.inner.tree.get() }
    }
}
