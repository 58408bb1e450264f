//! IP addresses as ZooKeeper reads them in ACLs and shows them (upstream: `IPAuthenticationProvider`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A peer's address as an id: dotted for IPv4 (mapped or not), else eight hex groups, uncompressed, as Java prints it.
pub fn address_text(peer: IpAddr) -> String {
    match peer.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().map(|group| format!("{group:x}")).join(":"),
    }
}

/// `address` or `address/bits`: the network and how many of its bits count. `None` if it is neither.
pub(super) fn parse_network(id: &str) -> Option<(IpAddr, u32)> {
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
    Some((address, bits))
}

/// Whether the address of a connection is in the network of an ACL. Never across families.
pub(super) fn matches(peer: &str, network: &str) -> bool {
    let (Some(peer), Some((network, bits))) = (parse(peer), parse_network(network)) else { return false };
    match (peer, network) {
        (IpAddr::V4(peer), IpAddr::V4(network)) => {
            let differing = peer.to_bits() ^ network.to_bits();
            bits == 0 || differing >> (32 - bits) == 0
        }
        (IpAddr::V6(peer), IpAddr::V6(network)) => {
            let differing = peer.to_bits() ^ network.to_bits();
            bits == 0 || differing >> (128 - bits) == 0
        }
        _ => false,
    }
}

/// IPv4 as four decimal parts, where leading zeros mean nothing; IPv6 as hex groups without an embedded IPv4 form.
fn parse(text: &str) -> Option<IpAddr> {
    if let Some(v4) = parse_v4(text) {
        return Some(IpAddr::V4(v4));
    }
    if text.contains('.') {
        return None;
    }
    text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.');
    let mut octets = [0u8; 4];
    for octet in &mut octets {
        *octet = u8::try_from(parts.next()?.parse::<i32>().ok()?).ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}
