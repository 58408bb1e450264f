//! Where the servers of an ensemble find one another: ports that others have, lines with several addresses.

mod support;

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use support::ensemble::{Ensemble, Layout, SOON};
use support::servers::wait_for;

#[test]
fn a_server_whose_ports_are_taken_waits_for_them() {
    let take = |ensemble: &Ensemble| {
        // As the server takes them.
        let held = [TcpListener::bind(ensemble.quorum_address(0))?, TcpListener::bind(ensemble.election_address(0))?];
        let log = ensemble.log_file(0);
        Ok(std::thread::spawn(move || {
            // Each of them by itself.
            for port in held {
                let place = format!("on {}: ", port.local_addr().unwrap());
                let tried = || fs::read_to_string(&log).ok()?.contains(&place).then_some(());
                wait_for("an attempt", SOON, tried);
                drop(port);
            }
        }))
    };
    let (ensemble, waited) = Ensemble::start_after(Layout::of(3).with("electionPortBindRetry=0"), take);
    waited.join().expect("it has tried while the ports were taken");
    ensemble.serving(0);
}

#[test]
fn the_quorum_port_is_open_while_its_server_leads() {
    let mut ensemble = Ensemble::start(Layout::of(3));
    for _ in 0..3 {
        let leader = ensemble.leader();
        TcpStream::connect(ensemble.quorum_address(leader)).expect("it leads");
        let followers = ensemble.followers();
        ensemble.kill_all(&followers);
        let refused = || {
            let refusal = TcpStream::connect(ensemble.quorum_address(leader)).err()?;
            (refusal.kind() == ErrorKind::ConnectionRefused).then_some(())
        };
        wait_for("its quorum port to close", SOON, refused);
        followers.iter().for_each(|&at| ensemble.restart(at));
    }
}

/// A listener that nobody accepts from, and whose line is full: who calls then hears nothing.
struct Silent {
    _listener: socket2::Socket,
    _callers: Vec<socket2::Socket>,
}

impl Silent {
    fn at(address: SocketAddr) -> io::Result<Silent> {
        let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let listener = socket()?;
        listener.bind(&address.into())?;
        listener.listen(0)?;
        let mut callers = Vec::new();
        for _ in 0..4 {
            let caller = socket()?;
            caller.set_nonblocking(true)?;
            // It is under way, or waits already.
            let _ = caller.connect(&address.into());
            callers.push(caller);
        }
        Ok(Silent { _listener: listener, _callers: callers })
    }
}

#[test]
fn a_server_is_found_behind_an_address_that_answers_nothing() {
    let silent = Ipv4Addr::new(127, 0, 0, 7);
    let more = |ensemble: &Ensemble| {
        let mut silents = Vec::new();
        for at in 0..3 {
            silents.push(Silent::at((silent, ensemble.quorum_address(at).port()).into())?);
            let file = ensemble.config(at);
            let text = fs::read_to_string(&file)?;
            let line = |line: &str| match line.strip_prefix("server.").and_then(|rest| rest.split_once('=')) {
                // Its own are those that it listens at.
                Some((id, address)) if id != (at + 1).to_string() => {
                    let ports = address.strip_prefix("127.0.0.1").unwrap().replace(":participant", "");
                    format!("server.{id}={silent}{ports}|{address}\n")
                }
                _ => format!("{line}\n"),
            };
            fs::write(&file, text.lines().map(line).collect::<String>())?;
        }
        Ok(silents)
    };
    let (ensemble, _silents) = Ensemble::start_after(Layout::of(3).with("multiAddress.enabled=true"), more);
    ensemble.client(ensemble.followers()[0], 30_000).create("/through", b"", 0).unwrap().unwrap();
}

#[test]
fn a_server_listens_at_all_of_its_addresses_and_is_found_at_any() {
    let (own, dead) = (Ipv4Addr::new(127, 0, 0, 8), Ipv4Addr::new(127, 0, 0, 9));
    let more = |ensemble: &Ensemble| {
        for at in 0..3 {
            let file = ensemble.config(at);
            let text = fs::read_to_string(&file)?;
            let line = |line: &str| match line.strip_prefix("server.").and_then(|rest| rest.split_once('=')) {
                Some((id, address)) => {
                    let first = if id == (at + 1).to_string() { own } else { dead };
                    let ports = address.strip_prefix("127.0.0.1").unwrap().replace(":participant", "");
                    format!("server.{id}={first}{ports}|{address}\n")
                }
                None => format!("{line}\n"),
            };
            fs::write(&file, text.lines().map(line).collect::<String>())?;
        }
        Ok(())
    };
    let (ensemble, ()) = Ensemble::start_after(Layout::of(3).with("multiAddress.enabled=true"), more);
    let leader = ensemble.leader();
    for port in [ensemble.quorum_address(leader).port(), ensemble.election_address(leader).port()] {
        TcpStream::connect((own, port)).expect("it listens at its first address too");
    }
}
