//! What the lines about members mean: a server that is alone, or one of an ensemble.
//!
//! One participant with `standaloneEnabled=true` (the default) runs as if there were no server line, as ZooKeeper does
//! with a line at ERROR; HBase and the official container image write such files. Its client port may stand in the
//! server line only. Everything else with server lines is an ensemble, and then `myid` says which of them this is.
//!
//! Promises: the checks of ZooKeeper with its words, in its order. Leaves to others: whether groups and weights ever
//! give a quorum (`zab`), and the settings of an ensemble that are not about members (`ensemble.rs`).
//!
//! Runs on: the starting thread.

use super::gather::{Given, Origin};
use super::read::Reader;
use super::servers::{self, Role, ServerLine};
use super::values::Config;
use super::{Level, Notice, ensemble, properties};
use crate::fatal::Fatal;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The members as the lines have them; of two lines with one id the last.
#[derive(Default)]
pub(super) struct Members {
    pub lines: Vec<(ServerLine, Given)>,
    pub groups: Vec<(i64, Vec<u64>)>,
    pub weights: Vec<(u64, u64)>,
    /// Of the reconfiguration that made them, from the name of the dynamic file; 0 where it has none.
    pub version: u64,
}

impl Members {
    fn count(&self, role: Role) -> usize {
        self.lines.iter().filter(|(line, _)| line.role == role).count()
    }

    pub fn line(&self, id: u64) -> Option<&(ServerLine, Given)> {
        self.lines.iter().find(|(line, _)| line.id == id)
    }

    /// Takes one line of a file; `false` if it is not about members.
    fn take(&mut self, name: &str, given: &Given, multi_address: bool) -> Result<bool, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{name}: For input string: \"{text}\""));
        // A name without a dot is taken whole, as by ZooKeeper, which then finds no number in it.
        let id = name.split_once('.').map_or(name, |(_, id)| id);
        if let Some(id) = name.strip_prefix("server.") {
            let line = servers::parse_server(id, &given.value)?;
            if line.addresses.len() > 1 && !multi_address {
                let problem = "Multiple address feature is disabled, but multiple addresses were specified for sid";
                return Err(format!("{problem} {}; set multiAddress.enabled=true", line.id));
            }
            self.lines.retain(|(known, _)| known.id != line.id);
            self.lines.push((line, given.clone()));
        } else if name.starts_with("group") {
            let id = id.parse().map_err(|_| format!("{name}: For input string: \"{id}\""))?;
            let members = given.value.trim_end_matches(':').split(':').map(number).collect::<Result<Vec<_>, _>>()?;
            self.groups.push((id, members));
        } else if name.starts_with("weight") {
            self.weights.push((number(id)?, number(&given.value)?));
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Any group or weight puts quorums in their hands, and then every participant has to be in one group.
    fn check_groups(&self) -> Result<(), String> {
        if self.groups.is_empty() && self.weights.is_empty() {
            return Ok(());
        }
        let mut grouped = BTreeSet::new();
        for id in self.groups.iter().flat_map(|(_, members)| members) {
            if !grouped.insert(*id) {
                return Err(format!("Server {id}is in multiple groups"));
            }
        }
        let is_voter = |id: u64| self.line(id).is_some_and(|(line, _)| line.role == Role::Participant);
        if let Some((line, _)) = self.lines.iter().find(|(line, _)| is_voter(line.id) && !grouped.contains(&line.id)) {
            return Err(format!("Server {}is not in a group", line.id));
        }
        let has_weight = |id: u64| is_voter(id) || self.weights.iter().any(|(weighed, _)| *weighed == id);
        match grouped.iter().find(|id| !has_weight(**id)) {
            Some(id) => Err(format!("server {id} is in a group, and neither a participant nor given a weight")),
            None => Ok(()),
        }
    }
}

