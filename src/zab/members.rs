//! Whether those who vote are still those that this server was given.
//!
//! An ensemble of ZooKeeper servers can change its members while it runs (`reconfig`); this server can't, and takes its members
//! from its file. If it went on with the old ones where others go on with new ones, each side could find a majority of its own,
//! and what one of them has acknowledged would be lost. So:
//!
//! - A leader says with NEWLEADER which configuration is the newest that it knows, in force or proposed. If others vote by that,
//!   this server ends before it acknowledges anything.
//! - A reconfiguration that is only proposed may come to nothing, so it ends nobody. But whoever has acknowledged it may be one
//!   of those with whom it is in force already: until it serves under a leader that knows better, it has no vote. A quorum of the
//!   old members without any that has acknowledged it can't be found once it is in force. One that leads back to the own members
//!   behind it changes nothing of that before it is in force itself.
//! - When it is in force (COMMITANDACTIVATE), this server ends, unless the same servers vote as before.
//!
//! What counts is who votes, and with which weight in which group. Addresses and observers decide nothing. A configuration
//! whose version is no transaction's (0, or the beginning of an epoch, which leaders with `reconfigEnabled` give to the members of
//! their files) was made by no `reconfig`: then each server's file counts, as in ZooKeeper, and those of one ensemble differ
//! while an operator changes them in turn. The same holds for one that is no newer than this server's own: whoever has given it
//! that has seen the other.
//!
//! Without I/O, clock or threads.

use super::ensemble::EnsembleConfig;
use crate::ids::Zxid;

/// A configuration by which others vote than by this server's own. Both as text in one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtherMembers {
    pub theirs: String,
    pub ours: String,
}

/// Bytes of a text of others that are shown.
const SHOWN: usize = 2_000;

impl OtherMembers {
    /// What the text of a newer configuration says, if by that others vote than by `own`. One that can't be read is another.
    pub fn of(own: &EnsembleConfig, text: &[u8]) -> Option<OtherMembers> {
        let is_newer = |version: Zxid| version > own.version() && version.to_wire() > 0 && version.counter() > 0;
        let differs = match EnsembleConfig::parse(text) {
            Ok(theirs) => is_newer(theirs.version()) && !theirs.quorum().decides_like(own.quorum()),
            Err(_) => version_of(text).is_some_and(is_newer),
        };
        differs.then(|| {
            let theirs = String::from_utf8_lossy(&text[..text.len().min(SHOWN)]);
            OtherMembers { theirs: in_one_line(&theirs), ours: in_one_line(own.text()) }
        })
    }
}

/// Of a text that is not to be read otherwise.
fn version_of(text: &[u8]) -> Option<Zxid> {
    let lines = text.split(|byte| *byte == b'\n');
    let version = lines.rev().find_map(|line| line.strip_prefix(b"version="))?;
    let version = std::str::from_utf8(version).ok()?;
    i64::from_str_radix(version.trim(), 16).ok().map(Zxid::from_wire)
}

fn in_one_line(text: &str) -> String {
    text.lines().map(|line| line.escape_debug().to_string()).collect::<Vec<_>>().join(", ")
}

/// Reconfigurations of a history about which no leader has said yet whether they are in force.
#[derive(Default)]
pub struct Reconfigurations {
    /// Ascending. Those by which nobody else votes stand here too, behind others.
    undecided: Vec<(Zxid, Option<OtherMembers>)>,
}

impl Reconfigurations {
    /// So many are told apart; a history that is cut further back than that is asked about once more at worst.
    const MAX: usize = 64;

    /// One stands in the history at `zxid`.
    pub fn note(&mut self, zxid: Zxid, own: &EnsembleConfig, text: &[u8]) {
        let other = OtherMembers::of(own, text);
        if other.is_none() && self.undecided.is_empty() {
            return;
        }
        if self.undecided.len() == Self::MAX {
            // One that leads back to the own members, if there is one: without it this server has no vote for longer, at worst.
            let at = self.undecided.iter().position(|(_, other)| other.is_none()).unwrap_or(0);
            self.undecided.remove(at);
        }
        self.undecided.push((zxid, other));
    }

    /// The newest others that may vote now.
    pub fn newest(&self) -> Option<&OtherMembers> {
        self.undecided.iter().rev().find_map(|(_, other)| other.as_ref())
    }

    /// The one at this zxid is in force, and none before it any more. `Some`: by that others vote.
    pub fn activated(&mut self, zxid: Zxid) -> Option<OtherMembers> {
        let (_, other) = self.undecided.iter().rev().find(|(at, _)| *at == zxid)?;
        let other = other.clone();
        if other.is_none() {
            self.undecided.retain(|(at, _)| *at > zxid);
        }
        other
    }

    /// This server serves under a leader whose newest configuration, as of `up_to`, is none by which others vote; it is in force
    /// if it is committed. Returns whether others could have voted, and can't.
    pub fn decided(&mut self, up_to: Zxid, committed: Zxid) -> bool {
        let last = self.undecided.iter().rev().find(|(zxid, _)| *zxid <= up_to);
        if last.is_some_and(|(zxid, other)| other.is_none() && *zxid > committed) {
            return false;
        }
        let could = self.newest().is_some();
        self.undecided.retain(|(zxid, _)| *zxid > up_to);
        could && self.newest().is_none()
    }

