//! Access control lists: who passes, what a client may store, what it is shown.

use super::{AuthIds, AuthRules, address, digest};
use crate::random::FastSet;
use crate::wire::ErrorCode;
use crate::wire::client::AclEntry;
use crate::wire::txn::{Acl, AclList};
use std::borrow::Cow;
use std::net::IpAddr;

/// Whether `ids` have any of the `wanted` permissions by this list. An empty list lets everybody do everything.
#[inline]
pub fn permits(acl: &[Acl], wanted: i32, ids: &AuthIds, rules: &AuthRules) -> bool {
    is_open(acl, wanted) || permits_slow(acl, wanted, ids, rules)
}

/// Whether the list lets everybody do that, as far as a look at its begin tells.
#[inline]
pub fn is_open(acl: &[Acl], wanted: i32) -> bool {
    match acl {
        // The only one whose strings need not be fetched.
        _ if Acl::is_shared_open(acl) && Acl::ALL & wanted != 0 => true,
        [first, ..] => first.perms & wanted != 0 && is_anyone(first),
        [] => true,
    }
}

#[inline]
fn is_anyone(entry: &Acl) -> bool {
    entry.scheme == "world" && entry.id == "anyone"
}

fn permits_slow(acl: &[Acl], wanted: i32, ids: &AuthIds, rules: &AuthRules) -> bool {
    if rules.skip_acl || ids.is_super() {
        return true;
    }
    // Few ids are compared, many hashed: a connection may have a thousand, and a list ten thousands of entries.
    let many = ids.count() > 8 && acl.len() > 8;
    let known: Option<FastSet<(&str, &str)>> =
        many.then(|| ids.iter().map(|id| (id.scheme.as_str(), id.id.as_str())).collect());
    let mut peers: Option<Vec<IpAddr>> = None;
    acl.iter().filter(|entry| entry.perms & wanted != 0).any(|entry| {
        let (scheme, id) = (entry.scheme.as_str(), entry.id.as_str());
        is_anyone(entry)
            || rules.provides(scheme)
                && match (&known, scheme) {
                    (_, "ip") => {
                        let peers = peers.get_or_insert_with(|| address::peers(ids));
                        address::parse_network(id)
                            .is_some_and(|network| peers.iter().any(|peer| network.contains(*peer)))
                    }
                    (Some(known), _) => known.contains(&(scheme, id)),
                    (None, _) => ids.iter().any(|of| of.scheme == scheme && of.id == id),
                }
    })
}

/// Why a client's list can't be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FixError {
    /// -114.
    Invalid,
    /// -5: null where ZooKeeper trips over it.
    Undecodable,
    /// The `auth` entries, expanded, have more than the bytes allowed.
    TooLarge,
}

impl FixError {
    pub fn code(self) -> ErrorCode {
        match self {
            FixError::Invalid => ErrorCode::INVALID_ACL,
            FixError::Undecodable => ErrorCode::MARSHALLING_ERROR,
            FixError::TooLarge => ErrorCode::BAD_ARGUMENTS,
        }
    }
}

/// The list as it is stored: duplicates dropped, `auth` replaced by the connection's own ids, everything else checked.
/// `max_bytes` bounds the encoded result, since a few `auth` entries on a connection with many ids grow a lot.
pub fn fix_up(
    list: Option<&[AclEntry<'_>]>,
    ids: &AuthIds,
    rules: &AuthRules,
    max_bytes: usize,
) -> Result<AclList, FixError> {
    if let Some([entry]) = list
        && (entry.perms, entry.scheme.as_deref(), entry.id.as_deref()) == (Acl::ALL, Some("world"), Some("anyone"))
    {
        return if max_bytes < 12 + "worldanyone".len() { Err(FixError::TooLarge) } else { Ok(Acl::open().clone()) };
    }
    let list = list.filter(|list| !list.is_empty()).ok_or(FixError::Invalid)?;
    if trips_over_null(list) {
        return Err(FixError::Undecodable);
    }
    let mut fixed = Vec::with_capacity(list.len());
    let mut bytes = 0usize;
    let mut seen = FastSet::default();
    for (at, entry) in list.iter().enumerate() {
        // Short lists are compared, long ones hashed: a frame holds ten thousands of entries.
        let duplicate = if list.len() <= 8 {
            list[..at].contains(entry)
        } else {
            !seen.insert((entry.perms, entry.scheme.as_deref(), entry.id.as_deref()))
        };
        if duplicate {
            continue;
        }
        let mut keep = |scheme: &str, id: &str| {
            bytes += 12 + scheme.len() + id.len();
            if bytes > max_bytes {
                return Err(FixError::TooLarge);
            }
            fixed.push(Acl { perms: entry.perms, scheme: scheme.to_owned(), id: id.to_owned() });
            Ok(())
        };
        match (entry.scheme.as_deref().ok_or(FixError::Invalid)?, entry.id.as_deref()) {
            ("world", Some("anyone")) => keep("world", "anyone")?,
            ("world", None) => return Err(FixError::Undecodable),
            ("auth", _) => {
                let mut any = false;
                for id in ids.iter().filter(|id| id.scheme == "digest" && rules.provides("digest")) {
                    keep(&id.scheme, &id.id)?;
                    any = true;
                }
                if !any {
                    return Err(FixError::Invalid);
                }
            }
            (scheme, Some(id)) if rules.provides(scheme) && valid_id(scheme, id) => keep(scheme, id)?,
            (scheme, None) if rules.provides(scheme) => return Err(FixError::Undecodable),
            _ => return Err(FixError::Invalid),
        }
    }
    Ok(fixed.into())
}

/// ZooKeeper looks for duplicates before anything else: it holds each entry against those before it, by permissions, then
/// scheme, then id, and trips where it has to compare one that is null.
fn trips_over_null(list: &[AclEntry<'_>]) -> bool {
    if list.iter().all(|entry| entry.scheme.is_some() && entry.id.is_some()) {
        return false;
    }
    let (mut perms, mut schemes) = (FastSet::default(), FastSet::default());
    list.iter().any(|entry| {
        let trips = match (entry.scheme.as_deref(), &entry.id) {
            (None, _) => perms.contains(&entry.perms),
            (Some(scheme), None) => schemes.contains(&(entry.perms, scheme)),
            (Some(_), Some(_)) => false,
        };
        perms.insert(entry.perms);
        schemes.extend(entry.scheme.as_deref().map(|scheme| (entry.perms, scheme)));
        trips
    })
}

fn valid_id(scheme: &str, id: &str) -> bool {
    match scheme {
        "ip" => address::parse_network(id).is_some(),
        "digest" => digest::valid_id(id),
        _ => false,
    }
}

/// An entry's id as getACL shows it to a caller without ADMIN: a digest's hash is hidden.
pub fn redacted_id<'a>(scheme: &str, id: &'a str) -> Cow<'a, str> {
    match id.split_once(':') {
        Some((user, _)) if scheme == "digest" => Cow::Owned(format!("{user}:x")),
        _ => Cow::Borrowed(id),
    }
}
