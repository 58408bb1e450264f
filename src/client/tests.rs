//! The client against a server of three lines a test: what it sends, in which order, and what it does with the answers.

use super::*;
use crate::wire::client::{ConnectRequest, ConnectResponse, EventKind, ReplyHeader, RequestHeader, write_event};
use crate::wire::{ErrorCode, OpCode, Reader};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// A server as the test plays it.
struct Peer(TcpStream);

impl Peer {
    fn frame(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).unwrap();
        frame
    }

    fn accept(listener: &TcpListener, answer: ConnectResponse) -> (Peer, i64, SessionId) {
        let mut peer = Peer(listener.accept().unwrap().0);
        let frame = peer.frame();
        let request = ConnectRequest::read(&frame).unwrap();
        let mut out = Vec::new();
        answer.write(&mut out);
        peer.0.write_all(&out).unwrap();
        (peer, request.last_zxid_seen, request.session)
    }

    fn request(&mut self) -> (i32, OpCode, Vec<u8>) {
        let frame = self.frame();
        let mut reader = Reader::new(&frame);
        let header = RequestHeader::read(&mut reader).unwrap();
        (header.xid, OpCode::from_wire(header.op).unwrap(), reader.rest().to_vec())
    }

    fn answer(&mut self, xid: i32, zxid: i64, err: ErrorCode) {
        let mut out = Vec::new();
        ReplyHeader { xid, zxid, err }.write_frame(&mut out);
        self.0.write_all(&out).unwrap();
    }

    /// Answers the close that every test ends with.
    fn expect_close(mut self) {
        let (xid, op, _) = self.request();
        assert_eq!(op, OpCode::CloseSession);
        self.answer(xid, 99, ErrorCode::OK);
    }
}

fn granted() -> ConnectResponse {
    ConnectResponse { timeout_ms: 30_000, session: SessionId(7), password: [1; 16], read_only: Some(false) }
}

