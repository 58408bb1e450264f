//! A network of its own for each server: a namespace with one interface on a bridge that the test's own side is on too.
//!
//! A direction between two servers is cut by teaching the one a hardware address for the other that nobody has: what it
//! sends is lost without a word, as on a broken switch. Clients reach all servers all the time.
//!
//! Needs root and `ip`. Everything is named after this process and taken away when it is dropped.
//!
//! Runs on: the test's thread.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

pub struct Network {
    tag: String,
    addresses: Vec<Ipv4Addr>,
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Network {
    /// For so many servers; the error says what this machine does not allow.
    pub fn new(servers: usize) -> Result<Network, String> {
        let id = std::process::id();
        let tag = format!("o{id:x}");
        let (high, low) = ((id >> 6) as u8, (id << 2) as u8 & 0xfc);
        let address = |last: usize| Ipv4Addr::new(10, high, low, last as u8);
        let network = Network { tag: tag.clone(), addresses: (1..=servers).map(address).collect() };
        ip(&format!("link add {tag} type bridge"))?;
        ip(&format!("addr add {}/24 dev {tag}", address(254)))?;
        ip(&format!("link set {tag} up"))?;
        for at in 0..servers {
            let space = network.space(at);
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {tag}v{at} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {tag}v{at} master {tag} up"))?;
            ip(&format!("-n {space} addr add {}/24 dev eth0", network.addresses[at]))?;
            ip(&format!("-n {space} link set lo up"))?;
            ip(&format!("-n {space} link set eth0 up"))?;
        }
        Ok(network)
    }

    fn space(&self, at: usize) -> String {
        format!("{}n{at}", self.tag)
    }

    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        self.addresses.clone()
    }

    /// What a server's command has to stand behind.
    pub fn under(&self, at: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.space(at)].map(String::from).into()
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub fn cut(&self, from: usize, to: usize) {
        let (space, address) = (self.space(from), self.addresses[to]);
        let set = ip(&format!("-n {space} neigh replace {address} lladdr 02:00:00:00:00:99 nud permanent dev eth0"));
        set.expect("a neighbour is set");
    }

    pub fn heal(&self, from: usize, to: usize) {
        // It may not have been cut.
        let _ = ip(&format!("-n {} neigh del {} dev eth0", self.space(from), self.addresses[to]));
    }

    pub fn heal_all(&self) {
        for from in 0..self.addresses.len() {
            (0..self.addresses.len()).filter(|&to| to != from).for_each(|to| self.heal(from, to));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A namespace takes its interfaces with it, when its last process has ended.
        for at in 0..self.addresses.len() {
            let _ = ip(&format!("netns del {}", self.space(at)));
            let _ = ip(&format!("link del {}v{at}", self.tag));
        }
        let _ = ip(&format!("link del {}", self.tag));
    }
}
