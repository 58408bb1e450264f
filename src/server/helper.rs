//! Does what takes long and nobody waits for: making the log's next segment, taking purged files away.
//!
//! Runs on: a thread of its own, asleep nearly always.

use crate::disk::RealDisk;
use crate::fatal::Fatal;
use crate::log::{Housekeeper, Purge};
use std::sync::mpsc::{Receiver, Sender, channel};

enum Job {
    PrepareSegment(Housekeeper<RealDisk>),
    Purge(Purge<RealDisk>),
}

/// Where jobs are left. The thread ends when the last of these is gone.
#[derive(Clone)]
pub struct HelperMail(Sender<Job>);

pub struct Helper(Receiver<Job>);

pub fn helper() -> (HelperMail, Helper) {
    let (sender, receiver) = channel();
    (HelperMail(sender), Helper(receiver))
}

impl HelperMail {
    /// At most one is under way for each segment: the log asks once.
    pub fn prepare_segment(&self, housekeeper: Housekeeper<RealDisk>) {
        let _ = self.0.send(Job::PrepareSegment(housekeeper));
    }

    /// One for each snapshot.
    pub fn purge(&self, purge: Purge<RealDisk>) {
        if !purge.is_empty() {
            let _ = self.0.send(Job::Purge(purge));
        }
    }
}

impl Helper {
    /// A full disk is no reason to stop here: the present segment may have room for hours, and the log writer stops the
    /// server when it has not.
    pub fn run(self) -> Result<(), Fatal> {
        for job in self.0 {
            let done = match job {
                Job::PrepareSegment(housekeeper) => housekeeper.prepare_next(),
                Job::Purge(purge) => purge.run(),
            };
            match done {
                Err(fatal @ Fatal::DiskFull { .. }) => {
                    tracing::error!("{fatal}; the log has room in its present segment only. {}", fatal.advice());
                }
                other => other?,
            }
        }
        Ok(())
    }
}
