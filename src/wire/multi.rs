//! The envelope of multi and multiRead: a list of operations in, a list of results out (upstream:
//! `MultiOperationRecord`, `MultiResponse`).
//!
//! Inside a multi the flags decide what a create is, where alone the opcode does; this is settled here while reading, so
//! that nothing later has to know.

use super::client::{CreateRequest, PathVersion, PathWatch, SetDataRequest, flags};
use super::error_code::ErrorCode;
use super::opcode::OpCode;
use super::reader::{Malformed, Reader};
use super::writer::Jute;

/// One operation of a multi (`Create` to `Check`) or of a multiRead (the last two).
#[derive(Debug, PartialEq, Eq)]
pub enum MultiOp<'a> {
    /// The opcode is already normalised: Create, Create2, CreateContainer or CreateTtl.
    Create(OpCode, CreateRequest<'a>),
    Delete(PathVersion<'a>),
    SetData(SetDataRequest<'a>),
    Check(PathVersion<'a>),
    GetData(PathWatch<'a>),
    GetChildren(PathWatch<'a>),
}

impl MultiOp<'_> {
    /// Appends the operation with the header before it, as `read_ops` reads it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let header = |out: &mut Vec<u8>, op: OpCode| write_header(out, op.to_wire(), false, -1);
        match self {
            MultiOp::Create(op, request) => {
                header(out, *op);
                request.write(out, *op);
            }
            MultiOp::Delete(request) => {
                header(out, OpCode::Delete);
                request.write(out);
            }
            MultiOp::SetData(request) => {
                header(out, OpCode::SetData);
                request.write(out);
            }
            MultiOp::Check(request) => {
                header(out, OpCode::Check);
                request.write(out);
            }
            MultiOp::GetData(request) => {
                header(out, OpCode::GetData);
                request.write(out);
            }
            MultiOp::GetChildren(request) => {
                header(out, OpCode::GetChildren);
                request.write(out);
            }
        }
    }

    pub fn is_read(&self) -> bool {
        matches!(self, MultiOp::GetData(_) | MultiOp::GetChildren(_))
    }
}

/// Reads the whole list. Reads among writes, an unknown operation or an impossible flag refuse it all.
pub fn read_ops<'a>(r: &mut Reader<'a>) -> Result<Vec<MultiOp<'a>>, Malformed> {
    let mut ops: Vec<MultiOp<'a>> = Vec::new();
    loop {
        let (raw, done) = (r.int("type")?, r.bool("done")?);
        r.int("err")?;
        if done {
            return Ok(ops);
        }
        let op = OpCode::from_wire(raw).ok_or(Malformed::Unknown("op of a multi", raw))?;
        let op = match op {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                let request = CreateRequest::read(r, op)?;
                MultiOp::Create(normalised(op, &request)?, request)
            }
            OpCode::Delete => MultiOp::Delete(PathVersion::read(r)?),
            OpCode::SetData => MultiOp::SetData(SetDataRequest::read(r)?),
            OpCode::Check => MultiOp::Check(PathVersion::read(r)?),
            OpCode::GetData => MultiOp::GetData(PathWatch::read(r)?),
            OpCode::GetChildren => MultiOp::GetChildren(PathWatch::read(r)?),
            _ => return Err(Malformed::Unknown("op of a multi", raw)),
        };
        if ops.first().is_some_and(|first| first.is_read() != op.is_read()) {
            return Err(Malformed::Unknown("reads and writes in one multi", raw));
        }
        ops.push(op);
    }
}

/// A container's flag makes a container; an op for containers stays one; TTL flags need the op that carries a TTL; and
/// that op without TTL flags is a plain create (upstream: `Op.Create` and `MultiOperationRecord`).
fn normalised(op: OpCode, request: &CreateRequest<'_>) -> Result<OpCode, Malformed> {
    let bad = Malformed::Unknown("flags", request.flags);
    if !(flags::PERSISTENT..=flags::PERSISTENT_SEQUENTIAL_WITH_TTL).contains(&request.flags) {
        // One that could carry a TTL is refused as an operation, with a result of its own.
        return if op == OpCode::CreateTtl { Ok(OpCode::Create) } else { Err(bad) };
    }
    if request.acl.is_none() && op != OpCode::CreateTtl {
        // Upstream trips over it while decoding, but not before it has seen an impossible flag.
        return Err(Malformed::Null("acl"));
    }
    match op {
        OpCode::CreateTtl if flags::is_ttl(request.flags) => Ok(OpCode::CreateTtl),
        _ if flags::is_ttl(request.flags) => Err(bad),
        _ if request.flags == flags::CONTAINER => Ok(OpCode::CreateContainer),
        OpCode::CreateTtl => Ok(OpCode::Create),
        op => Ok(op),
    }
}

/// Appends the header that stands before an operation or a result.
pub fn write_header(out: &mut Vec<u8>, op: i32, done: bool, err: i32) {
    out.put_int(op);
    out.put_bool(done);
    out.put_int(err);
}

/// Appends what stands for a result that is an error.
pub fn write_error(out: &mut Vec<u8>, code: ErrorCode) {
    write_header(out, OpCode::Error.to_wire(), false, code.0);
    out.put_int(code.0);
}

/// Appends the end of the list.
pub fn write_end(out: &mut Vec<u8>) {
    write_header(out, -1, true, -1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(out: &mut Vec<u8>, op: OpCode, flags: i32, ttl: Option<i64>) {
        write_header(out, op.to_wire(), false, -1);
        out.put_text("/a");
        out.put_buffer(None);
        out.put_int(0);
        out.put_int(flags);
        if let Some(ttl) = ttl {
            out.put_long(ttl);
        }
    }

    fn kinds(bytes: &[u8]) -> Result<Vec<OpCode>, Malformed> {
        let ops = read_ops(&mut Reader::new(bytes))?;
        Ok(ops.into_iter().map(|op| if let MultiOp::Create(code, _) = op { code } else { OpCode::Error }).collect())
    }

    #[test]
    fn the_flags_decide_what_a_create_in_a_multi_is() {
        let mut out = Vec::new();
        op(&mut out, OpCode::Create, 4, None);
        op(&mut out, OpCode::CreateContainer, 1, None);
        op(&mut out, OpCode::CreateTtl, 0, Some(-1));
        op(&mut out, OpCode::CreateTtl, 5, Some(9));
        write_end(&mut out);
        use OpCode::*;
        assert_eq!(kinds(&out), Ok(vec![CreateContainer, CreateContainer, Create, CreateTtl]));
        for len in 0..out.len() {
            assert!(kinds(&out[..len]).is_err());
        }
    }

    #[test]
    fn impossible_flags_and_mixed_kinds_refuse_the_whole_list() {
        for flags in [5, 7, -1] {
            let mut out = Vec::new();
            op(&mut out, OpCode::Create, flags, None);
            write_end(&mut out);
            assert!(kinds(&out).is_err(), "flags {flags}");
        }
        let mut out = Vec::new();
        op(&mut out, OpCode::Create, 0, None);
        write_header(&mut out, OpCode::GetData.to_wire(), false, -1);
        out.put_text("/a");
        out.put_bool(false);
        write_end(&mut out);
        assert!(kinds(&out).is_err());
    }
}
