//! Who a connection is, and what an access control list lets it do (upstream: `ZooKeeperServer.checkACL`,
//! `PrepRequestProcessor.fixupACL`, the authentication providers).
//!
//! A connection holds a set of (scheme, id) pairs that only grows. A write carries the set as it was when its request was
//! received: `AuthIds` is a counted reference, so that a copy costs an increment. The usual list begins with
//! `world:anyone`, and is decided by comparing that entry only.
//!
//! Promises: the client-visible rules of ZooKeeper 3.9.5, with no provider that isn't configured; work and memory are
//! bounded by the request's size and `limits`. Left to others: turning a TLS certificate or a SASL exchange into ids
//! (they call `AuthIds::add`), and closing connections. Runs on whatever thread holds the ids: the only state, `Verdicts`,
//! is the caller's.

mod acl;
mod address;
mod digest;
mod index;
mod verdicts;

pub use acl::{FixError, fix_up, is_open, permits, redacted_id};
pub use address::address_text;
pub use digest::{DigestAlgorithm, derive};
pub use index::Index;
pub use verdicts::Verdicts;

use crate::limits;
use crate::wire::ErrorCode;
use crate::wire::reader::decode_text;
use std::net::IpAddr;
use std::sync::Arc;

/// The scheme whose ids pass every check.
const SUPER: &str = "super";

/// What the configuration says about identities and access. One per server, fixed at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRules {
    /// `skipACL=yes`: everything is allowed (lists are still fixed up).
    pub skip_acl: bool,
    /// `DigestAuthenticationProvider.enabled` and `.digestAlg`; `None` when the scheme is off.
    pub digest: Option<DigestAlgorithm>,
    /// `DigestAuthenticationProvider.superDigest`: `user:base64`, compared as a whole.
    pub super_digest: Option<String>,
    /// `enforce.auth.schemes` (or `sasl` for `sessionRequireClientSASLAuth`): one of them is needed for any request but
    /// auth and sasl. Empty when nothing is enforced.
    pub required_schemes: Vec<String>,
    /// What the identities of a connection may have in bytes: they have to fit a packet to the leader.
    pub bytes_max: usize,
}

impl Default for AuthRules {
    fn default() -> AuthRules {
        AuthRules {
            skip_acl: false,
            digest: Some(DigestAlgorithm::Sha1),
            super_digest: None,
            required_schemes: Vec::new(),
            bytes_max: limits::CONNECTION_AUTH_BYTES,
        }
    }
}

impl AuthRules {
    /// Whether a provider for `scheme` exists. A configuration that requires another scheme must not start.
    pub fn provides(&self, scheme: &str) -> bool {
        match scheme {
            "ip" => true,
            "digest" => self.digest.is_some(),
            _ => false,
        }
    }

    /// Whether a connection with these ids may send requests at all; if not, each is answered -124 and the connection
    /// closed.
    pub fn admits(&self, ids: &AuthIds) -> bool {
        self.required_schemes.is_empty() || ids.iter().any(|id| self.required_schemes.contains(&id.scheme))
    }
}

/// One identity of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthId {
    pub scheme: String,
    pub id: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Ids {
    list: Vec<AuthId>,
    is_super: bool,
}

/// The identities of a connection. Cloning copies a reference; adding to a copy leaves the others as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthIds(Arc<Ids>);

impl AuthIds {
    /// A new connection's: `ip` and the address of the peer. An IPv4 address mapped into IPv6 is shown as IPv4.
    pub fn of_peer(peer: IpAddr) -> AuthIds {
        let mut ids = AuthIds::default();
        ids.insert("ip", address_text(peer));
        ids
    }

    /// The set as a peer server forwards it.
    pub fn from_list(list: Vec<AuthId>) -> AuthIds {
        let is_super = list.iter().any(|id| id.scheme == SUPER);
        AuthIds(Arc::new(Ids { list, is_super }))
    }

    pub fn count(&self) -> usize {
        self.0.list.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &AuthId> {
        self.0.list.iter()
    }

    pub fn is_super(&self) -> bool {
        self.0.is_super
    }

    /// Adds one; nothing if it is there already. `false` when the set is full (`limits::CONNECTION_AUTH_*`).
    pub fn add(&mut self, scheme: &str, id: &str) -> bool {
        self.add_within(limits::CONNECTION_AUTH_BYTES, scheme, id)
    }

    fn add_within(&mut self, bytes_max: usize, scheme: &str, id: &str) -> bool {
        /// Of two lengths.
        const FIXED: usize = 8;
        if self.iter().any(|known| known.scheme == scheme && known.id == id) {
            return true;
        }
        // As they are forwarded: a character of four bytes is written in six.
        let long = |text: &str| text.bytes().filter(|&byte| byte >= 0xf0).count();
        let size = |scheme: &str, id: &str| scheme.len() + id.len() + 2 * (long(scheme) + long(id)) + FIXED;
        let bytes: usize = self.iter().map(|known| size(&known.scheme, &known.id)).sum();
        if self.0.list.len() >= limits::CONNECTION_AUTH_IDS || bytes + size(scheme, id) > bytes_max {
            return false;
        }
        self.insert(scheme, id.to_owned());
        true
    }

    fn insert(&mut self, scheme: &str, id: String) {
        let old = &self.0;
        let mut list = Vec::with_capacity(old.list.len() + 1);
        list.extend(old.list.iter().cloned());
        list.push(AuthId { scheme: scheme.to_owned(), id });
        self.0 = Arc::new(Ids { list, is_super: old.is_super || scheme == SUPER });
    }

    /// Executes an auth packet. `Err` is the code of the reply, after which the connection is closed.
    pub fn authenticate(
        &mut self,
        scheme: Option<&str>,
        auth: Option<&[u8]>,
        rules: &AuthRules,
    ) -> Result<(), ErrorCode> {
        match (scheme, rules.digest, auth) {
            // Adds the peer's address once more, which is to say nothing.
            (Some("ip"), ..) => Ok(()),
            (Some("digest"), Some(algorithm), Some(auth)) => {
                let id = derive(&decode_text(auth), algorithm);
                let is_super = rules.super_digest.as_ref().is_some_and(|it| same(it.as_bytes(), id.as_bytes()));
                let most = rules.bytes_max;
                let added = (!is_super || self.add_within(most, SUPER, "")) && self.add_within(most, "digest", &id);
                if added { Ok(()) } else { Err(ErrorCode::AUTH_FAILED) }
            }
            _ => Err(ErrorCode::AUTH_FAILED),
        }
    }

    /// What whoAmI shows: (scheme, user), without what follows a digest's user name.
    pub fn who_am_i(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().map(|AuthId { scheme, id }| {
            let user = if scheme == "digest" { id.split(':').next().unwrap_or(id) } else { id };
            (scheme.as_str(), user)
        })
    }
}

/// Equality in a time that depends on the lengths only.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
mod tests;
