//! Where a client connects and which part of the tree it sees: `host:port,host:port/chroot`.
//!
//! One string carries both, as every ZooKeeper client takes it. Paths are joined with and freed of the chroot here and
//! nowhere else.
//!
//! Runs on: any thread; pure.

use super::Error;
use crate::random::Rng;

/// The port that is meant when a server's address has none.
pub const DEFAULT_PORT: u16 = 2181;

/// A parsed connect string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectString {
    /// Host name or address (an IPv6 address without its brackets), and port.
    pub servers: Vec<(String, u16)>,
    pub chroot: Chroot,
}

impl ConnectString {
    /// Errors: `Error::Address`, saying what is wrong.
    pub fn parse(text: &str) -> Result<ConnectString, Error> {
        let (list, chroot) = match text.find('/') {
            Some(at) => (&text[..at], Chroot::new(&text[at..])?),
            None => (text, Chroot::default()),
        };
        let servers = list
            .split(',')
            .map(str::trim)
            .filter(|server| !server.is_empty())
            .map(parse_server)
            .collect::<Result<Vec<_>, Error>>()?;
        if servers.is_empty() {
            return Err(Error::Address("A HostProvider may not be empty!".into()));
        }
        Ok(ConnectString { servers, chroot })
    }

    /// Puts the servers in random order, so that many clients with the same string spread over all servers.
    pub fn shuffle(&mut self, rng: &mut Rng) {
        for last in (1..self.servers.len()).rev() {
            self.servers.swap(last, rng.below(last as u64 + 1) as usize);
        }
    }
}

fn parse_server(text: &str) -> Result<(String, u16), Error> {
    let port = |digits: &str| {
        digits.parse::<u16>().map_err(|_| Error::Address(format!("{text}: {digits:?} is not a port number")))
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) =
            rest.split_once(']').ok_or_else(|| Error::Address(format!("{text}: the bracket is not closed")))?;
        return match rest.strip_prefix(':') {
            Some(digits) => Ok((host.into(), port(digits)?)),
            None if rest.is_empty() => Ok((host.into(), DEFAULT_PORT)),
            None => Err(Error::Address(format!("{text}: a colon and a port have to follow the bracket"))),
        };
    }
    match text.rsplit_once(':') {
        Some((host, digits)) if !host.contains(':') => Ok((host.into(), port(digits)?)),
        _ => Ok((text.into(), DEFAULT_PORT)),
    }
}

/// The node that a client sees as its root; empty for the server's own root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chroot(String);

impl Chroot {
    /// `/` is no chroot. Errors: `Error::Path`.
    pub fn new(path: &str) -> Result<Chroot, Error> {
        if path.is_empty() || path == "/" {
            return Ok(Chroot::default());
        }
        check_path(path)?;
        Ok(Chroot(path.into()))
    }

    /// The server's name of the client's `path`.
    pub fn join(&self, path: &str) -> String {
        if self.0.is_empty() {
            path.into()
        } else if path == "/" {
            self.0.clone()
        } else {
            format!("{}{path}", self.0)
        }
    }

    /// The client's name of the server's `path`; a path outside the chroot is returned as it is.
    pub fn strip<'p>(&self, path: &'p str) -> &'p str {
        match path.strip_prefix(self.0.as_str()) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }
}

/// Refuses what no server would take, with ZooKeeper's texts (upstream: `PathUtils.validatePath`).
///
/// Errors: `Error::Path`.
pub fn check_path(path: &str) -> Result<(), Error> {
    let bad = |problem: String| Err(Error::Path(problem));
    if path.is_empty() {
        return bad("Path length must be > 0".into());
    }
    if !path.starts_with('/') {
        return bad("Path must start with / character".into());
    }
    if path == "/" {
        return Ok(());
    }
    if path.ends_with('/') {
        return bad("Path must not end with / character".into());
    }
    let mut at = 1; // Counted in UTF-16 units, as ZooKeeper counts in its messages.
    for part in path[1..].split('/') {
        let reason = match part {
            "" => Some((at, "empty node name specified".into())),
            "." | ".." => Some((at + part.len() - 1, "relative paths not allowed".into())),
            _ => forbidden_character(part, at),
        };
        if let Some((at, reason)) = reason {
            return bad(format!("Invalid path string \"{path}\" caused by {reason} @{at}"));
        }
        at += part.encode_utf16().count() + 1;
    }
    Ok(())
}

fn forbidden_character(part: &str, start: usize) -> Option<(usize, String)> {
    part.encode_utf16().enumerate().find_map(|(offset, unit)| match unit {
        0 => Some((start + offset, "null character not allowed".into())),
        0x01..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..=0xffff => {
            Some((start + offset, "invalid character".into()))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_strings_have_servers_and_a_chroot() {
        let parsed = ConnectString::parse("a:1, b ,[::1]:3,::1,[fe80::2]/app/x").unwrap();
        let servers: Vec<_> = parsed.servers.iter().map(|(host, port)| (host.as_str(), *port)).collect();
        assert_eq!(servers, [("a", 1), ("b", 2181), ("::1", 3), ("::1", 2181), ("fe80::2", 2181)]);
        assert_eq!(parsed.chroot.join("/"), "/app/x");
        assert_eq!(parsed.chroot.join("/y"), "/app/x/y");
        assert_eq!(parsed.chroot.strip("/app/x"), "/");
        assert_eq!(parsed.chroot.strip("/app/x/y"), "/y");
        assert_eq!(parsed.chroot.strip("/app/xy"), "/app/xy");
        assert_eq!(ConnectString::parse("h/").unwrap().chroot, Chroot::default());
    }

    #[test]
    fn senseless_connect_strings_are_refused() {
        for text in ["", ",", "h:port", "h:70000", "[::1", "[::1]x", "h/a/", "h/a//b"] {
            assert!(ConnectString::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shuffling_keeps_every_server() {
        let mut parsed = ConnectString::parse("a,b,c,d,e,f").unwrap();
        let mut sorted = parsed.servers.clone();
        parsed.shuffle(&mut Rng::new(1));
        assert_ne!(parsed.servers, sorted);
        sorted.sort();
        parsed.servers.sort();
        assert_eq!(parsed.servers, sorted);
    }

    #[test]
    fn bad_paths_are_named_as_zookeeper_names_them() {
        let text = |path: &str| check_path(path).unwrap_err().to_string();
        assert_eq!(text("a"), "Path must start with / character");
        assert_eq!(text("/a/"), "Path must not end with / character");
        assert_eq!(text("/a//b"), "Invalid path string \"/a//b\" caused by empty node name specified @3");
        assert_eq!(text("/a/../b"), "Invalid path string \"/a/../b\" caused by relative paths not allowed @4");
        assert_eq!(text("/a/./b"), "Invalid path string \"/a/./b\" caused by relative paths not allowed @3");
        assert!(check_path("/a\u{1}").is_err() && check_path("/\u{e000}").is_err());
        for good in ["/", "/a", "/a/b c", "/.a/..b/...", "/ü"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
    }
}
