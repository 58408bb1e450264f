//! How two trees differ: both are walked in the order of names, side by side, so that neither is looked up in the other.

use super::Stop;
use super::json::{Object, array, string};
use super::source::Source;
use crate::ids::SessionId;
use crate::tree::{NodeRef, Walk};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::Write;

/// The order of a sorted walk: name by name, so that what is below a znode comes before its next sibling.
fn order(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}

/// What is not the same, by name.
fn differences(a: &NodeRef<'_>, b: &NodeRef<'_>) -> Vec<String> {
    let (x, y) = (a.numbers(), b.numbers());
    let mut found = Vec::new();
    let mut number = |name: &str, left: String, right: String| {
        if left != right {
            found.push(format!("{name} {left}, {right}"));
        }
    };
    number("czxid", x.czxid.to_string(), y.czxid.to_string());
    number("mzxid", x.mzxid.to_string(), y.mzxid.to_string());
    number("pzxid", x.pzxid.to_string(), y.pzxid.to_string());
    number("ctime", x.ctime.to_string(), y.ctime.to_string());
    number("mtime", x.mtime.to_string(), y.mtime.to_string());
    number("version", x.version.to_string(), y.version.to_string());
    number("cversion", x.cversion.to_string(), y.cversion.to_string());
    number("aversion", x.aversion.to_string(), y.aversion.to_string());
    number("ephemeralOwner", format!("{:#x}", x.owner), format!("{:#x}", y.owner));
    let length = |node: &NodeRef<'_>| node.data().map_or("none".into(), |data| format!("{} bytes", data.len()));
    if a.data() != b.data() {
        found.push(format!("data {}, {}", length(a), length(b)));
    }
    if a.acl() != b.acl() {
        found.push(format!("acl {}, {}", super::znodes::acl_text(a.acl()), super::znodes::acl_text(b.acl())));
    }
    found
}

/// Prints what differs; 1 if anything does.
pub(super) fn print(left: &Source, right: &Source, json: bool, out: &mut impl Write) -> Result<u8, Stop> {
    let (mut only_left, mut only_right, mut differ, mut same) = (0u64, 0u64, 0u64, 0u64);
    let mut line = |path: &str, where_: &str, found: &[String]| {
        let path = if path.is_empty() { "/" } else { path };
        if json {
            let object = Object::new().text("path", path).text("in", where_);
            return writeln!(out, "{}", object.raw("differs", array(found.iter().map(|text| string(text)))).end());
        }
        match where_ {
            "left" => writeln!(out, "- {path}"),
            "right" => writeln!(out, "+ {path}"),
            _ => writeln!(out, "~ {path}: {}", found.join("; ")),
        }
    };
    let (mut one, mut other) = (Walk::sorted(), Walk::sorted());
    let (mut a, mut b) = (one.next(&left.tree), other.next(&right.tree));
    loop {
        let which = match (&a, &b) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), Some(_)) => order(one.path(), other.path()),
        };
        match which {
            Ordering::Less => {
                line(one.path(), "left", &[])?;
                only_left += 1;
            }
            Ordering::Greater => {
                line(other.path(), "right", &[])?;
                only_right += 1;
            }
            Ordering::Equal => {
                let found = match (&a, &b) {
                    (Some(a), Some(b)) => differences(a, b),
                    _ => Vec::new(),
                };
                if found.is_empty() {
                    same += 1;
                } else {
                    line(one.path(), "both", &found)?;
                    differ += 1;
                }
            }
        }
        if which != Ordering::Greater {
            a = one.next(&left.tree);
        }
        if which != Ordering::Less {
            b = other.next(&right.tree);
        }
    }
    let sessions = session_differences(left, right);
    for (session, problem) in &sessions {
        match json {
            true => writeln!(out, "{}", Object::new().hex("session", session.0 as u64).text("differs", problem).end())?,
            false => writeln!(out, "~ session {session}: {problem}")?,
        }
    }
    let equal = only_left + only_right + differ == 0 && sessions.is_empty();
    let sides = [left, right].map(|source| (source.tree.zxid(), source.tree.digest()));
    if json {
        let side =
            |(zxid, digest): (crate::ids::Zxid, u64)| Object::new().hex("zxid", zxid.0).hex("digest", digest).end();
        let object = Object::new().raw("equal", equal).raw("same", same).raw("differ", differ);
        let object = object.raw("onlyLeft", only_left).raw("onlyRight", only_right);
        let object = object.raw("left", side(sides[0])).raw("right", side(sides[1]));
        writeln!(out, "{}", object.end())?;
    } else {
        for (mark, source, (zxid, digest)) in [('-', left, sides[0]), ('+', right, sides[1])] {
            writeln!(out, "{mark} {}: zxid {zxid}, digest {digest:#x}", source.name)?;
        }
        writeln!(
            out,
            "{same} znodes are the same, {differ} differ, {only_left} are only in the left, {only_right} only in the right"
        )?;
    }
    Ok(if equal { 0 } else { 1 })
}

fn session_differences(left: &Source, right: &Source) -> Vec<(SessionId, String)> {
    let mut all: BTreeMap<SessionId, [Option<i32>; 2]> = BTreeMap::new();
    for (at, source) in [left, right].into_iter().enumerate() {
        for &(session, timeout_ms) in &source.sessions {
            all.entry(session).or_default()[at] = Some(timeout_ms);
        }
    }
    let text = |timeout: Option<i32>| timeout.map_or("not there".into(), |timeout| format!("{timeout} ms"));
    let differ = all.into_iter().filter(|(_, [one, other])| one != other);
    differ.map(|(session, [one, other])| (session, format!("{}, {}", text(one), text(other)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_in_the_order_of_a_sorted_walk() {
        let paths = ["", "/a", "/a/b", "/a/c", "/a b", "/a.", "/b"];
        for pair in paths.windows(2) {
            assert_eq!(order(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
    }
}
