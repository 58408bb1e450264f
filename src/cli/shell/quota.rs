//! The commands on quotas. A quota is two znodes below `/zookeeper/quota` that the client makes: the limits, and what is
//! used of them, which the server keeps.
//!
//! Runs on: the shell's thread.

use super::commands::{Call, Failure, Outcome};
use super::{err, nodes, out};
use crate::client::{Client, CreateMode, Error, Watch, check_path, open_acl};
use crate::wire::ErrorCode;

const ROOT: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";

/// Limits, or usage; -1 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Track {
    count: i64,
    bytes: i64,
    count_hard: i64,
    byte_hard: i64,
}

impl Track {
    const NONE: Track = Track { count: -1, bytes: -1, count_hard: -1, byte_hard: -1 };

    /// What can't be read is no limit.
    fn read(text: &str) -> Track {
        let mut track = Track::NONE;
        for item in text.split([',', ';']) {
            let mut parts = item.split('=').filter(|part| !part.is_empty());
            let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
            let value = value.parse().unwrap_or(-1);
            if let Some(field) = track.field(key) {
                *field = value;
            }
        }
        track
    }

    fn field(&mut self, key: &str) -> Option<&mut i64> {
        Some(match key {
            "count" | "n" => &mut self.count,
            "bytes" | "b" => &mut self.bytes,
            "countHardLimit" | "N" => &mut self.count_hard,
            "byteHardLimit" | "B" => &mut self.byte_hard,
            _ => return None,
        })
    }

    fn write(&self) -> String {
        format!(
            "count={},bytes={}=;byteHardLimit={};countHardLimit={}",
            self.count, self.bytes, self.byte_hard, self.count_hard
        )
    }
}

fn quota_path(path: &str) -> String {
    if path == "/" { ROOT.into() } else { format!("{ROOT}{path}") }
}

