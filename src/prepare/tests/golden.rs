//! Bytes captured from ZooKeeper 3.9.5 (client-protocol 11), through prepare, apply and reply.

use super::*;

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

const STAT_A_TIMES: &str = "000001a202114b94";

impl Server {
    /// `request` and `reply` are whole frames.
    fn exchange(&mut self, time: i64, request: &str, reply: &str) {
        let frame = unhex(request);
        assert_eq!(frame.len(), 4 + u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize);
        let xid = i32::from_be_bytes(frame[4..8].try_into().unwrap());
        let op = OpCode::from_wire(i32::from_be_bytes(frame[8..12].try_into().unwrap())).unwrap();
        self.time = 0x1a2_0211_0000 + time;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let got = match op {
            OpCode::CloseSession => {
                let next = self.zxid.next().unwrap();
                let closed = self.prepare.close_session(&self.tree, self.session, xid, next, self.time);
                let (Prepared::Txn { header, txn, digest }, Closing::Done) = closed else { panic!() };
                let shape = Shape::of(op, &txn);
                self.zxid = header.zxid;
                self.apply(InFlight { header, txn, digest, shape, xid })
            }
            _ => self.run(op, xid, &frame[12..]).unwrap(),
        };
        assert_eq!(hex(&got), hex(&unhex(reply)), "zxid {:?}", self.zxid);
    }
}

#[test]
fn the_exchanges_of_a_real_server() {
    let mut server = Server::new(extended());
    let first = server.prepare.create_session(&server.tree, SESSION, 10_000, Zxid(1), 0x1a2_0211_4b00);
    let Prepared::Txn { header, txn, digest } = first else { panic!() };
    assert_eq!(digest, Some(TxnDigest { version: 2, tree: 0x51c6_d660 }), "of an untouched tree");
    server.zxid = header.zxid;
    server.tree.apply(&header, txn, &mut Applied::default());
    server.prepare.applied(header.zxid);

    // 11.5
    server.exchange(
        0x4b94,
        "00000033 00000001 00000001 00000002 2f61 00000002 6869 00000001 0000001f 00000005 776f726c64 00000006
         616e796f6e65 00000000",
        "00000016 00000001 0000000000000002 00000000 00000002 2f61",
    );
    // 11.6
    server.exchange(
        0x4bb2,
        "00000034 00000002 0000000f 00000005 2f612f732d 00000000 00000001 0000001f 00000005 776f726c64 00000006
         616e796f6e65 00000003",
        "00000067 00000002 0000000000000003 00000000 0000000f 2f612f732d30303030303030303030
         0000000000000003 0000000000000003 000001a202114bb2 000001a202114bb2 00000000 00000000 00000000
         0100001d35e20000 00000000 00000000 0000000000000003",
    );
    // 11.7
    server.exchange(
        0x4bc3,
        "0000003b 00000003 00000015 00000004 2f612f74 00000000 00000001 0000001f 00000005 776f726c64 00000006
         616e796f6e65 00000005 0000000005265c00",
        "0000005c 00000003 0000000000000004 00000000 00000004 2f612f74
         0000000000000004 0000000000000004 000001a202114bc3 000001a202114bc3 00000000 00000000 00000000
         0000000000000000 00000000 00000000 0000000000000004",
    );
    // 11.10
    server.exchange(
        0x4bde,
        "00000018 00000009 00000005 00000002 2f61 00000002 796f 00000000",
        &format!(
            "00000054 00000009 0000000000000005 00000000
             0000000000000002 0000000000000005 {STAT_A_TIMES} 000001a202114bde 00000001 00000002 00000000
             0000000000000000 00000002 00000002 0000000000000004"
        ),
    );
    server.exchange(
        0x4be0,
        "00000018 0000000a 00000005 00000002 2f61 00000002 796f 00000000",
        "00000010 0000000a 0000000000000006 ffffff99",
    );
    // 11.11
    server.exchange(
        0x4be4,
        "0000002d 0000000c 00000007 00000002 2f61 00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65 ffffffff",
        &format!(
            "00000054 0000000c 0000000000000007 00000000
             0000000000000002 0000000000000005 {STAT_A_TIMES} 000001a202114bde 00000001 00000002 00000001
             0000000000000000 00000002 00000002 0000000000000004"
        ),
    );
    // 11.13
    server.exchange(
        0x4c06,
        "00000088 0000000f 0000000e
         0000000d 00 ffffffff 00000002 2f61 00000001
         00000001 00 ffffffff 00000004 2f612f6d 00000001 78 00000001 0000001f 00000005 776f726c64 00000006
         616e796f6e65 00000000
         00000005 00 ffffffff 00000004 2f612f6d 00000001 79 00000000
         00000002 00 ffffffff 00000004 2f612f6d 00000001
         ffffffff 01 ffffffff",
        "00000089 0000000f 0000000000000008 00000000
         0000000d 00 00000000
         00000001 00 00000000 00000004 2f612f6d
         00000005 00 00000000 0000000000000008 0000000000000008 000001a202114c06 000001a202114c06 00000001 00000000
         00000000 0000000000000000 00000001 00000000 0000000000000008
         00000002 00 00000000
         ffffffff 01 ffffffff",
    );
    // 11.14
    server.exchange(
        0x4c10,
        "00000070 00000010 0000000e 00000001 00 ffffffff 00000004 2f612f6e 00000000 00000001 0000001f 00000005
         776f726c64 00000006 616e796f6e65 00000000
         00000002 00 ffffffff 00000003 2f7a7a ffffffff  00000005 00 ffffffff 00000002 2f61 00000000 ffffffff
         ffffffff 01 ffffffff",
        "00000040 00000010 0000000000000009 00000000
         ffffffff 00 00000000 00000000
         ffffffff 00 ffffff9b ffffff9b
         ffffffff 00 fffffffe fffffffe
         ffffffff 01 ffffffff",
    );
    // 11.20
    server.exchange(
        0x4c20,
        "00000014 00000017 00000002 00000004 2f612f74 ffffffff",
        "00000010 00000017 000000000000000a 00000000",
    );
    server.zxid = Zxid(0xb); // Another session began.
    server.exchange(0x4c30, "00000008 00000018 fffffff5", "00000010 00000018 000000000000000c 00000000");
    assert_eq!(server.tree.lookup("/a").unwrap().num_children(), 0, "the ephemeral went with its session");
}

