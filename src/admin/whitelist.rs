//! Which words are answered.
//!
//! Runs on: whichever thread answers.

use super::Word;
use crate::config::Config;

/// The words that this server answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whitelist(u32);

impl Whitelist {
    /// `srvr` always; `isro` where there is a read-only mode to ask about; and what the list says. Names on the list
    /// that are no words are passed over, as ZooKeeper does.
    pub fn new(config: &Config) -> Whitelist {
        let mut bits = Word::Srvr.bit();
        if config.read_only_mode {
            bits |= Word::Isro.bit();
        }
        let listed = &config.four_letter_words;
        for word in Word::ALL {
            if listed.all || listed.words.iter().any(|name| name == word.name()) {
                bits |= word.bit();
            }
        }
        Whitelist(bits)
    }

    pub fn allows(self, word: Word) -> bool {
        self.0 & word.bit() != 0
    }
}
