//! The members of an ensemble as one configuration: who they are, what a quorum is, and the text that says so.
//!
//! Servers show each other their configuration in force in every vote and with every new epoch, as text. The text is
//! built here exactly as ZooKeeper 3.9.5 prints it, and read as it reads it, because a reconfiguration compares and
//! stores it. It is kept ready: a vote must not cost a formatting.
//!
//! What is odd about the text comes from Java: members stand in the order of a hash table (ascending as long as ids are
//! below 16), addresses of one server in the order of their hosts, and IPv6 addresses are written out in full. Where two
//! ids share a place in Java's table, the order depends on the rest of its file; here it is ascending then.
//!
//! Leaves to others: resolving hosts, which happens at each connect. Runs on: whichever thread asks; never changes.

use super::quorum::{Group, Quorum, ServerSet};
use crate::config::properties;
use crate::config::servers::{self, PeerAddress, Role, ServerLine};
use crate::ids::{ServerId, Zxid};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// A `group.N=a:b:c` line: the group's id and its members.
pub type GroupLine = (i64, Vec<u64>);
/// A `weight.N=w` line.
pub type WeightLine = (u64, u64);

/// One configuration of an ensemble (upstream: `QuorumVerifier`). Never changes; a new one replaces it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EnsembleConfig {
    version: Zxid,
    /// Ascending by id.
    servers: Vec<ServerLine>,
    quorum: Quorum,
    text: String,
}

impl EnsembleConfig {
    /// From the lines of a configuration; of two lines with one id the last one counts. Any group or weight makes the
    /// quorums hierarchical. `version` is the zxid of the reconfiguration that made it, 0 for one from a file.
    ///
    /// Errors, as text for the operator: ids above 255, no participant, groups that make no sense.
    pub fn new(
        version: Zxid,
        lines: Vec<ServerLine>,
        groups: &[GroupLine],
        weights: &[WeightLine],
    ) -> Result<EnsembleConfig, String> {
        let mut servers: Vec<ServerLine> = Vec::with_capacity(lines.len());
        for line in lines {
            server_id(line.id)?;
            match servers.binary_search_by_key(&line.id, |server| server.id) {
                Ok(at) => servers[at] = line,
                Err(at) => servers.insert(at, line),
            }
        }
        let with_role = |role: Role| -> ServerSet {
            servers.iter().filter(|line| line.role == role).map(|line| ServerId(line.id as u8)).collect()
        };
        let (voters, observers) = (with_role(Role::Participant), with_role(Role::Observer));
        if voters.is_empty() {
            return Err("there is no participant".to_owned());
        }
        let mut weighed = Vec::new();
        let quorum = if groups.is_empty() && weights.is_empty() {
            Quorum::majority(voters, observers)
        } else {
            let groups = groups.iter().map(group).collect::<Result<Vec<_>, _>>()?;
            weighed = weights_in_force(voters, weights)?;
            Quorum::hierarchical(voters, observers, groups, &weighed)?
        };
        let text = print(version, &servers, &quorum, &weighed);
        Ok(EnsembleConfig { version, servers, quorum, text })
    }

    /// A standalone server: its own quorum.
    pub fn alone(line: ServerLine) -> Result<EnsembleConfig, String> {
        EnsembleConfig::new(Zxid::ZERO, vec![ServerLine { role: Role::Participant, ..line }], &[], &[])
    }

