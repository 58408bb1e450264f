//! What the lines about an ensemble mean for a server that is alone.
//!
//! One participant with `standaloneEnabled=true` (the default) runs as if there were no server line, as ZooKeeper does
//! with a line at ERROR; HBase and the official container image write such files. Its client port may stand in the
//! server line only. Anything that asks for a quorum stops the start until there are ensembles.
//!
//! Runs on: the starting thread.

use super::gather::{Given, Origin};
use super::read::Reader;
use super::servers::{self, Role, ServerLine};
use super::values::Config;
use super::{Level, Notice, properties};
use crate::fatal::Fatal;
use std::path::PathBuf;

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
    let mut lines = server_lines(reader)?;
    dynamic_file(reader, &mut lines)?;

    let participants = lines.iter().filter(|(line, _)| line.role == Role::Participant).count();
    let observers = lines.len() - participants;
    match participants {
        0 if !standalone_enabled => {
            Err(reader.fatal_file("standaloneEnabled = false then number of participants should be >0".into()))
        }
        0 if observers > 0 => Err(reader.fatal_file("Observers w/o participants is an invalid configuration".into())),
        0 => {
            if peer_type == Some(Role::Observer) {
                return Err(reader.fatal_key("peerType", "peerType=observer without any server line".into()));
            }
            Ok(())
        }
        1 if standalone_enabled => {
            let text = "Invalid configuration, only one server specified (ignoring)";
            reader.notices.push(Notice::new(Level::Error, text.into()));
            if observers > 0 {
                return Err(reader.fatal_file("Observers w/o quorum is an invalid configuration".into()));
            }
            match lines.into_iter().next() {
                Some((line, given)) => one_server(reader, config, &line, &given),
                None => Ok(()),
            }
        }
        count => {
            let problem = format!("{count} servers form an ensemble, and this build runs standalone servers only");
            Err(reader.fatal_file(problem))
        }
    }
}

fn server_lines(reader: &Reader<'_>) -> Result<Vec<(ServerLine, Given)>, Fatal> {
    let mut lines = Vec::new();
    for (name, given) in reader.gathered.iter() {
        let Some(id) = name.strip_prefix("server.") else { continue };
        let line = servers::parse_server(id, &given.value).map_err(|problem| reader.fatal(given, problem))?;
        lines.push((line, given.clone()));
    }
    Ok(lines)
}

/// The file of `dynamicConfigFile`. Its lines then stand nowhere else.
fn dynamic_file(reader: &mut Reader<'_>, lines: &mut Vec<(ServerLine, Given)>) -> Result<(), Fatal> {
    let Some(given) = reader.gathered.get("dynamicConfigFile").cloned() else { return Ok(()) };
    let path = PathBuf::from(&given.value);
    let misplaced = |name: &str| ["server.", "group", "weight"].iter().any(|family| name.starts_with(family));
    if let Some((name, misplaced)) = reader.gathered.iter().find(|(name, _)| misplaced(name)) {
        return Err(reader.fatal(misplaced, format!("parameter: {name} must be in a separate dynamic config file")));
    }
    reader.warn_if_relative("dynamicConfigFile", &path);
    let at = |line, problem| Fatal::Config { file: path.clone(), line, problem };
    let bytes = super::read_file(&path)?;
    let entries = properties::parse(&bytes).map_err(|malformed| at(malformed.line, malformed.problem))?;
    for entry in entries {
        let (name, value) = (entry.key.trim(), entry.value.trim());
        if let Some(id) = name.strip_prefix("server.") {
            let line = servers::parse_server(id, value).map_err(|problem| at(entry.line, problem))?;
            // The last of two equal keys counts, as in the other file.
            lines.retain(|(known, _)| known.id != line.id);
            // Only the port of the line can be wrong later, and that is said without a line number.
            lines.push((line, Given { value: value.to_owned(), origin: Origin::Line(0) }));
        } else if !(name.starts_with("group") || name.starts_with("weight") || name == "version") {
            return Err(at(entry.line, format!("Unrecognised parameter: {name}")));
        }
    }
    Ok(())
}

/// Takes over id and client port of the one server there is.
fn one_server(reader: &mut Reader<'_>, config: &mut Config, line: &ServerLine, given: &Given) -> Result<(), Fatal> {
    config.server_id = line.id;
    check_myid(reader, config, line.id)?;
    let Some((host, port)) = &line.client else { return Ok(()) };
    match reader.strict_port("clientPort")? {
        None => {
            config.client_port = *port;
            config.client_port_from_server_line = true;
            if let Some(host) = host {
                let address = Given { value: host.clone(), origin: given.origin };
                config.client_port_address = reader.resolve(&address)?;
            }
            Ok(())
        }
        Some(static_port) if static_port == *port => Ok(()),
        Some(static_port) => {
            let problem = format!(
                "client address for this server (id = {}) in static config file is port {static_port}, and is \
                 different from client address found in dynamic file: port {port}",
                line.id
            );
            Err(reader.fatal(given, problem))
        }
    }
}

/// A standalone server needs no `myid`; one that is there has to be a number, and should be the one of the line.
fn check_myid(reader: &mut Reader<'_>, config: &Config, id: u64) -> Result<(), Fatal> {
    let path = config.data_dir.join("myid");
    if !path.is_file() {
        return Ok(());
    }
    let bytes = super::read_file(&path)?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.lines().next().unwrap_or_default().trim();
    match text.parse::<u64>() {
        Ok(own) if own == id => Ok(()),
        Ok(own) => {
            let text = format!("{} says {own}, and the only server line has id {id}", path.display());
            reader.notices.push(Notice::new(Level::Warn, text));
            Ok(())
        }
        Err(_) => Err(Fatal::Config { file: path, line: 1, problem: format!("serverid {text} is not a number") }),
    }
}
