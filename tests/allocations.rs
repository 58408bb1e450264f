//! What reads and writes cost in allocations, counted in a whole server: a read must cost its core none at all, and a
//! write no more than it does today and a little.
//!
//! The global allocator of this test binary counts for each role of threads while a count is on. A thread's role is
//! looked up from its name once, at its first allocation of a count: by then every thread has its name. There is one
//! test in this file, since a count sees the whole process.

mod raw;

use ostler::server::boot;
use raw::{Raw, config, create, get, set};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the counted allocations were made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Core,
    Pipeline,
    LogWriter,
    /// The client, and what is on no request's path.
    Other,
}

const ROLES: usize = 4;

static COUNTING: AtomicBool = AtomicBool::new(false);
static CALLS: [AtomicU64; ROLES] = [const { AtomicU64::new(0) }; ROLES];
static BYTES: [AtomicU64; ROLES] = [const { AtomicU64::new(0) }; ROLES];

thread_local! {
    static ROLE: Cell<Option<Role>> = const { Cell::new(None) };
}

struct Counting;

fn count(bytes: usize) {
    if !COUNTING.load(Ordering::Relaxed) {
        return;
    }
    let role = ROLE.get().unwrap_or_else(|| {
        // Finding out allocates; those allocations are no one's.
        ROLE.set(Some(Role::Other));
        let name = rustix::thread::name().unwrap_or_default();
        let role = match name.to_bytes() {
            name if name.starts_with(b"core-") => Role::Core,
            b"pipeline" => Role::Pipeline,
            name if name.starts_with(b"log") => Role::LogWriter,
            _ => Role::Other,
        };
        ROLE.set(Some(role));
        role
    });
    CALLS[role as usize].fetch_add(1, Ordering::Relaxed);
    BYTES[role as usize].fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: everything is passed on to the system's allocator as it came; counting touches no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations and their bytes, by role, of what `work` lets happen.
fn counted(work: impl FnOnce()) -> [(u64, u64); ROLES] {
    for role in 0..ROLES {
        CALLS[role].store(0, Ordering::Relaxed);
        BYTES[role].store(0, Ordering::Relaxed);
    }
    COUNTING.store(true, Ordering::SeqCst);
    work();
    COUNTING.store(false, Ordering::SeqCst);
    std::array::from_fn(|role| (CALLS[role].load(Ordering::Relaxed), BYTES[role].load(Ordering::Relaxed)))
}

const CONNECTIONS: usize = 50;
const PIPELINED: usize = 16;
/// 12,800 requests.
const ROUNDS: usize = 16;
/// How often the reads are counted.
const READ_TRIALS: usize = 12;

/// Sends each connection its segment and waits for all replies, again and again.
fn rounds(clients: &mut [Raw], segments: &[Vec<u8>], reply_bytes: usize, rounds: usize) {
    use std::io::Read;
    let mut replies = vec![0; reply_bytes * PIPELINED];
    for _ in 0..rounds {
        for (client, segment) in clients.iter_mut().zip(segments) {
            client.send(segment);
        }
        for client in &mut *clients {
            client.socket.read_exact(&mut replies).unwrap();
            for reply in replies.chunks_exact(reply_bytes) {
                assert_eq!(reply[..4], (reply_bytes as u32 - 4).to_be_bytes());
                assert_eq!(reply[16..20], [0; 4], "an error");
            }
        }
    }
}

#[test]
fn a_pipelined_read_allocates_nothing_on_its_core_and_a_write_no_more_than_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let server = boot::start(config(dir.path(), 2)).unwrap();
    let mut clients: Vec<Raw> = (0..CONNECTIONS).map(|_| Raw::connect(server.address)).collect();
    // Each request names a znode of its own: what is kept for each path must not be shared by chance.
    let path = |connection: usize, xid: usize| format!("/node-{connection:02}-{xid:02}");
    for (connection, client) in clients.iter_mut().enumerate() {
        for xid in 0..PIPELINED {
            client.send(&create(xid as i32, &path(connection, xid), &[7; 128], 0));
        }
        (0..PIPELINED).for_each(|_| assert_eq!(client.reply().err, 0));
    }
    let segments = |one: &dyn Fn(i32, &str) -> Vec<u8>| -> Vec<Vec<u8>> {
        let segment = |connection| (0..PIPELINED).flat_map(|xid| one(xid as i32, &path(connection, xid))).collect();
        (0..CONNECTIONS).map(segment).collect()
    };

    let reads = segments(&|xid, path| get(xid, path, false));
    let read_reply = 4 + 16 + 4 + 128 + 68;
    rounds(&mut clients, &reads, read_reply, 8);
    let requests = (CONNECTIONS * PIPELINED * ROUNDS) as u64;
    // A buffer grows once to a size that it then keeps, and when it first needs that size depends on how the kernel cuts the
    // bytes. What comes with each request or each turn comes in every trial; so the best of a few is what counts.
    let trials = (0..READ_TRIALS).map(|_| {
        let counts = counted(|| rounds(&mut clients, &reads, read_reply, ROUNDS));
        println!("{requests} reads: {}", shown(&counts, requests));
        counts[Role::Core as usize].0
    });
    let on_cores = trials.min().unwrap();
    assert!(on_cores <= 16, "at least {on_cores} allocations on the cores for {requests} reads");

    let writes = segments(&|xid, path| set(xid, path, &[8; 128]));
    let write_reply = 4 + 16 + 68;
    rounds(&mut clients, &writes, write_reply, 8);
    let counts = counted(|| rounds(&mut clients, &writes, write_reply, ROUNDS));
    println!("{requests} writes: {}", shown(&counts, requests));
    let calls = |role: Role| counts[role as usize].0 as f64 / requests as f64;
    assert!(calls(Role::Core) <= CORE_MAX, "{} allocations on the cores for a write", calls(Role::Core));
    assert!(calls(Role::Pipeline) <= PIPELINE_MAX, "{} allocations in the pipeline", calls(Role::Pipeline));
    assert!(calls(Role::LogWriter) <= LOG_WRITER_MAX, "{} allocations in the log writer", calls(Role::LogWriter));

    drop(clients);
    server.stop().unwrap();
}

/// Allocations for a setData of 128 bytes, with room for what a batch costs, which depends on its size.
const CORE_MAX: f64 = 0.5;
const PIPELINE_MAX: f64 = 4.0;
const LOG_WRITER_MAX: f64 = 0.5;

fn shown(counts: &[(u64, u64); ROLES], requests: u64) -> String {
    let each = |n: u64| n as f64 / requests as f64;
    let roles = [Role::Core, Role::Pipeline, Role::LogWriter];
    let parts = roles.map(|role| {
        let (calls, bytes) = counts[role as usize];
        format!("{role:?} {calls} allocations ({:.3} each, {:.1} bytes each)", each(calls), each(bytes))
    });
    parts.join(", ")
}
