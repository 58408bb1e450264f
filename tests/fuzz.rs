//! Every parser against bytes that nobody meant: real inputs, and seeded mutations of them.
//!
//! Each target asserts its own promises (`fuzz/targets.rs`); here is asserted that none of them asks for a block of memory
//! out of proportion to its input, whatever lengths the input announces. `OSTLER_FUZZ_RUNS=100000 cargo test --test fuzz`
//! goes on for longer, `OSTLER_FUZZ_SEED=7` elsewhere; a failure prints the input that it takes to see it again.

#[path = "fuzz/targets.rs"]
mod targets;

use ostler::random::Rng;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use targets::{ALL, Target};

thread_local! {
    /// The largest block that this thread has asked for since it was set to 0.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Watching;

fn note(bytes: usize) {
    LARGEST.set(LARGEST.get().max(bytes));
}

// SAFETY: everything is passed on to the system's allocator as it came; noting touches no memory of the caller's.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Numbers at which lengths and counts go wrong.
const ODD: [u32; 8] = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_fffe, 0x000f_ffff, 0x0010_0000];

fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.next() as u8),
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            3 if at < bytes.len() => bytes[at] = rng.next() as u8,
            4 if at + 4 <= bytes.len() => {
                let odd = ODD[rng.below(ODD.len() as u64) as usize];
                bytes[at..at + 4].copy_from_slice(&odd.to_be_bytes());
            }
            5 => {
                let from = rng.below(other.len() as u64 + 1) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let end = (at + rng.below(16) as usize).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
}

fn run(target: &Target, input: &[u8]) {
    LARGEST.set(0);
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    let largest = LARGEST.get();
    let shown = || input.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(outcome.is_ok(), "{} panics at {}", target.name, shown());
    let most = target.base.saturating_add(target.factor * input.len());
    assert!(
        largest <= most,
        "{} asks for {largest} bytes at once, for {} bytes: {}",
        target.name,
        input.len(),
        shown()
    );
}

fn fuzz(target: &Target, runs: u64) {
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{} has something real to begin with", target.name);
    // What a target makes once and keeps is not an input's.
    seeds.iter().take(1).for_each(|seed| (target.run)(seed));
    seeds.iter().for_each(|seed| run(target, seed));
    let mut rng = Rng::new(setting("OSTLER_FUZZ_SEED", 1));
    for _ in 0..runs {
        let any = |rng: &mut Rng| rng.below(seeds.len() as u64) as usize;
        let mut input = seeds[any(&mut rng)].clone();
        let other = any(&mut rng);
        mutate(&mut input, &seeds[other], &mut rng);
        run(target, &input);
    }
}

#[test]
fn no_input_breaks_a_parser() {
    let runs = setting("OSTLER_FUZZ_RUNS", 0);
    for target in ALL {
        // Those that build a disk or a connection for each input have fewer.
        let usual = match target.name {
            "client" => 20,
            "log" | "snapshot" | "zookeeper_directory" => 300,
            "requests" | "config" => 1_000,
            _ => 5_000,
        };
        fuzz(target, if runs > 0 { runs } else { usual });
    }
}

#[test]
fn the_watch_on_allocations_sees_a_large_one() {
    LARGEST.set(0);
    drop(Vec::<u8>::with_capacity(12_345));
    assert!(LARGEST.get() >= 12_345);
}
