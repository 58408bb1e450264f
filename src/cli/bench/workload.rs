//! What a request of each workload is, and what its reply must be.

use crate::random::Rng;
use crate::wire::OpCode;
use crate::wire::txn::Acl;
use crate::wire::writer::{Frame, Jute};

/// What each request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Workload {
    /// getData
    Get,
    /// exists
    Exists,
    /// getChildren of a parent with --keys children
    Children,
    /// setData
    Set,
    /// create of a new znode each time
    Create,
    /// create of a new znode, then its delete
    CreateDelete,
    /// a multi of a check and a setData
    Multi,
    /// getData and setData, --read-ratio to one
    Mixed,
    /// ping: the cost of the protocol alone
    Ping,
}

/// How keys are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Keys {
    Uniform,
    /// Zipf's law with exponent 0.99, as YCSB has it
    Zipfian,
}

/// One request in flight: what its reply must look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    Data,
    Stat,
    Children,
    Path,
    Nothing,
    Multi,
}

/// Makes requests. One for each connection.
pub struct Maker {
    workload: Workload,
    root: String,
    keys: u32,
    size: usize,
    read_ratio: u32,
    rng: Rng,
    zipf: Option<Zipf>,
    value: Vec<u8>,
    made: u64,
    unique: u64,
    last_created: Option<String>,
    acl: Acl,
}

impl Maker {
    pub fn new(args: &super::BenchArgs, unique: u64) -> Maker {
        let zipf = (args.distribution == Keys::Zipfian).then(|| Zipf::new(args.keys));
        Maker {
            workload: args.workload,
            root: args.root.clone(),
            keys: args.keys,
            size: args.size as usize,
            read_ratio: args.read_ratio,
            rng: Rng::new(args.seed ^ unique.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            zipf,
            value: vec![b'v'; args.size as usize],
            made: 0,
            unique,
            last_created: None,
            acl: Acl::world(Acl::ALL),
        }
    }

    pub fn key_path(root: &str, key: u32) -> String {
        format!("{root}/keys/{key:08}")
    }

    fn key(&mut self) -> String {
        let key = match &self.zipf {
            Some(zipf) => zipf.draw(&mut self.rng),
            None => self.rng.below(self.keys as u64) as u32,
        };
        Maker::key_path(&self.root, key)
    }

    /// Appends the next request's frame.
    pub fn next(&mut self, xid: i32, out: &mut Vec<u8>) -> Expect {
        self.made += 1;
        match self.workload {
            Workload::Get => self.read(OpCode::GetData, xid, out),
            Workload::Exists => self.read(OpCode::Exists, xid, out),
            Workload::Children => {
                let frame = open(OpCode::GetChildren, xid, out);
                frame.bytes.put_text(&format!("{}/keys", self.root));
                frame.bytes.put_bool(false);
                frame.close();
                Expect::Children
            }
            Workload::Set => self.set(xid, out),
            Workload::Create => self.create(xid, out),
            Workload::CreateDelete => match self.last_created.take() {
                Some(path) => {
                    let frame = open(OpCode::Delete, xid, out);
                    frame.bytes.put_text(&path);
                    frame.bytes.put_int(-1);
                    frame.close();
                    Expect::Nothing
                }
                None => self.create(xid, out),
            },
            Workload::Multi => {
                let path = self.key();
                let frame = open(OpCode::Multi, xid, out);
                crate::wire::multi::write_header(frame.bytes, OpCode::Check.to_wire(), false, -1);
                frame.bytes.put_text(&path);
                frame.bytes.put_int(-1);
                crate::wire::multi::write_header(frame.bytes, OpCode::SetData.to_wire(), false, -1);
                frame.bytes.put_text(&path);
                frame.bytes.put_buffer(Some(&self.value));
                frame.bytes.put_int(-1);
                crate::wire::multi::write_end(frame.bytes);
                frame.close();
                Expect::Multi
            }
            Workload::Mixed => {
                if self.rng.below(self.read_ratio as u64 + 1) == 0 {
                    self.set(xid, out)
                } else {
                    self.read(OpCode::GetData, xid, out)
                }
            }
            Workload::Ping => {
                open(OpCode::Ping, xid, out).close();
                Expect::Nothing
            }
        }
    }

    fn read(&mut self, op: OpCode, xid: i32, out: &mut Vec<u8>) -> Expect {
        let path = self.key();
        let frame = open(op, xid, out);
        frame.bytes.put_text(&path);
        frame.bytes.put_bool(false);
        frame.close();
        if op == OpCode::GetData { Expect::Data } else { Expect::Stat }
    }

    fn set(&mut self, xid: i32, out: &mut Vec<u8>) -> Expect {
        let path = self.key();
        let frame = open(OpCode::SetData, xid, out);
        frame.bytes.put_text(&path);
        frame.bytes.put_buffer(Some(&self.value));
        frame.bytes.put_int(-1);
        frame.close();
        Expect::Stat
    }

    fn create(&mut self, xid: i32, out: &mut Vec<u8>) -> Expect {
        let path = format!("{}/new/{:04x}-{:010}", self.root, self.unique, self.made);
        write_create(&path, &self.value, &self.acl, xid, out);
        if self.workload == Workload::CreateDelete {
            self.last_created = Some(path);
        }
        Expect::Path
    }

    /// What a read of a key must return: so many bytes of `v`.
    pub fn value_is_right(&self, data: Option<&[u8]>) -> bool {
        data.is_some_and(|data| data.len() == self.size && data.iter().all(|&byte| byte == b'v'))
    }

    pub fn keys(&self) -> u32 {
        self.keys
    }
}

fn open(op: OpCode, xid: i32, out: &mut Vec<u8>) -> Frame<'_> {
    let frame = Frame::open(out);
    frame.bytes.put_int(xid);
    frame.bytes.put_int(op.to_wire());
    frame
}

