//! The lines that name the members of an ensemble: `server.N`, `group.G`, `weight.N`.
//!
//! `server.<id>=<host>:<quorum port>:<election port>[|...][:<role>][;[<client host>:]<client port>]`
//!
//! A standalone server reads them too: the official container image gives the client port of a single server only here.
//!
//! Promises: hosts are kept as written and resolved by who connects, every time; addresses that move must not be
//! remembered from a start. Runs on: the starting thread.

use std::fmt;

/// What a server does in the ensemble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Participant,
    Observer,
}

/// One address of a server, as other servers reach it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerAddress {
    pub host: String,
    pub quorum_port: u16,
    pub election_port: u16,
}

/// What a `server.N` line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerLine {
    pub id: u64,
    /// At least one.
    pub addresses: Vec<PeerAddress>,
    pub role: Role,
    /// Host (`None`: all interfaces) and port for clients.
    pub client: Option<(Option<String>, u16)>,
}

/// As `/zookeeper/config` has it, with the wildcard written out.
impl fmt::Display for ServerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Participant => "participant",
            Role::Observer => "observer",
        };
        for (at, address) in self.addresses.iter().enumerate() {
            let separator = if at == 0 { "" } else { "|" };
            let (quorum, election) = (address.quorum_port, address.election_port);
            write!(f, "{separator}{}:{quorum}:{election}:{role}", bracketed(&address.host))?;
        }
        match &self.client {
            Some((host, port)) => write!(f, ";{}:{port}", bracketed(host.as_deref().unwrap_or("0.0.0.0"))),
            None => Ok(()),
        }
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Reads `server.<id>=<value>`. The error is the whole sentence for the operator.
pub fn parse_server(id: &str, value: &str) -> Result<ServerLine, String> {
    let id: u64 = id.parse().map_err(|_| format!("server.{id}: {id} is not a server id"))?;
    let form = || {
        format!(
            "{value} does not have the form server_config or server_config;client_config where server_config is the \
             pipe separated list of host:port:port or host:port:port:type and client_config is port or host:port"
        )
    };
    // Java's `split` passes over separators with nothing behind them.
    let mut parts = value.trim_end_matches(';').split(';');
    let peers = parts.next().unwrap_or_default();
    let client = parts.next();
    if parts.next().is_some() {
        return Err(form());
    }
    let client = match client {
        None => None,
        Some(text) => Some(parse_client(text.trim().trim_end_matches(':')).ok_or_else(form)?),
    };
    let mut addresses = Vec::new();
    let mut role: Option<Role> = None;
    for peer in peers.trim_end_matches('|').split('|') {
        let fields = split_host(peer.trim().trim_end_matches(':')).ok_or_else(form)?;
        let (quorum, election, named) = match fields.ports.as_slice() {
            [quorum, election] => (quorum, election, None),
            [quorum, election, named] => (quorum, election, Some(parse_role(named)?)),
            _ => return Err(form()),
        };
        let quorum_port = parse_port(quorum).ok_or_else(form)?;
        let election_port = parse_port(election).ok_or_else(form)?;
        if quorum_port == election_port {
            return Err("Client and election port must be different! Please update the configuration file on \
                        server."
                .to_owned()
                + &id.to_string());
        }
        if let (Some(before), Some(now)) = (role, named)
            && before != now
        {
            return Err(format!("Multiple addresses should have the same role: {before:?} vs {now:?}"));
        }
        role = role.or(named);
        addresses.push(PeerAddress { host: fields.host, quorum_port, election_port });
    }
    Ok(ServerLine { id, addresses, role: role.unwrap_or(Role::Participant), client })
}

/// Reads a role, in any case.
pub fn parse_role(text: &str) -> Result<Role, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "participant" => Ok(Role::Participant),
        "observer" => Ok(Role::Observer),
        _ => Err(format!("Unrecognised peertype: {text}")),
    }
}

struct HostAndPorts<'a> {
    host: String,
    ports: Vec<&'a str>,
}

/// `host:a:b:…`, the host in brackets where it contains colons.
fn split_host(text: &str) -> Option<HostAndPorts<'_>> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inside) => {
            let (host, rest) = inside.split_once(']')?;
            (host, rest.strip_prefix(':')?)
        }
        None => text.split_once(':')?,
    };
    if host.is_empty() {
        return None;
    }
    Some(HostAndPorts { host: host.to_owned(), ports: rest.split(':').collect() })
}

fn parse_client(text: &str) -> Option<(Option<String>, u16)> {
    if let Some(port) = parse_port(text) {
        return Some((None, port));
    }
    let fields = split_host(text)?;
    let [port] = fields.ports.as_slice() else { return None };
    let everywhere = matches!(fields.host.as_str(), "0.0.0.0" | "::" | "0:0:0:0:0:0:0:0");
    Some(((!everywhere).then_some(fields.host), parse_port(port)?))
}

fn parse_port(text: &str) -> Option<u16> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_a_server_line_is_read_and_printed() {
        let cases = [
            ("h:2888:3888", "h:2888:3888:participant"),
            ("h:2888:3888;2181", "h:2888:3888:participant;0.0.0.0:2181"),
            ("h:2888:3888:Observer;10.0.0.1:2181", "h:2888:3888:observer;10.0.0.1:2181"),
            ("[2001:db8::1]:2888:3888;[::1]:2181", "[2001:db8::1]:2888:3888:participant;[::1]:2181"),
            ("a:1:2|b:3:4:participant", "a:1:2:participant|b:3:4:participant"),
            ("h:1:2;", "h:1:2:participant"),
            ("h:1:2:participant:;2181:;;", "h:1:2:participant;0.0.0.0:2181"),
            ("h:1:2||", "h:1:2:participant"),
        ];
        for (text, printed) in cases {
            assert_eq!(parse_server("1", text).unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn a_malformed_server_line_says_what_is_wrong() {
        let cases = [
            ("h", "does not have the form"),
            ("h:1", "does not have the form"),
            (":1:2", "does not have the form"),
            ("h:1:2:participant:3", "does not have the form"),
            ("h:1:2;1;2", "does not have the form"),
            ("h:1:2;;2181", "does not have the form"),
            (";2181", "does not have the form"),
            ("h:99999:2", "does not have the form"),
            ("[::1:1:2", "does not have the form"),
            ("h:1:1", "Client and election port must be different!"),
            ("h:1:2:leader", "Unrecognised peertype: leader"),
            ("a:1:2:observer|b:1:2:participant", "same role"),
        ];
        for (text, problem) in cases {
            let found = parse_server("1", text).unwrap_err();
            assert!(found.contains(problem), "{text}: {found}");
        }
        assert!(parse_server("x", "h:1:2").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a:;|0-9\\[\\]]{0,40}") {
            let _ = parse_server("1", &text);
        }
    }
}
