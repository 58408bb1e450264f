//! What a client is told about its write, from what the apply returned.
//!
//! Written while the batch is applied, since a Stat is the znode's at that moment. Never a Stat of later.

use crate::tree::{Applied, OpResult};
use crate::wire::client::ReplyHeader;
use crate::wire::multi;
use crate::wire::txn::{Txn, TxnHeader};
use crate::wire::writer::{Frame, Jute};
use crate::wire::{ErrorCode, OpCode};

/// What of a request has to be kept until its transaction is applied, to know what its reply looks like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shape {
    Single(OpCode),
    /// For each operation whether it is a create that is answered with a Stat.
    Multi(Box<[bool]>),
}

impl Shape {
    /// `op` is the request's; `txn` what it has become.
    pub fn of(op: OpCode, txn: &Txn) -> Shape {
        match txn {
            Txn::Multi(ops) if op == OpCode::Multi => Shape::Multi(ops.iter().map(|op| has_stat(op.op())).collect()),
            _ => Shape::Single(op),
        }
    }
}

fn has_stat(op: OpCode) -> bool {
    matches!(op, OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl)
}

/// What became of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Reply {
    Written,
    /// The session has moved: the connection is closed without a word.
    None,
}

/// Appends the whole reply frame of a write. `applied` is what its transaction alone did; a new session's
/// ConnectResponse is not made here.
pub fn write_reply(out: &mut Vec<u8>, shape: &Shape, xid: i32, header: &TxnHeader, applied: &Applied) -> Reply {
    let moved = OpResult::Error(ErrorCode::SESSION_MOVED);
    if applied.results.contains(&moved) {
        return Reply::None;
    }
    match (shape, &applied.results[..]) {
        (Shape::Single(_), [OpResult::Error(code)]) => {
            ReplyHeader { xid, zxid: header.zxid.to_wire(), err: *code }.write_frame(out);
        }
        (Shape::Single(op), results) => {
            let frame = Frame::reply(out, xid, header.zxid);
            if let [result] = results {
                write_body(frame.bytes, has_stat(*op), result, applied);
            }
            frame.close();
        }
        (Shape::Multi(with_stat), results) => {
            let frame = Frame::reply(out, xid, header.zxid);
            for (at, result) in results.iter().enumerate() {
                let with_stat = with_stat.get(at).copied().unwrap_or(false);
                let op = match result {
                    OpResult::Error(code) => {
                        multi::write_error(frame.bytes, *code);
                        continue;
                    }
                    OpResult::Created { .. } if with_stat => OpCode::Create2,
                    OpResult::Created { .. } => OpCode::Create,
                    OpResult::Deleted => OpCode::Delete,
                    OpResult::DataSet { .. } => OpCode::SetData,
                    OpResult::AclSet { .. } => OpCode::SetAcl,
                    OpResult::Checked => OpCode::Check,
                    // No operations of a multi.
                    OpResult::SessionCreated { .. } | OpResult::SessionClosed => continue,
                };
                multi::write_header(frame.bytes, op.to_wire(), false, 0);
                write_body(frame.bytes, with_stat, result, applied);
            }
            multi::write_end(frame.bytes);
            frame.close();
        }
    }
    Reply::Written
}

fn write_body(out: &mut Vec<u8>, with_stat: bool, result: &OpResult, applied: &Applied) {
    match result {
        OpResult::Created { touched, stat } => {
            out.put_text(&applied.touched[*touched].path);
            if with_stat {
                stat.write(out);
            }
        }
        OpResult::DataSet { stat } | OpResult::AclSet { stat } => stat.write(out),
        OpResult::Deleted
        | OpResult::Checked
        | OpResult::Error(_)
        | OpResult::SessionCreated { .. }
        | OpResult::SessionClosed => {}
    }
}