/// The text of a node; `None` if there is none.
fn text(client: &Client, path: &str) -> Result<Option<String>, Failure> {
    match client.get_data(path, Watch::No).wait() {
        Ok((data, _)) => Ok(Some(String::from_utf8_lossy(&data.unwrap_or_default()).into_owned())),
        Err(error) if error.is(ErrorCode::NO_NODE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

const FIELDS: [&str; 4] = ["n", "b", "N", "B"];

fn one_of(call: &Call<'_>) -> Result<Option<&'static str>, Failure> {
    let mut chosen = FIELDS.into_iter().filter(|field| call.given.has(field));
    let first = chosen.next();
    match (first, chosen.next()) {
        (Some(first), Some(second)) => Err(Failure::new(format!(
            "org.apache.commons.cli.AlreadySelectedException: The option '{second}' was specified but an option from \
             this group has already been selected: '{first}'"
        ))),
        _ => Ok(first),
    }
}

pub fn list(call: &Call<'_>) -> Outcome {
    let path = call.word(0);
    // Built as zkCli builds it, also from what is no path.
    let node = format!("{ROOT}{path}");
    err(format_args!("absolute path is {node}/{LIMITS}\n"));
    let limits = if check_path(&node).is_ok() { text(call.client, &format!("{node}/{LIMITS}"))? } else { None };
    let Some(limits) = limits else {
        err(format_args!("quota for {path} does not exist.\n"));
        return Ok(());
    };
    out(format_args!("Output quota for {path} {limits}\n"));
    if let Some(stats) = text(call.client, &format!("{node}/{STATS}"))? {
        out(format_args!("Output stat for {path} {stats}\n"));
    }
    Ok(())
}

pub fn set(call: &Call<'_>) -> Outcome {
    let Some(field) = one_of(call)? else {
        return Err(Failure::new(
            "org.apache.commons.cli.MissingOptionException: Missing required option: [-n num soft quota, \
             -b bytes soft quota, -N num hard quota, -B bytes hard quota]",
        ));
    };
    let Ok(value) = call.given.value(field).unwrap_or_default().parse::<i64>() else {
        err(format_args!("NumberFormatException happens when parsing the option value\n"));
        return Ok(());
    };
    if matches!(field, "n" | "N") && value <= 0 {
        err(format_args!("the num quota must be greater than zero\n"));
        return Ok(());
    }
    if value < 0 {
        err(format_args!("the bytes quota must be greater than or equal to zero\n"));
        return Ok(());
    }
    let (client, path) = (call.client, call.word(0));
    match client.exists(path, Watch::No).wait() {
        Err(error) if error.is(ErrorCode::NO_NODE) => return Err(Failure::new(format!("{path} does not exist."))),
        other => other?,
    };
    if path == "/" {
        return Err(Failure::new("Path must not end with / character"));
    }
    let node = quota_path(path);
    refuse_nested(client, path)?;

    let mut made = String::from(ROOT);
    for name in path[1..].split('/') {
        made = nodes::join(&made, name);
        make(client, &made, None)?;
    }
    let limits_path = format!("{node}/{LIMITS}");
    let old = text(client, &limits_path)?;
    let mut limits = old.as_deref().map_or(Track::NONE, Track::read);
    *limits.field(field).expect("one of the four") = value;
    let written = limits.write();
    make(client, &limits_path, Some(written.as_bytes()))?;
    make(client, &format!("{node}/{STATS}"), Some(Track { count: 0, bytes: 0, ..Track::NONE }.write().as_bytes()))?;
    if old.is_some() {
        client.set_data(&limits_path, Some(written.as_bytes()), -1).wait()?;
    }
    let used = text(client, &format!("{node}/{STATS}"))?.map_or(Track::NONE, |stats| Track::read(&stats));
    warn("count", limits.count, limits.count_hard, used.count);
    warn("bytes", limits.bytes, limits.byte_hard, used.bytes);
    Ok(())
}

fn warn(what: &str, soft: i64, hard: i64, used: i64) {
    if [soft, hard].iter().any(|limit| *limit > -1 && *limit < used) {
        out(format_args!("[Warning]: the {what} quota you create is less than the existing {what}:{used}\n"));
    }
}

/// A node that may be there already.
fn make(client: &Client, path: &str, data: Option<&[u8]>) -> Outcome {
    match client.create(path, data, &open_acl(), CreateMode::PERSISTENT).wait() {
        Err(error) if !error.is(ErrorCode::NODE_EXISTS) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Only the deepest quota counts for a node, so one inside another would hide it.
fn refuse_nested(client: &Client, path: &str) -> Outcome {
    let mut parent = path;
    while let Some(at) = parent.rfind('/').filter(|at| *at > 0) {
        parent = &parent[..at];
        if text(client, &format!("{}/{LIMITS}", quota_path(parent)))?.is_some() {
            return Err(Failure::new(format!("{path} has a parent {parent} which has a quota")));
        }
    }
    let own = quota_path(path);
    let found = nodes::visit(client, &own, &Watch::No, |node| {
        match node.strip_suffix(LIMITS).and_then(|node| node.strip_suffix('/')) {
            Some(child) if child != own => {
                let child = &child[ROOT.len()..];
                Err(Failure::new(format!("{path} has a child {child} which has a quota")))
            }
            _ => Ok(()),
        }
    });
    match found {
        Err(failure) if failure == no_node(&own) => Ok(()),
        other => other,
    }
}

fn no_node(path: &str) -> Failure {
    Error::Code { code: ErrorCode::NO_NODE, path: Some(path.into()) }.into()
}

pub fn delete(call: &Call<'_>) -> Outcome {
    let field = one_of(call)?;
    let (client, path) = (call.client, call.word(0));
    let mut node = format!("{ROOT}{path}");
    let limits_path = format!("{node}/{LIMITS}");
    let limits = if check_path(&node).is_ok() && path != "/" { text(client, &limits_path)? } else { None };
    let Some(limits) = limits else {
        out(format_args!("Quota does not exist for {path}\n"));
        return Ok(());
    };
    if let Some(field) = field {
        let mut limits = Track::read(&limits);
        *limits.field(field).expect("one of the four") = -1;
        client.set_data(&limits_path, Some(limits.write().as_bytes()), -1).wait()?;
        return Ok(());
    }
    for name in [LIMITS, STATS] {
        remove(client, &format!("{node}/{name}"))?;
    }
    // What was made on the way to the quota goes too, where nothing else needs it.
    while node != ROOT && remove(client, &node)? {
        node.truncate(node.rfind('/').unwrap_or(0));
    }
    Ok(())
}

/// Whether the node is gone; it is not if it has children.
fn remove(client: &Client, path: &str) -> Result<bool, Failure> {
    match client.delete(path, -1).wait() {
        Err(error) if error.is(ErrorCode::NOT_EMPTY) => Ok(false),
        Err(error) if !error.is(ErrorCode::NO_NODE) => Err(error.into()),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text was written by zkCli 3.9.5.
    #[test]
    fn limits_survive_their_text() {
        let text = "count=6,bytes=100=;byteHardLimit=5000;countHardLimit=50";
        let track = Track::read(text);
        assert_eq!(track, Track { count: 6, bytes: 100, count_hard: 50, byte_hard: 5000 });
        assert_eq!(track.write(), text);
        assert_eq!(Track::read("count=2,bytes=5"), Track { count: 2, bytes: 5, ..Track::NONE });
        assert_eq!(Track::read("nonsense,=,count="), Track::NONE);
    }
}