    /// Reads the text of a peer or of a reconfiguration.
    ///
    /// Errors: whatever ZooKeeper refuses, and text that isn't ASCII. A vote counts all the same.
    pub fn parse(text: &[u8]) -> Result<EnsembleConfig, String> {
        if !text.is_ascii() {
            return Err("a configuration that isn't ASCII text".to_owned());
        }
        let entries = properties::parse(text).map_err(|malformed| malformed.problem)?;
        let (mut lines, mut groups, mut weights) = (Vec::new(), Vec::<GroupLine>::new(), Vec::new());
        let mut version = Zxid::ZERO;
        for entry in &entries {
            let (name, value) = (entry.key.trim(), entry.value.trim());
            let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{name}={value}: {text:?} is no number"));
            let after_dot = || name.split_once('.').map_or("", |(_, id)| id);
            if let Some(id) = name.strip_prefix("server.") {
                lines.push(servers::parse_server(id, value)?);
            } else if name.starts_with("group") {
                let members = value.trim_end_matches(':').split(':').map(number).collect::<Result<Vec<_>, _>>()?;
                groups.push((after_dot().parse().map_err(|_| format!("{name} is not the name of a group"))?, members));
            } else if name.starts_with("weight") {
                weights.push((number(after_dot())?, number(value)?));
            } else if name == "version" {
                version = parse_version(value)?;
            } else {
                return Err(format!("Unrecognised parameter: {name}"));
            }
        }
        EnsembleConfig::new(version, lines, &groups, &weights)
    }

    /// The same members under the version that the others give to theirs.
    pub fn with_version(&self, version: Zxid) -> EnsembleConfig {
        // It is the last line.
        let members = self.text.rfind("version=").unwrap_or(self.text.len());
        let text = format!("{}version={:x}", &self.text[..members], version.0);
        EnsembleConfig { version, text, ..self.clone() }
    }

    /// As notifications and NEWLEADER carry it.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn version(&self) -> Zxid {
        self.version
    }

    pub fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    /// All members, ascending by id.
    pub fn servers(&self) -> &[ServerLine] {
        &self.servers
    }

    pub fn server(&self, id: ServerId) -> Option<&ServerLine> {
        let at = self.servers.binary_search_by_key(&(id.0 as u64), |server| server.id).ok()?;
        Some(&self.servers[at])
    }
}

/// The configurations in force: the activated one and, while a reconfiguration is under way, the newest proposed one.
///
/// Whoever is a voter of either may be listened to; what is decided needs a quorum of both.
#[derive(Clone, Debug)]
pub struct Configs {
    current: Arc<EnsembleConfig>,
    /// Only if its version is higher.
    next: Option<Arc<EnsembleConfig>>,
}

impl Configs {
    pub fn new(current: Arc<EnsembleConfig>, last_seen: Option<Arc<EnsembleConfig>>) -> Configs {
        let next = last_seen.filter(|next| next.version > current.version);
        Configs { current, next }
    }

    pub fn current(&self) -> &Arc<EnsembleConfig> {
        &self.current
    }

    pub fn next(&self) -> Option<&Arc<EnsembleConfig>> {
        self.next.as_ref()
    }

    /// Voters of either.
    pub fn voters(&self) -> ServerSet {
        let next = self.next.as_ref().map_or(ServerSet::EMPTY, |next| next.quorum.voters());
        self.current.quorum.voters().union(next)
    }

    /// A quorum of each (upstream: `SyncedLearnerTracker.hasAllQuorums`).
    pub fn contains_quorum(&self, servers: ServerSet) -> bool {
        self.current.quorum.contains_quorum(servers)
            && self.next.as_ref().is_none_or(|next| next.quorum.contains_quorum(servers))
    }

    /// Members of either, observers too.
    pub fn is_member(&self, id: ServerId) -> bool {
        self.server(id).is_some()
    }

    /// How to reach a server: as the current configuration has it, else as the next one does.
    pub fn server(&self, id: ServerId) -> Option<&ServerLine> {
        self.current.server(id).or_else(|| self.next.as_ref().and_then(|next| next.server(id)))
    }
}

fn server_id(raw: u64) -> Result<ServerId, String> {
    u8::try_from(raw).map(ServerId).map_err(|_| format!("server {raw}: ids above 255 are not supported"))
}

fn group(line: &GroupLine) -> Result<Group, String> {
    let mut members = ServerSet::EMPTY;
    for &member in &line.1 {
        if !members.insert(server_id(member)?) {
            return Err(format!("server {member} is in more than one group"));
        }
    }
    Ok(Group { id: line.0, members })
}

