//! What the shell shows of a znode: the stat block, the access control list, bytes in hexadecimal, names in order.
//!
//! Everything as zkCli prints it: people and scripts read it by line and word. Data that is not UTF-8 is shown with
//! replacement characters, as there.
//!
//! Runs on: the shell's thread; pure.

use super::zone::Zone;
use crate::client::{Acl, perms};
use crate::wire::Stat;
use std::fmt::Write;

/// Eleven lines.
pub fn stat(stat: &Stat, zone: &Zone) -> String {
    format!(
        "cZxid = {}\nctime = {}\nmZxid = {}\nmtime = {}\npZxid = {}\ncversion = {}\ndataVersion = {}\n\
         aclVersion = {}\nephemeralOwner = {:#x}\ndataLength = {}\nnumChildren = {}\n",
        stat.czxid,
        zone.java_date(stat.ctime),
        stat.mzxid,
        zone.java_date(stat.mtime),
        stat.pzxid,
        stat.cversion,
        stat.version,
        stat.aversion,
        stat.ephemeral_owner,
        stat.data_length,
        stat.num_children,
    )
}

/// Two lines an entry.
pub fn acl(list: &[Acl]) -> String {
    let mut text = String::new();
    for entry in list {
        let letters: String =
            LETTERS.iter().filter(|(_, bit)| entry.perms & bit != 0).map(|(letter, _)| *letter).collect();
        let _ = writeln!(text, "'{},'{}\n: {letters}", entry.scheme, entry.id);
    }
    text
}

const LETTERS: [(char, i32); 5] =
    [('c', perms::CREATE), ('d', perms::DELETE), ('r', perms::READ), ('w', perms::WRITE), ('a', perms::ADMIN)];

/// `scheme:id:perms,scheme:id:perms`; the id may hold colons. Second: what is strange about the permissions, a line each.
///
/// Errors: the part that has no such form.
pub fn parse_acl(text: &str) -> Result<(Vec<Acl>, Vec<String>), String> {
    let mut list = Vec::new();
    let mut notices = Vec::new();
    let parts: Vec<&str> = text.split(',').collect();
    // Empty parts at the end are no parts.
    let count = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
    for part in &parts[..count] {
        let (first, last) = (part.find(':'), part.rfind(':'));
        let (Some(first), Some(last)) = (first, last) else { return Err((*part).to_owned()) };
        if first == last {
            return Err((*part).to_owned());
        }
        let mut bits = 0;
        for letter in part[last + 1..].chars() {
            match LETTERS.iter().find(|(known, _)| *known == letter) {
                Some((_, bit)) => bits |= bit,
                None => notices.push(format!("Unknown perm type: {letter}")),
            }
        }
        list.push(Acl { perms: bits, scheme: part[..first].into(), id: part[first + 1..last].into() });
    }
    Ok((list, notices))
}

/// A table of sixteen bytes a line; nothing for no bytes.
pub fn hexdump(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return String::new();
    }
    const HEAD: &str = "         +-------------------------------------------------+\n\
                        \x20        |  0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f |\n";
    const RULE: &str = "+--------+-------------------------------------------------+----------------+";
    let mut text = format!("{HEAD}{RULE}\n");
    for (row, line) in bytes.chunks(16).enumerate() {
        let hex: String = line.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, " {byte:02x}");
            hex
        });
        let plain: String =
            line.iter().map(|byte| if (0x20..0x7f).contains(byte) { *byte as char } else { '.' }).collect();
        let _ = writeln!(text, "|{:08x}|{hex:<48} |{plain:<16}|", row * 16);
    }
    text + RULE
}

/// Java's order of strings: by UTF-16 unit, which differs from the order of bytes outside the basic plane.
pub fn sort(names: &mut [String]) {
    names.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
}

/// `[a, b]`
pub fn java_list(names: &[String]) -> String {
    format!("[{}]", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts were printed by zkCli 3.9.5.
    #[test]
    fn bytes_are_shown_in_a_table() {
        let expected = "         +-------------------------------------------------+\n         |  0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f |\n+--------+-------------------------------------------------+----------------+\n|00000000| 30 31 32 33 34 35 36 37 38 39 30 31 32 33 34 35 |0123456789012345|\n|00000010| 36 37                                           |67              |\n+--------+-------------------------------------------------+----------------+";
        assert_eq!(hexdump(b"012345678901234567"), expected);
        assert_eq!(hexdump(b""), "");
    }

    #[test]
    fn access_control_lists_are_read_and_printed() {
        let (list, notices) = parse_acl("ip:127.0.0.1:rw,digest:bob:a:b=:cdrwa,").unwrap();
        assert_eq!(acl(&list), "'ip,'127.0.0.1\n: rw\n'digest,'bob:a:b=\n: cdrwa\n");
        assert!(notices.is_empty());
        let (list, notices) = parse_acl("world:anyone:xr").unwrap();
        assert_eq!((list[0].perms, notices), (perms::READ, vec!["Unknown perm type: x".to_owned()]));
        assert_eq!(parse_acl("nonsense"), Err("nonsense".into()));
        assert_eq!(parse_acl("a:b"), Err("a:b".into()));
    }

    #[test]
    fn names_are_in_javas_order() {
        let mut names = vec!["\u{ff01}".to_owned(), "\u{1f600}".into(), "b".into(), "a".into()];
        sort(&mut names);
        assert_eq!(names, ["a", "b", "\u{1f600}", "\u{ff01}"]);
    }
}