fn open(listener: &TcpListener, chroot: &str) -> (Client, std::sync::mpsc::Receiver<String>) {
    let (sender, events) = std::sync::mpsc::channel();
    let options = Options::new(&format!("{}{chroot}", listener.local_addr().unwrap()));
    let client = Client::open(options, move |event| {
        let _ = sender.send(event.to_string());
    });
    (client.unwrap(), events)
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn requests_are_pipelined_and_answered_in_order() {
    let listener = listener();
    let (client, _events) = open(&listener, "/app");
    let first = client.delete("/a", 3);
    let second = client.sync("/");
    let (mut peer, ..) = Peer::accept(&listener, granted());
    let (xid_1, op_1, body) = peer.request();
    let (xid_2, op_2, _) = peer.request();
    assert_eq!((op_1, op_2), (OpCode::Delete, OpCode::Sync));
    assert_eq!(body, b"\0\0\0\x06/app/a\0\0\0\x03");
    peer.answer(xid_1, 5, ErrorCode::NO_NODE);
    peer.answer(xid_2, 5, ErrorCode::OK);
    assert_eq!(first.wait().unwrap_err().to_string(), "KeeperErrorCode = NoNode for /a");
    second.wait().unwrap();
    let closer = std::thread::spawn(move || client.close());
    peer.expect_close();
    closer.join().unwrap();
}

#[test]
fn a_new_connection_gets_the_session_the_identities_and_the_watches_again() {
    let listener = listener();
    let (client, events) = open(&listener, "");
    client.add_auth("digest", b"a:b");
    let (watch, watched) = std::sync::mpsc::channel();
    let exists = client.exists("/x", Watch::To(watch));
    let (mut peer, ..) = Peer::accept(&listener, granted());
    assert_eq!(peer.request().1, OpCode::Auth);
    let (xid, ..) = peer.request();
    peer.answer(xid, 42, ErrorCode::NO_NODE);
    assert!(exists.wait().unwrap_err().is(ErrorCode::NO_NODE));
    let lost = client.sync("/");
    peer.request();
    drop(peer);
    assert!(lost.wait().unwrap_err().is(ErrorCode::CONNECTION_LOSS));

    let (mut peer, last_zxid, session) = Peer::accept(&listener, granted());
    assert_eq!((last_zxid, session), (42, SessionId(7)));
    assert_eq!(peer.request().1, OpCode::Auth);
    let (xid, op, body) = peer.request();
    assert_eq!(op, OpCode::SetWatches);
    assert_eq!(body, b"\0\0\0\0\0\0\0\x2a\0\0\0\0\0\0\0\x01\0\0\0\x02/x\0\0\0\0");
    let mut out = Vec::new();
    write_event(&mut out, EventKind::NodeCreated, "/x", -1);
    peer.0.write_all(&out).unwrap();
    peer.answer(xid, 43, ErrorCode::OK);
    assert_eq!(watched.recv().unwrap().kind, EventType::NodeCreated);
    let states: Vec<String> = events.iter().take(3).collect();
    assert_eq!(states[1], "WatchedEvent state:Disconnected type:None path:null zxid: -1");
    assert_eq!(states[2], "WatchedEvent state:SyncConnected type:None path:null zxid: -1");
    let closer = std::thread::spawn(move || client.close());
    peer.expect_close();
    closer.join().unwrap();
}

#[test]
fn a_refused_session_is_expired_and_says_so_to_everyone() {
    let listener = listener();
    let (client, events) = open(&listener, "");
    let waiting = client.sync("/");
    let (_peer, ..) = Peer::accept(&listener, ConnectResponse::refused(Some(false)));
    assert!(waiting.wait().unwrap_err().is(ErrorCode::SESSION_EXPIRED));
    assert!(client.sync("/").wait().unwrap_err().is(ErrorCode::SESSION_EXPIRED));
    assert_eq!(events.recv().unwrap(), "WatchedEvent state:Expired type:None path:null zxid: -1");
    assert_eq!(client.state(), State::Expired);
}

#[test]
fn a_refused_identity_ends_the_session() {
    let listener = listener();
    let (client, _events) = open(&listener, "");
    client.add_auth("nonsense", b"");
    let (mut peer, ..) = Peer::accept(&listener, granted());
    let (xid, ..) = peer.request();
    peer.answer(xid, 0, ErrorCode::AUTH_FAILED);
    assert_eq!(client.shared.wait(Duration::from_secs(30), |inner| inner.state.is_final()).state, State::AuthFailed);
    assert!(client.sync("/").wait().unwrap_err().is(ErrorCode::AUTH_FAILED));
}

#[test]
fn a_reply_out_of_order_costs_the_connection() {
    let listener = listener();
    let (client, _events) = open(&listener, "");
    let waiting = client.sync("/");
    let (mut peer, ..) = Peer::accept(&listener, granted());
    let (xid, ..) = peer.request();
    peer.answer(xid + 1, 1, ErrorCode::OK);
    assert!(waiting.wait().unwrap_err().is(ErrorCode::CONNECTION_LOSS));
}

/// A request that is large is flushed at once, and the connection may be lost over that.
#[test]
fn a_request_over_which_the_connection_is_lost_is_told_so() {
    let listener = listener();
    let (client, _events) = open(&listener, "");
    let waiting = client.set_data("/a", Some(&vec![1; 8 << 20]), -1);
    let (peer, ..) = Peer::accept(&listener, granted());
    // With bytes that nobody has read, which resets it.
    drop(peer);
    let (mut peer, ..) = Peer::accept(&listener, granted());
    let (told, outcome) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || told.send(waiting.wait().map(drop)));
    let outcome = outcome.recv_timeout(Duration::from_secs(20)).expect("somebody tells");
    assert!(outcome.unwrap_err().is(ErrorCode::CONNECTION_LOSS));
    waiter.join().unwrap().unwrap();
    let next = client.sync("/");
    let (xid, op, _) = peer.request();
    assert_eq!(op, OpCode::Sync);
    peer.answer(xid, 1, ErrorCode::NO_NODE);
    assert!(next.wait().unwrap_err().is(ErrorCode::NO_NODE), "its connection is a sound one");
    let closer = std::thread::spawn(move || client.close());
    peer.expect_close();
    closer.join().unwrap();
}

#[test]
fn bad_paths_are_refused_before_anything_is_sent() {
    let (client, _events) = open(&listener(), "");
    assert!(matches!(client.get_data("a", Watch::No).wait(), Err(Error::Path(_))));
    assert!(matches!(client.create("/a/", None, &open_acl(), CreateMode::PERSISTENT).wait(), Err(Error::Path(_))));
}
