//! Finding the epoch: who follows, which epoch is newer than all of theirs, and whether a quorum accepts it.

use super::{Leader, LeaderOutput, Link, Phase, Stage};
use crate::clock::Now;
use crate::ids::{Epoch, ServerId, Zxid};
use crate::wire::quorum::{LearnerInfo, PROTOCOL_VERSION, PacketType, QuorumPacket, epoch_zxid, read_current_epoch};
use crate::wire::writer::Jute;
use crate::zab::history::History;
use crate::zab::quorum::ServerSet;
use crate::zab::{EPOCH_MAX, is_plausible};

impl Leader {
    /// FOLLOWERINFO or OBSERVERINFO: who is it?
    pub(super) fn info(&mut self, link: Link, observer: bool, packet: &QuorumPacket<'_>, now: Now) {
        let info = match LearnerInfo::read(packet.data.unwrap_or_default()) {
            Ok(info) if info.protocol_version >= PROTOCOL_VERSION => info,
            Ok(_) => return self.close(link, "it speaks a protocol from before ZooKeeper 3.4".to_owned()),
            Err(_) => return self.close(link, "its first packet is malformed".to_owned()),
        };
        let member = u8::try_from(info.server).ok().map(ServerId).filter(|&id| self.is_member(id));
        let Some(server) = member else {
            return self.close(link, format!("server {} is not in this server's configuration", info.server));
        };
        if server == self.start.me {
            return self.close(link, format!("it says that it is this server ({})", server.0));
        }
        if info.config_version > self.start.config_version {
            let (theirs, ours) = (info.config_version, self.start.config_version);
            return self
                .close(link, format!("server {} has a newer configuration ({theirs:x}, here {ours:x})", server.0));
        }
        let accepted = Zxid::from_wire(packet.zxid).epoch();
        // Where nobody knows of an epoch there is one near the beginning: new servers have to take the one behind it.
        if !is_plausible(accepted, self.newest_accepted.max(Epoch(1))) {
            let why = "which no election can have reached";
            return self
                .close(link, format!("server {} says that it has accepted epoch {}, {why}", server.0, accepted.0));
        }
        // Now that it is known to be valid, it takes the place of an older connection of the same server.
        let older: Vec<Link> = self
            .learners
            .iter()
            .filter(|&(&other, learner)| other != link && learner.stage > Stage::Hello && learner.server == server)
            .map(|(&other, _)| other)
            .collect();
        for older in older {
            self.close(older, format!("server {} has connected again", server.0));
        }
        let voter = !observer && self.start.quorum.is_voter(server);
        let Some(learner) = self.learners.get_mut(&link) else { return };
        learner.stage = Stage::Known;
        self.strayed.remove(server);
        (learner.server, learner.voter, learner.observer, learner.accepted) = (server, voter, observer, accepted);
        self.newest_accepted = self.newest_accepted.max(accepted);
        match self.phase {
            Phase::Discovery => {
                if voter {
                    self.from.insert(server);
                }
                self.look_for_epoch(now);
            }
            Phase::EpochChosen => {}
            _ => self.tell_epoch_to(link),
        }
    }

    fn is_member(&self, id: ServerId) -> bool {
        self.start.quorum.is_voter(id) || self.start.quorum.observers().contains(id)
    }

    pub(super) fn look_for_epoch(&mut self, now: Now) {
        if self.phase == Phase::Discovery && self.start.quorum.contains_quorum(self.from) {
            if self.newest_accepted >= EPOCH_MAX {
                let newest = self.newest_accepted.0;
                return self
                    .resign(format!("epoch {newest} has been accepted, and behind it there are no more epochs"));
            }
            self.epoch = Epoch(self.newest_accepted.0 + 1);
            self.enter(Phase::EpochChosen, now);
            self.outputs.push(LeaderOutput::StoreEpochs { accepted: self.epoch, current: self.start.current });
        }
    }

    /// The epoch is durable here: now it may be told.
    pub(super) fn tell_epoch(&mut self, now: Now) {
        self.enter(Phase::EpochAck, now);
        self.from = ServerSet::EMPTY;
        self.from.insert(self.start.me);
        let known: Vec<Link> = self.learners.iter().filter(|(_, l)| l.stage == Stage::Known).map(|(&l, _)| l).collect();
        for link in known {
            self.tell_epoch_to(link);
        }
        self.look_for_epoch_acks(now);
    }

    fn tell_epoch_to(&mut self, link: Link) {
        let epoch = self.epoch;
        let Some(learner) = self.learners.get_mut(&link) else { return };
        if learner.accepted > epoch {
            // Promised to a leader that was never established. It keeps its promise, so it could take no part as long as
            // this epoch lasts, which may be for ever; the next one is newer than what it has accepted (`newest_accepted`), so
            // it is asked for once.
            let (server, accepted) = (learner.server.0, learner.accepted.0);
            return self.resign(format!(
                "server {server} has accepted epoch {accepted}, which never began, and can't take part in {}: a newer one is needed",
                epoch.0
            ));
        }
        let mut version = Vec::with_capacity(4);
        version.put_int(PROTOCOL_VERSION);
        learner.send(PacketType::LeaderInfo, epoch_zxid(epoch), Some(&version));
        learner.stage = Stage::Told;
    }

    /// ACKEPOCH: it follows no older leader any more; what is its history?
    pub(super) fn ack_epoch(&mut self, link: Link, packet: &QuorumPacket<'_>, history: &mut History, now: Now) {
        let Ok(current) = read_current_epoch(packet.data.unwrap_or_default()) else {
            return self.close(link, "an ACKEPOCH that is malformed".to_owned());
        };
        let last = (packet.zxid != -1).then(|| Zxid::from_wire(packet.zxid));
        let Some(learner) = self.learners.get_mut(&link) else { return };
        learner.last = last;
        learner.stage = Stage::AckedEpoch;
        let (server, voter) = (learner.server, learner.voter);
        if self.phase != Phase::EpochAck {
            if self.phase >= Phase::Sync {
                self.sync(link, history);
            }
            return;
        }
        // Without an epoch it does not want to be counted; without a history it must not be.
        let (Some(current), Some(last)) = (current, last) else { return };
        if (current, last) > (self.start.current, self.initial) {
            let theirs = format!("server {} has a later history ({last} of epoch {})", server.0, current.0);
            if voter {
                return self.resign(theirs);
            }
            return self.close(link, theirs);
        }
        if voter {
            self.from.insert(server);
            self.look_for_epoch_acks(now);
        }
    }

    fn look_for_epoch_acks(&mut self, now: Now) {
        if self.phase == Phase::EpochAck && self.start.quorum.contains_quorum(self.from) {
            self.enter(Phase::EpochAcked, now);
            self.outputs.push(LeaderOutput::StoreEpochs { accepted: self.epoch, current: self.epoch });
        }
    }

    /// The current epoch is durable here: NEWLEADER may be sent.
    pub(super) fn begin_sync(&mut self, history: &mut History, now: Now) {
        self.enter(Phase::Sync, now);
        let waiting: Vec<Link> =
            self.learners.iter().filter(|(_, l)| l.stage == Stage::AckedEpoch).map(|(&l, _)| l).collect();
        for link in waiting {
            self.sync(link, history);
        }
        self.look_for_newleader_acks(history, now);
    }
}