#[test]
fn a_failed_multi_is_logged_with_what_stood_before_the_failure() {
    let mut server = Server::new(extended());
    let ops = [
        (OpCode::Create, create("/a", 0)),
        (OpCode::Create2, create("/a/b", flags::PERSISTENT_SEQUENTIAL)),
        (OpCode::Delete, path_version("/none", -1)),
        (OpCode::SetData, set_data("/a", b"", -1)),
    ];
    let flight = server.prepare(OpCode::Multi, 1, &multi(&ops)).unwrap();
    let Txn::Multi(txns) = &flight.txn else { panic!("{:?}", flight.txn) };
    assert!(matches!(&txns[0], Txn::Create { op: OpCode::Create, path, parent_cversion: 1, .. } if path == "/a"));
    assert!(matches!(&txns[1], Txn::Create { op: OpCode::Create2, path, .. } if path == "/a/b0000000000"));
    assert_eq!(txns[2..], [Txn::Error { code: -101 }, Txn::Error { code: -2 }]);
    let before = server.dump();
    let reply = server.apply(flight);
    assert_eq!(multi_codes(&reply, 4), [0, 0, -101, -2]);
    assert_eq!(server.dump(), before);
    assert_eq!(server.prepare.pending_paths(), 0);
}

#[test]
fn a_multi_answers_each_create_in_its_own_way() {
    let mut server = Server::new(extended());
    let ops = [
        (OpCode::Create, create("/plain", 0)),
        (OpCode::Create2, create("/stat", 0)),
        (OpCode::Create, create("/container", flags::CONTAINER)),
        (OpCode::CreateTtl, create_with("/ttl", None, &open(), 5, Some(9))),
    ];
    let reply = server.run(OpCode::Multi, 1, &multi(&ops)).unwrap();
    let mut at = 20;
    let mut types = Vec::new();
    for name in ["/plain", "/stat", "/container", "/ttl"] {
        let op = i32::from_be_bytes(reply[at..at + 4].try_into().unwrap());
        types.push(op);
        at += 9 + 4 + name.len() + if op == 15 { 68 } else { 0 };
    }
    assert_eq!(types, [1, 15, 15, 15]);
    assert_eq!(reply.len(), at + 9);
    let empty = server.run(OpCode::Multi, 2, &multi(&[])).unwrap();
    assert_eq!(empty, unhex("00000019 00000002 0000000000000002 00000000 ffffffff 01 ffffffff"));
}
