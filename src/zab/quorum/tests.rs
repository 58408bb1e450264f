use super::*;
use proptest::prelude::*;

fn set(ids: &[u8]) -> ServerSet {
    ids.iter().copied().map(ServerId).collect()
}

fn group(id: i64, members: &[u8]) -> Group {
    Group { id, members: set(members) }
}

fn weights(pairs: &[(u8, u64)]) -> Vec<(ServerId, u64)> {
    pairs.iter().map(|&(id, weight)| (ServerId(id), weight)).collect()
}

/// One character for each subset of voters 1..=n, the empty one first.
fn table(quorum: &Quorum) -> String {
    let voters: Vec<ServerId> = quorum.voters().iter().collect();
    let subset = |mask: usize| -> ServerSet {
        voters.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1).map(|(_, &id)| id).collect()
    };
    (0..1 << voters.len()).map(|mask| if quorum.contains_quorum(subset(mask)) { '1' } else { '0' }).collect()
}

#[test]
fn a_set_holds_each_server_once() {
    let mut servers = ServerSet::EMPTY;
    assert!(servers.insert(ServerId(255)) && servers.insert(ServerId(0)) && servers.insert(ServerId(64)));
    assert!(!servers.insert(ServerId(64)));
    assert_eq!(servers.len(), 3);
    assert_eq!(servers.iter().collect::<Vec<_>>(), [ServerId(0), ServerId(64), ServerId(255)]);
    assert!(servers.remove(ServerId(0)) && !servers.remove(ServerId(0)));
    assert_eq!(servers, set(&[64, 255]));
    assert_eq!(servers.without(set(&[64])), set(&[255]));
    assert_eq!(format!("{servers:?}"), "{64, 255}");
}

/// The tables were printed by ZooKeeper 3.9.5's verifiers for the same configurations.
#[test]
fn quorums_are_those_of_zookeeper() {
    let five = set(&[1, 2, 3, 4, 5]);
    assert_eq!(table(&Quorum::majority(five, set(&[]))), "00000001000101110001011101111111");
    assert_eq!(table(&Quorum::majority(set(&[1, 2, 4]), set(&[3]))), "00010111");
    let cases = [
        (vec![group(1, &[1, 2, 3]), group(2, &[4, 5])], weights(&[]), "00000000000000000000000000010111"),
        (vec![group(1, &[1, 2, 3]), group(2, &[4, 5])], weights(&[(4, 0), (5, 0)]), "00010111000101110001011100010111"),
        (vec![group(1, &[1, 2, 3]), group(2, &[4, 5])], weights(&[(1, 3), (4, 0)]), "00000000000000000101010101010101"),
        (vec![group(1, &[1, 2]), group(2, &[3, 4]), group(3, &[5])], weights(&[]), "00000000000000010001000100011111"),
        (
            vec![group(1, &[1, 2]), group(2, &[3, 4]), group(3, &[5])],
            weights(&[(1, 5), (2, 4), (5, 0)]),
            "00000000000001010000000000000101",
        ),
    ];
    for (groups, given, expected) in cases {
        let quorum = Quorum::hierarchical(five, set(&[]), groups.clone(), &given).unwrap();
        assert_eq!(table(&quorum), expected, "{groups:?} {given:?}");
    }
}

#[test]
fn servers_without_a_vote_are_never_counted() {
    let quorum = Quorum::majority(set(&[1, 2, 3]), set(&[4, 5]));
    assert!(!quorum.contains_quorum(set(&[1, 4, 5, 200])));
    assert!(quorum.contains_quorum(set(&[1, 2])));
    assert_eq!((quorum.weight(ServerId(1)), quorum.weight(ServerId(4)), quorum.weight(ServerId(9))), (1, 0, 0));
}

#[test]
fn a_server_of_weight_zero_votes_for_nothing_and_can_not_lead() {
    let groups = vec![group(7, &[1, 2, 3])];
    let quorum = Quorum::hierarchical(set(&[1, 2, 3]), set(&[]), groups, &weights(&[(3, 0)])).unwrap();
    assert!(quorum.is_voter(ServerId(3)) && !quorum.is_electable(ServerId(3)));
    assert!(!quorum.contains_quorum(set(&[1, 3])) && quorum.contains_quorum(set(&[1, 2])));
}

#[test]
fn groups_that_make_no_sense_are_refused() {
    let three = set(&[1, 2, 3]);
    let refused = |groups: Vec<Group>, given: &[(u8, u64)]| {
        Quorum::hierarchical(three, set(&[9]), groups, &weights(given)).unwrap_err()
    };
    assert_eq!(refused(vec![group(1, &[1, 2])], &[]), "server 3 is in no group");
    assert_eq!(refused(vec![group(1, &[1, 2, 3]), group(2, &[3])], &[]), "server 3 is in more than one group");
    assert!(refused(vec![group(1, &[1, 2, 3, 9])], &[]).contains("has no weight"));
    assert!(refused(vec![group(1, &[1, 2, 3])], &[(1, WEIGHT_MAX + 1)]).contains("too large"));
    assert!(refused(vec![group(1, &[1, 2, 3])], &[(1, 0), (2, 0), (3, 0)]).contains("no quorum"));
    assert!(refused(vec![group(1, &[1, 2, 3, 9])], &[(9, 3)]).contains("no quorum"));
}

proptest! {
    #[test]
    fn two_quorums_always_share_a_voter(
        grouping in prop::collection::vec(0..3usize, 1..8),
        given in prop::collection::vec(0..4u64, 8),
        first in 0..256usize,
        second in 0..256usize,
    ) {
        let voters: ServerSet = (0..grouping.len()).map(|at| ServerId(at as u8)).collect();
        let groups = (0..3)
            .map(|id| Group {
                id: id as i64,
                members: voters.iter().filter(|voter| grouping[voter.0 as usize] == id).collect(),
            })
            .filter(|group| !group.members.is_empty())
            .collect();
        let given: Vec<_> = voters.iter().map(|id| (id, given[id.0 as usize])).collect();
        if let Ok(quorum) = Quorum::hierarchical(voters, ServerSet::EMPTY, groups, &given) {
            let pick = |mask: usize| -> ServerSet { voters.iter().filter(|id| mask >> id.0 & 1 == 1).collect() };
            let (first, second) = (pick(first), pick(second));
            if quorum.contains_quorum(first) && quorum.contains_quorum(second) {
                prop_assert!(!first.intersection(second).is_empty());
            }
        }
    }
}
