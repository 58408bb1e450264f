//! IP addresses as ZooKeeper reads them in ACLs and shows them (upstream: `IPAuthenticationProvider`).

use super::AuthIds;
use crate::random::FastSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A peer's address as an id: dotted for IPv4 (mapped or not), else eight hex groups, uncompressed, as Java prints it.
pub fn address_text(peer: IpAddr) -> String {
    match peer.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().map(|group| format!("{group:x}")).join(":"),
    }
}

/// The addresses that a network is looked through for.
pub(super) fn peers(ids: &AuthIds) -> Vec<IpAddr> {
    ids.iter().filter(|id| id.scheme == "ip").filter_map(|id| parse(&id.id)).collect()
}

/// What an ACL calls a network: an address, and how many of its bits count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Network(IpAddr, u32);

impl Network {
    /// Never across families.
    pub(super) fn contains(self, peer: IpAddr) -> bool {
        key(self.0, self.1) == key(peer, self.1)
    }
}

/// What addresses of one network have in common, and those of no other that counts as many bits.
fn key(address: IpAddr, bits: u32) -> (bool, u32, u128) {
    let (value, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32u32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    // None of the bits: a shift by all of a number's width has no meaning.
    let common = if bits == 0 { 0 } else { value >> width.saturating_sub(bits) };
    (address.is_ipv4(), bits, common)
}

/// Many networks. To ask for an address costs as much as there are different numbers of bits.
#[derive(Default)]
pub(super) struct Networks {
    keys: FastSet<(bool, u32, u128)>,
    /// Of which family, and how many bits.
    kinds: Vec<(bool, u32)>,
}

impl Networks {
    /// Nothing, if it is none.
    pub(super) fn add(&mut self, id: &str) {
        let Some(Network(address, bits)) = parse_network(id) else { return };
        let kind = (address.is_ipv4(), bits);
        if self.keys.insert(key(address, bits)) && !self.kinds.contains(&kind) {
            self.kinds.push(kind);
        }
    }

    pub(super) fn contain(&self, peer: &str) -> bool {
        if self.kinds.is_empty() {
            return false;
        }
        let Some(peer) = parse(peer) else { return false };
        let mut kinds = self.kinds.iter().filter(|(is_v4, _)| *is_v4 == peer.is_ipv4());
        kinds.any(|&(_, bits)| self.keys.contains(&key(peer, bits)))
    }
}

/// `address` or `address/bits`. `None` if it is neither.
pub(super) fn parse_network(id: &str) -> Option<Network> {
    let (text, bits) = match id.split_once('/') {
        Some((text, bits)) => (text, Some(bits)),
        None => (id, None),
    };
    let address = parse(text)?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => all,
        Some(bits) => u32::try_from(bits.parse::<i32>().ok()?).ok().filter(|bits| *bits <= all)?,
    };
    Some(Network(address, bits))
}

/// IPv4 as four decimal parts, where leading zeros mean nothing; IPv6 as hex groups without an embedded IPv4 form. Either
/// may have a sign before each number. Digits of other scripts, which Java takes too, are none here.
fn parse(text: &str) -> Option<IpAddr> {
    if let Some(v4) = parse_v4(text) {
        return Some(IpAddr::V4(v4));
    }
    parse_v6(text).map(IpAddr::V6)
}

fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    /// How many there are, from the front of `into`.
    fn groups(text: &str, into: &mut [u16]) -> Option<usize> {
        if text.is_empty() {
            return Some(0);
        }
        let mut count = 0;
        for group in text.split(':') {
            // A number of four characters; of one below zero the last two bytes count.
            let number = Some(group).filter(|group| group.len() <= 4)?;
            *into.get_mut(count)? = i32::from_str_radix(number, 16).ok()? as u16;
            count += 1;
        }
        Some(count)
    }
    let mut all = [0; 8];
    match text.split_once("::") {
        None => (groups(text, &mut all)? == all.len()).then_some(())?,
        Some((head, tail)) => {
            let mut last = [0; 7];
            let front = groups(head, &mut all[..7])?;
            let back = groups(tail, &mut last[..7 - front])?;
            all[8 - back..].copy_from_slice(&last[..back]);
        }
    }
    Some(all.into())
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.');
    let mut octets = [0u8; 4];
    for octet in &mut octets {
        *octet = u8::try_from(parts.next()?.parse::<i32>().ok()?).ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}