pub(super) fn read(reader: &mut Reader<'_>, config: &mut Config) -> Result<(), Fatal> {
    if let Some(algorithm) = reader.strict::<i32>("electionAlg")?
        && algorithm != 3
    {
        return Err(reader.fatal_key("electionAlg", "Invalid electionAlg value. Only 3 is supported.".into()));
    }
    let peer_type = match reader.gathered.get("peerType") {
        None => None,
        Some(given) => Some(servers::parse_role(&given.value).map_err(|problem| reader.fatal(given, problem))?),
    };
    let standalone_enabled = reader.strict_truth("standaloneEnabled")?.unwrap_or(true);
    let multi_address = reader.is_true("multiAddress.enabled");
    let mut members = Members::default();
    for (name, given) in lines_of_file(reader) {
        members.take(name, given, multi_address).map_err(|problem| reader.fatal(given, problem))?;
    }
    dynamic_file(reader, &mut members, multi_address)?;
    members.check_groups().map_err(|problem| reader.fatal_file(problem))?;

    let is_ensemble = match members.count(Role::Participant) {
        0 if !standalone_enabled => {
            let problem = "standaloneEnabled = false then number of participants should be >0";
            return Err(reader.fatal_file(problem.into()));
        }
        0 if !members.lines.is_empty() => {
            return Err(reader.fatal_file("Observers w/o participants is an invalid configuration".into()));
        }
        0 => false,
        1 if standalone_enabled => {
            let text = "Invalid configuration, only one server specified (ignoring)";
            reader.notices.push(Notice::new(Level::Error, text.into()));
            if members.count(Role::Observer) > 0 {
                return Err(reader.fatal_file("Observers w/o quorum is an invalid configuration".into()));
            }
            false
        }
        _ => true,
    };
    let myid = read_myid(config)?;
    if is_ensemble {
        return ensemble::read(reader, config, members, myid, peer_type);
    }
    match members.lines.first() {
        Some((line, given)) => one_server(reader, config, line, given, myid),
        None if peer_type == Some(Role::Observer) => {
            Err(reader.fatal_key("peerType", "peerType=observer without any server line".into()))
        }
        None => Ok(()),
    }
}

/// What the file says. A `-D` names no member: `-Dzookeeper.server.realm` is a property that only begins like one.
fn lines_of_file<'a>(reader: &Reader<'a>) -> impl Iterator<Item = (&'a str, &'a Given)> {
    reader.gathered.iter().filter(|(_, given)| matches!(given.origin, Origin::Line(_)))
}

/// The file of `dynamicConfigFile`. Its lines then stand nowhere else.
fn dynamic_file(reader: &mut Reader<'_>, members: &mut Members, multi_address: bool) -> Result<(), Fatal> {
    let Some(given) = reader.gathered.get("dynamicConfigFile").cloned() else { return Ok(()) };
    let path = PathBuf::from(&given.value);
    let misplaced = |name: &str| ["server.", "group", "weight"].iter().any(|family| name.starts_with(family));
    if let Some((name, misplaced)) = lines_of_file(reader).find(|(name, _)| misplaced(name)) {
        return Err(reader.fatal(misplaced, format!("parameter: {name} must be in a separate dynamic config file")));
    }
    reader.warn_if_relative("dynamicConfigFile", &path);
    let at = |line, problem| Fatal::Config { file: path.clone(), line, problem };
    let bytes = super::read_file(&path)?;
    let entries = properties::parse(&bytes).map_err(|malformed| at(malformed.line, malformed.problem))?;
    if let Some(entry) = entries.iter().find(|entry| entry.key == "version") {
        return Err(at(entry.line, "dynamic file shouldn't have version inside; it belongs to the file's name".into()));
    }
    // The last of two equal keys counts, as in the other file.
    for (number, entry) in entries.iter().enumerate() {
        if entries[number + 1..].iter().any(|later| later.key == entry.key) {
            continue;
        }
        let name = entry.key.trim();
        // Only the port of a server line can be wrong later, and that is said without a line number.
        let given = Given { value: entry.value.trim().to_owned(), origin: Origin::Line(0) };
        if !members.take(name, &given, multi_address).map_err(|problem| at(entry.line, problem))? {
            return Err(at(entry.line, format!("Unrecognised parameter: {name}")));
        }
    }
    members.version = version_in_name(&path);
    unfinished_reconfiguration(reader, members.version)
}