/// Those given, and 1 for voters without; ascending by id.
fn weights_in_force(voters: ServerSet, given: &[WeightLine]) -> Result<Vec<(ServerId, u64)>, String> {
    let mut weights: Vec<(ServerId, u64)> = voters.iter().map(|id| (id, 1)).collect();
    for &(id, weight) in given {
        let id = server_id(id)?;
        match weights.binary_search_by_key(&id, |known| known.0) {
            Ok(at) => weights[at].1 = weight,
            Err(at) => weights.insert(at, (id, weight)),
        }
    }
    Ok(weights)
}

fn parse_version(text: &str) -> Result<Zxid, String> {
    let version = i64::from_str_radix(text, 16).map_err(|_| format!("{text:?} is not a version"))?;
    Ok(Zxid::from_wire(version))
}

fn print(version: Zxid, servers: &[ServerLine], quorum: &Quorum, weights: &[(ServerId, u64)]) -> String {
    let mut text = String::new();
    let mut put = |line: std::fmt::Arguments<'_>| text.write_fmt(line).expect("a string takes everything");
    for line in in_table_order(servers.iter().collect(), |line| line.id as i64) {
        put(format_args!("server.{}={}\n", line.id, spec(line)));
    }
    let grouped: usize = quorum.groups().iter().map(|group| group.members.len()).sum();
    for group in in_table_order(quorum.groups().iter().collect(), |group| group.id) {
        // Java's table has the members of all groups in it, and that decides its size.
        let members = group.members.iter().map(|id| id.0 as i64).collect();
        let members: Vec<String> = in_table_of(grouped, members, |&id| id).iter().map(i64::to_string).collect();
        put(format_args!("group.{}={}\n", group.id, members.join(":")));
    }
    for (id, weight) in in_table_order(weights.to_vec(), |weight| weight.0.0 as i64) {
        put(format_args!("weight.{}={weight}\n", id.0));
    }
    put(format_args!("version={:x}", version.0));
    text
}

/// `host:quorum:election|…:role[;host:port]`, as `QuorumServer.toString` has it.
fn spec(line: &ServerLine) -> String {
    let mut addresses: Vec<(String, &PeerAddress)> =
        line.addresses.iter().map(|address| (java_host(&address.host), address)).collect();
    addresses.sort_by(|one, other| one.0.cmp(&other.0));
    let addresses: Vec<String> = addresses
        .iter()
        .map(|(host, address)| format!("{}:{}:{}", bracketed(host), address.quorum_port, address.election_port))
        .collect();
    let role = match line.role {
        Role::Participant => "participant",
        Role::Observer => "observer",
    };
    let mut text = format!("{}:{role}", addresses.join("|"));
    if let Some((host, port)) = &line.client {
        let host = java_host(host.as_deref().unwrap_or("0.0.0.0"));
        text += &format!(";{}:{port}", bracketed(&host));
    }
    text
}

/// A literal address as Java prints it (`getHostString`); names as they are.
fn java_host(host: &str) -> String {
    if let Ok(v4) = host.parse::<Ipv4Addr>() {
        return v4.to_string();
    }
    let Ok(v6) = host.parse::<Ipv6Addr>() else { return host.to_owned() };
    match v6.to_ipv4_mapped() {
        Some(v4) => v4.to_string(),
        None => v6.segments().map(|segment| format!("{segment:x}")).join(":"),
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// The order in which a `java.util.HashMap<Long, _>` of these alone hands them out.
fn in_table_order<T>(items: Vec<T>, key: impl Fn(&T) -> i64) -> Vec<T> {
    in_table_of(items.len(), items, key)
}

/// The same for some of the entries of a map that has `entries`.
fn in_table_of<T>(entries: usize, mut items: Vec<T>, key: impl Fn(&T) -> i64) -> Vec<T> {
    // Sixteen places, doubled whenever more than three quarters are taken.
    let mut places = 16usize;
    while entries > places / 4 * 3 {
        places *= 2;
    }
    let place = |key: i64| {
        let hash = (key ^ (key as u64 >> 32) as i64) as u32;
        (hash ^ hash >> 16) as usize & (places - 1)
    };
    items.sort_by_key(|item| (place(key(item)), key(item)));
    items
}

#[cfg(test)]
mod tests;
