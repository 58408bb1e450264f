//! The shell's commands: names, usage and options, and what they have in common when they fail.
//!
//! One table, in the order in which usage lists it. What a command does is in `nodes`, `access`, `quota` and `ensemble`;
//! what needs no connection (`history`, `connect`, ...) is in the session itself.
//!
//! Runs on: the shell's thread.

use super::options::{Given, Known};
use super::zone::Zone;
use super::{access, ensemble, nodes, quota};
use crate::client::{Client, Error};
use crate::wire::ErrorCode;

/// A command's end that is not success.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// For stderr.
    pub text: String,
    pub status: u8,
}

impl Failure {
    pub fn new(text: impl Into<String>) -> Failure {
        Failure { text: text.into(), status: 1 }
    }
}

/// With zkCli's texts, which scripts look for.
impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let Error::Code { code, path } = &error else { return Failure::new(error.to_string()) };
        let path = path.as_deref().unwrap_or("null");
        Failure::new(match *code {
            ErrorCode::NO_NODE => format!("Node does not exist: {path}"),
            ErrorCode::NODE_EXISTS => format!("Node already exists: {path}"),
            ErrorCode::NOT_EMPTY => format!("Node not empty: {path}"),
            ErrorCode::BAD_VERSION => format!("version No is not valid : {path}"),
            ErrorCode::NO_AUTH => format!("Insufficient permission : {path}"),
            ErrorCode::INVALID_ACL => format!("Acl is not valid : {path}"),
            ErrorCode::BAD_ARGUMENTS => format!("Arguments are not valid : {path}"),
            ErrorCode::NO_CHILDREN_FOR_EPHEMERALS => format!("Ephemerals cannot have children: {path}"),
            ErrorCode::NOT_READ_ONLY => format!("Not a read-only call: {path}"),
            ErrorCode::QUOTA_EXCEEDED => format!("Quota has exceeded : {path}"),
            ErrorCode::RECONFIG_IN_PROGRESS => "Another reconfiguration is in progress; only one at a time".into(),
            ErrorCode::NEW_CONFIG_NO_QUORUM => {
                "No quorum of the new configuration is connected and up to date; start its servers first".into()
            }
            _ => error.to_string(),
        })
    }
}

pub type Outcome = Result<(), Failure>;

/// What a command works with.
pub struct Call<'a> {
    pub client: &'a Client,
    pub zone: &'a Zone,
    pub given: Given,
    pub usage: String,
}

impl Call<'_> {
    /// The word at `index`, whose presence was checked against `Command::words`.
    pub fn word(&self, index: usize) -> &str {
        self.given.word(index).unwrap_or_default()
    }

    /// An option's number; `absent` without the option.
    pub fn number(&self, option: &str, absent: i32) -> Result<i32, Failure> {
        match self.given.value(option) {
            None => Ok(absent),
            Some(text) => text.parse().map_err(|_| Failure::new(format!("-{option}: {text:?} is not a number"))),
        }
    }
}