/// `zoo.cfg.dynamic.100000000`: the zxid of the reconfiguration, in hexadecimal.
fn version_in_name(path: &Path) -> u64 {
    let name = path.to_string_lossy();
    let version = name.rsplit_once('.').and_then(|(_, suffix)| i64::from_str_radix(suffix, 16).ok());
    version.and_then(|version| u64::try_from(version).ok()).unwrap_or(0)
}

/// A reconfiguration that was proposed and of which this server doesn't know whether it was committed: until it does, it
/// may decide nothing without a quorum of those members as well.
fn unfinished_reconfiguration(reader: &Reader<'_>, version: u64) -> Result<(), Fatal> {
    let Some(file) = &reader.sources.file else { return Ok(()) };
    let mut next = file.clone().into_os_string();
    next.push(".dynamic.next");
    let next = PathBuf::from(next);
    if !next.is_file() {
        return Ok(());
    }
    let at = |line, problem| Fatal::Config { file: next.clone(), line, problem };
    let bytes = super::read_file(&next)?;
    let entries = properties::parse(&bytes).map_err(|malformed| at(malformed.line, malformed.problem))?;
    let Some(entry) = entries.iter().rev().find(|entry| entry.key == "version") else { return Ok(()) };
    match u64::from_str_radix(entry.value.trim(), 16) {
        Ok(proposed) if proposed <= version => Ok(()),
        Ok(proposed) => {
            let problem = format!(
                "a reconfiguration to version {proposed:x} was proposed and is not in force here ({version:x}); this \
                 build can't finish it, so start the server that wrote this file once more"
            );
            Err(at(entry.line, problem))
        }
        Err(_) => Err(at(entry.line, format!("{} is not a version", entry.value))),
    }
}

/// Takes over id and client port of the one server there is.
fn one_server(
    reader: &mut Reader<'_>,
    config: &mut Config,
    line: &ServerLine,
    given: &Given,
    myid: Option<i64>,
) -> Result<(), Fatal> {
    config.server_id = line.id;
    if let Some(own) = myid
        && u64::try_from(own) != Ok(line.id)
    {
        let path = config.data_dir.join("myid");
        let text = format!("{} says {own}, and the only server line has id {}", path.display(), line.id);
        reader.notices.push(Notice::new(Level::Warn, text));
    }
    client_address(reader, config, line, given)
}

/// Where clients are served, if the line says so. What the other keys say must not contradict it.
pub(super) fn client_address(
    reader: &Reader<'_>,
    config: &mut Config,
    line: &ServerLine,
    given: &Given,
) -> Result<(), Fatal> {
    let Some((host, port)) = &line.client else { return Ok(()) };
    let host = match host {
        Some(host) => reader.resolve(&Given { value: host.clone(), origin: given.origin })?,
        None => None,
    };
    if let Some(static_port) = reader.strict_port("clientPort")? {
        let address = match reader.gathered.get("clientPortAddress") {
            Some(address) => reader.resolve(address)?,
            None => None,
        };
        if static_port != *port || address.is_some() && address != host {
            let text = |host: Option<std::net::IpAddr>, port| match host {
                Some(host) => format!("{host} port {port}"),
                None => format!("port {port}"),
            };
            let problem = format!(
                "client address for this server (id = {}) in static config file is {} and is different from client \
                 address found in dynamic file: {}",
                line.id,
                text(address, static_port),
                text(host, *port)
            );
            return Err(reader.fatal(given, problem));
        }
    }
    config.client_port = *port;
    config.client_port_address = host;
    config.client_port_from_server_line = true;
    Ok(())
}

/// The number in `myid`, if there is such a file. Blanks around it, which scripts leave there, are dropped.
fn read_myid(config: &Config) -> Result<Option<i64>, Fatal> {
    let path = config.data_dir.join("myid");
    if config.file.is_none() || !path.is_file() {
        return Ok(None);
    }
    let bytes = super::read_file(&path)?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.lines().next().unwrap_or("null").trim();
    match text.parse::<i64>() {
        Ok(own) => Ok(Some(own)),
        Err(_) => Err(Fatal::Config { file: path, line: 1, problem: format!("serverid {text} is not a number") }),
    }
}
