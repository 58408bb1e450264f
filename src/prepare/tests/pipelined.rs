//! Properties: what is prepared can be applied, and being in flight makes no difference.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write(SessionId, OpCode, Vec<u8>),
    Close(SessionId),
    Reap(String),
    /// So much time passes.
    Wait(i64),
}

fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c-", "zookeeper"]);
    prop::collection::vec(name, 1..4).prop_map(|names| format!("/{}", names.join("/")))
}

fn odd_path() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec!["", "/", "a", "/a/", "//", "/a//b", "/.", "/a\u{0}", "/zookeeper/quota/a"]);
    prop_oneof![9 => path(), 1 => odd.prop_map(String::from)]
}

fn acl() -> impl Strategy<Value = Vec<Acl>> {
    let some = |perms| vec![Acl::world(perms)];
    let me = Acl { perms: 31, scheme: "ip".into(), id: "127.0.0.1".into() };
    let auth = Acl { perms: 31, scheme: "auth".into(), id: String::new() };
    prop_oneof![
        8 => Just(some(31)),
        1 => (0..32i32).prop_map(some),
        1 => Just(vec![Acl::world(1), me]),
        1 => Just(vec![auth]),
        1 => Just(Vec::new()),
    ]
}

fn single() -> impl Strategy<Value = (OpCode, Vec<u8>)> {
    use OpCode::*;
    let version = prop_oneof![4 => Just(-1), 2 => 0..3i32, 1 => Just(-2)];
    let data = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    let creates = prop::sample::select(vec![Create, Create, Create2, CreateContainer, CreateTtl]);
    let ttl = prop_oneof![Just(-1i64), Just(5), Just(i64::MAX)];
    prop_oneof![
        6 => (creates, odd_path(), data.clone(), acl(), -1..8i32, ttl).prop_map(|(op, path, data, acl, flags, ttl)| {
            let ttl = (op == CreateTtl).then_some(ttl);
            (op, create_with(&path, data.as_deref(), &acl, flags, ttl))
        }),
        3 => (odd_path(), version.clone()).prop_map(|(path, version)| (Delete, path_version(&path, version))),
        3 => (odd_path(), data, version.clone()).prop_map(|(path, data, version)| {
            (SetData, set_data(&path, &data.unwrap_or_default(), version))
        }),
        1 => (odd_path(), acl(), version).prop_map(|(path, acl, version)| (SetAcl, set_acl(&path, &acl, version))),
    ]
}

fn write() -> impl Strategy<Value = (OpCode, Vec<u8>)> {
    let in_multi = single().prop_map(|(op, body)| match op {
        // setACL is not allowed there; a check is.
        OpCode::SetAcl => (OpCode::Check, path_version("/a", 0)),
        op => (op, body),
    });
    let multi = prop::collection::vec(in_multi, 0..5).prop_map(|ops| (OpCode::Multi, multi(&ops)));
    prop_oneof![4 => single(), 1 => multi]
}

fn step() -> impl Strategy<Value = Step> {
    let session = || (1..4i64).prop_map(SessionId);
    prop_oneof![
        20 => (session(), write()).prop_map(|(session, (op, body))| Step::Write(session, op, body)),
        1 => session().prop_map(Step::Close),
        1 => path().prop_map(Step::Reap),
        1 => (0..10i64).prop_map(Step::Wait),
    ]
}

impl Server {
    /// Prepares a step; what has to be applied, or what was refused.
    fn start(&mut self, step: &Step, flights: &mut Vec<Result<InFlight, ErrorCode>>) {
        let closed = match step {
            Step::Wait(ms) => {
                self.time += ms;
                return;
            }
            Step::Write(session, op, body) => {
                self.session = *session;
                let flight = self.prepare(*op, 1, body);
                return flights.push(flight);
            }
            Step::Close(session) => {
                let next = self.zxid.next().unwrap();
                let (closed, closing) = self.prepare.close_session(&self.tree, *session, 0, next, self.time);
                assert_eq!(closing, Closing::Done);
                vec![closed]
            }
            Step::Reap(path) => {
                let next = self.zxid.next().unwrap();
                self.prepare.reap(&self.tree, path, |mtime| self.time - mtime, next, self.time).into_iter().collect()
            }
        };
        for prepared in closed {
            let Prepared::Txn { header, txn, digest } = prepared else { panic!("{prepared:?}") };
            self.zxid = header.zxid;
            let shape = Shape::Single(OpCode::CloseSession);
            flights.push(Ok(InFlight { header, txn, digest, shape, xid: 1 }));
        }
    }

    /// Runs all steps, `batch` of them in flight; the replies.
    fn run_all(&mut self, steps: &[Step], batch: usize) -> Vec<Result<Vec<u8>, ErrorCode>> {
        let mut replies = Vec::new();
        for steps in steps.chunks(batch) {
            let mut flights = Vec::new();
            for step in steps {
                self.start(step, &mut flights);
            }
            for flight in flights {
                let fails = matches!(&flight, Ok(InFlight { txn: Txn::Error { .. }, .. }));
                let before = if fails { self.dump() } else { Vec::new() };
                replies.push(flight.map(|flight| self.apply(flight)));
                if fails {
                    assert_eq!(self.dump(), before, "an error changes nothing");
                }
            }
            assert_eq!(self.prepare.pending_paths(), 0);
        }
        replies
    }
}

/// Strangers mostly, since the super user may do everything; and one digest, for `auth`.
fn server() -> Server {
    let mut server = Server::new(extended());
    server.auth.add("digest", "me:secret");
    server
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn being_in_flight_makes_no_difference(
        steps in prop::collection::vec(step(), 1..60),
        batch in 2..40usize,
    ) {
        // `apply` checks each digest that was foretold.
        let mut one_by_one = server();
        let replies = one_by_one.run_all(&steps, 1);
        let mut batched = server();
        prop_assert_eq!(batched.run_all(&steps, batch), replies);
        prop_assert_eq!(batched.dump(), one_by_one.dump());
        prop_assert_eq!(batched.tree.digest(), one_by_one.tree.digest());
    }

    #[test]
    fn no_body_makes_it_panic(
        op in prop::sample::select(vec![
            OpCode::Create, OpCode::Create2, OpCode::CreateContainer, OpCode::CreateTtl, OpCode::Delete,
            OpCode::SetData, OpCode::SetAcl, OpCode::Multi, OpCode::Reconfig, OpCode::CloseSession, OpCode::Ping,
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        (good_op, mut good) in write(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut server = server();
        let _ = server.run(op, 1, &bytes);
        if !good.is_empty() {
            let at = at.index(good.len());
            good[at] = byte;
            let _ = server.run(good_op, 1, &good);
            let _ = server.run(good_op, 1, &good[..cut.index(good.len())]);
        }
    }
}
