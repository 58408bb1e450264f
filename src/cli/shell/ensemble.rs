//! The commands about the servers and the session.
//!
//! Runs on: the shell's thread.

use super::commands::{Call, Failure, Outcome};
use super::{out, print};
use crate::client::Watch;

pub fn version(_: &Call<'_>) -> Outcome {
    out(format_args!("ZooKeeper CLI version: {}\n", crate::admin::VERSION));
    Ok(())
}

pub fn who_am_i(call: &Call<'_>) -> Outcome {
    let mut identities = call.client.who_am_i().wait()?;
    identities.sort_by(|a, b| (&a.scheme, &a.user).cmp(&(&b.scheme, &b.user)));
    out(format_args!("Auth scheme: User\n"));
    for identity in identities {
        out(format_args!("{}: {}\n", identity.scheme, identity.user));
    }
    Ok(())
}

pub fn config(call: &Call<'_>) -> Outcome {
    let watch = if call.given.has("w") { Watch::Default } else { Watch::No };
    let (data, stat) = call.client.get_config(watch).wait()?;
    let body = String::from_utf8_lossy(&data.unwrap_or_default()).into_owned();
    if call.given.has("c") {
        out(format_args!("{}\n", client_form(&body)));
    } else {
        out(format_args!("{body}\n"));
    }
    if call.given.has("s") {
        out(format_args!("{}", print::stat(&stat, call.zone)));
    }
    Ok(())
}

/// The version, and what clients connect to: `100000000 0.0.0.0:2181,0.0.0.0:2181`.
fn client_form(body: &str) -> String {
    let mut version = "";
    let mut servers = Vec::new();
    for line in body.lines() {
        match line.split_once('=') {
            Some(("version", value)) => version = value,
            Some((key, value)) if key.starts_with("server.") => {
                servers.extend(value.rsplit_once(';').map(|(_, address)| address));
            }
            _ => {}
        }
    }
    format!("{version} {}", servers.join(","))
}

pub fn reconfig(call: &Call<'_>) -> Outcome {
    let given = &call.given;
    let (file, members) = (given.value("file"), given.values("members"));
    let (add, remove) = (given.values("add"), given.values("remove"));
    let incremental = add.is_some() || remove.is_some();
    let full = file.is_some() || members.is_some();
    if incremental && full {
        return Err(Failure::new(
            "Can't use -file or -members together with -add or -remove (mixing incremental and non-incremental modes \
             is not allowed)",
        ));
    }
    if file.is_some() && members.is_some() {
        return Err(Failure::new("Can't use -file and -members together (conflicting non-incremental modes)"));
    }
    if !incremental && !full {
        return Err(Failure::new(&*call.usage));
    }
    let version = match given.value("v") {
        None => -1,
        Some(text) => i64::from_str_radix(text, 16)
            .map_err(|_| Failure::new("-v must be followed by a long (configuration version)"))?,
    };
    let members = match file {
        Some(file) => Some(members_of(file)?),
        None => members,
    };
    let lower = |text: Option<String>| text.map(|text| text.to_lowercase());
    let (add, remove, members) = (lower(add), lower(remove), lower(members));
    let changed = call.client.reconfig(add.as_deref(), remove.as_deref(), members.as_deref(), version).wait()?;
    let (data, stat) = changed;
    out(format_args!("Committed new configuration:\n{}\n", String::from_utf8_lossy(&data.unwrap_or_default())));
    if given.has("s") {
        out(format_args!("{}", print::stat(&stat, call.zone)));
    }
    Ok(())
}

/// The server lines of a dynamic configuration file, joined with commas.
fn members_of(file: &str) -> Result<String, Failure> {
    let text =
        std::fs::read_to_string(file).map_err(|error| Failure::new(format!("Error processing {file}: {error}")))?;
    let servers: Vec<&str> = text.lines().map(str::trim).filter(|line| line.starts_with("server.")).collect();
    Ok(servers.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_form_has_the_version_and_the_client_addresses() {
        let body = "server.1=10.0.0.1:2888:3888:participant;0.0.0.0:2181\nserver.2=10.0.0.2:2888:3888:observer;h:7\n\
                    version=100000000";
        assert_eq!(client_form(body), "100000000 0.0.0.0:2181,h:7");
        assert_eq!(client_form(""), " ");
    }
}