pub struct Command {
    pub name: &'static str,
    /// What follows the name.
    pub usage: &'static str,
    /// More of it, where the command is called wrongly.
    pub explanation: &'static str,
    pub options: Known,
    /// Words that have to be there.
    pub words: usize,
    /// `None`: the session itself does it.
    pub run: Option<fn(&Call<'_>) -> Outcome>,
}

impl Command {
    pub fn usage_line(&self) -> String {
        format!("{} {}", self.name, self.usage)
    }
}

macro_rules! commands {
    ($($name:literal $usage:literal $options:tt $words:literal $run:expr;)*) => {
        &[$(Command { name: $name, usage: $usage, explanation: explanation($name), options: &$options, words: $words, run: $run },)*]
    };
}

pub const COMMANDS: &[Command] = commands! {
    "addWatch" "[-m mode] path # optional mode is one of [PERSISTENT, PERSISTENT_RECURSIVE] - default is PERSISTENT_RECURSIVE" [("m", true)] 1 Some(nodes::add_watch);
    "addauth" "scheme auth" [] 1 Some(access::add_auth);
    "close" "" [] 0 None;
    "config" "[-c] [-w] [-s]" [("c", false), ("w", false), ("s", false)] 0 Some(ensemble::config);
    "connect" "host:port" [] 0 None;
    "create" "[-s] [-e] [-c] [-t ttl] path [data] [acl]" [("s", false), ("e", false), ("c", false), ("t", true)] 1 Some(nodes::create);
    "delete" "[-v version] path" [("v", true)] 1 Some(nodes::delete);
    "deleteall" "path [-b batch size]" [("b", true)] 1 Some(nodes::delete_all);
    "delquota" "[-n|-b|-N|-B] path" [("n", false), ("b", false), ("N", false), ("B", false)] 1 Some(quota::delete);
    "get" "[-s] [-w] [-b] [-x] path" [("s", false), ("w", false), ("b", false), ("x", false)] 1 Some(nodes::get);
    "getAcl" "[-s] path" [("s", false)] 1 Some(access::get_acl);
    "getAllChildrenNumber" "path" [] 1 Some(nodes::get_all_children_number);
    "getEphemerals" "path" [] 0 Some(nodes::get_ephemerals);
    "history" "" [] 0 None;
    "listquota" "path" [] 1 Some(quota::list);
    "ls" "[-s] [-w] [-R] path" [("?", false), ("s", false), ("w", false), ("R", false)] 1 Some(nodes::ls);
    "printwatches" "on|off" [] 0 None;
    "quit" "" [] 0 None;
    "reconfig" "[-s] [-v version] [[-file path] | [-members serverID=host:port1:port2;port3[,...]*]] | [-add serverId=host:port1:port2;port3[,...]]* [-remove serverId[,...]*]" [("s", false), ("v", true), ("file", true), ("members", true), ("add", true), ("remove", true)] 0 Some(ensemble::reconfig);
    "redo" "cmdno" [] 0 None;
    "removewatches" "path [-c|-d|-a] [-l]" [("c", false), ("d", false), ("p", false), ("r", false), ("a", false), ("l", false)] 1 Some(nodes::remove_watches);
    "set" "path data [-s] [-v version] [-b]" [("s", false), ("v", true), ("b", false)] 2 Some(nodes::set);
    "setAcl" "[-s] [-v version] [-R] path acl" [("s", false), ("v", true), ("R", false)] 2 Some(access::set_acl);
    "setquota" "-n|-b|-N|-B val path" [("n", true), ("b", true), ("N", true), ("B", true)] 1 Some(quota::set);
    "stat" "[-w] path" [("w", false)] 1 Some(nodes::stat);
    "sync" "path" [] 1 Some(nodes::sync);
    "version" "" [] 0 Some(ensemble::version);
    "whoami" "" [] 0 Some(ensemble::who_am_i);
};

/// Forms that other versions have, and that this shell keeps: the command that it runs, and whether with `-s`.
pub const OLD_FORMS: [(&str, &str); 2] = [("ls2", "ls"), ("rmr", "deleteall")];

pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// All commands, as zkCli lists them.
pub fn usage() -> String {
    let mut text = "ZooKeeper -server host:port -client-configuration properties-file cmd args\n".to_owned();
    for command in COMMANDS {
        text += &format!("\t{}\n", command.usage_line());
    }
    text
}

const fn explanation(name: &str) -> &'static str {
    match name.as_bytes() {
        b"get" => {
            "\n -b   Output data in base64 format\n -s   Print znode stats additionally\n \
             -w   Watch for changes on the znode\n -x   Output data in hexdump format\n"
        }
        b"set" => {
            "\n -b         Supply data in base64 format\n -s         Print znode stats additionally\n \
             -v <arg>   Set with an expected version\n"
        }
        b"version" => "\n",
        _ => "",
    }
}