pub fn write_create(path: &str, data: &[u8], acl: &Acl, xid: i32, out: &mut Vec<u8>) {
    let frame = open(OpCode::Create, xid, out);
    frame.bytes.put_text(path);
    frame.bytes.put_buffer(Some(data));
    Acl::write_list(std::slice::from_ref(acl), frame.bytes);
    frame.bytes.put_int(0);
    frame.close();
}

pub fn write_delete(path: &str, xid: i32, out: &mut Vec<u8>) {
    let frame = open(OpCode::Delete, xid, out);
    frame.bytes.put_text(path);
    frame.bytes.put_int(-1);
    frame.close();
}

pub fn write_get_children(path: &str, xid: i32, out: &mut Vec<u8>) {
    let frame = open(OpCode::GetChildren, xid, out);
    frame.bytes.put_text(path);
    frame.bytes.put_bool(false);
    frame.close();
}

/// Zipf's law by rejection-inversion would save the table; with at most ten million keys a table of sums is simpler.
pub struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    pub fn new(keys: u32) -> Zipf {
        let mut sum = 0.0;
        let sums = (1..=keys).map(|rank| {
            sum += 1.0 / f64::from(rank).powf(0.99);
            sum
        });
        Zipf { sums: sums.collect() }
    }

    pub fn draw(&self, rng: &mut Rng) -> u32 {
        let total = self.sums.last().copied().unwrap_or(1.0);
        let point = (rng.next() >> 11) as f64 / (1u64 << 53) as f64 * total;
        self.sums.partition_point(|&sum| sum < point) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_prefers_the_first_keys_and_stays_in_range() {
        let (zipf, mut rng) = (Zipf::new(100), Rng::new(7));
        let mut counts = [0u32; 100];
        for _ in 0..10_000 {
            counts[zipf.draw(&mut rng) as usize] += 1;
        }
        assert!(counts[0] > 1_000 && counts[0] > 5 * counts[20] && counts[99] < 100, "{counts:?}");
    }
}
