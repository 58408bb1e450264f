//! Who owns which znodes: ephemerals by session, and containers and znodes with a TTL in lists of their own, so that
//! nothing is ever found by scanning the tree. A znode knows its place in its list, so that it leaves at once.

use super::nodes::Nodes;
use crate::ids::{Owner, OwnerRules, SessionId};
use crate::random::FastMap;

#[derive(Default)]
pub(super) struct Owned {
    ephemerals: FastMap<SessionId, Vec<u32>>,
    ephemeral_count: usize,
    containers: Vec<u32>,
    ttls: Vec<u32>,
}

impl Owned {
    fn list(&mut self, owner: Owner) -> Option<&mut Vec<u32>> {
        match owner {
            Owner::Nobody => None,
            Owner::Session(session) => Some(self.ephemerals.entry(session).or_default()),
            Owner::Container => Some(&mut self.containers),
            Owner::Ttl(_) => Some(&mut self.ttls),
        }
    }

    pub(super) fn add(&mut self, nodes: &mut Nodes, slot: u32, rules: OwnerRules) {
        let node = &mut nodes[slot as usize];
        let owner = Owner::from_stored(node.owner(), rules);
        let Some(list) = self.list(owner) else { return };
        node.extra_mut().owner_place = list.len() as u32;
        list.push(slot);
        if let Owner::Session(_) = owner {
            self.ephemeral_count += 1;
        }
    }

    /// The znode has to be there still.
    pub(super) fn remove(&mut self, nodes: &mut Nodes, slot: u32, rules: OwnerRules) {
        let node = &nodes[slot as usize];
        let owner = Owner::from_stored(node.owner(), rules);
        let Some(list) = self.list(owner) else { return };
        let place = node.extra.as_ref().expect("an owner is kept there").owner_place;
        let gone = list.swap_remove(place as usize);
        assert!(gone == slot);
        let is_last = list.is_empty();
        if let Some(&moved) = list.get(place as usize) {
            nodes[moved as usize].extra_mut().owner_place = place;
        }
        if let Owner::Session(session) = owner {
            self.ephemeral_count -= 1;
            if is_last {
                self.ephemerals.remove(&session);
            }
        }
    }

    pub(super) fn of_session(&self, session: SessionId) -> &[u32] {
        self.ephemerals.get(&session).map_or(&[], Vec::as_slice)
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.ephemerals.keys().copied()
    }

    pub(super) fn ephemeral_count(&self) -> usize {
        self.ephemeral_count
    }

    pub(super) fn containers(&self) -> &[u32] {
        &self.containers
    }

    pub(super) fn ttls(&self) -> &[u32] {
        &self.ttls
    }
}