    /// The history ends here now.
    pub fn truncate(&mut self, to: Zxid) {
        self.undecided.retain(|(zxid, _)| *zxid <= to);
    }

    /// Another history has taken the place of this one.
    pub fn clear(&mut self) {
        self.undecided.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n";

    fn differs(own: &str, theirs: &str) -> bool {
        let own = EnsembleConfig::parse(own.as_bytes()).unwrap();
        OtherMembers::of(&own, theirs.as_bytes()).is_some()
    }

    #[test]
    fn others_vote_where_voters_groups_or_weights_are_others_in_a_newer_configuration() {
        let two = "server.1=a:1:2\nserver.2=b:1:2\n";
        let four = format!("{OWN}server.4=d:1:2\n");
        for (theirs, expected) in [
            (format!("{OWN}version=100000007"), false),
            (format!("{four}version=100000007"), true),
            (format!("{two}server.4=d:1:2\nversion=100000007"), true),
            (format!("{two}server.3=c:1:2:observer\nversion=1"), true),
            // Addresses, clients' ports and observers decide nothing.
            (format!("{two}server.3=x:7:8;2181\nserver.4=d:1:2:observer\nversion=1"), false),
            // No reconfiguration made it.
            (format!("{four}version=0"), false),
            (four.clone(), false),
            (format!("{four}version=300000000"), false),
            (format!("{four}version=ffffffffffffffff"), false),
            // What can't be read is not what this server was given, if it is newer.
            ("server.300=a:1:2\nversion=5".to_owned(), true),
            ("server.300=a:1:2\nversion=0".to_owned(), false),
            ("version=0".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(differs(OWN, &theirs), expected, "{theirs}");
        }
        // The file says that it has seen that one, or a later.
        let own = format!("{OWN}version=7");
        for (version, expected) in [(6, false), (7, false), (8, true)] {
            assert_eq!(differs(&own, &format!("{four}version={version}")), expected, "{version}");
        }
    }

    #[test]
    fn groups_and_weights_decide_and_their_names_do_not() {
        let grouped = |rest: &str| format!("{OWN}{rest}\nversion=1");
        let own = format!("{OWN}group.1=1:2\ngroup.2=3\nweight.3=2");
        assert!(!differs(&own, &grouped("group.7=3\ngroup.1=2:1\nweight.3=2")));
        assert!(differs(&own, &grouped("group.1=1:2\ngroup.2=3\nweight.3=1")));
        assert!(differs(&own, &grouped("group.1=1\ngroup.2=2:3\nweight.3=2")));
        assert!(differs(&own, &grouped("")));
        assert!(!differs(OWN, &grouped("group.1=1:2:3")), "one group of equals is a majority");
    }

    #[test]
    fn the_newest_reconfiguration_of_a_history_counts_until_it_is_cut_or_decided() {
        let own = EnsembleConfig::parse(OWN.as_bytes()).unwrap();
        let other = |version| format!("{OWN}server.4=d:1:2\nversion={version}");
        let mut all = Reconfigurations::default();
        all.note(Zxid(1), &own, format!("{OWN}version=1").as_bytes());
        assert!(all.newest().is_none());
        all.note(Zxid(2), &own, other(2).as_bytes());
        assert!(all.newest().is_some_and(|other| other.theirs.contains("server.4=d:1:2, version=2")));
        all.note(Zxid(3), &own, format!("{OWN}version=3").as_bytes());
        assert!(all.newest().is_some(), "back to the old ones, if that is in force");
        all.truncate(Zxid(2));
        assert!(all.newest().is_some());
        assert!(!all.decided(Zxid(1), Zxid(1)) && all.newest().is_some());
        assert!(all.decided(Zxid(2), Zxid(2)) && all.newest().is_none(), "a leader that knows of none");

        // There and back: what leads back is proposed, then in force.
        let back = format!("{OWN}version=5");
        for (committed, decided) in [(Zxid(4), false), (Zxid(5), true)] {
            let mut all = Reconfigurations::default();
            all.note(Zxid(4), &own, other(4).as_bytes());
            all.note(Zxid(5), &own, back.as_bytes());
            assert_eq!((all.decided(Zxid(6), committed), all.newest().is_none()), (decided, decided));
            assert!(all.activated(Zxid(4)).is_some() != decided && all.activated(Zxid(5)).is_none());
            assert!(all.newest().is_none() && all.undecided.is_empty());
        }
        let mut all = Reconfigurations::default();
        all.note(Zxid(4), &own, other(4).as_bytes());
        (5..1_000).for_each(|zxid| all.note(Zxid(zxid), &own, format!("{OWN}version={zxid}").as_bytes()));
        assert!(all.newest().is_some() && all.undecided.len() == Reconfigurations::MAX, "none of those is in force");
        let mut all = Reconfigurations::default();
        for zxid in 10..1_000 {
            all.note(Zxid(zxid), &own, other(zxid).as_bytes());
        }
        assert!(all.newest().is_some() && all.undecided.len() == Reconfigurations::MAX);
    }
}
